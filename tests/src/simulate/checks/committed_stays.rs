//! What is committed never changes (thesis 3.2, state machine safety): all nodes that know an index
//! to be committed have the same entry there, and none replaces it.

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct CommittedStays;

impl Check for CommittedStays {
    fn name(&self) -> &'static str {
        "committed_stays"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Turned { node, before, now } => {
                let log = &node_of(model, *node).submitted;
                for index in before.committed + 1..=now.committed {
                    let Some(ours) = log.get(index) else { continue };
                    let known = model.committed_at(index).map(|committed| committed.seal.log_id);
                    demand(known == Some(ours.log_id), || {
                        format!("node {node} commits {}, and {known:?} is committed", ours.log_id)
                    })?;
                }
                Ok(())
            }
            Observation::Submits { node, write } => {
                let (Some(first), of) = (write.entries.first(), node_of(model, *node)) else {
                    return Ok(());
                };
                let committed = of.metrics.committed;
                demand(first.log_id.index > committed, || {
                    format!("node {node} replaces {}, and {committed} are committed", first.log_id)
                })
            }
            _ => Ok(()),
        }
    }
}
