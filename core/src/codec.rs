//! The binary form of entries and messages, on the wire and on disk.
//!
//! All numbers are little-endian. A message is the group (8 bytes), sender (8), receiver (8), term (8), a byte that tells
//! the kind, and the kind's fields in the order in which `message.rs` declares them. An entry is its kind (1), term (8),
//! leader (8), index (8), the content's length (4) and the content. Large contents are not copied: encoding gives a
//! list of chunks for a gathered write, decoding takes slices of the buffer that was read.
//!
//! Whatever is decoded may come from anywhere: each length is checked against what is there before anything is
//! allocated, and each error says what was wrong.

use std::collections::BTreeMap;
use std::iter;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::membership::{MAX_ADDRESS_BYTES, MAX_NODES, Membership};
use crate::message::{AppendOutcome, Body, ForwardOutcome, Message, Refusal, Vote};
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::{Entry, LogId, NodeId, Payload, Term};

/// Why bytes can't be decoded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early.
    #[error("{what} needs {needs} bytes, {has} are there")]
    Short {
        /// What was being read.
        what: &'static str,
        /// How many bytes it needs.
        needs: usize,
        /// How many there are.
        has: usize,
    },
    /// They don't end where they should.
    #[error("{0} bytes too many")]
    Long(usize),
    /// A kind that this version doesn't know.
    #[error("{what} of unknown kind {kind}")]
    Kind {
        /// What was being read.
        what: &'static str,
        /// The byte.
        kind: u8,
    },
    /// A value that can't be.
    #[error("{0}")]
    Invalid(String),
}

/// Bytes to be written with one gathered write: small pieces are copied together, large ones are passed on as they are.
#[derive(Debug, Default)]
pub struct Gather {
    small: BytesMut,
    /// Each stands before the small byte at this position.
    large: Vec<(usize, Bytes)>,
    len: usize,
}

impl Gather {
    /// From this size on a chunk of its own (a reference count and an `iovec`) is cheaper than a copy.
    pub const CHUNK_BYTES: usize = 1024;

    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes room for so many bytes in small pieces.
    pub fn reserve(&mut self, bytes: usize) {
        self.small.reserve(bytes);
    }

    /// Appends bytes, by reference where they are many.
    pub fn put_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < Self::CHUNK_BYTES {
            self.put_slice(bytes);
        } else {
            self.put_large(bytes.clone());
        }
    }

    fn put_large(&mut self, bytes: Bytes) {
        self.len += bytes.len();
        self.large.push((self.small.len(), bytes));
    }

    /// Appends a copy of bytes.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        self.small.extend_from_slice(bytes);
    }

    /// Appends a byte.
    pub fn put_u8(&mut self, value: u8) {
        self.put_slice(&[value]);
    }

    /// Appends 4 bytes, little-endian.
    pub fn put_u32(&mut self, value: u32) {
        self.put_slice(&value.to_le_bytes());
    }

    /// Appends 8 bytes, little-endian.
    pub fn put_u64(&mut self, value: u64) {
        self.put_slice(&value.to_le_bytes());
    }

    /// Appends 4 bytes that are told later, by [`fill`](Self::fill): a checksum of what follows them.
    pub fn put_later(&mut self) -> Later {
        let later = Later { small: self.small.len(), large: self.large.len() };
        self.put_u32(0);
        later
    }

    /// The chunks behind those 4 bytes.
    pub fn chunks_behind(&self, later: &Later) -> impl Iterator<Item = &[u8]> {
        self.chunks_from(later.small + 4, later.large)
    }

    /// Tells those 4 bytes, little-endian.
    ///
    /// Panics where they have been taken out since.
    pub fn fill(&mut self, later: Later, value: u32) {
        self.small[later.small..][..4].copy_from_slice(&value.to_le_bytes());
    }

    /// Moves everything in `other` to the end, and copies what of it is small.
    pub fn append(&mut self, other: &mut Self) {
        if other.len < Self::CHUNK_BYTES {
            self.put_slice(&other.small); // All of it is there.
            other.small.clear();
            other.len = 0;
            return;
        }
        for chunk in other.take() {
            if chunk.len() < Self::CHUNK_BYTES {
                self.put_slice(&chunk);
            } else {
                self.put_large(chunk);
            }
        }
    }

    /// Takes everything out, as chunks in order. The allocation of the small pieces is kept for the next use.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.len = 0;
        if self.large.is_empty() && self.small.is_empty() {
            return Vec::new();
        }
        let mut small = self.small.split().freeze();
        let mut chunks = Vec::with_capacity(2 * self.large.len() + 1);
        let mut begin = 0;
        for (end, large) in self.large.drain(..) {
            if begin < end {
                chunks.push(small.split_to(end - begin));
            }
            chunks.push(large);
            begin = end;
        }
        if !small.is_empty() {
            chunks.push(small);
        }
        chunks
    }

    /// The chunks as they are now, in order, for a checksum over them.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        self.chunks_from(0, 0)
    }

    /// Those from this small byte and this large piece on.
    fn chunks_from(&self, mut begin: usize, large: usize) -> impl Iterator<Item = &[u8]> {
        let large = self.large[large..].iter().map(|(at, bytes)| (*at, &bytes[..]));
        let last = (self.small.len(), &[][..]);
        let pieces = large.chain(iter::once(last)).flat_map(move |(end, large)| {
            let small = &self.small[begin..end];
            begin = end;
            [small, large]
        });
        pieces.filter(|piece| !piece.is_empty())
    }
}

