//! Tests of the request decoder: what Redis takes, what it refuses, and the limits.

use bytes::{Bytes, BytesMut};

use crate::request::{
    Decoder, MAX_EXECUTED_ARGUMENTS, MAX_LINE_BYTES, MAX_REQUEST_BYTES, MAX_VALUE_BYTES,
    ProtocolError, Request, parse_integer,
};

/// All requests in `bytes` when they arrive in pieces of that size.
fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Request>, ProtocolError> {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Some(request) = decoder.next(&mut buffer)? {
            requests.push(request);
        }
    }
    Ok(requests)
}

/// The same, for every size of piece that makes a difference.
fn decode_each_way(bytes: &[u8]) -> Result<Vec<Request>, ProtocolError> {
    let whole = decode(bytes, usize::MAX);
    for piece in [1, 2, 3, 7] {
        assert_eq!(decode(bytes, piece), whole, "in pieces of {piece}");
    }
    whole
}

fn command(arguments: &[&str]) -> Request {
    Request::Arguments(
        arguments.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect(),
    )
}

fn error(bytes: &[u8]) -> String {
    decode_each_way(bytes).unwrap_err().0
}

#[test]
fn a_pipeline_gives_each_request_in_order() {
    let bytes = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*1\r\n$4\r\nPING\r\n";
    assert_eq!(
        decode_each_way(bytes).unwrap(),
        [command(&["GET", "a"]), command(&["PING"]), command(&["PING"])]
    );
}

#[test]
fn values_hold_any_bytes() {
    let bytes = b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$8\r\n*1\r\n$1\r\n\r\n";
    assert_eq!(decode_each_way(bytes).unwrap(), [command(&["SET", "", "*1\r\n$1\r\n"])]);
}

#[test]
fn empty_requests_are_told_one_by_one() {
    let requests = decode_each_way(b"*0\r\n*-1\r\n\r\n  \r\n\nPING\n").unwrap();
    let [empty @ .., last] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((empty, last), (&[const { Request::Nothing }; 5][..], &command(&["PING"])));
}

#[test]
fn arguments_are_slices_of_what_was_read() {
    let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"[..]);
    let range = buffer.as_ptr_range();
    let request = Decoder::default().next(&mut buffer).unwrap().unwrap();
    let Request::Arguments(arguments) = request else { panic!("{request:?}") };
    assert!(arguments.iter().all(|argument| range.contains(&argument.as_ptr())));
}

