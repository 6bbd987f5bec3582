//! What other versions have written: a folder of each version from 3 on opens, and one of version 2
//! is refused with what to do.
//!
//! `tests/data/v3` is a store as version 3 left it. It is never written again: a build that can't
//! read it has broken the format. Where a field is added, a folder that has it comes beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_core::{
    Claim, ClusterId, Completion, Digest, Entry, GroupId, HardState, Identity, LogId, LogStore,
    LogWrite, Marks, Membership, Memory, Payload, Replica, SnapshotMeta, Standing, StoreError,
    Term,
};
use quorate_rt::channel::oneshot;
use quorate_rt::{Executor, Files, Launch};
use quorate_rt_tokio::Tokio;
use quorate_store_file::{FileConfig, FileStore};

type Store = FileStore<Tokio>;

const VERSION_3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/v3");

/// Of the store in that folder.
const INCARNATION: u64 = 0x9ef9_4fa4_5f14_c303;
const NODE: u64 = 1;
const STARTS: u64 = 2;
const CLUSTER: ClusterId = ClusterId(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF);

/// What the folder holds of a group.
#[derive(Default)]
struct Group {
    hard_state: HardState,
    standing: Standing,
    marks: Marks,
    snapshot: Option<SnapshotMeta>,
    entries: Vec<Entry>,
}

fn replica(node: u64) -> Replica {
    Replica::new(node, node << 32)
}

fn membership() -> Membership {
    let members = (1..=3).map(|node| (replica(node), format!("node-{node}:7000"))).collect();
    Membership::founding(CLUSTER, members).unwrap()
}

fn entry(term: u64, index: u64, content: Vec<u8>) -> Entry {
    let payload = Payload::Command(content.into());
    Entry { log_id: LogId::new(term, 1, index), time: 1_700_000_000_000 + index, payload }
}

/// The content of a snapshot, of two blocks.
fn content() -> Bytes {
    (0..66_000u32).map(|at| (at / 256) as u8).collect()
}

fn snapshot(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        log_id: LogId::new(2, 1, index),
        time: 1_700_000_000_000 + index,
        membership: membership(),
        membership_index: 1,
        bytes: content().len() as u64,
        digest: Digest::of(&content()),
    }
}

/// What the folder holds.
fn groups() -> BTreeMap<GroupId, Group> {
    let log_id = |index| LogId::new(2, 1, index);
    let memory = Memory {
        term: Term(2),
        voted: Term(2),
        acknowledged: log_id(21),
        committed: log_id(20),
        ..Memory::default()
    };
    // A log that begins behind a snapshot, has entries of all kinds, and one that is larger than a
    // segment.
    let mut entries: Vec<_> = (19..=20).map(|index| entry(2, index, vec![7; 40])).collect();
    let blank = Entry { payload: Payload::Blank, ..entry(2, 21, Vec::new()) };
    let configuration = Payload::Membership(membership());
    let configuration = Entry { payload: configuration, ..entry(2, 22, Vec::new()) };
    entries.extend([blank, configuration, entry(3, 23, Vec::new()), entry(3, 24, vec![8; 20_000])]);
    let main = Group {
        hard_state: HardState { term: Term(3), voted_for: Some(replica(1)) },
        marks: Marks {
            committed: log_id(20),
            memories: [(replica(2), memory)].into_iter().collect(),
            ..Marks::default()
        },
        snapshot: Some(snapshot(20)),
        entries,
        ..Group::default()
    };
    let claim = Claim {
        cluster: CLUSTER,
        ballot: 3,
        founder: replica(2),
        list: Arc::new(
            [(1, "node-1:7000".to_owned()), (2, "node-2:7000".to_owned())].into_iter().collect(),
        ),
    };
    let voted = HardState { term: Term(5), voted_for: Some(replica(3)) };
    let standing = |standing| Group { standing, ..Group::default() };
    [
        (0, main),
        (1, Group { hard_state: voted, ..standing(Standing::Claimed(claim)) }),
        (2, standing(Standing::Admitted(CLUSTER))),
        (u64::MAX, standing(Standing::Spent)),
    ]
    .into()
}

fn scene(scenario: impl AsyncFnOnce(Tokio, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    Tokio::run(&Launch::default(), async |rt| scenario(rt, dir.path()).await).unwrap();
}

async fn open(rt: &Tokio, dir: &Path) -> Result<Store, StoreError> {
    let config = FileConfig { segment_bytes: 16 << 10, ..FileConfig::default() };
    FileStore::open_with(rt, dir, config).await
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

fn entries(entries: Vec<Entry>) -> LogWrite {
    LogWrite { entries: entries.into(), ..LogWrite::default() }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let to = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &to);
        } else {
            fs::copy(file.path(), to).unwrap();
        }
    }
}

/// What the store holds is what the folder held.
async fn compare(store: &Store) {
    for (group, expected) in groups() {
        let found = store.recover(group).await.unwrap();
        assert_eq!(found.hard_state, expected.hard_state, "group {group}");
        assert_eq!(found.standing, expected.standing, "group {group}");
        assert_eq!(found.marks, expected.marks, "group {group}");
        assert_eq!(found.snapshot, expected.snapshot, "group {group}");
        let range = found.log_meta.purged().index + 1..found.log_meta.last().index + 1;
        let read = store.read(group, range, usize::MAX).await.unwrap();
        assert_eq!(read, expected.entries, "group {group}");
        if let Some(meta) = &found.snapshot {
            assert_eq!(found.log_meta.purged(), LogId::new(2, 1, 18));
            let read = store.snapshot(group, meta).await.unwrap();
            assert_eq!(read.read(0, usize::MAX).await.unwrap(), content());
        }
    }
}

