//! Clocks that run fast or slow, and jump; wall clocks that are set forward and back.

use std::time::Duration;

use super::Calm;
use crate::simulate::profile::Profile;

/// How much a clock may be wrong, in parts per million, and how far it may jump: more than any that
/// is looked after, and less than what the protocol tolerates.
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

/// The largest jump of a wall clock, in milliseconds: as NTP steps it, as a virtual machine that
/// was suspended finds it, and as an operator sets it wrongly. No profile relies on smaller ones.
const WALL_JUMPS: [u64; 3] = [100, 60_000, 24 * 3_600_000];

/// Draws from a generator of its own, so that the other faults of a seed are the same without it.
pub(super) async fn wall_clocks(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.wall_clocks);
    let ids = cluster.ids();
    while calm.lasts(draw.duration(&(Duration::ZERO..2 * calm.mean))).await {
        let host = cluster.host(*draw.choose(&ids));
        let by = draw.within(&(1..*draw.choose(&WALL_JUMPS))).cast_signed();
        let (what, by) = match draw.chance(0.5) {
            true => ("wall clock set forward", by),
            false => ("wall clock set back", -by),
        };
        cluster.count(what);
        cluster.tell(|| format!("the wall clock of {} is set by {by} ms", host.name()));
        host.set_wall_clock_offset(host.wall_clock_offset() + by);
    }
    for host in cluster.hosts.values() {
        host.set_wall_clock_offset(0);
    }
}
