//! The state of the model of replication, how it is packed, and what two states have in common.

use super::MAX_TERMS;
use crate::bits::Bits;
use crate::log::{Log, STORES, Stores};

/// A disk and the process on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Store {
    pub(super) term: usize,
    /// The candidate that got the vote of this term, plus one.
    pub(super) voted: usize,
    /// Who has voted for this candidate. Empty unless this is a candidate.
    pub(super) votes: Stores,
    pub(super) log: Log,
}

/// What is known of a term's leader.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Term {
    /// The leader, plus one.
    pub(super) leader: usize,
    /// The leader's log: what appends of this term are made from.
    pub(super) log: Log,
    /// The highest index that each store has acknowledged.
    pub(super) acks: [usize; STORES],
    /// The leader's commit index.
    pub(super) commit: usize,
}

/// A state of the whole cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct State {
    pub(super) stores: [Store; STORES],
    pub(super) terms: [Term; MAX_TERMS],
    /// Everything that any leader has committed.
    pub(super) committed: Log,
    /// The term whose leader began the read that is watched, or zero.
    pub(super) read: usize,
    /// Who has confirmed that read.
    pub(super) confirmed: Stores,
    pub(super) broken: Option<Broken>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Broken {
    TwoLeaders(usize),
    Conflict(usize),
    Incomplete(usize),
    StaleRead(usize),
    LogsDiffer,
}

impl State {
    /// Returns whether the term has a leader that has not seen a higher term yet.
    pub(super) fn in_office(&self, term: usize) -> bool {
        let leader = self.terms[term - 1].leader;
        leader != 0 && self.stores[leader - 1].term == term
    }

    /// Returns whether this log and all others fit together.
    pub(super) fn logs_match(&self, log: Log) -> bool {
        let stores = self.stores.iter().map(|store| store.log);
        stores.chain(self.terms.iter().map(|term| term.log)).all(|other| log.matches(other))
    }

    /// Forgets what no step and no property will look at again.
    pub(super) fn forget(&mut self, terms: usize) {
        for term in 1..=terms {
            if self.terms[term - 1].leader == 0 || self.in_office(term) {
                continue;
            }
            // Nobody counts for a leader that has gone.
            self.terms[term - 1].acks = [0; STORES];
            if self.read == term {
                (self.read, self.confirmed) = (0, 0);
            }
            // Nobody accepts its appends or votes in its term any more.
            let over =
                |state: &Self, term: usize| state.stores.iter().all(|store| store.term > term);
            if over(self, term) {
                self.terms[term - 1].log = Log::default();
            }
            // What it has committed is looked up by leaders that are yet to be elected.
            let later = |later: usize| self.terms[later - 1].leader != 0 || over(self, later);
            if (term + 1..=terms).all(later) {
                self.terms[term - 1].commit = 0;
            }
        }
    }

    /// Returns the state with nodes 1 and 2 in each other's place.
    pub(super) fn mirrored(&self) -> Self {
        let mut to = *self;
        let set = |set: Stores| set & !3 | (set & 1) << 1 | set >> 1 & 1;
        let named = |name: usize| [0, 2, 1, 3, 4][name];
        to.stores.swap(0, 1);
        for store in &mut to.stores {
            store.voted = named(store.voted);
            store.votes = set(store.votes);
        }
        for term in &mut to.terms {
            term.leader = named(term.leader);
            term.acks.swap(0, 1);
        }
        to.confirmed = set(self.confirmed);
        to
    }

    /// Packs the state.
    pub(super) fn packed(&self) -> [u64; 4] {
        let mut bits = Bits::empty();
        for store in &self.stores {
            bits.put(store.term as u64, 2);
            bits.put(store.voted as u64, 3);
            bits.put(store.votes.into(), 4);
            bits.put(store.log.bits(), Log::BITS);
        }
        for term in &self.terms {
            bits.put(term.leader as u64, 3);
            bits.put(term.log.bits(), Log::BITS);
            for &acked in &term.acks {
                bits.put(acked as u64, 3);
            }
            bits.put(term.commit as u64, 3);
        }
        bits.put(self.committed.bits(), Log::BITS);
        bits.put(self.read as u64, 2);
        bits.put(self.confirmed.into(), 4);
        bits.words
    }

    /// Returns the state that was packed to this.
    pub(super) fn unpacked(words: &[u64; 4]) -> Self {
        let mut bits = Bits::of(*words);
        let mut state = Self::default();
        for store in &mut state.stores {
            store.term = bits.take(2) as usize;
            store.voted = bits.take(3) as usize;
            store.votes = bits.take(4) as Stores;
            store.log = Log::from_bits(bits.take(Log::BITS));
        }
        for term in &mut state.terms {
            term.leader = bits.take(3) as usize;
            term.log = Log::from_bits(bits.take(Log::BITS));
            for acked in &mut term.acks {
                *acked = bits.take(3) as usize;
            }
            term.commit = bits.take(3) as usize;
        }
        state.committed = Log::from_bits(bits.take(Log::BITS));
        state.read = bits.take(2) as usize;
        state.confirmed = bits.take(4) as Stores;
        state
    }
}
