//! Headers of segments, and places.

use super::*;

const HEADER: SegmentHeader = SegmentHeader { store: 9, bytes: 1 << 20 };

fn refused(header: &[u8]) -> Refused {
    SegmentHeader::decode(&Bytes::copy_from_slice(header), 2).unwrap_err()
}

/// A header of the second segment, with what `change` makes of it, and the right CRC.
fn changed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut header = HEADER.encode(2).to_vec();
    change(&mut header);
    let value = crc(0, [&header[..12], &header[16..]]);
    header[12..16].copy_from_slice(&value.to_le_bytes());
    header
}

#[test]
fn a_header_is_that_of_its_segment_alone() {
    let header = HEADER.encode(2);
    assert_eq!(header.len() as u64, HEADER_BYTES);
    assert_eq!(SegmentHeader::decode(&header, 2), Ok(HEADER));
    let other = SegmentHeader::decode(&header, 3).unwrap_err();
    assert_eq!(other, Refused::damaged("the header is that of segment 2"));
    let nobody = SegmentHeader { store: 0, ..HEADER }.encode(2);
    assert_eq!(refused(&nobody), Refused::damaged("the store's incarnation is 0"));
    assert_eq!(refused(&header[..100]), Refused::damaged("the file ends in its header"));
    for bit in 0..header.len() * 8 {
        let mut header = header.to_vec();
        header[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(refused(&header), Refused::Damaged(_)), "bit {bit}");
    }
}

#[test]
fn fields_that_are_unknown_are_skipped_or_refused() {
    let len = HEADER.encode(2)[16] as usize;
    let with = |tag: u8| {
        changed(|header| {
            header[16] += 3;
            header[20 + len..][..3].copy_from_slice(&[tag, 1, 5]);
        })
    };
    assert_eq!(SegmentHeader::decode(&with(9).into(), 2), Ok(HEADER));
    let Refused::Unsupported(reason) = refused(&with(REFUSE | 9)) else { panic!("no damage") };
    assert!(reason.starts_with("segment of a log with field 9"), "{reason}");
    let long = changed(|header| header[16..18].fill(0xFF));
    assert_eq!(refused(&long), Refused::damaged("the header's fields are longer than the header"));
}

#[test]
fn a_segment_of_another_version_is_refused_with_what_to_do() {
    let Refused::Unsupported(reason) = refused(&changed(|header| header[8] = 4)) else {
        panic!("no damage")
    };
    assert_eq!(
        reason,
        "format version 4, and this build reads 3: a later version has written it; start this \
         node with that version"
    );
    // As version 2 had it.
    let mut old = vec![0; HEADER_BYTES as usize];
    old[..8].copy_from_slice(MAGIC);
    (old[8], old[12], old[16]) = (2, 2, 9);
    let value = crc(0, [&old[..24]]);
    old[24..28].copy_from_slice(&value.to_le_bytes());
    let Refused::Unsupported(reason) = refused(&old) else { panic!("no damage") };
    assert!(reason.starts_with("format version 2, and this build reads version 3: "), "{reason}");
    assert!(reason.contains("start the node with an empty one"), "{reason}");
    // Nobody is sent away with a damaged header.
    old[24] ^= 1;
    assert_eq!(refused(&old), Refused::damaged("the header's CRC does not match"));
}

#[test]
fn the_format_stays() {
    assert_eq!(crc(0, [&HEADER.encode(2)[..]]), 0x20dc_bd89);
}

#[test]
fn a_place_is_named_by_offset_and_segment() {
    assert_eq!(Position { segment: 3, offset: 8000 }.to_string(), "offset 8000 of segment 3");
}
