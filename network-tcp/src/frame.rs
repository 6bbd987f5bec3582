//! A message on the wire: the body's length (4 bytes, little-endian), its CRC-32 (4), the body as
//! [`quorate_core::codec`] writes it. All the frames of a connection are of its [`Lane`]. A body of
//! one byte is no message, but a ping or an echo: see `sessions.rs`. Pure: bytes in, bytes out.

use bytes::{Buf, Bytes, BytesMut};
use crc32fast::Hasher;
use quorate_core::Replica;
use quorate_core::codec::{DecodeError, Gather};
use thiserror::Error;

use crate::handshake::Lane;

/// The bytes of a frame before its body.
pub(crate) const HEADER_BYTES: usize = 8;

/// Why a frame ends its connection.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("a frame of {bytes} bytes is larger than {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("a damaged frame: its checksum is {computed:08x}, not {claimed:08x}")]
    Damaged { claimed: u32, computed: u32 },
    #[error("a frame that is no message: {0}")]
    Decode(#[from] DecodeError),
    #[error(
        "a message from node {from} to node {to} on a connection from node {peer} to node {node}"
    )]
    Misdirected { from: Replica, to: Replica, peer: Replica, node: Replica },
    #[error("a message of a member of the cluster, which the peer has not proven to be")]
    Unproven,
    #[error("a message of {bytes} bytes, of which only {known} are known")]
    Unknown { bytes: usize, known: usize },
    #[error("a message on the connection of another kind, {0:?}")]
    Lane(Lane),
}

/// Appends a frame with this body, which is empty afterwards (and ready for the next).
pub(crate) fn put_frame(to: &mut Gather, body: &mut Gather) {
    let mut checksum = Hasher::new();
    body.chunks().for_each(|chunk| checksum.update(chunk));
    to.put_u32(u32::try_from(body.len()).expect("a message is bounded by 2 GiB"));
    to.put_u32(checksum.finalize());
    to.append(body);
}

/// Takes frames out of a stream of bytes.
pub(crate) struct FrameReader {
    buffer: BytesMut,
    max_body_bytes: usize,
}

impl FrameReader {
    /// What is read at once. It stays with the connection.
    pub(crate) const CHUNK_BYTES: usize = 64 << 10;

    /// Less room than this is not worth a system call, if more is to come.
    const LEAST_ROOM: usize = 16 << 10;

    /// What a frame's claim of its length alone may make us allocate. From there on the buffer
    /// grows with what has arrived, to twice that at most, and is copied. A chunk of a snapshot is
    /// not: by default it has 1 MiB.
    const CLAIM_BYTES: usize = 2 << 20;

    /// The body of a smaller frame is copied, and the buffer used again. Otherwise the slices of a
    /// small command would keep a whole chunk for as long as a log remembers it.
    const COPY_BYTES: usize = 16 << 10;

    /// Goes on with what has been read already.
    pub(crate) fn new(read: BytesMut, max_body_bytes: usize) -> Self {
        Self { buffer: read, max_body_bytes }
    }

