//! What clients get: replies, and their form in RESP2 and RESP3.
//!
//! They are written here and not through frames of the crate that reads requests, because those
//! would copy every value twice: a large one goes out as the very bytes that the state machine
//! holds. The tests read them back with that crate.

use bytes::{Bytes, BytesMut};
use quorate::codec::Gather;

/// A reply to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A short text without line breaks, such as `OK`.
    Status(&'static str),
    /// An error: its code word, a space and the text.
    Error(Bytes),
    /// A number.
    Integer(i64),
    /// Any bytes.
    Bulk(Bytes),
    /// A text for people.
    Text(String),
    /// Nothing there.
    Null,
    /// Several, in order.
    Array(Vec<Reply>),
    /// Several, in no order. A list in RESP2.
    Set(Vec<Reply>),
    /// Several byte strings, in order; see [`Bulks`].
    Bulks {
        /// How many.
        count: usize,
        /// What goes out after their number.
        encoded: Bytes,
    },
    /// Names with what they stand for, in order. A list of both in turn in RESP2.
    Map(Vec<(Reply, Reply)>),
}

/// Byte strings for a reply, in the form in which they go out: a million keys are one piece of
/// memory, and neither to send nor to drop it keeps others waiting.
#[derive(Debug, Default)]
pub(crate) struct Bulks {
    count: usize,
    encoded: BytesMut,
}

impl Bulks {
    /// Appends a copy.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.count += 1;
        self.encoded.reserve(NUMBER_BYTES + bytes.len() + 2);
        self.encoded.extend_from_slice(number('$', count(bytes.len()), &mut [0; NUMBER_BYTES]));
        self.encoded.extend_from_slice(bytes);
        self.encoded.extend_from_slice(b"\r\n");
    }

    /// The memory that they take, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// The reply.
    pub(crate) fn finish(self) -> Reply {
        Reply::Bulks { count: self.count, encoded: self.encoded.freeze() }
    }
}

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// What each connection begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

impl Reply {
    pub(crate) const OK: Self = Self::Status("OK");

    /// An error, with the code word in front.
    pub(crate) fn error(text: impl Into<Bytes>) -> Self {
        Self::Error(text.into())
    }

    /// A text as bytes.
    pub(crate) fn bulk(text: impl Into<Bytes>) -> Self {
        Self::Bulk(text.into())
    }

    /// What it keeps in memory, in bytes. (A value that several replies share counts for each: an
    /// APPEND would make it their own.)
    pub(crate) fn size(&self) -> usize {
        let content = match self {
            Self::Status(_) | Self::Integer(_) | Self::Null => 0,
            Self::Error(bytes) | Self::Bulk(bytes) => bytes.len(),
            Self::Text(text) => text.len(),
            Self::Array(items) | Self::Set(items) => items.iter().map(Self::size).sum(),
            Self::Bulks { encoded, .. } => encoded.len(),
            Self::Map(items) => items.iter().map(|(name, value)| name.size() + value.size()).sum(),
        };
        size_of::<Self>() + content
    }

    /// Appends it to what goes out.
    pub(crate) fn put(&self, to: &mut Gather, protocol: Protocol) {
        match self {
            Self::Status(text) => put_line(to, '+', text.as_bytes()),
            Self::Error(text) => put_line(to, '-', text),
            Self::Integer(number) => put_number(to, ':', *number),
            Self::Bulk(bytes) => put_bulk(to, '$', bytes),
            Self::Text(text) if protocol == Protocol::Resp3 => {
                put_bulk(to, '=', &Bytes::from(format!("txt:{text}")));
            }
            Self::Text(text) => put_bulk(to, '$', &Bytes::copy_from_slice(text.as_bytes())),
            Self::Null if protocol == Protocol::Resp3 => to.put_slice(b"_\r\n"),
            Self::Null => to.put_slice(b"$-1\r\n"),
            Self::Array(items) | Self::Set(items) => {
                let is_set = matches!(self, Self::Set(_)) && protocol == Protocol::Resp3;
                put_number(to, if is_set { '~' } else { '*' }, count(items.len()));
                items.iter().for_each(|item| item.put(to, protocol));
            }
            Self::Bulks { count: items, encoded } => {
                put_number(to, '*', count(*items));
                to.put_bytes(encoded);
            }
            Self::Map(items) => {
                match protocol {
                    Protocol::Resp2 => put_number(to, '*', count(2 * items.len())),
                    Protocol::Resp3 => put_number(to, '%', count(items.len())),
                }
                for (name, value) in items {
                    name.put(to, protocol);
                    value.put(to, protocol);
                }
            }
        }
    }
}

