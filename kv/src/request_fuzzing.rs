//! What a fuzz target checks of the request decoder; the target includes this file and
//! `request.rs`.

use bytes::BytesMut;

use crate::request::{Decoder, MAX_REQUEST_BYTES, MAX_VALUE_BYTES, ProtocolError, Request};

/// The property of the target `requests`: what comes out of a stream is the same however it is cut
/// into pieces, is no more than went in, and decodes to the same when it is encoded again. The
/// first byte is the size of the pieces.
pub(crate) fn requests(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let step = usize::from(*step).max(1);
    let whole = read(stream, usize::MAX);
    assert_eq!(read(stream, step), whole, "in pieces of {step} bytes");
    let (requests, _) = whole;
    let (mut again, mut taken) = (Vec::new(), Vec::new());
    for request in requests {
        let Request::Arguments(arguments) = &request else { continue };
        assert!(!arguments.is_empty());
        again.extend(format!("*{}\r\n", arguments.len()).into_bytes());
        for argument in arguments {
            assert!(argument.len() <= MAX_VALUE_BYTES);
            again.extend(format!("${}\r\n", argument.len()).into_bytes());
            again.extend_from_slice(argument);
            again.extend_from_slice(b"\r\n");
        }
        taken.push(request);
    }
    assert_eq!(read(&again, usize::MAX), (taken, None));
}

/// All requests of a stream, which arrives in pieces of `step` bytes, and the error at which it
/// ends.
fn read(stream: &[u8], step: usize) -> (Vec<Request>, Option<ProtocolError>) {
    let mut decoder = Decoder::default();
    let (mut buffer, mut requests) = (BytesMut::new(), Vec::new());
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => {
                    assert!(!error.0.contains(['\r', '\n']), "an answer in two lines: {error:?}");
                    return (requests, Some(error));
                }
            }
        }
        assert!(decoder.lacks(&buffer) + buffer.len() <= MAX_REQUEST_BYTES, "more than is kept");
    }
    (requests, None)
}
