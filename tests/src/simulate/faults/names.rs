//! Names of nodes: look-ups that are slow, hang, are refused, or tell what is not so; and names
//! that change to an address that swallows packets, to another node's, or to none. Connections are
//! broken meanwhile, or nobody would look anything up.

use std::net::IpAddr;
use std::time::Duration;

use quorate::NodeId;
use quorate::sim::NameConfig;

use super::super::cluster::{Cluster, swallows};
use super::Calm;

pub(super) async fn names(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    while calm.passes().await {
        if draw.chance(0.5) {
            let (what, config) = look_ups(&calm);
            cluster.count(what);
            cluster.tell(|| format!("{what}: {config:?}"));
            cluster.names.configure(config);
        } else {
            let id = calm.any_node();
            let (what, addresses) = addresses(&calm, id);
            cluster.count(what);
            cluster.tell(|| format!("{what}, of node {id}: {addresses:?}"));
            cluster.names.set(cluster.host(id).name(), addresses);
        }
        let id = calm.any_node();
        reset_all(cluster, id);
        let goes_on = calm.lasts(calm.some_time()).await;
        // Some are tried on from then on, by what they were told.
        if draw.chance(0.5) {
            reset_all(cluster, id);
        }
        if !goes_on || draw.chance(0.7) {
            cluster.heal_names();
            cluster.tell(|| "all names are right again".to_owned());
        }
    }
    cluster.heal_names();
}

fn look_ups(calm: &Calm) -> (&'static str, NameConfig) {
    let good = NameConfig::default();
    let slow = Duration::from_millis(100)..Duration::from_millis(1 + calm.draw.below(10_000));
    match calm.draw.below(4) {
        0 => ("names: slow", NameConfig { takes: slow, ..good }),
        1 => ("names: a dead server", NameConfig { hang: 0.7, ..good }),
        2 => ("names: refused", NameConfig { refusal: 0.9, ..good }),
        _ => ("names: wrong", NameConfig { takes: slow, stale: 0.3, wrong: 0.5, ..good }),
    }
}

/// What the name of a node is for a while.
fn addresses(calm: &Calm, id: NodeId) -> (&'static str, Vec<IpAddr>) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let (own, other) = (cluster.host(id).ip(), cluster.host(calm.any_node()).ip());
    match draw.below(5) {
        0 => ("name: unknown", Vec::new()),
        1 => ("name: swallows packets", vec![swallows(draw.below(250) as u8)]),
        2 => ("name: another node's", vec![other]),
        3 => ("name: another node's first", vec![other, own]),
        _ => ("name: many", (0..20).map(swallows).chain([other, own]).take(22).collect()),
    }
}

fn reset_all(cluster: &Cluster, id: NodeId) {
    let of = cluster.host(id).id();
    for other in cluster.hosts.values() {
        cluster.network.reset(of, other.id());
    }
}
