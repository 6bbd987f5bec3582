//! A store says the same of itself each time: its incarnation and its cluster stay, its boots only
//! grow; and no two stores are one replica.

use std::collections::BTreeMap;

use quorate::Replica;

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Identities {
    /// The last boot of each.
    boots: BTreeMap<Replica, u64>,
}

impl Check for Identities {
    fn name(&self) -> &'static str {
        "identities"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let (node, identity) = match seen {
            Observation::Identified { node, identity } => (node, identity),
            Observation::PutBack { node, boot } => {
                if let Some(replica) = model.replica(*node) {
                    self.boots.insert(replica, *boot);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        let replica = Replica::new(*node, identity.incarnation);
        demand(replica.is_known(), || format!("the store of node {node} has no incarnation"))?;
        let of = node_of(model, *node);
        if let Some(before) = of.identity {
            demand(before.incarnation == identity.incarnation, || {
                format!("the store of node {node} says {identity:?}, and said {before:?}")
            })?;
            let joined = of.durable.cluster;
            demand(joined.is_none() || joined == identity.cluster, || {
                format!("the store of node {node} says {identity:?}, and has joined {joined:?}")
            })?;
        } else {
            demand(!self.boots.contains_key(&replica), || {
                format!("the new store of node {node} is {replica}, as an earlier one was")
            })?;
        }
        let before = self.boots.insert(replica, identity.boot).unwrap_or_default();
        demand(before < identity.boot, || {
            format!("the store of node {node} counts boot {}, and was at {before}", identity.boot)
        })
    }
}
