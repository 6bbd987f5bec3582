//! What is gathered comes out in order, and large pieces without a copy.

use bytes::Bytes;

use crate::codec::Gather;

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
        let reserved = gather.reserve_u32();
        for piece in &pieces {
            gather.put_bytes(&Bytes::copy_from_slice(piece));
        }
        assert_eq!(gather.chunks_after(&reserved).collect::<Vec<_>>(), pieces);
        gather.fill(reserved, 0x0102_0304);
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
