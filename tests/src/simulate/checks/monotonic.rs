//! Within a life of a node its term, vote, commit index, applied index, snapshot and purge only
//! rise (thesis 3.3, figure 3.1).

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct Monotonic;

impl Check for Monotonic {
    fn name(&self) -> &'static str {
        "monotonic"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Turned { node, before, now } => {
                let pairs = [
                    ("term", before.term.0, now.term.0),
                    ("commit index", before.committed, now.committed),
                    ("applied index", before.applied, now.applied),
                    ("snapshot", before.snapshot.index, now.snapshot.index),
                    ("purge", before.purged.index, now.purged.index),
                ];
                pairs.into_iter().try_for_each(|(what, old, new)| {
                    demand(old <= new, || {
                        format!("node {node}: the {what} falls from {old} to {new}")
                    })
                })
            }
            Observation::Submits { node, write } => {
                let Some(new) = write.hard_state else { return Ok(()) };
                let old = node_of(model, *node).submitted.hard_state;
                let kept = new.term > old.term
                    || new.term == old.term
                        && (old.voted_for.is_none() || old.voted_for == new.voted_for);
                demand(kept, || format!("node {node}: the hard state goes from {old:?} to {new:?}"))
            }
            _ => Ok(()),
        }
    }
}