/// The place of 4 bytes in a [`Gather`] that are told later.
#[derive(Debug)]
pub struct Later {
    small: usize,
    large: usize,
}

/// Takes `len` bytes off the front, as a slice of the same allocation.
fn take_bytes(from: &mut Bytes, len: usize, what: &'static str) -> Result<Bytes, DecodeError> {
    if from.len() < len {
        return Err(DecodeError::Short { what, needs: len, has: from.len() });
    }
    Ok(from.split_to(len))
}

/// Takes a byte off the front.
pub fn take_u8(from: &mut Bytes, what: &'static str) -> Result<u8, DecodeError> {
    from.try_get_u8().map_err(|_| DecodeError::Short { what, needs: 1, has: from.len() })
}

/// Takes 4 bytes off the front.
pub fn take_u32(from: &mut Bytes, what: &'static str) -> Result<u32, DecodeError> {
    from.try_get_u32_le().map_err(|_| DecodeError::Short { what, needs: 4, has: from.len() })
}

/// Takes 8 bytes off the front.
pub fn take_u64(from: &mut Bytes, what: &'static str) -> Result<u64, DecodeError> {
    from.try_get_u64_le().map_err(|_| DecodeError::Short { what, needs: 8, has: from.len() })
}

fn take_bool(from: &mut Bytes, what: &'static str) -> Result<bool, DecodeError> {
    match take_u8(from, what)? {
        0 => Ok(false),
        1 => Ok(true),
        kind => Err(DecodeError::Kind { what, kind }),
    }
}

fn number_of(vote: Vote) -> u8 {
    match vote {
        Vote::No => 0,
        Vote::Yes => 1,
        Vote::Tentative => 2,
    }
}

fn take_vote(from: &mut Bytes, what: &'static str) -> Result<Vote, DecodeError> {
    match take_u8(from, what)? {
        0 => Ok(Vote::No),
        1 => Ok(Vote::Yes),
        2 => Ok(Vote::Tentative),
        kind => Err(DecodeError::Kind { what, kind }),
    }
}

/// Checks that everything was taken.
pub fn finish(rest: &Bytes) -> Result<(), DecodeError> {
    if rest.is_empty() { Ok(()) } else { Err(DecodeError::Long(rest.len())) }
}

/// The bytes that [`put_log_id`] writes.
pub const LOG_ID_BYTES: usize = 24;

/// Appends a log id.
pub fn put_log_id(to: &mut Gather, log_id: LogId) {
    to.put_u64(log_id.term.0);
    to.put_u64(log_id.leader);
    to.put_u64(log_id.index);
}

