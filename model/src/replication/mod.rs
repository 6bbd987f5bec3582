//! Votes, appends, commits, a read and the exchange of a lost disk.
//!
//! Nodes 1, 2 and 3 have formed a cluster. A new disk of node 3 takes part from any moment on,
//! while the old one is dead, or lives on and is heard or not: a store that is dead is one that
//! takes no further step, so both are among the runs of one model.
//!
//! # Messages
//!
//! A message may be lost, late, repeated and overtaken without limit. So the set of messages sent
//! only grows, and what matters is which messages are in it. No message is stored:
//!
//! - **Appends** of a term are all slices of its leader's log. `Term::log` keeps that log after
//!   the leader has gone, for as long as somebody may still accept it.
//! - **Acknowledgements** are monotone: only the highest of each store in each term matters.
//! - **Vote requests** are made from the candidate's log, which does not change while it is a
//!   candidate. Requests of a candidate that has moved on can only be granted in vain.
//! - **Votes** count as soon as they are granted. The voter may move on at once.
//! - **Answers to a round** are a set of stores for the one round that is watched.
//!
//! # Steps that are left out
//!
//! Each argument shows that for a run with the step there is one without, with the same logs, in
//! which at least as much is committed and confirmed. Every property survives that.
//!
//! - A store that only learns of a higher term can do less afterwards. Campaigning may skip terms.
//! - A vote in vain (for a candidate that never leads) only forbids. So a candidacy begins with
//!   the first vote of another store: until then the candidate does nothing.
//! - A leader leads and commits as soon as the last vote or acknowledgement is sent: doing it later
//!   allows no step that it does not allow now.
//! - An append brings one entry, or none. One with more is several in a row, and one that starts
//!   in the middle of what matches does the same as one that starts where the logs part.
//! - An append without entries is sent only by a leader in office to a store that has more of its
//!   log than it has acknowledged.
//! - A read is watched only if it begins when another leader has committed more than the reader.
//!   Any other one sees everything by itself.
//!
//! With [`Replication::plain`] all these steps but the reads are taken all the same. A test does so
//! in a smaller scope.
//!
//! Every write is durable at once, so a restart is silence. Elections need no timeout; a step
//! that the design allows only under a condition of time or silence is always allowed.

use std::fmt;

use crate::explore::Model;
use crate::log::{Configuration, Kind, Log, NAMES, NEW, STORES, Stores, by_node};
use crate::rule::Rule;

mod plain;
mod state;

pub use state::State;
use state::{Broken, Store, Term};

/// The most terms that a state has room for.
pub const MAX_TERMS: usize = 3;

/// The model of replication in one scope.
#[derive(Clone, Copy, Debug)]
pub struct Replication {
    /// The number of terms, at most [`MAX_TERMS`].
    pub terms: usize,
    /// The number of entries in a log, at most [`Log::MAX`], beside the founding entry.
    pub entries: usize,
    /// Takes the steps that are left out, too.
    pub plain: bool,
    /// The rule that is dropped.
    pub without: Option<Rule>,
}

/// A step of the model.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Step {
    /// A store campaigns and gets a first vote.
    Campaign { candidate: usize, term: usize, voter: usize },
    /// A candidate gets another vote.
    Vote { candidate: usize, term: usize, voter: usize },
    /// A leader appends an entry to its log.
    Write { term: usize, leader: usize, kind: Kind },
    /// A store accepts an entry, or none, and acknowledges what it has up to an index.
    Accept { term: usize, store: usize, index: usize, entry: bool },
    /// A leader begins a read.
    Read { term: usize, leader: usize },
    /// A store answers the round of the read.
    Confirm { term: usize, store: usize },
    /// A step that is usually left out.
    Plain(plain::Step),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Campaign { candidate, term, voter } => {
                let (candidate, voter) = (NAMES[candidate], NAMES[voter]);
                write!(f, "{candidate} campaigns in term {term}, {voter} votes for it")
            }
            Self::Vote { candidate, term, voter } => {
                write!(f, "{} votes for {} in term {term}", NAMES[voter], NAMES[candidate])
            }
            Self::Write { term, leader, kind } => {
                write!(f, "{}, leader of term {term}, appends {kind:?}", NAMES[leader])
            }
            Self::Accept { term, store, index, entry } => {
                let what = if entry { "accepts entry" } else { "acknowledges up to" };
                write!(f, "{} {what} {index} from the leader of term {term}", NAMES[store])
            }
            Self::Read { term, leader } => {
                write!(f, "{}, leader of term {term}, begins a read", NAMES[leader])
            }
            Self::Confirm { term, store } => {
                write!(f, "{} confirms the read of term {term}", NAMES[store])
            }
            Self::Plain(step) => step.fmt(f),
        }
    }
}

