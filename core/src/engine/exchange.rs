//! How a leader lets the new disk of a node in for a lost one.
//!
//! A node whose disk is lost comes back as another replica. That one is no member, so what it says
//! counts for nothing. The leader exchanges the two, one step after the other, each a configuration
//! of its own:
//!
//! 1. A voter has been silent for [`SILENT_TIMEOUTS`] election timeouts. The leader asks who lives
//!    at its address, and only who answers now is considered: incarnations have no order, and a
//!    late word must not swap the dead replica back in.
//! 2. An empty store is *admitted*: it notes the cluster durably before any configuration names it.
//! 3. It becomes a learner. If the silent voter comes back before the next step, the learner is
//!    removed.
//! 4. When the learner has all that is committed, a joint configuration gives it the vote; both
//!    halves must agree, so that no quorum of the old configuration can act without one of the new
//!    (thesis 4.3).
//! 5. When that is committed, the configuration without the old replica follows.
//!
//! The new disk of a learner takes the place of the lost one at once, in step 3.
//!
//! The steps follow from the configuration in force alone, so whoever leads by then goes on with
//! them. Nothing is done while a change is not committed, or before an entry of this term is, or
//! while a change of the membership is under way (`change.rs`). New members are let in in the same
//! way.

use std::collections::BTreeSet;
use std::fmt;
use std::mem;

use super::Common;
use super::leader::Leader;
use crate::identity::Replica;
use crate::membership::Membership;
use crate::message::{Body, Situation};
use crate::metrics::Obstacle;
use crate::plant;
use crate::types::{LogId, NodeId};

/// A voter is taken for lost when it has been silent for so many election timeouts: a reboot of the
/// machine is no reason.
pub(super) const SILENT_TIMEOUTS: u32 = 10;

/// Where a replica that is no member may be let in.
#[derive(Clone, Copy)]
enum Place {
    /// In the place of this member.
    Of(Replica),
    /// As a new member.
    New,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(lost) => write!(f, "that of {lost}, which is lost"),
            Self::New => f.write_str("that of a new member"),
        }
    }
}

impl Leader {
    pub(super) fn is_silent(&self, common: &Common, replica: Replica) -> bool {
        let silence = common.config.election_timeout * SILENT_TIMEOUTS;
        let heard = self.peers.get(&replica).map(|progress| progress.last_contact(common.now));
        heard.is_some_and(|heard| heard + silence <= common.now)
    }

    /// The silent replica of this node, if nobody takes its place yet who is not silent too: the
    /// one that votes, if one does.
    fn lost(&self, common: &Common, membership: &Membership, id: NodeId) -> Option<Replica> {
        let of_node = membership.members().keys().filter(|member| member.id == id);
        let is_lost = of_node.clone().all(|member| self.is_silent(common, *member));
        let voters = membership.voters().incoming();
        let voter = of_node.clone().find(|member| voters.contains(member));
        voter.or_else(|| of_node.clone().next()).copied().filter(|_| is_lost)
    }

    /// Asks who lives where members are silent.
    pub(super) fn look_for_new_disks(&mut self, common: &mut Common) {
        let due = self.asked_at + common.config.election_timeout <= common.now;
        if !due
            || common.has_change
            || !common.config.replace_lost_disks
            || !self.is_settled(common)
        {
            return;
        }
        let Some(membership) = common.membership() else { return };
        if membership.voters().is_joint()
            || !self.peers.keys().any(|peer| self.is_silent(common, *peer))
        {
            return;
        }
        let ids: BTreeSet<_> = membership.members().keys().map(|member| member.id).collect();
        let is_lost = |id: &NodeId| self.lost(common, membership, *id).is_some();
        let lost: Vec<_> = ids.into_iter().filter(is_lost).collect();
        if !lost.is_empty() {
            self.asked_at = common.now;
        }
        for id in lost {
            common.send(Replica::any(id), Body::Who { listed: BTreeSet::new() });
        }
    }

    /// The place that a replica of this node, which is no member, may take: that of a lost one, or
    /// one that a change has for its node.
    fn place_for(&self, common: &Common, membership: &Membership, id: NodeId) -> Option<Place> {
        if membership.change().is_some() {
            let is_of_node = |learner: &Replica| learner.id == id;
            let learner = membership.learners().find(is_of_node);
            let is_free = match learner {
                Some(learner) => self.is_silent(common, learner),
                None => membership.missing().any(|missing| missing == id),
            };
            return is_free.then_some(Place::New);
        }
        let may = common.config.replace_lost_disks && !membership.voters().is_joint();
        self.lost(common, membership, id).filter(|_| may).map(Place::Of)
    }

