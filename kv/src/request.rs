//! What clients send: cuts whole requests out of the bytes that have arrived, within limits.
//!
//! The content of a frame is read by the crate `redis-protocol`, which starts from the beginning
//! whenever bytes are missing and recurses into nested arrays. So a frame is walked here first:
//! each byte once, nothing but arrays of bulk strings, and every length checked before anything is
//! kept. What is too large is skipped as it comes, so that the connection can go on.

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

/// The longest argument of a request, in bytes: the limit of a value.
pub(crate) const MAX_VALUE_BYTES: usize = 8 << 20;

/// The longest request, in bytes as received. Its replicated form is shorter, and has to fit
/// into `Config::max_command_bytes`.
pub(crate) const MAX_REQUEST_BYTES: usize = 16 << 20;

/// The most arguments of a request, as in Redis.
const MAX_ARGUMENTS: i64 = 1 << 20;

/// The most arguments of a request that is executed. Whatever is done with the arguments of one
/// request is done in one go, here and there: to read them takes some milliseconds.
pub(crate) const MAX_EXECUTED_ARGUMENTS: i64 = 1 << 15;

/// The longest argument that is skipped rather than taken for a broken length: Redis'
/// `proto-max-bulk-len`.
const MAX_SKIPPED_BYTES: usize = 512 << 20;

/// The longest line: of an inline command, or of a length. As in Redis.
pub(crate) const MAX_LINE_BYTES: usize = 64 << 10;

/// Something a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A command's name and its arguments: never empty.
    Arguments(Vec<Bytes>),
    /// A request that was skipped because it is too large, and the error that says so.
    Refused(String),
    /// An empty line or an array of nothing, to which Redis says nothing, either.
    Nothing,
}

/// The bytes are no request, and where the next one begins can't be known: answer with this and
/// close.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProtocolError(pub(crate) String);

impl ProtocolError {
    fn new(what: impl AsRef<str>) -> Self {
        Self(format!("ERR Protocol error: {}", what.as_ref()))
    }
}

/// Finds the requests in a connection's bytes.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// The arguments that the frame at the front of the buffer still lacks; none between two
    /// frames.
    missing: Option<i64>,
    /// The bytes of that frame which are whole arguments already.
    walked: usize,
    /// The bytes that the buffer has to hold before the next argument is whole, as far as that is
    /// known.
    wanted: usize,
    /// Why the frame is refused. Then nothing of it is kept.
    refusal: Option<String>,
    /// The bytes of a refused frame's argument that are still to be dropped.
    skip: usize,
}

impl Decoder {
    /// Takes the next request off the front of `buffer`. None: more bytes are needed.
    ///
    /// After an error it must not be called again.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            let skipped = self.skip.min(buffer.len());
            buffer.advance(skipped);
            self.skip -= skipped;
            let Some(missing) = self.missing else {
                match buffer.first() {
                    None => return Ok(None),
                    Some(b'*') => {}
                    Some(_) => match take_inline(buffer)? {
                        None => return Ok(None),
                        Some(arguments) if arguments.is_empty() => {
                            return Ok(Some(Request::Nothing));
                        }
                        Some(arguments) => return Ok(Some(Request::Arguments(arguments))),
                    },
                }
                let Some((count, len)) = length(buffer, "multibulk", "mbulk")? else {
                    return Ok(None);
                };
                if count > MAX_ARGUMENTS {
                    return Err(ProtocolError::new("invalid multibulk length"));
                }
                if count <= 0 {
                    buffer.advance(len);
                    return Ok(Some(Request::Nothing));
                } else if count > MAX_EXECUTED_ARGUMENTS {
                    buffer.advance(len);
                    self.missing = Some(count);
                    self.refusal =
                        Some(format!("ERR request exceeds {MAX_EXECUTED_ARGUMENTS} arguments"));
                } else {
                    self.missing = Some(count);
                    self.walked = len;
                }
                continue;
            };
            if self.skip > 0 {
                return Ok(None);
            }
            if missing == 0 {
                let frame = buffer.split_to(self.walked).freeze();
                let refusal = self.refusal.take();
                *self = Self::default();
                return match refusal {
                    Some(refusal) => Ok(Some(Request::Refused(refusal))),
                    None => arguments(&frame).map(|all| Some(Request::Arguments(all))),
                };
            }
            if !self.walk_argument(buffer)? {
                return Ok(None);
            }
            self.missing = Some(missing - 1);
        }
    }

    /// How many more bytes are needed, as far as that is known; 0 where it isn't.
    pub(crate) fn lacks(&self, buffer: &BytesMut) -> usize {
        self.wanted.saturating_sub(buffer.len())
    }

    /// Whether nothing of a request is there that is not whole.
    pub(crate) fn is_between(&self, buffer: &BytesMut) -> bool {
        self.missing.is_none() && buffer.is_empty()
    }

    /// Steps over the next argument, if all of it is there or it is to be skipped.
    fn walk_argument(&mut self, buffer: &mut BytesMut) -> Result<bool, ProtocolError> {
        let rest = buffer.get(self.walked..).unwrap_or_default();
        match rest.first() {
            None => return Ok(false),
            Some(b'$') => {}
            Some(other) => {
                let other = other.escape_ascii();
                return Err(ProtocolError::new(format!("expected '$', got '{other}'")));
            }
        }
        let Some((len, header)) = length(rest, "bulk", "bulk")? else { return Ok(false) };
        let len = usize::try_from(len).ok().filter(|len| *len <= MAX_SKIPPED_BYTES);
        let Some(len) = len else { return Err(ProtocolError::new("invalid bulk length")) };
        let whole = header + len + 2;
        let end = rest.get(header + len..whole).map(|end| end == b"\r\n");
        if self.refusal.is_none() {
            if len > MAX_VALUE_BYTES {
                self.refusal = Some(too_large("value", MAX_VALUE_BYTES));
            } else if self.walked + whole > MAX_REQUEST_BYTES {
                self.refusal = Some(too_large("request", MAX_REQUEST_BYTES));
            }
            if self.refusal.is_some() {
                buffer.advance(self.walked);
                self.walked = 0;
                self.wanted = 0;
            }
        }
        if self.refusal.is_some() {
            self.skip = whole;
            return Ok(true);
        }
        match end {
            None => {
                self.wanted = self.walked + whole;
                Ok(false)
            }
            Some(true) => {
                self.walked += whole;
                Ok(true)
            }
            Some(false) => {
                Err(ProtocolError::new("a bulk string is not as long as its length says"))
            }
        }
    }
}

