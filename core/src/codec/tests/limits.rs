//! The sizes of the largest messages are those that are written.

use super::*;

fn bytes(body: Body) -> usize {
    encode(&message(body)).len()
}

fn append(entries: Vec<Entry>) -> usize {
    let (prev, entries) = (LogId::new(4, 3, 1), entries.into());
    bytes(Body::Append { prev, committed: 1, round: 1, durable: 1, entries })
}

fn command(index: Index, len: usize) -> Entry {
    // Each of another time, so that each is a run of its own.
    entry(5, index, index, Payload::Command(vec![0; len].into()))
}

#[test]
fn the_largest_commands_take_what_is_told() {
    for len in [0, 1, 254, 255, 100_000] {
        assert_eq!(append(vec![command(2, len)]), APPEND_OVERHEAD_BYTES + len);
        let commands = vec![vec![0; len].into()];
        let forward = bytes(Body::Forward { boot: 1, sequence: 1, commands });
        assert_eq!(forward, FORWARD_OVERHEAD_BYTES + len);
    }
}

#[test]
fn no_entries_take_more_than_one_that_counts_as_much() {
    for (entries, len) in [(1, 1000), (2, 436), (10, 42), (10, 0)] {
        let run: Vec<_> = (2..2 + entries).map(|index| command(index, len)).collect();
        let counted = run.iter().map(Entry::bytes).sum();
        let taken = append(run);
        assert!(taken <= max_append_bytes(counted), "{entries} entries of {len}: {taken} bytes");
    }
    assert_eq!(append(vec![command(2, 1000)]), max_append_bytes(1000 + Entry::OVERHEAD_BYTES));
}

#[test]
fn the_largest_chunk_of_a_snapshot_takes_what_is_told() {
    let membership = largest_changing();
    assert_eq!(membership_bytes(&membership), MAX_MEMBERSHIP_BYTES);
    let meta = Box::new(SnapshotMeta { membership, ..meta() });
    let chunk = Bytes::from(vec![0; 1000]);
    let chunk = bytes(Body::Snapshot { meta, offset: 1, chunk });
    assert_eq!(chunk, MAX_SNAPSHOT_OVERHEAD_BYTES + 1000);
}

/// Config checks that a chunk of a snapshot can be carried, so this is enough.
#[test]
fn what_goes_with_the_largest_configuration_takes_no_more_than_a_chunk() {
    for body in changes::largest_bodies() {
        let message = message(body);
        let bytes = encode(&message);
        assert!(bytes.len() <= MAX_SNAPSHOT_OVERHEAD_BYTES, "{}: {}", bytes.len(), bytes[64]);
        assert!(decode_message(bytes).is_ok());
    }
}
