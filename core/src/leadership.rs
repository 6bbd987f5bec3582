//! Leadership by hand: transferring it, campaigning and stepping down.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::{Fatal, Leader};
use crate::types::{Index, NodeId, Term};

/// To whom leadership is transferred, and within which time: see [`Raft::transfer_leadership`].
///
/// A node id stands for a transfer to that node, and `None` for one to the best voter, both with
/// the default deadline.
///
/// ```
/// use std::time::Duration;
///
/// use quorate_core::TransferOptions;
///
/// let to_three = TransferOptions { to: Some(3), within: None };
/// assert_eq!(TransferOptions::from(3), to_three);
/// assert_eq!(TransferOptions::from(None), TransferOptions::default());
/// let patient = TransferOptions { within: Some(Duration::from_secs(60)), ..to_three };
/// ```
///
/// [`Raft::transfer_leadership`]: crate::Raft::transfer_leadership
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferOptions {
    /// The node that is to lead. None: of the voters that have caught up, the one that was heard
    /// from last.
    pub to: Option<NodeId>,
    /// The transfer is given up after this time. None: one
    /// [`election_timeout`](crate::Config::election_timeout). A longer time lets a voter that is
    /// far behind catch up, during which the leader serves as usual. Commands are held up for at
    /// most one election timeout of it. A time of more than an hour counts as an hour.
    #[serde(with = "crate::text::duration::option")]
    pub within: Option<Duration>,
}

impl TransferOptions {
    /// A deadline is at most so far away.
    pub(crate) const LONGEST: Duration = Duration::from_secs(3600);
}

impl From<NodeId> for TransferOptions {
    fn from(to: NodeId) -> Self {
        Self { to: Some(to), within: None }
    }
}

impl From<Option<NodeId>> for TransferOptions {
    fn from(to: Option<NodeId>) -> Self {
        Self { to, within: None }
    }
}

/// Who leads, and since which term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The node that leads.
    pub leader: NodeId,
    /// The term in which it was elected.
    pub term: Term,
}

/// Why leadership was not transferred.
#[derive(Clone, Debug, Error)]
pub enum TransferError {
    /// This node does not lead. Ask the leader.
    #[error("this node does not lead{}", Hint(.leader.as_ref()))]
    NotLeader {
        /// Who leads, when known.
        leader: Option<Leader>,
    },
    /// The node is not a voter of the configuration in force: it is a learner, or not a member.
    #[error("node {0} is not a voter of the group")]
    NoSuchVoter(NodeId),
    /// No other node has a vote, so nobody else can lead.
    #[error("there is no other voter that could lead")]
    NoOtherVoter,
    /// Another transfer is under way. Try again when it has ended.
    #[error("{} is under way already", To(*.to))]
    UnderWay {
        /// To whom; none if it is to any voter.
        to: Option<NodeId>,
    },
    /// Nobody took over, or somebody else did. If this node still leads, it serves again.
    #[error("{} failed: {why}", To(*.to))]
    Failed {
        /// To whom it was; none if it was to any voter.
        to: Option<NodeId>,
        /// Why.
        why: TransferFailure,
    },
    /// The group is stopping on this node, or the node is. It is open whether leadership was
    /// transferred.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has. It is open whether leadership was
    /// transferred.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// What has become of a transfer that failed: see [`TransferError::Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferFailure {
    /// Nothing was heard of the voter for two heartbeat intervals or more.
    #[error("nothing is heard of it")]
    Silent,
    /// The voter had not caught up in time. A longer [`TransferOptions::within`] may help.
    #[error("{lacks} entries were missing there when the time was up")]
    NotCaughtUp {
        /// How many entries of the leader's log are not durable there.
        lacks: Index,
    },
    /// The voter was told to take over and was not elected in time. A slow disk is the usual cause.
    #[error("it was told to take over and was not elected in time")]
    NotElected,
    /// Another node has been elected. It may be the former leader itself.
    #[error("node {} was elected, in term {}", .0.leader, .0.term)]
    OtherLeader(Leadership),
    /// The former leader leads no more, and has heard of no successor for a
    /// [`request_timeout`](crate::Config::request_timeout) after the deadline.
    #[error("no leader has been heard of since")]
    NoLeader,
}

/// Why a campaign by hand did not make the node the leader.
#[derive(Clone, Debug, Error)]
pub enum CampaignError {
    /// The node has no vote in the configuration in force: the group is not formed yet, or the node
    /// is a learner or not a member.
    #[error("this node is not a voter of the group")]
    NotVoter,
    /// A leader is alive, so the other voters would refuse. Transfer its leadership instead.
    #[error("node {} leads, and was heard within an election timeout: ask it to transfer its leadership, or try again if it is gone", .0.leader)]
    LeaderIsAlive(Leadership),
    /// A majority has refused, or has not answered within an election timeout. The node goes on
    /// campaigning as after any lost election.
    #[error("a majority of the voters has not granted its vote")]
    NotElected,
    /// The group is stopping on this node, or the node is.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// Why a node did not step down.
#[derive(Clone, Debug, Error)]
pub enum StepDownError {
    /// This node does not lead.
    #[error("this node does not lead{}", Hint(.leader.as_ref()))]
    NotLeader {
        /// Who leads, when known.
        leader: Option<Leader>,
    },
    /// No other node has a vote, so nobody else can lead.
    #[error("there is no other voter that could lead")]
    NoOtherVoter,
    /// The group is stopping on this node, or the node is.
    #[error("the group is stopping on this node")]
    Shutdown,
    /// The group has failed on this node, or the node has.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

struct Hint<'a>(Option<&'a Leader>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(leader) => write!(f, "; node {} at {} does", leader.id, leader.address),
            None => f.write_str(", and no leader is known"),
        }
    }
}

struct To(Option<NodeId>);

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(to) => write!(f, "a transfer of leadership to node {to}"),
            None => f.write_str("a transfer of leadership to any voter"),
        }
    }
}
