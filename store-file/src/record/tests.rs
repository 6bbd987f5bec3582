//! Records, and that their form stays as long as its version does.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_core::{
    Boot, Claim, ClusterId, Digest, HardState, Index, LogId, Marks, Membership, Memory, Payload,
    Replica, SnapshotMeta, Standing, Start, Term,
};

use super::*;
use crate::format::HEADER_BYTES;
use crate::locations::EntryLocation;

fn record(at: Position) -> (Bytes, LogWrite) {
    let payload = Payload::Command(Bytes::from(vec![7; 3000]));
    let write = LogWrite {
        hard_state: Some(HardState { term: Term(3), voted_for: None }),
        entries: Entries::from(vec![
            Entry { log_id: LogId::new(3, 1, 1), time: 5, payload },
            Entry { log_id: LogId::new(3, 1, 2), time: 6, payload: Payload::Blank },
        ]),
        ..LogWrite::default()
    };
    let mut encoder = Encoder::new(9);
    let (body_bytes, spans) = encoder.encode(5, &write, false);
    assert_eq!(spans.len(), 2);
    let mut to = Gather::new();
    encoder.put(&mut to, 5, at, Position::first_in(1));
    assert_eq!(to.len() as u64, record_bytes(body_bytes));
    (Bytes::from(to.take().concat()), write)
}

#[test]
fn a_record_is_one_only_in_its_store_and_at_its_place() {
    let at = Position { segment: 2, offset: 8000 };
    let (record, write) = record(at);
    let header = record.first_chunk().unwrap();
    let seed = record_seed(9, at);
    let decoded = RecordHeader::decode(header, seed).unwrap();
    assert_eq!((decoded.group, decoded.durable), (5, Position::first_in(1)));
    let body = record.slice(RECORD_HEADER_BYTES..).slice(..decoded.body_bytes as usize);
    let Decoded { write: again, replaces, spans } = write_in(decoded.content(9, body, seed));
    assert_eq!((again, replaces), (write.clone(), false));
    for (span, entry) in spans.iter().zip(&write.entries) {
        let mut encoded = record.slice(span.offset..span.offset + span.len);
        assert_eq!(take_checked_entry(&mut encoded, &EntryCrc::new(9, 5)).as_ref(), Ok(entry));
        assert!(encoded.is_empty());
        let mut encoded = record.slice(span.offset..span.offset + span.len);
        assert!(take_checked_entry(&mut encoded, &EntryCrc::new(9, 6)).is_err());
    }
    for seed in [
        record_seed(8, at),
        record_seed(9, Position { segment: 3, ..at }),
        record_seed(9, Position { offset: 8008, ..at }),
    ] {
        assert_eq!(RecordHeader::decode(header, seed), None);
    }
}

/// In the CRC of the body there are only the CRCs of the entries, not their bytes.
#[test]
fn a_record_is_whole_only_with_the_entries_that_were_written() {
    let at = Position { segment: 2, offset: 8000 };
    let seed = record_seed(9, at);
    let (record, _) = record(at);
    let header = RecordHeader::decode(record.first_chunk().unwrap(), seed).unwrap();
    let body = record.slice(RECORD_HEADER_BYTES..).slice(..header.body_bytes as usize);
    let matches = |body: Vec<u8>| header.content(9, body.into(), seed).unwrap().is_some();
    assert!(matches(body.to_vec()));
    for bit in 0..body.len() * 8 {
        let mut body = body.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        assert!(!matches(body), "bit {bit}");
    }
    // Another entry, with the CRC that it should have.
    let mut body = body.to_vec();
    let begin = 4 + u32::from_le_bytes(*body.first_chunk().unwrap()) as usize;
    body[begin + 100] ^= 1;
    let len = entry_bytes(&body[begin + 4..]).unwrap();
    let value = EntryCrc::new(9, 5).of([&body[begin + 4..][..len]]);
    body[begin..][..4].copy_from_slice(&value.to_le_bytes());
    let mut alone = Bytes::from(body.clone()).slice(begin..begin + 4 + len);
    take_checked_entry(&mut alone, &EntryCrc::new(9, 5)).unwrap();
    assert!(!matches(body));
}

