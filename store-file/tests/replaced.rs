//! A folder that is removed, moved away or replaced while its store is open, on every runtime: the
//! store notices it before it makes, renames or removes a file there, and fails.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::{
    ClusterId, Completion, Digest, Entry, LogId, LogStore, LogWrite, Membership, Payload, Replica,
    SnapshotMeta, StoreError,
};
use quorate_rt::channel::oneshot;
use quorate_rt::{Files, Launch};
use quorate_rt_compio::Compio;
use quorate_rt_monoio::Monoio;
use quorate_rt_tokio::Tokio;
use quorate_store_file::{FileConfig, FileStore};

use common::everything;

const SEGMENT_BYTES: u64 = 16 << 10;
const CONTENT: &[u8] = b"all that was applied";

/// Runs a scenario in an empty folder, on each runtime.
macro_rules! on_each_runtime {
    ($scenario:ident) => {{
        run::<Tokio>(async |rt, dir| $scenario(rt, dir).await);
        run::<Monoio>(async |rt, dir| $scenario(rt, dir).await);
        run::<Compio>(async |rt, dir| $scenario(rt, dir).await);
    }};
}

fn run<R: Files>(scenario: impl AsyncFnOnce(&R, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    R::run(&Launch::default(), async |rt| scenario(&rt, dir.path()).await).unwrap();
}

async fn open<R: Files>(rt: &R, dir: &Path) -> FileStore<R> {
    let config = FileConfig { segment_bytes: SEGMENT_BYTES, ..FileConfig::default() };
    let store = FileStore::open_with(rt, dir, config).await.unwrap();
    // The next segment is made in the background.
    until(rt, || dir.join("wal/0000000000000002.wal").exists()).await;
    store
}

async fn until<R: Files>(rt: &R, condition: impl Fn() -> bool) {
    while !condition() {
        rt.sleep(Duration::from_millis(1)).await;
    }
}

/// Drops it, and waits until it has written its last into the folder that is there now.
async fn close<R: Files>(rt: &R, dir: &Path, store: FileStore<R>) {
    drop(store);
    while rt.lock_file(&dir.join("LOCK")).await.is_err() {
        rt.sleep(Duration::from_millis(1)).await;
    }
}

async fn put<R: Files>(store: &FileStore<R>, write: LogWrite) -> Result<(), StoreError> {
    let (sender, receiver) = oneshot::channel();
    let _pending =
        store.append(1, write, Completion::new(move |outcome| drop(sender.send(outcome))));
    receiver.await.unwrap()
}

fn entry(index: u64, bytes: usize) -> LogWrite {
    let payload = Payload::Command(Bytes::from(vec![index as u8; bytes]));
    let entries = vec![Entry { log_id: LogId::new(1, 1, index), time: index, payload }];
    LogWrite { entries: entries.into(), ..LogWrite::default() }
}

fn meta(index: u64) -> SnapshotMeta {
    let members = [(Replica::new(1, 7), "a:1".to_owned())].into();
    SnapshotMeta {
        log_id: LogId::new(1, 1, index),
        time: index,
        membership: Membership::founding(ClusterId(5), members).unwrap(),
        membership_index: 1,
        bytes: CONTENT.len() as u64,
        digest: Digest::of(CONTENT),
    }
}

/// Takes a snapshot, as a node does.
async fn snapshot<R: Files>(store: &FileStore<R>, index: u64) -> Result<(), StoreError> {
    let mut draft = store.draft(1).await?;
    draft.write(Bytes::from_static(CONTENT)).await?;
    draft.finish(&meta(index)).await?;
    let purge = Some(LogId::new(1, 1, index));
    put(store, LogWrite { snapshot: Some(Box::new(meta(index))), purge, ..LogWrite::default() })
        .await
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let copied = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            fs::copy(&path, &copied).unwrap();
        }
    }
}

fn swap(a: &Path, b: &Path) {
    let aside = a.with_extension("aside");
    fs::rename(a, &aside).unwrap();
    fs::rename(b, a).unwrap();
    fs::rename(&aside, b).unwrap();
}

/// The error names the folder and says what has happened and what to do.
fn tells(outcome: Result<(), StoreError>, dir: &Path, what: &str) {
    let said = outcome.expect_err("the folder is another one").to_string();
    for expected in [
        dir.to_str().unwrap(),
        what,
        "while it was in use",
        "nothing was written to what is there now",
        "start the node",
    ] {
        assert!(said.contains(expected), "'{expected}' is not in: {said}");
    }
}

