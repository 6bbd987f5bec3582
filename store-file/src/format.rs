//! The format of the write-ahead log on disk. Until 1.0 it may change; a log of another version is refused, and never taken for a torn one.
//!
//! The log is a sequence of segments, the files `wal/0000000000000001.wal` and on, numbered without a gap (16 decimal digits). Each
//! is preallocated, so that what has not been written yet is zeros; a record that is larger than a segment is alone in one that has grown.
//! All numbers are little-endian.
//!
//! A segment begins with a header of 4096 bytes, a block of its own, so that no later write touches its sector:
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | magic, `QUORWAL` and a zero |
//! | 8 | 4 | version of the format: 2 |
//! | 12 | 4 | the segment's number |
//! | 16 | 8 | the store's id: random, drawn when the store was made, the same in all of its segments |
//! | 24 | 4 | CRC of the bytes 0 to 24 |
//!
//! The records follow, each filled up with zeros to a multiple of 8 bytes. A record is one write of one group, and has a header and a body:
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | CRC of the header's bytes 4 to 40 |
//! | 4 | 4 | CRC of the body, but for the entries, of which only the CRCs are in it |
//! | 8 | 8 | the body's length |
//! | 16 | 8 | group |
//! | 24 | 8 | the log was durable up to here when this was written: offset |
//! | 32 | 4 | and segment |
//! | 36 | 4 | kind: 1, a write; 2, a witness; 3, a begin |
//! | 40 | | the body |
//!
//! The body of a write: a byte of flags, the parts that these tell of, the number of entries (4), and for each its CRC (4) and the entry.
//! Snapshots, log ids and entries have the form of `quorate_core::codec`.
//!
//! | flag | part |
//! | --- | --- |
//! | 1 | the hard state: term (8) and vote (8, 0 for none) |
//! | 2 | the group's snapshot from now on: what it is of |
//! | 4 | the log id of the last entry that is purged |
//! | 8 | no part: the log did not hold that entry, so that nothing is left of it (only with 4) |
//! | 16 | no part: the node has not caught up (only with 1) |
//!
//! A witness has no body, and says that the log is durable up to its own place. It is no part of the log: the next record takes
//! its place, or stands at the begin of the next segment.
//! The body of a begin (group 0) is the number of a segment (4); see below.
//!
//! # The begin
//!
//! Segments in which nothing is needed any more are removed. Before that, each group whose hard state, snapshot or purge was last told in one
//! of them is told of again; then a begin tells which is the first segment that is needed; and only when all that is durable, those before it go. So the
//! segments that are there are numbered without a gap from one on that is not behind the last begin told, or from 1 where none is: otherwise a file is
//! missing. (Those before the begin, with or without gaps, are left over from a crash.)
//!
//! What stands in the segments from there on refers to entries that are gone with those before. A group's log then begins with the first entry
//! that is found of it, until it is known where: by a purge of the entry before that, or of a later one. A group whose entries
//! do not follow on its last purge misses some.
//!
//! All CRCs are CRC-32 (IEEE). Those of a record start from a seed, the CRC of store id, segment and the record's
//! offset: bytes that are left over from another store, another segment or another place are no record. An entry has a CRC of its own
//! so that it can be read alone; its seed is the CRC of store id and group. In the CRC of the body that one stands for the entry, so that each byte is
//! summed once; a record is whole where both match.
//!
//! # The tail
//!
//! Records are written in batches, each with one write into one segment and one sync, the next only after the last one's sync. Every record says how far the log was
//! durable when it was written, which is the end of the batch before. So where a record can't be read, it was either never durable (a torn tail,
//! nobody was told that it is stored), or a later record testifies that it once was: then it is damage. A segment gets its first record only after the one before is durable
//! to its last record. What lies behind the tail is zeroed before the log goes on, so that nothing of a torn batch can follow on new records.
//!
//! The last batch of all has no later record that testifies of it. So when nothing has followed on a batch for a while, or the store is closed, a witness
//! is written behind it, after its sync, and is not synced itself: a process that ends leaves it in the system's memory, and a system that shuts
//! down, or goes on for a few seconds, on the disk.
//!
//! What can't be told apart, and counts as a torn tail: damage in the last batch of all, if there is no witness of it. That takes a crash of the system
//! within seconds of the last batch (or of the process within milliseconds of it, or while the next one is written over the
//! witness) and a disk that loses, of its own, just what it has reported as synced; or damage that also takes the witness, as when the
//! end of the file is cut off.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use crc32fast::Hasher;
use quorate_core::codec::{
    DecodeError, Gather, entry_bytes, finish, put_entry, put_log_id, put_snapshot_meta, take_entry,
    take_log_id, take_snapshot_meta, take_u8, take_u32, take_u64,
};
use quorate_core::{Entry, GroupId, HardState, LogId, LogWrite, SnapshotMeta, Term};

