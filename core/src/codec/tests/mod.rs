//! Everything there and back, and damaged bytes of all kinds, none of which may panic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use self::changes::{changed, changing, largest_changing};
use super::membership::{put_membership, take_membership};
use super::state::{put_claim, take_claim};
use super::*;
use crate::entries::Entries;
use crate::identity::{
    Boot, Claim, ClusterId, MAX_MEMORIES, MAX_STARTS, Marks, Memory, Replica, Standing, Start,
};
use crate::membership::{MAX_ADDRESS_BYTES, MAX_NODES, Membership};
use crate::message::{
    Alive, AppendOutcome, Body, Departure, ForwardOutcome, LeadershipTransfer, Message, Refusal,
    Situation,
};
use crate::quorum::Voters;
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::{Entry, HardState, Index, NodeId, Payload, Term};

mod changes;
mod gather;
mod growth;
mod limits;
mod refused;

/// What `put` appends.
fn encoded(put: impl FnOnce(&mut Gather)) -> Bytes {
    let mut gather = Gather::new();
    put(&mut gather);
    let len = gather.len();
    let bytes = Bytes::from(gather.take().concat());
    assert_eq!(bytes.len(), len, "the length is that of the chunks");
    bytes
}

fn encode(message: &Message) -> Bytes {
    encoded(|to| put_message(to, message))
}

const FROM: Replica = Replica::new(1, 0x1111 << 48);
const TO: Replica = Replica::new(u64::MAX, u64::MAX);
const CLUSTER: ClusterId = ClusterId(0x0102 << 112 | 7);

fn message(body: Body) -> Message {
    let to = if matches!(body, Body::Who { .. }) { Replica::any(2) } else { TO };
    Message { group: 7, cluster: Some(CLUSTER), from: FROM, to, term: Term(5), body }
}

fn entry(term: u64, index: Index, time: u64, payload: Payload) -> Entry {
    Entry { log_id: LogId::new(term, 3, index), time, payload }
}

fn ids(ids: impl IntoIterator<Item = NodeId>) -> BTreeSet<NodeId> {
    ids.into_iter().collect()
}

fn replica(id: NodeId) -> Replica {
    Replica::new(id, 1000 + id)
}

fn address(id: NodeId) -> String {
    format!("node-{id}.example:7000")
}

/// Three voters and a learner.
fn membership() -> Membership {
    let members = [1, 2, 3, 900].map(|id| (replica(id), address(id)));
    let voters = Voters::simple([1, 2, 3].map(replica));
    Membership::new(CLUSTER, ids([1, 2, 7]), members.into(), voters).expect("valid")
}

/// One that exchanges the disk of node 2.
fn joint() -> Membership {
    let new = Replica::new(2, u64::MAX);
    let mut members: BTreeMap<_, _> = [1, 2].map(|id| (replica(id), address(id))).into();
    members.insert(new, address(2));
    let voters = Voters::joint([replica(1), new], [replica(1), replica(2)]);
    Membership::new(CLUSTER, ids([1, 2]), members, voters).expect("valid")
}

/// One with as many members as there may be.
fn largest() -> Membership {
    let address = |id: NodeId| format!("{id:0>width$}", width = MAX_ADDRESS_BYTES);
    let members = (1..=MAX_NODES as u64).map(|id| (replica(id), address(id)));
    Membership::founding(CLUSTER, members.collect()).expect("valid")
}

fn claim() -> Claim {
    let list = [1, 2, 900].map(|id| (id, address(id)));
    Claim {
        cluster: CLUSTER,
        ballot: 3,
        founder: replica(1),
        list: Arc::new(list.into_iter().collect()),
    }
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        log_id: LogId::new(4, 2, 77),
        time: 1 << 41,
        membership: joint(),
        membership_index: 77,
        bytes: 1 << 40,
        digest: Digest([7; Digest::BYTES]),
    }
}

