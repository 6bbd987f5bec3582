//! At most one configuration is uncommitted in a log (thesis 4.1). Any quorum of one and any of the
//! next have a voter in common, so that no two leaders are elected in a term by the two (4.1, 4.3).

use std::collections::BTreeSet;

use quorate::quorum::Voters;
use quorate::{Entry, LogWrite, Metrics, NodeId, Payload, Replica};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct Configurations;

impl Check for Configurations {
    fn name(&self) -> &'static str {
        "configurations"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        if let Observation::Submits { node, write } = seen {
            return overlaps(*node, write, model);
        }
        let Observation::Turned { node, before, now } = seen else { return Ok(()) };
        if before.last_log_id == now.last_log_id {
            return Ok(());
        }
        in_force(*node, now, model)?;
        // A node that gets a long log at once learns later how much of it is committed.
        let committed = now.committed.max(model.last_committed());
        let entries = node_of(model, *node).submitted.entries.iter().rev();
        let uncommitted = entries.take_while(|entry| entry.log_id.index > committed);
        let count = uncommitted.filter(|entry| entry.is_membership).count();
        demand(count <= 1, || format!("node {node} has {count} uncommitted configurations"))
    }
}

/// The last configuration in a node's log is in force there, whether it is committed or not, and no
/// other (4.1): not one that was replaced (M8).
fn in_force(node: NodeId, now: &Metrics, model: &Model) -> Verdict {
    let log = &node_of(model, node).submitted;
    let last = log.entries.iter().rev().find(|entry| entry.is_membership);
    let Some(known) = &now.membership else { return Ok(()) };
    let in_log = match last {
        Some(last) => model.configurations.get(&last.log_id),
        // What stands before the log is committed.
        None => {
            let committed = model.committed_configurations().into_iter();
            let covered = committed.take_while(|(index, _)| *index <= log.purged.index);
            covered.last().map(|(_, membership)| membership)
        }
    };
    demand(in_log.is_none_or(|in_log| in_log == known), || {
        format!("node {node} goes by {known:?}, and its log says {in_log:?}")
    })
}

/// Whether each configuration that is written overlaps with the one before it. (What stands before
/// the first may have been purged.)
fn overlaps(node: NodeId, write: &LogWrite, model: &Model) -> Verdict {
    let membership = |entry: &Entry| match &entry.payload {
        Payload::Membership(membership) => Some(membership.clone()),
        Payload::Blank | Payload::Command(_) => None,
    };
    let mut written = write.entries.iter().filter_map(membership).peekable();
    let Some(first) = write.entries.first().filter(|_| written.peek().is_some()) else {
        return Ok(());
    };
    let log = node_of(model, node).submitted.entries.iter().rev();
    let kept = log.skip_while(|entry| entry.log_id.index >= first.log_id.index);
    let last = kept.map(|entry| entry.log_id).find_map(|at| model.configurations.get(&at));
    let mut before = last.cloned();
    for next in written {
        let is_safe = before.is_none_or(|before| have_common(before.voters(), next.voters()));
        demand(is_safe, || format!("node {node} writes {next:?}, behind one of other quorums"))?;
        before = Some(next);
    }
    Ok(())
}

/// Whether any two quorums of these have a voter in common: any majority of a half of the one, and
/// any of a half of the other.
fn have_common(one: &Voters, other: &Voters) -> bool {
    let majority = |half: &[Replica]| half.len() / 2 + 1;
    let common = |one: &[Replica], other: &[Replica]| {
        let both: BTreeSet<_> = one.iter().chain(other).collect();
        majority(one) + majority(other) > both.len()
    };
    let halves = |of: &'_ Voters| [of.incoming().to_vec(), of.outgoing().to_vec()];
    let (one, other) = (halves(one), halves(other));
    let mut pairs = one.iter().flat_map(|half| other.iter().map(move |with| (half, with)));
    pairs.any(|(half, with)| !half.is_empty() && !with.is_empty() && common(half, with))
}
