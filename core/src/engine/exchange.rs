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
//! The steps follow from the configuration in force alone, so whoever leads by then goes on with
//! them. Nothing is done while a change is not committed, or before an entry of this term is.

use std::collections::BTreeSet;

use super::Common;
use super::leader::Leader;
use crate::identity::Replica;
use crate::membership::Membership;
use crate::message::{Body, Situation};
use crate::plant;

/// A voter is taken for lost when it has been silent for so many election timeouts: a reboot of the
/// machine is no reason.
pub(super) const SILENT_TIMEOUTS: u32 = 10;

impl Leader {
    /// Whether the configuration may be changed: it is committed, and so is an entry of this term.
    fn is_settled(&self, common: &Common) -> bool {
        common.committed >= self.first && common.committed >= common.membership_index
    }

    fn is_silent(&self, common: &Common, replica: Replica) -> bool {
        let silence = common.config.election_timeout * SILENT_TIMEOUTS;
        let heard = self.peers.get(&replica).map(|progress| progress.last_contact(common.now));
        heard.is_some_and(|heard| heard + silence <= common.now)
    }

    /// The silent voter of this node, if nobody takes its place yet who is not silent too.
    fn lost_voter(&self, common: &Common, membership: &Membership, id: u64) -> Option<Replica> {
        let mut voters = membership.voters().incoming().iter().copied();
        let voter = voters.find(|voter| voter.id == id)?;
        let mut learners = membership.learners().filter(|learner| learner.id == id);
        let is_lost = voter != common.me
            && self.is_silent(common, voter)
            && learners.all(|learner| self.is_silent(common, learner));
        is_lost.then_some(voter)
    }

    /// Asks who lives where voters are silent.
    pub(super) fn look_for_new_disks(&mut self, common: &mut Common) {
        let due = self.asked_at + common.config.election_timeout <= common.now;
        if !due || !common.config.replace_lost_disks || !self.is_settled(common) {
            return;
        }
        let Some(membership) = common.membership() else { return };
        if membership.voters().is_joint() {
            return;
        }
        let ids = membership.voters().incoming().iter().map(|voter| voter.id);
        let lost: Vec<_> =
            ids.filter(|id| self.lost_voter(common, membership, *id).is_some()).collect();
        if !lost.is_empty() {
            self.asked_at = common.now;
        }
        for id in lost {
            common.send(Replica::any(id), Body::Who { listed: BTreeSet::new() });
        }
    }

    /// A replica says what it has. It may be the new disk of a lost voter.
    pub(super) fn on_situation(
        &mut self,
        common: &mut Common,
        from: Replica,
        situation: Situation,
        listed: &BTreeSet<u64>,
    ) {
        let Some(membership) = common.membership() else { return };
        let lost = self.lost_voter(common, membership, from.id);
        let is_new = !membership.is_member(from) && from.is_known();
        let may = common.config.replace_lost_disks && !membership.voters().is_joint();
        if lost.is_none() || !is_new || !may || !self.is_settled(common) {
            return;
        }
        let founders = membership.founders().clone();
        if !listed.is_empty() && *listed != founders {
            if let Some(suppressed) = common.logs_stranger() {
                tracing::warn!(%from, ?listed, ?founders, suppressed, "a new disk is not let in: its node was told another list");
            }
            return;
        }
        // One with a log was let in before, and that exchange was given up.
        let is_ours = |theirs: &BTreeSet<u64>| *theirs == founders;
        match situation {
            Situation::Member { founders: theirs, .. } if !is_ours(&theirs) => {
                if let Some(suppressed) = common.logs_stranger() {
                    tracing::warn!(
                        %from, ?theirs, ?founders,
                        suppressed,
                        "the store where a silent voter was belongs to another cluster; it is not let in"
                    );
                }
            }
            // Its promises as a voter were counted, and are not to be made again by less than it
            // had.
            Situation::Member { voter: true, .. } => {
                if let Some(suppressed) = common.logs_stranger() {
                    tracing::warn!(
                        %from, ?lost,
                        suppressed,
                        "the store where a silent voter was is one that another has replaced; it is not let in: \
                         start the node with its last folder, or with an empty one"
                    );
                }
            }
            Situation::Empty | Situation::Claimed { .. } => {
                let cluster = membership.cluster();
                common.send(from, Body::Admit { cluster, founders });
            }
            Situation::Admitted | Situation::Member { .. } => {
                // A learner of this node that is silent as well gives way.
                let silent = membership.learners().find(|learner| learner.id == from.id);
                let next = match silent {
                    Some(learner) => membership.without_learner(learner),
                    None => Ok(membership.clone()),
                };
                let next = next.and_then(|membership| membership.with_learner(from));
                tracing::info!(new = %from, ?lost, "lets the new disk of a node in, as a learner");
                self.reconfigure(common, next);
            }
            Situation::Elsewhere | Situation::Spent => {
                if let Some(suppressed) = common.logs_stranger() {
                    tracing::warn!(%from, ?situation, suppressed, "the store where a silent voter was is not empty; it is not let in");
                }
            }
        }
    }

    /// Takes the next step of an exchange, or of whatever has made the configuration joint.
    pub(super) fn exchange(&mut self, common: &mut Common) {
        if !common.is_changing || !self.is_settled(common) {
            return;
        }
        let Some(membership) = common.membership() else { return };
        if membership.voters().is_joint() {
            let next = membership.left_joint();
            self.reconfigure(common, next);
            return;
        }
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
        let caught_up = self
            .peers
            .get(&learner)
            .is_some_and(|progress| progress.heard_from && progress.matched >= common.committed);
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