#[test]
fn the_place_of_an_entry_tells_its_size() {
    for command in [&b""[..], b"a", &[7; 3000]] {
        let payload = Payload::Command(Bytes::from_static(command));
        let entry = Entry { log_id: LogId::new(3, 1, 1), time: 5, payload };
        let write = LogWrite { entries: vec![entry.clone()].into(), ..LogWrite::default() };
        let mut encoder = Encoder::new(9);
        let (_, spans) = encoder.encode(5, &write, false);
        let location = EntryLocation { offset: 0, segment: 1, len: spans[0].len as u32 };
        assert_eq!(location.entry_bytes(), entry.bytes());
    }
}

#[test]
fn a_large_command_is_passed_through_without_a_copy() {
    let command = Bytes::from(vec![7; 5000]);
    let payload = Payload::Command(command.clone());
    let entries = vec![Entry { log_id: LogId::new(1, 1, 1), time: 5, payload }];
    let mut encoder = Encoder::new(1);
    encoder.encode(1, &LogWrite { entries: entries.into(), ..LogWrite::default() }, false);
    let mut to = Gather::new();
    encoder.put(&mut to, 1, Position::first_in(1), Position::first_in(1));
    assert!(to.take().iter().any(|chunk| chunk.as_ptr() == command.as_ptr()));
}

#[test]
fn zeros_are_no_record() {
    let zeros = [0; RECORD_HEADER_BYTES];
    for offset in (HEADER_BYTES..100_000).step_by(8) {
        let seed = record_seed(1, Position { segment: 1, offset });
        assert_eq!(RecordHeader::decode(&zeros, seed), None);
    }
}

#[test]
fn the_format_stays() {
    let (record, _) = record(Position { segment: 2, offset: 8000 });
    assert_eq!(crc(0, [&record[..]]), 0x9135_d6e2);
    assert_eq!(crc(0, [&sync_marker(9, Position { segment: 2, offset: 8000 })[..]]), 0x66c0_0966);
    let mut encoder = Encoder::new(9);
    let owner = Owner { node: Some(3), boot: 5, cluster: Some(ClusterId(7)) };
    encoder.encode_owner(&owner);
    let mut to = Gather::new();
    encoder.put(&mut to, 0, Position::first_in(1), Position::first_in(1));
    assert_eq!(crc(0, to.chunks()), 0xf47e_d9ca);
}

/// The record of a write at the first place, and of a begin behind it.
fn encoded(write: &LogWrite, replaces: bool) -> Bytes {
    let mut encoder = Encoder::new(9);
    let mut to = Gather::new();
    let first = Position::first_in(1);
    encoder.encode(5, write, replaces);
    encoder.put(&mut to, 5, first, first);
    let behind = Position { offset: first.offset + to.len() as u64, ..first };
    encoder.encode_begin(7);
    encoder.put(&mut to, 0, behind, first);
    Bytes::from(to.take().concat())
}

type Found = Result<Option<Content>, Refused>;

fn write_in(found: Found) -> Decoded {
    match found {
        Ok(Some(Content::Write(decoded))) => decoded,
        found => panic!("{found:?}"),
    }
}

/// The write and the begin in what was `encoded`.
fn decoded(records: &Bytes) -> (Decoded, u64) {
    let split = |at: usize| {
        let record = records.slice(at..);
        let offset = HEADER_BYTES + at as u64;
        let seed = record_seed(9, Position { segment: 1, offset });
        let header = RecordHeader::decode(record.first_chunk().unwrap(), seed).unwrap();
        let body = record.slice(RECORD_HEADER_BYTES..).slice(..header.body_bytes as usize);
        (header.body_bytes, header.content(9, body, seed))
    };
    let (bytes, write) = split(0);
    let (_, Ok(Some(Content::Begin(first)))) = split(record_bytes(bytes) as usize) else {
        panic!("no begin");
    };
    (write_in(write), first)
}

