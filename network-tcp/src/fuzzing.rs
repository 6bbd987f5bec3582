//! What fuzz targets check of this crate. Not part of its API.

use bytes::{Bytes, BytesMut};
use quorate_core::codec::{Gather, decode_message};

use crate::frame::{FrameError, FrameReader, HEADER_BYTES, put_frame};
use crate::handshake::{
    Answer, Confirm, Hello, MAX_ANSWER_BYTES, MAX_CONFIRM_BYTES, MAX_HELLO_BYTES, Refusal,
};

/// The largest frame: small, so that the limit is met.
const MAX_BODY_BYTES: usize = 40_000;

/// The property of the target `frames`: what comes out of a stream is a prefix of it, however it is
/// cut into pieces, and the buffer stays within its bounds. The first byte says how: see the code.
pub fn frames(data: &[u8]) {
    let Some((how, stream)) = data.split_first() else { return };
    let mut stream = stream.to_vec();
    if how & 1 == 0 {
        // A checksum is hard to guess, and nothing behind it would ever be reached.
        repair(&mut stream);
    }
    let step = usize::from(how >> 1) + 1;
    let whole = read(&stream, usize::MAX);
    assert_eq!(read(&stream, step), whole, "in pieces of {step} bytes");
    let (bodies, end) = whole;
    let mut again = Gather::new();
    for body in &bodies {
        let _ = decode_message(body.clone());
        let mut from = Gather::new();
        from.put_bytes(body);
        put_frame(&mut again, &mut from);
    }
    let again = again.take().concat();
    assert!(stream.starts_with(&again));
    if end.is_none() && stream.len() - again.len() >= HEADER_BYTES {
        let claim = stream[again.len()..].first_chunk().copied().map(u32::from_le_bytes);
        let missing = again.len() + HEADER_BYTES + claim.unwrap_or(0) as usize;
        assert!(missing > stream.len(), "a whole frame is left over");
    }
}

/// Gives each frame the checksum of its body.
fn repair(mut rest: &mut [u8]) {
    while let Some((header, behind)) = rest.split_at_mut_checked(HEADER_BYTES) {
        let len = header.first_chunk().copied().map_or(0, u32::from_le_bytes) as usize;
        let Some((body, behind)) = behind.split_at_mut_checked(len) else { return };
        header[4..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        rest = behind;
    }
}

/// All bodies that a stream holds, which arrives in pieces of `step` bytes, and the error at which
/// it ends.
fn read(stream: &[u8], step: usize) -> (Vec<Bytes>, Option<FrameError>) {
    let mut reader = FrameReader::new(BytesMut::new(), MAX_BODY_BYTES);
    let (mut rest, mut bodies) = (stream, Vec::new());
    loop {
        loop {
            match reader.next() {
                Ok(Some(body)) => {
                    assert!(body.len() <= MAX_BODY_BYTES);
                    bodies.push(body);
                }
                Ok(None) => break,
                Err(error) => return (bodies, Some(error)),
            }
        }
        let mut buffer = reader.take_buffer();
        let room = buffer.capacity() - buffer.len();
        assert!(room > 0, "no room to read into");
        assert!(buffer.capacity() <= 64 << 10, "{} bytes of buffer", buffer.capacity());
        let (now, later) = rest.split_at(step.min(room).min(rest.len()));
        if now.is_empty() {
            return (bodies, None);
        }
        buffer.extend_from_slice(now);
        reader.put_back(buffer);
        rest = later;
    }
}

/// The property of the target `handshake`: a part of a handshake is taken only whole, is the same
/// when it is written and taken again, and is refused no later than it can be and never again
/// otherwise. The first byte says which part it is.
pub fn handshake(data: &[u8]) {
    let Some((which, bytes)) = data.split_first() else { return };
    match which % 3 {
        0 => {
            let hello = grow(bytes, MAX_HELLO_BYTES, Hello::take, Hello::encode);
            if let Ok(Some(hello)) = hello {
                assert!(hello.from.replica.is_known() && hello.to.id != 0);
            }
        }
        1 => drop(grow(bytes, MAX_ANSWER_BYTES, Answer::take, Answer::encode)),
        _ => drop(grow(bytes, 4 + MAX_CONFIRM_BYTES, Confirm::take, Confirm::encode)),
    }
}

/// What is taken from the bytes as they arrive, one after the other.
fn grow<T: std::fmt::Debug + PartialEq>(
    bytes: &[u8],
    most: usize,
    take: impl Fn(&mut BytesMut) -> Result<Option<T>, Refusal>,
    encode: impl Fn(&T) -> Bytes,
) -> Result<Option<T>, Refusal> {
    let mut all = BytesMut::from(bytes);
    let whole = take(&mut all);
    let taken = bytes.len() - all.len();
    match &whole {
        Ok(Some(value)) => {
            let mut again = BytesMut::from(&encode(value)[..]);
            assert_eq!(take(&mut again), whole);
            assert!(again.is_empty());
        }
        Ok(None) => assert!(bytes.len() < most, "{} bytes are not enough", bytes.len()),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    for len in 0..bytes.len().min(most) {
        let part = take(&mut BytesMut::from(&bytes[..len]));
        let same = part == whole && (len >= taken || whole.is_err());
        assert!(same || part == Ok(None), "{len} bytes: {part:?}, and then {whole:?}");
    }
    whole
}