/// The store fails for good: its node stops with the next write.
async fn has_failed<R: Files>(store: &FileStore<R>, index: u64, dir: &Path) {
    let outcome = put(store, entry(index, 1)).await;
    assert!(matches!(outcome, Err(StoreError::Poisoned(_))), "{outcome:?}");
    tells(outcome, dir, "");
    assert!(store.draft(1).await.is_err());
}

async fn two_are_swapped<R: Files>(rt: &R, dir: &Path) {
    let dirs = [dir.join("a"), dir.join("b")];
    let mut stores = Vec::new();
    for dir in &dirs {
        let store = open(rt, dir).await;
        for index in 1..=3 {
            put(&store, entry(index, 100)).await.unwrap();
        }
        snapshot(&store, 1).await.unwrap();
        stores.push(store);
    }
    let before = dirs.each_ref().map(|dir| fs::read_dir(dir.join("snapshots")).unwrap().count());
    assert_eq!(before, [1, 1]);
    swap(&dirs[0], &dirs[1]);
    for (store, dir) in stores.iter().zip(&dirs) {
        tells(snapshot(store, 2).await, dir, "another folder was put in its place");
        has_failed(store, 4, dir).await;
    }
    let [a, b] = <[_; 2]>::try_from(stores).unwrap();
    drop(a);
    close(rt, &dirs[0], b).await; // Its folder is there now.
    while rt.lock_file(&dirs[1].join("LOCK")).await.is_err() {
        rt.sleep(Duration::from_millis(1)).await;
    }
    swap(&dirs[0], &dirs[1]);
    for dir in &dirs {
        let report = FileStore::check(rt, dir).await.unwrap();
        assert!(report.damage.is_none() && report.leftovers.is_empty(), "{report:?}");
        let store = open(rt, dir).await;
        let read = store.read(1, 2..4, usize::MAX).await.unwrap();
        assert_eq!(read.last().map(|entry| entry.log_id.index), Some(3));
        close(rt, dir, store).await;
    }
}

#[test]
fn two_stores_whose_folders_are_swapped_notice_it_and_damage_nothing() {
    on_each_runtime!(two_are_swapped);
}

async fn removed<R: Files>(rt: &R, dir: &Path) {
    let dir = dir.join("data");
    let store = open(rt, &dir).await;
    put(&store, entry(1, 100)).await.unwrap();
    fs::remove_dir_all(&dir).unwrap();
    tells(snapshot(&store, 1).await, &dir, "removed or moved away");
    has_failed(&store, 2, &dir).await;
    assert!(!dir.exists());

    // An empty one in its place is not taken for it, nor written to.
    fs::create_dir(&dir).unwrap();
    for inside in ["wal", "snapshots"] {
        fs::create_dir(dir.join(inside)).unwrap();
    }
    has_failed(&store, 2, &dir).await;
    assert!(everything(&dir).is_empty());
}

#[test]
fn a_store_whose_folder_is_removed_fails_with_the_next_snapshot() {
    on_each_runtime!(removed);
}

/// The copy has the same content, that of the lock's file too.
async fn a_copy_takes_its_place<R: Files>(rt: &R, dir: &Path) {
    let (dir, away) = (dir.join("data"), dir.join("away"));
    let store = open(rt, &dir).await;
    put(&store, entry(1, 100)).await.unwrap();
    fs::rename(&dir, &away).unwrap();
    copy(&away, &dir);
    let before = everything(&dir);
    tells(snapshot(&store, 1).await, &dir, "another folder was put in its place");
    has_failed(&store, 2, &dir).await;
    assert!(everything(&dir) == before);
    close(rt, &away, store).await;

    // What is left in the file of the lock keeps nobody out of either.
    for dir in [&dir, &away] {
        let store = open(rt, dir).await;
        assert_eq!(store.recover(1).await.unwrap().log_meta.last().index, 1);
        snapshot(&store, 1).await.unwrap();
        close(rt, dir, store).await;
    }
}

#[test]
fn a_copy_in_the_place_of_the_folder_is_not_taken_for_it() {
    on_each_runtime!(a_copy_takes_its_place);
}

