//! A disk is lost, the leader transfers leadership, links are cut and a node is restarted, all
//! within one election timeout, in any order.

use std::time::Duration;

use futures::future::join4;
use quorate::sim::Crash;

use super::{Calm, network};

pub(super) async fn upheavals(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    while calm.passes().await {
        let id = calm.any_node();
        if cluster.is_protected(id) || !cluster.may_damage(id) {
            continue;
        }
        cluster.count("upheaval");
        let timeout = cluster.plan.config.election_timeout;
        let soon = || draw.duration(&(Duration::ZERO..timeout));
        let (rest, other, power) = (soon(), calm.any_node(), draw.chance(0.5));
        let wipe = async {
            calm.lasts(soon()).await;
            // In the meantime another may have been.
            if !cluster.is_protected(id) && cluster.may_damage(id) {
                cluster.count("disk lost");
                cluster.kill(id, Crash::Power, rest);
                cluster.replace_disk(id);
            }
        };
        let transfer = async {
            calm.lasts(soon()).await;
            if let Some(leader) = calm.leader() {
                cluster.count("stopped in order");
                cluster.stop(leader, soon());
            }
        };
        let partition = async {
            calm.lasts(soon()).await;
            network::partition(&calm).await;
        };
        let restart = async {
            calm.lasts(soon()).await;
            let (crash, counted) = match power {
                true => (Crash::Power, "power lost"),
                false => (Crash::Process, "process killed"),
            };
            cluster.count(counted);
            cluster.kill(other, crash, soon());
        };
        join4(wipe, transfer, partition, restart).await;
    }
}
