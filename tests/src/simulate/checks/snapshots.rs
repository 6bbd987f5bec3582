//! A snapshot is of what was committed where it ends, and of nothing else; one that a node takes of
//! its own state covers no more than it has applied (thesis 5.1).

use std::collections::BTreeMap;

use quorate::{Digest, LogId};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Snapshots {
    /// The content of each, the first that was finished.
    known: BTreeMap<LogId, (Digest, u64)>,
}

impl Check for Snapshots {
    fn name(&self) -> &'static str {
        "snapshots"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Finished { node, meta } = seen else { return Ok(()) };
        let (log_id, content) = (meta.log_id, (meta.digest, meta.bytes));
        let committed = model.committed_at(log_id.index).map(|committed| committed.seal.log_id);
        demand(committed == Some(log_id), || {
            format!("node {node} has a snapshot at {log_id}, where {committed:?} is committed")
        })?;
        let applied = node_of(model, *node).metrics.applied;
        if !self.known.contains_key(&log_id) {
            demand(log_id.index <= applied, || {
                format!("node {node} takes a snapshot at {log_id}, and has applied {applied}")
            })?;
        }
        let known = *self.known.entry(log_id).or_insert(content);
        demand(known == content, || {
            format!("node {node}: the snapshot at {log_id} is {content:?}, and elsewhere {known:?}")
        })
    }
}
