//! A vote and an acknowledgement answer what was sent to this very store: what was sent to an
//! earlier disk of its node is not for it (I2).

use std::collections::BTreeSet;

use quorate::{AppendOutcome, Body, Replica, Term};

use super::{Check, Observation, Verdict, demand};
use crate::simulate::model::Model;

#[derive(Default)]
pub(super) struct Addressees {
    /// Who was asked for its vote, by whom, and in which term.
    votes: BTreeSet<(Replica, Replica, Term)>,
    /// Who has heard of a leader.
    leaders: BTreeSet<(Replica, Replica, Term)>,
}

impl Check for Addressees {
    fn name(&self) -> &'static str {
        "addressees"
    }

    fn is_of_stores(&self) -> bool {
        true
    }

    fn observe(&mut self, seen: &Observation<'_>, model: &Model) -> Verdict {
        match seen {
            Observation::Receives { message, .. } if model.is_replica(message.to) => {
                let asked = (message.to, message.from, message.term);
                match message.body {
                    Body::Vote { .. } => self.votes.insert(asked),
                    Body::Append { .. } | Body::Snapshot { .. } => self.leaders.insert(asked),
                    _ => false,
                };
                Ok(())
            }
            Observation::Sends { message, .. } => {
                let asked = (message.from, message.to, message.term);
                let was_asked = match message.body {
                    Body::VoteReply { granted: true, .. } => self.votes.contains(&asked),
                    Body::AppendReply { outcome: AppendOutcome::Accepted { .. }, .. } => {
                        self.leaders.contains(&asked)
                    }
                    _ => true,
                };
                demand(was_asked, || format!("nobody has asked for this of it: {message:?}"))
            }
            _ => Ok(()),
        }
    }
}
