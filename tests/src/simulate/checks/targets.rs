//! Outside of a change and of a joint configuration the members are those of the target that was
//! reached last: no learner is forgotten or left behind, and a change that was taken back leaves no
//! trace (M16, M17).

use std::collections::BTreeSet;

use quorate::{ChangeId, Ending, LogId, Membership, Target};

use super::{Check, Observation, Verdict, demand};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Targets {
    /// That of the last change that was done; before the first, what the group was formed with.
    reached: Option<Target>,
    /// The changes whose endings have been looked at.
    ended: BTreeSet<ChangeId>,
}

impl Targets {
    fn commits(&mut self, at: LogId, membership: &Membership, model: &Model) -> Verdict {
        for (id, ending) in membership.endings() {
            if self.ended.insert(*id) && *ending == Ending::Done {
                // What takes one step was never under way: it is taken as it is.
                self.reached = target_of(*id, model);
            }
        }
        if let Some(change) = membership.change() {
            let before = self.reached.get_or_insert_with(|| change.before.clone());
            return demand(change.before == *before, || {
                let id = change.id;
                format!(
                    "at {at} change {id} follows on {}, and {before} is in force",
                    change.before
                )
            });
        }
        if membership.voters().is_joint() {
            return Ok(()); // A lost disk is exchanged.
        }
        let members = membership.target();
        let reached = self.reached.get_or_insert_with(|| members.clone());
        demand(members == *reached, || {
            format!("at {at} the members are {members}, and {reached} was reached last")
        })
    }
}

fn target_of(id: ChangeId, model: &Model) -> Option<Target> {
    let mut changes = model.configurations.values().filter_map(Membership::change);
    changes.find(|change| change.id == id).map(|change| change.target.clone())
}

impl Check for Targets {
    fn name(&self) -> &'static str {
        "targets"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Committed { entries, .. } = seen else { return Ok(()) };
        for committed in entries.iter().filter(|committed| committed.seal.is_membership) {
            let at = committed.seal.log_id;
            if let Some(membership) = model.configurations.get(&at) {
                self.commits(at, membership, model)?;
            }
        }
        Ok(())
    }
}
