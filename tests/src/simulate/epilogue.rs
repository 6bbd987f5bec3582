//! What is tried when all is well again and the core serves: one fault more, of which it is known
//! what must come.

mod both_disks;
mod leadership_transfer;
mod put_back;
mod replication;

use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, join, join_all, select};
use quorate::sim::{Crash, NetworkConfig, Sim};
use quorate::{Executor, NodeId, Role, Term};

use super::checks::Verdict;
use super::cluster::Cluster;
use super::faults::strangers;
use super::healing::{comes_true, converges, leader_of};
use super::observer::now;
use super::plan::Epilogue;
use super::quiet;
use super::workload::clients;

pub async fn perform(cluster: &Rc<Cluster>, rt: &Sim, core: &[NodeId]) -> Verdict {
    let everybody = core.len() == cluster.hosts.len();
    if cluster.plan.epilogue == Epilogue::None || !everybody || core.len() < 3 {
        return Ok(());
    }
    // Those that have lost their disks have to catch up first.
    let limit = cluster.plan.patience();
    let whole = || core.iter().all(|id| !cluster.atlas.is_impaired(*id));
    if comes_true(cluster, rt, "all are whole", limit, whole).await.is_err() {
        return Ok(());
    }
    let Some(leader) = leader_of(cluster, core) else { return Ok(()) };
    let Some(term) = cluster.metrics(leader).map(|metrics| metrics.term) else { return Ok(()) };
    let Some(follower) = core.iter().copied().find(|id| *id != leader) else { return Ok(()) };
    cluster.tell(|| format!("epilogue: {:?}, of leader {leader}", cluster.plan.epilogue));
    let scene = Scene { cluster, rt, core, leader, term };
    match cluster.plan.epilogue {
        Epilogue::None => Ok(()),
        Epilogue::CutOffFollower => scene.cut_off_follower(follower).await,
        Epilogue::CutOffLeader => scene.cut_off_leader().await,
        Epilogue::StalledLeader => scene.stalled_leader().await,
        Epilogue::HungFollowers => scene.hung_followers().await,
        Epilogue::ColdStart => scene.cold_start().await,
        Epilogue::Siege => scene.siege().await,
        Epilogue::StoppedLeader => scene.stopped_leader().await,
        Epilogue::FailedTransfer => scene.failed_transfer().await,
        Epilogue::DeafLeader => scene.deaf_leader().await,
        Epilogue::DivergedLogs => scene.diverged_logs().await,
        Epilogue::LaggingFollower => scene.lagging_follower(follower).await,
        Epilogue::UnreadableLeader => scene.unreadable_leader(follower).await,
        Epilogue::LateOrder => scene.late_order().await,
        Epilogue::BothDisks => scene.both_disks().await,
        Epilogue::Burst => scene.burst(follower).await,
        Epilogue::PutBackUnseen => return scene.put_back_unseen().await,
    }?;
    converges(cluster, rt, core).await
}

struct Scene<'a> {
    cluster: &'a Rc<Cluster>,
    rt: &'a Sim,
    core: &'a [NodeId],
    leader: NodeId,
    term: Term,
}

