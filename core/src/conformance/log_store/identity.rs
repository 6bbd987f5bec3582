//! Who a store is: its incarnation, how often a node has started on it, and the cluster it belongs
//! to.

use quorate_rt::Executor;

use super::{CLUSTER, NODE, Scene, StoreFactory, durable, entries, hard_state, marks, standing};
use crate::{GroupId, LogStore, LogWrite, StoreError};

const GROUP: GroupId = 7;

fn join() -> LogWrite {
    LogWrite { cluster: Some(CLUSTER), ..LogWrite::default() }
}

/// With nothing written, with writes of one group, and with nothing more. The scene compares the
/// identities.
#[doc(hidden)]
pub async fn counts_its_starts<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    for _ in 0..3 {
        scene = scene.reopen().await;
    }
    scene.put(GROUP, entries(1, 1, 50)).await;
    for _ in 0..3 {
        scene = scene.reopen().await;
    }
    assert_eq!(scene.identity.boot, if F::DURABLE { 7 } else { 1 });
    scene.check().await;
}

/// A store is another node's, whatever is in it. A refusal changes nothing, and is no start.
#[doc(hidden)]
pub async fn refuses_another_node<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    for life in 1..4 {
        if !F::DURABLE {
            return;
        }
        let (rt, factory, past) = scene.crash();
        for other in [NODE + 1, 1, u64::MAX] {
            let store = factory.open(&rt).await;
            match store.identify(other).await {
                Err(StoreError::OtherNode { holds, wanted, .. }) => {
                    assert_eq!((holds, wanted), (NODE, other));
                }
                outcome => panic!("node {other} starts on the store of node {NODE}: {outcome:?}"),
            }
        }
        scene = Scene::resume(rt, factory, past).await;
        scene.check().await;
        scene.put(GROUP, entries(life, 10 * life - 9, 10 * life)).await;
    }
}

/// Two stores of one kind, whoever starts on them.
#[doc(hidden)]
pub async fn tells_stores_apart<R: Executor, F: StoreFactory<R>>(rt: R, one: F, other: F) {
    let one = Scene::open(rt.clone(), one, &[GROUP]).await;
    let other = Scene::open(rt, other, &[GROUP]).await;
    assert_ne!(one.identity.incarnation, other.identity.incarnation, "they are two stores");
    one.reopen().await.check().await;
    other.reopen().await.check().await;
}

/// The store is dropped while it is told of its cluster, with entries and without: it belongs to
/// that cluster exactly if the write is there. From then on it does, whatever is purged.
#[doc(hidden)]
pub async fn joins_a_cluster_with_the_write_that_says_so<R: Executor, F: StoreFactory<R>>(
    rt: R,
    factory: F,
) {
    const OTHER: GroupId = GROUP + 1;
    let mut scene = Scene::open(rt, factory, &[GROUP, OTHER]).await;
    scene.put(OTHER, hard_state(3, Some(2))).await;
    let mut joined = None;
    for life in 0..20_u64 {
        // Until one is there: a store joins once.
        let outcome = scene.submit(GROUP, LogWrite { cluster: Some(CLUSTER), ..entries(1, 1, 3) });
        for _ in 0..life {
            scene.turn().await;
        }
        if life == 19 {
            durable(outcome).await;
        }
        scene = scene.reopen().await;
        let is_there = scene.log(GROUP).last().index == 3;
        assert_eq!(scene.identity.cluster, is_there.then_some(CLUSTER), "with its entries");
        joined = scene.identity.cluster;
        if joined.is_some() {
            break;
        }
    }
    if !F::DURABLE {
        return;
    }
    assert_eq!(joined, Some(CLUSTER), "the last one was durable");
    // Once more does no harm, from another group as well.
    scene.put(OTHER, LogWrite { cluster: Some(CLUSTER), ..standing(2) }).await;
    scene.put(GROUP, join()).await;
    scene = scene.reopen().await;
    assert_eq!(scene.identity.cluster, Some(CLUSTER));
    // The write that said so is purged.
    for round in 1..10 {
        let last = scene.log(GROUP).last().index;
        scene.put(GROUP, entries(round, last + 1, last + 200)).await;
        scene.take_snapshot(GROUP, last + 200, super::content(round, 1000)).await;
        let purge = Some(scene.log(GROUP).last());
        scene.put(GROUP, LogWrite { purge, ..marks(round) }).await;
        scene = scene.reopen().await;
        assert_eq!(scene.identity.cluster, Some(CLUSTER));
    }
    scene.check().await;
}
