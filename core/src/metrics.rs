//! What a group tells of itself on one of its nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::{Fatal, SnapshotError};
use crate::hindrance::Hindrance;
use crate::identity::{ClusterId, Replica};
use crate::membership::{ChangeId, Membership};
use crate::types::{Index, LogId, NodeId, Term};

/// The role of a replica of a group in its current term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// Whether a group runs on a node, or how it has ended there. It is of one opening of the group: a
/// group that is opened again has other metrics.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// It runs. That includes a group that is stopping in order.
    #[default]
    Running,
    /// It was stopped in order, by itself or with its node.
    Stopped,
    /// It has failed, or its node has, or the node was dropped ([`Fatal::Dropped`]).
    Failed(Fatal),
}

impl GroupState {
    /// Whether it is [`Running`](Self::Running).
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// What the group has come to; none while it runs.
    pub fn outcome(&self) -> Option<Result<(), Fatal>> {
        match self {
            Self::Running => None,
            Self::Stopped => Some(Ok(())),
            Self::Failed(fatal) => Some(Err(fatal.clone())),
        }
    }
}

impl From<Result<(), Fatal>> for GroupState {
    /// How a group has ended.
    fn from(outcome: Result<(), Fatal>) -> Self {
        outcome.map_or_else(Self::Failed, |()| Self::Stopped)
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Stopped => f.write_str("stopped"),
            Self::Failed(fatal) => write!(f, "failed: {fatal}"),
        }
    }
}

/// What a group tells of itself on one of its nodes. It is a watch, published at the end of each
/// turn of the group in which something changed. "It" is the node's replica of the group.
///
/// Serde writes them, for a dashboard: replicas, the ids of changes, durations and errors as text.
/// What it writes can be shown to anybody: the [`ClusterId`] is not among it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Metrics {
    /// The node.
    pub id: NodeId,
    /// The node and its store. A store is another replica after its disk was lost.
    pub replica: Replica,
    /// How often the node has started on this store.
    pub boot: u64,
    /// The cluster that the store belongs to; none before its first group is formed.
    #[serde(skip)]
    pub cluster: Option<ClusterId>,
    /// While the group is being formed, and while the empty disk of a node waits to be let in: why
    /// each of the other nodes of the list is waited for.
    /// While no leader is known, for a [`Config::request_timeout`] and more (or for five election
    /// timeouts, where that is shorter): why each of the other voters does not help. While a leader
    /// is heard and can't be answered: why. Empty otherwise.
    pub waits_for: BTreeMap<NodeId, Obstacle>,
    /// The time within which a quorum answered this node's requests for votes when it last had no
    /// leader, with the voters' disks in it; none if it has not answered twice.
    #[serde(with = "crate::text::duration::option")]
    pub round_trip: Option<Duration>,
    /// That round trip is too long for the settings: no leader can last.
    pub unfit_timing: Option<UnfitTiming>,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader of this term, when known.
    pub leader: Option<NodeId>,
    /// It campaigns only when it is told to: [`Config::elections`] is off.
    pub passive: bool,
    /// The last entry of its log.
    pub last_log_id: LogId,
    /// The disk is full: entries of this group wait for space. It takes no commands as leader, goes
    /// on reading, and goes on by itself when there is space. It still votes, and may campaign: if
    /// all nodes that have space are gone, somebody must lead for reads to go on, and a leader that
    /// is not needed transfers leadership.
    pub storage_full: bool,
    /// Up to here its log is durable.
    pub durable: Index,
    /// Up to here it knows the log to be committed.
    pub committed: Index,
    /// How often, in this run, a leader has told of another entry in the place of a committed one.
    /// None of that was taken. It is 0 unless messages are forged or the disks of other nodes were
    /// put back: then this node's store may be the only one with all acknowledged writes.
    pub contradictions: u64,
    /// Up to here its state machine has applied.
    pub applied: Index,
    /// The last entry that its snapshot covers; [`LogId::ZERO`] without one.
    pub snapshot: LogId,
    /// The last entry that is purged from its log.
    pub purged: LogId,
    /// Error of the last snapshot attempt; cleared on success. The group goes on, and its log
    /// grows.
    pub snapshot_error: Option<SnapshotError>,
    /// The configuration in force; none before the group is formed.
    pub membership: Option<Membership>,
    /// It was removed from the group, and takes part in it no more. Its data is kept. Its
    /// [`membership`](Self::membership) may still be one that names it.
    pub removed: bool,
    /// On a leader: how far the change of the membership is that is under way.
    pub change: Option<ChangeProgress>,
    /// How many messages the transport has dropped since it was made, of all groups that share it:
    /// for peers that can't be reached, and for those that are too slow. Raft repeats what matters,
    /// but a number that rises fast, while all nodes run, means that a limit is too small.
    pub dropped_messages: u64,
    /// On a leader: its peers.
    pub peers: BTreeMap<Replica, PeerMetrics>,
    /// Whether the group runs here, or how it has ended. The last metrics that are published say
    /// that it has ended. Then it has no leader that this node knows of, is no leader itself, and
    /// waits for nobody; the other fields are as they were.
    pub state: GroupState,
}

