//! Scenarios of one store: what was appended is what is recovered and read.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quorate_core::{Digest, Entry, LogId, Membership, Payload, Replica, Term};

use super::*;

/// Nothing in this store ever waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a memory store has nothing to wait for"),
    }
}

fn entry(term: u64, index: Index, command: &'static str) -> Entry {
    let payload = Payload::Command(Bytes::from_static(command.as_bytes()));
    Entry { log_id: LogId::new(term, 1, index), time: term, payload }
}

fn append(store: &MemStore, group: GroupId, entries: Vec<Entry>) {
    let write = LogWrite { entries: entries.into(), ..LogWrite::default() };
    // (A write that makes no sense panics, and drops it.)
    let silent = Completion::new(|_| assert!(std::thread::panicking(), "it tells nothing"));
    assert!(matches!(store.append(group, write, silent), Appended::Durable { .. }));
}

#[test]
fn a_kept_clone_recovers_what_a_dropped_one_wrote() {
    let kept = MemStore::new();
    let hard_state = HardState { term: Term(2), voted_for: Some(Replica::new(3, 33)) };
    {
        let store = kept.clone();
        append(&store, 7, vec![entry(1, 1, "a"), entry(2, 2, "b")]);
        let write = LogWrite { hard_state: Some(hard_state), ..LogWrite::default() };
        let _durable = store.append(7, write, Completion::new(|_| ()));
    }
    let recovered = now(kept.recover(7)).unwrap();
    assert_eq!(recovered.hard_state, hard_state);
    assert_eq!(recovered.log_meta.last(), LogId::new(2, 1, 2));
    assert_eq!(now(kept.recover(8)).unwrap(), Recovered::default());
}

#[test]
fn a_new_store_has_a_new_incarnation_unless_it_is_given_one() {
    let identify = |store: &MemStore| now(store.identify(1)).unwrap();
    let (one, other) = (identify(&MemStore::new()), identify(&MemStore::new()));
    assert_ne!(one.incarnation, other.incarnation);
    let given = identify(&MemStore::with_incarnation(7));
    assert_eq!(given, Identity { incarnation: 7, cluster: None, boot: 1 });
}

#[test]
fn a_store_is_the_first_node_s_that_starts_on_it() {
    let store = MemStore::with_incarnation(7);
    assert_eq!(now(store.identify(3)).unwrap().boot, 1);
    let error = now(store.identify(4)).unwrap_err();
    assert!(matches!(error, StoreError::OtherNode { holds: 3, wanted: 4, .. }), "{error}");
    assert_eq!(now(store.clone().identify(3)).unwrap().boot, 2);
}

#[test]
#[should_panic(expected = "a store belongs to one cluster")]
fn joining_another_cluster_is_a_bug_of_the_caller() {
    let store = MemStore::new();
    for cluster in [1, 2] {
        submit(&store, LogWrite { cluster: Some(ClusterId(cluster)), ..LogWrite::default() });
    }
}

