//! A `TimeoutNow` that is late.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use quorate::{Body, Executor, Message, Role};

use super::Scene;
use crate::simulate::checks::Verdict;
use crate::simulate::healing::leader_of;
use crate::simulate::workload::clients;

impl Scene<'_> {
    /// A leader whose disk hangs transfers leadership, and the order is held back. So the leader
    /// gives that up and leads on, and says so. Then the order comes, at any time and maybe more
    /// than once. It is out of date, and unseats nobody (I10).
    pub(super) async fn late_order(&self) -> Verdict {
        let (cluster, draw) = (self.cluster, &self.cluster.faults);
        let held: Rc<RefCell<Option<Message>>> = Rc::default();
        let hold = Rc::clone(&held);
        cluster.observer.filter(move |message| {
            let is_order = matches!(message.body, Body::TimeoutNow { .. });
            if is_order && hold.borrow().is_none() {
                hold.replace(Some(message.clone()));
            }
            !is_order
        });
        cluster.host(self.leader).disk().stall(self.election_timeout() * 3 / 2);
        clients::write_many(cluster, self.leader, 5).await;
        // Twice an election timeout: until the order is given, and until it is given up.
        self.rt.sleep(3 * self.election_timeout()).await;
        cluster.observer.unfilter();
        let Some(order) = held.take() else { return Ok(()) };
        if draw.chance(0.5) {
            clients::write_many(cluster, self.leader, *draw.choose(&[1, 5])).await;
        }
        self.rt.sleep(draw.duration(&(Duration::ZERO..8 * self.election_timeout()))).await;
        let is_leader = || {
            let metrics = cluster.metrics(self.leader);
            metrics.is_some_and(|now| now.role == Role::Leader && now.term == self.term)
        };
        if !is_leader() || leader_of(cluster, self.core) != Some(self.leader) {
            return Ok(()); // It could not transfer leadership, and has stepped down.
        }
        cluster.count("late TimeoutNow");
        let boot = cluster.observer.boot_of(order.from);
        let comes = async {
            for _ in 0..1 + draw.below(3) {
                cluster.observer.deliver(order.clone(), boot);
                self.rt.sleep(draw.duration(&(Duration::ZERO..self.election_timeout()))).await;
            }
            self.rt.sleep(4 * self.election_timeout()).await;
        };
        self.leads_on("a TimeoutNow came late", comes).await
    }
}