/// Takes a log id off the front.
pub fn take_log_id(from: &mut Bytes) -> Result<LogId, DecodeError> {
    let term = take_u64(from, "log id")?;
    let leader = take_u64(from, "log id")?;
    let index = take_u64(from, "log id")?;
    Ok(LogId::new(term, leader, index))
}

const BLANK: u8 = 0;
const COMMAND: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The bytes of an entry besides its content.
pub const ENTRY_HEADER_BYTES: usize = 1 + LOG_ID_BYTES + 4;

/// Appends an entry.
pub fn put_entry(to: &mut Gather, entry: &Entry) {
    match &entry.payload {
        Payload::Blank => put_entry_of(to, BLANK, entry.log_id, &Bytes::new()),
        Payload::Command(command) => put_entry_of(to, COMMAND, entry.log_id, command),
        Payload::Membership(membership) => {
            put_entry_of(to, MEMBERSHIP, entry.log_id, &encode_membership(membership));
        }
    }
}

fn put_entry_of(to: &mut Gather, kind: u8, log_id: LogId, content: &Bytes) {
    let mut header = [kind; ENTRY_HEADER_BYTES]; // At once: there may be many.
    header[1..9].copy_from_slice(&log_id.term.0.to_le_bytes());
    header[9..17].copy_from_slice(&log_id.leader.to_le_bytes());
    header[17..25].copy_from_slice(&log_id.index.to_le_bytes());
    header[25..].copy_from_slice(&length(content.len()).to_le_bytes());
    to.put_slice(&header);
    to.put_bytes(content);
}

/// The bytes of the entry that begins here, by what it says.
///
/// Errors: they are not all there.
pub fn entry_bytes(from: &[u8]) -> Result<usize, DecodeError> {
    let what = "entry";
    let Some((header, content)) = from.split_first_chunk::<ENTRY_HEADER_BYTES>() else {
        return Err(DecodeError::Short { what, needs: ENTRY_HEADER_BYTES, has: from.len() });
    };
    let mut claimed = &header[1 + LOG_ID_BYTES..];
    let needs = claimed.get_u32_le() as usize;
    if content.len() < needs {
        return Err(DecodeError::Short { what: "content of an entry", needs, has: content.len() });
    }
    Ok(ENTRY_HEADER_BYTES + needs)
}

/// Takes an entry off the front.
pub fn take_entry(from: &mut Bytes) -> Result<Entry, DecodeError> {
    let len = entry_bytes(from)?;
    let mut header = &from[..ENTRY_HEADER_BYTES];
    let kind = header.get_u8();
    let term = header.get_u64_le();
    let log_id = LogId::new(term, header.get_u64_le(), header.get_u64_le());
    if log_id.index == 0 {
        return Err(DecodeError::Invalid("an entry with index 0".to_owned()));
    }
    from.advance(ENTRY_HEADER_BYTES);
    let content = from.split_to(len - ENTRY_HEADER_BYTES);
    let payload = match kind {
        BLANK if content.is_empty() => Payload::Blank,
        BLANK => return Err(DecodeError::Long(content.len())),
        COMMAND => Payload::Command(content),
        MEMBERSHIP => Payload::Membership(decode_membership(content)?),
        kind => return Err(DecodeError::Kind { what: "entry", kind }),
    };
    Ok(Entry { log_id, payload })
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("commands and messages are bounded by far below 4 GiB")
}

fn put_length(to: &mut Gather, len: usize) {
    to.put_u32(length(len));
}

/// The version of the membership's form. Version 1 has voters only.
const MEMBERSHIP_VERSION: u8 = 1;

fn encode_membership(membership: &Membership) -> Bytes {
    let mut to = BytesMut::new();
    to.put_u8(MEMBERSHIP_VERSION);
    to.put_u32_le(membership.voters().len() as u32);
    for (id, address) in membership.voters() {
        to.put_u64_le(*id);
        to.put_u32_le(address.len() as u32);
        to.put_slice(address.as_bytes());
    }
    to.freeze()
}