impl Metrics {
    /// The group has ended, and so do these metrics.
    pub(crate) fn end(&mut self, state: GroupState) {
        self.state = state;
        self.role = Role::Follower;
        self.leader = None;
        self.waits_for.clear();
        self.change = None;
        self.peers.clear();
    }

    /// Why a request finds no leader now, or none that answers, as far as the node knows.
    pub fn hindrance(&self) -> Hindrance {
        Hindrance::of(self)
    }
}

/// How far a change of the membership is, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeProgress {
    /// The change.
    pub id: ChangeId,
    /// The nodes that its next step waits for, and why. If there are none, it waits until the
    /// configuration in force is committed, or until another node has taken the leadership over.
    pub waits_for: BTreeMap<NodeId, ChangeWait>,
}

/// Why a change waits for a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeWait {
    /// It is no member yet, because of this.
    Obstacle(Obstacle),
    /// It is a learner that has not caught up, or has not kept up for long enough.
    CatchingUp {
        /// So many entries are committed that it does not have.
        behind: u64,
        /// The bytes of the snapshot that it is being sent: how many it has, and how many there
        /// are.
        snapshot: Option<(u64, u64)>,
        /// When it will have caught up, at the pace of the last seconds; none if it does not come
        /// nearer, or that is not known yet.
        #[serde(with = "crate::text::duration::option")]
        left: Option<Duration>,
    },
}

impl fmt::Display for ChangeWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Obstacle(obstacle) => obstacle.fmt(f),
            Self::CatchingUp { behind, snapshot, left } => {
                match snapshot {
                    Some((stored, bytes)) => {
                        write!(f, "it has {stored} of the {bytes} bytes of a snapshot")?;
                    }
                    None => write!(f, "it is {behind} entries behind")?,
                }
                match left {
                    Some(left) => write!(f, ", for {} s more", left.as_secs()),
                    None => Ok(()),
                }
            }
        }
    }
}

/// The round trip between the nodes is too long for their settings: see
/// [`Metrics::unfit_timing`].
///
/// ```
/// use std::time::Duration;
///
/// use quorate_core::{Config, UnfitTiming};
///
/// let config = Config::default(); // With an election timeout of 1 s.
/// let ms = Duration::from_millis;
/// assert_eq!(UnfitTiming::of(ms(300), &config), None);
/// let unfit = UnfitTiming::of(ms(1400), &config).expect("longer than that");
/// assert_eq!(unfit.fitting_election_timeout(), ms(4200));
/// assert_eq!(unfit.fitting_heartbeat_interval(), ms(420));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnfitTiming {
    /// The time within which a quorum has answered.
    #[serde(with = "crate::text::duration")]
    pub round_trip: Duration,
    /// The present [`Config::election_timeout`].
    #[serde(with = "crate::text::duration")]
    pub election_timeout: Duration,
    /// The present [`Config::heartbeat_interval`].
    #[serde(with = "crate::text::duration")]
    pub heartbeat_interval: Duration,
}

impl UnfitTiming {
    /// Compares a round trip with the settings. Returns none if they can work.
    ///
    /// A leader steps down when no quorum has answered it for an election timeout, and the first
    /// answer to it comes one round trip after it was elected. So if a round trip takes an election
    /// timeout or more, each leader steps down before it is answered. With a shorter one leaders
    /// last, although elections may take several attempts.
    pub fn of(round_trip: Duration, config: &Config) -> Option<Self> {
        let Config { election_timeout, heartbeat_interval, .. } = *config;
        let unfit = round_trip >= election_timeout;
        unfit.then_some(Self { round_trip, election_timeout, heartbeat_interval })
    }

    /// What [`Config::election_timeout`] should be at least: three round trips, so that a message
    /// that is lost and sent again costs no election. It is rounded up to 100 ms.
    pub fn fitting_election_timeout(&self) -> Duration {
        let millis = (3 * self.round_trip).as_millis().div_ceil(100).saturating_mul(100);
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// What [`Config::heartbeat_interval`] should be then: a tenth of it, as by default.
    pub fn fitting_heartbeat_interval(&self) -> Duration {
        self.fitting_election_timeout() / 10
    }
}

impl fmt::Display for UnfitTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let election = self.fitting_election_timeout().as_millis();
        let heartbeat = self.fitting_heartbeat_interval().as_millis();
        write!(
            f,
            "a quorum of the voters answers after {} ms, but the election timeout is {} ms (with a \
             heartbeat interval of {} ms), so that each leader steps down before it is answered: \
             set election_timeout to at least {election} ms and heartbeat_interval to {heartbeat} \
             ms on all nodes",
            self.round_trip.as_millis(),
            self.election_timeout.as_millis(),
            self.heartbeat_interval.as_millis(),
        )
    }
}

