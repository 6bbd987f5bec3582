//! What the store does when the disk, or its user, fails it.

use std::ops::Range;

use super::*;
use crate::format::HEADER_BYTES;

#[test]
fn a_second_store_is_kept_out() {
    scene(async |scene| {
        let store = scene.open().await;
        let error = scene.try_open().await.unwrap_err();
        assert!(matches!(error, StoreError::Locked(path) if path.ends_with("LOCK")));
        drop(store);
        scene.open().await;
    });
}

/// What happens to three writes, of which the second fails and the third waits.
async fn second_fails(scene: &Scene, fail: impl FnOnce(&Faults), cause: &str) {
    let store = scene.open().await;
    scene.made(2).await;
    let faults = scene.faults();
    put(&store, 1, entries([entry(1, 1, "durable")])).await;
    fail(faults);
    faults.hold_syncs.close();
    let second = submit(&store, 1, entries([entry(1, 2, vec![2; 8000])]));
    let third = submit(&store, 2, entries([entry(1, 1, vec![3; 8000])]));
    faults.hold_syncs.open();

    let error = second.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains(cause), "{error}");
    let error = third.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Poisoned(_)), "{error}");
    assert!(error.to_string().contains(cause), "{error}");

    // It never tries again, even if it would work now.
    faults.fail_write.set(false);
    faults.fail_sync.set(false);
    let calls = (faults.writes.get(), faults.syncs.get());
    let error = submit(&store, 1, entries([entry(1, 3, "later")])).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Poisoned(_)), "{error}");
    assert_eq!((faults.writes.get(), faults.syncs.get()), calls);
    let read = store.read(1, 1..3, usize::MAX).await.unwrap();
    assert_eq!(read, [entry(1, 1, "durable"), entry(1, 2, vec![2; 8000])]);
    drop(store);
    let store = scene.open().await;
    assert_eq!(store.read(1, 1..2, 999).await.unwrap(), [entry(1, 1, "durable")]);
}

#[test]
fn a_failed_write_fails_all_that_follow() {
    scene(async |scene| {
        second_fails(&scene, |faults| faults.fail_write.set(true), "writing").await
    });
}

#[test]
fn a_failed_sync_fails_all_that_follow() {
    scene(async |scene| second_fails(&scene, |faults| faults.fail_sync.set(true), "writing").await);
}

#[test]
fn a_dropped_store_ends_its_write_before_it_can_be_opened_again() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.made(2).await;
        scene.faults().hold_syncs.close();
        let begun = submit(&store, 1, entries([entry(1, 1, "begun")]));
        scene.until(|| scene.faults().hold_syncs.waiting() == 1).await;
        let waiting = submit(&store, 1, entries([entry(1, 2, "waiting")]));
        drop(store);
        let error = waiting.await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Abandoned), "{error}");
        assert!(matches!(scene.try_open().await, Err(StoreError::Locked(_))));
        scene.faults().hold_syncs.open();
        begun.await.unwrap().unwrap();
        assert_eq!(all(&scene.open().await, 1).await, [entry(1, 1, "begun")]);
    });
}

/// What an opening writes into a segment, after a write whose sync has failed.
async fn rewritten(scene: &Scene, store: Store, write: LogWrite, segment: u32) -> Vec<Range<u64>> {
    scene.faults().fail_sync.set(true);
    submit(&store, 1, write).await.unwrap().unwrap_err();
    drop(store);
    // The disk still fails: what is in the page cache only must not be taken for durable.
    assert!(matches!(scene.try_open().await, Err(StoreError::Io { .. })));
    scene.faults().fail_sync.set(false);
    scene.faults().written.take();
    drop(scene.open().await);
    let written = scene.faults().written.take().into_iter();
    let of_segment = written.filter(|(path, _)| *path == scene.segment(segment));
    of_segment.map(|(_, bytes)| bytes).collect()
}

#[test]
fn an_opening_writes_the_last_batch_again_and_nothing_before_it() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries([entry(1, 1, "a")])).await;
        scene.made(2).await;
        let begin = scene.end(1);
        let written = rewritten(&scene, store, entries([entry(1, 2, "b")]), 1).await;
        assert_eq!(written.first(), Some(&(begin..scene.end(1))));
        assert_eq!(last(&scene.open().await, 1).await, 2);
    });
}

#[test]
fn an_opening_writes_the_first_batch_of_a_segment_again() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries([entry(1, 1, vec![1; 10 << 10])])).await;
        let write = entries([entry(1, 2, vec![2; 10 << 10])]);
        scene.made(2).await;
        let written = rewritten(&scene, store, write, 2).await;
        assert_eq!(written.first(), Some(&(HEADER_BYTES..scene.end(2))));
        assert_eq!(last(&scene.open().await, 1).await, 2);
    });
}

/// Found by the simulator: the sync marker at the end of one segment was taken for one at the end
/// of the log, in the next.
#[test]
fn a_sync_marker_speaks_for_the_end_of_its_own_segment_alone() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries([entry(1, 1, vec![1; 10 << 10])])).await;
        drop(store);
        scene.closed().await; // Segment 1 ends with a sync marker.
        let store = scene.open().await;
        put(&store, 1, entries([entry(1, 2, vec![2; 10 << 10])])).await;
        scene.made(3).await;
        scene.faults().fail_sync.set(true);
        let outcome = submit(&store, 1, entries([entry(1, 3, "c")]));
        outcome.await.unwrap().unwrap_err();
        drop(store);
        scene.faults().fail_sync.set(false);
        let writes = scene.faults().writes.get();
        let store = scene.open().await;
        assert!(scene.faults().writes.get() > writes, "the last batch is written again");
        assert_eq!(last(&store, 1).await, 3);
    });
}

#[test]
fn a_completion_may_append() {
    scene(async |scene| {
        let store = scene.open().await;
        let again = store.clone();
        let (sender, receiver) = oneshot::channel();
        let completion = Completion::new(move |outcome| {
            outcome.unwrap();
            let _ = sender.send(submit(&again, 1, entries([entry(1, 2, "b")])));
        });
        let _pending = store.append(1, entries([entry(1, 1, "a")]), completion);
        receiver.await.unwrap().await.unwrap().unwrap();
        assert_eq!(last(&store, 1).await, 2);
    });
}
