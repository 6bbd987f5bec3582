//! Links between nodes that are cut, stall, or lose their connections.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate::NodeId;
use quorate::sim::HostId;

use super::Calm;

/// Links, each from one node to another.
type Links = BTreeSet<(NodeId, NodeId)>;

pub(super) async fn partitions(calm: Calm) {
    while calm.passes().await {
        partition(&calm).await;
    }
}

/// Cuts some links for a while.
pub(super) async fn partition(calm: &Calm) {
    let cluster = &calm.cluster;
    let (shape, links) = shape(calm);
    cluster.count(shape);
    cluster.tell(|| format!("{shape}: {links:?}"));
    let host = |id: NodeId| cluster.host(id).id();
    for (from, to) in &links {
        cluster.network.cut(host(*from), host(*to));
    }
    // Once in a while they are healed one by one.
    let piecewise = calm.draw.chance(0.2);
    calm.lasts(calm.some_time()).await;
    for (from, to) in links {
        cluster.network.heal(host(from), host(to));
        if piecewise {
            calm.lasts(Duration::from_millis(20)).await;
        }
    }
    cluster.tell(|| "healed".to_owned());
}

/// Which links are cut, and what that is called.
fn shape(calm: &Calm) -> (&'static str, Links) {
    let draw = &calm.draw;
    let mut ids = calm.cluster.ids();
    draw.shuffle(&mut ids);
    let all = |cut: &dyn Fn(usize, usize) -> bool| -> Links {
        let places = 0..ids.len();
        let pairs = places.clone().flat_map(|from| places.clone().map(move |to| (from, to)));
        pairs.filter(|(from, to)| cut(*from, *to)).map(|(from, to)| (ids[from], ids[to])).collect()
    };
    let half = ids.len() / 2;
    match draw.below(7) {
        0 => ("partition: halves", all(&|from, to| (from < half) != (to < half))),
        1 => ("partition: one is isolated", all(&|from, to| (from == 0) != (to == 0))),
        2 => ("partition: one hears nothing", all(&|from, to| to == 0 && from != 0)),
        3 => ("partition: one is not heard", all(&|from, to| from == 0 && to != 0)),
        4 => {
            // The first one belongs to both halves.
            let bridge =
                |from: usize, to: usize| from != 0 && to != 0 && (from <= half) != (to <= half);
            ("partition: a bridge", all(&bridge))
        }
        5 => {
            let len = ids.len();
            let apart = |from: usize, to: usize| {
                let steps = from.abs_diff(to);
                steps > 1 && steps < len - 1
            };
            ("partition: a ring", all(&apart))
        }
        _ => {
            let links = all(&|from, to| from != to);
            let some = links.into_iter().filter(|_| draw.chance(0.3));
            ("partition: some links, one way", some.collect())
        }
    }
}

/// A link, from one host to another.
fn any_link(calm: &Calm) -> (HostId, HostId) {
    let cluster = &calm.cluster;
    let host = |id: NodeId| cluster.host(id).id();
    (host(calm.any_node()), host(calm.any_node()))
}

pub(super) async fn stalls(calm: Calm) {
    while calm.passes().await {
        let (from, to) = any_link(&calm);
        let duration = calm.some_time();
        calm.cluster.count("link stalled");
        calm.cluster.tell(|| format!("the link from {from:?} to {to:?} stalls for {duration:?}"));
        calm.cluster.network.stall(from, to, duration);
    }
}

pub(super) async fn resets(calm: Calm) {
    while calm.passes().await {
        let (one, other) = any_link(&calm);
        let broken = calm.cluster.network.reset(one, other);
        calm.cluster.tell(|| format!("{broken} connections of {one:?} and {other:?} break"));
    }
}
