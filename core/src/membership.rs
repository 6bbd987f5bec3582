//! A configuration: who belongs to a cluster, who votes, and where each replica is reached; and how
//! one follows from another.
//!
//! Everything here is pure. A change that would be a new configuration is a function from a
//! configuration to the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::identity::{ClusterId, Replica};
use crate::quorum::Voters;
use crate::types::NodeId;

/// The configuration of a group: its members, which of them vote, and the addresses at which they
/// are reached.
///
/// It names replicas, not nodes: while a lost disk is exchanged, it holds the old and the new
/// replica of one node, and never more than these two of a node.
///
/// A clone is a reference: configurations travel with messages and writes, and are seldom new.
#[derive(Clone, PartialEq, Eq)]
pub struct Membership(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    cluster: ClusterId,
    founders: BTreeSet<NodeId>,
    members: BTreeMap<Replica, String>,
    voters: Voters,
}

/// The most members of a configuration. A larger quorum only makes each write slower; the bound
/// keeps what a peer or a disk can make us allocate small.
pub const MAX_NODES: usize = 64;

/// The longest address, in bytes: longer than any host name.
pub const MAX_ADDRESS_BYTES: usize = 512;

/// Checks the nodes that a cluster is to be formed of.
///
/// Errors: a sentence that says what is wrong: no node, an id of 0, more than [`MAX_NODES`], an
/// address that is longer than [`MAX_ADDRESS_BYTES`], two nodes with one address.
pub fn check_list(list: &BTreeMap<NodeId, String>) -> Result<(), String> {
    if list.is_empty() {
        return Err("a cluster needs at least one node".to_owned());
    }
    if list.len() > MAX_NODES {
        return Err(format!("{} nodes are more than {MAX_NODES}", list.len()));
    }
    let mut nodes = BTreeMap::<&str, NodeId>::new();
    for (id, address) in list {
        if *id == 0 {
            return Err("a node id must not be 0".to_owned());
        }
        if address.is_empty() {
            return Err(format!("node {id} has no address"));
        }
        if address.len() > MAX_ADDRESS_BYTES {
            return Err(format!(
                "the address of node {id} is longer than {MAX_ADDRESS_BYTES} bytes"
            ));
        }
        if let Some(other) = nodes.insert(address, *id) {
            return Err(format!("nodes {other} and {id} have the same address, {address}"));
        }
    }
    Ok(())
}

impl Membership {
    /// A configuration from its parts.
    ///
    /// Errors: a sentence that says what is wrong: no voter or founder, a voter that is no member,
    /// an id or an incarnation of 0, a node with three replicas, more than [`MAX_NODES`] members,
    /// an address longer than [`MAX_ADDRESS_BYTES`].
    pub fn new(
        cluster: ClusterId,
        founders: BTreeSet<NodeId>,
        members: BTreeMap<Replica, String>,
        voters: Voters,
    ) -> Result<Self, String> {
        if voters.incoming().is_empty() {
            return Err("a configuration needs at least one voter".to_owned());
        }
        if founders.is_empty() || founders.contains(&0) || founders.len() > MAX_NODES {
            return Err("a configuration needs the ids of its founders".to_owned());
        }
        if members.len() > MAX_NODES {
            return Err(format!("{} members are more than {MAX_NODES}", members.len()));
        }
        if let Some(voter) = voters.iter().find(|voter| !members.contains_key(voter)) {
            return Err(format!("replica {voter} votes and is no member"));
        }
        let mut replicas = BTreeMap::<NodeId, usize>::new();
        for (replica, address) in &members {
            if replica.id == 0 || !replica.is_known() {
                return Err("a node id and an incarnation must not be 0".to_owned());
            }
            if address.len() > MAX_ADDRESS_BYTES {
                return Err(format!(
                    "the address of node {} is longer than {MAX_ADDRESS_BYTES} bytes",
                    replica.id
                ));
            }
            let count = replicas.entry(replica.id).or_default();
            *count += 1;
            if *count > 2 {
                return Err(format!("node {} has more than two replicas", replica.id));
            }
        }
        Ok(Self(Arc::new(Parts { cluster, founders, members, voters })))
    }