fn standings() -> Vec<Standing> {
    let (claimed, admitted) = (Standing::Claimed(claim()), Standing::Admitted(CLUSTER));
    let contested = Standing::Contested(claim());
    vec![Standing::Empty, claimed, admitted, Standing::Spent, contested]
}

fn marks() -> Marks {
    let memory = Memory {
        term: Term(9),
        voted: Term(8),
        acknowledged: LogId::new(7, 1, 60),
        committed: LogId::new(6, 1, 50),
        boot: Boot { number: 4, tag: 1 << 60 },
    };
    let memories = [(replica(1), memory), (replica(2), Memory::default())].into_iter().collect();
    let starts =
        [(3, Start::default()), (4, Start { tag: 5, term: Term(6), last: LogId::new(6, 2, 9) })]
            .into_iter()
            .collect();
    Marks { committed: LogId::new(6, 1, 50), memories, starts }
}

/// Of all kinds, in four runs of entries.
fn entries() -> Vec<Entry> {
    let large = Bytes::from(vec![9; Gather::CHUNK_BYTES]);
    vec![
        entry(4, 78, 1000, Payload::Blank),
        entry(4, 79, 1000, Payload::Command(Bytes::from_static(b"small"))),
        entry(4, 80, 1001, Payload::Command(large)),
        entry(5, 81, 1001, Payload::Command(Bytes::new())),
        entry(5, 82, 1001, Payload::Membership(membership())),
        entry(5, 83, u64::MAX, Payload::Membership(joint())),
    ]
}

/// At least one of every kind, and of every outcome.
fn messages() -> Vec<Message> {
    let last_log_id = LogId::new(4, 2, 77);
    let large = Bytes::from(vec![9; Gather::CHUNK_BYTES]);
    let append =
        |entries| Body::Append { prev: last_log_id, committed: 70, round: 3, durable: 69, entries };
    let forward = |commands| Body::Forward { boot: u64::MAX, sequence: 8, commands };
    let forwarded = |outcome| Body::ForwardReply { boot: 2, sequence: 8, outcome };
    let replied = |outcome| Body::AppendReply { round: 3, outcome };
    let snapshot = |offset, chunk| Body::Snapshot { meta: Box::new(meta()), offset, chunk };
    let transfer = LeadershipTransfer { leader: replica(2), term: Term(4), round: 6 };
    let situated = |situation| Body::Situation { situation, listed: ids([1, 900]) };
    let claimed = Situation::Claimed { ballot: 3, founder: replica(1), ids: ids([1, 2]) };
    let bodies = vec![
        Body::PreVote { last_log_id, attempt: 0 },
        Body::PreVote { last_log_id, attempt: 11 },
        Body::PreVoteReply { granted: true, attempt: 0 },
        Body::PreVoteReply { granted: false, attempt: u64::MAX },
        Body::Vote { last_log_id: LogId::ZERO, transfer: None, attempt: 0 },
        Body::Vote { last_log_id, transfer: Some(transfer), attempt: 11 },
        Body::VoteReply { granted: true, attempt: 0 },
        Body::VoteReply { granted: false, attempt: 11 },
        append(Entries::default()),
        append(entries().into()),
        replied(AppendOutcome::Accepted { matched: 82 }),
        replied(AppendOutcome::Rejected { prev: 77, hint: LogId::new(3, 1, 60) }),
        forward(Vec::new()),
        forward(vec![Bytes::from_static(b"a"), Bytes::new(), large.clone()]),
        forwarded(ForwardOutcome::Appended(LogId::new(5, 3, 83))),
        forwarded(ForwardOutcome::NotLeader),
        forwarded(ForwardOutcome::Busy),
        forwarded(ForwardOutcome::StorageFull),
        forwarded(ForwardOutcome::Partly {
            first: LogId::new(5, 3, 83),
            refused: vec![Refusal::new(1, "why".to_owned()), Refusal::new(3, String::new())],
        }),
        Body::ReadIndex { sequence: 12 },
        Body::ReadIndexReply { sequence: 12, index: Some(80), time: 7 },
        Body::ReadIndexReply { sequence: 12, index: None, time: 0 },
        Body::TimeoutNow { last_log_id, round: 6 },
        snapshot(0, Bytes::new()),
        snapshot(7, large),
        Body::SnapshotReply { digest: Digest::of(b"content"), stored: 7 },
        Body::Who { listed: ids([]) },
        Body::Who { listed: ids(1..=MAX_NODES as u64) },
        situated(Situation::Empty),
        situated(claimed),
        situated(Situation::Admitted),
        situated(Situation::Member { founders: ids([1, 2, 3]), voter: false }),
        situated(Situation::Member { founders: ids([1, 2, 3]), voter: true }),
        situated(Situation::Spent),
        situated(Situation::Elsewhere),
        Body::Claim(Box::new(claim())),
        Body::Admit { cluster: CLUSTER, founders: ids([5]) },
        Body::Rest {
            last_log_id: LogId::new(3, 2, 9),
            round: 7,
            boot: Boot { number: 4, tag: 1 << 60 },
        },
        Body::Rests { last_log_id: LogId::new(3, 2, 9) },
        Body::Alive(Box::default()),
        Body::Alive(Box::new(Alive {
            boot: Boot { number: 4, tag: 1 << 60 },
            heard: (2, 3),
            last: 8,
            departures: vec![
                Departure { group: 1, term: Term(6) },
                Departure { group: 1 << 50, term: Term(2) },
            ],
        })),
    ];
    let claimed_by_any = Message { to: Replica::any(2), ..message(Body::Claim(Box::new(claim()))) };
    let bodies = bodies.into_iter().chain(changes::bodies());
    bodies.map(message).chain([claimed_by_any]).collect()
}