/// A write with everything, but for entries.
fn full() -> LogWrite {
    let replica = Replica::new(2, 8);
    let members = BTreeMap::from([(Replica::new(1, 7), "a:1".into()), (replica, "b:2".into())]);
    let claim = Claim {
        cluster: ClusterId(1 << 100),
        ballot: 3,
        founder: Replica::new(1, 7),
        list: Arc::new([(1, "a:1".to_owned()), (2, "b:2".to_owned())].into_iter().collect()),
    };
    let memory = Memory {
        term: Term(3),
        voted: Term(2),
        acknowledged: LogId::new(3, 2, 9),
        committed: LogId::new(3, 2, 8),
        boot: Boot { number: 2, tag: 5 },
    };
    let marks = Marks {
        committed: LogId::new(3, 2, 9),
        memories: [(replica, memory)].into_iter().collect(),
        starts: [(7, Start { tag: 3, term: Term(2), last: LogId::new(2, 1, 8) })]
            .into_iter()
            .collect(),
    };
    let meta = SnapshotMeta {
        log_id: LogId::new(3, 2, 9),
        time: 77,
        membership: Membership::founding(ClusterId(1 << 100), members).unwrap(),
        membership_index: 4,
        bytes: 1 << 40,
        digest: Digest([3; Digest::BYTES]),
    };
    LogWrite {
        hard_state: Some(HardState { term: Term(3), voted_for: Some(replica) }),
        cluster: Some(ClusterId(1 << 100)),
        standing: Some(Box::new(Standing::Claimed(claim))),
        marks: Some(Box::new(marks)),
        snapshot: Some(Box::new(meta)),
        purge: Some(LogId::new(3, 2, 8)),
        entries: Entries::default(),
    }
}

#[test]
fn every_combination_of_parts_is_a_write() {
    let entry = Entry { log_id: LogId::new(4, 1, 10), time: 5, payload: Payload::Blank };
    for parts in 0..256 {
        let part = |bit: u8| parts >> bit & 1 == 1;
        let full = full();
        let replaces = part(7);
        let write = LogWrite {
            hard_state: full.hard_state.filter(|_| part(0)),
            cluster: full.cluster.filter(|_| part(1)),
            standing: full.standing.filter(|_| part(2)),
            marks: full.marks.filter(|_| part(3)),
            snapshot: full.snapshot.filter(|_| part(4)),
            purge: full.purge.filter(|_| part(5) || replaces),
            entries: if part(6) { vec![entry.clone()].into() } else { Entries::default() },
        };
        let (found, begin) = decoded(&encoded(&write, replaces));
        assert_eq!(
            (found.write, found.replaces, found.spans.len()),
            (write.clone(), replaces, write.entries.len())
        );
        assert_eq!(begin, 7);
    }
    assert_eq!(crc(0, [&encoded(&full(), true)[..]]), 0x0EA4_E4AC, "the format stays");
}

/// What a record of this kind and body tells, and that it is none where what is summed is anything
/// else.
fn content(kind: u32, body: &[u8], summed: &[u8]) -> Found {
    let of = |body_crc| {
        let (body_bytes, durable) = (body.len() as u64, Position::first_in(1));
        let header = RecordHeader { body_crc, kind, body_bytes, group: 5, durable };
        header.content(9, Bytes::copy_from_slice(body), 77)
    };
    let body_crc = crc(77, [summed]);
    assert!(of(!body_crc).unwrap().is_none());
    of(body_crc)
}

/// The body of a write with these fields and entries, each with its CRC, and what of it is summed.
fn body_of(fields: &[u8], entries: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let mut body = [&(fields.len() as u32).to_le_bytes(), fields].concat();
    let mut summed = body.clone();
    for entry in entries {
        let value = EntryCrc::new(9, 5).of([*entry]).to_le_bytes();
        body.extend(value.iter().chain(*entry));
        summed.extend(value);
    }
    (body, summed)
}

fn encoded_entry(index: Index) -> Vec<u8> {
    let entry = Entry { log_id: LogId::new(3, 1, index), time: 5, payload: Payload::Blank };
    let mut to = Gather::new();
    put_entry(&mut to, &entry);
    to.take().concat()
}

fn unsupported(found: Found) -> String {
    match found {
        Err(Refused::Unsupported(reason)) => reason,
        found => panic!("{found:?}"),
    }
}

fn damaged(found: Found) -> String {
    match found {
        Err(Refused::Damaged(reason)) => reason,
        found => panic!("{found:?}"),
    }
}

