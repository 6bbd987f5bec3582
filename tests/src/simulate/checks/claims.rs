//! What a store promises while a cluster is formed (rules F1, F2 and F4 in
//! `core/src/engine/formation.rs`). Of the claims that a store has accepted each has a higher
//! ballot than those before it, and comes from the same node. The list stays the same, unless all
//! of them come from one store. A store tells of a claim only when that is durable. Its log begins
//! with the first entry of the cluster that it has promised to join, or with one that a member
//! offers who is not the founder.

use std::collections::{BTreeMap, BTreeSet};

use quorate::{
    Body, Claim, ClusterId, Entry, LogId, LogWrite, Membership, NodeId, Payload, Replica,
    Situation, Standing,
};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Claims {
    /// What each store has accepted durably, in this order.
    accepted: BTreeMap<Replica, Vec<Claim>>,
    /// The clusters whose first entry a member other than the founder has offered to a store.
    offered: BTreeSet<(Replica, ClusterId)>,
}

impl Claims {
    fn is_durable(&mut self, replica: Replica, standing: &Standing) {
        let accepted = self.accepted.entry(replica).or_default();
        accepted.extend(standing.claim().filter(|claim| accepted.last() != Some(claim)).cloned());
    }

    fn accepts(&self, replica: Replica, claim: &Claim, model: &Model) -> Verdict {
        let durable = self.accepted.get(&replica).into_iter().flatten();
        let written = node_of(model, replica.id).waiting.iter();
        let written = written.filter_map(|write| write.standing.as_ref()?.claim());
        let before: Vec<_> = durable.chain(written).collect();
        let Some(last) = before.last().filter(|last| **last != claim) else { return Ok(()) };
        let changes_list = last.ids() != claim.ids();
        for one in &before {
            let is_later = one.ballot < claim.ballot && one.founder.id == claim.founder.id;
            let may_change = !changes_list || one.founder == claim.founder;
            demand(is_later && may_change, || {
                format!("store {replica} accepts {claim:?}, and has accepted {one:?} before")
            })?;
        }
        Ok(())
    }

    fn begins(&self, replica: Replica, write: &LogWrite, model: &Model) -> Verdict {
        let Some(membership) = write.entries.first().and_then(first_entry) else { return Ok(()) };
        let known = &node_of(model, replica.id).submitted.standing;
        // The entries that it gets at once may say as well that it has been removed since.
        let told = write.standing.as_deref().filter(|standing| **standing != Standing::Spent);
        let standing = told.unwrap_or(known);
        let cluster = membership.cluster();
        let may_begin =
            standing.cluster() == Some(cluster) || self.offered.contains(&(replica, cluster));
        demand(may_begin, || {
            format!(
                "store {replica} begins its log with {membership:?}, and stands at {standing:?}"
            )
        })
    }
}

/// The configuration in the first entry of a log.
fn first_entry(entry: &Entry) -> Option<&Membership> {
    match &entry.payload {
        Payload::Membership(membership) if entry.log_id == LogId::FIRST => Some(membership),
        _ => None,
    }
}

impl Check for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn is_of_stores(&self) -> bool {
        true
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let replica = |node: &NodeId| model.replica(*node);
        match seen {
            Observation::Recovered { node, recovered } => {
                if let Some(replica) = replica(node) {
                    self.is_durable(replica, &recovered.standing);
                }
                Ok(())
            }
            Observation::Durable { node } => {
                if let Some(replica) = replica(node) {
                    self.is_durable(replica, &node_of(model, *node).durable.standing);
                }
                Ok(())
            }
            Observation::Submits { node, write } => {
                let Some(replica) = replica(node) else { return Ok(()) };
                if let Some(claim) = write.standing.as_deref().and_then(Standing::claim) {
                    self.accepts(replica, claim, model)?;
                }
                self.begins(replica, write, model)
            }
            Observation::Receives { message, .. } => {
                if let Body::Append { entries, .. } = &message.body
                    && let Some(membership) = entries.first().and_then(first_entry)
                    && membership.is_member(message.from)
                    && membership.founders().first() != Some(&message.from.id)
                {
                    self.offered.insert((message.to, membership.cluster()));
                }
                Ok(())
            }
            Observation::Sends { node, message } => {
                let Body::Situation { situation: Situation::Claimed { ballot, .. }, .. } =
                    &message.body
                else {
                    return Ok(());
                };
                // (What it was when this was held back may have been superseded since.)
                let accepted = self.accepted.get(&message.from).and_then(|claims| claims.last());
                let durable = &node_of(model, *node).durable;
                let is_durable = accepted.is_some_and(|claim| claim.ballot >= *ballot);
                demand(is_durable, || {
                    format!(
                        "store {} tells of a claim of ballot {ballot}, and its disk says {:?}",
                        message.from, durable.standing
                    )
                })
            }
            _ => Ok(()),
        }
    }
}