/// Something that delimits itself comes back and leaves what follows it; cut short, it is an error;
/// a flipped bit gives an error or something else.
fn comes_back<T: Debug + PartialEq>(
    value: &T,
    put: impl Fn(&mut Gather, &T),
    take: impl Fn(&mut Bytes) -> Result<T, DecodeError>,
) {
    let bytes = encoded(|to| put(to, value));
    let mut and_more = Bytes::from([&bytes[..], b"more"].concat());
    assert_eq!(take(&mut and_more).as_ref(), Ok(value));
    assert_eq!(and_more, b"more"[..]);
    for len in 0..bytes.len() {
        let outcome = take(&mut bytes.slice(..len));
        assert!(matches!(outcome, Err(DecodeError::Short { .. })), "{len}: {outcome:?}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = take(&mut damaged.into()) {
            assert_ne!(other, *value, "bit {bit} says nothing");
            assert_eq!(take(&mut encoded(|to| put(to, &other))), Ok(other));
        }
    }
}

#[test]
fn what_a_store_keeps_comes_back() {
    for membership in [membership(), joint(), changed(), changing()] {
        comes_back(&membership, put_membership, take_membership);
    }
    for voted_for in [None, Some(replica(3))] {
        comes_back(&HardState { term: Term(9), voted_for }, put_hard_state, take_hard_state);
    }
    for standing in standings() {
        comes_back(&standing, put_standing, take_standing);
    }
    for marks in [Marks::default(), marks()] {
        comes_back(&marks, put_marks, take_marks);
    }
    comes_back(&claim(), put_claim, take_claim);
    comes_back(&meta(), put_snapshot_meta, take_snapshot_meta);
    comes_back(&LogId::new(1, 2, 3), |to, log_id| put_log_id(to, *log_id), take_log_id);
    for entry in entries().into_iter().chain([changes::an_entry()]) {
        comes_back(&entry, put_entry, take_entry);
    }
}

#[test]
fn every_message_comes_back() {
    for message in messages() {
        assert_eq!(decode_message(encode(&message)), Ok(message));
    }
}

