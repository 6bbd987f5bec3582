//! Every kind of message there and back, and damaged bytes of all kinds, none of which may panic.

use proptest::prelude::*;

use super::*;
use crate::entries::Entries;
use crate::types::Index;

fn encode(message: &Message) -> Bytes {
    let mut gather = Gather::new();
    put_message(&mut gather, message);
    let len = gather.len();
    let mut bytes = BytesMut::new();
    for chunk in gather.take() {
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(bytes.len(), len, "the length is that of the chunks");
    bytes.freeze()
}

fn message(body: Body) -> Message {
    Message { group: 7, from: 1, to: u64::MAX, term: Term(5), body }
}

fn entry(term: u64, index: Index, payload: Payload) -> Entry {
    Entry { log_id: LogId::new(term, 3, index), payload }
}

fn membership() -> Membership {
    let address = |id: NodeId| (id, format!("node-{id}.example:7000"));
    Membership::new([1, 2, 900].map(address).into()).expect("valid")
}

/// At least one of every kind, and of every outcome.
fn messages() -> Vec<Message> {
    let last_log_id = LogId::new(4, 2, 77);
    let large = Bytes::from(vec![9; Gather::CHUNK_BYTES]);
    let entries = vec![
        entry(4, 78, Payload::Blank),
        entry(4, 79, Payload::Command(Bytes::from_static(b"small"))),
        entry(5, 80, Payload::Command(large.clone())),
        entry(5, 81, Payload::Command(Bytes::new())),
        entry(5, 82, Payload::Membership(membership())),
    ];
    let append = |entries| Body::Append { prev: last_log_id, committed: 70, round: 3, entries };
    let forward = |commands| Body::Forward { session: u64::MAX, sequence: 8, commands };
    let forwarded = |outcome| Body::ForwardReply { session: 2, sequence: 8, outcome };
    let replied = |outcome| Body::AppendReply { round: 3, outcome };
    let snapshot = |offset, chunk| {
        let meta = SnapshotMeta {
            log_id: last_log_id,
            membership: membership(),
            membership_index: 77,
            bytes: 1 << 40,
            digest: Digest([7; Digest::BYTES]),
        };
        Body::Snapshot { meta, offset, chunk }
    };
    let bodies = vec![
        Body::PreVote { last_log_id },
        Body::PreVoteReply { vote: Vote::Yes },
        Body::PreVoteReply { vote: Vote::No },
        Body::Vote { last_log_id: LogId::ZERO, handover: true },
        Body::TimeoutNow,
        Body::VoteReply { vote: Vote::Yes },
        Body::VoteReply { vote: Vote::No },
        Body::VoteReply { vote: Vote::Tentative },
        Body::PreVoteReply { vote: Vote::Tentative },
        append(Entries::default()),
        append(entries.into()),
        replied(AppendOutcome::Accepted { matched: 82 }),
        replied(AppendOutcome::Rejected { prev: 77, hint: LogId::new(3, 1, 60) }),
        forward(vec![Bytes::from_static(b"a"), Bytes::new(), large.clone()]),
        forwarded(ForwardOutcome::Appended(LogId::new(5, 3, 83))),
        forwarded(ForwardOutcome::NotLeader),
        forwarded(ForwardOutcome::Busy),
        forwarded(ForwardOutcome::Partly {
            first: LogId::new(5, 3, 83),
            refused: vec![
                Refusal::new(0, String::new()),
                Refusal::new(2, "ü".repeat(Refusal::MAX_REASON_BYTES)),
            ],
        }),
        snapshot(0, Bytes::new()),
        snapshot(7, large),
        Body::SnapshotReply { digest: Digest::of(b"content"), stored: 7 },
        Body::ReadIndex { sequence: 12 },
        Body::ReadIndexReply { sequence: 12, index: Some(80) },
        Body::ReadIndexReply { sequence: 12, index: None },
    ];
    bodies.into_iter().map(message).collect()
}

#[test]
fn every_message_comes_back() {
    for message in messages() {
        assert_eq!(decode_message(encode(&message)), Ok(message));
    }
}

/// What is on disks and on wires must stay readable: a change of these bytes is a change of the format.
#[test]
fn the_form_is_as_documented() {
    let prev = LogId::new(1, 2, 3);
    let entries = vec![Entry {
        log_id: LogId::new(5, 1, 4),
        payload: Payload::Command(Bytes::from_static(b"xy")),
    }];
    let bytes = encode(&Message {
        group: 9,
        from: 1,
        to: 2,
        term: Term(5),
        body: Body::Append { prev, committed: 2, round: 6, entries: entries.into() },
    });
    let mut expected = Vec::new();
    for number in [9_u64, 1, 2, 5] {
        expected.extend(number.to_le_bytes());
    }
    expected.push(5);
    for number in [1_u64, 2, 3, 2, 6] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(1_u32.to_le_bytes());
    expected.push(1);
    for number in [5_u64, 1, 4] {
        expected.extend(number.to_le_bytes());
    }
    expected.extend(2_u32.to_le_bytes());
    expected.extend(b"xy");
    assert_eq!(bytes, expected);
}

#[test]
fn a_message_cut_short_or_too_long_is_an_error() {
    for message in messages() {
        let bytes = encode(&message);
        for len in 0..bytes.len() {
            let outcome = decode_message(bytes.slice(..len));
            assert!(matches!(outcome, Err(DecodeError::Short { .. })), "{len}: {outcome:?}");
        }
        let mut longer = BytesMut::from(&bytes[..]);
        longer.put_u8(0);
        assert_eq!(decode_message(longer.freeze()), Err(DecodeError::Long(1)));
    }
}

/// A flipped bit gives an error or another message, and never a panic or a claim that takes all the memory.
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
    let mut gather = Gather::new();
    for number in [1, 1, 2, 1] {
        gather.put_u64(number);
    }
    gather.put_u8(FORWARD);
    gather.put_u64(1);
    gather.put_u64(1);
    gather.put_u32(u32::MAX);
    let bytes = gather.take().concat();
    assert!(matches!(decode_message(bytes.into()), Err(DecodeError::Short { .. })));
}

