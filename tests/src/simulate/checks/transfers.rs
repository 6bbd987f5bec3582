//! What a node says to have stored of a snapshot, it has got: in this life, in order, from the
//! first byte on.

use std::collections::BTreeMap;

use quorate::{Body, Digest, NodeId};

use super::{Check, Observation, Verdict, demand};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Transfers {
    /// How much of which snapshot has come, without a gap. (Where a transfer begins anew it is
    /// less, but that it was there once.)
    come: BTreeMap<(NodeId, Digest), u64>,
}

impl Check for Transfers {
    fn name(&self) -> &'static str {
        "transfers"
    }

    fn observe(&mut self, seen: &Observation<'_>, _: &Model) -> Verdict {
        match seen {
            Observation::Recovered { node, .. } => self.come.retain(|(of, _), _| of != node),
            Observation::Receives { node, message } => {
                if let Body::Snapshot { meta, offset, chunk } = &message.body {
                    let come = self.come.entry((*node, meta.digest)).or_default();
                    if *offset <= *come {
                        *come = (*come).max(offset + chunk.len() as u64);
                    }
                }
            }
            Observation::Sends { node, message } => {
                if let Body::SnapshotReply { digest, stored } = &message.body {
                    let come = self.come.get(&(*node, *digest)).copied().unwrap_or_default();
                    return demand(*stored <= come, || {
                        format!("node {node} says it has stored {stored} bytes, and has got {come}")
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }
}
