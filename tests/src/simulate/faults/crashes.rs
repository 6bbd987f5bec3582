//! Processes that are killed, machines that lose their power, and services that are restarted in
//! order.

use std::time::Duration;

use quorate::sim::Crash;

use super::Calm;

/// How many polls later a process dies, at most: so it dies anywhere in what it does.
const SOON: u64 = 300;

fn a_crash(calm: &Calm) -> (Crash, &'static str) {
    *calm.cluster.faults.choose(&[(Crash::Process, "process killed"), (Crash::Power, "power lost")])
}

pub(super) async fn crashes(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.faults);
    while calm.passes().await {
        let rest = draw.duration(&(Duration::ZERO..calm.some_time() + Duration::from_millis(50)));
        if draw.chance(0.1) {
            let (crash, counted) = a_crash(&calm);
            for id in cluster.ids() {
                cluster.count(counted);
                cluster.kill(id, crash, rest);
            }
            continue;
        }
        let Some(id) = calm.any_running() else {
            continue;
        };
        let (crash, counted) = a_crash(&calm);
        cluster.count(counted);
        if draw.chance(0.7) {
            cluster.kill_soon(id, draw.below(SOON), crash, rest);
        } else {
            cluster.kill(id, crash, rest);
        }
    }
}

pub(super) async fn restarts(calm: Calm) {
    let cluster = &calm.cluster;
    while calm.passes().await {
        let Some(id) = calm.any_running() else {
            continue;
        };
        cluster.count("stopped in order");
        cluster.stop(id, calm.some_time());
    }
}
