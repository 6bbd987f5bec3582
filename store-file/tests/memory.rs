//! A large snapshot takes no more memory than a small one: alone in its process, whose peak is
//! looked at.

use std::fs;

use bytes::Bytes;
use quorate_core::{
    ClusterId, Digest, LogId, LogStore, Membership, Replica, SnapshotMeta, SnapshotReader,
    SnapshotWriter,
};
use quorate_rt::{Executor, Launch};
use quorate_rt_tokio::Tokio;
use quorate_store_file::FileStore;

const MIB: usize = 1 << 20;

/// The most memory that this process has ever had, in bytes.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
}

async fn write_and_read(store: &FileStore<Tokio>, index: u64, mebibytes: usize) {
    let mut writer = SnapshotWriter::new(store.draft(1).await.expect("there is space"));
    for number in 0..mebibytes {
        writer.write_bytes(Bytes::from(vec![number as u8; MIB])).await.expect("there is space");
    }
    let (draft, bytes, digest) = writer.end().await.expect("there is space");
    let membership =
        Membership::founding(ClusterId(5), [(Replica::new(1, 7), "a:1".to_owned())].into())
            .expect("a possible one");
    let log_id = LogId::new(1, 1, index);
    let meta = SnapshotMeta { log_id, time: index, membership, membership_index: 1, bytes, digest };
    draft.finish(&meta).await.expect("there is space");
    let content = store.snapshot(1, &meta).await.expect("is there");
    let mut reader = SnapshotReader::new(content, bytes);
    while reader.remaining() > 0 {
        reader.read(1000.min(reader.remaining())).await.expect("is read");
    }
    let read: Digest = reader.end().expect("is read whole");
    assert_eq!(read, digest);
}

#[test]
fn a_large_snapshot_takes_no_more_memory_than_a_small_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_owned();
    Tokio::run(&Launch::named("memory"), async move |rt| {
        let store = FileStore::open(&rt, &path).await.expect("opens");
        write_and_read(&store, 1, 2).await;
        let before = peak();
        write_and_read(&store, 2, 64).await;
        let grown = peak() - before;
        println!("64 MiB written and read: {} KiB more memory", grown >> 10);
        assert!(grown < 8 * MIB, "{grown} bytes");
    })
    .expect("runs");
}
