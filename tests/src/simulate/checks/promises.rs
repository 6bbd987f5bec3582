//! A follower acknowledges what its own store has called durable, and nothing else (thesis 3.5,
//! 10.2.1).

use quorate::{AppendOutcome, Body};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct Promises;

impl Check for Promises {
    fn name(&self) -> &'static str {
        "promises"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Sends { node, message } = seen else { return Ok(()) };
        let Body::AppendReply { outcome: AppendOutcome::Accepted { matched }, .. } = message.body
        else {
            return Ok(());
        };
        let durable = &node_of(model, *node).durable;
        demand(durable.last().index >= matched, || {
            format!("node {node} acknowledges {matched}, and has {} durable", durable.last())
        })?;
        demand(durable.hard_state.term >= message.term, || {
            format!("node {node} acknowledges in term {}, which it may forget", message.term)
        })?;
        // What is durable there must be what it acknowledges: the entry that it has now, too.
        let (kept, now) = (durable.get(matched), node_of(model, *node).submitted.get(matched));
        demand(kept.is_none() || now.is_none() || kept == now, || {
            format!("node {node} acknowledges {now:?}, and has {kept:?} durable")
        })
    }
}
