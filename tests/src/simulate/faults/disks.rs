//! Disks that fail, are full, or stall. What was durable on them stays.

use quorate::NodeId;
use quorate::sim::DiskConfig;

use super::Calm;

/// Lets a disk be like that for a while.
async fn for_a_while(calm: &Calm, id: NodeId, config: DiskConfig) {
    let cluster = &calm.cluster;
    if cluster.is_protected(id) {
        return;
    }
    cluster.observer.change_model(|model| {
        if let Some(of) = model.nodes.get_mut(&id) {
            of.may_fail = true;
        }
    });
    cluster.host(id).disk().configure(config);
    calm.lasts(calm.some_time()).await;
    cluster.host(id).disk().configure(cluster.plan.disk.clone());
}

pub(super) async fn errors(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.faults);
    while calm.passes().await {
        let id = calm.any_node();
        let good = cluster.plan.disk.clone();
        let rate = *draw.choose(&[0.001, 0.01, 0.2]);
        let config = match draw.below(4) {
            0 => DiskConfig { read_errors: rate, ..good },
            1 => DiskConfig { write_errors: rate, ..good },
            2 => DiskConfig { sync_errors: rate, ..good },
            _ => DiskConfig { read_errors: rate, write_errors: rate, sync_errors: rate, ..good },
        };
        cluster.tell(|| format!("the disk of node {id} fails now and then: {config:?}"));
        for_a_while(&calm, id, config).await;
    }
}

pub(super) async fn full(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.faults);
    while calm.passes().await {
        let id = calm.any_node();
        if cluster.is_protected(id) {
            continue;
        }
        let disk = cluster.host(id).disk();
        // Another program takes what is left, gives some of it back, and takes that as well. No
        // node stops for it.
        for _ in 0..=draw.below(3) {
            let left = draw.below(2 * cluster.plan.file.segment_bytes);
            cluster.count("disk filled up");
            cluster.tell(|| format!("the disk of node {id} has {left} bytes left"));
            disk.set_capacity(disk.used() + left);
            calm.lasts(calm.some_time()).await;
        }
        disk.set_capacity(cluster.plan.disk.capacity);
    }
}

pub(super) async fn stalls(calm: Calm) {
    let cluster = &calm.cluster;
    while calm.passes().await {
        let (id, duration) = (calm.any_node(), calm.some_time());
        cluster.count("disk stalled");
        cluster.tell(|| format!("the disk of node {id} stalls for {duration:?}"));
        cluster.host(id).disk().stall(duration);
    }
}
