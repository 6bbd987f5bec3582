//! Log matching (thesis 3.2, 3.5): two logs that have an entry in common have all before it in
//! common, too. So a log id has one content and one predecessor, wherever and whenever it is
//! written.
//!
//! That holds within a cluster. A founder that loses its disk while it alone has the first entry
//! forms another cluster, whose log ids begin anew.

use std::collections::BTreeMap;

use quorate::{ClusterId, LogId};

use super::{Check, Seen, Verdict, demand, node_of};
use crate::simulate::model::{Model, NodeModel, Seal};

#[derive(Default)]
pub(super) struct LogMatching {
    /// What each log id stands for, and the one before it.
    known: BTreeMap<(Option<ClusterId>, LogId), (u32, LogId)>,
}

impl Check for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn see(&mut self, seen: &Seen<'_>, model: &Model) -> Verdict {
        let Seen::Submits { node, write } = seen else { return Ok(()) };
        let Some(first) = write.entries.first() else { return Ok(()) };
        let log = &node_of(model, *node).submitted;
        let cluster = write.cluster.or(log.cluster);
        let index = first.log_id.index - 1;
        let mut before = match log.get(index) {
            _ if write.purge.is_some_and(|purge| purge.index == index) => {
                write.purge.unwrap_or_default()
            }
            Some(seal) => seal.log_id,
            None => log.purged,
        };
        for entry in &write.entries {
            let (log_id, content) = (entry.log_id, Seal::of(entry).content);
            demand(before.index + 1 == log_id.index && before.term <= log_id.term, || {
                format!("node {node} puts {log_id} behind {before}")
            })?;
            if log_id == LogId::FIRST {
                let has_another = |of: &NodeModel| {
                    of.submitted.last() != LogId::ZERO && of.submitted.cluster != cluster
                };
                let other = model.nodes.iter().find(|(_, of)| has_another(of)).map(|(id, _)| id);
                demand(other.is_none(), || {
                    format!("node {node} begins a cluster, and node {other:?} has a log of another")
                })?;
            }
            let known = self.known.entry((cluster, log_id)).or_insert((content, before));
            let (known, preceded) = *known;
            demand(known == content, || format!("node {node}: two entries are {log_id}"))?;
            demand(preceded == before, || {
                format!(
                    "node {node}: {log_id} stands behind {before}, and elsewhere behind {preceded}"
                )
            })?;
            before = log_id;
        }
        Ok(())
    }
}
