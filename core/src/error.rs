//! The errors of the public operations.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use quorate_rt::{Elapsed, TaskError};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

use crate::hindrance::Hindrance;
use crate::identity::Replica;
use crate::leadership::{CampaignError, StepDownError, TransferError};
use crate::membership::{ChangeId, Membership};
use crate::node::WaitError;
use crate::types::{GroupId, NodeId};

/// Why a log store failed.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the file's name.
        what: String,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// The content can't be what was written.
    #[error("{file}: damaged at offset {offset}: {reason}", file = file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there. (A boxed string keeps this error small, and with it the future of
        /// each write.)
        reason: Box<str>,
    },
    /// The content is whole, and of a form that this build does not know: another version has
    /// written it. Nothing is changed.
    #[error(
        "{file}: this build can't read what stands at offset {offset}: {reason}",
        file = file.display()
    )]
    Unsupported {
        /// The file.
        file: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is unknown, and what to do.
        reason: Box<str>,
    },
    /// Another process has the store open.
    #[error("{}: in use by another process", .0.display())]
    Locked(PathBuf),
    /// The store is another node's.
    #[error(
        "{place} belongs to node {holds}, and node {wanted} was to start on it: the folders of two nodes may have been swapped, or one copied; if the node's id was mistyped once, before it was part of any group, delete it"
    )]
    OtherNode {
        /// The store.
        place: String,
        /// The node it belongs to.
        holds: NodeId,
        /// The node that was to start.
        wanted: NodeId,
    },
    /// The group is open already, or something of it is still under way.
    #[error(
        "group {0} of this store is in use: it was opened twice, by two nodes of this process or by one, or it is to be removed while it is open; close it first"
    )]
    GroupInUse(GroupId),
    /// An earlier failure; the store does nothing any more.
    #[error("the store has failed before: {0}")]
    Poisoned(Arc<StoreError>),
    /// An entry that the node asked for is not in the log.
    #[error("the log holds no entry {0}")]
    Missing(u64),
    /// The store dropped a write without a word.
    #[error("the store dropped a write without an answer")]
    Abandoned,
}

impl StoreError {
    /// An error of the operating system, and what was being done.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source: Arc::new(source) }
    }
}

/// Why a group, or a whole node, has stopped for good. All handles of the group share it.
///
/// [`Bug`](Self::Bug), [`Snapshot`](Self::Snapshot) and [`Command`](Self::Command) of a group end
/// that group on this node, and the node's other groups go on. All others end the node with all of
/// its groups. So does a bug outside of the groups.
#[derive(Clone, Debug, Error)]
pub enum Fatal {
    /// The log store failed.
    #[error("the log store failed: {0}")]
    Store(#[from] StoreError),
    /// An invariant is broken, or the state machine panicked: a bug, with its message. Where the
    /// state machine panicked while it applied an entry, the message names the entry's index.
    #[error("a bug: {0}")]
    Bug(String),
    /// The transport can't go on: without it the node would be cut off and look healthy.
    #[error("the transport failed: {0}")]
    Transport(String),
    /// The [`Node`](crate::Node) was dropped while it ran.
    #[error("the node was dropped")]
    Dropped,
    /// The store has less than peers remember of it: it was put back to an earlier state.
    #[error(
        "the store was put back to an earlier state: {what}; what it has forgotten may be acknowledged writes or votes: restore the present folder; or, only if a majority of the other nodes runs, start this node with an empty one, and keep this one"
    )]
    RolledBack {
        /// Who remembers what, and what is there.
        what: String,
    },
    /// The state can't be restored from a snapshot. If that has just come from the leader, this
    /// node's log and the snapshot before are unchanged: the leader's state machine has written
    /// what this node's can't read.
    #[error("the snapshot at index {index} can't be restored: {reason}")]
    Snapshot {
        /// Up to where it covers the log.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A committed command can't be read. The leader could read it, so its program knows a newer
    /// form of the command than this node's: update this node's program. Its data is whole.
    #[error("the command at index {index} can't be read: {reason}")]
    Command {
        /// Where it stands in the log.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
}

impl Serialize for Fatal {
    /// Writes the error as text.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Fatal {
    /// Whether it concerns what the groups of a node share, so that all of them end with it.
    pub(crate) fn is_of_node(&self) -> bool {
        match self {
            Self::Store(_) | Self::Transport(_) | Self::Dropped | Self::RolledBack { .. } => true,
            Self::Bug(_) | Self::Snapshot { .. } | Self::Command { .. } => false,
        }
    }
}

/// The leader, as far as a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its id.
    pub id: NodeId,
    /// Where its peers reach it.
    pub address: String,
}

