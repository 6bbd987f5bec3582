//! Followers that have something to catch up with: logs that part, snapshots that meet with an
//! accident on their way, a leader that can't read its own log.

use std::time::Duration;

use futures::future::join;
use quorate::Executor;
use quorate::sim::{Crash, DiskConfig};
use quorate::{NodeId, Role};

use super::Scene;
use crate::simulate::checks::Verdict;
use crate::simulate::healing::{comes_true, leader_of};
use crate::simulate::workload::clients;

/// How closely a transfer is followed.
const STEP: Duration = Duration::from_micros(500);

/// What happens to a snapshot on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accident {
    ReceiverDies,
    SenderDies,
    /// It has come, but it takes the receiver's disk long; and meanwhile there is another leader,
    /// who has entries in its place.
    Overtaken,
    ReceiverIsFull,
    /// The sender's log goes on, and it takes another snapshot.
    Outdated,
}

impl Scene<'_> {
    fn revive(&self, node: NodeId) {
        self.cluster.kill(node, Crash::Process, Duration::ZERO);
    }

    /// The leader is cut off with writes that nobody else gets, and the others go on without it. Of
    /// these so many die that its vote is needed: whoever has the later term is elected by it,
    /// though that log may be shorter (3.6.1).
    pub(super) async fn diverged_logs(&self) -> Verdict {
        let cluster = self.cluster;
        let limit = cluster.plan.patience();
        self.isolate(self.leader);
        let elected =
            comes_true(cluster, self.rt, "the others elect a leader", limit, || self.others_lead());
        let (_, elected) = join(clients::write_many(cluster, self.leader, 20), elected).await;
        elected?;
        let mut ids = self.core.to_vec();
        ids.sort_by_key(|id| (*id != self.leader, !self.leads(*id)));
        let (majority, others) = ids.split_at(self.core.len() / 2 + 1);
        for id in majority {
            cluster.kill(*id, Crash::Process, Duration::ZERO);
        }
        for id in others {
            cluster.kill(*id, Crash::Process, 2 * limit);
        }
        cluster.network.heal_all();
        let led = || leader_of(cluster, majority).is_some();
        let soon = 20 * self.election_timeout() + Duration::from_secs(6);
        comes_true(cluster, self.rt, "a majority whose logs part finds a leader", soon, led)
            .await?;
        others.iter().for_each(|id| self.revive(*id));
        Ok(())
    }

    /// A follower is away while the leader purges what it lacks; and then something happens to the
    /// snapshot on its way to it.
    pub(super) async fn lagging_follower(&self, follower: NodeId) -> Verdict {
        let (cluster, draw) = (self.cluster, &self.cluster.faults);
        let limit = cluster.plan.patience();
        cluster.kill(follower, Crash::Process, 2 * limit);
        match draw.chance(0.3) {
            true => self.compact_behind(follower).await,
            false => {
                self.rt.sleep(2 * self.election_timeout()).await;
                self.write_and_compact(*draw.choose(&[1, 2, 10, 30])).await;
            }
        }
        let accident = *draw.choose(&[
            Accident::ReceiverDies,
            Accident::ReceiverDies,
            Accident::SenderDies,
            Accident::Overtaken,
            Accident::Overtaken,
            Accident::ReceiverIsFull,
            Accident::ReceiverIsFull,
            Accident::Outdated,
        ]);
        if accident == Accident::Overtaken {
            cluster.observer.next_draft_rests(follower, 6 * self.election_timeout());
        }
        self.revive(follower);
        let progress = || {
            let metrics = cluster.metrics(self.leader)?;
            let of_follower = metrics.peers.iter().filter(|(peer, _)| peer.id == follower);
            of_follower.filter_map(|(_, peer)| peer.snapshot).next()
        };
        if !self.comes_soon(|| progress().is_some()).await {
            return Ok(());
        }
        let longest = *draw.choose(&[STEP, Duration::from_millis(20)]);
        self.rt.sleep(draw.duration(&(Duration::ZERO..longest))).await;
        cluster.tell(|| format!("{accident:?}: the snapshot from {} to {follower}", self.leader));
        match accident {
            Accident::ReceiverDies => {
                self.comes_soon(|| progress().is_none_or(|(stored, _)| stored > 0)).await;
                // The chunk that is being read comes to one who knows nothing of those before it.
                cluster.host(self.leader).disk().stall(self.election_timeout() * 4 / 5);
                self.rt.sleep(draw.duration(&(Duration::ZERO..Duration::from_millis(20)))).await;
                self.revive(follower);
            }
            Accident::SenderDies => self.revive(self.leader),
            Accident::Overtaken => {
                self.comes_soon(|| progress().is_none_or(|(stored, bytes)| stored == bytes)).await;
                cluster.kill(self.leader, Crash::Process, 2 * self.election_timeout());
                self.rt.sleep(6 * self.election_timeout()).await;
            }
            Accident::ReceiverIsFull => {
                let disk = cluster.host(follower).disk();
                let (_, bytes) = progress().unwrap_or_default();
                let capacity = disk.used() + draw.below(2 * bytes + 8192);
                self.with_disk(follower, DiskConfig { capacity, ..cluster.plan.disk.clone() })
                    .await;
            }
            Accident::Outdated => self.write_and_compact(10).await,
        }
        Ok(())
    }

    /// Whether something is so within a few moments.
    pub(super) async fn comes_soon(&self, is_so: impl Fn() -> bool) -> bool {
        let deadline = self.rt.now() + Duration::from_secs(2);
        while !is_so() && self.rt.now() < deadline {
            self.rt.sleep(STEP).await;
        }
        is_so()
    }

    /// Has the leader take a snapshot that covers just a little more than a follower has which is
    /// down, and purge all of that.
    async fn compact_behind(&self, follower: NodeId) {
        let cluster = self.cluster;
        let last = cluster.observer.with_model(|model| model.nodes[&follower].durable.last().index);
        let applied = || cluster.metrics(self.leader).is_some_and(|m| m.applied > last);
        self.comes_soon(applied).await;
        let Some(raft) = cluster.raft(self.leader) else { return };
        if raft.snapshot().await.is_ok() {
            // What peers lack that were there just now is kept.
            self.rt.sleep(2 * self.election_timeout()).await;
            let _it_may_have_ended = raft.purge().await;
        }
    }

    /// Writes through the leader, and has it purge all that its next snapshot covers.
    async fn write_and_compact(&self, writes: usize) {
        clients::write_large(self.cluster, self.leader, writes).await;
        let Some(raft) = self.cluster.raft(self.leader) else { return };
        // It may be no leader any more, or its log be short: then nothing is missing to the
        // follower.
        if raft.snapshot().await.is_ok() {
            let _it_may_have_ended = raft.purge().await;
        }
    }

    /// The disk of a node is like that for a few election timeouts.
    async fn with_disk(&self, node: NodeId, config: DiskConfig) {
        self.cluster.observer.change_model(|model| {
            if let Some(of) = model.nodes.get_mut(&node) {
                of.may_fail = true;
            }
        });
        let disk = self.cluster.host(node).disk();
        disk.configure(config);
        self.rt.sleep(4 * self.election_timeout()).await;
        disk.configure(self.cluster.plan.disk.clone());
    }

    /// A follower has lost its disk, and the leader can't read what that needs. Then it stops, so
    /// that who can read may lead; it doesn't lead on without it.
    pub(super) async fn unreadable_leader(&self, follower: NodeId) -> Verdict {
        let cluster = self.cluster;
        if !cluster.may_damage(follower) {
            return Ok(());
        }
        let good = cluster.plan.disk.clone();
        cluster.observer.change_model(|model| {
            if let Some(of) = model.nodes.get_mut(&self.leader) {
                of.may_fail = true;
            }
        });
        let disk = cluster.host(self.leader).disk();
        disk.configure(DiskConfig { read_errors: 1.0, ..good.clone() });
        cluster.kill(follower, Crash::Power, Duration::ZERO);
        cluster.replace_disk(follower);
        let leads_on = || {
            let metrics = cluster.metrics(self.leader);
            metrics.is_some_and(|metrics| metrics.role == Role::Leader && metrics.term == self.term)
        };
        let is_well = || !leads_on() || !cluster.atlas.is_impaired(follower);
        let what = "a leader that can't read its log for a peer yields";
        let outcome = comes_true(cluster, self.rt, what, cluster.plan.patience(), is_well).await;
        disk.configure(good);
        outcome
    }
}
