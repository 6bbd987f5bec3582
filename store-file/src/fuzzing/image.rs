//! Segments that bytes describe: whole records, mostly, for one whose CRCs are wrong is no record
//! and hides all that follows.

use bytes::{Buf, BufMut, Bytes};
use crc32fast::Hasher;
use quorate_core::codec::{
    ENTRY_HEADER_BYTES, Gather, REFUSE, put_entry, put_field, put_hard_state,
};
use quorate_core::{Entry, GroupId, HardState, LogId, Payload, Replica, Term};

use crate::format::{ALIGNMENT, EntryCrc, HEADER_BYTES, Position, SegmentHeader, record_seed};
use crate::record::{
    KIND_BEGIN, KIND_COPY, KIND_OWNER, KIND_WRITE, RECORD_HEADER_BYTES, record_bytes, sync_marker,
};

/// The store's incarnation.
pub(super) const STORE: u64 = 1;

/// As small as a store allows it.
pub(super) const SEGMENT_BYTES: usize = 4 * HEADER_BYTES as usize;

const MAX_SEGMENTS: usize = 4;

/// What an entry takes besides its content, with its CRC.
const ENTRY_BYTES: usize = 4 + ENTRY_HEADER_BYTES;

fn segment_header(segment: u32) -> Vec<u8> {
    SegmentHeader { store: STORE, bytes: SEGMENT_BYTES as u64 }.encode(segment).to_vec()
}

/// The content of the segments `1..`, at least one. Each instruction is a byte, whose upper half is
/// an argument, and its operands.
pub(super) fn image(mut script: &[u8]) -> Vec<Vec<u8>> {
    let mut image =
        Image { whole: Vec::new(), content: segment_header(1), durable: Position::first_in(1) };
    while let Some(instruction) = take(&mut script) {
        let argument = instruction >> 4;
        match instruction & 15 {
            // A write, or a copy: mostly of entries that were written before, if the groups are
            // the same.
            0..=4 => {
                let group = u64::from(argument & 3);
                let mut body = write(&mut script);
                repair(&mut body, group);
                if image.end().offset + record_bytes(body.len() as u64) > SEGMENT_BYTES as u64 {
                    image.next();
                }
                let durable = image.durable(argument >> 2);
                let is_copy = instruction & 15 == 4 && body.starts_with(&[0; 4]);
                image.put(if is_copy { KIND_COPY } else { KIND_WRITE }, group, durable, &body);
            }
            // The record of any body.
            5 => {
                let group = u64::from(argument & 3);
                let len = usize::from(take(&mut script).unwrap_or(0));
                let mut body = take_slice(&mut script, len).to_vec();
                repair(&mut body, group);
                // The last is unknown, and to be skipped.
                let kind = [KIND_WRITE, KIND_OWNER, KIND_BEGIN, 4][usize::from(argument >> 2)];
                let durable = image.durable(0);
                image.put(kind, group, durable, &body);
            }
            // … or with any durable position.
            6 => {
                let segment = u32::from(argument);
                let offset = HEADER_BYTES + 8 * u64::from(take(&mut script).unwrap_or(0));
                let durable = Position { segment, offset };
                image.put(KIND_WRITE, 1, durable, &[0; 4]);
            }
            7 => image.content.extend_from_slice(&sync_marker(STORE, image.end())),
            8 => {
                let count = image.content.len() + 8 * usize::from(argument);
                image.content.resize(count, 0);
            }
            9 => {
                image.content.extend_from_slice(take_slice(&mut script, usize::from(argument)));
                image.fill_up();
            }
            10 => image.next(),
            // Damage: the operand counts from the end.
            11 => {
                let back = usize::from(take(&mut script).unwrap_or(0));
                if let Some(at) = image.content.len().checked_sub(1 + back) {
                    image.content[at] ^= 1 << (argument & 7);
                }
            }
            12 => {
                let back = 8 * usize::from(take(&mut script).unwrap_or(0));
                let from = image.content.len().saturating_sub(back);
                image.content[from..].fill(0);
            }
            13 => {
                let back = usize::from(take(&mut script).unwrap_or(0));
                image.content.truncate(image.content.len().saturating_sub(back));
                image.fill_up();
            }
            // The last segment ends in its middle.
            14 => {
                image.whole.push(image.content);
                return image.whole;
            }
            _ => image.durable = image.end(),
        }
    }
    image.content.resize(SEGMENT_BYTES.max(image.content.len()), 0);
    image.whole.push(image.content);
    image.whole
}

struct Image {
    /// The segments before.
    whole: Vec<Vec<u8>>,
    content: Vec<u8>,
    /// The begin of the last batch.
    durable: Position,
}

impl Image {
    fn end(&self) -> Position {
        Position { segment: self.whole.len() as u32 + 1, offset: self.content.len() as u64 }
    }

