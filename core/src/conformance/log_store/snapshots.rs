//! Snapshots: what is finished can be read as it was written, what is named stays, and of the rest
//! nothing is left.

use bytes::Bytes;
use quorate_rt::Executor;

use super::{Scene, StoreFactory, content, durable, entries, entry};
use crate::{Digest, GroupId, LogId, LogStore, LogWrite, SnapshotContent, SnapshotMeta};

const GROUP: GroupId = 7;

fn name(meta: &SnapshotMeta) -> LogWrite {
    LogWrite { snapshot: Some(Box::new(meta.clone())), ..LogWrite::default() }
}

/// Reads all of it, in chunks of this size.
async fn check_in_chunks(content: &dyn SnapshotContent, chunk: usize, written: &[u8]) {
    for at in (0..=written.len()).step_by(chunk) {
        let end = written.len().min(at + chunk);
        let read = content.read(at as u64, chunk).await.expect("it can be read");
        assert!(read == written[at..end], "{at}..{end} of {} bytes", written.len());
    }
}

/// Of no bytes, of few and of many, each in the place of the one before.
#[doc(hidden)]
pub async fn keeps_snapshots<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, GROUP + 1]).await;
    scene.put(GROUP, entries(1, 1, 50)).await;
    let sizes = [0, 1, 4095, 4096, 65_536, 262_144, 262_145, 3_000_000, 0, 7];
    for (size, index) in sizes.into_iter().zip(10..) {
        scene.take_snapshot(GROUP, index, content(index, size)).await;
        scene.check().await;
        if F::DURABLE {
            scene = scene.reopen().await;
            assert_eq!(scene.log(GROUP).covered(), index, "it was durable");
            scene.check().await;
        }
    }
}

/// From any offset, as much as is wanted, over the end and at it.
#[doc(hidden)]
pub async fn reads_snapshots_from_anywhere<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut random = fastrand::Rng::with_seed(4);
    let scene = Scene::open(rt, factory, &[GROUP]).await;
    for size in [0, 1, 600_000] {
        // In chunks of many sizes, empty ones among them.
        let written = content(5, size);
        let meta = scene.log(GROUP).meta(LogId::new(1, 1, 10 + size as u64), &written);
        let mut draft = scene.store.draft(GROUP).await.expect("there is space");
        let mut rest = written.clone();
        while !rest.is_empty() {
            let most = if random.bool() { 20 } else { 200_000 };
            let chunk = rest.split_to(random.usize(0..=most.min(rest.len())));
            draft.write(chunk).await.expect("there is space");
        }
        draft.finish(&meta).await.expect("there is space");
        let opened = scene.store.snapshot(GROUP, &meta).await.expect("it is finished");
        for chunk in [1 << 20, 300_000, 65_536, 4099] {
            check_in_chunks(&*opened, chunk, &written).await;
        }
        let edges = [0, size.min(1), size / 2, size.saturating_sub(1), size];
        let offsets = edges.into_iter().chain((0..50).map(|_| random.usize(0..=size)));
        for offset in offsets.collect::<Vec<_>>() {
            for most in [0, 1, 100, 5000, 70_000, size - offset, size - offset + 1] {
                let end = size.min(offset + most);
                let read = opened.read(offset as u64, most).await.expect("it can be read");
                assert!(read == written[offset..end], "{most} bytes from {offset} of {size}");
            }
        }
    }
}

/// Another group's, another log id's, another content's: none of them is opened in the place of
/// what was asked for.
#[doc(hidden)]
pub async fn opens_nothing_else<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, GROUP + 1]).await;
    let absent = scene.log(GROUP).meta(LogId::new(1, 1, 5), b"");
    assert!(scene.store.snapshot(GROUP, &absent).await.is_err(), "there is none at all");
    scene.put(GROUP, entries(1, 1, 20)).await;
    scene.take_snapshot(GROUP, 10, content(1, 1000)).await;
    let meta = scene.log(GROUP).snapshot.clone().expect("it was taken");
    let others = [
        SnapshotMeta { log_id: LogId { index: 11, ..meta.log_id }, ..meta.clone() },
        SnapshotMeta { log_id: entry(2, 10).log_id, ..meta.clone() },
        SnapshotMeta { digest: Digest::of(b"another"), ..meta.clone() },
        SnapshotMeta { digest: Digest::of(b"another"), bytes: 7, ..meta.clone() },
    ];
    for other in others {
        assert!(scene.store.snapshot(GROUP, &other).await.is_err(), "opened in place of {other:?}");
    }
    assert!(scene.store.snapshot(GROUP + 1, &meta).await.is_err(), "of another group");
    scene.check().await;
}

/// Those that are dropped, before and after something was written, and those that a crash leaves.
/// What was written into them is lost.
#[doc(hidden)]
pub async fn forgets_drafts<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, 20)).await;
    for life in 1..5 {
        let written = content(life, 500_000);
        let meta = scene.log(GROUP).meta(entry(1, life).log_id, &written);
        drop(scene.store.draft(GROUP).await.expect("there is space"));
        let mut dropped = scene.store.draft(GROUP).await.expect("there is space");
        dropped.write(written.clone()).await.expect("there is space");
        drop(dropped);
        let mut left = scene.store.draft(GROUP).await.expect("there is space");
        left.write(written).await.expect("there is space");
        assert!(scene.store.snapshot(GROUP, &meta).await.is_err(), "it is not finished");
        scene.take_snapshot(GROUP, 5 + life, content(life, 100)).await;
        scene.check().await;
        if life % 2 == 0 {
            drop(left);
        } else {
            // Its store is gone; it must do no harm to the next one.
            let next = scene.reopen().await;
            drop(left);
            scene = next;
        }
        scene = scene.reopen().await;
        assert!(scene.store.snapshot(GROUP, &meta).await.is_err(), "it was never finished");
        scene.check().await;
        if !F::DURABLE {
            return;
        }
    }
}

