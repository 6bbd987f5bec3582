//! Nothing that a store has called durable is gone when it is opened again: no entry, no vote, no
//! snapshot (thesis 3.8). It may have more than that: what was under way. A store that is damaged
//! says so; it is never silently shorter (Alagappan et al., FAST 2018).

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct NothingCut;

impl Check for NothingCut {
    fn name(&self) -> &'static str {
        "nothing_cut"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Recovered { node, recovered } = seen else { return Ok(()) };
        // What came after that may have been done, too, and have replaced some of it.
        let of = node_of(model, *node);
        let Some(identity) = &of.identity else {
            return Err(format!("node {node} starts anew without knowing who its store is"));
        };
        super::recoverable::holds(of, identity, recovered)
            .map_err(|reason| format!("node {node} starts anew: {reason}"))?;
        demand(recovered.log_meta.last().term <= recovered.hard_state.term, || {
            let (last, term) = (recovered.log_meta.last(), recovered.hard_state.term);
            format!("node {node} starts anew with {last}, and knows of term {term} only")
        })
    }
}
