//! Entries: each by itself, as a store keeps them, and in runs, as a message brings them.
//!
//! An entry that stands alone:
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 0 blank, 1 command, 2 configuration; plus 128 if fields precede the content |
//! | 1 | 24 | its log id: term (8), leader (8), index (8) |
//! | 25 | 8 | its time, in milliseconds since the Unix epoch |
//! | 33 | 4 | the length of the rest |
//! | 37 | | if the kind says so, the length of tagged fields, and these; then the content |
//!
//! The content of a blank entry is empty, that of a command is the command, and that of a
//! configuration is a structure (see [`membership`](super::membership)). An entry of an unknown
//! kind is refused. No fields are defined yet.
//!
//! The entries of a message are their number (4) and their runs. A run holds entries that follow
//! each other and have the same term, leader and time, which it tells once:
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 1 | 0; or 128 if fields precede the entries |
//! | 1 | 24 | the log id of the first entry |
//! | 25 | 8 | the time of all, in milliseconds since the Unix epoch |
//! | 33 | 4 | the number of entries, at least 1 |
//! | 37 | | if the first byte says so, the length of tagged fields, and these; then the entries |
//!
//! An entry in a run is its kind (1), the length of the rest (4) and the rest, all as above.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::fields::{Fields, take_sized};
use super::membership::{membership_bytes, put_membership, take_membership};
use super::{DecodeError, Gather, LOG_ID_BYTES, finish, length, take_u32};
use crate::entries::Entries;
use crate::types::{Entry, LogId, Payload};

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Beside the kind: tagged fields precede the content.
const EXTENDED: u8 = 0x80;

/// The bytes of an entry besides its content.
pub const ENTRY_HEADER_BYTES: usize = 1 + LOG_ID_BYTES + 8 + 4;

/// The bytes of a run besides its entries.
pub(super) const RUN_HEADER_BYTES: usize = 1 + LOG_ID_BYTES + 8 + 4;

/// The bytes of an entry in a run besides its content.
pub(super) const SHORT_HEADER_BYTES: usize = 1 + 4;

/// A byte, a log id, a time and a number: the header of an entry and of a run.
fn put_header(to: &mut Gather, byte: u8, log_id: LogId, time: u64, number: u32) {
    let mut header = [byte; ENTRY_HEADER_BYTES]; // At once: there may be many.
    header[1..9].copy_from_slice(&log_id.term.0.to_le_bytes());
    header[9..17].copy_from_slice(&log_id.leader.to_le_bytes());
    header[17..25].copy_from_slice(&log_id.index.to_le_bytes());
    header[25..33].copy_from_slice(&time.to_le_bytes());
    header[33..].copy_from_slice(&number.to_le_bytes());
    to.put_slice(&header);
}

/// The kind of a payload, and the length of its content.
fn kind_and_length(payload: &Payload) -> (u8, u32) {
    match payload {
        Payload::Blank => (BLANK, 0),
        Payload::Command(command) => (COMMAND, length(command.len())),
        Payload::Membership(membership) => (MEMBERSHIP, length(membership_bytes(membership))),
    }
}

fn put_content(to: &mut Gather, payload: &Payload) {
    match payload {
        Payload::Blank => {}
        Payload::Command(command) => to.put_bytes(command),
        Payload::Membership(membership) => put_membership(to, membership),
    }
}

/// Appends an entry that stands alone.
pub fn put_entry(to: &mut Gather, entry: &Entry) {
    let (kind, len) = kind_and_length(&entry.payload);
    put_header(to, kind, entry.log_id, entry.time, len);
    put_content(to, &entry.payload);
}

/// The bytes of the entry that begins here, by what it says.
///
/// Errors: they are not all there.
pub fn entry_bytes(from: &[u8]) -> Result<usize, DecodeError> {
    let what = "entry";
    let Some((header, content)) = from.split_first_chunk::<ENTRY_HEADER_BYTES>() else {
        return Err(DecodeError::Short { what, needs: ENTRY_HEADER_BYTES, has: from.len() });
    };
    let mut claimed = &header[ENTRY_HEADER_BYTES - 4..];
    let needs = claimed.get_u32_le() as usize;
    if content.len() < needs {
        return Err(DecodeError::Short { what: "content of an entry", needs, has: content.len() });
    }
    Ok(ENTRY_HEADER_BYTES + needs)
}

/// Takes an entry that stands alone off the front.
pub fn take_entry(from: &mut Bytes) -> Result<Entry, DecodeError> {
    let len = entry_bytes(from)?;
    let mut header = &from[..ENTRY_HEADER_BYTES];
    let kind = header.get_u8();
    let term = header.get_u64_le();
    let log_id = LogId::new(term, header.get_u64_le(), header.get_u64_le());
    let time = header.get_u64_le();
    if log_id.index == 0 {
        return Err(DecodeError::Invalid("an entry with index 0".to_owned()));
    }
    from.advance(ENTRY_HEADER_BYTES);
    let payload = decode_payload(kind, from.split_to(len - ENTRY_HEADER_BYTES))?;
    Ok(Entry { log_id, time, payload })
}

fn decode_payload(kind: u8, mut rest: Bytes) -> Result<Payload, DecodeError> {
    match kind {
        COMMAND => Ok(Payload::Command(rest)),
        BLANK if rest.is_empty() => Ok(Payload::Blank),
        BLANK => Err(DecodeError::Long(rest.len())),
        MEMBERSHIP => {
            let membership = take_membership(&mut rest)?;
            finish(&rest)?;
            Ok(Payload::Membership(membership))
        }
        kind if kind & EXTENDED != 0 => {
            Fields::new("entry", take_sized(&mut rest, "fields of an entry")?).finish()?;
            decode_payload(kind & !EXTENDED, rest)
        }
        kind => Err(DecodeError::Kind { what: "entry", kind }),
    }
}

