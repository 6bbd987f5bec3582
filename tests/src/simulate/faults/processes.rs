//! Processes that get no processor for a while, or little of it.

use super::Calm;

pub(super) async fn pauses(calm: Calm) {
    let cluster = &calm.cluster;
    while calm.passes().await {
        let Some(id) = calm.any_running() else { continue };
        cluster.count("paused");
        cluster.tell(|| format!("node {id} is paused"));
        cluster.host(id).pause();
        calm.lasts(calm.some_time()).await;
        cluster.host(id).resume();
        cluster.tell(|| format!("node {id} goes on"));
    }
}

pub(super) async fn slowness(calm: Calm) {
    let cluster = &calm.cluster;
    while calm.passes().await {
        let (id, times) = (calm.any_node(), 1 << cluster.faults.below(8));
        cluster.count("slowed down");
        cluster.tell(|| format!("node {id} is {times} times slower"));
        cluster.host(id).set_slowness(times);
        calm.lasts(calm.some_time()).await;
        cluster.host(id).set_slowness(1);
    }
}
