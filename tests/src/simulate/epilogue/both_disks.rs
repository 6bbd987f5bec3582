//! Both disks of a node campaign in one term, and what was sent to the first comes to the second.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use quorate::sim::Crash;
use quorate::{Body, Executor, Message, NodeId, Replica, Role};

use super::Scene;
use crate::simulate::checks::Verdict;
use crate::simulate::healing::comes_true;
use crate::simulate::workload::clients;

/// How much is kept of what was sent to the first disk.
const KEPT: usize = 100;

/// Who of them hears whom.
#[derive(Default)]
struct Stage {
    /// The node that is told to take over, and campaigns with this disk.
    first: Cell<Option<Replica>>,
    /// Only this one hears of that. It is heard by nobody, and hears nothing but requests for its
    /// vote from either disk.
    voter: Cell<Option<NodeId>>,
    /// Only the second disk may ask for votes.
    is_second_alone: Cell<bool>,
    /// What was sent to the first disk.
    sent: RefCell<Vec<Message>>,
}

impl Stage {
    fn passes(&self, message: &Message, voter: impl Fn(NodeId, NodeId) -> NodeId) -> bool {
        let Message { from, to, body, .. } = message;
        if matches!(body, Body::TimeoutNow { .. }) && self.first.get().is_none() {
            self.first.set(Some(*to));
            self.voter.set(Some(voter(from.id, to.id)));
            return true;
        }
        let (Some(first), Some(voter)) = (self.first.get(), self.voter.get()) else { return true };
        if self.sent.borrow().len() < KEPT && first == *to {
            self.sent.borrow_mut().push(message.clone());
        }
        let asks = from.id == first.id && matches!(body, Body::Vote { .. });
        let is_alone = !self.is_second_alone.get() || from.id == first.id;
        let campaigns = matches!(body, Body::PreVote { .. } | Body::Vote { .. });
        if to.id == voter {
            asks
        } else {
            from.id != voter && *from != first && *to != first && (is_alone || !campaigns)
        }
    }
}

impl Scene<'_> {
    /// A leader orders a node to take over, and goes on, as only one other hears of that campaign,
    /// and votes. Then the node loses its disk, and the leader lets the next one in. What was sent
    /// to the first disk comes to the second, which does not listen (I2). When the leader dies, the
    /// second disk is elected in the term in which the first has campaigned, and not by who has
    /// voted for the first (I1).
    pub(super) async fn both_disks(&self) -> Verdict {
        let (cluster, draw) = (self.cluster, &self.cluster.faults);
        if self.core.len() < 5 {
            return Ok(()); // The leader would have no quorum for the exchange.
        }
        let stage = Rc::new(Stage::default());
        let (of, others) = (Rc::clone(&stage), self.core.to_vec());
        let number = draw.index(self.core.len());
        cluster.observer.filter(move |message| {
            of.passes(message, |leader, first| {
                let mut from = others.iter().cycle().skip(number);
                from.find(|id| **id != leader && **id != first).copied().unwrap_or(leader)
            })
        });
        let outcome = self.perform_both_disks(&stage).await;
        cluster.observer.unfilter();
        outcome
    }

    async fn perform_both_disks(&self, stage: &Stage) -> Verdict {
        let (cluster, draw) = (self.cluster, &self.cluster.faults);
        let limit = cluster.plan.patience();
        cluster.host(self.leader).disk().stall(self.election_timeout() * 3 / 2);
        clients::write_many(cluster, self.leader, 5).await;
        // Until the order is given, and maybe until it is given up.
        self.rt.sleep(draw.duration(&(self.election_timeout()..4 * self.election_timeout()))).await;
        let (Some(first), Some(voter)) = (stage.first.get(), stage.voter.get()) else {
            return Ok(());
        };
        let has_voted = || {
            cluster
                .observer
                .with_model(|model| model.nodes[&voter].durable.hard_state.voted_for == Some(first))
        };
        let leads_on = || {
            let metrics = cluster.metrics(self.leader);
            metrics.is_some_and(|now| now.role == Role::Leader && now.term == self.term)
        };
        if !has_voted() || !leads_on() || !cluster.may_damage(first.id) {
            return Ok(());
        }
        cluster.tell(|| format!("{first} has the vote of node {voter}, and loses its disk"));
        cluster.kill(first.id, Crash::Power, Duration::ZERO);
        cluster.replace_disk(first.id);
        let is_in = || !cluster.atlas.is_impaired(first.id);
        let late = async {
            loop {
                self.rt.sleep(draw.duration(&(Duration::ZERO..self.election_timeout()))).await;
                let sent = stage.sent.borrow();
                if !sent.is_empty() {
                    let message = draw.choose(&sent).clone();
                    let boot = cluster.observer.boot_of(message.from);
                    cluster.observer.deliver(message, boot);
                }
            }
        };
        let what = "the leader lets the next disk in";
        let is_done = || is_in() || !leads_on();
        let exchange = comes_true(cluster, self.rt, what, limit, is_done);
        futures::pin_mut!(late, exchange);
        match futures::future::select(late, exchange).await {
            futures::future::Either::Right((outcome, _)) => outcome?,
            futures::future::Either::Left(((), _)) => {}
        }
        if !is_in() || !leads_on() {
            return Ok(());
        }
        cluster.count("both disks of a node campaign");
        stage.is_second_alone.set(true);
        if draw.chance(0.3) {
            cluster.kill(voter, Crash::Power, Duration::ZERO);
        }
        let crash = *draw.choose(&[Crash::Power, Crash::Process]);
        cluster.kill(self.leader, crash, draw.duration(&(Duration::ZERO..2 * limit / 3)));
        // (If it has not all that is committed, it isn't.)
        self.comes_soon(|| self.leads(first.id)).await;
        self.rt.sleep(draw.duration(&(Duration::ZERO..self.election_timeout()))).await;
        Ok(())
    }
}
