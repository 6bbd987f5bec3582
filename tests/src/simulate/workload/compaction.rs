//! Somebody who asks nodes for snapshots, and to purge their logs, now and then.

use std::rc::Rc;
use std::time::Duration;

use quorate::sim::Sim;
use quorate::{Executor, LogId, SnapshotError};

use crate::simulate::cluster::{Cluster, Phase};
use crate::simulate::observer::now;

pub(super) async fn run(cluster: Rc<Cluster>, rt: Sim) {
    let draw = &cluster.workload;
    let asks = draw.chance(0.6);
    while asks && cluster.phase() != Phase::Ending {
        rt.sleep(draw.duration(&(Duration::from_millis(50)..Duration::from_secs(2)))).await;
        let id = *draw.choose(&cluster.ids());
        let Some(raft) = cluster.raft(id) else { continue };
        let snapshot = draw.chance(0.6);
        let outcome: Result<LogId, SnapshotError> =
            if snapshot { raft.snapshot().await } else { raft.purge().await };
        cluster.tell(|| format!("node {id} was asked to compact its log: {outcome:?}"));
        match outcome {
            Ok(_) => cluster.count(if snapshot { "snapshot asked for" } else { "purge asked for" }),
            Err(error @ SnapshotError::StateMachine(_)) => {
                let verdict = Err(format!("node {id} takes no snapshot: {error}"));
                cluster.observer.accuse("compaction", verdict, now());
            }
            Err(_) => {}
        }
    }
}
