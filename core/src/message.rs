//! What nodes say to each other.

use bytes::Bytes;

use crate::entries::Entries;
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::{Entry, GroupId, Index, LogId, NodeId, Term};

/// A message between two nodes of a group. It may be lost, late, repeated or reordered on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The group it belongs to.
    pub group: GroupId,
    /// Who sent it.
    pub from: NodeId,
    /// Who shall get it.
    pub to: NodeId,
    /// The sender's term; in [`Body::PreVote`] the term in which it would campaign, and in a granted
    /// [`Body::PreVoteReply`] that same one.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

impl Message {
    /// Its size in bytes, as the bounds on queues count it.
    pub fn bytes(&self) -> usize {
        let content = match &self.body {
            Body::Append { entries, .. } => entries.bytes(),
            Body::Forward { commands, .. } => {
                commands.iter().map(|command| Entry::OVERHEAD_BYTES + command.len()).sum()
            }
            Body::Snapshot { meta, chunk, .. } => meta.membership.bytes() + chunk.len(),
            _ => 0,
        };
        size_of::<Self>() + content
    }
}

/// The answer to who wants to be elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Refused.
    No,
    /// Granted.
    Yes,
    /// Granted by a node that has not [caught up](crate::HardState::caught_up): it counts only if all voters grant theirs.
    Tentative,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "Would you vote for me?" (thesis 9.6). Changes nothing at the receiver.
    PreVote {
        /// The end of the sender's log.
        last_log_id: LogId,
    },
    /// The answer to a pre-vote.
    PreVoteReply {
        /// Whether it would.
        vote: Vote,
    },
    /// "Vote for me" (thesis 3.4).
    Vote {
        /// The end of the sender's log.
        last_log_id: LogId,
        /// The leader itself has asked the sender to take over (thesis 3.10): that it is alive is no reason to refuse.
        handover: bool,
    },
    /// The answer to a vote, after it is durable.
    VoteReply {
        /// Whether it did.
        vote: Vote,
    },
    /// Entries, or none: a heartbeat (thesis 3.5). A heartbeat checks `prev` too, so that a lost append
    /// is noticed by the next message, whatever that is.
    Append {
        /// The entry before the first of `entries`.
        prev: LogId,
        /// The leader's commit index.
        committed: Index,
        /// The leader's latest round (thesis 6.4): an echo of it proves that the sender was the leader after
        /// the round began.
        round: u64,
        /// What comes after `prev`.
        entries: Entries,
    },
    /// The answer to an append. Several appends may be answered by one.
    AppendReply {
        /// The largest round seen from this leader.
        round: u64,
        /// What became of it.
        outcome: AppendOutcome,
    },
    /// Writes that the sender's clients brought, passed on to the leader of this message's term. It is sent once, and
    /// the leader takes it at most once.
    Forward {
        /// Drawn by the sender when it started: a restarted node's sequence begins anew.
        session: u64,
        /// The number of the first command; the others follow it.
        sequence: u64,
        /// The commands.
        commands: Vec<Bytes>,
    },
    /// The answer to a forward, as soon as the commands have their place in the leader's log.
    ForwardReply {
        /// The session of the forward.
        session: u64,
        /// The number of its first command.
        sequence: u64,
        /// What became of it.
        outcome: ForwardOutcome,
    },
    /// "Up to where must I have applied to answer a read that I have now?" (thesis 6.4)
    ReadIndex {
        /// The sender's number for this question. It covers all reads that waited when it was asked.
        sequence: u64,
    },
    /// The answer to a read index, after a round of the leader's has confirmed it.
    ReadIndexReply {
        /// The number of the question.
        sequence: u64,
        /// The index; none if the receiver does not lead.
        index: Option<Index>,
    },
    /// A piece of the leader's snapshot, for a follower whose log ends before the leader's begins (thesis 5.3). Without content at offset 0 it is
    /// an offer: the answer tells from where on the pieces are wanted. A transport should send these apart from other messages, so that no
    /// heartbeat waits behind one.
    Snapshot {
        /// The snapshot.
        meta: SnapshotMeta,
        /// Where the piece begins.
        offset: u64,
        /// The piece.
        chunk: Bytes,
    },
    /// The answer to a piece, once it is written. When all are, and the log begins anew after the snapshot, an [`Body::AppendReply`] says so.
    SnapshotReply {
        /// The digest of the snapshot.
        digest: Digest,
        /// Up to here the content has been written.
        stored: u64,
    },
    /// "Campaign now": the leader hands over to a peer that has all of its log (thesis 3.10).
    TimeoutNow,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// The log agrees with the leader's.
    Accepted {
        /// Up to here the log is both the leader's and durable.
        matched: Index,
    },
    /// The log does not hold `prev`.
    Rejected {
        /// The index of that `prev`.
        prev: Index,
        /// The last entry of the sender's log that could agree: its index is below `prev`'s or the log's end, and its term
        /// not above `prev`'s.
        hint: LogId,
    },
}

/// What became of a forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// The first command has this log id; the others follow it.
    Appended(LogId),
    /// The receiver does not lead, or not in that term. No effect.
    NotLeader,
    /// Too much is uncommitted. No effect.
    Busy,
    /// The leader can't read some of the commands, and these have no effect. It has appended the others.
    Partly {
        /// The log id of the first command that is appended, if any is; the other appended ones follow it.
        first: LogId,
        /// The commands that were refused, in the order of the forward.
        refused: Vec<Refusal>,
    },
}

/// A command of a forward that the leader can't read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the forward, from 0.
    pub place: u32,
    /// Why it can't be read: at most [`MAX_REASON_BYTES`](Self::MAX_REASON_BYTES).
    pub reason: String,
}

impl Refusal {
    /// The length of a reason, in bytes. A sentence fits; what a command may quote in one does not make answers large.
    pub const MAX_REASON_BYTES: usize = 256;

    /// A refusal with as much of the reason as may be told.
    pub fn new(place: u32, mut reason: String) -> Self {
        reason.truncate(reason.floor_char_boundary(Self::MAX_REASON_BYTES));
        Self { place, reason }
    }
}
