//! What nodes say to each other.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::entries::Entries;
use crate::error::ChangeRefusal;
use crate::identity::{Boot, Claim, ClusterId, Replica};
use crate::membership::{ChangeId, ChangeKind, ChangeReply, ChangeRequest, Member, Membership};
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::{Entry, GroupId, Index, LogId, NodeId, Term};

/// A message between two nodes of a group. It may be lost, late, repeated or reordered on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The group it belongs to.
    pub group: GroupId,
    /// The sender's cluster; none from one that belongs to none yet, and while a cluster is formed.
    pub cluster: Option<ClusterId>,
    /// Who sent it.
    pub from: Replica,
    /// Who shall get it. Only [`Body::Who`] and [`Body::Claim`] may be for whichever store the node
    /// has now.
    pub to: Replica,
    /// The sender's term; in [`Body::PreVote`] the term in which it would campaign, and in a
    /// granted [`Body::PreVoteReply`] that same one.
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
            Body::ForwardReply { outcome: ForwardOutcome::Partly { refused, .. }, .. } => {
                refused.iter().map(|refusal| size_of::<Refusal>() + refusal.reason.len()).sum()
            }
            Body::Alive(alive) => size_of::<Alive>() + 16 * alive.departures.len(),
            Body::Change(request) => match &request.kind {
                ChangeKind::Begin { target, .. } => {
                    let members = target.members.values();
                    members.map(|member| size_of::<Member>() + member.address.len()).sum()
                }
                ChangeKind::Cancel => 0,
            },
            Body::ChangeReply { reply, .. } => match &**reply {
                ChangeReply::Refused(
                    ChangeRefusal::UnderWay { membership } | ChangeRefusal::Conflict { membership },
                ) => membership.bytes(),
                _ => size_of::<ChangeReply>(),
            },
            Body::Removed { membership, .. } => membership.bytes(),
            Body::Claim(claim) => claim.list.values().map(|address| 16 + address.len()).sum(),
            _ => 0,
        };
        size_of::<Self>() + content
    }
}

/// What a replica says of its group to who would form a cluster with it, or let it in. It never
/// tells a cluster id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Situation {
    /// It has no log and has promised nothing.
    Empty,
    /// It has accepted a claim, durably.
    Claimed {
        /// The ballot of the claim.
        ballot: u64,
        /// Who made it.
        founder: Replica,
        /// The ids of its list.
        ids: BTreeSet<NodeId>,
    },
    /// A member of a cluster has let it in, durably; it has no log yet.
    Admitted,
    /// It has a log, or a snapshot.
    Member {
        /// The ids of the list that its cluster was founded with.
        founders: BTreeSet<NodeId>,
        /// A configuration that it holds has named it as a voter.
        voter: bool,
    },
    /// It has been removed from the group.
    Spent,
    /// Its store belongs to another cluster than the one of the question.
    Elsewhere,
}

