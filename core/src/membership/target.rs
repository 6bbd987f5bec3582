//! What a configuration is to become: whole, by node ids. The replicas are learned by the leader.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{MAX_NODES, Membership, check_list};
use crate::error::ChangeRefusal;
use crate::types::NodeId;

/// The members that a group is to have.
///
/// It lists all members: one that is not listed is removed. Make one from the present
/// configuration:
///
/// ```
/// # use quorate_core::{ChangeRefusal, Membership};
/// # fn of(membership: &Membership) -> Result<(), ChangeRefusal> {
/// let target = membership.target().with_voter(4, "10.0.0.4:7001")?.without(1)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The members, by the ids of their nodes.
    pub members: BTreeMap<NodeId, Member>,
}

/// One of the members that a group is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where the others reach it.
    pub address: String,
    /// Whether it votes.
    pub role: MemberRole,
    /// Which of several nodes should lead: one with a higher priority than the leader takes the
    /// leadership over when it has all of the log and has been heard for a while. Usually 0.
    pub priority: u8,
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberRole {
    /// It votes, and may lead.
    Voter,
    /// It gets the log, and answers reads. It does not count for quorums.
    Learner,
}

impl Target {
    /// With this node as a further voter. It is let in as a learner, and gets its vote when it has
    /// caught up.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the node is a member already.
    pub fn with_voter(self, id: NodeId, address: impl Into<String>) -> Result<Self, ChangeRefusal> {
        self.with(id, address.into(), MemberRole::Voter)
    }

    /// With this node as a further learner.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the node is a member already.
    pub fn with_learner(
        self,
        id: NodeId,
        address: impl Into<String>,
    ) -> Result<Self, ChangeRefusal> {
        self.with(id, address.into(), MemberRole::Learner)
    }

    fn with(
        mut self,
        id: NodeId,
        address: String,
        role: MemberRole,
    ) -> Result<Self, ChangeRefusal> {
        if let Some(member) = self.members.get(&id) {
            let at = &member.address;
            return Err(ChangeRefusal::Target(format!("node {id} is a member already, at {at}")));
        }
        self.members.insert(id, Member { address, role, priority: 0 });
        Ok(self)
    }

    /// Without this node.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the node is no member.
    pub fn without(mut self, id: NodeId) -> Result<Self, ChangeRefusal> {
        self.member(id)?;
        self.members.remove(&id);
        Ok(self)
    }

    /// With a vote for this member.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the node is no member.
    pub fn promoted(mut self, id: NodeId) -> Result<Self, ChangeRefusal> {
        self.member(id)?.role = MemberRole::Voter;
        Ok(self)
    }

    /// Without the vote of this member, which stays as a learner.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the node is no member.
    pub fn demoted(mut self, id: NodeId) -> Result<Self, ChangeRefusal> {
        self.member(id)?.role = MemberRole::Learner;
        Ok(self)
    }

    /// With another node in the place of this one, in the same role and with the same priority.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: `old` is no member, or `new` is one already, also as `old`. (A
    /// new disk of the same node takes its place by itself.)
    pub fn replaced(
        mut self,
        old: NodeId,
        new: NodeId,
        address: impl Into<String>,
    ) -> Result<Self, ChangeRefusal> {
        let Member { role, priority, .. } = self.member(old)?.clone();
        let mut target = self.with(new, address.into(), role)?;
        target.members.remove(&old);
        target.member(new)?.priority = priority;
        Ok(target)
    }

    /// With another address of this member. The others try the new address first from then on, and
    /// the old one after it; the node may be started there before or after.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the node is no member.
    pub fn moved(mut self, id: NodeId, address: impl Into<String>) -> Result<Self, ChangeRefusal> {
        self.member(id)?.address = address.into();
        Ok(self)
    }

    /// With another priority of this member: see [`Member::priority`].
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the node is no member.
    pub fn preferring(mut self, id: NodeId, priority: u8) -> Result<Self, ChangeRefusal> {
        self.member(id)?.priority = priority;
        Ok(self)
    }

    fn member(&mut self, id: NodeId) -> Result<&mut Member, ChangeRefusal> {
        let missing = || ChangeRefusal::Target(format!("node {id} is no member"));
        self.members.get_mut(&id).ok_or_else(missing)
    }

    /// The ids of its voters.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        let votes = |(_, member): &(&NodeId, &Member)| member.role == MemberRole::Voter;
        self.members.iter().filter(votes).map(|(id, _)| *id)
    }

    /// Checks what must hold of a target by itself.
    ///
    /// Errors: a sentence that says what is wrong: no voter, or what
    /// [`check_list`](super::check_list) finds.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.members.len() > MAX_NODES {
            return Err(format!("{} nodes are more than {MAX_NODES}", self.members.len()));
        }
        check_list(&self.members.iter().map(|(id, m)| (*id, m.address.clone())).collect())?;
        match self.voters().next() {
            Some(_) => Ok(()),
            None => Err("nobody would vote".to_owned()),
        }
    }
}

impl fmt::Display for Target {
    /// Its voters, and its learners where there are any: `1, 2, 3` and `1, 2, 3, learners 4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ids(self.voters()))?;
        let learns = |(_, member): &(&NodeId, &Member)| member.role == MemberRole::Learner;
        let learners = ids(self.members.iter().filter(learns).map(|(id, _)| *id));
        if learners.is_empty() { Ok(()) } else { write!(f, ", learners {learners}") }
    }
}

/// `1, 2, 3`.
pub(super) fn ids(of: impl IntoIterator<Item = NodeId>) -> String {
    of.into_iter().map(|id| id.to_string()).collect::<Vec<_>>().join(", ")
}

impl Membership {
    /// What this configuration is, or is becoming: a place to begin from for the next target.
    pub fn target(&self) -> Target {
        match self.change() {
            Some(change) => change.target.clone(),
            None => self.present(),
        }
    }

    /// What this configuration is. Of a joint one, what it is coming from.
    pub(super) fn present(&self) -> Target {
        let voters = self.base();
        let mut members = BTreeMap::new();
        for (replica, address) in self.members() {
            let is_of = |voter: &&crate::identity::Replica| voter.id == replica.id;
            let role = match voters.iter().find(is_of) {
                Some(_) => MemberRole::Voter,
                // Who votes in the incoming half only was no voter before.
                None => MemberRole::Learner,
            };
            let priority = self.priority(replica.id);
            members.insert(replica.id, Member { address: address.clone(), role, priority });
        }
        Target { members }
    }
}
