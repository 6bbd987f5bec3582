//! What a leader takes for committed because a majority has it ends with an entry of its own term
//! (thesis 3.6.2, the paper's figure 8): those of earlier terms are committed by that one.

use quorate::Role;

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct Counting;

impl Check for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Turned { node, before, now } = seen else { return Ok(()) };
        let led = before.role == Role::Leader && before.term == now.term;
        if !led || now.role != Role::Leader || before.committed == now.committed {
            return Ok(());
        }
        let Some(last) = node_of(model, *node).submitted.get(now.committed) else { return Ok(()) };
        demand(last.log_id.term == now.term, || {
            format!("node {node} leads in term {} and commits {}", now.term, last.log_id)
        })
    }
}
