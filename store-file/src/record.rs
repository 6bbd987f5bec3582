//! The records of a log: encoding and decoding them. Their form is described in
//! [`format`](crate::format).

use bytes::{Buf, BufMut, Bytes};
use quorate_core::codec::{
    DecodeError, ENTRY_HEADER_BYTES, Fields, Gather, REFUSE, entry_bytes, put_entry, put_field,
    put_hard_state, put_log_id, put_marks, put_snapshot_meta, put_standing, take_entry,
    take_hard_state, take_marks, take_snapshot_meta, take_standing, take_u32,
};
use quorate_core::{Entries, Entry, GroupId, LogWrite};

use crate::format::{ALIGNMENT, EntryCrc, Position, crc, record_seed};
use crate::header::{Refused, put_number};
use crate::owner::{Owner, put_cluster, take_cluster};

pub(crate) const RECORD_HEADER_BYTES: usize = 40;
/// What an entry takes beyond its content.
pub(crate) const ENTRY_OVERHEAD_BYTES: usize = 4 + ENTRY_HEADER_BYTES;

/// The bit of a kind that asks a reader which does not know it to refuse the log.
const REFUSE_KIND: u32 = 1 << 31;
pub(crate) const KIND_WRITE: u32 = REFUSE_KIND | 1;
pub(crate) const KIND_SYNC_MARKER: u32 = REFUSE_KIND | 2;
pub(crate) const KIND_BEGIN: u32 = REFUSE_KIND | 3;
pub(crate) const KIND_OWNER: u32 = REFUSE_KIND | 4;
pub(crate) const KIND_REMOVE: u32 = REFUSE_KIND | 5;
pub(crate) const KIND_COPY: u32 = REFUSE_KIND | 6;

const HARD_STATE: u8 = REFUSE | 1;
const CLUSTER: u8 = REFUSE | 2;
const STANDING: u8 = REFUSE | 3;
const MARKS: u8 = REFUSE | 4;
const SNAPSHOT: u8 = REFUSE | 5;
const PURGE: u8 = REFUSE | 6;
const REPLACE: u8 = REFUSE | 7;

const FIRST_SEGMENT: u8 = REFUSE | 1;

/// The bytes of the length of a write's fields.
const FIELDS_LEN_BYTES: usize = 4;

/// What a sync marker takes. No write takes less, so one that is put in its place covers it whole.
pub(crate) const SYNC_MARKER_BYTES: u64 = RECORD_HEADER_BYTES as u64;

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
    pub(crate) fn is_sync_marker(&self) -> bool {
        self.kind == KIND_SYNC_MARKER
    }

    #[cfg(test)]
    pub(crate) fn is_copy(&self) -> bool {
        self.kind == KIND_COPY
    }

    /// What the record tells, if this is its body: none where a CRC does not match.
    ///
    /// Errors: they match, and it makes no sense, or is unknown.
    pub(crate) fn content(
        &self,
        store: u64,
        body: Bytes,
        seed: u32,
    ) -> Result<Option<Content>, Refused> {
        if body.len() as u64 != self.body_bytes {
            return Ok(None);
        }
        if self.kind == KIND_WRITE {
            let write = self.decode_write(store, body, seed)?;
            return Ok(write.map(Content::Write));
        }
        if self.kind == KIND_COPY {
            let copy = self.decode_write(store, body, seed)?;
            if copy.as_ref().is_some_and(|copy| !copy.is_of_entries_alone()) {
                return Err(Refused::damaged("a copy of something else than entries"));
            }
            return Ok(copy.map(Content::Copy));
        }
        if crc(seed, [&body[..]]) != self.body_crc {
            return Ok(None);
        }
        match self.kind {
            KIND_SYNC_MARKER => Ok(Some(Content::SyncMarker)),
            KIND_BEGIN => {
                let mut fields = Fields::new("begin of the log", body);
                let first = fields.number(FIRST_SEGMENT)?;
                fields.finish()?;
                Ok(Some(Content::Begin(first)))
            }
            KIND_OWNER => {
                let mut fields = Fields::new("owner of the store", body);
                let owner = Owner::take(&mut fields)?;
                fields.finish()?;
                Ok(Some(Content::Owner(owner)))
            }
            KIND_REMOVE if body.is_empty() => Ok(Some(Content::Remove)),
            KIND_REMOVE => Err(Refused::damaged("a removal with a body")),
            kind if kind & REFUSE_KIND == 0 => Ok(Some(Content::Skipped)),
            kind => {
                Err(Refused::newer(format!("a record of unknown kind {}", kind & !REFUSE_KIND)))
            }
        }
    }

    /// Checks the entries while it decodes them: an opening does this with all that there is.
    fn decode_write(
        &self,
        store: u64,
        body: Bytes,
        seed: u32,
    ) -> Result<Option<Decoded>, DecodeError> {
        // What makes no sense; that counts only where all CRCs match.
        let mut wrong = None;
        let mut rest = body.clone();
        let Ok(len) = take_u32(&mut rest, "write") else { return Ok(None) };
        if len as usize > rest.len() {
            return Ok(None);
        }
        let fields = rest.split_to(len as usize);
        let mut summed = body[..FIELDS_LEN_BYTES + fields.len()].to_vec();
        let (mut write, replaces) = take_parts(fields).unwrap_or_else(|error| {
            wrong = Some(error);
            Default::default()
        });
        let mut entries = Vec::<Entry>::new();
        let mut spans = Vec::new();
        let crc_of_entry = EntryCrc::new(store, self.group);
        while !rest.is_empty() {
            let begin = body.len() - rest.len();
            let Ok(value) = take_u32(&mut rest, ENTRY_CRC) else { return Ok(None) };
            let Ok(len) = entry_bytes(&rest) else { return Ok(None) };
            if crc_of_entry.of([&rest[..len]]) != value {
                return Ok(None);
            }
            summed.extend_from_slice(&value.to_le_bytes());
            spans.push(Span { offset: RECORD_HEADER_BYTES + begin, len: 4 + len });
            match take_entry(&mut rest) {
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
                    rest = body.slice(begin + 4 + len..);
                }
            }
        }
        if crc(seed, [&summed[..]]) != self.body_crc {
            return Ok(None);
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        write.entries = entries.into();
        Ok(Some(Decoded { write, replaces, spans }))
    }
}

