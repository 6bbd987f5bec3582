//! What the protocol speaks of: ids, terms, log ids, entries, the hard state.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::identity::Replica;
use crate::membership::Membership;

/// A node of a cluster. Never 0: that stands for "none" on the wire and on disk.
pub type NodeId = u64;

/// A Raft group. Every frame and every log record names its group, so that one connection and one
/// log serve many.
pub type GroupId = u64;

/// A position in a log. The first entry has index 1; 0 means "before the first".
pub type Index = u64;

/// A term: Raft's logical clock. In each there is at most one leader.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Term(pub u64);

impl Term {
    /// The last one. No message of a later term is believed.
    pub const LAST: Self = Self(u64::MAX / 2);

    /// The term after this one; none after the last.
    pub fn next(self) -> Option<Self> {
        (self < Self::LAST).then(|| Self(self.0 + 1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of an entry: who proposed it, when, and where it stands. Two entries with the same
/// log id have the same content, and so have the logs before them (log matching).
///
/// The order is term first and index second, as the comparison of logs in an election needs it; the
/// leader stands between them but never decides, as a term has one leader only. For the same reason
/// it names a node and not a replica: votes are keyed by replica, so no two replicas of a node lead
/// in one term.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The term in which it was proposed; 0 only for the first entry, which forms a group.
    pub term: Term,
    /// The node that led then; 0 only for the first entry.
    pub leader: NodeId,
    /// Its position.
    pub index: Index,
}

impl LogId {
    /// Before the first entry: the last log id of an empty log.
    pub const ZERO: Self = Self { term: Term(0), leader: 0, index: 0 };

    /// The first entry of a group. Only its founder writes it, when all have accepted the claim for
    /// it.
    pub const FIRST: Self = Self { term: Term(0), leader: 0, index: 1 };

    /// A log id from its parts.
    pub const fn new(term: u64, leader: NodeId, index: Index) -> Self {
        Self { term: Term(term), leader, index }
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}-{}", self.term, self.leader, self.index)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a replica must never forget, besides its log: the term it has seen, and whom it voted for
/// in it. It only grows: first by term, then from no vote to a vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardState {
    /// The largest term this replica has seen.
    pub term: Term,
    /// Its vote in that term. A replica, not a node: the old and the new disk of one node are two
    /// candidates.
    pub voted_for: Option<Replica>,
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub log_id: LogId,
    /// Its leader's wall clock when it was placed, in milliseconds since the Unix epoch. It never
    /// decreases along a log.
    pub time: u64,
    /// Its content.
    pub payload: Payload,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: a new leader's first entry, by which it commits what its predecessors left (thesis
    /// 3.6.2, 6.4).
    Blank,
    /// A command for the state machine, in the bytes that its proposer encoded.
    Command(Bytes),
    /// The configuration of the group, in force from the moment it is appended (thesis 4.1).
    Membership(Membership),
}

impl Entry {
    /// What an entry is counted as beyond its command, where bytes are bounded: its log id and its
    /// place in queues. It makes an endless stream of empty commands hit the limits, too.
    pub const OVERHEAD_BYTES: usize = 64;

    /// Its size in bytes, as all limits count it.
    pub fn bytes(&self) -> usize {
        let content = match &self.payload {
            Payload::Blank => 0,
            Payload::Command(command) => command.len(),
            Payload::Membership(membership) => membership.bytes(),
        };
        Self::OVERHEAD_BYTES + content
    }
}
