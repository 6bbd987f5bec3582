//! The binary form of entries, configurations, hard state and messages, on the wire and on disk:
//! version 3.
//!
//! **For whom.** A transport needs [`put_message`], [`decode_message`] and [`Gather`]; a store
//! that keeps entries in this form needs the rest, and may build records of its own from
//! [`fields`]. A service needs none of it.
//!
//! All numbers are little-endian. Structures consist of tagged [`fields`], so that they grow
//! without a new version. The fields of entries and runs of entries are in [`entry`], those of
//! configurations and snapshots in [`membership`], those of changes of a configuration in
//! [`change`], and those of hard state, standing, claims and marks in [`state`].
//!
//! Large contents are not copied: encoding gives a list of chunks for a gathered write, decoding
//! takes slices of the buffer that was read. Whatever is decoded may come from anywhere: each
//! length is checked against what is there before anything is allocated, and each error says what
//! was wrong.
//!
//! # Messages
//!
//! A message is a header of 65 bytes and fields to its end; whoever carries it knows its length.
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 8 | group |
//! | 8 | 16 | the sender's cluster; 0 from one that belongs to none, and in kinds 14 to 17 |
//! | 24 | 16 | sender: node (8, not 0), incarnation (8, not 0) |
//! | 40 | 16 | receiver: node (8, not 0), incarnation (8, 0 only in kinds 14 and 16) |
//! | 56 | 8 | term |
//! | 64 | 1 | kind |
//! | 65 | | the kind's fields |
//!
//! A message of an unknown kind is refused. The fields below are marked "refuse" and must be there,
//! unless the table says otherwise. Of alternatives (joined by "or") exactly one is there. The
//! values:
//!
//! | | bytes |
//! | --- | --- |
//! | a number: a term, an index, a round, a boot, an offset | 8 |
//! | a log id: term, leader, index | 24 |
//! | a replica: node, incarnation | 16 |
//! | a cluster's id | 16 |
//! | a digest | 32 |
//! | a set of ids, in ascending order and at most 64 | 8 each |
//!
//! | kind | | fields |
//! | --- | --- | --- |
//! | 1 | pre-vote | 1 last log id; 2 number of the attempt |
//! | 2 | its answer | 1 granted: a byte, 0 or 1; 2 number of the attempt |
//! | 3 | vote | 1 the leadership transfer, if any; 2 last log id; 3 number of the attempt |
//! | 4 | its answer | 1 granted: a byte, 0 or 1; 2 number of the attempt |
//! | 5 | append | 1 log id of the one before; 2 commit index; 3 round; 4 durable index; 5 entries |
//! | 6 | its answer | 1 round; then 2 matched index, or 3 index of the entry before and 4 hint |
//! | 7 | forward | 1 boot; 2 sequence; 3 commands, the length (4 bytes) before each |
//! | 8 | its answer | 1 boot; 2 sequence; then 3 log id, or 4 a byte: 1 not the leader, 2 busy, 3 the disk is full, or 5 log id and 6 refused commands, each its place (4 bytes), the length of the reason (4) and the reason |
//! | 9 | read index | 1 sequence |
//! | 10 | its answer | 1 index, missing where the sender does not lead; 2 sequence; 3 time |
//! | 11 | timeout now | 1 last log id; 2 round |
//! | 12 | snapshot | 1 what it is of, a structure; 2 offset; 3 chunk |
//! | 13 | its answer | 1 digest; 2 bytes stored |
//! | 14 | who | 1 the ids of the list that the sender was told: a set |
//! | 15 | its answer | 1 situation, a structure; 2 the ids that the sender was told: a set |
//! | 16 | claim | 1 the claim, a structure |
//! | 17 | admit | 1 the cluster's id; 2 the founders: a set of ids |
//! | 18 | rest | 1 the last entry; 2 the round; 3 the number and 4 the tag of the leader's boot |
//! | 19 | rests | 1 the last entry |
//! | 20 | alive | 1 the number and 2 the tag of the sender's boot; 3 the receiver's boot and 4 the last departure that was heard of in it; 5 the number of the last departure told; 6 the departures: for each its group and its term (8 bytes each) |
//! | 21 | request for a change of the membership | 1 the request, a structure |
//! | 22 | its answer | 1 the id of the change (16 bytes); 2 the answer, a structure |
//! | 23 | removed | 1 the log id of the entry that brought the configuration; 2 the configuration |
//!
//! The number of an attempt is marked "skip", and missing where it is 0: readers that don't know it
//! answer without it.
//!
//! A leadership transfer is a structure: 1 the leader, a replica; 2 its term; 3 its round. A
//! situation is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | a byte: 1 empty, 2 claimed, 3 admitted, 4 member, 5 spent, 6 elsewhere |
//! | 2 | if claimed: the ids of the claim's list; if a member: those of the founders |
//! | 3 | if claimed: the ballot; if a member: a byte, 1 if it has been a voter |
//! | 4 | if claimed: the founder, a replica |
//!
//! An append without entries has no bytes in their field. The durable index is that of the sender's
//! own log. The entries of an append follow the entry before and each other: the index grows by
//! one, terms and times don't fall.

