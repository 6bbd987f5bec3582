//! Records and headers, and that their form stays.

use quorate_core::{Digest, Entries, LogId, Membership, Payload, SnapshotMeta};

use super::*;
use crate::log::Place;

fn record(at: Position) -> (Bytes, LogWrite) {
    let payload = Payload::Command(Bytes::from(vec![7; 3000]));
    let write = LogWrite {
        hard_state: Some(HardState { term: Term(3), voted_for: None, caught_up: true }),
        entries: Entries::from(vec![
            Entry { log_id: LogId::new(3, 1, 1), payload },
            Entry { log_id: LogId::new(3, 1, 2), payload: Payload::Blank },
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
    assert!(decoded.matches(&body, seed));
    let Decoded { write: again, replaces, spans } = decode_body(9, &decoded, body).unwrap();
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

#[test]
fn the_place_of_an_entry_tells_its_size() {
    for command in [&b""[..], b"a", &[7; 3000]] {
        let payload = Payload::Command(Bytes::from_static(command));
        let entry = Entry { log_id: LogId::new(3, 1, 1), payload };
        let write = LogWrite { entries: vec![entry.clone()].into(), ..LogWrite::default() };
        let mut encoder = Encoder::new(9);
        let (_, spans) = encoder.encode(5, &write, false);
        let place = Place { offset: 0, segment: 1, len: spans[0].len as u32 };
        assert_eq!(place.entry_bytes(), entry.bytes());
    }
}

#[test]
fn a_place_is_named_by_offset_and_segment() {
    assert_eq!(Position { segment: 3, offset: 8000 }.to_string(), "offset 8000 of segment 3");
}

#[test]
fn a_large_command_is_passed_through_without_a_copy() {
    let command = Bytes::from(vec![7; 5000]);
    let payload = Payload::Command(command.clone());
    let entries = vec![Entry { log_id: LogId::new(1, 1, 1), payload }];
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
    assert_eq!(crc(0, [&segment_header(9, 2)[..], &record]), 0x6bd8_4e46);
    assert_eq!(crc(0, [&witness(9, Position { segment: 2, offset: 8000 })[..]]), 0x3162_4045);
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

/// The write and the begin in what was `encoded`.
fn decoded(records: &Bytes) -> (Result<Decoded, DecodeError>, Result<u32, DecodeError>) {
    let split = |at: usize| {
        let record = records.slice(at..);
        let offset = HEADER_BYTES + at as u64;
        let seed = record_seed(9, Position { segment: 1, offset });
        let header = RecordHeader::decode(record.first_chunk().unwrap(), seed).unwrap();
        let body = record.slice(RECORD_HEADER_BYTES..).slice(..header.body_bytes as usize);
        assert!(header.matches(&body, seed));
        (header, body)
    };
    let (write, body) = split(0);
    let (begin, of_begin) = split(record_bytes(write.body_bytes) as usize);
    assert!(begin.is_begin() && !write.is_begin());
    (decode_body(9, &write, body), decode_begin(of_begin))
}

#[test]
fn every_combination_of_parts_is_a_write() {
    let voters = [(1, "a:1".to_owned()), (2, "b:2".to_owned())];
    let meta = SnapshotMeta {
        log_id: LogId::new(3, 2, 9),
        membership: Membership::new(voters.into()).unwrap(),
        membership_index: 4,
        bytes: 1 << 40,
        digest: Digest([3; Digest::BYTES]),
    };
    let entry = Entry { log_id: LogId::new(4, 1, 10), payload: Payload::Blank };
    for parts in 0..32 {
        let part = |bit: u8| parts >> bit & 1 == 1;
        let replaces = part(3);
        let write = LogWrite {
            hard_state: part(0).then_some(HardState {
                term: Term(3),
                voted_for: Some(2),
                caught_up: part(1),
            }),
            snapshot: part(1).then(|| meta.clone()),
            purge: (part(2) || replaces).then_some(LogId::new(3, 2, 8)),
            entries: if part(4) { vec![entry.clone()].into() } else { Entries::default() },
        };
        let (found, begin) = decoded(&encoded(&write, replaces));
        let found = found.unwrap();
        assert_eq!(
            (found.write, found.replaces, found.spans.len()),
            (write.clone(), replaces, write.entries.len())
        );
        assert_eq!(begin, Ok(7));
        if parts == 31 {
            let form = crc(0, [&encoded(&write, true)[..]]);
            assert_eq!(form, 0xbedb_9133, "the format stays");
        }
    }
}

#[test]
fn unknown_flags_are_refused() {
    let header = RecordHeader {
        body_crc: 0,
        kind: KIND_WRITE,
        body_bytes: 0,
        group: 1,
        durable: Position::first_in(1),
    };
    for flags in [8, 9, 16, 20, 32, 36, 255] {
        let body = Bytes::from([&[flags][..], &[0; 200]].concat());
        let error = decode_body(9, &header, body).unwrap_err();
        assert_eq!(error, DecodeError::Kind { what: "record", kind: flags });
    }
}