/// What a record tells.
#[derive(Debug)]
pub(crate) enum Content {
    Write(Decoded),
    /// Entries that the log holds stand here as well.
    Copy(Decoded),
    SyncMarker,
    /// The first segment that is needed.
    Begin(u64),
    /// Whose store it is.
    Owner(Owner),
    /// Nothing is left of the group.
    Remove,
    /// Something that a later version has written, and that is to be skipped.
    Skipped,
}

/// The records in `bytes`, which stand at `at`, with the end of each.
///
/// # Panics
///
/// If they are not whole: they were encoded by this store and have not left its memory.
pub(crate) fn take_records(
    store: u64,
    mut at: Position,
    bytes: &Bytes,
) -> Vec<(GroupId, Content, Position)> {
    let mut rest = bytes.clone();
    let mut records = Vec::new();
    while let Some(first) = rest.first_chunk() {
        let seed = record_seed(store, at);
        let header = RecordHeader::decode(first, seed).expect("a record was encoded here");
        let body_bytes = header.body_bytes as usize;
        let body = rest.slice(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body_bytes);
        let content = header.content(store, body, seed).ok().flatten();
        let len = record_bytes(header.body_bytes);
        at.offset += len;
        rest = rest.split_off(len as usize);
        records.push((header.group, content.expect("the record is whole"), at));
    }
    records
}

