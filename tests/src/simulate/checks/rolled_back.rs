//! A store that was put back to an earlier state promises nothing any more, once it has heard from a
//! peer that remembers what it has forgotten: the node stops.

use std::collections::BTreeSet;

use quorate::{AppendOutcome, Body, NodeId};

use super::{Check, Seen, Verdict, demand, node_of};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct RolledBack {
    /// The nodes that were put back, and have heard from such a peer in this life.
    warned: BTreeSet<NodeId>,
}

impl Check for RolledBack {
    fn name(&self) -> &'static str {
        "rolled_back"
    }

    fn see(&mut self, seen: &Seen<'_>, model: &Model) -> Verdict {
        match seen {
            Seen::Recovered { node, .. } | Seen::Died { node } => {
                self.warned.remove(node);
            }
            Seen::Receives { node, message } => {
                let remembering = model.remembering.get(node);
                if remembering.is_some_and(|peers| peers.contains(&message.from.id)) {
                    self.warned.insert(*node);
                }
            }
            Seen::Sends { node, message } if self.warned.contains(node) => {
                let promises = matches!(
                    message.body,
                    Body::PreVote { .. }
                        | Body::Vote { .. }
                        | Body::VoteReply { granted: true }
                        | Body::AppendReply { outcome: AppendOutcome::Accepted { .. }, .. }
                );
                let is_put_back = node_of(model, *node).is_put_back;
                return demand(!(promises && is_put_back), || {
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