#[test]
fn inline_commands_take_quotes_as_redis_does() {
    let cases: [(&[u8], &[&str]); 6] = [
        (b"set a b\r\n", &["set", "a", "b"]),
        (b"\tset  a\tb \n", &["set", "a", "b"]),
        (b"set \"a b\" ''\r\n", &["set", "a b", ""]),
        (br#"x "\x41\n\"\q" 'it\'s\n'"#, &["x", "A\n\"q", "it's\\n"]),
        (br#"x "\xzz""#, &["x", "xzz"]),
        (br#"a"b""#, &["ab"]),
    ];
    for (line, arguments) in cases {
        let line = [line, b"\n"].concat();
        let mut requests = decode_each_way(&line).unwrap();
        requests.retain(|request| *request != Request::Nothing);
        assert_eq!(requests, [command(arguments)]);
    }
    for line in [&b"a \"b\n"[..], b"a 'b\n", b"a \"b\"c\n"] {
        assert_eq!(error(line), "ERR Protocol error: unbalanced quotes in request");
    }
    assert!(error(b"POST / HTTP/1.1\r\nHost: x\r\n\r\nset a b\r\n").contains("HTTP"));
}

#[test]
fn malformed_frames_are_errors_in_redis_words() {
    let cases: [(&[u8], &str); 11] = [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*1\rx", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n:1\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n$1\r\na\r\n", "expected '$', got '*'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$01\r\n", "invalid bulk length"),
        (b"*1\r\n$1\r\nabc", "a bulk string is not as long as its length says"),
    ];
    for (bytes, text) in cases {
        assert_eq!(error(bytes), format!("ERR Protocol error: {text}"));
    }
}

#[test]
fn endless_lines_are_cut_off() {
    let line = |start: &str| [start.as_bytes(), &vec![b'1'; MAX_LINE_BYTES]].concat();
    for (start, text) in [
        ("*", "too big mbulk count string"),
        ("*1\r\n$", "too big bulk count string"),
        ("G", "too big inline request"),
    ] {
        let error = decode(&line(start), 1 << 12).unwrap_err().0;
        assert_eq!(error, format!("ERR Protocol error: {text}"));
    }
}

#[test]
fn a_value_of_8_mib_is_taken_and_one_byte_more_is_skipped() {
    let set = |len: usize| {
        let mut bytes = format!("*4\r\n$3\r\nSET\r\n$1\r\nk\r\n${len}\r\n").into_bytes();
        bytes.resize(bytes.len() + len, b'x');
        bytes.extend_from_slice(b"\r\n$1\r\ny\r\nPING\r\n");
        bytes
    };
    for piece in [1000, 1 << 20, usize::MAX] {
        let requests = decode(&set(MAX_VALUE_BYTES), piece).unwrap();
        assert!(matches!(&requests[0], Request::Arguments(all) if all[2].len() == MAX_VALUE_BYTES));
        let requests = decode(&set(MAX_VALUE_BYTES + 1), piece).unwrap();
        let refused = Request::Refused("ERR value exceeds 8 MiB".to_owned());
        assert_eq!(requests, [refused, command(&["PING"])]);
    }
}

#[test]
fn a_request_that_is_too_large_in_sum_is_skipped_and_not_kept() {
    let mut bytes = b"*6\r\n$4\r\nMSET\r\n".to_vec();
    for _ in 0..5 {
        bytes.extend_from_slice(b"$4194304\r\n");
        bytes.resize(bytes.len() + 4_194_304, b'x');
        bytes.extend_from_slice(b"\r\n");
    }
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in bytes.chunks(1 << 16) {
        buffer.extend_from_slice(piece);
        while let Some(request) = decoder.next(&mut buffer).unwrap() {
            requests.push(request);
        }
        assert!(buffer.len() <= MAX_REQUEST_BYTES);
    }
    assert_eq!(requests, [Request::Refused("ERR request exceeds 16 MiB".to_owned())]);
    assert!(buffer.is_empty());
}

#[test]
fn a_request_with_too_many_arguments_is_skipped_and_not_kept() {
    let with = |count: usize| {
        let mut bytes = format!("*{count}\r\n").into_bytes();
        (0..count).for_each(|_| bytes.extend_from_slice(b"$1\r\nx\r\n"));
        bytes.extend_from_slice(b"PING\r\n");
        bytes
    };
    let most = usize::try_from(MAX_EXECUTED_ARGUMENTS).unwrap();
    for piece in [1000, usize::MAX] {
        let requests = decode(&with(most), piece).unwrap();
        assert!(matches!(&requests[0], Request::Arguments(all) if all.len() == most));
        let requests = decode(&with(most + 1), piece).unwrap();
        let refused = Request::Refused("ERR request exceeds 32768 arguments".to_owned());
        assert_eq!(requests, [refused, command(&["PING"])]);
    }
}

#[test]
fn a_claim_reserves_nothing() {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::from(&b"*32768\r\n$8388608\r\n"[..]);
    assert_eq!(decoder.next(&mut buffer), Ok(None));
    assert_eq!(decoder.lacks(&buffer), MAX_VALUE_BYTES + 2);
    assert!(buffer.capacity() < 1 << 16);
}

#[test]
fn noise_is_an_error_or_a_request_but_never_a_panic() {
    // A fixed sequence of bytes, biased towards those that mean something.
    let mut state = 1_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..20_000 {
        let len = next() % 40;
        let alphabet = b"*$\r\n\r\n0123456789-+ \"'\\xGET\0\xff";
        let bytes: Vec<u8> = (0..len).map(|_| alphabet[next() % alphabet.len()]).collect();
        let whole = decode(&bytes, usize::MAX);
        let single = decode(&bytes, 1);
        // In one piece an error hides what came before it in the same call of `decode`.
        assert_eq!(whole, single);
    }
}

#[test]
fn integers_are_taken_in_one_form_only() {
    for (text, number) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("", None),
        ("-", None),
        ("-0", None),
        ("+1", None),
        ("01", None),
        (" 1", None),
        ("1 ", None),
        ("1.0", None),
        ("a", None),
    ] {
        assert_eq!(parse_integer(text.as_bytes()), number, "{text:?}");
    }
}
