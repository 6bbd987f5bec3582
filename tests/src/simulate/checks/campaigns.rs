//! Only voters ask for votes: a node whose own last configuration does not give its replica a vote
//! does not campaign, unless it doesn't know that to be committed and the one before it gives it a
//! vote (4.2.2); and neither does one that knows it was removed (E4, E5).

use quorate::{Body, Membership, Replica, Standing};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

pub(super) struct Campaigns;

impl Check for Campaigns {
    fn name(&self) -> &'static str {
        "campaigns"
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        let Observation::Sends { node, message } = seen else { return Ok(()) };
        let (Body::PreVote { last_log_id, .. } | Body::Vote { last_log_id, .. }) = &message.body
        else {
            return Ok(());
        };
        let of = node_of(model, *node);
        demand(of.durable.standing != Standing::Spent, || {
            format!("node {node} knows that it was removed, and asks for a vote")
        })?;
        // (In the same turn it may have got more entries since.)
        if !of.submitted.covers(*last_log_id) {
            return Ok(());
        }
        let log = of.submitted.entries.iter().rev();
        let mut own = log.skip_while(|entry| entry.log_id.index > last_log_id.index);
        let Some(seal) = own.find(|entry| entry.is_membership) else { return Ok(()) };
        let me: Replica = message.from;
        let votes = |membership: &Membership| membership.is_voter(me);
        let known = model.configurations.get(&seal.log_id);
        // The part of the log before it may be purged: then it is not known.
        let before = own.find(|entry| entry.is_membership);
        let before = before.and_then(|seal| model.configurations.get(&seal.log_id));
        let is_needed = seal.log_id.index > of.metrics.committed && before.is_none_or(votes);
        demand(known.is_none_or(votes) || is_needed, || {
            format!("node {node} asks for a vote, and has none by {known:?} in its log")
        })
    }
}
