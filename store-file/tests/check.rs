//! `FileStore::check`: what it says of a store that is sound, in use, torn, damaged or none, and
//! that it changes nothing.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::{
    ClusterId, Completion, Digest, Entry, GroupId, HardState, LogId, LogStore, LogWrite,
    Membership, Payload, Replica, SnapshotMeta, StoreError, Term,
};
use quorate_rt::channel::oneshot;
use quorate_rt::{Executor, Files, Launch};
use quorate_rt_tokio::Tokio;
use quorate_store_file::{FileConfig, FileStore, StoreReport};

use common::everything;

type Store = FileStore<Tokio>;

fn scene(scenario: impl AsyncFnOnce(Tokio, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    Tokio::run(&Launch::default(), async |rt| scenario(rt, dir.path()).await).unwrap();
}

async fn open(rt: &Tokio, dir: &Path) -> Store {
    let config = FileConfig { segment_bytes: 16 << 10, ..FileConfig::default() };
    FileStore::open_with(rt, dir, config).await.unwrap()
}

/// Drops it, and waits until it has written its last.
async fn close(rt: &Tokio, dir: &Path, store: Store) {
    drop(store);
    while rt.lock_file(&dir.join("LOCK")).await.is_err() {
        rt.sleep(Duration::from_millis(1)).await;
    }
}

async fn put(store: &Store, group: GroupId, write: LogWrite) {
    let (sender, receiver) = oneshot::channel();
    let tell = move |outcome| drop(sender.send(outcome));
    let _pending = store.append(group, write, Completion::new(tell));
    receiver.await.unwrap().unwrap();
}

fn log_id(index: u64) -> LogId {
    LogId::new(2, 1, index)
}

fn entry(index: u64, content: &'static [u8]) -> LogWrite {
    let payload = Payload::Command(Bytes::from_static(content));
    let entries = vec![Entry { log_id: log_id(index), time: index, payload }];
    LogWrite { entries: entries.into(), ..LogWrite::default() }
}

/// Makes a snapshot of this content, which claims to have that digest, and purges what it covers.
async fn snapshot(
    store: &Store,
    group: GroupId,
    index: u64,
    content: &'static [u8],
    digest: Digest,
) {
    let meta = SnapshotMeta {
        log_id: log_id(index),
        time: index,
        membership: Membership::founding(
            ClusterId(5),
            [(Replica::new(1, 7), "a:1".to_owned())].into(),
        )
        .unwrap(),
        membership_index: 1,
        bytes: content.len() as u64,
        digest,
    };
    let mut draft = store.draft(group).await.unwrap();
    draft.write(Bytes::from_static(content)).await.unwrap();
    draft.finish(&meta).await.unwrap();
    let purge = Some(meta.log_id);
    put(store, group, LogWrite { snapshot: Some(Box::new(meta)), purge, ..LogWrite::default() })
        .await;
}

/// A check, which changes nothing.
async fn check(rt: &Tokio, dir: &Path) -> StoreReport {
    let before = everything(dir);
    let report = FileStore::check(rt, dir).await.unwrap();
    assert!(everything(dir) == before, "something was changed");
    report
}

fn damage(report: &StoreReport) -> (String, u64, &str) {
    match &report.damage {
        Some(StoreError::Damaged { file, offset, reason }) => {
            (file.file_name().unwrap().to_str().unwrap().to_owned(), *offset, reason)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sound_store_is_told_group_by_group() {
    scene(async |rt, dir| {
        let store = open(&rt, dir).await;
        let hard_state = HardState { term: Term(2), voted_for: Some(Replica::new(1, 7)) };
        put(&store, 1, LogWrite { hard_state: Some(hard_state), ..LogWrite::default() }).await;
        for index in 1..=3 {
            put(&store, 5, entry(index, b"content")).await;
        }
        let content = b"what has come of it";
        snapshot(&store, 5, 2, content, Digest::of(content)).await;
        let in_use = FileStore::check(&rt, dir).await;
        assert!(matches!(in_use, Err(StoreError::Locked(_))), "{in_use:?}");
        close(&rt, dir, store).await;

        let report = check(&rt, dir).await;
        assert!(report.locked && report.damage.is_none() && report.leftovers.is_empty());
        assert_eq!(report.segments[0].0.file_name().unwrap(), "0000000000000001.wal");
        assert_eq!(report.segments[0].1, 16 << 10);
        let end = report.end.unwrap();
        assert_eq!((end.file, end.torn_bytes), (report.segments[0].0.clone(), 0));
        assert!(report.groups.keys().eq(&[1, 5]));
        let (one, five) = (&report.groups[&1], &report.groups[&5]);
        assert_eq!((one.hard_state, one.entries, one.purged), (hard_state, None, LogId::ZERO));
        assert!(one.snapshot.is_none());
        assert_eq!((five.hard_state, five.purged), (HardState::default(), log_id(2)));
        assert_eq!(five.entries, Some((log_id(3), log_id(3))));
        let held = five.snapshot.as_ref().unwrap();
        assert_eq!((held.log_id, held.bytes), (log_id(2), content.len() as u64));
        assert!(held.file.exists());
    });
}

#[test]
fn a_torn_tail_is_sound_and_damage_before_it_is_told_with_what_stands_before_that() {
    scene(async |rt, dir| {
        let store = open(&rt, dir).await;
        for (index, content) in (1..).zip([&b"first"[..], b"second", b"third"]) {
            put(&store, 1, entry(index, content)).await;
        }
        close(&rt, dir, store).await;
        let end = check(&rt, dir).await.end.unwrap();
        let whole = fs::read(&end.file).unwrap();

        // Something behind the end that is no record. (Without the sync marker, which would tell
        // that nothing is missing there.)
        let mut torn = whole.clone();
        torn[end.offset as usize..].fill(0);
        torn[end.offset as usize + 9] = 1;
        fs::write(&end.file, &torn).unwrap();
        let report = check(&rt, dir).await;
        assert!(report.damage.is_none());
        assert!((10..=16).contains(&report.end.unwrap().torn_bytes));

        let mut damaged = whole;
        let at = damaged.windows(6).position(|bytes| bytes == b"second").unwrap();
        damaged[at] ^= 1;
        fs::write(&end.file, &damaged).unwrap();
        let report = check(&rt, dir).await;
        let (file, offset, _) = damage(&report);
        assert_eq!(file, "0000000000000001.wal");
        assert!(offset < at as u64 && at as u64 - offset < 100, "{offset} for {at}");
        assert!(report.end.is_none());
        assert_eq!(report.groups[&1].entries, Some((log_id(1), log_id(1))));
    });
}

#[test]
fn a_snapshot_is_read_to_its_end_and_its_digest_compared() {
    scene(async |rt, dir| {
        let store = open(&rt, dir).await;
        put(&store, 1, entry(1, b"one")).await;
        // The blocks are right, and yet it isn't what it should be.
        snapshot(&store, 1, 1, b"content", Digest::of(b"other content")).await;
        close(&rt, dir, store).await;
        let report = check(&rt, dir).await;
        let (file, _, reason) = damage(&report);
        assert!(file.ends_with(".snapshot") && reason.contains("digest"), "{file}: {reason}");

        // A bit of the content.
        let path = report.groups[&1].snapshot.as_ref().unwrap().file.clone();
        let mut content = fs::read(&path).unwrap();
        let last = content.len() - 5;
        content[last] ^= 1;
        fs::write(&path, &content).unwrap();
        let report = check(&rt, dir).await;
        let (_, _, reason) = damage(&report);
        assert!(!reason.contains("digest"), "{reason}");
    });
}

#[test]
fn a_lock_file_is_not_made_where_there_is_none() {
    scene(async |rt, dir| {
        let store = open(&rt, dir).await;
        put(&store, 1, entry(1, b"one")).await;
        close(&rt, dir, store).await;
        assert!(check(&rt, dir).await.locked);
        fs::remove_file(dir.join("LOCK")).unwrap();
        let report = check(&rt, dir).await;
        assert!(!report.locked && report.damage.is_none());
        assert!(!dir.join("LOCK").exists());
    });
}

#[test]
fn where_there_is_no_store_there_is_nothing_to_tell() {
    scene(async |rt, dir| {
        let nothing = FileStore::check(&rt, dir.join("nothing")).await;
        assert!(matches!(nothing, Err(StoreError::Io { .. })), "{nothing:?}");
        fs::create_dir(dir.join("wal")).unwrap();
        let report = FileStore::check(&rt, dir).await;
        assert!(!dir.join("snapshots").exists() && !dir.join("LOCK").exists());
        if let Ok(report) = report {
            assert!(report.end.is_none() && report.groups.is_empty() && report.damage.is_none());
        }
    });
}

#[test]
fn a_store_with_the_default_settings_can_be_checked() {
    scene(async |rt, dir| {
        let store = FileStore::open(&rt, dir).await.unwrap();
        put(&store, 1, entry(1, b"one")).await;
        close(&rt, dir, store).await;
        let report = FileStore::check(&rt, dir).await.unwrap();
        assert_eq!(report.segments[0].1, FileConfig::default().segment_bytes);
        assert_eq!(report.groups[&1].entries, Some((log_id(1), log_id(1))));
    });
}