/// The header of a segment; also the offset of its first record.
pub(crate) const HEADER_BYTES: u64 = 4096;
pub(crate) const RECORD_HEADER_BYTES: usize = 40;
/// Every record begins at a multiple of this.
pub(crate) const ALIGNMENT: u64 = 8;
/// What an entry takes beyond its content.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 4 + quorate_core::codec::ENTRY_HEADER_BYTES;

const MAGIC: &[u8; 8] = b"QUORWAL\0";
const VERSION: u32 = 2;
const SEGMENT_HEADER_USED: usize = 28;
const KIND_WRITE: u32 = 1;
const KIND_WITNESS: u32 = 2;
const KIND_BEGIN: u32 = 3;

const HARD_STATE: u8 = 1;
const SNAPSHOT: u8 = 2;
const PURGE: u8 = 4;
const REPLACES: u8 = 8;
const CATCHES_UP: u8 = 16;
/// The first flag that means nothing.
const UNKNOWN: u8 = 32;

/// What a witness takes. No write takes less, so one that is put in its place covers it whole.
pub(crate) const WITNESS_BYTES: u64 = RECORD_HEADER_BYTES as u64;

/// A place in the log. Ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl Position {
    /// Of the first record of a segment.
    pub(crate) fn first_in(segment: u32) -> Self {
        Self { segment, offset: HEADER_BYTES }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of segment {}", self.offset, self.segment)
    }
}

/// Where an entry, with its CRC, stands in a record: the offset counts from the record's begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// What a record takes in its segment.
pub(crate) fn record_bytes(body: u64) -> u64 {
    (RECORD_HEADER_BYTES as u64 + body).next_multiple_of(ALIGNMENT)
}

pub(crate) fn segment_header(store: u64, segment: u32) -> Bytes {
    let mut header = BytesMut::with_capacity(HEADER_BYTES as usize);
    header.put_slice(MAGIC);
    header.put_u32_le(VERSION);
    header.put_u32_le(segment);
    header.put_u64_le(store);
    header.put_u32_le(crc(0, [&header[..]]));
    header.resize(HEADER_BYTES as usize, 0);
    header.freeze()
}

/// The store id, from the header of the segment with this number.
pub(crate) fn check_segment_header(header: &[u8], segment: u32) -> Result<u64, String> {
    let Some(mut header) = header.first_chunk::<SEGMENT_HEADER_USED>().map(|header| &header[..])
    else {
        return Err("the file ends in its header".to_owned());
    };
    let expected = crc(0, [&header[..SEGMENT_HEADER_USED - 4]]);
    if !header.starts_with(MAGIC) {
        return Err("not a segment of a log".to_owned());
    }
    header.advance(MAGIC.len());
    let (version, number) = (header.get_u32_le(), header.get_u32_le());
    let store = header.get_u64_le();
    if header.get_u32_le() != expected {
        return Err("the header's CRC does not match".to_owned());
    }
    if version != VERSION {
        return Err(format!("format version {version}, known is {VERSION}"));
    }
    if number != segment {
        return Err(format!("the header is that of segment {number}"));
    }
    Ok(store)
}

/// The seed for a record at this place.
pub(crate) fn record_seed(store: u64, at: Position) -> u32 {
    let mut place = [0; 20]; // At once: every record has one.
    place[..8].copy_from_slice(&store.to_le_bytes());
    place[8..12].copy_from_slice(&at.segment.to_le_bytes());
    place[12..].copy_from_slice(&at.offset.to_le_bytes());
    crc(0, [&place[..]])
}

/// Computes the CRC of an entry of a group. What has the right seed is made once for many: it asks for the features of the processor.
#[derive(Debug)]
pub(crate) struct EntryCrc {
    group: GroupId,
    seeded: Hasher,
}