impl Replication {
    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    /// Returns whether the stores in `set` are a quorum, counted as `rule` wants it.
    fn agrees(&self, configuration: Configuration, set: Stores, rule: Rule) -> bool {
        let set = if self.lacks(rule) { by_node(set) } else { set };
        configuration.agrees(set)
    }

    /// Returns whether a message to `voter` reaches it in this configuration.
    fn asks(&self, configuration: Configuration, voter: usize, rule: Rule) -> bool {
        configuration.votes(voter) || self.lacks(rule) && (voter == NEW || voter == NEW - 1)
    }

    /// Lets `voter` vote for `candidate` in the candidate's term, if it may.
    fn vote(&self, state: &mut State, candidate: usize, voter: usize) -> bool {
        let Store { term, log, .. } = state.stores[candidate];
        let of = &mut state.stores[voter];
        let same_node = |voted: usize| {
            self.lacks(Rule::IncarnationsInVotedFor)
                && by_node(1 << voted) == by_node(1 << candidate)
        };
        let free = of.term < term || of.term == term && (of.voted == 0 || same_node(of.voted - 1));
        let configuration = log.configuration().1;
        if !free
            || !self.asks(configuration, voter, Rule::IncarnationsInVotes)
            || log.last_id() < of.log.last_id()
        {
            return false;
        }
        if of.term < term {
            *of = Store { term, votes: 0, ..*of };
        }
        of.voted = candidate + 1;
        state.stores[candidate].votes |= 1 << voter;
        if !self.plain {
            self.lead(state, candidate);
        }
        true
    }

    /// Makes a candidate that has a quorum the leader.
    fn lead(&self, state: &mut State, leader: usize) {
        let Store { term, log, votes, .. } = state.stores[leader];
        if !self.agrees(log.configuration().1, votes, Rule::IncarnationsInVotes) {
            return;
        }
        if state.terms[term - 1].leader != 0 {
            state.broken = Some(Broken::TwoLeaders(term));
            return;
        }
        state.stores[leader].votes = 0;
        state.terms[term - 1] = Term { leader: leader + 1, log, ..Term::default() };
        let before = state.terms[..term - 1].iter().map(|earlier| earlier.commit).max();
        if state.committed.common(log) < before.unwrap_or(0) {
            state.broken = Some(Broken::Incomplete(term));
        }
    }

    /// Moves the commit index of a term's leader as far as the acknowledgements allow.
    fn commit(&self, state: &mut State, term: usize) {
        let Term { leader, log, acks, commit } = state.terms[term - 1];
        let configuration = log.configuration().1;
        let agreed = |index: usize| {
            let mut set: Stores = 1 << (leader - 1);
            for (store, &acked) in acks.iter().enumerate() {
                set |= Stores::from(acked >= index) << store;
            }
            let learners = self.lacks(Rule::LearnersCountForNothing);
            self.agrees(configuration, set, Rule::IncarnationsInAcks)
                || learners && configuration == Configuration::Learner && set.count_ones() >= 2
        };
        // Only entries of its own term (thesis 3.6.2).
        let indexes = (commit + 1..=log.len()).rev();
        let Some(index) =
            indexes.take_while(|&index| log.term(index) == term).find(|&index| agreed(index))
        else {
            return;
        };
        state.terms[term - 1].commit = index;
        let same = state.committed.common(log);
        if same < index.min(state.committed.len()) {
            state.broken = Some(Broken::Conflict(same + 1));
        }
        if index > state.committed.len() {
            state.committed = log.prefix(index);
        }
        for later in term..self.terms {
            if state.terms[later].leader != 0 && state.terms[later].log.common(log) < index {
                state.broken.get_or_insert(Broken::Incomplete(later + 1));
            }
        }
    }

