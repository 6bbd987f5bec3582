//! What is committed is durable on a quorum of the voters at that moment (thesis 3.5, 10.2.1): by
//! the word of their stores, not of the leader. A voter whose disk was lost counts for what it had:
//! its acknowledgements may be on their way, and whoever comes back with another disk is not that
//! voter.

use std::collections::BTreeMap;

use quorate::quorum::Voters;
use quorate::{NodeId, Replica};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

/// What is committed may lead to another configuration in the same turn. So it counts, too, who
/// voted at the end of the turn before.
#[derive(Default)]
pub(super) struct DurableQuorum {
    before: BTreeMap<NodeId, Voters>,
}

impl Check for DurableQuorum {
    fn name(&self) -> &'static str {
        "durable_quorum"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        if let Observation::Turned { node, before, .. } = seen
            && let Some(membership) = &before.membership
        {
            self.before.insert(*node, membership.voters().clone());
        }
        let Observation::Committed { node, entries } = seen else { return Ok(()) };
        let Some(membership) = &node_of(model, *node).metrics.membership else {
            return Err(format!("node {node} knows entries to be committed, and no configuration"));
        };
        let voters = membership.voters();
        for committed in *entries {
            let log_id = committed.seal.log_id;
            let holds = |voter: Replica| model.was_durable(voter, log_id);
            let agree = |voters: &Voters| voters.agreed(|voter| holds(voter).into()) > 0;
            let is_durable = agree(voters) || self.before.get(node).is_some_and(agree);
            demand(is_durable, || {
                let holders: Vec<_> = voters.iter().filter(|voter| holds(*voter)).collect();
                format!(
                    "node {node} takes {log_id} for committed, which is durable on {holders:?} of {voters} only"
                )
            })?;
        }
        Ok(())
    }
}
