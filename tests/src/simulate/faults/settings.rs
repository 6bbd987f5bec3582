//! Settings that are changed on one node after the other, while it runs, and not everywhere alike:
//! timeouts, limits, and whether a node campaigns, sends heartbeats and asks for pre-votes.

use std::time::Duration;

use quorate::Config;

use super::Calm;

pub(super) async fn settings(calm: Calm) {
    let cluster = &calm.cluster;
    while calm.passes().await {
        let Some(raft) = calm.any_running().and_then(|id| cluster.raft(id)) else { continue };
        let (id, config) = (raft.id(), other(&calm));
        cluster.tell(|| {
            let Config { heartbeat_interval, election_timeout, .. } = config;
            let Config { elections, heartbeats, pre_vote, .. } = config;
            format!("node {id} gets settings: heartbeats each {heartbeat_interval:?}, timeout {election_timeout:?}, elections {elections}, heartbeats {heartbeats}, pre-vote {pre_vote}")
        });
        cluster.count("settings changed");
        drop(raft.configure(config)); // It is queued.
    }
    for raft in cluster.ids().into_iter().filter_map(|id| cluster.raft(id)) {
        drop(raft.configure(cluster.plan.config.clone()));
    }
}

/// Other settings than the plan's, which can work.
fn other(calm: &Calm) -> Config {
    let (draw, plan) = (&calm.draw, &calm.cluster.plan.config);
    let election_timeout = plan.election_timeout * (1 + draw.below(8) as u32) / 4;
    let append = draw.within(&(1..plan.max_append_bytes as u64 + 1)) as usize;
    Config {
        election_timeout,
        heartbeat_interval: election_timeout / (3 + draw.below(7) as u32),
        request_timeout: election_timeout + draw.duration(&(Duration::ZERO..2 * election_timeout)),
        max_append_bytes: append.max(64),
        max_inflight_bytes: plan.max_inflight_bytes.max(append.max(64)),
        max_pending_reads: 1 + draw.below(plan.max_pending_reads as u64) as usize,
        elections: draw.chance(0.8),
        heartbeats: draw.chance(0.8),
        pre_vote: draw.chance(0.6),
        ..plan.clone()
    }
}