/// What is on disks and on wires must stay readable: a change of these bytes is a change of the
/// format.
#[test]
fn the_form_of_an_append_is_as_documented() {
    let command = |index| Entry {
        log_id: LogId::new(5, 1, index),
        time: 99,
        payload: Payload::Command(Bytes::from_static(b"xy")),
    };
    let prev = LogId::new(1, 2, 3);
    let entries = vec![command(4), command(5), Entry { time: 100, ..command(6) }].into();
    let bytes = encode(&Message {
        group: 9,
        cluster: Some(ClusterId(3)),
        from: Replica::new(1, 11),
        to: Replica::new(2, 12),
        term: Term(5),
        body: Body::Append { prev, committed: 2, round: 6, durable: 4, entries },
    });
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>();
    let run = |first, time, count, entries: &[u8]| {
        [&[0], &numbers(&[5, 1, first, time])[..], &[count, 0, 0, 0], entries].concat()
    };
    let expected = [
        &numbers(&[9, 3, 0, 1, 11, 2, 12, 5])[..],
        &[5, 0x81, 24],
        &numbers(&[1, 2, 3]),
        &[0x82, 8],
        &numbers(&[2]),
        &[0x83, 8],
        &numbers(&[6]),
        &[0x84, 8],
        &numbers(&[4]),
        &[0x85, 255, 4 + 2 * 37 + 3 * 7, 0, 0, 0],
        &[3, 0, 0, 0],
        &run(4, 99, 2, b"\x01\x02\0\0\0xy\x01\x02\0\0\0xy"),
        &run(6, 100, 1, b"\x01\x02\0\0\0xy"),
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn the_form_of_a_hard_state_and_of_an_entry_is_as_documented() {
    let hard_state = HardState { term: Term(3), voted_for: Some(Replica::new(1, 2)) };
    let bytes = encoded(|to| put_hard_state(to, &hard_state));
    let expected = b"\xff\x1c\0\0\0\x81\x08\x03\0\0\0\0\0\0\0\x82\x10\
        \x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0";
    assert_eq!(bytes, expected[..]);
    let short = Bytes::from([&[0x1c], &expected[5..]].concat()); // Readers take either length.
    assert_eq!(take_hard_state(&mut short.clone()), Ok(hard_state));

    let bytes = encoded(|to| put_entry(to, &entry(1, 2, 4, Payload::Command("xy".into()))));
    let expected = b"\x01\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\
        \x04\0\0\0\0\0\0\0\x02\0\0\0xy";
    assert_eq!(bytes, expected[..]);
}

#[test]
fn sizes_are_told_without_encoding() {
    for membership in [membership(), joint(), largest(), changing(), largest_changing()] {
        let bytes = encoded(|to| put_membership(to, &membership));
        assert_eq!(membership_bytes(&membership), bytes.len());
        assert_eq!(take_membership(&mut bytes.clone()), Ok(membership));
    }
    for entry in entries() {
        let bytes = encoded(|to| put_entry(to, &entry));
        assert_eq!(entry_bytes(&bytes), Ok(bytes.len()));
        assert_eq!(bytes.len() - ENTRY_HEADER_BYTES, entry.bytes() - Entry::OVERHEAD_BYTES);
    }
    assert_eq!(encoded(|to| put_log_id(to, LogId::ZERO)).len(), LOG_ID_BYTES);
}

#[test]
fn commands_are_neither_copied_on_their_way_out_nor_in() {
    let command = Bytes::from(vec![9; Gather::CHUNK_BYTES]);
    let entries = vec![entry(4, 78, 0, Payload::Command(command.clone()))].into();
    let prev = LogId::new(4, 3, 77);
    let mut gather = Gather::new();
    put_message(
        &mut gather,
        &message(Body::Append { prev, committed: 0, round: 0, durable: 0, entries }),
    );
    let chunks = gather.take();
    assert!(chunks.iter().any(|chunk| chunk.as_ptr() == command.as_ptr()), "it was copied");

    let bytes = Bytes::from(chunks.concat());
    let Ok(Message { body: Body::Append { entries, .. }, .. }) = decode_message(bytes.clone())
    else {
        panic!("not an append");
    };
    let Payload::Command(command) = &entries[0].payload else { panic!("not a command") };
    assert!(bytes.as_ptr_range().contains(&command.as_ptr()), "it was copied");
}

fn without_attempt(mut message: Message) -> Message {
    if let Body::PreVote { attempt, .. }
    | Body::PreVoteReply { attempt, .. }
    | Body::Vote { attempt, .. }
    | Body::VoteReply { attempt, .. } = &mut message.body
    {
        *attempt = 0;
    }
    message
}

#[test]
fn a_message_cut_short_or_too_long_is_an_error() {
    for message in messages() {
        let bytes = encode(&message);
        let unnumbered = without_attempt(message);
        for len in 0..bytes.len() {
            if bytes[..len] == encode(&unnumbered) {
                // This is how senders write it that number no attempts.
                assert_eq!(decode_message(bytes.slice(..len)).as_ref(), Ok(&unnumbered));
                continue;
            }
            let outcome = decode_message(bytes.slice(..len));
            let is_error =
                matches!(outcome, Err(DecodeError::Short { .. } | DecodeError::Missing { .. }));
            assert!(is_error, "{len}: {outcome:?}");
        }
        for rest in [&b"\0"[..], b"\0\0", b"\x7f\x01", b"\xff\xff\0\0"] {
            let outcome = decode_message([&bytes[..], rest].concat().into());
            assert!(outcome.is_err(), "{rest:?}: {outcome:?}");
        }
    }
}

/// A flipped bit gives an error or another message, and never a panic or a claim that takes all the
/// memory.
#[test]
fn a_flipped_bit_is_an_error_or_another_message() {
    for message in messages() {
        let bytes = encode(&message);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = BytesMut::from(&bytes[..]);
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = decode_message(damaged.freeze()) {
                assert_ne!(other, message, "bit {bit} says nothing");
                assert_eq!(decode_message(encode(&other)), Ok(other));
            }
        }
    }
}

#[test]
fn claims_beyond_what_is_there_allocate_nothing() {
    let prev = LogId::new(4, 3, 77);
    let entries = vec![entry(4, 78, 0, Payload::Command(Bytes::from_static(b"xy")))].into();
    let bytes =
        encode(&message(Body::Append { prev, committed: 0, round: 0, durable: 0, entries }));
    let len = bytes.len();
    // The length of the command, the number of entries, the length of them all.
    for at in [len - 6, len - 48, len - 52] {
        let mut damaged = bytes.to_vec();
        damaged[at..at + 4].fill(255);
        let outcome = decode_message(damaged.into());
        assert!(matches!(outcome, Err(DecodeError::Short { .. })), "{outcome:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(
        kind in 0..24_u8,
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = BytesMut::new();
        for number in [1, 1, 1, 2, 1, 1] {
            bytes.put_u64_le(number);
        }
        bytes.put_u8(kind);
        bytes.put_slice(&rest);
        if let Ok(message) = decode_message(bytes.freeze()) {
            prop_assert_eq!(decode_message(encode(&message)), Ok(message));
        }
        let rest = Bytes::from(rest);
        let _ = take_entry(&mut rest.clone());
        let _ = take_membership(&mut rest.clone());
        let _ = take_hard_state(&mut rest.clone());
        let _ = take_standing(&mut rest.clone());
        let _ = take_marks(&mut rest.clone());
        let _ = take_snapshot_meta(&mut rest.clone());
    }

    /// What random bytes rarely reach: bytes at random places of what is nearly right.
    #[test]
    fn damaged_messages_decode_or_fail(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encode(which.get(&messages())).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(message) = decode_message(bytes.into()) {
            prop_assert_eq!(decode_message(encode(&message)), Ok(message));
        }
    }
}
