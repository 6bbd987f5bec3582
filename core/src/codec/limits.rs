//! How large the largest messages are, for who must carry them.

use super::LOG_ID_BYTES;
use super::change::{MAX_CHANGE_BYTES, MAX_ENDING_BYTES};
use super::entry::{RUN_HEADER_BYTES, SHORT_HEADER_BYTES};
use super::fields::{REPLICA_BYTES, SIZED_BYTES, field_bytes};
use super::membership::PRIORITY_BYTES;
use super::message::HEADER_BYTES;
use crate::identity::ClusterId;
use crate::membership::{ChangeId, MAX_ADDRESS_BYTES, MAX_ENDED, MAX_NODES};
use crate::snapshot::Digest;
use crate::types::{Entry, NodeId};

const NUMBER_FIELD_BYTES: usize = field_bytes(8);
const LOG_ID_FIELD_BYTES: usize = field_bytes(LOG_ID_BYTES);

/// The bytes of a field whose length is not known before it is written, besides its value.
const OPEN_FIELD_BYTES: usize = 1 + SIZED_BYTES;

/// The bytes of an append of one entry besides the entry's content.
pub const APPEND_OVERHEAD_BYTES: usize = HEADER_BYTES
    + LOG_ID_FIELD_BYTES
    + 3 * NUMBER_FIELD_BYTES
    + OPEN_FIELD_BYTES
    + size_of::<u32>()
    + RUN_HEADER_BYTES
    + SHORT_HEADER_BYTES;

/// The bytes of a forward of one command besides the command.
pub const FORWARD_OVERHEAD_BYTES: usize =
    HEADER_BYTES + 2 * NUMBER_FIELD_BYTES + OPEN_FIELD_BYTES + size_of::<u32>();

/// The bytes of the largest configuration: joint, with a name of the greatest length for each of
/// the most members, a priority of each, a change under way, and the most endings.
pub const MAX_MEMBERSHIP_BYTES: usize = {
    let member = SIZED_BYTES + field_bytes(REPLICA_BYTES) + field_bytes(MAX_ADDRESS_BYTES);
    SIZED_BYTES
        + field_bytes(size_of::<ClusterId>())
        + field_bytes(MAX_NODES * size_of::<NodeId>())
        + OPEN_FIELD_BYTES
        + MAX_NODES * member
        + 2 * field_bytes(MAX_NODES * REPLICA_BYTES)
        + field_bytes(MAX_NODES * PRIORITY_BYTES)
        + field_bytes(size_of::<ChangeId>())
        + OPEN_FIELD_BYTES
        + MAX_CHANGE_BYTES
        + OPEN_FIELD_BYTES
        + MAX_ENDED * MAX_ENDING_BYTES
};

/// The most bytes of a chunk of a snapshot besides its content: with the largest configuration, and
/// a content so long that its length takes the longer form.
pub const MAX_SNAPSHOT_OVERHEAD_BYTES: usize = {
    // As the value of a field, a structure is its fields alone.
    let membership = OPEN_FIELD_BYTES + MAX_MEMBERSHIP_BYTES - SIZED_BYTES;
    let meta = LOG_ID_FIELD_BYTES
        + membership
        + 2 * NUMBER_FIELD_BYTES
        + NUMBER_FIELD_BYTES
        + field_bytes(size_of::<Digest>());
    HEADER_BYTES + OPEN_FIELD_BYTES + meta + NUMBER_FIELD_BYTES + OPEN_FIELD_BYTES
};

// What else has a configuration in it takes no more than such a chunk: an entry of the largest one,
// with which an append has no room for others; the answer that another change is under way; the
// word to who was removed. So does a request, which has a target.
const _: () = {
    let membership = OPEN_FIELD_BYTES + MAX_MEMBERSHIP_BYTES - SIZED_BYTES;
    let append = APPEND_OVERHEAD_BYTES + MAX_MEMBERSHIP_BYTES;
    let reply =
        field_bytes(size_of::<ChangeId>()) + OPEN_FIELD_BYTES + 2 * field_bytes(1) + membership;
    assert!(append <= MAX_SNAPSHOT_OVERHEAD_BYTES);
    assert!(HEADER_BYTES + reply <= MAX_SNAPSHOT_OVERHEAD_BYTES);
    assert!(HEADER_BYTES + LOG_ID_FIELD_BYTES + membership <= MAX_SNAPSHOT_OVERHEAD_BYTES);
    let request = MAX_CHANGE_BYTES + field_bytes(size_of::<ChangeId>()) + field_bytes(1);
    assert!(HEADER_BYTES + OPEN_FIELD_BYTES + request <= MAX_SNAPSHOT_OVERHEAD_BYTES);
};

// Of entries that are counted as so many bytes, one alone takes the most: each other one is counted
// with more than it takes, even in a run of its own.
const _: () = assert!(RUN_HEADER_BYTES + SHORT_HEADER_BYTES <= Entry::OVERHEAD_BYTES);

/// The most bytes of an append of entries that are counted as so many in all.
pub const fn max_append_bytes(entries: usize) -> usize {
    APPEND_OVERHEAD_BYTES + entries.saturating_sub(Entry::OVERHEAD_BYTES)
}
