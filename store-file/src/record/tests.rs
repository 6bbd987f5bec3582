//! Records and headers, and that their form stays as long as its version does.

use quorate_core::{Digest, Entries, Index, LogId, Membership, Payload, SnapshotMeta};

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
    let begin = 1 + 16 + 4;
    body[begin + 100] ^= 1;
    let len = entry_bytes(&body[begin + 4..]).unwrap();
    let value = EntryCrc::new(9, 5).of([&body[begin + 4..][..len]]);
    body[begin..][..4].copy_from_slice(&value.to_le_bytes());
    let mut alone = Bytes::from(body.clone()).slice(begin..begin + 4 + len);
    take_checked_entry(&mut alone, &EntryCrc::new(9, 5)).unwrap();
    assert!(!matches(body));
}

#[test]
fn a_segment_of_another_version_is_refused() {
    let mut header = segment_header(9, 2).to_vec();
    assert_eq!(check_segment_header(&header, 2), Ok(9));
    header[8] = 1;
    let value = crc(0, [&header[..24]]);
    header[24..28].copy_from_slice(&value.to_le_bytes());
    let refused = Err("format version 1, known is 2".to_owned());
    assert_eq!(check_segment_header(&header, 2), refused);
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
    assert_eq!(crc(0, [&segment_header(9, 2)[..], &record]), 0xe0a5_01ea);
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

type Found = Result<Option<Content>, DecodeError>;

fn write_in(found: Found) -> Decoded {
    match found {
        Ok(Some(Content::Write(decoded))) => decoded,
        found => panic!("{found:?}"),
    }
}

/// The write and the begin in what was `encoded`.
fn decoded(records: &Bytes) -> (Decoded, u32) {
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
        assert_eq!(
            (found.write, found.replaces, found.spans.len()),
            (write.clone(), replaces, write.entries.len())
        );
        assert_eq!(begin, 7);
        if parts == 31 {
            let form = crc(0, [&encoded(&write, true)[..]]);
            assert_eq!(form, 0x81b9_d7b6, "the format stays");
        }
    }
}

/// What a record of this kind and body tells, and that it is none where what is summed is anything else.
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

/// The body of a write of these entries, each with its CRC, and what of it is summed.
fn body_of(count: u32, entries: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let mut body = [&[0], &count.to_le_bytes()[..]].concat();
    let mut summed = body.clone();
    for entry in entries {
        let value = EntryCrc::new(9, 5).of([*entry]).to_le_bytes();
        body.extend(value.iter().chain(*entry));
        summed.extend(value);
    }
    (body, summed)
}

fn encoded_entry(index: Index) -> Vec<u8> {
    let mut to = Gather::new();
    put_entry(&mut to, &Entry { log_id: LogId::new(3, 1, index), payload: Payload::Blank });
    to.take().concat()
}

#[test]
fn unknown_flags_and_kinds_are_refused() {
    for flags in [8, 9, 16, 20, 32, 36, 255] {
        let body = [&[flags][..], &[0; 200]].concat();
        let error = content(KIND_WRITE, &body, &body).unwrap_err();
        assert_eq!(error, DecodeError::Kind { what: "record", kind: flags });
    }
    for kind in [0, 4] {
        let error = content(kind, b"anything", b"anything").unwrap_err();
        assert_eq!(error.to_string(), format!("a record of kind {kind}; known are 1 to 3"));
    }
}

#[test]
fn entries_that_make_no_sense_are_told_only_of_a_record_that_is_whole() {
    let [one, two, three] = [1, 2, 3].map(encoded_entry);
    let mut unknown = two.clone();
    unknown[0] = 7;
    let told = |count, entries: &[&[u8]]| {
        let (body, summed) = body_of(count, entries);
        content(KIND_WRITE, &body, &summed).map(|content| content.is_some())
    };
    assert_eq!(told(2, &[&one, &two]), Ok(true));
    assert_eq!(told(3, &[&one, &two]), Ok(false), "one is missing");
    let (body, summed) = body_of(1, &[&one]);
    let behind = content(KIND_WRITE, &[&body[..], b"behind"].concat(), &summed);
    assert_eq!(behind.unwrap_err(), DecodeError::Long(6));
    let reason = told(2, &[&one, &three]).unwrap_err().to_string();
    assert!(reason.contains(" after "), "{reason}");
    let error = told(3, &[&one, &unknown, &three]).unwrap_err();
    assert_eq!(error, DecodeError::Kind { what: "entry", kind: 7 });
    let error = told(2, &[&encoded_entry(0), &one]).unwrap_err();
    assert_eq!(error.to_string(), "an entry with index 0");
}

#[test]
fn a_begin_is_a_number_and_nothing_else() {
    assert!(matches!(
        content(KIND_BEGIN, &[7, 0, 0, 0], &[7, 0, 0, 0]),
        Ok(Some(Content::Begin(7)))
    ));
    assert!(content(KIND_BEGIN, &[7, 0, 0], &[7, 0, 0]).is_err());
    assert_eq!(content(KIND_BEGIN, &[0; 5], &[0; 5]).unwrap_err(), DecodeError::Long(1));
}