    /// Returns whether the stores that have confirmed the read are a quorum, and says so.
    fn check_read(&self, state: &mut State) {
        if state.read == 0 {
            return;
        }
        let Term { leader, log, .. } = state.terms[state.read - 1];
        let set = state.confirmed | 1 << (leader - 1);
        if self.agrees(log.configuration().1, set, Rule::IncarnationsInRounds) {
            state.broken.get_or_insert(Broken::StaleRead(state.read));
        }
    }

    fn elections(&self, state: &State, visit: &mut impl FnMut(Step, State)) {
        for candidate in 0..STORES {
            let store = state.stores[candidate];
            if !store.log.configuration().1.votes(candidate) {
                continue;
            }
            for voter in (0..STORES).filter(|&voter| voter != candidate) {
                if store.votes != 0 && store.votes >> voter & 1 == 0 {
                    let mut to = *state;
                    if self.vote(&mut to, candidate, voter) {
                        visit(Step::Vote { candidate, term: store.term, voter }, to);
                    }
                }
                for term in store.term + 1..=self.terms {
                    let mut to = *state;
                    let (voted, votes) = (candidate + 1, 1 << candidate);
                    to.stores[candidate] = Store { term, voted, votes, ..store };
                    if self.vote(&mut to, candidate, voter) {
                        visit(Step::Campaign { candidate, term, voter }, to);
                    }
                }
            }
        }
    }

    fn writes(&self, state: &State, term: usize, visit: &mut impl FnMut(Step, State)) {
        let Term { leader, log, commit, .. } = state.terms[term - 1];
        if log.len() == self.entries {
            return;
        }
        let (at, configuration) = log.configuration();
        let direct = self.lacks(Rule::JointStep);
        let kinds: &[Kind] = match configuration {
            Configuration::Old if direct => &[Kind::Data, Kind::Learner, Kind::Joint, Kind::New],
            Configuration::Learner if direct => &[Kind::Data, Kind::Joint, Kind::New],
            Configuration::Old => &[Kind::Data, Kind::Learner, Kind::Joint],
            Configuration::Learner => &[Kind::Data, Kind::Joint],
            Configuration::Joint if commit >= at || self.lacks(Rule::JointCommitted) => {
                &[Kind::Data, Kind::New]
            }
            Configuration::Joint | Configuration::New => &[Kind::Data],
        };
        for &kind in kinds {
            let mut to = *state;
            let log = log.with(term, kind);
            to.terms[term - 1].log = log;
            to.stores[leader - 1].log = log;
            if !self.plain {
                // The new configuration may count what the one before did not.
                self.commit(&mut to, term);
            }
            self.check_read(&mut to);
            visit(Step::Write { term, leader: leader - 1, kind }, to);
        }
    }

    /// Returns whether appends of a leader reach a store. The new disk gets none before a
    /// configuration of the leader names it.
    fn reaches(&self, log: Log, store: usize) -> bool {
        store != NEW
            || log.configuration().1 != Configuration::Old
            || self.lacks(Rule::IncarnationsInAcks)
    }