fn too_large(what: &str, limit: usize) -> String {
    format!("ERR {what} exceeds {} MiB", limit >> 20)
}

/// The number after the first byte, and how long its line is. `name` and `short_name` are what
/// Redis' errors call it.
fn length(
    bytes: &[u8],
    name: &str,
    short_name: &str,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let within = bytes.get(..MAX_LINE_BYTES).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| *byte == b'\r') else {
        if bytes.len() >= MAX_LINE_BYTES {
            return Err(ProtocolError::new(format!("too big {short_name} count string")));
        }
        return Ok(None);
    };
    let number = bytes.get(1..end).and_then(parse_integer);
    match (number, bytes.get(end + 1)) {
        (_, None) => Ok(None),
        (Some(number), Some(b'\n')) => Ok(Some((number, end + 2))),
        _ => Err(ProtocolError::new(format!("invalid {name} length"))),
    }
}

/// The arguments in a whole frame, as slices of it.
fn arguments(frame: &Bytes) -> Result<Vec<Bytes>, ProtocolError> {
    let malformed = || ProtocolError::new("not an array of bulk strings");
    let Ok(Some((RangeFrame::Array(items), len))) = decode_range(frame) else {
        return Err(malformed());
    };
    assert_eq!(len, frame.len(), "the frame was walked to its end");
    items
        .into_iter()
        .map(|item| match item {
            RangeFrame::BulkString((from, to)) => Ok(frame.slice(from..to)),
            _ => Err(malformed()),
        })
        .collect()
}

/// Takes a line as telnet sends it: arguments between spaces, quoted where they hold some.
fn take_inline(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    let within = buffer.get(..MAX_LINE_BYTES).unwrap_or(buffer);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        if buffer.len() >= MAX_LINE_BYTES {
            return Err(ProtocolError::new("too big inline request"));
        }
        return Ok(None);
    };
    let line = buffer.split_to(end + 1);
    let line = line.strip_suffix(b"\r\n").or(line.strip_suffix(b"\n")).unwrap_or(&line);
    let Some(arguments) = split_line(line) else {
        return Err(ProtocolError::new("unbalanced quotes in request"));
    };
    // A browser can be made to send a form to a local port. Redis, too, hangs up on what looks like
    // HTTP.
    let http =
        |name: &Bytes| name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:");
    if arguments.first().is_some_and(http) {
        return Err(ProtocolError::new("this is not HTTP"));
    }
    Ok(Some(arguments))
}

/// The arguments of a line; none where its quotes don't match.
fn split_line(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut arguments = Vec::new();
    let mut rest = line.iter().copied().peekable();
    loop {
        while rest.next_if(u8::is_ascii_whitespace).is_some() {}
        if rest.peek().is_none() {
            return Some(arguments);
        }
        let mut argument = Vec::new();
        while let Some(byte) = rest.next_if(|byte| !byte.is_ascii_whitespace()) {
            match byte {
                b'"' | b'\'' => {
                    take_quoted(&mut rest, byte, &mut argument)?;
                    if rest.peek().is_some_and(|next| !next.is_ascii_whitespace()) {
                        return None;
                    }
                }
                _ => argument.push(byte),
            }
        }
        arguments.push(Bytes::from(argument));
    }
}

fn take_quoted(
    rest: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>,
    quote: u8,
    argument: &mut Vec<u8>,
) -> Option<()> {
    loop {
        match rest.next()? {
            byte if byte == quote => return Some(()),
            b'\\' if quote == b'"' => argument.push(match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                b'a' => 7,
                b'x' => match hex_byte(rest.clone()) {
                    Some(byte) => {
                        rest.nth(1);
                        byte
                    }
                    None => b'x',
                },
                other => other,
            }),
            b'\\' if rest.next_if_eq(&quote).is_some() => argument.push(quote),
            byte => argument.push(byte),
        }
    }
}

fn hex_byte(mut digits: impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(digits.next()?).to_digit(16);
    let byte = digit()? * 16 + digit()?;
    u8::try_from(byte).ok()
}

/// A number in the one form in which Redis takes it: no sign but `-`, no leading zeros, no spaces.
pub(crate) fn parse_integer(text: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => digits.len() == text.len(),
        [first, ..] => matches!(first, b'1'..=b'9'),
        [] => false,
    };
    canonical.then_some(number)
}