/// A draft that was begun in one folder gets no name in another.
async fn replaced_within_a_draft<R: Files>(rt: &R, dir: &Path) {
    let (dir, away) = (dir.join("data"), dir.join("away"));
    let store = open(rt, &dir).await;
    put(&store, entry(1, 100)).await.unwrap();
    let mut draft = store.draft(1).await.unwrap();
    draft.write(Bytes::from_static(CONTENT)).await.unwrap();
    fs::rename(&dir, &away).unwrap();
    copy(&away, &dir);
    let before = everything(&dir);
    tells(draft.finish(&meta(1)).await, &dir, "another folder was put in its place");
    has_failed(&store, 2, &dir).await;
    close(rt, &away, store).await;
    assert!(everything(&dir) == before, "the other one's draft is gone, or has got a name");
}

#[test]
fn a_snapshot_is_not_finished_in_another_folder() {
    on_each_runtime!(replaced_within_a_draft);
}

/// Nobody takes a snapshot: the log goes on to its next segment.
async fn the_log_goes_on<R: Files>(rt: &R, dir: &Path) {
    let (dir, away) = (dir.join("data"), dir.join("away"));
    let store = open(rt, &dir).await;
    fs::rename(&dir, &away).unwrap();
    copy(&away, &dir);
    let before = everything(&dir);
    // The second segment was there already; the third is not made.
    let mut stored = 0;
    let failed = loop {
        match put(&store, entry(stored + 1, 1000)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    tells(Err(failed), &dir, "another folder was put in its place");
    assert!(stored < 40, "{stored}");
    assert!(everything(&dir) == before);
    close(rt, &away, store).await;
    let store = open(rt, &away).await;
    assert_eq!(store.recover(1).await.unwrap().log_meta.last().index, stored);
}

#[test]
fn a_segment_is_not_made_in_another_folder() {
    on_each_runtime!(the_log_goes_on);
}

/// The purge is in the log already, and its segments are removed from the right folder or not.
async fn a_purge<R: Files>(rt: &R, dir: &Path) {
    let (dir, away) = (dir.join("data"), dir.join("away"));
    let store = open(rt, &dir).await;
    for index in 1..=20 {
        put(&store, entry(index, 1000)).await.unwrap();
    }
    until(rt, || dir.join("wal/0000000000000003.wal").exists()).await;
    let mut draft = store.draft(1).await.unwrap();
    draft.write(Bytes::from_static(CONTENT)).await.unwrap();
    draft.finish(&meta(20)).await.unwrap();
    fs::rename(&dir, &away).unwrap();
    copy(&away, &dir);
    let before = everything(&dir);
    let (snapshot, purge) = (Some(Box::new(meta(20))), Some(meta(20).log_id));
    put(&store, LogWrite { snapshot, purge, ..LogWrite::default() }).await.unwrap();
    // The removing is tried in the background.
    let mut index = 21;
    while put(&store, entry(index, 1)).await.is_ok() {
        index += 1;
        rt.sleep(Duration::from_millis(1)).await;
    }
    has_failed(&store, index, &dir).await;
    assert!(everything(&dir) == before, "something was removed");
    close(rt, &away, store).await;
}

#[test]
fn a_purged_segment_is_not_removed_from_another_folder() {
    on_each_runtime!(a_purge);
}

/// A check neither takes the lock of a store that is open nor changes its mark.
async fn checked<R: Files>(rt: &R, dir: &Path) {
    let dir = dir.join("data");
    let store = open(rt, &dir).await;
    let before = fs::read(dir.join("LOCK")).unwrap();
    let report = FileStore::check(rt, &dir).await;
    assert!(matches!(report, Err(StoreError::Locked(_))), "{report:?}");
    put(&store, entry(1, 100)).await.unwrap();
    snapshot(&store, 1).await.unwrap();
    assert_eq!(fs::read(dir.join("LOCK")).unwrap(), before);
    close(rt, &dir, store).await;
    assert!(FileStore::check(rt, &dir).await.unwrap().damage.is_none());
    assert_eq!(fs::read(dir.join("LOCK")).unwrap(), before);
    // Another opening draws another one, whatever stands there.
    fs::write(dir.join("LOCK"), [0xFF; 500]).unwrap();
    let store = open(rt, &dir).await;
    snapshot_of_second(&store).await;
    assert!(!fs::read(dir.join("LOCK")).unwrap().starts_with(&before));
    close(rt, &dir, store).await;
}

async fn snapshot_of_second<R: Files>(store: &FileStore<R>) {
    put(store, entry(2, 100)).await.unwrap();
    snapshot(store, 2).await.unwrap();
}

#[test]
fn a_check_does_not_disturb_an_open_store() {
    on_each_runtime!(checked);
}
