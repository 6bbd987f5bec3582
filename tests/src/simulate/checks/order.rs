//! purged ≤ snapshot ≤ committed ≤ last on every node after each of its turns, and applied ≤
//! committed. A snapshot that has come in is restored before it takes the place of the log, so that
//! one that can't be is noticed in time: until then its end may be applied, and not yet known to be
//! committed. (That one that is taken here is not beyond what is applied is checked with the
//! snapshots.)

use std::collections::BTreeMap;

use quorate::{Index, NodeId};

use super::{Check, Observation, Verdict, demand};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Order {
    /// The end of the snapshot that each node has finished last.
    finished: BTreeMap<NodeId, Index>,
}

impl Check for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn observe(&mut self, seen: &Observation<'_>, _: &Model) -> Verdict {
        let (node, now) = match seen {
            Observation::Finished { node, meta } => {
                self.finished.insert(*node, meta.log_id.index);
                return Ok(());
            }
            Observation::Recovered { node, .. } => {
                self.finished.remove(node);
                return Ok(());
            }
            Observation::Turned { node, now, .. } => (node, now),
            _ => return Ok(()),
        };
        let chain = [now.purged.index, now.snapshot.index, now.committed, now.last_log_id.index];
        let restored = self.finished.get(node).is_some_and(|end| *end == now.applied);
        demand(chain.is_sorted() && (now.applied <= now.committed || restored), || {
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