    fn appends(&self, state: &State, term: usize, visit: &mut impl FnMut(Step, State)) {
        let Term { leader, log, acks, .. } = state.terms[term - 1];
        let in_office = state.in_office(term);
        for store in (0..STORES).filter(|&store| store != leader - 1) {
            let of = state.stores[store];
            if of.term > term || !self.reaches(log, store) {
                continue;
            }
            let same = of.log.common(log);
            let mut accept = |index: usize, entry: bool| {
                let kept = if entry { log.prefix(index) } else { of.log };
                let to = self.accept(state, term, store, kept, index);
                visit(Step::Accept { term, store, index, entry }, to);
            };
            if in_office && acks[store] < same {
                accept(same, false);
            }
            if same < log.len() {
                accept(same + 1, true);
            }
        }
    }

    /// Returns the state after a store has accepted an append, has this log, and acknowledges it
    /// up to `index`.
    fn accept(&self, state: &State, term: usize, store: usize, log: Log, index: usize) -> State {
        let mut to = *state;
        let of = state.stores[store];
        let voted = if of.term == term { of.voted } else { 0 };
        to.stores[store] = Store { term, voted, votes: 0, log };
        if state.in_office(term) {
            let acked = &mut to.terms[term - 1].acks[store];
            *acked = index.max(*acked);
            if !self.plain {
                self.commit(&mut to, term);
            }
        }
        if !to.logs_match(log) {
            to.broken.get_or_insert(Broken::LogsDiffer);
        }
        to
    }

    fn reads(&self, state: &State, term: usize, visit: &mut impl FnMut(Step, State)) {
        let Term { leader, log, acks, commit } = state.terms[term - 1];
        if state.read == 0 && commit > 0 && state.committed.len() > commit {
            let mut to = *state;
            to.read = term;
            if self.lacks(Rule::RoundNumbers) {
                for (store, &acked) in acks.iter().enumerate() {
                    to.confirmed |= Stores::from(acked > 0) << store;
                }
            }
            self.check_read(&mut to);
            visit(Step::Read { term, leader: leader - 1 }, to);
        }
        if state.read != term {
            return;
        }
        for store in (0..STORES).filter(|&store| store != leader - 1) {
            let of = state.stores[store];
            let asked = self.asks(log.configuration().1, store, Rule::IncarnationsInRounds);
            if of.term <= term && asked && state.confirmed >> store & 1 == 0 {
                let mut to = *state;
                if of.term < term {
                    to.stores[store] = Store { term, voted: 0, votes: 0, ..of };
                }
                to.confirmed |= 1 << store;
                self.check_read(&mut to);
                visit(Step::Confirm { term, store }, to);
            }
        }
    }
}

impl Model for Replication {
    type State = State;
    type Key = [u64; 4];
    type Step = Step;

    fn starts(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn steps(&self, state: &State, visit: &mut impl FnMut(Step, State)) {
        let mut visit = |step, mut to: State| {
            to.forget(self.terms);
            visit(step, to);
        };
        self.elections(state, &mut visit);
        if self.plain {
            self.plain_steps(state, &mut visit);
        }
        for term in 1..=self.terms {
            if state.terms[term - 1].leader != 0 {
                self.appends(state, term, &mut visit);
            }
            if state.in_office(term) {
                self.writes(state, term, &mut visit);
                self.reads(state, term, &mut visit);
            }
        }
    }

    fn violation(&self, state: &State) -> Option<String> {
        Some(match state.broken? {
            Broken::TwoLeaders(term) => format!("term {term} has two leaders"),
            Broken::Conflict(index) => format!("two entries are committed at index {index}"),
            Broken::Incomplete(term) => {
                format!("the leader of term {term} lacks an entry that was committed before")
            }
            Broken::StaleRead(term) => {
                format!("the read of term {term} misses an entry that was committed before it")
            }
            Broken::LogsDiffer => "two logs share a log id and differ before it".to_owned(),
        })
    }

    fn pack(&self, state: &State) -> [u64; 4] {
        state.packed().min(state.mirrored().packed())
    }

    fn unpack(&self, key: &[u64; 4]) -> State {
        State::unpacked(key)
    }
}
