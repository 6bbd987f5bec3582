//! At most one configuration is uncommitted in a log (thesis 4.1).

use super::{Check, Seen, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct Configurations;

impl Check for Configurations {
    fn name(&self) -> &'static str {
        "configurations"
    }

    fn see(&mut self, seen: &Seen<'_>, model: &Model) -> Verdict {
        let Seen::Turned { node, before, now } = seen else { return Ok(()) };
        if before.last_log_id == now.last_log_id {
            return Ok(());
        }
        // A node that gets a long log at once learns later how much of it is committed.
        let committed = now.committed.max(model.last_committed());
        let entries = node_of(model, *node).submitted.entries.iter().rev();
        let uncommitted = entries.take_while(|entry| entry.log_id.index > committed);
        let count = uncommitted.filter(|entry| entry.is_membership).count();
        demand(count <= 1, || format!("node {node} has {count} uncommitted configurations"))
    }
}
