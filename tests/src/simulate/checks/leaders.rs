//! Election safety (thesis 3.2, 3.4): in a term there is at most one leader. A node that leads, and
//! leads once more in the same term after a restart, counts as two: the same log id could name two
//! entries.
//!
//! Another cluster, which a founder forms that has lost its disk before anybody else had the first
//! entry, has terms of its own.

use std::collections::BTreeMap;

use quorate::{Body, ClusterId, NodeId, Role, Term};

use super::{Check, Seen, Verdict, demand};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Leaders {
    /// Who led, and in which of its lives.
    of_terms: BTreeMap<(Option<ClusterId>, Term), (NodeId, Option<u32>)>,
}

impl Leaders {
    fn leads(
        &mut self,
        node: NodeId,
        cluster: Option<ClusterId>,
        term: Term,
        model: &Model,
    ) -> Verdict {
        let this = (node, model.nodes[&node].life);
        let known = *self.of_terms.entry((cluster, term)).or_insert(this);
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

    fn see(&mut self, seen: &Seen<'_>, model: &Model) -> Verdict {
        match seen {
            Seen::Turned { node, now, .. } if now.role == Role::Leader => {
                self.leads(*node, now.cluster, now.term, model)
            }
            Seen::Sends { node, message } => match message.body {
                Body::Append { .. } | Body::Snapshot { .. } | Body::TimeoutNow { .. } => {
                    self.leads(*node, message.cluster, message.term, model)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
