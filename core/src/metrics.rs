//! What a node tells of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::error::{Fatal, SnapshotError};
use crate::membership::Membership;
use crate::types::{Index, LogId, NodeId, Term};

/// The role of a node in its current term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
        })
    }
}

/// What a node tells of itself: a watch, published at the end of each of its turns in which something changed.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The node.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader of this term, when known.
    pub leader: Option<NodeId>,
    /// Whether it may elect others, and be elected: see [`HardState::caught_up`](crate::HardState::caught_up).
    pub caught_up: bool,
    /// The last entry of its log.
    pub last_log_id: LogId,
    /// Up to here its log is durable.
    pub durable: Index,
    /// Up to here it knows the log to be committed.
    pub committed: Index,
    /// Up to here its state machine has applied.
    pub applied: Index,
    /// The last entry that its snapshot covers; [`LogId::ZERO`] without one.
    pub snapshot: LogId,
    /// The last entry that is purged from its log.
    pub purged: LogId,
    /// Why the last snapshot that this node wanted to take was not taken or written; none after one that was. The node goes on, and its log grows.
    pub snapshot_error: Option<SnapshotError>,
    /// The configuration in force; none before the cluster is formed.
    pub membership: Option<Membership>,
    /// On a leader: its peers.
    pub peers: BTreeMap<NodeId, PeerMetrics>,
    /// Why the node has stopped for good, if it has.
    pub fatal: Option<Fatal>,
}

/// What a leader knows of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMetrics {
    /// Up to here the peer's log is known to be the leader's, and durable.
    pub matched: Index,
    /// How long ago the peer was last heard from, when this was published; none if never in this term.
    pub last_contact: Option<Duration>,
    /// What has been sent to it and not been acknowledged, in bytes.
    pub inflight_bytes: usize,
    /// Of a snapshot that is being sent to it: how much it has, and how much there is, in bytes.
    pub snapshot: Option<(u64, u64)>,
}