impl EntryCrc {
    pub(crate) fn new(store: u64, group: GroupId) -> Self {
        let seed = crc(0, [&store.to_le_bytes()[..], &group.to_le_bytes()]);
        Self { group, seeded: Hasher::new_with_initial(seed) }
    }

    pub(crate) fn of<'a>(&self, chunks: impl IntoIterator<Item = &'a [u8]>) -> u32 {
        continued(self.seeded.clone(), chunks)
    }
}

pub(crate) fn crc<'a>(seed: u32, chunks: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    continued(Hasher::new_with_initial(seed), chunks)
}

fn continued<'a>(mut hasher: Hasher, chunks: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    chunks.into_iter().for_each(|chunk| hasher.update(chunk));
    hasher.finalize()
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    body_crc: u32,
    kind: u32,
    pub(crate) body_bytes: u64,
    pub(crate) group: GroupId,
    pub(crate) durable: Position,
}

impl RecordHeader {
    /// None where there is no record with this seed.
    pub(crate) fn decode(header: &[u8; RECORD_HEADER_BYTES], seed: u32) -> Option<Self> {
        let mut from = &header[..];
        let header_crc = from.get_u32_le();
        if header_crc != crc(seed, [from]) {
            return None;
        }
        let body_crc = from.get_u32_le();
        let body_bytes = from.get_u64_le();
        let group = from.get_u64_le();
        let offset = from.get_u64_le();
        let durable = Position { segment: from.get_u32_le(), offset };
        Some(Self { body_crc, kind: from.get_u32_le(), body_bytes, group, durable })
    }

    fn encode(&self, seed: u32) -> [u8; RECORD_HEADER_BYTES] {
        let mut header = [0; RECORD_HEADER_BYTES];
        let mut to = &mut header[4..];
        to.put_u32_le(self.body_crc);
        to.put_u64_le(self.body_bytes);
        to.put_u64_le(self.group);
        to.put_u64_le(self.durable.offset);
        to.put_u32_le(self.durable.segment);
        to.put_u32_le(self.kind);
        let header_crc = crc(seed, [&header[4..]]);
        header[..4].copy_from_slice(&header_crc.to_le_bytes());
        header
    }

    #[cfg(test)]
    pub(crate) fn is_witness(&self) -> bool {
        self.kind == KIND_WITNESS
    }

    /// What the record tells, if this is its body: none where a CRC does not match.
    ///
    /// Errors: they match, and it makes no sense.
    pub(crate) fn content(
        &self,
        store: u64,
        mut body: Bytes,
        seed: u32,
    ) -> Result<Option<Content>, DecodeError> {
        if body.len() as u64 != self.body_bytes {
            return Ok(None);
        }
        if self.kind == KIND_WRITE {
            return self.decode_write(store, body, seed);
        }
        if crc(seed, [&body[..]]) != self.body_crc {
            return Ok(None);
        }
        match self.kind {
            KIND_WITNESS => Ok(Some(Content::Witness)),
            KIND_BEGIN => {
                let first = take_u32(&mut body, "begin of the log")?;
                finish(&body)?;
                Ok(Some(Content::Begin(first)))
            }
            kind => {
                let reason = format!("a record of kind {kind}; known are 1 to {KIND_BEGIN}");
                Err(DecodeError::Invalid(reason))
            }
        }
    }

