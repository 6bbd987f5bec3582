//! Every queue has the bound that its configuration gives it: what a leader has uncommitted, and
//! what it has under way to each peer.

use quorate::{Config, Role};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;
use crate::simulate::plan::Plan;

pub(super) struct Bounds {
    config: Config,
    /// One entry may exceed a limit, whatever its size.
    largest: usize,
}

impl Bounds {
    pub(super) fn new(plan: &Plan) -> Self {
        let largest = plan.config.max_command_bytes + 1024;
        Self { config: plan.config.clone(), largest }
    }
}

impl Check for Bounds {
    fn name(&self) -> &'static str {
        "bounds"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Turned { node, now, .. } = seen else { return Ok(()) };
        if now.role != Role::Leader {
            return Ok(());
        }
        for (peer, metrics) in &now.peers {
            let bytes = metrics.inflight_bytes;
            demand(bytes <= self.config.max_inflight_bytes + self.largest, || {
                format!("node {node} has {bytes} bytes under way to node {peer}")
            })?;
        }
        let log = &node_of(model, *node).submitted;
        // What it has proposed itself: what others have left is not bounded by its limit.
        let own = log.entries.iter().rev().take_while(|entry| {
            entry.log_id.index > now.committed && entry.log_id.term == now.term
        });
        let bytes: usize = own.map(|entry| entry.bytes).sum();
        let most = self.config.max_uncommitted_bytes;
        demand(bytes <= most + self.largest, || {
            format!("node {node} has {bytes} uncommitted bytes in its log")
        })
    }
}
