//! State machine safety (thesis 3.2): the command that one node applies as its nth, every node
//! does; and none skips one, or applies one twice, also not after a restart or with a snapshot.

use std::collections::BTreeMap;

use quorate::NodeId;

use super::{Check, Observation, Verdict, demand};
use crate::simulate::model::Model;

pub(super) struct StateMachineSafety {
    /// The hash over the first n commands.
    chains: BTreeMap<u64, u32>,
    /// How many each node has applied in this life.
    applied: BTreeMap<NodeId, u64>,
}

impl Default for StateMachineSafety {
    fn default() -> Self {
        Self { chains: BTreeMap::from([(0, 0)]), applied: BTreeMap::new() }
    }
}

impl StateMachineSafety {
    fn state_is(&mut self, node: NodeId, count: u64, chain: u32) -> Verdict {
        let known = *self.chains.entry(count).or_insert(chain);
        demand(known == chain, || format!("node {node} has applied others as its first {count}"))
    }
}

impl Check for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state_machine_safety"
    }

    fn observe(&mut self, seen: &Observation<'_>, _: &Model) -> Verdict {
        match *seen {
            Observation::Recovered { node, .. } => {
                self.applied.insert(node, 0);
                Ok(())
            }
            Observation::Applied { node, count, chain } => {
                let before = self.applied.insert(node, count).unwrap_or(0);
                demand(count == before + 1, || {
                    format!("node {node} applies its command {count} after its command {before}")
                })?;
                self.state_is(node, count, chain)
            }
            Observation::Restored { node, count, chain } => {
                let before = self.applied.insert(node, count).unwrap_or(0);
                demand(count >= before, || {
                    format!("node {node} goes back from {before} commands to a snapshot of {count}")
                })?;
                demand(self.chains.contains_key(&count), || {
                    format!("node {node} restores a state that no node ever had")
                })?;
                self.state_is(node, count, chain)
            }
            _ => Ok(()),
        }
    }
}