pub mod change;
pub mod entry;
pub mod fields;
mod gather;
mod limits;
pub mod membership;
mod message;
pub mod state;

use bytes::{Buf, Bytes};
use thiserror::Error;

#[doc(no_inline)]
pub use entry::{ENTRY_HEADER_BYTES, entry_bytes, put_entry, take_entry};
#[doc(no_inline)]
pub use fields::{Fields, REFUSE, put_field};
pub use gather::{Gather, Reserved};
pub use limits::{
    APPEND_OVERHEAD_BYTES, FORWARD_OVERHEAD_BYTES, MAX_MEMBERSHIP_BYTES,
    MAX_SNAPSHOT_OVERHEAD_BYTES, max_append_bytes,
};
pub(crate) use membership::membership_bytes;
#[doc(no_inline)]
pub use membership::{put_snapshot_meta, take_snapshot_meta};
pub use message::{decode_message, decode_message_within, put_message};
#[doc(no_inline)]
pub use state::{
    put_hard_state, put_marks, put_standing, take_hard_state, take_marks, take_standing,
};

use crate::types::LogId;

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
    /// A field that this version doesn't know, and that must not be skipped.
    #[error("{what} with field {}, which this version does not know and must not skip", tag & 0x7F)]
    Field {
        /// What was being read.
        what: &'static str,
        /// The field's tag.
        tag: u8,
    },
    /// A field isn't there.
    #[error("{what} without field {}", tag & 0x7F)]
    Missing {
        /// What was being read.
        what: &'static str,
        /// The field's tag.
        tag: u8,
    },
    /// A value that can't be.
    #[error("{0}")]
    Invalid(String),
}

/// Takes `len` bytes off the front, as a slice of the same allocation.
fn take_bytes(from: &mut Bytes, len: usize, what: &'static str) -> Result<Bytes, DecodeError> {
    if from.len() < len {
        return Err(DecodeError::Short { what, needs: len, has: from.len() });
    }
    Ok(from.split_to(len))
}

/// Takes a byte off the front.
#[cfg(test)]
fn take_u8(from: &mut Bytes, what: &'static str) -> Result<u8, DecodeError> {
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

/// Checks that everything was taken.
fn finish(rest: &Bytes) -> Result<(), DecodeError> {
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
#[cfg(test)]
fn take_log_id(from: &mut Bytes) -> Result<LogId, DecodeError> {
    let term = take_u64(from, "log id")?;
    let leader = take_u64(from, "log id")?;
    let index = take_u64(from, "log id")?;
    Ok(LogId::new(term, leader, index))
}

/// A log id from its bytes.
fn log_id_of(bytes: &[u8; LOG_ID_BYTES]) -> LogId {
    let mut from = &bytes[..];
    LogId::new(from.get_u64_le(), from.get_u64_le(), from.get_u64_le())
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("commands and messages are bounded by far below 4 GiB")
}

#[cfg(test)]
mod tests;
