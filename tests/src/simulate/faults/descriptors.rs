//! Descriptors for sockets are refused for a while (`EMFILE`): connections are neither opened nor
//! accepted. What is open goes on, and often breaks just then.
//!
//! The files of a node are not concerned: a service keeps descriptors for them, as the reference
//! service does. Threads are not either: nothing in these nodes takes one.

use super::Calm;

pub(super) async fn descriptors(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    while calm.passes().await {
        let (id, probability) = (calm.any_node(), *draw.choose(&[0.3, 0.9, 1.0]));
        let host = cluster.host(id);
        cluster.count("descriptors were refused");
        cluster.tell(|| format!("node {id} gets no descriptor, {probability} of the time"));
        host.refuse_sockets(probability);
        for other in cluster.hosts.values().filter(|_| draw.chance(0.5)) {
            cluster.network.reset(host.id(), other.id());
        }
        calm.lasts(calm.some_time()).await;
        host.refuse_sockets(0.0);
        cluster.tell(|| format!("node {id} gets descriptors again"));
    }
}
