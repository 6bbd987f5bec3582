//! A disk that is put back behind the back of those who remember what it has forgotten.

use std::time::Duration;

use quorate::Executor;
use quorate::sim::Crash;

use super::Scene;
use crate::simulate::checks::Verdict;
use crate::simulate::healing::{comes_true, converges, leader_of};
use crate::simulate::workload::clients;

impl Scene<'_> {
    /// A node serves with a majority, often in a later term than before. These are stopped, its
    /// disk is put back, and it goes on with the others: it may lead in the same term again, and
    /// place other entries at the same log ids. Then the former return. One of them has a
    /// contradiction in its log, or the node hears what it has forgotten.
    pub(super) async fn put_back_unseen(&self) -> Verdict {
        let (cluster, draw) = (self.cluster, &self.cluster.faults);
        let limit = cluster.plan.patience();
        let follower = self.core.iter().copied().find(|id| *id != self.leader);
        let node = if draw.chance(0.5) { self.leader } else { follower.unwrap_or(self.leader) };
        if !cluster.may_damage(node) {
            return Ok(());
        }
        let others: Vec<_> = self.core.iter().copied().filter(|id| *id != node).collect();
        let (first, second) = others.split_at(self.core.len() / 2);
        let away = 8 * limit;
        let backup = cluster.host(node).disk().durable();

        second.iter().for_each(|id| cluster.kill(*id, Crash::Power, away));
        // With a start in between, or in the run of the backup.
        let restarts = draw.chance(0.5);
        for id in first.iter().chain(restarts.then_some(&node)) {
            cluster.kill(*id, Crash::Process, Duration::ZERO);
        }
        let with_first: Vec<_> = first.iter().copied().chain([node]).collect();
        let led = || leader_of(cluster, &with_first).is_some();
        comes_true(cluster, self.rt, "a node and its first peers find a leader", limit, led)
            .await?;
        if !clients::is_served_by(cluster, node).await {
            second.iter().for_each(|id| cluster.kill(*id, Crash::Process, Duration::ZERO));
            return converges(cluster, self.rt, self.core).await; // It may have forgotten nothing.
        }
        // What is remembered goes to the disks when nothing else does.
        self.rt.sleep(self.election_timeout() + 16 * cluster.plan.config.heartbeat_interval).await;

        cluster.hold(node);
        first.iter().for_each(|id| cluster.kill(*id, Crash::Power, away));
        cluster.tell(|| format!("the disk of node {node} is put back, and {first:?} don't see it"));
        cluster.count("disk put back unseen");
        cluster.observer.look_at_history();
        cluster.observer.look_away();
        cluster.host(node).disk().replace(&backup);
        cluster.release(node);
        second.iter().for_each(|id| cluster.kill(*id, Crash::Process, Duration::ZERO));
        self.rt.sleep(draw.duration(&(Duration::ZERO..8 * self.election_timeout()))).await;
        if draw.chance(0.5) {
            cluster.kill(node, Crash::Process, Duration::ZERO);
            self.rt.sleep(draw.duration(&(Duration::ZERO..4 * self.election_timeout()))).await;
        }
        first.iter().for_each(|id| cluster.kill(*id, Crash::Process, Duration::ZERO));
        let noticed = || self.core.iter().any(|id| cluster.observer.has_noticed(*id));
        let what = "somebody notices that a disk was put back";
        comes_true(cluster, self.rt, what, limit, noticed).await
    }
}
