//! The lines of text that arrive on a connection.

use std::fmt;
use std::io::{self, ErrorKind};

use bytes::{Buf, BytesMut};

use crate::ReadHalf;

/// So much is read at once, in bytes.
const READ_BYTES: usize = 8 << 10;

/// Reads a connection as lines of text in UTF-8, none longer than a limit.
///
/// A line ends with `\n` or `\r\n`, which is not part of it. The last one may end with the stream
/// instead. It takes at most twice the limit and 16 KiB of memory.
///
/// ```
/// use std::io;
///
/// use quorate_rt::{Lines, ReadHalf};
///
/// async fn print(connection: impl ReadHalf) -> io::Result<()> {
///     let mut lines = Lines::new(connection, 1024);
///     while let Some(line) = lines.next().await? {
///         println!("{line}");
///     }
///     Ok(())
/// }
/// ```
pub struct Lines<H> {
    read_half: H,
    max_line: usize,
    /// What has arrived and was not given yet; none while it is lent to a
    /// read, and after a failure.
    arrived: Option<BytesMut>,
    /// So much of it is known to hold no `\n`.
    searched: usize,
}

impl<H: ReadHalf> Lines<H> {
    /// Reads lines of at most `max_line` bytes each, without their ends.
    pub fn new(read_half: H, max_line: usize) -> Self {
        Self { read_half, max_line, arrived: Some(BytesMut::new()), searched: 0 }
    }

    /// Returns the next line, or none at the end of the stream.
    ///
    /// # Errors
    /// `InvalidData`: the line is not UTF-8, and the next call returns the one after it; or it is
    /// longer than the limit. Those of [`ReadHalf::read`]. After these two all later calls fail.
    ///
    /// # Cancellation
    /// Dropping the future may lose bytes, so all later calls fail. To wait for a line while other
    /// things happen, read in a task of its own.
    pub async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let lost = || io::Error::other("an earlier call failed, or was dropped");
            let mut arrived = self.arrived.take().ok_or_else(lost)?;
            let rest = arrived.get(self.searched..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let line = arrived.split_to(self.searched + at);
                arrived.advance(1);
                let line = self.checked(&line)?;
                (self.arrived, self.searched) = (Some(arrived), 0);
                return text(line).map(Some);
            }
            // It may be as long as the limit, with a `\r` of which the `\n` is still to come.
            if arrived.len() > self.max_line.saturating_add(1) {
                return Err(self.too_long());
            }
            self.searched = arrived.len();
            arrived.reserve(READ_BYTES);
            let (read, arrived) = self.read_half.read(arrived).await;
            if read? == 0 {
                let line = self.checked(&arrived)?;
                (self.arrived, self.searched) = (Some(BytesMut::new()), 0);
                return if arrived.is_empty() { Ok(None) } else { text(line).map(Some) };
            }
            self.arrived = Some(arrived);
        }
    }

    /// Returns the line without its `\r`, unless it is too long.
    fn checked<'a>(&self, line: &'a [u8]) -> io::Result<&'a [u8]> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.max_line { Err(self.too_long()) } else { Ok(line) }
    }

    fn too_long(&self) -> io::Error {
        let message = format!("a line is longer than {} bytes", self.max_line);
        io::Error::new(ErrorKind::InvalidData, message)
    }
}

fn text(line: &[u8]) -> io::Result<String> {
    let text = str::from_utf8(line).map_err(|error| {
        io::Error::new(ErrorKind::InvalidData, format!("a line is not UTF-8: {error}"))
    })?;
    Ok(text.to_owned())
}

impl<H> fmt::Debug for Lines<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("max_line", &self.max_line).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::{pending, ready};

    use futures::executor::block_on;

    use super::*;
    use crate::race;

    /// Gives these pieces, one for each read, and then the end of the stream.
    struct Pieces(VecDeque<&'static [u8]>);

    impl ReadHalf for Pieces {
        async fn read(&mut self, mut into: BytesMut) -> (io::Result<usize>, BytesMut) {
            let piece = self.0.pop_front().unwrap_or_default();
            if piece == b"hangs" {
                pending::<()>().await;
            }
            assert!(into.capacity() - into.len() >= piece.len());
            into.extend_from_slice(piece);
            (Ok(piece.len()), into)
        }
    }

    fn lines<const N: usize>(pieces: [&'static [u8]; N], max_line: usize) -> Lines<Pieces> {
        Lines::new(Pieces(pieces.into()), max_line)
    }

    fn all(mut lines: Lines<Pieces>) -> (Vec<String>, Option<String>) {
        let mut read = Vec::new();
        loop {
            match block_on(lines.next()) {
                Ok(Some(line)) => read.push(line),
                Ok(None) => return (read, None),
                Err(error) => return (read, Some(error.to_string())),
            }
        }
    }

    #[test]
    fn lines_are_found_wherever_the_pieces_begin() {
        let pieces: [&[u8]; 7] =
            [b"on", b"e\n\ntwo\r\nth", b"ree\r", b"\n", b"four", b"\nlast", b" one"];
        let (read, error) = all(lines(pieces, 8));
        assert_eq!(read, ["one", "", "two", "three", "four", "last one"]);
        assert_eq!(error, None);
    }

    #[test]
    fn a_line_may_be_as_long_as_the_limit_and_no_longer() {
        let longest: [&[u8]; 4] = [b"12345\n", b"12345\r\n", b"12345", b"\r"];
        assert_eq!(all(lines(longest, 5)), (vec!["12345".to_owned(); 3], None));
        let too_long = Some("a line is longer than 5 bytes".to_owned());
        assert_eq!(all(lines([b"a\n123456\nb\n"], 5)), (vec!["a".to_owned()], too_long.clone()));
        assert_eq!(all(lines([b"123456"], 5)), (vec![], too_long.clone()));
        assert_eq!(all(lines([b"123456", b"789", b"hangs"], 5)), (vec![], too_long));
    }

    #[test]
    fn after_a_line_that_is_too_long_nothing_is_read() {
        let mut lines = lines([b"123456\nb\n"], 5);
        assert_eq!(block_on(lines.next()).unwrap_err().kind(), ErrorKind::InvalidData);
        let error = block_on(lines.next()).unwrap_err();
        assert_eq!(error.to_string(), "an earlier call failed, or was dropped");
    }

    #[test]
    fn a_line_that_is_not_text_is_skipped() {
        let mut lines = lines([b"\xff\nb\n"], 5);
        assert_eq!(block_on(lines.next()).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(block_on(lines.next()).unwrap().as_deref(), Some("b"));
    }

    #[test]
    fn after_a_call_that_was_dropped_no_byte_is_missing_unnoticed() {
        let mut lines = lines([b"one ", b"hangs", b"three\n"], 20);
        block_on(race(lines.next(), ready(())));
        assert!(block_on(lines.next()).is_err());
    }

    #[test]
    fn the_end_stays_the_end() {
        let mut lines = lines([b"one\n"], 20);
        assert_eq!(block_on(lines.next()).unwrap().as_deref(), Some("one"));
        for _ in 0..2 {
            assert_eq!(block_on(lines.next()).unwrap(), None);
        }
    }
}
