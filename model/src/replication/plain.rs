//! The steps that the model of replication leaves out, to check the arguments for that.

use std::fmt;

use super::{Replication, Rule, State, Store};
use crate::log::{Log, NAMES, STORES};

/// A step that is usually left out.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A store learns of a term, and may vote in vain for a store, named plus one.
    Learn { store: usize, term: usize, voted: usize },
    /// A store campaigns, and nobody has voted for it yet.
    Alone { candidate: usize, term: usize },
    /// A candidate learns of the last vote that it needs.
    Lead { candidate: usize },
    /// A leader learns of acknowledgements.
    Commit { term: usize },
    /// A store accepts a slice of the leader's log: the entries after `after` up to `end`.
    Slice { store: usize, term: usize, after: usize, end: usize },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Learn { store, term, voted: 0 } => {
                write!(f, "{} learns of term {term}", NAMES[store])
            }
            Self::Learn { store, term, voted } => {
                let (store, candidate) = (NAMES[store], NAMES[voted - 1]);
                write!(f, "{store} votes in vain for {candidate} in term {term}")
            }
            Self::Alone { candidate, term } => {
                write!(f, "{} campaigns in term {term}", NAMES[candidate])
            }
            Self::Lead { candidate } => write!(f, "{} becomes leader", NAMES[candidate]),
            Self::Commit { term } => write!(f, "the leader of term {term} commits"),
            Self::Slice { store, term, after, end } => {
                let store = NAMES[store];
                write!(f, "{store} accepts what follows {after} up to {end} in term {term}")
            }
        }
    }
}

impl Replication {
    /// Visits the steps that are usually left out.
    pub(super) fn plain_steps(&self, state: &State, visit: &mut impl FnMut(super::Step, State)) {
        let mut visit = |step, to| visit(super::Step::Plain(step), to);
        for (at, &store) in state.stores.iter().enumerate() {
            for term in store.term + 1..=self.terms {
                for voted in 0..=STORES {
                    let mut to = *state;
                    to.stores[at] = Store { term, voted, votes: 0, ..store };
                    visit(Step::Learn { store: at, term, voted }, to);
                }
                if store.log.configuration().1.votes(at) {
                    let mut to = *state;
                    to.stores[at] = Store { term, voted: at + 1, votes: 1 << at, ..store };
                    visit(Step::Alone { candidate: at, term }, to);
                }
            }
            let configuration = store.log.configuration().1;
            if self.agrees(configuration, store.votes, Rule::IncarnationsInVotes) {
                let mut to = *state;
                self.lead(&mut to, at);
                visit(Step::Lead { candidate: at }, to);
            }
        }
        for term in 1..=self.terms {
            let of = state.terms[term - 1];
            if of.leader == 0 {
                continue;
            }
            if state.in_office(term) {
                let mut to = *state;
                self.commit(&mut to, term);
                visit(Step::Commit { term }, to);
            }
            let follows = |&store: &usize| {
                store != of.leader - 1
                    && state.stores[store].term <= term
                    && self.reaches(of.log, store)
            };
            for store in (0..STORES).filter(follows) {
                let log = state.stores[store].log;
                let matches = |&after: &usize| log.term(after) == of.log.term(after);
                for after in (0..=of.log.len().min(log.len())).filter(matches) {
                    for end in after..=of.log.len() {
                        let kept = spliced(log, of.log, after, end);
                        let to = self.accept(state, term, store, kept, end);
                        visit(Step::Slice { store, term, after, end }, to);
                    }
                }
            }
        }
    }
}

/// Returns a follower's log after an append with the leader's entries after `after` up to `end`:
/// only an entry that conflicts takes the place of those that are there.
fn spliced(log: Log, leader: Log, after: usize, end: usize) -> Log {
    let conflict = |index: usize| index > log.len() || log.term(index) != leader.term(index);
    let Some(first) = (after + 1..=end).find(|&index| conflict(index)) else {
        return log;
    };
    (first..=end)
        .fold(log.prefix(first - 1), |log, index| log.with(leader.term(index), leader.kind(index)))
}