fn count(len: usize) -> i64 {
    i64::try_from(len).expect("a length in memory is below 2^63")
}

/// Line breaks become spaces: an error may quote what a client sent, and must stay one line.
fn put_line(to: &mut Gather, kind: char, text: &[u8]) {
    let mut line = Vec::with_capacity(text.len() + 3);
    line.push(kind as u8);
    line.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    line.extend_from_slice(b"\r\n");
    to.put_slice(&line);
}

/// The longest line of a number: its kind, a sign, 19 digits and the end of the line.
const NUMBER_BYTES: usize = 23;

fn put_number(to: &mut Gather, kind: char, value: i64) {
    to.put_slice(number(kind, value, &mut [0; NUMBER_BYTES]));
}

/// A line with a number.
fn number(kind: char, number: i64, line: &mut [u8; NUMBER_BYTES]) -> &[u8] {
    let mut at = line.len();
    let mut put = |byte: u8| {
        at -= 1;
        line[at] = byte;
    };
    put(b'\n');
    put(b'\r');
    let mut rest = number.unsigned_abs();
    loop {
        put(b'0' + (rest % 10) as u8);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        put(b'-');
    }
    put(kind as u8);
    &line[at..]
}

fn put_bulk(to: &mut Gather, kind: char, bytes: &Bytes) {
    put_number(to, kind, count(bytes.len()));
    to.put_bytes(bytes);
    to.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use redis_protocol::{resp2, resp3};

    use super::*;

    fn bytes(reply: &Reply, protocol: Protocol) -> Vec<u8> {
        let mut to = Gather::new();
        reply.put(&mut to, protocol);
        to.take().concat()
    }

    #[test]
    fn every_kind_in_both_protocols() {
        let mut keys = Bulks::default();
        keys.push(b"a");
        keys.push(b"");
        let cases = [
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (Reply::Integer(0), ":0\r\n", ":0\r\n"),
            (Reply::Integer(-7), ":-7\r\n", ":-7\r\n"),
            (Reply::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Reply::Integer(i64::MAX), ":9223372036854775807\r\n", ":9223372036854775807\r\n"),
            (Reply::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            (Reply::Text("hi".to_owned()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
            (Reply::Set(vec![Reply::OK]), "*1\r\n+OK\r\n", "~1\r\n+OK\r\n"),
            (Bulks::default().finish(), "*0\r\n", "*0\r\n"),
            (keys.finish(), "*2\r\n$1\r\na\r\n$0\r\n\r\n", "*2\r\n$1\r\na\r\n$0\r\n\r\n"),
            (
                Reply::Map(vec![(Reply::bulk("a"), Reply::Array(vec![Reply::Null]))]),
                "*2\r\n$1\r\na\r\n*1\r\n$-1\r\n",
                "%1\r\n$1\r\na\r\n*1\r\n_\r\n",
            ),
        ];
        for (reply, resp2, resp3) in cases {
            assert_eq!(bytes(&reply, Protocol::Resp2), resp2.as_bytes());
            assert_eq!(bytes(&reply, Protocol::Resp3), resp3.as_bytes());
            let read = resp2::decode::decode(resp2.as_bytes()).unwrap().unwrap();
            assert_eq!(read.1, resp2.len());
            let read = resp3::decode::complete::decode(resp3.as_bytes()).unwrap().unwrap();
            assert_eq!(read.1, resp3.len());
        }
    }

    #[test]
    fn a_large_value_is_not_copied() {
        let value = Bytes::from(vec![7; 1 << 20]);
        let mut to = Gather::new();
        Reply::Bulk(value.clone()).put(&mut to, Protocol::Resp2);
        assert!(to.take().iter().any(|chunk| chunk.as_ptr() == value.as_ptr()));
    }
}