/// The leadership transfer that a vote request rests on (thesis 3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeadershipTransfer {
    /// The leader that gave it.
    pub leader: Replica,
    /// The term in which that one leads.
    pub term: Term,
    /// Its latest round then. A voter that has heard of a later one knows that the leader has gone
    /// on.
    pub round: u64,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// "Would you vote for me?" (thesis 9.6). It changes no term and no vote at the receiver, which
    /// may only give up asking itself.
    PreVote {
        /// The end of the sender's log.
        last_log_id: LogId,
        /// The number of the attempt, which the answer repeats: it may come after the attempt is
        /// over, and still tells how long it took. 0 if the sender numbers none.
        attempt: u64,
    },
    /// The answer to a pre-vote.
    PreVoteReply {
        /// Whether it would.
        granted: bool,
        /// The number of the request; 0 if it had none.
        attempt: u64,
    },
    /// "Vote for me" (thesis 3.4).
    Vote {
        /// The end of the sender's log.
        last_log_id: LogId,
        /// The leader itself has asked the sender to take over: to those who follow just that
        /// leader, that it is alive is no reason to refuse.
        transfer: Option<LeadershipTransfer>,
        /// The number of the attempt, as in [`Body::PreVote`].
        attempt: u64,
    },
    /// The answer to a vote, after it is durable.
    VoteReply {
        /// Whether it did.
        granted: bool,
        /// The number of the request; 0 if it had none.
        attempt: u64,
    },
    /// Entries, or none: a heartbeat (thesis 3.5). A heartbeat checks `prev` too, so that a lost
    /// append is noticed by the next message, whatever that is.
    Append {
        /// The entry before the first of `entries`.
        prev: LogId,
        /// The leader's commit index.
        committed: Index,
        /// The leader's latest round (thesis 6.4): an echo of it proves that the sender was the
        /// leader after the round began.
        round: u64,
        /// Up to here the leader's own log is durable. The receiver remembers it, so that the
        /// leader learns of it if its disk is put back.
        durable: Index,
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
    /// Writes that the sender's clients brought, passed on to the leader of this message's term. It
    /// is sent once, and the leader takes it at most once.
    Forward {
        /// The sender's boot: a restarted node's sequence begins anew.
        boot: u64,
        /// The number of the first command; the others follow it.
        sequence: u64,
        /// The commands.
        commands: Vec<Bytes>,
    },
    /// The answer to a forward, as soon as the commands have their place in the leader's log.
    ForwardReply {
        /// The boot of the forward.
        boot: u64,
        /// The number of its first command.
        sequence: u64,
        /// What became of it.
        outcome: ForwardOutcome,
    },
    /// "Up to where must I have applied to answer a read that I have now?" (thesis 6.4)
    ReadIndex {
        /// The sender's number for this question. It covers all reads that waited when it was
        /// asked.
        sequence: u64,
    },
    /// The answer to a read index, after a round of the leader's has confirmed it.
    ReadIndexReply {
        /// The number of the question.
        sequence: u64,
        /// The index; none if the receiver does not lead.
        index: Option<Index>,
        /// The largest time of an entry in the leader's log, in milliseconds since the Unix epoch.
        time: u64,
    },
    /// A chunk of the leader's snapshot, for a follower whose log ends before the leader's begins
    /// (thesis 5.3). Without content at offset 0 it is an offer: the answer tells from where on the
    /// chunks are wanted. A transport should send these apart from other messages, so that no
    /// heartbeat waits behind one.
    Snapshot {
        /// The snapshot. Boxed, so that all messages are of the size of the frequent ones.
        meta: Box<SnapshotMeta>,
        /// Where the chunk begins.
        offset: u64,
        /// The chunk.
        chunk: Bytes,
    },
    /// The answer to a chunk, once it is written. When all are, and the log begins anew after the
    /// snapshot, an [`Body::AppendReply`] says so.
    SnapshotReply {
        /// The digest of the snapshot.
        digest: Digest,
        /// Up to here the content has been written.
        stored: u64,
    },
    /// "Campaign now": the leader transfers leadership to a peer that has all of its log (thesis
    /// 3.10). It holds only as long as nothing has changed since: an order that is late must not
    /// unseat a leader that has gone on.
    TimeoutNow {
        /// The end of the leader's log.
        last_log_id: LogId,
        /// The leader's latest round.
        round: u64,
    },
    /// "Who lives there, and what do you know of?" It goes to the nodes of a list while a cluster
    /// is formed, and to a node whose replica is silent.
    Who {
        /// The ids of the list that the sender was told; empty if it was told none.
        listed: BTreeSet<NodeId>,
    },
    /// The answer to [`Body::Who`], to a claim and to an admission, when what it says is durable.
    Situation {
        /// What the sender has.
        situation: Situation,
        /// The ids of the list that it was told; empty if it was told none.
        listed: BTreeSet<NodeId>,
    },
    /// "Be part of a cluster that I form." A store accepts it, or says what stands against it.
    Claim(Box<Claim>),
    /// "You have all that there is, as I do. Count on my node from now on": in place of a
    /// heartbeat. It ends with the next append.
    Rest {
        /// The last entry of the log, which is committed.
        last_log_id: LogId,
        /// The leader's latest round.
        round: u64,
        /// The boot of the leader's node.
        boot: Boot,
    },
    /// "I count on your node": the answer to [`Body::Rest`].
    Rests {
        /// The last entry of the sender's log.
        last_log_id: LogId,
    },
    /// "This node is alive": between nodes, for all of their groups. It is of the group
    /// [`NODE_GROUP`] and of term 0.
    Alive(Box<Alive>),
    /// A change of the membership is wanted, at a node that does not lead. It may be repeated.
    Change(Box<ChangeRequest>),
    /// The answer to it.
    ChangeReply {
        /// The change of the request.
        id: ChangeId,
        /// What the leader says.
        reply: Box<ChangeReply>,
    },
    /// "You are no member any more": from a member to one that asks it for its vote and does not
    /// know that. It shows what is committed.
    Removed {
        /// The entry that brought the configuration.
        log_id: LogId,
        /// The configuration, which is committed and does not name the receiver.
        membership: Membership,
    },
    /// "You are let into this cluster", from its leader to an empty store that is to take the place
    /// of a lost one, or to become a member.
    Admit {
        /// The cluster.
        cluster: ClusterId,
        /// The ids of the list that it was founded with.
        founders: BTreeSet<NodeId>,
    },
}

/// The group of messages that nodes exchange for all of their groups. No group has this id.
pub const NODE_GROUP: GroupId = GroupId::MAX;

/// What nodes tell each other in each heartbeat interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alive {
    /// The boot of the sender.
    pub boot: Boot,
    /// The boot of the receiver, as far as the sender knows, and the number of the last departure
    /// that it has heard of in that boot.
    pub heard: (u64, u64),
    /// The number of the last of `departures`, which are counted for each receiver.
    pub last: u64,
    /// What the sender's replicas are no more. They are repeated until the receiver has heard of
    /// them.
    pub departures: Vec<Departure>,
}

impl Alive {
    /// How many departures one message may tell of.
    pub const MAX_DEPARTURES: usize = 4096;
}

/// The sender's replica of a group leads no more, or begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// The group.
    pub group: GroupId,
    /// What the replica was in this term and in earlier ones, it is no more.
    pub term: Term,
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
        /// The last entry of the sender's log that could agree: its index is below `prev`'s or the
        /// log's end, and its term not above `prev`'s.
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
    /// The receiver's disk is full. No effect.
    StorageFull,
    /// The leader can't read some of the commands, and these have no effect. It has appended the
    /// others.
    Partly {
        /// The log id of the first command that is appended, if any is; the other appended ones
        /// follow it.
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
    /// The length of a reason, in bytes. A sentence fits; what a command may quote in one does not
    /// make answers large.
    pub const MAX_REASON_BYTES: usize = 256;

    /// A refusal with as much of the reason as may be told.
    pub fn new(place: u32, mut reason: String) -> Self {
        reason.truncate(reason.floor_char_boundary(Self::MAX_REASON_BYTES));
        Self { place, reason }
    }
}