/// Why a write was not answered. Except after [`Unknown`](WriteError::Unknown) it has had no effect
/// and will have none.
#[derive(Clone, Debug, Error)]
pub enum WriteError {
    /// No leader was known for a [`Config::request_timeout`](crate::Config::request_timeout), or
    /// the one that was known has refused. Try again.
    ///
    /// ```
    /// use quorate_core::{Metrics, WriteError};
    ///
    /// let metrics = Metrics { id: 2, ..Metrics::default() };
    /// let error = WriteError::NotLeader { leader: None, why: metrics.hindrance().into() };
    /// let text = "no leader took the write: the cluster of node 2 is not formed yet";
    /// assert_eq!(error.to_string(), text);
    /// ```
    #[error("no leader took the write{}: {why}", Hint(.leader.as_ref()))]
    NotLeader {
        /// Who leads, when known.
        leader: Option<Leader>,
        /// Why there is no leader, or none that answers, as far as the node knows. Those that are
        /// refused for the same reason share it.
        why: Arc<Hindrance>,
    },
    /// A limit in bytes is reached: [`Config::max_queued_bytes`](crate::Config::max_queued_bytes)
    /// here or [`Config::max_uncommitted_bytes`](crate::Config::max_uncommitted_bytes) at the
    /// leader. Try again later.
    #[error("too much is in flight")]
    Busy,
    /// The disk of the leader is full. It was refused before it was proposed. Reads go on. Try
    /// again when there is space on that disk, or when another node leads: the leader transfers
    /// leadership if a quorum of the others has space.
    #[error("the disk of the leader is full, nothing was written")]
    StorageFull,
    /// The command can't be encoded, is larger than
    /// [`Config::max_command_bytes`](crate::Config::max_command_bytes), or the leader can't read
    /// what it was encoded to. Trying again does not help.
    #[error("the command can't be proposed: {0}")]
    Command(String),
    /// Leadership or the connection to the leader was lost in between, or its word didn't come in
    /// time: the write may or may not take effect. A write that was on its way to a leader that
    /// froze or was killed ends so half an election timeout after the next leader is known, and at
    /// the latest after a [`Config::request_timeout`](crate::Config::request_timeout).
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// The group is stopping on this node, or the node is.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// Why a read was not answered.
#[derive(Clone, Debug, Error)]
pub enum ReadError {
    /// No leader was known for a [`Config::request_timeout`](crate::Config::request_timeout), or
    /// none has confirmed in time that it still leads. Try again.
    #[error("no leader confirmed the read{}: {why}", Hint(.leader.as_ref()))]
    NotLeader {
        /// Who leads, when known.
        leader: Option<Leader>,
        /// Why there is no leader, or none that answers, as far as the node knows. Those that are
        /// refused for the same reason share it.
        why: Arc<Hindrance>,
    },
    /// [`Config::max_pending_reads`](crate::Config::max_pending_reads) wait already. Try again
    /// later.
    #[error("too many reads are waiting")]
    Busy,
    /// The group is stopping on this node, or the node is.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// Why a group was not formed.
#[derive(Clone, Debug, Error)]
pub enum InitializeError {
    /// The group was founded with another list. To found it anew, remove it first from all nodes
    /// that have it, with [`Node::remove`](crate::Node::remove). Never empty a node's store for the
    /// sake of one group: that discards the logs and votes of its other groups.
    #[error(
        "the group was founded by the nodes {}, and the list has {}: start this node with the founders' list. To found the group anew, first remove it from all nodes that have it (`Node::remove`; an empty folder, on a node without other groups)",
        Ids(.founders), Ids(.listed)
    )]
    Founded {
        /// The ids of the list that it was founded with.
        founders: BTreeSet<NodeId>,
        /// The ids of the list that was told now.
        listed: BTreeSet<NodeId>,
    },
    /// Another node was told another list, or is of a cluster that was founded with another one.
    #[error(
        "node {node} goes by the list {}, this node by {}: all nodes must be given the same list",
        Ids(.theirs), Ids(.listed)
    )]
    OtherList {
        /// The other node.
        node: NodeId,
        /// The ids of its list.
        theirs: BTreeSet<NodeId>,
        /// The ids of the list that was told here.
        listed: BTreeSet<NodeId>,
    },
    /// This node has promised to be part of the group as another list founds it. That may have been
    /// done since, and count this node's store among the members: then the group's data must not be
    /// deleted. Otherwise [`Node::remove`](crate::Node::remove) takes the promise back. Remove the
    /// group from the founder as well, which could otherwise still use the promise.
    #[error(
        "this node has accepted the claim of node {} for the list {}, and the list given now has {}: start it with the list of that claim. Or, only if no node of that list is a member of the group formed with it, remove the group from all of them, the founder first (`Node::remove`; an empty folder, on a node without other groups)",
        .founder.id, Ids(.promised), Ids(.listed)
    )]
    Promised {
        /// Who claimed it.
        founder: Replica,
        /// The ids of the list of the claim.
        promised: BTreeSet<NodeId>,
        /// The ids of the list that was told now.
        listed: BTreeSet<NodeId>,
    },
    /// This replica was removed from the group: its node has left, or another disk of the node has
    /// taken its place; or the group was [removed](crate::Node::remove) from this store. The other
    /// groups of the store may still count on it. `Node::remove` deletes what this one has left
    /// there.
    #[error(
        "this replica was removed from the group, or the group from this store. If another disk of the node has taken its place, start the node on that one. Only if that one is lost, or the node is to be added again, and a majority of the other nodes of each group runs, start it with an empty folder"
    )]
    Spent,
    /// The list can't be one.
    #[error("the list of members is invalid: {0}")]
    Membership(String),
    /// The group is stopping on this node, or the node is.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// Why a change of the membership, or what was to become one, is refused. It has no effect.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeRefusal {
    /// The target can't be one, or can't be made of the present configuration.
    #[error("the membership can't become that: {0}")]
    Target(String),
    /// Another change is under way. Wait for it, cancel it, or
    /// [follow](crate::ChangeOptions::follows) it.
    #[error(
        "change {} is under way, to voters {}: wait for it, cancel it, or say that this one follows it",
        .membership.last_change(), .membership.target()
    )]
    UnderWay {
        /// The configuration at the leader, with that change.
        membership: Membership,
    },
    /// The change that this one was said to follow is not the last one.
    #[error(
        "another change was made meanwhile: the last one is {}, and the membership is {membership}",
        .membership.last_change()
    )]
    Conflict {
        /// The configuration at the leader.
        membership: Membership,
    },
    /// The group would tolerate fewer failures than now, on the way or in the end. See
    /// [`Membership::plan`] and
    /// [`ChangeOptions::allow_lower_tolerance`](crate::ChangeOptions::allow_lower_tolerance).
    #[error(
        "the group tolerates the failure of {now} voters now, and would tolerate that of {lowest} on the way or in the end: allow it where that is meant"
    )]
    LowersTolerance {
        /// How many voters may fail now.
        now: u64,
        /// How many at the worst step.
        lowest: u64,
    },
    /// The change that is to be cancelled is not under way, and is not one of the last that were.
    #[error("no such change is under way")]
    NotUnderWay,
}

