//! Groups: each is open once, and can be removed.

use quorate_rt::Executor;

use super::{Scene, StoreFactory, content, entries, hard_state, marks, standing};
use crate::{GroupId, LogStore, LogWrite, Standing, StoreError};

const GROUP: GroupId = 7;
const OTHER: GroupId = 8;

fn is_in_use<T>(outcome: Result<T, StoreError>, group: GroupId) -> bool {
    matches!(outcome, Err(StoreError::GroupInUse(named)) if named == group)
}

/// A group that is open is not opened again, whoever asks, until it is released.
#[doc(hidden)]
pub async fn opens_a_group_once<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, OTHER]).await;
    scene.put(GROUP, LogWrite { ..entries(1, 1, 9) }).await;
    assert!(is_in_use(scene.store.recover(GROUP).await, GROUP), "it is open");
    assert!(is_in_use(scene.store.recover(OTHER).await, OTHER), "the other one as well");
    scene.store.release(GROUP);
    let recovered = scene.store.recover(GROUP).await.expect("it was released");
    assert_eq!(recovered.log_meta.last(), scene.log(GROUP).last());
    assert!(is_in_use(scene.store.recover(GROUP).await, GROUP), "it is open again");
    assert!(is_in_use(scene.store.recover(OTHER).await, OTHER), "nobody released it");
    // One that is not open, or not there, is released without harm.
    scene.store.release(GROUP);
    scene.store.release(GROUP);
    scene.store.release(OTHER + 1);
    scene.store.recover(GROUP).await.expect("it was released");
    scene.check().await;
    scene.reopen().await.check().await;
}

/// What was submitted before a group is released becomes durable all the same.
#[doc(hidden)]
pub async fn completes_what_was_released<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    let outcome = scene.submit(GROUP, entries(1, 1, 50));
    scene.store.release(GROUP);
    super::durable(outcome).await;
    let recovered = scene.store.recover(GROUP).await.expect("it was released");
    assert_eq!(recovered.log_meta.last(), scene.log(GROUP).last());
    scene.reopen().await.check().await;
}

/// Whatever it held, nothing is left of it but that it is spent, at once and after each opening;
/// and it can begin anew. Other groups keep what they have.
#[doc(hidden)]
pub async fn removes_groups<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, OTHER]).await;
    scene.put(OTHER, LogWrite { ..entries(3, 1, 30) }).await;
    scene.take_snapshot(OTHER, 10, content(9, 5000)).await;
    for life in 1..6 {
        let all = LogWrite {
            hard_state: hard_state(life, Some(2)).hard_state,
            standing: standing(life).standing,
            marks: marks(life).marks,
            ..entries(life, 1, 40 * life)
        };
        scene.put(GROUP, all).await;
        scene.take_snapshot(GROUP, 20, content(life, 20_000)).await;
        let snapshot = scene.log(GROUP).snapshot.clone().expect("it was taken");
        if life % 2 == 0 {
            let purge = Some(snapshot.log_id);
            scene.put(GROUP, LogWrite { purge, ..LogWrite::default() }).await;
        }
        let last = scene.log(GROUP).last().index;
        scene.remove(GROUP).await;
        assert!(scene.store.snapshot(GROUP, &snapshot).await.is_err(), "it was removed");
        assert!(scene.read(GROUP, last, last + 1).await.is_err(), "it was removed");
        scene = scene.holds_only_the_standing(GROUP, life % 3 != 0).await;
        let next = scene.log(OTHER).last().index + 1;
        scene.put(OTHER, entries(3, next, next)).await;
    }
    // In the place of much larger ones.
    scene.put(GROUP, entries(1, 1, 2)).await;
    scene = scene.reopen().await;
    scene.check().await;
}

/// A group that is out of use stays so, however often it is removed, and whatever others write.
#[doc(hidden)]
pub async fn keeps_that_a_removed_group_is_spent<R: Executor, F: StoreFactory<R>>(
    rt: R,
    factory: F,
) {
    let spent = || Some(Box::new(Standing::Spent));
    let mut scene = Scene::open(rt, factory, &[GROUP, OTHER]).await;
    scene.put(GROUP, LogWrite { standing: standing(1).standing, ..entries(1, 1, 40) }).await;
    scene.take_snapshot(GROUP, 20, content(1, 20_000)).await;
    scene.put(GROUP, LogWrite { standing: spent(), ..LogWrite::default() }).await;
    for life in 1..6 {
        scene.remove(GROUP).await;
        scene = scene.holds_only_the_standing(GROUP, life % 2 != 0).await;
        // Enough that what was told of the group first is told again elsewhere.
        let first = scene.log(OTHER).last().index + 1;
        for index in first..first + 20 {
            scene.put(OTHER, entries(3, index, index)).await;
            scene.take_snapshot(OTHER, index, content(index, 20_000)).await;
            let purge = scene.log(OTHER).snapshot.as_ref().map(|snapshot| snapshot.log_id);
            scene.put(OTHER, LogWrite { purge, ..LogWrite::default() }).await;
        }
    }
    scene = scene.reopen().await;
    scene.check().await;
}

/// A group is not removed while it is open, nor while a snapshot of it is written; one that is not
/// there is removed without harm.
#[doc(hidden)]
pub async fn removes_nothing_in_use<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, 20)).await;
    assert!(is_in_use(scene.store.remove(GROUP).await, GROUP), "it is open");
    scene.check().await;
    let draft = scene.store.draft(GROUP).await.expect("there is space");
    scene.store.release(GROUP);
    assert!(is_in_use(scene.store.remove(GROUP).await, GROUP), "a snapshot is written");
    drop(draft);
    scene.store.remove(OTHER).await.expect("there is none");
    scene.check().await;
    scene.reopen().await.check().await;
}
