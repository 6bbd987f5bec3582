//! Clocks that run fast or slow, and jump.

use std::time::Duration;

use super::Calm;
use crate::simulate::profile::Profile;

/// How much a clock may be wrong, in parts per million, and how far it may jump: more than any that is looked after, and less than what the protocol tolerates.
const DRIFT: u64 = 50_000;
const JUMP: Duration = Duration::from_millis(20);

/// The same of one that is not.
const WILD_DRIFT: u64 = 900_000;
const WILD_JUMP: Duration = Duration::from_secs(10);

pub(super) async fn clocks(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.faults);
    let (drift, jump) = match cluster.plan.profile {
        Profile::WildClocks => (WILD_DRIFT, WILD_JUMP),
        _ => (DRIFT, JUMP),
    };
    while calm.passes().await {
        let host = cluster.host(calm.any_node());
        if draw.chance(0.5) {
            let rate = draw.below(2 * drift) as i64 - drift as i64;
            cluster.count("clock drifts");
            cluster.tell(|| format!("the clock of {} drifts by {rate} ppm", host.name()));
            host.set_drift(rate);
        } else {
            let by = draw.duration(&(Duration::ZERO..jump));
            cluster.count("clock jumps");
            cluster.tell(|| format!("the clock of {} jumps by {by:?}", host.name()));
            host.jump(by);
        }
    }
    for host in cluster.hosts.values() {
        host.set_drift(0);
    }
}