    /// Begins a batch, or not.
    fn durable(&mut self, how: u8) -> Position {
        if how & 1 == 0 || self.durable > self.end() {
            self.durable = self.end();
        }
        self.durable
    }

    fn next(&mut self) {
        if self.whole.len() + 1 < MAX_SEGMENTS {
            let segment = self.end().segment + 1;
            self.durable = self.end();
            let mut whole = std::mem::replace(&mut self.content, segment_header(segment));
            whole.resize(SEGMENT_BYTES.max(whole.len()), 0);
            self.whole.push(whole);
        }
    }

    /// Adds a record, put together by the format's description.
    fn put(&mut self, kind: u32, group: GroupId, durable: Position, body: &[u8]) {
        self.content.extend(header(self.end(), kind, group, durable, body));
        self.content.extend_from_slice(body);
        self.fill_up();
    }

    fn fill_up(&mut self) {
        self.content.resize(self.content.len().next_multiple_of(ALIGNMENT as usize), 0);
    }
}

/// The body of a write that makes sense, if those before it do.
fn write(script: &mut &[u8]) -> Vec<u8> {
    let (how, term) = (take(script).unwrap_or(0), u64::from(take(script).unwrap_or(0)));
    let index = u64::from(take(script).unwrap_or(0));
    let len = usize::from(take(script).unwrap_or(0)) << (how & 7);
    let payload = match how >> 6 {
        0 => Payload::Blank,
        _ => Payload::Command(Bytes::from(vec![how; len])),
    };
    let mut body = Gather::new();
    let hard_state = how & 32;
    let fields = body.reserve_u32();
    if hard_state > 0 {
        let voted_for = Some(Replica::new(index, 1)).filter(|vote| vote.id > 0);
        let hard_state = HardState { term: Term(term), voted_for };
        put_field(&mut body, REFUSE | 1, |to| put_hard_state(to, &hard_state));
    }
    let len = body.len() as u32 - 4;
    body.fill(fields, len);
    let count = how >> 3 & 3;
    for index in index..index + u64::from(count) {
        body.put_u32(0);
        let log_id = LogId::new(term, 1, index);
        put_entry(&mut body, &Entry { log_id, time: index, payload: payload.clone() });
    }
    body.take().concat()
}

/// The header of a record.
pub(super) fn header(
    at: Position,
    kind: u32,
    group: GroupId,
    durable: Position,
    body: &[u8],
) -> [u8; RECORD_HEADER_BYTES] {
    let seed = record_seed(STORE, at);
    let mut header = [0; RECORD_HEADER_BYTES];
    let mut to = &mut header[4..];
    to.put_u32_le(crc(seed, &summed(kind, body)));
    to.put_u64_le(body.len() as u64);
    to.put_u64_le(group);
    to.put_u64_le(durable.offset);
    to.put_u32_le(durable.segment);
    to.put_u32_le(kind);
    let header_crc = crc(seed, &header[4..]);
    header[..4].copy_from_slice(&header_crc.to_le_bytes());
    header
}

/// What the CRC of a body is of: all but the entries, whose CRCs it has. (Where those aren't right,
/// it is no record anyway.)
fn summed(kind: u32, body: &[u8]) -> Vec<u8> {
    let Some(first) = first_entry(body).filter(|_| [KIND_WRITE, KIND_COPY].contains(&kind)) else {
        return body.to_vec();
    };
    let mut summed = body[..first].to_vec();
    let mut rest = &body[first..];
    while let Some(entry) = rest.first_chunk::<ENTRY_BYTES>() {
        summed.extend_from_slice(&entry[..4]);
        let len = ENTRY_BYTES + (&entry[ENTRY_BYTES - 4..]).get_u32_le() as usize;
        rest = rest.get(len..).unwrap_or_default();
    }
    summed
}

fn take(script: &mut &[u8]) -> Option<u8> {
    script.split_off_first().copied()
}

fn take_slice<'a>(script: &mut &'a [u8], len: usize) -> &'a [u8] {
    script.split_off(..len.min(script.len())).unwrap_or_default()
}

fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

/// Sets the CRCs of the entries in a record's body right, as far as there are entries.
pub(super) fn repair(body: &mut [u8], group: GroupId) {
    let Some(mut at) = first_entry(body) else { return };
    let crc = EntryCrc::new(STORE, group);
    while let Some(entry) = body.get_mut(at..).filter(|rest| rest.len() >= ENTRY_BYTES) {
        let len = ENTRY_BYTES + (&entry[ENTRY_BYTES - 4..]).get_u32_le() as usize;
        let Some(content) = entry.get(4..len) else { return };
        let right = crc.of([content]);
        entry[..4].copy_from_slice(&right.to_le_bytes());
        at += len;
    }
}

/// Where the entries begin, behind the fields.
fn first_entry(body: &[u8]) -> Option<usize> {
    let len = body.first_chunk().map(|len| u32::from_le_bytes(*len) as usize)?;
    Some(4 + len).filter(|first| *first <= body.len())
}
