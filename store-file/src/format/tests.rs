//! Records and headers, and that their form stays.

use quorate_core::{LogId, Payload};

use super::*;

fn record(at: Position) -> (Bytes, LogWrite) {
    let payload = Payload::Command(Bytes::from(vec![7; 3000]));
    let write = LogWrite {
        hard_state: Some(HardState { term: Term(3), voted_for: None }),
        entries: vec![
            Entry { log_id: LogId::new(3, 1, 1), payload },
            Entry { log_id: LogId::new(3, 1, 2), payload: Payload::Blank },
        ],
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
        assert_eq!(take_checked_entry(&mut encoded, entry_seed(9, 5)).as_ref(), Ok(entry));
        assert!(encoded.is_empty());
        let mut encoded = record.slice(span.offset..span.offset + span.len);
        assert!(take_checked_entry(&mut encoded, entry_seed(9, 6)).is_err());
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
fn a_large_command_is_passed_through_without_a_copy() {
    let command = Bytes::from(vec![7; 5000]);
    let payload = Payload::Command(command.clone());
    let entries = vec![Entry { log_id: LogId::new(1, 1, 1), payload }];
    let mut encoder = Encoder::new(1);
    encoder.encode(1, &LogWrite { entries, ..LogWrite::default() }, false);
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
