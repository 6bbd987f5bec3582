//! What is committed is durable on a majority at that moment (thesis 3.5, 10.2.1): by the word of their stores, not of the leader. One that has lost its disk counts for what it
//! had: a leader that has not heard of that counts it so, which is why that node must not vote before it has caught up.

use super::{Check, Seen, Verdict, demand};
use crate::simulate::model::Model;

pub(super) struct DurableQuorum;

impl Check for DurableQuorum {
    fn name(&self) -> &'static str {
        "durable_quorum"
    }

    fn see(&mut self, seen: &Seen<'_>, model: &Model) -> Verdict {
        let Seen::Committed { node, entries } = seen else { return Ok(()) };
        for committed in *entries {
            let log_id = committed.seal.log_id;
            let holders = model.nodes.iter().filter(|(_, node)| {
                let had = node.had.as_ref().is_some_and(|had| had.covers(log_id));
                had || node.durable.covers(log_id)
            });
            let holders: Vec<_> = holders.map(|(id, _)| id).collect();
            demand(2 * holders.len() > model.nodes.len(), || {
                format!(
                    "node {node} takes {log_id} for committed, which is durable on {holders:?} only"
                )
            })?;
        }
        Ok(())
    }
}
