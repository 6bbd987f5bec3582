//! Election safety (thesis 3.2, 3.4): in a term there is at most one leader. A node that leads, and
//! leads once more in the same term after a restart, counts as two: the same log id could name two
//! entries.

use std::collections::BTreeMap;

use quorate::{Body, NodeId, Role, Term};

use super::{Check, Observation, Verdict, demand};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Leaders {
    /// Who led, and in which of its lives.
    of_terms: BTreeMap<Term, (NodeId, Option<u32>)>,
}

impl Leaders {
    fn leads(&mut self, node: NodeId, term: Term, model: &Model) -> Verdict {
        let this = (node, model.nodes[&node].life);
        let known = *self.of_terms.entry(term).or_insert(this);
        demand(known == this, || {
            let (other, life) = known;
            format!("node {node} leads in term {term}, as node {other} did (in its life {life:?})")
        })
    }
}

impl Check for Leaders {
    fn name(&self) -> &'static str {
        "leaders"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Turned { node, now, .. } if now.role == Role::Leader => {
                self.leads(*node, now.term, model)
            }
            Observation::Sends { node, message } => match message.body {
                Body::Append { .. } | Body::Snapshot { .. } | Body::TimeoutNow { .. } => {
                    self.leads(*node, message.term, model)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
