//! A store that was put back to an earlier state promises nothing any more, once it has heard from
//! a peer that remembers what it has forgotten: the node stops. (It may have caught up otherwise
//! with what that peer remembers: then nothing is missing.)

use std::collections::{BTreeMap, BTreeSet};

use quorate::{AppendOutcome, Body, NodeId};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct RolledBack {
    /// For each node that was put back: such peers from which it has heard in this life.
    warned: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

impl Check for RolledBack {
    fn name(&self) -> &'static str {
        "rolled_back"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Recovered { node, .. } | Observation::Died { node } => {
                self.warned.remove(node);
            }
            Observation::Receives { node, message } => {
                let (remembering, from) = (model.remembering.get(node), message.from.id);
                let remembers = remembering.is_some_and(|peers| peers.contains_key(&from));
                if remembers && !model.copied.contains(&from) {
                    self.warned.entry(*node).or_default().insert(from);
                }
            }
            Observation::Sends { node, message } => {
                let Some(warned) = self.warned.get(node) else { return Ok(()) };
                let promises = matches!(
                    message.body,
                    Body::PreVote { .. }
                        | Body::Vote { .. }
                        | Body::VoteReply { granted: true, .. }
                        | Body::AppendReply { outcome: AppendOutcome::Accepted { .. }, .. }
                );
                let Some(remembering) = model.remembering.get(node) else { return Ok(()) };
                let log = &node_of(model, *node).submitted;
                let mut memories = remembering.iter().filter(|(peer, _)| warned.contains(peer));
                let lacks = memories.any(|(peer, memory)| log.lacks(*peer, memory));
                return demand(!(promises && lacks), || {
                    format!(
                        "node {node} has forgotten what a peer remembers, and sends {message:?}"
                    )
                });
            }
            _ => {}
        }
        Ok(())
    }
}