/// Why a change of the membership was not made, or was not cancelled.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// It was refused, and has had no effect.
    #[error(transparent)]
    Refused(#[from] ChangeRefusal),
    /// No leader was known for a [`Config::request_timeout`](crate::Config::request_timeout), or
    /// none that could take it. It has had no effect. Try again.
    #[error("no leader took the change{}: {why}", Hint(.leader.as_ref()))]
    NotLeader {
        /// Who leads, when known.
        leader: Option<Leader>,
        /// Why there is no leader, or none that answers, as far as the node knows.
        why: Arc<Hindrance>,
    },
    /// Nodes that were to vote have not answered or not caught up in time
    /// ([`catch_up`](crate::ChangeOptions::catch_up)). The membership is what it was before.
    #[error("the change was taken back: in time, {} had not caught up", Nodes(.waits_for))]
    Late {
        /// These nodes.
        waits_for: BTreeSet<NodeId>,
    },
    /// It was cancelled. The membership is what it was before.
    #[error("the change was cancelled")]
    Cancelled,
    /// Another change has taken its place.
    #[error("change {by} has taken the place of this one")]
    Superseded {
        /// That change.
        by: ChangeId,
    },
    /// It could not be cancelled: it was done before, or has ended in another way.
    #[error("the change had ended before it could be cancelled")]
    TooLate,
    /// The leader was asked, and no word came back in time; or so many changes were made meanwhile
    /// that this one's ending is forgotten. It may have been made, may be under way, or have had no
    /// effect. [`Raft::await_change`](crate::Raft::await_change) waits for it, on any node.
    #[error("what becomes of change {change} is unknown")]
    Unknown {
        /// The change.
        change: ChangeId,
    },
    /// The group is stopping on this node, or the node is. The change goes on if it was taken.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has. The change goes on if it was taken.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// Nodes, as a sentence has them.
pub(crate) struct Nodes<'a>(pub(crate) &'a BTreeSet<NodeId>);

