//! A list of chunks for a gathered write: small pieces are copied together, large ones are not
//! copied.

use std::iter;

use bytes::{Bytes, BytesMut};

/// Bytes to be written with one gathered write: small pieces are copied together, large ones are
/// passed on as they are.
#[derive(Debug, Default)]
pub struct Gather {
    small: BytesMut,
    /// Each stands before the small byte at this position.
    large: Vec<(usize, Bytes)>,
    len: usize,
}

impl Gather {
    /// From this size on a chunk of its own (a reference count and an `iovec`) is cheaper than a
    /// copy.
    pub const CHUNK_BYTES: usize = 1024;

    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for so many bytes in small pieces.
    pub fn reserve(&mut self, bytes: usize) {
        self.small.reserve(bytes);
    }

    /// Appends bytes, by reference where they are many.
    pub fn put_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < Self::CHUNK_BYTES {
            self.put_slice(bytes);
        } else {
            self.put_large(bytes.clone());
        }
    }

    fn put_large(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.large.push((self.small.len(), bytes));
    }

    /// Appends a copy of bytes.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        self.small.extend_from_slice(bytes);
    }

    /// Appends a byte.
    pub fn put_u8(&mut self, value: u8) {
        self.put_slice(&[value]);
    }

    /// Appends 4 bytes, little-endian.
    pub fn put_u32(&mut self, value: u32) {
        self.put_slice(&value.to_le_bytes());
    }

    /// Appends 8 bytes, little-endian.
    pub fn put_u64(&mut self, value: u64) {
        self.put_slice(&value.to_le_bytes());
    }

    /// Appends 4 bytes that are told later, by [`fill`](Self::fill): a checksum of what follows
    /// them.
    pub fn reserve_u32(&mut self) -> Reserved {
        let reserved = Reserved { small: self.small.len(), large: self.large.len() };
        self.put_u32(0);
        reserved
    }

    /// The chunks behind those 4 bytes.
    pub fn chunks_after(&self, reserved: &Reserved) -> impl Iterator<Item = &[u8]> {
        self.chunks_from(reserved.small + 4, reserved.large)
    }

    /// Tells those 4 bytes, little-endian.
    ///
    /// Panics where they have been taken out since.
    pub fn fill(&mut self, reserved: Reserved, value: u32) {
        self.small[reserved.small..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Moves everything in `other` to the end, and copies what of it is small.
    pub fn append(&mut self, other: &mut Self) {
        if other.len < Self::CHUNK_BYTES {
            self.put_slice(&other.small); // All of it is there.
            other.small.clear();
            other.len = 0;
            return;
        }
        for chunk in other.take() {
            if chunk.len() < Self::CHUNK_BYTES {
                self.put_slice(&chunk);
            } else {
                self.put_large(chunk);
            }
        }
    }

    /// Takes everything out, as chunks in order. The allocation of the small pieces is kept for the
    /// next use.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.len = 0;
        if self.large.is_empty() && self.small.is_empty() {
            return Vec::new();
        }
        let mut small = self.small.split().freeze();
        let mut chunks = Vec::with_capacity(2 * self.large.len() + 1);
        let mut begin = 0;
        for (end, large) in self.large.drain(..) {
            if begin < end {
                chunks.push(small.split_to(end - begin));
            }
            chunks.push(large);
            begin = end;
        }
        if !small.is_empty() {
            chunks.push(small);
        }
        chunks
    }

    /// The chunks as they are now, in order, for a checksum over them.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks_from(0, 0)
    }

    /// Those from this small byte and this large piece on.
    fn chunks_from(&self, mut begin: usize, large: usize) -> impl Iterator<Item = &[u8]> {
        let large = self.large[large..].iter().map(|(at, bytes)| (*at, &bytes[..]));
        let last = (self.small.len(), &[][..]);
        let pieces = large.chain(iter::once(last)).flat_map(move |(end, large)| {
            let small = &self.small[begin..end];
            begin = end;
            [small, large]
        });
        pieces.filter(|piece| !piece.is_empty())
    }
}

/// The place of 4 bytes in a [`Gather`] that are told later.
#[derive(Debug)]
pub struct Reserved {
    small: usize,
    large: usize,
}