fn decode_membership(mut from: Bytes) -> Result<Membership, DecodeError> {
    match take_u8(&mut from, "membership")? {
        MEMBERSHIP_VERSION => {}
        kind => return Err(DecodeError::Kind { what: "membership", kind }),
    }
    let count = take_u32(&mut from, "membership")? as usize;
    if count > MAX_NODES {
        return Err(DecodeError::Invalid(format!("{count} nodes are more than {MAX_NODES}")));
    }
    let mut voters = BTreeMap::<NodeId, String>::new();
    for _ in 0..count {
        let id = take_u64(&mut from, "membership")?;
        let len = take_u32(&mut from, "membership")? as usize;
        if len > MAX_ADDRESS_BYTES {
            return Err(DecodeError::Invalid(format!("an address of {len} bytes")));
        }
        let address = take_bytes(&mut from, len, "address")?;
        let address = String::from_utf8(address.to_vec())
            .map_err(|_| DecodeError::Invalid("an address that is not UTF-8".to_owned()))?;
        if voters.insert(id, address).is_some() {
            return Err(DecodeError::Invalid(format!("node {id} twice in a membership")));
        }
    }
    finish(&from)?;
    Membership::new(voters).map_err(DecodeError::Invalid)
}

/// Appends what a snapshot is of.
pub fn put_snapshot_meta(to: &mut Gather, meta: &SnapshotMeta) {
    put_log_id(to, meta.log_id);
    let membership = encode_membership(&meta.membership);
    put_length(to, membership.len());
    to.put_slice(&membership);
    to.put_u64(meta.membership_index);
    to.put_u64(meta.bytes);
    to.put_slice(&meta.digest.0);
}

/// Takes what a snapshot is of off the front.
pub fn take_snapshot_meta(from: &mut Bytes) -> Result<SnapshotMeta, DecodeError> {
    let log_id = take_log_id(from)?;
    let len = take_u32(from, "snapshot")? as usize;
    let membership = decode_membership(take_bytes(from, len, "membership of a snapshot")?)?;
    let membership_index = take_u64(from, "snapshot")?;
    let bytes = take_u64(from, "snapshot")?;
    if !(1..=log_id.index).contains(&membership_index) {
        let reason = format!("a snapshot at {log_id} with a membership of {membership_index}");
        return Err(DecodeError::Invalid(reason));
    }
    Ok(SnapshotMeta { log_id, membership, membership_index, bytes, digest: take_digest(from)? })
}

fn take_digest(from: &mut Bytes) -> Result<Digest, DecodeError> {
    let mut digest = Digest([0; Digest::BYTES]);
    digest.0.copy_from_slice(&take_bytes(from, Digest::BYTES, "digest")?);
    Ok(digest)
}

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const APPEND_REPLY: u8 = 6;
const FORWARD: u8 = 7;
const FORWARD_REPLY: u8 = 8;
const READ_INDEX: u8 = 9;
const READ_INDEX_REPLY: u8 = 10;
const TIMEOUT_NOW: u8 = 11;
const SNAPSHOT: u8 = 12;
const SNAPSHOT_REPLY: u8 = 13;