#[test]
fn an_overwritten_suffix_is_gone() {
    let store = MemStore::new();
    append(&store, 1, vec![entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")]);
    append(&store, 1, vec![entry(2, 2, "B")]);
    assert_eq!(now(store.read(1, 1..3, 1000)).unwrap(), vec![entry(1, 1, "a"), entry(2, 2, "B")]);
    assert!(matches!(now(store.read(1, 1..4, 1000)), Err(StoreError::Missing(3))));
    assert_eq!(now(store.recover(1)).unwrap().log_meta.last(), LogId::new(2, 1, 2));
}

#[test]
fn a_read_gives_what_fits_and_at_least_one_entry() {
    let store = MemStore::new();
    append(&store, 1, vec![entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")]);
    let one = entry(1, 1, "a").bytes();
    for (max_bytes, count) in [(0, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (9 * one, 3)] {
        assert_eq!(now(store.read(1, 1..4, max_bytes)).unwrap().len(), count, "{max_bytes}");
    }
    assert_eq!(now(store.read(1, 2..3, 9 * one)).unwrap(), vec![entry(1, 2, "b")]);
    assert_eq!(now(store.read(1, 2..2, 9 * one)).unwrap(), vec![]);
}

#[test]
fn a_read_of_what_is_not_there_names_the_first_that_is_missing() {
    let store = MemStore::new();
    append(&store, 1, vec![entry(1, 1, "a")]);
    assert!(matches!(now(store.read(1, 0..2, 10)), Err(StoreError::Missing(0))));
    assert!(matches!(now(store.read(1, 1..3, 10)), Err(StoreError::Missing(2))));
    assert!(matches!(now(store.read(2, 1..2, 10)), Err(StoreError::Missing(1))));
}

#[test]
#[should_panic(expected = "can't follow")]
fn a_gap_is_a_bug_of_the_caller() {
    append(&MemStore::new(), 1, vec![entry(1, 2, "b")]);
}

fn meta(index: Index, content: &[u8]) -> SnapshotMeta {
    let members = BTreeMap::from([(Replica::new(1, 11), "node-1".to_owned())]);
    SnapshotMeta {
        log_id: LogId::new(1, 1, index),
        time: 1,
        membership: Membership::founding(ClusterId(5), members).unwrap(),
        membership_index: 1,
        bytes: content.len() as u64,
        digest: Digest::of(content),
    }
}

fn submit(store: &MemStore, write: LogWrite) {
    let _durable = store.append(1, write, Completion::new(|_| ()));
}

/// Three entries, and a finished snapshot of the first two.
fn with_snapshot() -> (MemStore, SnapshotMeta) {
    let store = MemStore::new();
    append(&store, 1, vec![entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")]);
    let meta = meta(2, b"a and b");
    let mut draft = now(store.draft(1)).unwrap();
    now(draft.write(Bytes::from_static(b"a and "))).unwrap();
    now(draft.write(Bytes::from_static(b"b"))).unwrap();
    now(draft.finish(&meta)).unwrap();
    (store, meta)
}

#[test]
fn a_snapshot_takes_the_place_of_what_is_purged() {
    let (store, meta) = with_snapshot();
    let purge = Some(meta.log_id);
    submit(
        &store,
        LogWrite { snapshot: Some(Box::new(meta.clone())), purge, ..LogWrite::default() },
    );
    let recovered = now(store.recover(1)).unwrap();
    assert_eq!(
        (recovered.snapshot, recovered.log_meta.purged()),
        (Some(meta.clone()), meta.log_id)
    );
    assert!(matches!(now(store.read(1, 2..4, 1000)), Err(StoreError::Missing(2))));
    assert_eq!(now(store.read(1, 3..4, 1000)).unwrap(), vec![entry(1, 3, "c")]);
    let content = now(store.snapshot(1, &meta)).unwrap();
    assert_eq!(now(content.read(0, 100)).unwrap(), "a and b");
    assert_eq!(now(content.read(4, 2)).unwrap(), "d ");
}

#[test]
fn a_chunk_that_is_enough_is_not_copied() {
    let (store, meta) = with_snapshot();
    let content = now(store.snapshot(1, &meta)).unwrap();
    let (one, other) = (now(content.read(0, 6)).unwrap(), now(content.read(0, 6)).unwrap());
    assert_eq!((one.as_ptr(), &one[..]), (other.as_ptr(), &b"a and "[..]));
}

#[test]
#[should_panic(expected = "is not finished")]
fn naming_what_is_not_finished_is_a_bug_of_the_caller() {
    let (store, meta) = with_snapshot();
    let snapshot = Some(Box::new(SnapshotMeta { digest: Digest::of(b"another"), ..meta }));
    submit(&store, LogWrite { snapshot, ..LogWrite::default() });
}

#[test]
#[should_panic(expected = "the snapshot covers")]
fn purging_what_no_snapshot_covers_is_a_bug_of_the_caller() {
    let (store, meta) = with_snapshot();
    let purge = Some(entry(1, 3, "c").log_id);
    submit(&store, LogWrite { snapshot: Some(Box::new(meta)), purge, ..LogWrite::default() });
}
