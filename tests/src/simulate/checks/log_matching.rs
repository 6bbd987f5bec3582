//! Log matching (thesis 3.2, 3.5): two logs that have an entry in common have all before it in
//! common, too. So a log id has one content and one predecessor, wherever and whenever it is
//! written.

use std::collections::BTreeMap;

use quorate::LogId;

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::{Model, NodeModel, Seal};

#[derive(Default)]
pub(super) struct LogMatching {
    /// What each log id stands for, and the one before it.
    known: BTreeMap<LogId, (u32, LogId)>,
}

impl Check for LogMatching {
    fn name(&self) -> &'static str {
        "log_matching"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Submits { node, write } = seen else { return Ok(()) };
        let Some(first) = write.entries.first() else { return Ok(()) };
        let log = &node_of(model, *node).submitted;
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
            // The first entry that only a lost founder had is nowhere any more; the next founder
            // writes another.
            let holds = |of: &NodeModel| {
                of.submitted.last() != LogId::ZERO
                    && of.submitted.get(1).is_none_or(|first| first.content != content)
            };
            if log_id == LogId::FIRST && !model.nodes.values().any(holds) {
                self.known.insert(log_id, (content, before));
            }
            let (known, preceded) = *self.known.entry(log_id).or_insert((content, before));
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