impl Scene<'_> {
    fn election_timeout(&self) -> Duration {
        self.cluster.plan.config.election_timeout
    }

    fn isolate(&self, node: NodeId) {
        let cluster = self.cluster;
        for other in self.core.iter().filter(|other| **other != node) {
            let (node, other) = (cluster.host(node).id(), cluster.host(*other).id());
            cluster.network.cut(node, other);
            cluster.network.cut(other, node);
        }
    }

    /// Whether it leads, since the epilogue has begun.
    fn leads(&self, node: NodeId) -> bool {
        let metrics = self.cluster.metrics(node);
        metrics.is_some_and(|metrics| metrics.role == Role::Leader && metrics.term > self.term)
    }

    fn somebody_leads(&self) -> bool {
        self.core.iter().any(|id| self.leads(*id))
    }

    fn others_lead(&self) -> bool {
        self.core.iter().any(|id| *id != self.leader && self.leads(*id))
    }

    /// A node that returns unseats nobody (thesis 9.6, 4.2.3).
    async fn cut_off_follower(&self, follower: NodeId) -> Verdict {
        self.isolate(follower);
        self.rt.sleep(8 * self.election_timeout()).await;
        let returns = async {
            self.cluster.network.heal_all();
            self.rt.sleep(4 * self.election_timeout() + Duration::from_secs(10)).await;
        };
        self.leads_on(&format!("node {follower} was cut off and has returned"), returns).await
    }

    /// A leader stays one, whatever this is.
    async fn leads_on(&self, what: &str, happens: impl Future<Output = ()>) -> Verdict {
        let before = self.cluster.metrics(self.leader);
        let leads = before.as_ref().is_some_and(|metrics| metrics.role == Role::Leader);
        happens.await;
        let after = self.cluster.metrics(self.leader);
        match (before, after) {
            (Some(before), Some(after)) if leads => {
                if after.role == Role::Leader && after.term == before.term {
                    return Ok(());
                }
                let (role, old, new) = (after.role, before.term, after.term);
                let leader = self.leader;
                Err(format!("{what}, and leader {leader} of term {old} is a {role} in term {new}"))
            }
            _ => Ok(()),
        }
    }

    /// A leader that nobody hears is none (6.2), and the others go on.
    async fn cut_off_leader(&self) -> Verdict {
        let limit = self.cluster.plan.patience();
        // So that the groups rest in which nothing happens; it mostly leads these as well.
        self.rt.sleep(5 * self.cluster.plan.config.heartbeat_interval).await;
        self.isolate(self.leader);
        let stepped_down = || {
            let metrics = self.cluster.metrics(self.leader);
            metrics.is_none_or(|metrics| metrics.role != Role::Leader)
        };
        let what = "a leader that is cut off steps down";
        let soon = 4 * self.election_timeout();
        comes_true(self.cluster, self.rt, what, soon, stepped_down).await?;
        let what = "the others elect a leader";
        comes_true(self.cluster, self.rt, what, limit, || self.others_lead()).await?;
        let others: Vec<_> = self.core.iter().copied().filter(|id| *id != self.leader).collect();
        quiet::serves(self.cluster, self.rt, &others).await?;
        self.cluster.network.heal_all();
        Ok(())
    }

    /// A leader whose disk hangs transfers leadership. (It takes a write to notice.)
    async fn stalled_leader(&self) -> Verdict {
        let limit = self.cluster.plan.patience();
        let cluster = self.cluster;
        cluster.host(self.leader).disk().stall(4 * limit);
        let writes = async {
            loop {
                clients::is_served_by(cluster, self.leader).await;
                self.rt.sleep(Duration::from_millis(100)).await;
            }
        };
        let what = "a leader whose disk hangs transfers leadership";
        let over = comes_true(cluster, self.rt, what, limit, || self.others_lead());
        futures::pin_mut!(writes, over);
        let outcome = match select(writes, over).await {
            Either::Right((outcome, _)) => outcome,
            Either::Left(((), _)) => Ok(()),
        };
        cluster.host(self.leader).disk().resume();
        // What hangs until then is a matter of the past: the process is started anew.
        cluster.kill(self.leader, Crash::Process, Duration::ZERO);
        outcome
    }

    /// A leader that can't commit takes no more of what is passed on to it than it may have
    /// uncommitted; the rest is refused.
    async fn hung_followers(&self) -> Verdict {
        let cluster = self.cluster;
        let followers = || self.core.iter().copied().filter(|id| *id != self.leader);
        for id in followers() {
            cluster.host(id).disk().stall(2 * self.election_timeout());
        }
        join_all(followers().map(|id| clients::write_many_large(cluster, id, 30))).await;
        Ok(())
    }

    /// While nothing fails, each write that is passed on has an outcome that is known (R20).
    async fn burst(&self, follower: NodeId) -> Verdict {
        const BYTES: usize = 2 << 20;
        const MOST: usize = 500;
        let Self { cluster, leader, .. } = *self;
        let (network, command) = (&cluster.network, cluster.plan.config.max_command_bytes);
        let before = network.config();
        // So that nothing takes so long that it counts as lost.
        network.configure(NetworkConfig {
            latency: Duration::from_micros(50)..Duration::from_micros(200),
            bandwidth: 1 << 30,
            window: 256 << 10..1 << 20,
            segment: 16 << 10..64 << 10,
            ..before.clone()
        });
        let led = || cluster.metrics(follower).map(|metrics| (metrics.leader, metrics.term));
        let leads = led();
        let count = (BYTES / command).clamp(10, MOST);
        let unknown = clients::write_many_large(cluster, follower, count).await;
        network.configure(before);
        let stays = leads == Some((Some(leader), self.term)) && led() == leads;
        cluster.count(if stays { "burst, of one leader" } else { "burst, of several leaders" });
        match unknown {
            count if count > 0 && stays => Err(format!(
                "node {follower} has passed a burst on, nothing has failed, and nobody knows what \
                 became of {count} writes"
            )),
            _ => Ok(()),
        }
    }

    /// All nodes start at once, and find a leader within a few election timeouts.
    async fn cold_start(&self) -> Verdict {
        for id in self.core {
            self.cluster.kill(*id, Crash::Power, Duration::from_millis(100));
        }
        let led = || leader_of(self.cluster, self.core).is_some();
        let limit = 20 * self.election_timeout() + Duration::from_secs(6);
        comes_true(self.cluster, self.rt, "a cold start finds a leader", limit, led).await
    }

    /// Strangers lock nobody out (P10). The nodes start one after the other, so that each has as
    /// many strangers as it takes before the next one wants to connect.
    async fn siege(&self) -> Verdict {
        const APART: Duration = Duration::from_secs(1);
        let (cluster, control) = (self.cluster, self.rt);
        let mut rest = Duration::from_millis(100);
        for id in self.core {
            cluster.kill(*id, Crash::Power, rest);
            rest += APART;
        }
        let _besiegers: Vec<_> =
            self.core.iter().map(|id| strangers::siege(cluster, control, *id)).collect();
        let led = || leader_of(cluster, self.core).is_some();
        let limit = rest + 20 * self.election_timeout() + Duration::from_secs(6);
        comes_true(cluster, control, "a besieged cluster finds a leader", limit, led).await
    }

    /// A leader whose disk hangs transfers leadership to a peer that dies before it can campaign.
    /// Then it tells another to, or leads on and takes what is new (3.10).
    async fn failed_transfer(&self) -> Verdict {
        let cluster = self.cluster;
        let of = Rc::clone(cluster);
        if cluster.faults.chance(0.5) {
            return self.failed_transfer_by_hand().await;
        }
        cluster.observer.at_next_transfer(move |heir| {
            of.tell(|| format!("node {heir} dies, which is to take over"));
            of.host(heir).crash(Crash::Process);
        });
        cluster.host(self.leader).disk().stall(self.election_timeout() * 3 / 2);
        clients::write_many(cluster, self.leader, 5).await;
        self.rt.sleep(2 * self.election_timeout()).await;
        Ok(())
    }

    /// An operator has leadership transferred to a node that dies as it is to take over, and stays
    /// down for a while. Meanwhile the leader gives that up and serves (E8).
    async fn failed_transfer_by_hand(&self) -> Verdict {
        let cluster = self.cluster;
        let config = &cluster.plan.config;
        let limit =
            6 * config.election_timeout + 4 * config.request_timeout + Duration::from_secs(2);
        let of = Rc::clone(cluster);
        cluster.observer.at_next_transfer(move |heir| {
            of.tell(|| format!("node {heir} dies, which is to take over"));
            of.kill(heir, Crash::Process, 2 * limit);
        });
        let Some(raft) = cluster.raft(self.leader) else { return Ok(()) };
        let heir = self.core.iter().copied().find(|id| *id != self.leader);
        let _told = self.rt.spawn(raft.transfer_leadership(heir));
        let served_by = now() + limit;
        self.rt.sleep(self.election_timeout()).await;
        while !clients::is_served_by(cluster, self.leader).await {
            if now() >= served_by {
                let leader = self.leader;
                return Err(format!(
                    "leader {leader} does not serve within {limit:?} after a transfer to {heir:?} \
                     that nobody took up"
                ));
            }
            self.rt.sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// A leader whose disk hangs transfers leadership, and doesn't hear that another leads. It may
    /// take itself for the leader as long as it can have heard of its peers; but what is written
    /// meanwhile a read of it would not see (6.4).
    async fn deaf_leader(&self) -> Verdict {
        let cluster = self.cluster;
        let (of, leader) = (Rc::clone(cluster), self.leader);
        cluster.observer.at_next_transfer(move |_| {
            for other in of.ids().into_iter().filter(|other| *other != leader) {
                of.network.cut(of.host(other).id(), of.host(leader).id());
            }
        });
        cluster.host(leader).disk().stall(3 * self.election_timeout());
        let asked = async {
            let limit = cluster.plan.patience();
            // It may be itself: a leader that can't transfer leadership, as its peers need what its
            // disk does not give, steps down; and then that works again.
            let what = "somebody is elected";
            comes_true(cluster, self.rt, what, limit, || self.somebody_leads()).await?;
            if let Some(next) = self.core.iter().find(|id| **id != leader && self.leads(**id)) {
                clients::write_and_read(cluster, *next, leader).await;
            }
            Ok(())
        };
        let (_, asked) = join(clients::write_many(cluster, leader, 2), asked).await;
        cluster.network.heal_all();
        asked
    }

    /// A leader that is stopped in order leaves the cluster with one. (Where it couldn't transfer
    /// leadership, it may be itself, once it is back.)
    async fn stopped_leader(&self) -> Verdict {
        let limit = 20 * self.election_timeout() + Duration::from_secs(6);
        self.cluster.stop(self.leader, Duration::from_secs(1));
        comes_true(
            self.cluster,
            self.rt,
            "after a leader was stopped, there is another",
            limit,
            || self.somebody_leads(),
        )
        .await
    }
}
