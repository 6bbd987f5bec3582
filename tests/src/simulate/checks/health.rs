//! A node stops by itself only if its disk has failed or is damaged, and then it says so: never
//! because of what peers, clients, the network or the time do.

use std::io::ErrorKind;

use quorate::{Fatal, StartError, StoreError};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::{Model, NodeModel};

pub(super) struct Health;

/// Whether its disk has given a node this reason to stop.
fn is_reason(error: &StoreError, node: &NodeModel) -> bool {
    match error {
        // A full disk stops no node, but a new store can't be made on it.
        StoreError::Io { source, .. } => {
            let is_full = source.kind() == ErrorKind::StorageFull;
            node.may_fail || is_full && node.identity.is_none()
        }
        StoreError::Damaged { .. } => node.is_bad,
        StoreError::Poisoned(cause) => is_reason(cause, node),
        StoreError::Locked(_)
        | StoreError::OtherNode { .. }
        | StoreError::Unsupported { .. }
        | StoreError::Missing(_)
        | StoreError::GroupInUse(_)
        | StoreError::Abandoned => false,
    }
}

impl Check for Health {
    fn name(&self) -> &'static str {
        "health"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Ended { node, outcome: Err(fatal) } => {
                if matches!(fatal, Fatal::RolledBack { .. }) {
                    return demand(node_of(model, *node).is_put_back, || {
                        format!("node {node} has stopped, and has forgotten nothing: {fatal}")
                    });
                }
                let Fatal::Store(error) = fatal else {
                    return Err(format!("node {node} has stopped: {fatal}"));
                };
                demand(is_reason(error, node_of(model, *node)), || {
                    format!("node {node} has stopped, though its disk is good: {error}")
                })
            }
            Observation::Refused { node, error: StartError::Store(error) } => {
                demand(is_reason(error, node_of(model, *node)), || {
                    format!("node {node} does not start, though its disk is good: {error}")
                })
            }
            Observation::Refused { node, error } => {
                Err(format!("node {node} does not start: {error}"))
            }
            _ => Ok(()),
        }
    }
}
