//! A configuration: who belongs to a cluster, who votes, and where each replica is reached; and how
//! one follows from another.
//!
//! Everything here is pure. A step of a change is a function from a configuration to the next one.
//!
//! | file | concern |
//! | --- | --- |
//! | `target.rs` | what a configuration is to become, by node ids |
//! | `change.rs` | a change that is under way: how it begins, what follows, how it ends |
//! | `plan.rs` | the steps of a change before it is made, and the failures they tolerate |

mod change;
mod plan;
mod target;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::identity::{ClusterId, Replica};
use crate::quorum::Voters;
use crate::types::NodeId;

pub(crate) use self::change::{Begun, Sight, Step};
pub use self::change::{
    Change, ChangeId, ChangeKind, ChangeOptions, ChangeReply, ChangeRequest, Ending, MAX_ENDED,
};
pub use self::plan::{Plan, PlanStep};
pub use self::target::{Member, MemberRole, Target};

/// The configuration of a group: its members, which of them vote, and the addresses at which they
/// are reached.
///
/// It names replicas, not nodes: while a lost disk is exchanged, it holds the old and the new
/// replica of one node, and never more than these two of a node.
///
/// A clone is a reference: configurations travel with messages and writes, and are seldom new.
///
/// Serde writes it, but for the id of the cluster, which is to be kept from strangers.
#[derive(Clone, PartialEq, Eq)]
pub struct Membership(Arc<Parts>);

/// What a configuration consists of.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Parts {
    #[serde(skip)]
    pub(crate) cluster: ClusterId,
    pub(crate) founders: BTreeSet<NodeId>,
    pub(crate) members: BTreeMap<Replica, String>,
    pub(crate) voters: Voters,
    /// Of the nodes that have another priority than 0.
    pub(crate) priorities: BTreeMap<NodeId, u8>,
    /// The change that was accepted last, whatever has become of it.
    pub(crate) last_change: ChangeId,
    /// The change that is under way.
    pub(crate) change: Option<Change>,
    /// How the last changes have ended, the latest one last: at most [`MAX_ENDED`].
    pub(crate) ended: Vec<(ChangeId, Ending)>,
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

thread_local! {
    /// The configuration that was made last: groups of the same nodes have equal ones. Each of
    /// 1,000 groups would have one of a kilobyte.
    static LAST: RefCell<Option<Membership>> = const { RefCell::new(None) };
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
        Self::assemble(Parts {
            cluster,
            founders,
            members,
            voters,
            priorities: BTreeMap::new(),
            last_change: ChangeId::default(),
            change: None,
            ended: Vec::new(),
        })
    }

    /// A configuration from its parts.
    ///
    /// Errors: those of [`new`](Self::new); a target that can't be one; more endings than
    /// [`MAX_ENDED`].
    pub(crate) fn assemble(parts: Parts) -> Result<Self, String> {
        let Parts { founders, members, voters, change, ended, .. } = &parts;
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
        for (replica, address) in members {
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
        if let Some(change) = change {
            change.target.check()?;
            change.before.check()?;
        }
        if ended.len() > MAX_ENDED {
            return Err(format!("{} endings are more than {MAX_ENDED}", ended.len()));
        }
        Ok(Self::shared(parts))
    }

    /// The configuration that was made last on this thread, if it is the same.
    fn shared(parts: Parts) -> Self {
        let made = Self(Arc::new(parts));
        let last = LAST.try_with(|last| match &mut *last.borrow_mut() {
            Some(last) if *last == made => last.clone(),
            last => last.insert(made.clone()).clone(),
        });
        last.unwrap_or(made) // The thread is about to end.
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0
    }

    /// This configuration with its parts changed.
    fn with(&self, change: impl FnOnce(&mut Parts)) -> Result<Self, String> {
        let mut parts = Parts::clone(&self.0);
        change(&mut parts);
        Self::assemble(parts)
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

    /// The priority of a node as leader: see [`Member::priority`].
    pub fn priority(&self, id: NodeId) -> u8 {
        self.0.priorities.get(&id).copied().unwrap_or_default()
    }

    /// Whether any node has another priority than 0.
    pub(crate) fn has_priorities(&self) -> bool {
        !self.0.priorities.is_empty()
    }

    /// The change that is under way.
    pub fn change(&self) -> Option<&Change> {
        self.0.change.as_ref()
    }

    /// The change that was accepted last, whatever has become of it: what the next one may be said
    /// to [follow](ChangeOptions::follows). Zero before the first one.
    pub fn last_change(&self) -> ChangeId {
        self.0.last_change
    }

    /// How the last changes have ended, at most [`MAX_ENDED`], the latest one last.
    pub fn endings(&self) -> impl DoubleEndedIterator<Item = (&ChangeId, &Ending)> {
        self.0.ended.iter().map(|(change, ending)| (change, ending))
    }

    /// How a change has ended, if it has, and is among the last [`MAX_ENDED`] that have.
    pub fn ending_of(&self, change: ChangeId) -> Option<&Ending> {
        let mut ended = self.0.ended.iter().rev();
        ended.find(|(id, _)| *id == change).map(|(_, ending)| ending)
    }

    /// Where a node is reached.
    pub fn address(&self, id: NodeId) -> Option<&str> {
        let mut of_node = self.0.members.range(Replica::any(id)..=Replica::new(id, u64::MAX));
        of_node.next().map(|(_, address)| address.as_str())
    }

    /// This configuration with a further member, which does not vote and is reached where its node
    /// is.
    pub(crate) fn with_learner(&self, learner: Replica) -> Result<Self, String> {
        let address = self.address_of_learner(learner.id).ok_or("the node is no member")?;
        self.with(|parts| {
            parts.members.insert(learner, address);
        })
    }

    /// This configuration with the new replica of a node in the place of its learner.
    pub(crate) fn replacing_learner(&self, old: Replica, new: Replica) -> Result<Self, String> {
        let address = self.address_of_learner(new.id).ok_or("the node is no member")?;
        self.with(|parts| {
            parts.members.remove(&old);
            parts.members.insert(new, address);
        })
    }

    /// This configuration without a learner.
    pub(crate) fn without_learner(&self, learner: Replica) -> Result<Self, String> {
        self.with(|parts| {
            parts.members.remove(&learner);
        })
    }

    /// The joint configuration in which `new` takes the place of the voter `old` (thesis 4.3).
    pub(crate) fn exchanging(&self, old: Replica, new: Replica) -> Result<Self, String> {
        let outgoing = self.0.voters.incoming().iter().copied();
        let incoming = outgoing.clone().map(|voter| if voter == old { new } else { voter });
        self.with(|parts| parts.voters = Voters::joint(incoming, outgoing))
    }

    /// What follows on a joint configuration: its incoming voters alone. Who voted in the outgoing
    /// half only is gone.
    pub(crate) fn left_joint(&self) -> Result<Self, String> {
        let voters = Voters::simple(self.0.voters.incoming().iter().copied());
        let leaves = |replica: &Replica| self.is_voter(*replica) && !voters.contains(*replica);
        self.with(|parts| {
            parts.members.retain(|replica, _| !leaves(replica));
            parts.voters = voters.clone();
        })
    }

    /// Its size as the limits count it: that of its binary form, by which a store can tell it
    /// without reading.
    pub(crate) fn bytes(&self) -> usize {
        crate::codec::membership_bytes(self)
    }
}

impl Serialize for Membership {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Parts::serialize(&self.0, to)
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
