//! Who is who: replicas, clusters, claims on empty stores, and what replicas remember of each
//! other.
//!
//! A (node id, incarnation) is a Raft server. A lost disk is a crash for ever: whoever comes back
//! under the same node id with an empty disk is another server. `docs/divergence.md` has the
//! argument.

use std::collections::BTreeSet;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use litemap::LiteMap;

use crate::text::serde_as_text;
use crate::types::{LogId, NodeId, Term};

/// A Raft server: a node and the disk it runs on.
///
/// Whatever is counted, voted for, followed or addressed is a replica, never only a node: after a
/// disk was lost, the node's next store is another replica.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// The node.
    pub id: NodeId,
    /// Drawn at random when its store was created; 0 stands for "whichever store the node has now".
    pub incarnation: u64,
}

impl Replica {
    /// A replica from its parts.
    pub const fn new(id: NodeId, incarnation: u64) -> Self {
        Self { id, incarnation }
    }

    /// Whichever store this node has now: an address for those who don't know its incarnation.
    pub const fn any(id: NodeId) -> Self {
        Self { id, incarnation: 0 }
    }

    /// Whether the incarnation is known.
    pub const fn is_known(&self) -> bool {
        self.incarnation != 0
    }
}

impl fmt::Display for Replica {
    /// The node id and the first four hexadecimal digits of the incarnation, which are enough for a
    /// reader.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.incarnation {
            0 => write!(f, "{}", self.id),
            incarnation => write!(f, "{}/{:04x}", self.id, incarnation >> 48),
        }
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.id, self.incarnation)
    }
}

impl FromStr for Replica {
    type Err = String;

    /// Reads the form in which serde writes it: the node id and all digits of the incarnation, as
    /// in `2/3f2a00000000abcd`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(id, incarnation)| {
            Some((id.parse().ok()?, u64::from_str_radix(incarnation, 16).ok()?))
        });
        let (id, incarnation) = parts.ok_or_else(|| format!("{text:?} is no replica"))?;
        Ok(Self { id, incarnation })
    }
}

/// The identity of a cluster: 128 random bits, drawn when it is formed.
///
/// The TCP handshake uses it as a key, so treat it like a password where strangers reach the peer
/// port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    /// Its beginning: what is printed for debugging may be read by anybody.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}…", self.0 >> 112)
    }
}

impl FromStr for ClusterId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

serde_as_text! {
    Replica => "{}/{:016x}"(id, incarnation);
}

/// What a store knows of itself when a node starts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the store was created, and never 0.
    pub incarnation: u64,
    /// The cluster that the store belongs to; none before one of its groups has joined one.
    pub cluster: Option<ClusterId>,
    /// How many times a node has started on this store, this one included.
    pub boot: u64,
}

/// One run of a node on a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Boot {
    /// How often a node has started on the store, durably. The first is 1; 0 stands for a run that
    /// is not known.
    pub number: u64,
    /// Drawn at random for this run. Two runs with one number and two tags are two copies of a
    /// store.
    pub tag: u64,
}

impl Boot {
    /// Whether this boot is a later one than `now`, or a twin of it: another one of the same
    /// number.
    pub fn is_after(self, now: Self) -> bool {
        self.number > now.number
            || self.number == now.number && self.tag != now.tag && self.number > 0
    }
}

/// A founder's attempt to form a cluster of the nodes of a list. A store that has accepted one
/// makes no other promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What the cluster will be called if this attempt succeeds.
    pub cluster: ClusterId,
    /// Attempts are ordered by it: a later one of the same founder takes the place of an earlier
    /// one.
    pub ballot: u64,
    /// Who makes the attempt: the node with the lowest id of the list.
    pub founder: Replica,
    /// The nodes and their addresses.
    pub list: Arc<LiteMap<NodeId, String>>,
}

impl Claim {
    /// The ids of its list.
    pub fn ids(&self) -> BTreeSet<NodeId> {
        self.list.keys().copied().collect()
    }
}

/// What a group of a store that has no log yet has promised, and whether one with a log is out of
/// use. It is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It has promised nothing.
    #[default]
    Empty,
    /// It has accepted this claim, and none of another store. It will begin its log with the first
    /// entry of that cluster.
    Claimed(Claim),
    /// It has accepted this claim, and before that one of another store of the same node: a founder
    /// has lost its disk, or two copies of one run. The list stays the same from here on.
    Contested(Claim),
    /// A member of this cluster has let it in.
    Admitted(ClusterId),
    /// It was a voter, and has committed a configuration without itself: it campaigns no more. Or
    /// it was [removed](crate::Node::remove) from the store, which has forgotten what it promised:
    /// then its log is empty, and it takes no part any more.
    Spent,
}

impl Standing {
    /// The cluster that it will begin its log with, if it has promised that.
    pub fn cluster(&self) -> Option<ClusterId> {
        match self {
            Self::Claimed(claim) | Self::Contested(claim) => Some(claim.cluster),
            Self::Admitted(cluster) => Some(*cluster),
            Self::Empty | Self::Spent => None,
        }
    }

    /// The claim that it has accepted, if any.
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Claimed(claim) | Self::Contested(claim) => Some(claim),
            Self::Empty | Self::Admitted(_) | Self::Spent => None,
        }
    }
}

/// What one replica remembers of another, from what that one has made durable before it said so. A
/// replica that has less than its peers remember of it has been put back to an earlier state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its highest term.
    pub term: Term,
    /// The latest term in which it has voted for whoever remembers; 0 for none.
    pub voted: Term,
    /// The highest entry that it has acknowledged.
    pub acknowledged: LogId,
    /// The highest one of these that is known to be committed.
    pub committed: LogId,
    /// The latest run of it in which it has shown any of this; all of it was shown in this run or
    /// in earlier ones. Number 0 if it is not known.
    pub boot: Boot,
}

/// How a run of a replica began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The tag of its boot.
    pub tag: u64,
    /// The term that the store knew then.
    pub term: Term,
    /// The last entry of its log then.
    pub last: LogId,
}

/// How many of its latest starts a replica knows, of those in which something was written. A peer
/// that was away for more of them can't tell that the store was put back meanwhile.
pub const MAX_STARTS: usize = 8;

/// Of how many replicas a memory is kept: as many as a configuration has members, twice, as one may
/// follow on another.
pub const MAX_MEMORIES: usize = 2 * crate::membership::MAX_NODES;

/// What a store keeps beside its log, written lazily with later records, so that a restart of all
/// nodes forgets none of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Up to here the log was known to be committed.
    pub committed: LogId,
    /// What is remembered of others, at most [`MAX_MEMORIES`].
    pub memories: LiteMap<Replica, Memory>,
    /// How its own runs began, by the numbers of their boots: the latest [`MAX_STARTS`] of those in
    /// which something was written. If a peer remembers a run of the same number and another tag,
    /// or a term or entries that a later run did not begin with, the store was put back.
    pub starts: LiteMap<u64, Start>,
}

#[cfg(test)]
mod tests;