#[test]
fn a_folder_of_version_3_opens() {
    scene(async |rt, dir| {
        copy(Path::new(VERSION_3), dir);
        let report = FileStore::check(&rt, dir).await.unwrap();
        assert!(report.damage.is_none() && report.leftovers.is_empty(), "{report:?}");
        assert_eq!(report.end.unwrap().torn_bytes, 0);
        assert!(report.groups.keys().eq(groups().keys()));
        let identity = report.identity.unwrap();
        assert_eq!((identity.incarnation, identity.node), (INCARNATION, Some(NODE)));
        assert_eq!((identity.boots, identity.cluster), (STARTS, Some(CLUSTER)));

        let store = open(&rt, dir).await.unwrap();
        compare(&store).await;
        let other = store.identify(2).await;
        assert!(matches!(other, Err(StoreError::OtherNode { holds: NODE, .. })), "{other:?}");
        let started = store.identify(NODE).await.unwrap();
        let cluster = Some(CLUSTER);
        assert_eq!(started, Identity { incarnation: INCARNATION, cluster, boot: STARTS + 1 });

        // It goes on from there.
        put(&store, 2, entries(vec![entry(9, 1, b"new".to_vec())])).await;
        close(&rt, dir, store).await;
        let store = open(&rt, dir).await.unwrap();
        let read = store.read(2, 1..2, usize::MAX).await.unwrap();
        assert_eq!(read, [entry(9, 1, b"new".to_vec())]);
    });
}

/// A segment as version 2 began it.
fn segment_of_version_2() -> Vec<u8> {
    let mut segment = vec![0; 16 << 10];
    segment[..8].copy_from_slice(b"QUORWAL\0");
    (segment[8], segment[12], segment[16]) = (2, 1, 77);
    let crc = crc32fast::hash(&segment[..24]);
    segment[24..28].copy_from_slice(&crc.to_le_bytes());
    segment
}

#[test]
fn a_folder_of_version_2_is_refused_with_what_to_do() {
    scene(async |rt, dir| {
        fs::create_dir(dir.join("wal")).unwrap();
        let file = dir.join("wal/0000000000000001.wal");
        fs::write(&file, segment_of_version_2()).unwrap();
        let refusals = [open(&rt, dir).await.map(drop), FileStore::check(&rt, dir).await.map(drop)];
        for refused in refusals {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, StoreError::Unsupported { .. }), "{refused:?}");
            let reason = refused.to_string();
            for part in [file.to_str().unwrap(), "version 2", "reads version 3", "empty", "export"]
            {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        assert!(fs::read(&file).unwrap() == segment_of_version_2(), "nothing is changed");
    });
}

/// Has made the folder: `cargo test -p quorate-store-file --test versions -- --ignored`. It does
/// not overwrite one.
#[test]
#[ignore = "the folder is there, and stays as it is"]
fn make_a_folder_of_version_3() {
    scene(async |rt, _| {
        let dir = Path::new(VERSION_3);
        fs::create_dir(dir).expect("there is none yet");
        let store = open(&rt, dir).await.unwrap();
        let identity = store.identify(NODE).await.unwrap();
        println!("const INCARNATION: u64 = {:#x};", identity.incarnation);
        for (group, is) in groups() {
            let write = LogWrite {
                hard_state: Some(is.hard_state).filter(|state| *state != HardState::default()),
                cluster: Some(CLUSTER),
                standing: Some(is.standing)
                    .filter(|standing| *standing != Standing::Empty)
                    .map(Box::new),
                marks: Some(is.marks).filter(|marks| *marks != Marks::default()).map(Box::new),
                ..LogWrite::default()
            };
            put(&store, group, write).await;
        }
        // Of what is purged later, some is replaced before that.
        for index in 1..=18 {
            put(&store, 0, entries(vec![entry(1, index, vec![1; 900])])).await;
        }
        let replaced: Vec<_> = (10..=18).map(|index| entry(2, index, vec![2; 900])).collect();
        put(&store, 0, entries(replaced)).await;
        for entry in &groups()[&0].entries {
            put(&store, 0, entries(vec![entry.clone()])).await;
        }
        let meta = snapshot(20);
        let mut draft = store.draft(0).await.unwrap();
        draft.write(content()).await.unwrap();
        draft.finish(&meta).await.unwrap();
        let purge = Some(LogId::new(2, 1, 18));
        put(&store, 0, LogWrite { snapshot: Some(Box::new(meta)), purge, ..LogWrite::default() })
            .await;
        close(&rt, dir, store).await;
        let store = open(&rt, dir).await.unwrap();
        assert_eq!(store.identify(NODE).await.unwrap().boot, STARTS);
        compare(&store).await;
        close(&rt, dir, store).await;
        assert!(!dir.join("wal/0000000000000001.wal").exists(), "its first segments are gone");
    });
}