    /// Checks the entries while it decodes them: an opening does this with all that there is.
    fn decode_write(
        &self,
        store: u64,
        mut body: Bytes,
        seed: u32,
    ) -> Result<Option<Content>, DecodeError> {
        let whole = body.clone();
        let body = &mut body;
        // What makes no sense; that counts only where all CRCs match.
        let mut wrong = None;
        let parts = take_parts(body).unwrap_or_else(|error| {
            wrong = Some(error);
            body.clear(); // All of it is summed.
            Parts::default()
        });
        let mut summed = whole[..whole.len() - body.len()].to_vec();
        // The count is only a claim: reserve no more than the bytes at hand could hold.
        let expected = (parts.count as usize).min(body.len() / ENTRY_OVERHEAD_BYTES);
        summed.reserve(4 * expected);
        let mut entries = Vec::<Entry>::with_capacity(expected);
        let mut spans = Vec::with_capacity(expected);
        let crc_of_entry = EntryCrc::new(store, self.group);
        for _ in 0..parts.count {
            let begin = whole.len() - body.len();
            let Ok(value) = take_u32(body, ENTRY_CRC) else { return Ok(None) };
            let Ok(len) = entry_bytes(body) else { return Ok(None) };
            if crc_of_entry.of([&body[..len]]) != value {
                return Ok(None);
            }
            summed.extend_from_slice(&value.to_le_bytes());
            spans.push(Span { offset: RECORD_HEADER_BYTES + begin, len: 4 + len });
            match take_entry(body) {
                Ok(entry) => {
                    if let Some(last) = entries.last()
                        && last.log_id.index.checked_add(1) != Some(entry.log_id.index)
                    {
                        let reason = format!("{} after {}", entry.log_id, last.log_id);
                        wrong.get_or_insert(DecodeError::Invalid(reason));
                    }
                    entries.push(entry);
                }
                Err(error) => {
                    wrong.get_or_insert(error);
                    *body = whole.slice(begin + 4 + len..);
                }
            }
        }
        if crc(seed, [&summed[..]]) != self.body_crc {
            return Ok(None);
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        finish(body)?;
        let Parts { hard_state, snapshot, purge, replaces, .. } = parts;
        let write = LogWrite { hard_state, snapshot, purge, entries: entries.into() };
        Ok(Some(Content::Write(Decoded { write, replaces, spans })))
    }
}

/// What a record tells.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are writes, and each is taken apart at once"
)]
pub(crate) enum Content {
    Write(Decoded),
    Witness,
    /// The first segment that is needed.
    Begin(u32),
}

/// The record which says that the log is durable up to this place, where it stands.
pub(crate) fn witness(store: u64, at: Position) -> Bytes {
    let seed = record_seed(store, at);
    let header = RecordHeader {
        body_crc: crc(seed, []),
        kind: KIND_WITNESS,
        body_bytes: 0,
        group: 0,
        durable: at,
    };
    Bytes::copy_from_slice(&header.encode(seed))
}

/// Encodes records. Its buffers serve again and again.
#[derive(Debug)]
pub(crate) struct Encoder {
    store: u64,
    kind: u32,
    body: Gather,
    /// What the CRC of the body is of.
    summed: Vec<u8>,
    spans: Vec<Span>,
    /// Of the group that was the last to write.
    entry_crc: EntryCrc,
}

impl Encoder {
    pub(crate) fn new(store: u64) -> Self {
        let (body, summed, spans) = (Gather::new(), Vec::new(), Vec::new());
        Self { store, kind: KIND_WRITE, body, summed, spans, entry_crc: EntryCrc::new(store, 0) }
    }

    /// Encodes the body of a write's record, and gives its length and where the entries stand in the record. `replaces` tells that the log
    /// does not hold the entry to be purged.
    pub(crate) fn encode(
        &mut self,
        group: GroupId,
        write: &LogWrite,
        replaces: bool,
    ) -> (u64, &[Span]) {
        assert!(!replaces || write.purge.is_some());
        self.begin(KIND_WRITE);
        let flags = [
            (HARD_STATE, write.hard_state.is_some()),
            (SNAPSHOT, write.snapshot.is_some()),
            (PURGE, write.purge.is_some()),
            (REPLACES, replaces),
            (CATCHES_UP, write.hard_state.is_some_and(|hard_state| !hard_state.caught_up)),
        ];
        self.body.put_u8(flags.iter().filter(|(_, set)| *set).map(|(flag, _)| flag).sum());
        if let Some(hard_state) = write.hard_state {
            self.body.put_u64(hard_state.term.0);
            self.body.put_u64(hard_state.voted_for.unwrap_or(0));
        }
        if let Some(meta) = &write.snapshot {
            put_snapshot_meta(&mut self.body, meta);
        }
        if let Some(to) = write.purge {
            put_log_id(&mut self.body, to);
        }
        let count = u32::try_from(write.entries.len());
        self.body.put_u32(count.expect("2^32 entries in memory are bounded by others"));
        let contents = write.entries.iter().map(|entry| entry.bytes() - Entry::OVERHEAD_BYTES);
        let small: usize = contents.filter(|content| *content < Gather::CHUNK_BYTES).sum();
        self.body.reserve(write.entries.len() * ENTRY_OVERHEAD_BYTES + small);
        self.sum_body();
        if self.entry_crc.group != group {
            self.entry_crc = EntryCrc::new(self.store, group);
        }
        for entry in &write.entries {
            let offset = RECORD_HEADER_BYTES + self.body.len();
            let sum = self.body.put_later();
            put_entry(&mut self.body, entry);
            let value = self.entry_crc.of(self.body.chunks_behind(&sum));
            self.body.fill(sum, value);
            self.summed.extend_from_slice(&value.to_le_bytes());
            self.spans.push(Span { offset, len: RECORD_HEADER_BYTES + self.body.len() - offset });
        }
        (self.body.len() as u64, &self.spans)
    }