impl fmt::Display for Nodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "node" } else { "nodes" };
        write!(f, "{noun} {}", Ids(self.0))
    }
}

/// The ids of a list, as a sentence has them.
struct Ids<'a>(&'a BTreeSet<NodeId>);

impl fmt::Display for Ids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ids.join(", "))
    }
}

/// Why a snapshot was not taken, written or restored.
#[derive(Clone, Debug, Error)]
pub enum SnapshotError {
    /// The store can't write or read it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state machine has no snapshot to give, or can't make sense of one.
    #[error("the state machine's snapshot: {0}")]
    StateMachine(String),
    /// Nothing has been applied yet, so there is nothing to take a snapshot of.
    #[error("nothing has been applied yet")]
    Nothing,
    /// The group is stopping on this node, or the node is.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

impl Serialize for SnapshotError {
    /// Writes the error as text.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl SnapshotError {
    /// An error of the state machine's own.
    pub fn state_machine(reason: impl fmt::Display) -> Self {
        Self::StateMachine(reason.to_string())
    }
}

/// A field of the configuration has a value that can't work.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("config field {field}: {reason}")]
pub struct ConfigError {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with its value.
    pub reason: String,
}

/// Why a group did not get other settings.
#[derive(Clone, Debug, Error)]
pub enum ConfigureError {
    /// They can't work, by themselves or with what the transport carries.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// The group is stopping on this node, or the node is.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// Why a node did not start, or a group was not opened or removed.
#[derive(Clone, Debug, Error)]
pub enum StartError {
    /// The configuration can't work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A node id must not be 0.
    #[error("a node id must not be 0")]
    NodeId,
    /// The largest number is no group's id, as it stands for the node itself.
    #[error("{} can't be the id of a group", GroupId::MAX)]
    GroupId,
    /// The node has this group already: it is open, or being opened, stopped or removed.
    #[error("group {0} is open on this node already, or is being opened, stopped or removed")]
    GroupIsOpen(GroupId),
    /// The node is stopping, or has stopped.
    #[error("the node is stopping")]
    Shutdown,
    /// The node has failed.
    #[error("the node has failed: {0}")]
    Fatal(Fatal),
    /// The log can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Any error of the framework, for a `main` that passes all of them on. `Debug` is its text as
/// well, as that is what a `main` prints that returns it.
#[derive(Error)]
pub enum Error {
    /// The runtime, a listener or a file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// See [`StartError`].
    #[error(transparent)]
    Start(#[from] StartError),
    /// See [`InitializeError`].
    #[error(transparent)]
    Initialize(#[from] InitializeError),
    /// See [`ChangeError`].
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// See [`ChangeRefusal`].
    #[error(transparent)]
    ChangeRefused(#[from] ChangeRefusal),
    /// See [`ConfigureError`].
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    /// See [`WriteError`].
    #[error(transparent)]
    Write(#[from] WriteError),
    /// See [`ReadError`].
    #[error(transparent)]
    Read(#[from] ReadError),
    /// See [`SnapshotError`].
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// See [`TransferError`].
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// See [`CampaignError`].
    #[error(transparent)]
    Campaign(#[from] CampaignError),
    /// See [`StepDownError`].
    #[error(transparent)]
    StepDown(#[from] StepDownError),
    /// See [`WaitError`].
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// See [`Fatal`].
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// A task has no result: it panicked, or was cancelled.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// A [time limit](quorate_rt::Executor::timeout) has passed.
    #[error(transparent)]
    Elapsed(#[from] Elapsed),
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A result with any error of the framework.
pub type Result<T, E = Error> = std::result::Result<T, E>;

struct Hint<'a>(Option<&'a Leader>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(leader) => write!(f, "; node {} at {} may lead", leader.id, leader.address),
            None => Ok(()),
        }
    }
}
