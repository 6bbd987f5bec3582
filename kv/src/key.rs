//! A key and its position in the order of a SCAN.
//!
//! A cursor of SCAN is a number, must outlive the key it stands for, and has to be good on every
//! node and after a restart. So the keys are kept in the order of a fixed hash, their position, and
//! a cursor is the position at which to go on. A key never moves, so a SCAN sees each key that is
//! there all the time exactly once. Keys of the same position follow each other and are never
//! parted. The hash is SipHash-2-4, so that nobody finds many of them. The order is part of no
//! format.

use std::cmp::Ordering;
use std::rc::Rc;

use equivalent::{Comparable, Equivalent};

/// How many bits of the hash are the position. Clients that hold a cursor as a double keep all of
/// it.
pub(crate) const POSITION_BITS: u32 = 53;

/// A key as it is kept, in the order of positions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    // The order of the fields makes the order of the keys.
    pub(crate) position: u64,
    pub(crate) bytes: Rc<[u8]>,
}

/// A key to look another up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyRef<'a> {
    // In the same order.
    pub(crate) position: u64,
    pub(crate) bytes: &'a [u8],
}

impl<'a> KeyRef<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { position: sip_hash(bytes) >> (u64::BITS - POSITION_BITS), bytes }
    }

    /// Not greater than any key at this position or after it.
    pub(crate) fn first_at(position: u64) -> Self {
        Self { position, bytes: &[] }
    }

    /// The key to keep. It is a copy.
    pub(crate) fn to_key(self) -> Key {
        Key { position: self.position, bytes: self.bytes.into() }
    }
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.compare(key).is_eq()
    }
}

impl Comparable<Key> for KeyRef<'_> {
    fn compare(&self, key: &Key) -> Ordering {
        self.cmp(&KeyRef { position: key.position, bytes: &key.bytes })
    }
}

/// SipHash-2-4 under the key of its reference test vectors: 00 01 … 0f.
fn sip_hash(bytes: &[u8]) -> u64 {
    const K0: u64 = 0x0706_0504_0302_0100;
    const K1: u64 = 0x0f0e_0d0c_0b0a_0908;
    // "somepseudorandomlygeneratedbytes".
    let mut v = [
        K0 ^ 0x736f_6d65_7073_6575,
        K1 ^ 0x646f_7261_6e64_6f6d,
        K0 ^ 0x6c79_6765_6e65_7261,
        K1 ^ 0x7465_6462_7974_6573,
    ];
    let mut take = |word: u64| {
        v[3] ^= word;
        rounds(&mut v, 2);
        v[0] ^= word;
    };
    let (words, rest) = bytes.as_chunks::<8>();
    words.iter().for_each(|word| take(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    last[7] = bytes.len() as u8; // Modulo 256, as specified.
    take(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    rounds(&mut v, 4);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn rounds(v: &mut [u64; 4], count: usize) {
    let [mut a, mut b, mut c, mut d] = *v;
    for _ in 0..count {
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        d = d.rotate_left(21) ^ a;
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
    }
    *v = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_reference() {
        let input: Vec<u8> = (0..15).collect();
        assert_eq!(sip_hash(&[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(sip_hash(&input[..1]), 0x74f8_39c5_93dc_67fd);
        assert_eq!(sip_hash(&input[..8]), 0x93f5_f579_9a93_2462);
        assert_eq!(sip_hash(&input), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_position_fits_into_a_double() {
        for n in 0..1000 {
            let position = KeyRef::new(n.to_string().as_bytes()).position;
            assert_eq!((position as f64) as u64, position);
        }
    }
}