/// Appends a message.
pub fn put_message(to: &mut Gather, message: &Message) {
    to.put_u64(message.group);
    to.put_u64(message.from);
    to.put_u64(message.to);
    to.put_u64(message.term.0);
    match &message.body {
        Body::PreVote { last_log_id } => {
            to.put_u8(PRE_VOTE);
            put_log_id(to, *last_log_id);
        }
        Body::PreVoteReply { vote } => {
            to.put_u8(PRE_VOTE_REPLY);
            to.put_u8(number_of(*vote));
        }
        Body::Vote { last_log_id, handover } => {
            to.put_u8(VOTE);
            put_log_id(to, *last_log_id);
            to.put_u8(u8::from(*handover));
        }
        Body::VoteReply { vote } => {
            to.put_u8(VOTE_REPLY);
            to.put_u8(number_of(*vote));
        }
        Body::Append { prev, committed, round, entries } => {
            to.put_u8(APPEND);
            put_log_id(to, *prev);
            to.put_u64(*committed);
            to.put_u64(*round);
            put_length(to, entries.len());
            for entry in entries {
                put_entry(to, entry);
            }
        }
        Body::AppendReply { round, outcome } => {
            to.put_u8(APPEND_REPLY);
            to.put_u64(*round);
            match outcome {
                AppendOutcome::Accepted { matched } => {
                    to.put_u8(0);
                    to.put_u64(*matched);
                }
                AppendOutcome::Rejected { prev, hint } => {
                    to.put_u8(1);
                    to.put_u64(*prev);
                    put_log_id(to, *hint);
                }
            }
        }
        Body::Forward { session, sequence, commands } => {
            to.put_u8(FORWARD);
            to.put_u64(*session);
            to.put_u64(*sequence);
            put_length(to, commands.len());
            for command in commands {
                put_length(to, command.len());
                to.put_bytes(command);
            }
        }
        Body::ForwardReply { session, sequence, outcome } => {
            to.put_u8(FORWARD_REPLY);
            to.put_u64(*session);
            to.put_u64(*sequence);
            match outcome {
                ForwardOutcome::Appended(log_id) => {
                    to.put_u8(0);
                    put_log_id(to, *log_id);
                }
                ForwardOutcome::NotLeader => to.put_u8(1),
                ForwardOutcome::Busy => to.put_u8(2),
                ForwardOutcome::Partly { first, refused } => {
                    to.put_u8(3);
                    put_log_id(to, *first);
                    put_length(to, refused.len());
                    for Refusal { place, reason } in refused {
                        to.put_u32(*place);
                        put_length(to, reason.len());
                        to.put_slice(reason.as_bytes());
                    }
                }
            }
        }
        Body::ReadIndex { sequence } => {
            to.put_u8(READ_INDEX);
            to.put_u64(*sequence);
        }
        Body::ReadIndexReply { sequence, index } => {
            to.put_u8(READ_INDEX_REPLY);
            to.put_u64(*sequence);
            // No read index is 0: a leader answers after its own first entry is committed.
            to.put_u64(index.unwrap_or(0));
        }
        Body::TimeoutNow => to.put_u8(TIMEOUT_NOW),
        Body::Snapshot { meta, offset, chunk } => {
            to.put_u8(SNAPSHOT);
            put_snapshot_meta(to, meta);
            to.put_u64(*offset);
            put_length(to, chunk.len());
            to.put_bytes(chunk);
        }
        Body::SnapshotReply { digest, stored } => {
            to.put_u8(SNAPSHOT_REPLY);
            to.put_slice(&digest.0);
            to.put_u64(*stored);
        }
    }
}