/// What is finished waits for its name: until the store is opened again, or until a later one is
/// named. One that is later still waits on, for it may be one that a leader has sent.
#[doc(hidden)]
pub async fn forgets_what_is_not_named<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, 40)).await;
    let earlier = scene.finish(GROUP, entry(1, 10).log_id, content(1, 9000)).await;
    let named = scene.finish(GROUP, entry(1, 20).log_id, content(2, 9000)).await;
    let later = scene.finish(GROUP, entry(1, 30).log_id, content(3, 9000)).await;
    for meta in [&earlier, &named, &later] {
        assert!(scene.store.snapshot(GROUP, meta).await.is_ok(), "it is finished");
    }
    scene.put(GROUP, name(&named)).await;
    scene.check().await;
    assert!(scene.store.snapshot(GROUP, &earlier).await.is_err(), "a later one is named");
    let opened = scene.store.snapshot(GROUP, &later).await.expect("it waits for its name");
    check_in_chunks(&*opened, 1000, &content(3, 9000)).await;
    drop(opened);
    scene.put(GROUP, name(&later)).await;
    scene.check().await;
    let unnamed = scene.finish(GROUP, entry(1, 40).log_id, content(4, 9000)).await;
    if !F::DURABLE {
        return;
    }
    // That what was never named is forgotten, is checked wherever a store is opened again.
    scene = scene.reopen().await;
    scene.check().await;
    // It can be written again.
    let again = scene.finish(GROUP, unnamed.log_id, content(4, 9000)).await;
    assert_eq!(again, unnamed);
    scene.put(GROUP, name(&again)).await;
    scene = scene.reopen().await;
    scene.check().await;
    assert_eq!(scene.log(GROUP).covered(), 40);
}

/// Two of one group and one of another, chunk by chunk in turn. Writes go on meanwhile.
#[doc(hidden)]
pub async fn writes_snapshots_side_by_side<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, GROUP + 1]).await;
    let mut drafts = Vec::new();
    for (group, index) in [(GROUP, 10), (GROUP, 20), (GROUP + 1, 10)] {
        scene.put(group, entries(1, index - 9, index)).await;
        let draft = scene.store.draft(group).await.expect("there is space");
        drafts.push((group, entry(1, index).log_id, draft, content(index + group, 700_000)));
    }
    for at in (0..700_000).step_by(70_000) {
        for (group, _, draft, content) in &mut drafts {
            draft.write(content.slice(at..at + 70_000)).await.expect("there is space");
            let next = scene.log(*group).last().index + 1;
            scene.put(*group, entries(1, next, next)).await;
        }
    }
    for (group, log_id, draft, content) in drafts {
        let meta = scene.log(group).meta(log_id, &content);
        draft.finish(&meta).await.expect("there is space");
        let history = scene.groups.get_mut(&group).expect("a group of the scene");
        history.finished.push((meta.clone(), content));
        scene.put(group, name(&meta)).await;
        scene.check().await;
    }
    scene.reopen().await.check().await;
}

/// A leader may send the same one again, before it is named and after.
#[doc(hidden)]
pub async fn finishes_a_snapshot_again<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, 20)).await;
    let write = async |scene: &mut Scene<R, F>| {
        scene.finish(GROUP, entry(1, 10).log_id, content(1, 300_000)).await
    };
    let first = write(&mut scene).await;
    let opened = scene.store.snapshot(GROUP, &first).await.expect("it is finished");
    assert_eq!(write(&mut scene).await, first);
    check_in_chunks(&*opened, 1 << 20, &content(1, 300_000)).await;
    scene.put(GROUP, name(&first)).await;
    scene.check().await;
    assert_eq!(write(&mut scene).await, first);
    scene.check().await;
    scene = scene.reopen().await;
    if F::DURABLE {
        assert_eq!(scene.log(GROUP).snapshot, Some(first));
    }
    scene.check().await;
}

/// One that is being sent stays readable to its end, though a later one is named, and the store
/// gone.
#[doc(hidden)]
pub async fn reads_a_snapshot_that_is_superseded<R: Executor, F: StoreFactory<R>>(
    rt: R,
    factory: F,
) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, 50)).await;
    let mut opened = Vec::new();
    for index in [10, 20, 30] {
        let written: Bytes = content(index, 500_000);
        scene.take_snapshot(GROUP, index, written.clone()).await;
        let meta = scene.log(GROUP).snapshot.clone().expect("it was taken");
        opened.push((scene.store.snapshot(GROUP, &meta).await.expect("it is there"), written));
        for (opened, written) in &opened {
            check_in_chunks(&**opened, 90_000, written).await;
        }
    }
    // All of the log is purged, too.
    let last = scene.log(GROUP).last();
    let meta = scene.finish(GROUP, last, content(50, 100)).await;
    let outcome = scene.submit(GROUP, LogWrite { purge: Some(last), ..name(&meta) });
    for (opened, written) in &opened {
        check_in_chunks(&**opened, 90_000, written).await;
    }
    durable(outcome).await;
    for (opened, written) in &opened {
        check_in_chunks(&**opened, 1 << 20, written).await;
    }
    scene.check().await;
    drop(opened);
    scene.reopen().await.check().await;
}
