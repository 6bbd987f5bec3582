//! purged ≤ snapshot ≤ committed ≤ last, and applied ≤ committed, on every node after each of its turns. (A snapshot that has come in is the node's before the state
//! is restored from it; that one that is taken here is not beyond what is applied is checked with the snapshots.)

use super::{Check, Seen, Verdict, demand};
use crate::simulate::model::Model;

pub(super) struct Order;

impl Check for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn see(&mut self, seen: &Seen<'_>, _: &Model) -> Verdict {
        let Seen::Turned { node, now, .. } = seen else { return Ok(()) };
        let chain = [now.purged.index, now.snapshot.index, now.committed, now.last_log_id.index];
        demand(chain.is_sorted() && now.applied <= now.committed, || {
            let applied = now.applied;
            format!(
                "node {node}: purged, snapshot, committed, last are {chain:?}, applied {applied}"
            )
        })?;
        demand(now.durable <= now.last_log_id.index, || {
            format!("node {node} takes {} for durable, and has {}", now.durable, now.last_log_id)
        })
    }
}