/// The record which says that the log is durable up to this place, where it stands.
pub(crate) fn sync_marker(store: u64, at: Position) -> Bytes {
    let seed = record_seed(store, at);
    let header = RecordHeader {
        body_crc: crc(seed, []),
        kind: KIND_SYNC_MARKER,
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

    pub(crate) fn store(&self) -> u64 {
        self.store
    }

    /// Encodes the body of a write's record, and gives its length and where the entries stand in
    /// the record. `replaces` tells that the log does not hold the entry to be purged.
    pub(crate) fn encode(
        &mut self,
        group: GroupId,
        write: &LogWrite,
        replaces: bool,
    ) -> (u64, &[Span]) {
        assert!(!replaces || write.purge.is_some());
        self.begin(KIND_WRITE);
        let len = self.body.reserve_u32();
        put_parts(&mut self.body, write, replaces);
        let fields = self.body.len() - FIELDS_LEN_BYTES;
        self.body.fill(len, u32::try_from(fields).expect("what they hold is bounded"));
        let contents = write.entries.iter().map(|entry| entry.bytes() - Entry::OVERHEAD_BYTES);
        let small: usize = contents.filter(|content| *content < Gather::CHUNK_BYTES).sum();
        self.body.reserve(write.entries.len() * ENTRY_OVERHEAD_BYTES + small);
        self.sum_body();
        if self.entry_crc.group != group {
            self.entry_crc = EntryCrc::new(self.store, group);
        }
        for entry in &write.entries {
            let offset = RECORD_HEADER_BYTES + self.body.len();
            let sum = self.body.reserve_u32();
            put_entry(&mut self.body, entry);
            let value = self.entry_crc.of(self.body.chunks_after(&sum));
            self.body.fill(sum, value);
            self.summed.extend_from_slice(&value.to_le_bytes());
            self.spans.push(Span { offset, len: RECORD_HEADER_BYTES + self.body.len() - offset });
        }
        (self.body.len() as u64, &self.spans)
    }

    /// Encodes the body of a copy of entries, like [`encode`](Self::encode).
    pub(crate) fn encode_copy(&mut self, group: GroupId, entries: Entries) -> (u64, &[Span]) {
        assert!(!entries.is_empty());
        self.encode(group, &LogWrite { entries, ..LogWrite::default() }, false);
        self.kind = KIND_COPY;
        (self.body.len() as u64, &self.spans)
    }

    /// Encodes the body of a begin: this segment is the first that is needed. Gives its length.
    pub(crate) fn encode_begin(&mut self, first: u32) -> u64 {
        self.begin(KIND_BEGIN);
        put_number(&mut self.body, FIRST_SEGMENT, first.into());
        self.sum_body();
        self.body.len() as u64
    }

    /// Encodes the body of an owner. Gives its length.
    pub(crate) fn encode_owner(&mut self, owner: &Owner) -> u64 {
        self.begin(KIND_OWNER);
        owner.put(&mut self.body);
        self.sum_body();
        self.body.len() as u64
    }

    /// Encodes the body of a removal. Gives its length.
    pub(crate) fn encode_remove(&mut self) -> u64 {
        self.begin(KIND_REMOVE);
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

impl Decoded {
    fn is_of_entries_alone(&self) -> bool {
        let LogWrite { hard_state, cluster, standing, marks, snapshot, purge, entries } =
            &self.write;
        hard_state.is_none()
            && cluster.is_none()
            && standing.is_none()
            && marks.is_none()
            && snapshot.is_none()
            && purge.is_none()
            && !entries.is_empty()
    }
}

/// Appends the fields of a write.
fn put_parts(to: &mut Gather, write: &LogWrite, replaces: bool) {
    if let Some(hard_state) = &write.hard_state {
        put_field(to, HARD_STATE, |to| put_hard_state(to, hard_state));
    }
    if let Some(cluster) = write.cluster {
        put_cluster(to, CLUSTER, cluster);
    }
    if let Some(standing) = &write.standing {
        put_field(to, STANDING, |to| put_standing(to, standing));
    }
    if let Some(marks) = &write.marks {
        put_field(to, MARKS, |to| put_marks(to, marks));
    }
    if let Some(meta) = &write.snapshot {
        put_field(to, SNAPSHOT, |to| put_snapshot_meta(to, meta));
    }
    if let Some(purge) = write.purge {
        let tag = if replaces { REPLACE } else { PURGE };
        put_field(to, tag, |to| put_log_id(to, purge));
    }
}

/// The write that these fields are of, without its entries, and whether its purge replaces the log.
fn take_parts(fields: Bytes) -> Result<(LogWrite, bool), DecodeError> {
    let mut fields = Fields::new("write", fields);
    let hard_state = fields.optional(HARD_STATE, |of, tag| of.value(tag, take_hard_state))?;
    let cluster = fields.optional(CLUSTER, take_cluster)?;
    let standing = fields.optional(STANDING, |of, tag| of.value(tag, take_standing))?;
    let marks = fields.optional(MARKS, |of, tag| of.value(tag, take_marks))?;
    let snapshot = fields.optional(SNAPSHOT, |of, tag| of.value(tag, take_snapshot_meta))?;
    let held = fields.optional(PURGE, Fields::log_id)?;
    let replaced = fields.optional(REPLACE, Fields::log_id)?;
    fields.finish()?;
    if held.is_some() && replaced.is_some() {
        return Err(DecodeError::Invalid("a write with two purges".to_owned()));
    }
    let purge = held.or(replaced);
    let entries = Entries::default();
    let (standing, marks) = (standing.map(Box::new), marks.map(Box::new));
    let snapshot = snapshot.map(Box::new);
    let write = LogWrite { hard_state, cluster, standing, marks, snapshot, purge, entries };
    Ok((write, replaced.is_some()))
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