    /// The next frame's body; none if it has not arrived whole. After an error nothing that follows
    /// has a meaning.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(bytes) = self.body_bytes() else { return Ok(None) };
        if bytes > self.max_body_bytes {
            return Err(FrameError::TooLarge { bytes, limit: self.max_body_bytes });
        }
        if self.buffer.len() - HEADER_BYTES < bytes {
            return Ok(None);
        }
        self.buffer.advance(4);
        let claimed = self.buffer.get_u32_le();
        let body = if bytes < Self::COPY_BYTES {
            // Not `copy_to_bytes`, which takes a slice.
            let copy = Bytes::copy_from_slice(&self.buffer[..bytes]);
            self.buffer.advance(bytes);
            copy
        } else {
            self.buffer.split_to(bytes).freeze()
        };
        let computed = crc32fast::hash(&body);
        if computed != claimed {
            return Err(FrameError::Damaged { claimed, computed });
        }
        Ok(Some(body))
    }

    /// Whether what was read ends within a frame. To be called after [`next`](Self::next) gave
    /// none, as the next one.
    pub(crate) fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The bytes of the frame under way, if it is so large that it gets a buffer of its own: so
    /// much memory it takes, and for the moment of a copy up to twice as much.
    pub(crate) fn large_bytes(&self) -> Option<usize> {
        let frame = self.body_bytes()?.saturating_add(HEADER_BYTES);
        (frame > Self::CHUNK_BYTES).then_some(frame)
    }

    /// The buffer with room to read into; it comes back with [`put_back`](Self::put_back). To be
    /// called after [`next`](Self::next) gave none.
    pub(crate) fn take_buffer(&mut self) -> BytesMut {
        self.make_room();
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn put_back(&mut self, buffer: BytesMut) {
        self.buffer = buffer;
    }

    /// The length that the next frame claims, once its header is there.
    fn body_bytes(&self) -> Option<usize> {
        let header: [u8; 4] = self.buffer.get(..HEADER_BYTES)?.first_chunk().copied()?;
        Some(u32::from_le_bytes(header) as usize)
    }

    fn make_room(&mut self) {
        let len = self.buffer.len();
        let frame = self.body_bytes().unwrap_or(0).saturating_add(HEADER_BYTES);
        // A large frame gets a buffer of its own, of exactly its size: its slices then keep nothing
        // else alive.
        let wanted = if frame <= Self::CHUNK_BYTES {
            Self::CHUNK_BYTES
        } else {
            frame.min((2 * len).max(Self::CLAIM_BYTES))
        };
        let more = wanted.saturating_sub(len).max(1);
        if self.buffer.capacity() - len >= more.min(Self::LEAST_ROOM)
            || self.buffer.try_reclaim(more)
        {
            return;
        }
        let mut larger = BytesMut::with_capacity(len + more);
        larger.extend_from_slice(&self.buffer);
        self.buffer = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        let (mut to, mut from) = (Gather::new(), Gather::new());
        from.put_bytes(&Bytes::copy_from_slice(body));
        put_frame(&mut to, &mut from);
        assert!(from.is_empty());
        to.take().concat()
    }

    /// Feeds a reader as a socket does, at most `step` bytes at a time, and gives what came out and
    /// the largest buffer.
    fn read(
        stream: &[u8],
        step: usize,
        limit: usize,
    ) -> (Vec<Bytes>, Result<(), FrameError>, usize) {
        let mut reader = FrameReader::new(BytesMut::new(), limit);
        let (mut rest, mut bodies, mut largest) = (stream, Vec::new(), 0);
        loop {
            loop {
                match reader.next() {
                    Ok(Some(body)) => bodies.push(body),
                    Ok(None) => break,
                    Err(error) => return (bodies, Err(error), largest),
                }
            }
            let mut buffer = reader.take_buffer();
            let room = buffer.capacity() - buffer.len();
            assert!(room > 0);
            largest = largest.max(buffer.capacity());
            let (now, later) = rest.split_at(step.min(room).min(rest.len()));
            if now.is_empty() {
                return (bodies, Ok(()), largest);
            }
            buffer.extend_from_slice(now);
            reader.put_back(buffer);
            rest = later;
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let sizes = [
            0, 1, 100, 1023, 1024, 16_383, 16_384, 65_528, 65_529, 300_000, 7, 2_000_000, 0, 90_000,
        ];
        let bodies: Vec<Vec<u8>> = sizes
            .iter()
            .map(|size| (0..*size).map(|n: usize| (n * 31 + size) as u8).collect())
            .collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
        for step in [13, 1000, 65_536, usize::MAX] {
            let (read, end, largest) = read(&stream, step, 2_000_000);
            assert_eq!(end, Ok(()));
            assert!(read == bodies, "in steps of {step}");
            assert!(largest <= 2_000_000 + HEADER_BYTES, "{largest}");
        }
    }

    #[test]
    fn the_buffer_of_small_frames_stays_small_and_is_used_again() {
        let stream: Vec<u8> = (0..100_000).flat_map(|n: u32| frame(&n.to_le_bytes())).collect();
        for step in [1, 5000, usize::MAX] {
            let (bodies, end, largest) = read(&stream, step, 1 << 20);
            assert_eq!((bodies.len(), end), (100_000, Ok(())));
            assert!(largest <= FrameReader::CHUNK_BYTES, "{largest}");
        }
    }

    #[test]
    fn a_claimed_length_costs_no_more_than_what_arrives() {
        let mut stream = (1_u32 << 30).to_le_bytes().to_vec();
        stream.extend(vec![0; 3_000_000]);
        let (_, end, largest) = read(&stream, 10_000, 1 << 30);
        assert_eq!(end, Ok(()));
        assert!(largest <= 2 * stream.len(), "{largest}");
    }

    #[test]
    fn a_piece_of_a_snapshot_stays_where_it_was_read_to() {
        // The default size, and what a message has besides.
        let stream = [frame(&[3; 9]), frame(&vec![7; (1 << 20) + 200]), frame(&[5; 9])].concat();
        let mut reader = FrameReader::new(BytesMut::new(), 64 << 20);
        let (mut rest, mut begins) = (&stream[..], std::collections::BTreeSet::new());
        let piece = loop {
            match reader.next().unwrap() {
                Some(body) if body.len() > 1 << 20 => break body,
                Some(_) => {}
                None => {
                    let mut buffer = reader.take_buffer();
                    let room = buffer.capacity() - buffer.len();
                    let (now, later) = rest.split_at(room.min(100_000).min(rest.len()));
                    buffer.extend_from_slice(now);
                    begins.insert(buffer.as_ptr());
                    reader.put_back(buffer);
                    rest = later;
                }
            }
        };
        assert_eq!(begins.len(), 2, "the shared buffer, and its own");
        assert!(begins.contains(&piece.as_ptr().wrapping_sub(HEADER_BYTES)), "not copied");
    }

    #[test]
    fn what_is_too_large_or_damaged_is_an_error_after_all_before_it() {
        let mut stream = frame(b"good");
        stream.extend(frame(&[7; 101]));
        let (bodies, end, _) = read(&stream, 50, 100);
        assert_eq!(bodies, ["good"]);
        assert_eq!(end, Err(FrameError::TooLarge { bytes: 101, limit: 100 }));

        for bit in 32..stream.len() * 8 {
            let mut damaged = stream.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (bodies, end, _) = read(&damaged, usize::MAX, 101);
            // A damaged length may also make the frame look unfinished, until more comes.
            assert!(
                bodies.len() < 2 || matches!(end, Err(FrameError::Damaged { .. })),
                "bit {bit}"
            );
        }
    }
}