    /// A replica says what it has. It may be the new disk of a lost voter, or that of a new member.
    pub(super) fn on_situation(
        &mut self,
        common: &mut Common,
        from: Replica,
        situation: Situation,
        listed: &BTreeSet<NodeId>,
    ) {
        let Some(membership) = common.membership().cloned() else { return };
        let is_new = !membership.is_member(from) && from.is_known();
        let Some(place) = self.place_for(common, &membership, from.id).filter(|_| is_new) else {
            return;
        };
        if !self.is_settled(common) {
            return;
        }
        let founders = membership.founders().clone();
        let is_ours = |theirs: &BTreeSet<NodeId>| *theirs == founders;
        let obstacle = match situation {
            _ if !listed.is_empty() && !is_ours(listed) => {
                Obstacle::OtherList { ids: listed.clone() }
            }
            Situation::Member { founders: theirs, .. } if !is_ours(&theirs) => {
                Obstacle::OtherCluster
            }
            // Its promises as a voter were counted, and are not to be made again by less than it
            // had.
            Situation::Member { voter: true, .. } => {
                common.tell_removed(from, LogId::ZERO);
                Obstacle::Spent
            }
            Situation::Spent => Obstacle::Spent,
            Situation::Empty | Situation::Claimed { .. } => {
                let cluster = membership.cluster();
                return common.send(from, Body::Admit { cluster, founders });
            }
            // One with a log was let in before, and that exchange or change was given up.
            Situation::Admitted | Situation::Member { .. } => {
                self.change.obstacles.remove(&from.id);
                self.change.arrived.insert(from);
                return;
            }
            Situation::Elsewhere => Obstacle::OtherCluster,
        };
        if let Some(suppressed) = common.logs_stranger() {
            tracing::warn!(
                %from, %place, %obstacle,
                suppressed,
                "the store at the address of a node that is waited for is not let in: start that \
                 node with its last folder, or with an empty one"
            );
        }
        self.change.obstacles.insert(from.id, obstacle);
    }

    /// Lets those in, as learners, that have answered and may take a place. A learner of the same
    /// node that is silent as well gives way.
    pub(super) fn let_in(&mut self, common: &mut Common) -> bool {
        let Some(membership) = common.membership() else { return false };
        let mut next = Ok(membership.clone());
        let mut nodes = BTreeSet::new();
        for new in mem::take(&mut self.change.arrived) {
            // Of two stores of a node only one is let in at a time.
            let is_new = !membership.is_member(new) && nodes.insert(new.id);
            if !is_new || self.place_for(common, membership, new.id).is_none() {
                continue;
            }
            tracing::info!(%new, "lets a replica in, as a learner");
            let silent = membership.learners().find(|learner| learner.id == new.id);
            next = next.and_then(|membership| match silent {
                Some(learner) => membership.replacing_learner(learner, new),
                None => membership.with_learner(new),
            });
        }
        if next.as_ref().ok() == Some(membership) {
            return false;
        }
        self.reconfigure(common, next);
        true
    }

    /// Takes the next step of an exchange.
    pub(super) fn exchange(&mut self, common: &mut Common) {
        let Some(membership) = common.membership() else { return };
        let voters = membership.voters().incoming();
        let pair = membership.learners().find_map(|learner| {
            let voter = voters.iter().copied().find(|voter| voter.id == learner.id)?;
            Some((learner, voter))
        });
        let Some((learner, voter)) = pair else { return };
        let is_back = voter == common.me
            || self.peers.get(&voter).is_some_and(|progress| {
                progress.heard_from
                    && progress.last_contact + common.config.election_timeout > common.now
            });
        let caught_up = self.peers.get(&learner).is_some_and(|progress| {
            let has_all = progress.heard_from && progress.matched >= common.committed;
            has_all || progress.keeps_up_since.is_some()
        });
        if is_back {
            tracing::warn!(%voter, %learner, "the replica that was taken for lost is back: its new disk is not let in");
            let next = membership.without_learner(learner);
            self.reconfigure(common, next);
        } else if caught_up {
            let next = membership.exchanging(voter, learner);
            plant!(I8, next = next.and_then(|joint| joint.left_joint()));
            self.reconfigure(common, next);
        }
    }
}