#[test]
fn what_can_not_be_is_refused() {
    let refused = |message: &Message| {
        let outcome = decode_message(encode(message));
        assert!(matches!(outcome, Err(DecodeError::Invalid(_))), "{outcome:?}");
    };
    let heard = Body::ReadIndex { sequence: 1 };
    refused(&Message { from: 0, ..message(heard.clone()) });
    refused(&Message { to: 0, ..message(heard) });
    let append = |entries: Vec<Entry>| {
        let prev = LogId::new(4, 2, 77);
        message(Body::Append { prev, committed: 0, round: 0, entries: entries.into() })
    };
    refused(&append(vec![entry(4, 79, Payload::Blank)]));
    refused(&append(vec![entry(3, 78, Payload::Blank)]));
    refused(&append(vec![entry(4, 0, Payload::Blank)]));

    // The same index twice, which no run can have here.
    let twice = append(vec![entry(4, 78, Payload::Blank), entry(4, 79, Payload::Blank)]);
    let mut twice = encode(&twice).to_vec();
    let index = twice.len() - 12;
    assert_eq!(twice[index], 79);
    twice[index] = 78;
    assert!(matches!(decode_message(twice.into()), Err(DecodeError::Invalid(_))));
}

#[test]
fn gathered_bytes_keep_their_order_and_large_ones_are_not_copied() {
    let large = Bytes::from(vec![1; Gather::CHUNK_BYTES]);
    let mut gather = Gather::new();
    assert!(gather.is_empty());
    gather.put_slice(b"ab");
    gather.put_u8(7);
    gather.put_bytes(&large);
    gather.put_u32(8);
    gather.put_u64(9);

    let mut expected = b"ab\x07".to_vec();
    expected.extend_from_slice(&large);
    expected.extend(8_u32.to_le_bytes());
    expected.extend(9_u64.to_le_bytes());
    assert_eq!(gather.len(), expected.len());
    assert_eq!(gather.chunks().collect::<Vec<_>>().concat(), expected);
    let chunks = gather.take();
    assert!(chunks.iter().any(|chunk| chunk.as_ptr() == large.as_ptr()), "it was copied");
    assert_eq!(chunks.concat(), expected);
    assert!(gather.is_empty() && gather.take().is_empty());
}

#[test]
fn a_checksum_is_told_when_what_follows_is_there() {
    let large = Bytes::from(vec![1; Gather::CHUNK_BYTES]);
    for pieces in [vec![], vec![&b"ab"[..]], vec![&large[..]], vec![b"a", &large, &large, b"b"]] {
        let (mut gather, mut whole) = (Gather::new(), Gather::new());
        gather.put_bytes(&large);
        gather.put_u8(7);
        let later = gather.put_later();
        for piece in &pieces {
            gather.put_bytes(&Bytes::copy_from_slice(piece));
        }
        assert_eq!(gather.chunks_behind(&later).collect::<Vec<_>>(), pieces);
        gather.fill(later, 0x0102_0304);
        let expected = [&large[..], b"\x07\x04\x03\x02\x01", &pieces.concat()].concat();
        whole.put_u8(0);
        whole.append(&mut gather);
        assert!(gather.is_empty() && gather.take().is_empty());
        assert_eq!(whole.take().concat(), [b"\0", &expected[..]].concat());
    }
}

#[test]
fn what_is_appended_leaves_an_empty_one() {
    for len in [0, 5, Gather::CHUNK_BYTES, 3 * Gather::CHUNK_BYTES] {
        let (mut whole, mut part) = (Gather::new(), Gather::new());
        for _ in 0..2 {
            (0..len).for_each(|at| part.put_u8(at as u8));
            whole.append(&mut part);
            assert!(part.is_empty() && part.take().is_empty());
        }
        let once: Vec<_> = (0..len).map(|at| at as u8).collect();
        assert_eq!(whole.len(), 2 * len);
        assert_eq!(whole.take().concat(), [&once[..], &once].concat());
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(
        kind in 0..12_u8,
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = BytesMut::new();
        for number in [1, 1, 2, 1] {
            bytes.put_u64_le(number);
        }
        bytes.put_u8(kind);
        bytes.put_slice(&rest);
        if let Ok(message) = decode_message(bytes.freeze()) {
            prop_assert_eq!(decode_message(encode(&message)), Ok(message));
        }
        let _ = take_entry(&mut Bytes::from(rest));
    }
}