    /// Encodes the body of a begin: this segment is the first that is needed. Gives its length.
    pub(crate) fn encode_begin(&mut self, first: u32) -> u64 {
        self.begin(KIND_BEGIN);
        self.body.put_u32(first);
        self.sum_body();
        self.body.len() as u64
    }

    fn begin(&mut self, kind: u32) {
        self.kind = kind;
        self.body.take();
        self.summed.clear();
        self.spans.clear();
    }

    /// The CRC of the body is of all that is in it by now.
    fn sum_body(&mut self) {
        self.body.chunks().for_each(|chunk| self.summed.extend_from_slice(chunk));
    }

    /// Appends the record that was just encoded.
    pub(crate) fn put(&mut self, to: &mut Gather, group: GroupId, at: Position, durable: Position) {
        assert!(durable <= at && at.offset.is_multiple_of(ALIGNMENT));
        let before = to.len() as u64;
        let seed = record_seed(self.store, at);
        let body_bytes = self.body.len() as u64;
        let body_crc = crc(seed, [&self.summed[..]]);
        let header = RecordHeader { body_crc, kind: self.kind, body_bytes, group, durable };
        to.put_slice(&header.encode(seed));
        to.append(&mut self.body);
        let end = before + record_bytes(body_bytes);
        to.put_slice(&[0; ALIGNMENT as usize][..(end - to.len() as u64) as usize]);
    }
}

/// A write, as its record tells it.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) write: LogWrite,
    /// Whether the log did not hold the entry to be purged.
    pub(crate) replaces: bool,
    /// Where the entries stand.
    pub(crate) spans: Vec<Span>,
}

/// The parts of a write's body that stand before its entries.
#[derive(Default)]
struct Parts {
    hard_state: Option<HardState>,
    snapshot: Option<SnapshotMeta>,
    purge: Option<LogId>,
    replaces: bool,
    /// How many entries follow, as it claims.
    count: u32,
}

fn take_parts(body: &mut Bytes) -> Result<Parts, DecodeError> {
    let flags = take_u8(body, "record")?;
    let replaces = flags & REPLACES != 0;
    let catches_up = flags & CATCHES_UP != 0;
    if flags >= UNKNOWN || replaces && flags & PURGE == 0 || catches_up && flags & HARD_STATE == 0 {
        return Err(DecodeError::Kind { what: "record", kind: flags });
    }
    let hard_state = match flags & HARD_STATE {
        0 => None,
        _ => {
            let term = Term(take_u64(body, "hard state")?);
            let vote = take_u64(body, "hard state")?;
            let voted_for = Some(vote).filter(|vote| *vote > 0);
            Some(HardState { term, voted_for, caught_up: !catches_up })
        }
    };
    let snapshot = match flags & SNAPSHOT {
        0 => None,
        _ => Some(take_snapshot_meta(body)?),
    };
    let purge = match flags & PURGE {
        0 => None,
        _ => Some(take_log_id(body)?),
    };
    let count = take_u32(body, "record")?;
    Ok(Parts { hard_state, snapshot, purge, replaces, count })
}

const ENTRY_CRC: &str = "CRC of an entry";

/// Takes an entry and its CRC off the front.
pub(crate) fn take_checked_entry(from: &mut Bytes, crc: &EntryCrc) -> Result<Entry, DecodeError> {
    let expected = take_u32(from, ENTRY_CRC)?;
    if crc.of([&from[..entry_bytes(from)?]]) != expected {
        return Err(DecodeError::Invalid("the CRC of an entry does not match".to_owned()));
    }
    take_entry(from)
}

#[cfg(test)]
mod tests;