    /// The first configuration of a cluster: all of its founders vote.
    ///
    /// Errors: those of [`new`](Self::new).
    pub fn founding(
        cluster: ClusterId,
        members: BTreeMap<Replica, String>,
    ) -> Result<Self, String> {
        let founders = members.keys().map(|replica| replica.id).collect();
        let voters = Voters::simple(members.keys().copied());
        Self::new(cluster, founders, members, voters)
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.0.cluster
    }

    /// The ids of the list that the cluster was founded with, whatever has changed since.
    pub fn founders(&self) -> &BTreeSet<NodeId> {
        &self.0.founders
    }

    /// The members and their addresses.
    pub fn members(&self) -> &BTreeMap<Replica, String> {
        &self.0.members
    }

    /// Who votes.
    pub fn voters(&self) -> &Voters {
        &self.0.voters
    }

    /// The nodes of its members and their addresses.
    pub fn nodes(&self) -> BTreeMap<NodeId, String> {
        self.0.members.iter().map(|(replica, address)| (replica.id, address.clone())).collect()
    }

    /// Whether this replica belongs to it, with a vote or without.
    pub fn is_member(&self, replica: Replica) -> bool {
        self.0.members.contains_key(&replica)
    }

    /// Whether this replica votes, in one of the halves of a joint configuration at least.
    pub fn is_voter(&self, replica: Replica) -> bool {
        self.0.voters.contains(replica)
    }

    /// The members without a vote.
    pub fn learners(&self) -> impl Iterator<Item = Replica> {
        self.0.members.keys().copied().filter(|replica| !self.is_voter(*replica))
    }

    /// Where a node is reached.
    pub fn address(&self, id: NodeId) -> Option<&str> {
        let mut of_node = self.0.members.range(Replica::any(id)..=Replica::new(id, u64::MAX));
        of_node.next().map(|(_, address)| address.as_str())
    }

    /// This configuration with a further member, which does not vote and is reached where its node
    /// is.
    pub(crate) fn with_learner(&self, learner: Replica) -> Result<Self, String> {
        let address = self.address(learner.id).ok_or("the node is no member")?.to_owned();
        let mut members = self.0.members.clone();
        members.insert(learner, address);
        Self::new(self.0.cluster, self.0.founders.clone(), members, self.0.voters.clone())
    }

    /// This configuration without a learner.
    pub(crate) fn without_learner(&self, learner: Replica) -> Result<Self, String> {
        let mut members = self.0.members.clone();
        members.remove(&learner);
        Self::new(self.0.cluster, self.0.founders.clone(), members, self.0.voters.clone())
    }

    /// The joint configuration in which `new` takes the place of the voter `old` (thesis 4.3).
    pub(crate) fn exchanging(&self, old: Replica, new: Replica) -> Result<Self, String> {
        let outgoing = self.0.voters.incoming().iter().copied();
        let incoming = outgoing.clone().map(|voter| if voter == old { new } else { voter });
        let voters = Voters::joint(incoming, outgoing);
        Self::new(self.0.cluster, self.0.founders.clone(), self.0.members.clone(), voters)
    }

    /// What follows on a joint configuration: its incoming voters alone. Who voted in the outgoing
    /// half only is gone.
    pub(crate) fn left_joint(&self) -> Result<Self, String> {
        let voters = Voters::simple(self.0.voters.incoming().iter().copied());
        let leaves = |replica: &Replica| self.is_voter(*replica) && !voters.contains(*replica);
        let mut members = self.0.members.clone();
        members.retain(|replica, _| !leaves(replica));
        Self::new(self.0.cluster, self.0.founders.clone(), members, voters)
    }

    /// Its size as the limits count it: that of its binary form, by which a store can tell it
    /// without reading.
    pub(crate) fn bytes(&self) -> usize {
        crate::codec::membership_bytes(self)
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Membership {
    /// Its voters, and its learners where there are any: `1/3f2a, 2/771c, 3/9a0b` and `…, learners
    /// 3/1c22`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.voters, f)?;
        let learners: Vec<_> = self.learners().map(|learner| learner.to_string()).collect();
        match learners.is_empty() {
            true => Ok(()),
            false => write!(f, ", learners {}", learners.join(", ")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
