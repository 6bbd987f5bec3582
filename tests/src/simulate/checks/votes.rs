//! A replica votes once in a term, and for nobody before its vote is durable (thesis 3.4, 3.8); its
//! vote for itself counts as one.

use std::collections::BTreeMap;

use quorate::{Body, Replica, Role, Term};

use super::{Check, Observation, Verdict, demand, node_of};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Votes {
    given: BTreeMap<(Replica, Term), Replica>,
}

impl Votes {
    fn gives(&mut self, voter: Replica, term: Term, to: Replica, model: &Model) -> Verdict {
        let durable = node_of(model, voter.id).durable.hard_state;
        let is_durable = durable.term == term && durable.voted_for == Some(to);
        demand(is_durable || durable.term > term, || {
            format!("replica {voter} votes for {to} in term {term}, and its disk says {durable:?}")
        })?;
        let known = *self.given.entry((voter, term)).or_insert(to);
        demand(known == to, || {
            format!("replica {voter} votes for {to} in term {term}, and for {known}")
        })
    }
}

impl Check for Votes {
    fn name(&self) -> &'static str {
        "votes"
    }

    fn is_of_stores(&self) -> bool {
        true
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Sends { message, .. }
                if matches!(message.body, Body::VoteReply { granted: true, .. }) =>
            {
                self.gives(message.from, message.term, message.to, model)
            }
            Observation::Turned { before, now, .. }
                if now.role == Role::Leader && before.role != Role::Leader =>
            {
                self.gives(now.replica, now.term, now.replica, model)
            }
            _ => Ok(()),
        }
    }
}
