//! The steps of a change before it is made, and how many failures each of them tolerates.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::target::ids;
use super::{Membership, Target};
use crate::error::{ChangeRefusal, Nodes};
use crate::types::NodeId;

/// The way from one configuration to another: see [`Membership::plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How many voters may fail now without the group losing its quorum, in the worst case.
    pub tolerates_now: usize,
    /// The same at the worst of the steps, the last one included.
    pub tolerates_at_least: usize,
    /// What is done, in order.
    pub steps: Vec<PlanStep>,
}

/// A step of a change, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PlanStep {
    /// Addresses or priorities of members are changed, at once.
    Update(BTreeSet<NodeId>),
    /// These nodes are let in as learners. It waits until each has answered at its address.
    AddLearners(BTreeSet<NodeId>),
    /// It waits until these nodes have caught up, for as long as
    /// [`catch_up`](crate::ChangeOptions::catch_up) says.
    CatchUp(BTreeSet<NodeId>),
    /// Majorities of both sets of voters must agree from here on. It waits until both have it.
    Joint {
        /// Who votes from then on.
        incoming: BTreeSet<NodeId>,
        /// Who voted before.
        outgoing: BTreeSet<NodeId>,
    },
    /// The leader has no vote in the target, and transfers leadership to one of these.
    TransferLeadership(BTreeSet<NodeId>),
    /// The target is in force. It waits until a majority of its voters has that.
    Reach(Target),
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |of: &BTreeSet<NodeId>| ids(of.iter().copied());
        match self {
            Self::Update(nodes) => write!(f, "update {}", Nodes(nodes)),
            Self::AddLearners(nodes) if nodes.len() == 1 => {
                write!(f, "add {} as a learner, when it answers", Nodes(nodes))
            }
            Self::AddLearners(nodes) => {
                write!(f, "add {} as learners, when they answer", Nodes(nodes))
            }
            Self::CatchUp(nodes) if nodes.len() == 1 => {
                write!(f, "wait until {} has caught up", Nodes(nodes))
            }
            Self::CatchUp(nodes) => write!(f, "wait until {} have caught up", Nodes(nodes)),
            Self::Joint { incoming, outgoing } => {
                write!(f, "voters {} joint with {}", list(incoming), list(outgoing))
            }
            Self::TransferLeadership(nodes) => {
                write!(f, "transfer leadership to one of {}", list(nodes))
            }
            Self::Reach(target) => write!(f, "voters {target}"),
        }
    }
}

/// How many of so many voters may fail.
const fn tolerance(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
}

impl Membership {
    /// How many voters may fail in this configuration without it losing its quorum, in the worst
    /// case.
    pub fn tolerates(&self) -> usize {
        let voters = self.voters();
        let incoming = tolerance(voters.incoming().len());
        match voters.is_joint() {
            true => incoming.min(tolerance(voters.outgoing().len())),
            false => incoming,
        }
    }

    /// The steps to a target, and how many failures they tolerate. `leader` is the node that leads
    /// now, if that is known. Nothing is changed.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: it can't be one.
    pub fn plan(&self, target: &Target, leader: Option<NodeId>) -> Result<Plan, ChangeRefusal> {
        target.check().map_err(ChangeRefusal::Target)?;
        let base: BTreeSet<NodeId> = self.base().iter().map(|voter| voter.id).collect();
        let voters: BTreeSet<NodeId> = target.voters().collect();
        let present = self.present();
        let mut steps = Vec::new();
        let updated = |(id, member): &(&NodeId, &super::Member)| {
            let before = present.members.get(id);
            before.is_some_and(|before| {
                (&before.address, before.priority) != (&member.address, member.priority)
            })
        };
        let of = |ids: BTreeSet<NodeId>, step: fn(BTreeSet<NodeId>) -> PlanStep| {
            (!ids.is_empty()).then(|| step(ids))
        };
        let updates = target.members.iter().filter(updated).map(|(id, _)| *id).collect();
        steps.extend(of(updates, PlanStep::Update));
        let is_new = |id: &&NodeId| !self.members().keys().any(|member| member.id == **id);
        let learners = target.members.keys().filter(is_new).copied().collect();
        steps.extend(of(learners, PlanStep::AddLearners));
        let mut lowest = self.tolerates().min(tolerance(voters.len()));
        let is_reached = !self.voters().is_joint() && voters == base;
        if !is_reached {
            let promoted = voters.difference(&base).copied().collect();
            steps.extend(of(promoted, PlanStep::CatchUp));
            if voters != base {
                lowest = lowest.min(tolerance(base.len()));
                steps.push(PlanStep::Joint { incoming: voters.clone(), outgoing: base.clone() });
            }
        }
        if leader.is_some_and(|leader| !voters.contains(&leader)) {
            steps.push(PlanStep::TransferLeadership(voters));
        }
        if present != *target || self.voters().is_joint() {
            steps.push(PlanStep::Reach(target.clone()));
        }
        Ok(Plan { tolerates_now: self.tolerates(), tolerates_at_least: lowest, steps })
    }
}