#[test]
fn what_is_unknown_is_skipped_or_refused_as_it_says_and_never_torn() {
    let entry = encoded_entry(1);
    // Between the known fields, and behind them.
    let purge = [&[PURGE, 24][..], &[1; 24]].concat();
    let with = |tag: u8| [&purge[..], &[tag, 3, 9, 9, 9]].concat();
    let (body, summed) = body_of(&with(99), &[&entry]);
    let decoded = write_in(content(KIND_WRITE, &body, &summed));
    assert!(decoded.write.purge.is_some() && decoded.write.entries.len() == 1);
    let (body, summed) = body_of(&with(REFUSE | 99), &[&entry]);
    let reason = unsupported(content(KIND_WRITE, &body, &summed));
    assert!(reason.starts_with("write with field 99") && reason.contains("later"), "{reason}");

    let (body, summed) = body_of(&[], &[&entry]);
    let mut body = body;
    body[8] = 7; // The kind of the entry.
    let value = EntryCrc::new(9, 5).of([&body[8..]]).to_le_bytes();
    body[4..8].copy_from_slice(&value);
    let summed = [&summed[..4], &value].concat();
    let reason = unsupported(content(KIND_WRITE, &body, &summed));
    assert!(reason.starts_with("entry of unknown kind 7"), "{reason}");

    for kind in [0, 1, 5] {
        let found = content(kind, b"anything", b"anything");
        assert!(matches!(found, Ok(Some(Content::Skipped))), "{found:?}");
        let reason = unsupported(content(REFUSE_KIND | (kind + 7), b"anything", b"anything"));
        assert!(reason.starts_with(&format!("a record of unknown kind {}", kind + 7)), "{reason}");
    }
    for kind in [KIND_BEGIN, KIND_OWNER] {
        let mut body = Gather::new();
        put_number(&mut body, REFUSE | if kind == KIND_BEGIN { 1 } else { 2 }, 7);
        put_number(&mut body, 9, 7);
        let skipped = body.take().concat();
        assert!(content(kind, &skipped, &skipped).unwrap().is_some());
        put_number(&mut body, REFUSE | 9, 7);
        let refused = [&skipped[..skipped.len() - 14], &body.take().concat()].concat();
        unsupported(content(kind, &refused, &refused));
    }
}

#[test]
fn entries_that_make_no_sense_are_told_only_of_a_record_that_is_whole() {
    let [one, two, three] = [1, 2, 3].map(encoded_entry);
    let told = |entries: &[&[u8]]| {
        let (body, summed) = body_of(&[], entries);
        content(KIND_WRITE, &body, &summed)
    };
    assert!(told(&[&one, &two]).unwrap().is_some());
    let (body, summed) = body_of(&[], &[&one]);
    let behind = content(KIND_WRITE, &[&body[..], b"behind"].concat(), &summed);
    assert!(behind.unwrap().is_none(), "what stands behind is no entry");
    assert!(damaged(told(&[&one, &three])).contains(" after "));
    assert_eq!(damaged(told(&[&encoded_entry(0), &one])), "an entry with index 0");
    // It has no place for the length of its fields, or fewer fields than it says.
    for body in [&[][..], &[0; 3], &[1, 0, 0, 0], &[9, 0, 0, 0, 1, 1]] {
        assert!(content(KIND_WRITE, body, body).unwrap().is_none());
    }
}

#[test]
fn parts_that_make_no_sense_are_damage() {
    let told = |fields: &[u8]| {
        let (body, summed) = body_of(fields, &[]);
        damaged(content(KIND_WRITE, &body, &summed))
    };
    let purge = |tag: u8| [&[tag, 24][..], &[1; 24]].concat();
    assert_eq!(told(&[purge(PURGE), purge(REPLACE)].concat()), "a write with two purges");
    told(&[purge(REPLACE), purge(PURGE)].concat());
    told(&[HARD_STATE, 1, 0]);
    told(&[CLUSTER, 15]);
    let begin = |body: &[u8]| content(KIND_BEGIN, body, body);
    damaged(begin(&[]));
    damaged(begin(&[FIRST_SEGMENT, 4, 7, 0, 0, 0]));
    let first = [&[FIRST_SEGMENT, 8][..], &7u64.to_le_bytes()].concat();
    assert!(matches!(begin(&first), Ok(Some(Content::Begin(7)))));
}

#[test]
fn an_owner_is_read_as_it_was_written() {
    for node in [None, Some(1), Some(u64::MAX)] {
        for cluster in [None, Some(ClusterId(u128::MAX))] {
            let owner = Owner { node, boot: 6, cluster };
            let mut to = Gather::new();
            owner.put(&mut to);
            let body = to.take().concat();
            match content(KIND_OWNER, &body, &body) {
                Ok(Some(Content::Owner(found))) => assert_eq!(found, owner),
                found => panic!("{found:?}"),
            }
        }
    }
    let nobody = [[&[REFUSE | 1, 8][..], &[0; 8]].concat(), vec![REFUSE | 2, 8, 1, 0, 0, 0]];
    let nobody = [&nobody.concat()[..], &[0; 4]].concat();
    assert_eq!(damaged(content(KIND_OWNER, &nobody, &nobody)), "a node with id 0");
}
