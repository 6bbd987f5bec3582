//! A leader keeps what follows on a snapshot that it is sending, up to `max_retained_bytes` behind
//! its newest one: else a slow transfer would be out of date when it ends, and start over for ever
//! (openraft #1706).

use std::collections::BTreeMap;

use quorate::{Body, Index, LogWrite, NodeId, Replica, Role};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;
use crate::simulate::plan::Plan;

pub(super) struct Retention {
    max_retained_bytes: u64,
    /// The end of the snapshot that was last offered, by who has offered it to whom.
    offered: BTreeMap<(NodeId, Replica), Index>,
    /// What a leader has purged in this turn of it, though a peer needs it, as far as is known.
    purged: BTreeMap<NodeId, Vec<(Replica, Index)>>,
}

impl Retention {
    pub(super) fn new(plan: &Plan) -> Self {
        let max_retained_bytes = plan.config.max_retained_bytes;
        Self { max_retained_bytes, offered: BTreeMap::new(), purged: BTreeMap::new() }
    }

    /// The peers that still get a snapshot, and what follows on it.
    fn needed(&self, leader: NodeId, write: &LogWrite, model: &Model) -> Vec<(Replica, Index)> {
        let of = node_of(model, leader);
        let (Some(purge), Role::Leader) = (write.purge, of.metrics.role) else { return Vec::new() };
        let named = write.snapshot.as_ref().map(|meta| meta.log_id);
        let covered = named.unwrap_or(of.submitted.snapshot).index;
        let is_kept = |end: Index| {
            let behind = of.submitted.entries.iter().map(|entry| (entry.log_id.index, entry.bytes));
            let behind = behind.filter(|(index, _)| (end + 1..=covered).contains(index));
            let bytes: usize = behind.map(|(_, bytes)| bytes).sum();
            purge.index <= end || bytes as u64 >= self.max_retained_bytes
        };
        let getting = of.metrics.peers.iter().filter(|(_, peer)| peer.snapshot.is_some());
        let ends = getting.filter_map(|(id, _)| Some((*id, *self.offered.get(&(leader, *id))?)));
        ends.filter(|(_, end)| !is_kept(*end)).collect()
    }
}

impl Check for Retention {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Sends { node, message } => {
                if let Body::Snapshot { meta, .. } = &message.body {
                    self.offered.insert((*node, message.to), meta.log_id.index);
                }
                Ok(())
            }
            Observation::Submits { node, write } => {
                let needed = self.needed(*node, write, model);
                self.purged.insert(*node, needed);
                Ok(())
            }
            Observation::Turned { node, before, now } => {
                let purged = self.purged.remove(node).unwrap_or_default();
                let leads = now.role == Role::Leader && now.term == before.term;
                // In that turn it may have stepped down, or the peer have got it all.
                let gets =
                    |peer: &Replica| now.peers.get(peer).is_some_and(|p| p.snapshot.is_some());
                let lost = purged.into_iter().find(|(peer, _)| leads && gets(peer));
                demand(lost.is_none(), || {
                    format!(
                        "node {node} purges {}, and sends a snapshot to peer and end {lost:?}",
                        now.purged
                    )
                })
            }
            _ => Ok(()),
        }
    }
}
