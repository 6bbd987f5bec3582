//! Tests of the snapshot: what is written comes back, what is damaged is refused, and nothing takes
//! the thread for long.

use std::pin::pin;

use futures::FutureExt;
use quorate::{
    At, ClusterId, Command, Digest, LogId, LogStore, MemStore, Membership, Replica, SnapshotMeta,
    StateMachine,
};

use super::*;
use crate::write::{Batch, SetAnswer, When, Write, Writes};

const MIB: usize = 1 << 20;

/// Runs what waits for nothing but its turn. The result, and how many turns it took.
fn turns<T>(future: impl Future<Output = T>) -> (T, usize) {
    let mut future = pin!(future);
    let mut turns = 1;
    loop {
        match future.as_mut().now_or_never() {
            Some(result) => return (result, turns),
            None => turns += 1,
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    turns(future).0
}

fn name(n: usize) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

fn put(store: &mut Store, key: &[u8], value: &[u8]) {
    store.values.insert(KeyRef::new(key), Bytes::copy_from_slice(value));
}

/// What `fill` writes, as a snapshot in a store.
async fn stored(fill: impl AsyncFnOnce(&mut SnapshotWriter)) -> (SnapshotReader, SnapshotMeta) {
    let store = MemStore::new();
    let mut writer = SnapshotWriter::new(store.draft(0).await.unwrap());
    fill(&mut writer).await;
    let (draft, bytes, digest) = writer.end().await.unwrap();
    let members = [(Replica::new(1, 1), "a:1".to_owned())].into();
    let membership = Membership::founding(ClusterId(1), members).unwrap();
    let meta = SnapshotMeta {
        log_id: LogId::ZERO,
        time: 0,
        membership,
        membership_index: 0,
        bytes,
        digest,
    };
    draft.finish(&meta).await.unwrap();
    (SnapshotReader::new(store.snapshot(0, &meta).await.unwrap(), bytes), meta)
}

async fn written(view: Map) -> (SnapshotReader, SnapshotMeta) {
    stored(async |writer| Store::write(view, writer).await.unwrap()).await
}

/// All that a reader gives.
async fn content(mut from: SnapshotReader) -> Vec<u8> {
    from.read(from.remaining()).await.unwrap().to_vec()
}

/// Restores a store, which holds something else before, from these bytes.
fn restored(bytes: &[u8]) -> Result<Store, SnapshotError> {
    run(async {
        let (mut from, _) = stored(async |writer| writer.write(bytes).await.unwrap()).await;
        let mut store = Store::default();
        put(&mut store, b"before", b"");
        store.restore(&mut from).await?;
        assert_eq!(from.end().unwrap(), Digest::of(bytes));
        assert_eq!(store.count.get(), store.values.len());
        Ok(store)
    })
}

fn pairs(map: &Map) -> Vec<(Vec<u8>, Bytes)> {
    map.range_from(0).map(|(key, value)| (key.bytes.to_vec(), value.clone())).collect()
}

/// A key and a value as they are written.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| (bytes.len() as u64).to_le_bytes();
    [&len(key)[..], key, &len(value)[..], value].concat()
}

#[test]
fn what_was_written_is_restored_and_the_bytes_tell_nothing_of_what_has_been() {
    let mut store = Store::default();
    let mut other = Store::default();
    for n in 0..3000 {
        put(&mut store, &name(n), &vec![n as u8; n]);
        put(&mut other, &name(2999 - n), b"to be replaced");
    }
    put(&mut store, b"", &vec![b'x'; MAX_VALUE_BYTES]);
    put(&mut other, b"", b"");
    for n in 0..3000 {
        put(&mut other, &name(n), &vec![n as u8; n]);
        put(&mut other, &name(3000 + n), b"to be deleted");
        other.values.remove(&name(3000 + n));
    }
    let longer = other.values.get_mut(b"").unwrap();
    *longer = Bytes::from(vec![b'x'; MAX_VALUE_BYTES]);

    let bytes = run(async {
        let (from, meta) = written(store.view().unwrap()).await;
        let (_, meta_of_other) = written(other.view().unwrap()).await;
        assert_eq!(meta.digest, meta_of_other.digest);
        content(from).await
    });
    let restored = restored(&bytes).unwrap();
    assert_eq!(pairs(&restored.values), pairs(&store.values));
}

#[test]
fn a_view_shows_what_was_there_when_it_was_taken() {
    let mut store = Store::default();
    (0..1000).for_each(|n| put(&mut store, &name(n), b"old"));
    let expected = pairs(&store.values);
    let view = store.view().unwrap();
    let mut batch = Batch::default();
    for n in 0..1000 {
        let key = Bytes::from(name(n));
        let (answer, when) = (SetAnswer::Status, When::Always);
        batch.push(&match n % 4 {
            0 => Write::Set { key, value: Bytes::from_static(b"new"), when, answer },
            1 => Write::Append { key, value: Bytes::from_static(b"er") },
            2 => Write::GetDelete(key),
            _ => Write::Rename { from: key, to: Bytes::from(name(n + 1000)) },
        });
    }
    batch.push(&Write::Clear);
    let writes = Writes::decode(&batch.finish().encode().unwrap()).unwrap();
    store.apply(writes, At::default()).now_or_never().unwrap();
    assert_eq!(store.values.len(), 0);
    let bytes = run(async { content(written(view).await.0).await });
    assert_eq!(pairs(&restored(&bytes).unwrap().values), expected);
}

#[test]
fn an_append_copies_a_long_value_once_for_a_view_and_then_no_more() {
    let mut store = Store::default();
    put(&mut store, b"a", &vec![b'x'; MIB]);
    let append = |store: &mut Store| {
        let before = store.values.get(b"a").unwrap().as_ptr();
        let mut batch = Batch::default();
        batch.push(&Write::Append { key: Bytes::from_static(b"a"), value: "y".into() });
        store.apply(batch.finish(), At::default()).now_or_never().unwrap();
        store.values.get(b"a").unwrap().as_ptr() != before
    };
    append(&mut store); // It may move to where there is room to grow.
    assert!((0..100).all(|_| !append(&mut store)));
    let view = store.view().unwrap();
    let copies = (0..100).filter(|_| append(&mut store)).count();
    assert!((1..=2).contains(&copies), "{copies}");
    assert_eq!(view.get(b"a").unwrap().len(), MIB + 101);
}

#[test]
fn damaged_bytes_are_an_error_and_take_no_memory() {
    let mut sound: Vec<_> = (0..3).map(|n| (KeyRef::new(&name(n)).to_key(), name(n))).collect();
    sound.sort();
    let records: Vec<_> = sound.iter().map(|(_, key)| record(key, b"value")).collect();
    let whole = records.concat();
    assert_eq!(restored(&whole).unwrap().values.len(), 3);
    for len in 0..whole.len() {
        let boundary = len % records[0].len() == 0;
        assert_eq!(restored(&whole[..len]).is_ok(), boundary, "cut at {len}");
    }
    for bit in 0..8 * whole.len() {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let _ = restored(&damaged); // What it can't see the digest does.
    }
    let twice = [&records[0][..], &records[1], &records[1]].concat();
    let back = [&records[0][..], &records[2], &records[1]].concat();
    for damaged in [twice, back] {
        let error = restored(&damaged).unwrap_err().to_string();
        assert!(error.contains("the keys are not in their order"), "{error}");
    }
    let too_long = vec![0; MAX_VALUE_BYTES + 1];
    for damaged in [record(&too_long, b""), record(b"a", &too_long)] {
        let error = restored(&damaged).unwrap_err().to_string();
        assert!(error.contains("is longer than any"), "{error}");
    }
    for len in [2, MAX_VALUE_BYTES as u64, u64::MAX] {
        let key = [&len.to_le_bytes()[..], b"a"].concat();
        let value = [&record(b"a", b"")[..9], &len.to_le_bytes(), b"b"].concat();
        assert!(restored(&key).is_err() && restored(&value).is_err(), "{len}");
    }
}

#[test]
fn writing_and_restoring_let_others_have_their_turn() {
    const KEYS: usize = 100_000;
    let mut store = Store::default();
    (0..KEYS).for_each(|n| put(&mut store, &name(n), b""));
    let ((mut from, meta), to_write) = turns(written(store.view().unwrap()));
    let chunks = meta.bytes as usize / (MIB / 4);
    assert!(chunks >= 8);
    assert!(to_write > chunks, "{to_write} turns to write {chunks} chunks");
    let ((), to_restore) = turns(async { store.restore(&mut from).await.unwrap() });
    assert!(to_restore > chunks, "{to_restore} turns to restore {chunks} chunks");
    assert_eq!(store.values.len(), KEYS);
}