/// Why a node is waited for, while a group is being formed or has no leader: see
/// [`Metrics::waits_for`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obstacle {
    /// Nothing is heard of it, and the transport doesn't know why.
    Silent,
    /// It can't be reached.
    Unreachable {
        /// Where it was tried.
        address: String,
        /// What came of it.
        reason: String,
    },
    /// It is reached, and nothing is heard of it.
    Unheard {
        /// This node's own address, as it tells its peers: where it should be reached by that one.
        address: String,
    },
    /// This node exchanges nothing with it.
    Refused {
        /// Why.
        reason: String,
    },
    /// It exchanges nothing with this node.
    Refuses {
        /// Why.
        reason: String,
    },
    /// Its node is reached, and runs on another store than the configuration names.
    OtherStore {
        /// The replica that is there.
        lives: Replica,
        /// Nothing was ever written to that store.
        is_empty: bool,
    },
    /// It wants to talk to another store of this node.
    KnowsOther {
        /// The replica that it asks for.
        asked: Replica,
    },
    /// It is reached, and does not vote for this node.
    NoVote,
    /// It answers, and the others are waited for.
    Forming,
    /// It has promised to be part of the group as another list of nodes founds it.
    Promised {
        /// Who founds that one.
        founder: NodeId,
        /// The ids of its list.
        ids: BTreeSet<NodeId>,
    },
    /// It belongs to a group that was formed of this list: the present node has lost its disk, and
    /// waits to be let in.
    Formed,
    /// Its store belongs to another cluster.
    OtherCluster,
    /// It was told another list of nodes than the group was founded with.
    OtherList {
        /// The ids of its list.
        ids: BTreeSet<NodeId>,
    },
    /// It has been removed from the group.
    Spent,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("nothing is heard of it"),
            Self::Unreachable { address, reason } => {
                write!(f, "it can't be reached at {address}: {reason}")
            }
            Self::Unheard { address } => write!(
                f,
                "it is reached, but has not answered; can it reach this node at {address}?"
            ),
            Self::Refused { reason } => write!(f, "this node refuses it: {reason}"),
            Self::Refuses { reason } => write!(f, "it refuses this node: {reason}"),
            Self::OtherStore { lives, is_empty: true } => write!(
                f,
                "it answers with an empty disk, {lives}: the one that is a member was lost, or it was started on another folder"
            ),
            Self::OtherStore { lives, is_empty: false } => write!(
                f,
                "it runs on another disk, {lives}, than this node's configuration names: it has exchanged a lost one, or runs on a wrong folder, or this node does"
            ),
            Self::KnowsOther { asked } => write!(
                f,
                "it knows this node by another disk, {asked}: one of the two has taken the place of the other, or one of the nodes runs on a wrong folder"
            ),
            Self::NoVote => f.write_str(
                "it is reached and does not vote for this node: its log is longer, it hears a leader, or its configuration doesn't name this replica, which may have been replaced by this node's next disk",
            ),
            Self::Forming => f.write_str("it is ready to form the group, and waits as well"),
            Self::Promised { founder, ids } => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "it has promised node {founder} to be part of the group of the nodes {}; only if none of these is a member of that group, remove the group from all of them, node {founder} first (`Node::remove`; an empty folder, on a node without other groups)",
                    ids.join(", ")
                )
            }
            Self::Formed => f.write_str(
                "it is a member of the group, which was formed before this disk was empty: the group's leader has to let this disk in",
            ),
            Self::OtherList { ids } => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                let list = ids.join(", ");
                write!(f, "it was told to form a group of nodes {list}, and not to join one")
            }
            Self::OtherCluster => f.write_str("its store belongs to another cluster"),
            Self::Spent => f.write_str("it has been removed from the group"),
        }
    }
}

/// What a leader knows of a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerMetrics {
    /// Up to here the peer's log is known to be the leader's, and durable.
    pub matched: Index,
    /// How long ago the peer was last heard from, when this was published; none if never in this
    /// term.
    #[serde(with = "crate::text::duration::option")]
    pub last_contact: Option<Duration>,
    /// What has been sent to it and not been acknowledged, in bytes.
    pub inflight_bytes: usize,
    /// Of a snapshot that is being sent to it: how much it has, and how much there is, in bytes.
    pub snapshot: Option<(u64, u64)>,
}
