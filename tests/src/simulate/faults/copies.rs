//! Folders in the wrong place: copies that are started on another host, and folders of two nodes
//! that are swapped.
//!
//! A copy has the same replica as the original. It may start, and its peers refuse it, or answer to
//! where the original is: it must never lead, and do no harm but that its original must be started
//! again. On the folder of another node none
//! starts.

use std::rc::Rc;
use std::time::Duration;

use quorate::sim::{Crash, Sim};
use quorate::{Executor, FileStore, NodeId, Role, StartError, StoreError, TcpTransport};

use super::Calm;
use crate::Single;
use crate::simulate::cluster::{Cluster, PORT};
use crate::simulate::ledger::Ledger;
use crate::simulate::observer::{DATA, now};

pub(super) async fn copies(calm: Calm) {
    let cluster = &calm.cluster;
    while calm.passes().await {
        let id = calm.any_node();
        // A copy of the only voter is a quorum of its own: nobody is there to refuse it.
        let has_peers = cluster.plan.nodes > 1;
        if !has_peers
            || cluster.is_forming()
            || !cluster.observer.with_model(|model| model.is_founded())
        {
            continue;
        }
        cluster.count("folder copied");
        cluster.tell(|| format!("a copy of the folder of node {id} is started elsewhere"));
        cluster.observer.change_model(|model| {
            model.copied.insert(id);
        });
        let host = &cluster.copies;
        host.disk().replace(&cluster.host(id).disk().durable());
        let of = Rc::clone(cluster);
        host.start(async move |rt| run_copy(of, rt, id).await);
        calm.lasts(calm.some_time()).await;
        host.crash(Crash::Process);
        // Peers that the original was not connected to may have met the copy, which has started
        // once more often on its folder: the original is refused until it has, too.
        while cluster.is_protected(id) {
            calm.rt.sleep(Duration::from_millis(20)).await;
        }
        cluster.kill(id, Crash::Process, Duration::ZERO);
    }
}

/// A process like a node's, on the copy of its folder. It may end in any way but as a leader.
async fn run_copy(cluster: Rc<Cluster>, rt: Sim, id: NodeId) {
    let Ok(store) = FileStore::open_with(&rt, DATA, cluster.plan.file.clone()).await else {
        return;
    };
    let address = format!("{}:{PORT}", rt.host().ip());
    let transport = TcpTransport::bind_with(&rt, &address, cluster.plan.tcp.clone()).await;
    let Ok(transport) = transport else { return };
    let node = Single::start(
        &rt,
        id,
        cluster.plan.config.clone(),
        store,
        transport,
        Ledger::new(rt.clone(), id, None),
    )
    .await;
    let Ok(node) = node else { return };
    let mut metrics = node.raft().metrics();
    let watched = rt.spawn(async move {
        loop {
            if metrics.borrow().role == Role::Leader {
                let verdict = Err(format!("a copy of the folder of node {id} leads"));
                cluster.observer.accuse("copies", verdict, now());
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
    let _how_it_ends = node.stopped().await;
    drop(watched);
}

pub(super) async fn swaps(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    while calm.passes().await {
        let mut ids = cluster.ids();
        draw.shuffle(&mut ids);
        let [one, other, ..] = ids[..] else { continue };
        let may = |id| {
            let is_known = cluster.observer.with_model(|model| model.replica(id).is_some());
            is_known && !cluster.is_protected(id) && !cluster.atlas.is_impaired(id)
        };
        if cluster.is_forming() || !may(one) || !may(other) {
            continue;
        }
        cluster.count("folders swapped");
        cluster.tell(|| format!("the folders of nodes {one} and {other} are swapped for a moment"));
        let images = [one, other].map(|id| {
            cluster.hold(id);
            cluster.host(id).disk().durable()
        });
        let [of_one, of_other] = &images;
        for (id, image) in [(one, of_other), (other, of_one)] {
            cluster.host(id).disk().replace(image);
            let of = Rc::clone(cluster);
            cluster.host(id).start(async move |rt| {
                let verdict = refuses(&of, rt, id).await;
                of.observer.accuse("swaps", verdict, now());
            });
        }
        calm.lasts(calm.some_time()).await;
        for (id, image) in [(one, of_one), (other, of_other)] {
            cluster.host(id).crash(Crash::Power);
            cluster.host(id).disk().replace(image);
            cluster.release(id);
        }
    }
}

/// A node that is started on the folder of another one says so, and does not start.
async fn refuses(cluster: &Cluster, rt: Sim, id: NodeId) -> Result<(), String> {
    let Ok(store) = FileStore::open_with(&rt, DATA, cluster.plan.file.clone()).await else {
        return Ok(());
    };
    let address = format!("{}:{PORT}", rt.host().ip());
    let transport = TcpTransport::bind_with(&rt, &address, cluster.plan.tcp.clone()).await;
    let Ok(transport) = transport else { return Ok(()) };
    let started = Single::start(
        &rt,
        id,
        cluster.plan.config.clone(),
        store,
        transport,
        Ledger::new(rt.clone(), id, None),
    )
    .await;
    match started {
        Err(StartError::Store(StoreError::OtherNode { .. })) => {
            cluster.count("node of another folder refused");
            Ok(())
        }
        // Its disk may fail.
        Err(StartError::Store(StoreError::Io { .. } | StoreError::Poisoned(_))) => Ok(()),
        Err(error) => Err(format!("on the folder of another node, node {id} says {error}")),
        Ok(_) => Err(format!("node {id} starts on the folder of another node")),
    }
}