/// Appends entries that follow each other: their number, and their runs.
pub(super) fn put_runs(to: &mut Gather, entries: &[Entry]) {
    let same_run = |one: &Entry, next: &Entry| {
        one.time == next.time
            && one.log_id.term == next.log_id.term
            && one.log_id.leader == next.log_id.leader
    };
    to.put_u32(length(entries.len()));
    for run in entries.chunk_by(same_run) {
        put_header(to, 0, run[0].log_id, run[0].time, length(run.len()));
        for entry in run {
            let (kind, len) = kind_and_length(&entry.payload);
            let mut header = [kind; SHORT_HEADER_BYTES];
            header[1..].copy_from_slice(&len.to_le_bytes());
            to.put_slice(&header);
            put_content(to, &entry.payload);
        }
    }
}

/// Takes all of `from` as the runs of entries after this one, at most so many entries.
///
/// Errors: indexes don't follow each other, terms or times fall.
pub(super) fn take_runs(mut from: Bytes, prev: LogId, most: usize) -> Result<Entries, DecodeError> {
    let count = take_u32(&mut from, "entries")? as usize;
    if count > most {
        return Err(DecodeError::Invalid(format!("{count} entries, and {most} may be")));
    }
    // The count is only a claim: as many as it says must fit into what is there.
    if count > from.len() / SHORT_HEADER_BYTES {
        let (needs, has) = (count.saturating_mul(SHORT_HEADER_BYTES), from.len());
        return Err(DecodeError::Short { what: "entries", needs, has });
    }
    let mut runs = Runs { from, last: prev, time: 0, left: 0 };
    let mut wrong = None;
    // An iterator that knows its length makes the shared slice without a copy. So after an error it
    // goes on to its end.
    let entries: Arc<[Entry]> = (0..count)
        .map(|_| {
            let next = if wrong.is_none() { runs.next() } else { Ok(NOTHING) };
            next.unwrap_or_else(|error| {
                wrong = Some(error);
                NOTHING
            })
        })
        .collect();
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if runs.left > 0 {
        return Err(DecodeError::Invalid(format!("{} entries too few", runs.left)));
    }
    finish(&runs.from)?;
    Ok(entries.into())
}

/// What stands in the place of an entry that can't be decoded.
const NOTHING: Entry = Entry { log_id: LogId::ZERO, time: 0, payload: Payload::Blank };

/// Runs of entries that are being decoded.
struct Runs {
    from: Bytes,
    /// The last entry that was taken; where a run has begun, what comes before its first.
    last: LogId,
    /// That of the run.
    time: u64,
    /// How many entries of the run are left.
    left: u32,
}

impl Runs {
    fn next(&mut self) -> Result<Entry, DecodeError> {
        if self.left == 0 {
            self.begin()?;
        }
        let payload = take_payload(&mut self.from)?;
        self.left -= 1;
        self.last.index += 1;
        Ok(Entry { log_id: self.last, time: self.time, payload })
    }

    /// Takes the header of a run off the front.
    fn begin(&mut self) -> Result<(), DecodeError> {
        let Some(mut header) =
            self.from.first_chunk::<RUN_HEADER_BYTES>().map(|header| &header[..])
        else {
            let (needs, has) = (RUN_HEADER_BYTES, self.from.len());
            return Err(DecodeError::Short { what: "run of entries", needs, has });
        };
        let kind = header.get_u8();
        let first = LogId::new(header.get_u64_le(), header.get_u64_le(), header.get_u64_le());
        let time = header.get_u64_le();
        let count = header.get_u32_le();
        self.from.advance(RUN_HEADER_BYTES);
        match kind {
            0 => {}
            EXTENDED => {
                let fields = take_sized(&mut self.from, "fields of a run of entries")?;
                Fields::new("run of entries", fields).finish()?;
            }
            kind => return Err(DecodeError::Kind { what: "run of entries", kind }),
        }
        let Self { last, time: latest, .. } = *self;
        if Some(first.index) != last.index.checked_add(1) || first.term < last.term {
            return Err(DecodeError::Invalid(format!("entry {first} after {last}")));
        }
        if time < latest {
            let reason = format!("entry {first} of {time} ms after one of {latest} ms");
            return Err(DecodeError::Invalid(reason));
        }
        if count == 0 || last.index.checked_add(count.into()).is_none() {
            return Err(DecodeError::Invalid(format!("{count} entries from {first} on")));
        }
        self.last = LogId { index: last.index, ..first };
        self.time = time;
        self.left = count;
        Ok(())
    }
}

/// Takes an entry in a run off the front.
fn take_payload(from: &mut Bytes) -> Result<Payload, DecodeError> {
    let Some(header) = from.first_chunk::<SHORT_HEADER_BYTES>() else {
        let (needs, has) = (SHORT_HEADER_BYTES, from.len());
        return Err(DecodeError::Short { what: "entry", needs, has });
    };
    let kind = header[0];
    let len = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
    let has = from.len() - SHORT_HEADER_BYTES;
    if has < len {
        return Err(DecodeError::Short { what: "content of an entry", needs: len, has });
    }
    from.advance(SHORT_HEADER_BYTES);
    match (kind, from.split_to(len)) {
        (COMMAND, command) => Ok(Payload::Command(command)), // Nearly all are.
        (kind, rest) => decode_payload(kind, rest),
    }
}