/// Decodes a message, which must be all there is in `from`.
pub fn decode_message(mut from: Bytes) -> Result<Message, DecodeError> {
    let from = &mut from;
    let group = take_u64(from, "message")?;
    let sender = take_u64(from, "message")?;
    let to = take_u64(from, "message")?;
    let term = Term(take_u64(from, "message")?);
    if sender == 0 || to == 0 {
        return Err(DecodeError::Invalid("a message from or to node 0".to_owned()));
    }
    let body = match take_u8(from, "message")? {
        PRE_VOTE => Body::PreVote { last_log_id: take_log_id(from)? },
        PRE_VOTE_REPLY => Body::PreVoteReply { vote: take_vote(from, "pre-vote reply")? },
        VOTE => {
            let last_log_id = take_log_id(from)?;
            Body::Vote { last_log_id, handover: take_bool(from, "vote")? }
        }
        TIMEOUT_NOW => Body::TimeoutNow,
        SNAPSHOT => {
            let meta = take_snapshot_meta(from)?;
            let offset = take_u64(from, "snapshot")?;
            let len = take_u32(from, "snapshot")? as usize;
            let chunk = take_bytes(from, len, "piece of a snapshot")?;
            Body::Snapshot { meta, offset, chunk }
        }
        SNAPSHOT_REPLY => {
            let digest = take_digest(from)?;
            Body::SnapshotReply { digest, stored: take_u64(from, "snapshot reply")? }
        }
        VOTE_REPLY => Body::VoteReply { vote: take_vote(from, "vote reply")? },
        APPEND => {
            let prev = take_log_id(from)?;
            let committed = take_u64(from, "append")?;
            let round = take_u64(from, "append")?;
            let count = take_u32(from, "append")? as usize;
            // The count is only a claim: reserve no more than the bytes at hand could hold.
            let mut entries = Vec::with_capacity(count.min(from.len() / ENTRY_HEADER_BYTES));
            let mut before = prev;
            for _ in 0..count {
                let entry = take_entry(from)?;
                let next = entry.log_id;
                if Some(next.index) != before.index.checked_add(1) || next.term < before.term {
                    return Err(DecodeError::Invalid(format!("entry {next} after {before}")));
                }
                before = next;
                entries.push(entry);
            }
            Body::Append { prev, committed, round, entries: entries.into() }
        }
        APPEND_REPLY => {
            let round = take_u64(from, "append reply")?;
            let outcome = match take_u8(from, "append reply")? {
                0 => AppendOutcome::Accepted { matched: take_u64(from, "append reply")? },
                1 => AppendOutcome::Rejected {
                    prev: take_u64(from, "append reply")?,
                    hint: take_log_id(from)?,
                },
                kind => return Err(DecodeError::Kind { what: "append reply", kind }),
            };
            Body::AppendReply { round, outcome }
        }
        FORWARD => {
            let session = take_u64(from, "forward")?;
            let sequence = take_u64(from, "forward")?;
            let count = take_u32(from, "forward")? as usize;
            let mut commands = Vec::with_capacity(count.min(from.len() / 4));
            for _ in 0..count {
                let len = take_u32(from, "forward")? as usize;
                commands.push(take_bytes(from, len, "forwarded command")?);
            }
            Body::Forward { session, sequence, commands }
        }
        FORWARD_REPLY => {
            let session = take_u64(from, "forward reply")?;
            let sequence = take_u64(from, "forward reply")?;
            let outcome = match take_u8(from, "forward reply")? {
                0 => ForwardOutcome::Appended(take_log_id(from)?),
                1 => ForwardOutcome::NotLeader,
                2 => ForwardOutcome::Busy,
                3 => {
                    let first = take_log_id(from)?;
                    ForwardOutcome::Partly { first, refused: take_refusals(from)? }
                }
                kind => return Err(DecodeError::Kind { what: "forward reply", kind }),
            };
            Body::ForwardReply { session, sequence, outcome }
        }
        READ_INDEX => Body::ReadIndex { sequence: take_u64(from, "read index")? },
        READ_INDEX_REPLY => Body::ReadIndexReply {
            sequence: take_u64(from, "read index reply")?,
            index: Some(take_u64(from, "read index reply")?).filter(|index| *index > 0),
        },
        kind => return Err(DecodeError::Kind { what: "message", kind }),
    };
    finish(from)?;
    Ok(Message { group, from: sender, to, term, body })
}

fn take_refusals(from: &mut Bytes) -> Result<Vec<Refusal>, DecodeError> {
    const WHAT: &str = "refusal";
    let count = take_u32(from, WHAT)? as usize;
    let mut refused: Vec<Refusal> = Vec::with_capacity(count.min(from.len() / 8));
    for _ in 0..count {
        let place = take_u32(from, WHAT)?;
        let len = take_u32(from, WHAT)? as usize;
        let invalid = |what| DecodeError::Invalid(format!("{WHAT} of command {place}: {what}"));
        if refused.last().is_some_and(|before| before.place >= place) {
            return Err(invalid("out of order"));
        }
        if len > Refusal::MAX_REASON_BYTES {
            return Err(invalid("too long a reason"));
        }
        let reason = take_bytes(from, len, WHAT)?;
        let reason = str::from_utf8(&reason).map_err(|_| invalid("no UTF-8"))?;
        refused.push(Refusal { place, reason: reason.to_owned() });
    }
    Ok(refused)
}

#[cfg(test)]
mod tests;
