//! How a cluster is formed: claims, ballots and the first entry (F1 to F4 of the design).
//!
//! Each node begins with an empty store and the list of members that it was told, if any. A node
//! may lose its disk and come back with another store, told something else; the lost one is dead
//! (a wipe) or lives on (a twin).
//!
//! Messages may be lost, late, repeated and overtaken without limit. None is stored: whoever may
//! receive a claim, an answer or a first entry that was ever sent may receive it at any time.
//!
//! - **Claims** of an attempt are there from its beginning.
//! - **Answers** are the set of stores that have accepted.
//! - **First entries** are there as soon as one store is bound that may offer them.
//!
//! # What is left out
//!
//! F5 (a founder that meets a bound store gives up) and F6 (others ask the founder) only forbid,
//! or only tell. Neither is needed for what is checked here. Ballots are drawn freely: what a
//! founder learns from a refusal only helps it to draw a higher one.
//!
//! # What is checked
//!
//! A first entry that a majority of its members has taken is a **formed** cluster. It stays one
//! until a majority of its members is dead. There are never two formed clusters whose lists share
//! a node. So of one list at most one is formed, no store is named by two, and overlapping lists
//! are never both formed.

use std::fmt;

use crate::bits::Bits;
use crate::explore::Model;
use crate::rule::Rule;

/// The most stores that a state has room for: four nodes and two new disks.
const MAX_STORES: usize = 6;
/// The most attempts to form that a state has room for.
const MAX_ATTEMPTS: usize = 4;

/// A set of nodes, or of stores, a bit each.
type Set = u8;

/// The model of formation in one scope.
#[derive(Clone, Copy, Debug)]
pub struct Formation {
    /// The two lists, as sets of nodes. Bit 0 is node 1. Each store is told one of them or none.
    pub lists: [u8; 2],
    /// How many disks may be lost, with the old process dead.
    pub wipes: u8,
    /// How many new disks may be put beside one that lives on.
    pub twins: u8,
    /// How often an empty store is told another list.
    pub retold: u8,
    /// The number of attempts, at most four.
    pub attempts: usize,
    /// The highest ballot, at most three.
    pub ballots: u8,
    /// The rule that is dropped.
    pub without: Option<Rule>,
}

/// A disk and the process on it. The one at position `i` has been created `i`-th.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Store {
    /// The node's position, plus one; zero if the store does not exist yet.
    node: u8,
    alive: bool,
    /// The list that it was told, plus one.
    told: u8,
    /// The attempt that it has accepted, plus one.
    claim: u8,
    /// It has accepted claims of more than one founder's store.
    two_founders: bool,
    /// The attempt whose first entry it has, plus one.
    bound: u8,
}

/// An attempt to form a cluster: a claim, and the first entry once it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Attempt {
    /// Zero if there is no such attempt.
    ballot: u8,
    /// The founder's store.
    founder: u8,
    list: u8,
    /// The stores that have accepted.
    accepted: Set,
    /// The members that the first entry names; empty until it is written.
    members: Set,
    /// A majority of the members has taken the first entry.
    formed: bool,
}

/// A state of all stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    stores: [Store; MAX_STORES],
    attempts: [Attempt; MAX_ATTEMPTS],
    wipes: u8,
    twins: u8,
    retold: u8,
}

/// A store's name in a trace: the node, with a stroke for each later disk.
#[derive(Clone, Copy, Debug)]
pub struct Name {
    node: u8,
    strokes: usize,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}{}", self.node, "'".repeat(self.strokes))
    }
}

/// A step of the model.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A founder begins an attempt.
    Begin(Name, u8, Set),
    /// A store accepts the claim of a founder with a ballot.
    Accept(Name, Name, u8),
    /// A founder writes the first entry of its attempt with a ballot.
    Write(Name, u8),
    /// A store takes the first entry of a founder with a ballot.
    Take(Name, Name, u8),
    /// A store is created in the place of another, which dies or not, and is told a list or none.
    Replace(Name, bool, Set),
    /// A store is told another list, or none.
    Retell(Name, Set),
    /// A store restarts and has forgotten what it has accepted.
    Forget(Name),
}

/// A list as it is printed.
pub(crate) struct List(pub(crate) Set);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("no list");
        }
        let nodes = (0..8).filter(|node| self.0 >> node & 1 == 1).map(|node| node + 1);
        write!(f, "the list {:?}", nodes.collect::<Vec<_>>())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::Begin(founder, ballot, list) => {
                write!(f, "{founder} claims {} with ballot {ballot}", List(list))
            }
            Self::Accept(store, founder, ballot) => {
                write!(f, "{store} accepts the claim of {founder} with ballot {ballot}")
            }
            Self::Write(founder, ballot) => {
                write!(f, "{founder} writes the first entry for ballot {ballot}")
            }
            Self::Take(store, founder, ballot) => {
                write!(f, "{store} takes the first entry of {founder} for ballot {ballot}")
            }
            Self::Replace(old, dies, told) => {
                let what = if dies { "dies, and" } else { "lives on beside" };
                write!(f, "{old} {what} a new store of its node that is told {}", List(told))
            }
            Self::Retell(store, told) => write!(f, "{store} is told {}", List(told)),
            Self::Forget(store) => write!(f, "{store} restarts and forgets its claim"),
        }
    }
}

impl Formation {
    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    /// Returns the list that a store was told, or the empty set.
    fn told(&self, told: u8) -> Set {
        if told == 0 { 0 } else { self.lists[told as usize - 1] }
    }

    /// What a store may be told: nothing, or one of the lists.
    fn tellings(&self) -> std::ops::RangeInclusive<u8> {
        0..=if self.lists[0] == self.lists[1] { 1 } else { 2 }
    }

    fn majority(&self, attempt: &Attempt) -> u32 {
        self.lists[attempt.list as usize].count_ones() / 2 + 1
    }

    /// Returns whether a store may accept a claim that it has not accepted yet (F2).
    fn accepts(&self, state: &State, store: usize, claim: &Attempt) -> bool {
        let of = state.stores[store];
        let founder = claim.founder as usize;
        let node = state.stores[founder].node;
        let listed = self.lists[claim.list as usize] >> (of.node.max(1) - 1) & 1 == 1;
        // The founder is its node's member itself.
        if !of.alive || !listed || of.node == node && store != founder {
            return false;
        }
        if of.bound != 0 {
            return self.lacks(Rule::EmptyStores);
        }
        if of.told != 0 && of.told != claim.list + 1 {
            return false;
        }
        if of.claim == 0 {
            return true;
        }
        let before = state.attempts[of.claim as usize - 1];
        let same_store = before.founder == claim.founder;
        let same_node = state.stores[before.founder as usize].node == node;
        let strict = !of.two_founders || self.lacks(Rule::OneStoreChangesList);
        let same = same_node && before.list == claim.list || same_store && strict;
        (claim.ballot > before.ballot || self.lacks(Rule::Ballots))
            && (same || self.lacks(Rule::SameFounder))
    }

    fn begin(&self, state: &State, founder: usize, visit: &mut impl FnMut(Step, State)) {
        let of = state.stores[founder];
        let Some(free) = state.attempts[..self.attempts].iter().position(|one| one.ballot == 0)
        else {
            return;
        };
        // The lowest listed node founds.
        if of.bound != 0 || self.told(of.told).trailing_zeros() + 1 != of.node.into() {
            return;
        }
        let ballots = if self.lacks(Rule::Ballots) { 1 } else { self.ballots };
        for ballot in 1..=ballots {
            let list = of.told - 1;
            let attempt = Attempt { ballot, founder: founder as u8, list, ..Attempt::default() };
            if self.accepts(state, founder, &attempt) {
                let mut to = *state;
                to.attempts[free] = attempt;
                to.stores[founder].claim = free as u8 + 1;
                visit(Step::Begin(state.name(founder), ballot, self.told(of.told)), to);
            }
        }
    }

    /// Lets the founder of an attempt write the first entry, for each choice of members (F3).
    fn write(&self, state: &State, at: usize, visit: &mut impl FnMut(Step, State)) {
        let attempt = state.attempts[at];
        let founder = attempt.founder as usize;
        let of = state.stores[founder];
        if !of.alive || of.bound != 0 || of.claim as usize != at + 1 || attempt.members != 0 {
            return;
        }
        // Two disks of a node may both have accepted: either may be the member.
        let list = self.lists[attempt.list as usize];
        let mut choices: Vec<Set> = vec![1 << founder];
        for node in (1..=8).filter(|&node| list >> (node - 1) & 1 == 1 && node != of.node) {
            let disks: Vec<usize> = (0..MAX_STORES)
                .filter(|&store| state.stores[store].node == node)
                .filter(|&store| attempt.accepted >> store & 1 == 1)
                .collect();
            if disks.is_empty() && self.lacks(Rule::AllAccept) {
                continue;
            }
            let with = |disk: &usize| choices.iter().map(|&set| set | 1 << *disk).collect();
            choices = disks.iter().flat_map(|disk| -> Vec<Set> { with(disk) }).collect();
        }
        for members in choices {
            if members.count_ones() >= self.majority(&attempt) {
                let mut to = *state;
                to.attempts[at].members = members;
                to.stores[founder].bound = at as u8 + 1;
                visit(Step::Write(state.name(founder), attempt.ballot), to);
            }
        }
    }

    /// Lets a store take the first entry of an attempt (F4).
    fn take(&self, state: &State, at: usize, store: usize) -> Option<State> {
        let attempt = state.attempts[at];
        let of = state.stores[store];
        if of.bound != 0 || attempt.members == 0 || !self.names(state, &attempt, store) {
            return None;
        }
        let another = |other: usize| {
            other != attempt.founder as usize && state.stores[other].bound as usize == at + 1
        };
        let agrees = of.told == 0 || of.told == attempt.list + 1;
        let may = of.claim as usize == at + 1
            || (0..MAX_STORES).any(another) && agrees
            || self.lacks(Rule::ClaimBeforeEntry);
        may.then(|| {
            let mut to = *state;
            to.stores[store].bound = at as u8 + 1;
            to
        })
    }

    /// Returns whether a first entry names a store. A node whose answer did not come before the
    /// entry was written (only without F3) is named by its id, so each of its stores is.
    fn names(&self, state: &State, attempt: &Attempt, store: usize) -> bool {
        let node = state.stores[store].node;
        let listed = node != 0 && self.lists[attempt.list as usize] >> (node - 1) & 1 == 1;
        let other =
            |other: usize| attempt.members >> other & 1 == 1 && state.stores[other].node == node;
        attempt.members >> store & 1 == 1 || listed && !(0..MAX_STORES).any(other)
    }

    fn replace(&self, state: &State, store: usize, visit: &mut impl FnMut(Step, State)) {
        let Some(free) = state.stores.iter().position(|store| store.node == 0) else {
            return;
        };
        for dies in [true, false] {
            let left = if dies { self.wipes - state.wipes } else { self.twins - state.twins };
            if left == 0 {
                continue;
            }
            for told in self.tellings() {
                let mut to = *state;
                let node = state.stores[store].node;
                to.stores[free] = Store { node, alive: true, told, ..Store::default() };
                to.stores[store].alive = !dies;
                to.wipes += u8::from(dies);
                to.twins += u8::from(!dies);
                visit(Step::Replace(state.name(store), dies, self.told(told)), to);
            }
        }
    }

    /// Marks the clusters that are formed, and forgets what will not be looked at again.
    fn settle(&self, state: &mut State) {
        for at in 0..self.attempts {
            let attempt = state.attempts[at];
            let founder = state.stores[attempt.founder as usize];
            if attempt.members == 0 {
                // The founder has died, or has begun another attempt.
                if !founder.alive || founder.claim as usize != at + 1 {
                    state.attempts[at].accepted = 0;
                }
                continue;
            }
            state.attempts[at].accepted = 0;
            let bound = |store: &&Store| store.alive && store.bound as usize == at + 1;
            if state.stores.iter().filter(bound).count() as u32 >= self.majority(&attempt) {
                state.attempts[at].formed = true;
            }
            let mut alive: Set = 0;
            for store in (0..MAX_STORES).filter(|&store| state.stores[store].alive) {
                if self.names(state, &attempt, store) {
                    alive |= 1 << (state.stores[store].node - 1);
                }
            }
            if alive.count_ones() < self.majority(&attempt) {
                state.attempts[at].formed = false;
            }
        }
        for store in &mut state.stores {
            if store.bound != 0 || !store.alive {
                *store = Store { told: 0, claim: 0, two_founders: false, ..*store };
            }
        }
    }
}

impl State {
    fn name(&self, store: usize) -> Name {
        let node = self.stores[store].node;
        let strokes = self.stores[..store].iter().filter(|other| other.node == node).count();
        Name { node, strokes }
    }

    /// Returns the state with the attempts in the order of founders and ballots, not of time.
    fn sorted(&self) -> Self {
        let mut order: [usize; MAX_ATTEMPTS] = [0, 1, 2, 3];
        order.sort_by_key(|&at| {
            let Attempt { ballot, founder, list, accepted, members, .. } = self.attempts[at];
            (ballot == 0, founder, ballot, list, members, accepted)
        });
        let mut to = *self;
        let mut renamed = [0; MAX_ATTEMPTS + 1];
        for (now, &before) in order.iter().enumerate() {
            to.attempts[now] = self.attempts[before];
            renamed[before + 1] = now as u8 + 1;
        }
        for store in &mut to.stores {
            store.claim = renamed[store.claim as usize];
            store.bound = renamed[store.bound as usize];
        }
        to
    }
}

impl Model for Formation {
    type State = State;
    type Key = [u64; 3];
    type Step = Step;

    fn starts(&self) -> Vec<State> {
        let mut starts = vec![State::default()];
        let nodes = u8::BITS - (self.lists[0] | self.lists[1]).leading_zeros();
        for node in 0..nodes {
            let told = |start: &State| {
                let start = *start;
                self.tellings().map(move |told| {
                    let mut to = start;
                    let node = node as u8 + 1;
                    to.stores[node as usize - 1] =
                        Store { node, alive: true, told, ..Store::default() };
                    to
                })
            };
            starts = starts.iter().flat_map(told).collect();
        }
        starts
    }

    fn steps(&self, state: &State, visit: &mut impl FnMut(Step, State)) {
        let mut visit = |step, mut to: State| {
            self.settle(&mut to);
            visit(step, to);
        };
        for store in (0..MAX_STORES).filter(|&store| state.stores[store].alive) {
            let of = state.stores[store];
            let name = state.name(store);
            self.begin(state, store, &mut visit);
            self.replace(state, store, &mut visit);
            for (at, attempt) in state.attempts.iter().enumerate() {
                let founder = state.name(attempt.founder.into());
                if attempt.ballot == 0 {
                    continue;
                }
                if let Some(to) = self.take(state, at, store) {
                    visit(Step::Take(name, founder, attempt.ballot), to);
                }
                // Only its begin makes a founder accept its own claim.
                if store != attempt.founder.into()
                    && of.claim as usize != at + 1
                    && self.accepts(state, store, attempt)
                {
                    let mut to = *state;
                    let before = state.attempts[of.claim.max(1) as usize - 1];
                    to.stores[store].two_founders |=
                        of.claim != 0 && before.founder != attempt.founder;
                    to.stores[store].claim = at as u8 + 1;
                    to.attempts[at].accepted |= 1 << store;
                    visit(Step::Accept(name, founder, attempt.ballot), to);
                }
            }
            if of.bound != 0 {
                continue;
            }
            for told in self.tellings() {
                if told != of.told && state.retold < self.retold {
                    let mut to = *state;
                    to.stores[store].told = told;
                    to.retold += 1;
                    visit(Step::Retell(name, self.told(told)), to);
                }
            }
            if of.claim != 0 && self.lacks(Rule::DurableClaims) {
                let mut to = *state;
                to.stores[store] = Store { claim: 0, two_founders: false, ..of };
                visit(Step::Forget(name), to);
            }
        }
        for at in 0..self.attempts {
            if state.attempts[at].ballot != 0 {
                self.write(state, at, &mut visit);
            }
        }
    }

    fn violation(&self, state: &State) -> Option<String> {
        let formed = |at: &usize| state.attempts[*at].formed;
        let shares = |one: usize, other: usize| {
            let [one, other] = [one, other].map(|at| &state.attempts[at]);
            let both = |store| self.names(state, one, store) && self.names(state, other, store);
            one.list == other.list || (0..MAX_STORES).any(both)
        };
        (0..MAX_ATTEMPTS).filter(formed).find_map(|other| {
            let one = (0..other).filter(formed).find(|&one| shares(one, other))?;
            let [one, other] = [one, other].map(|at| {
                let Attempt { list, founder, ballot, .. } = state.attempts[at];
                let founder = state.name(founder.into());
                format!("{} of {founder}, ballot {ballot}", List(self.lists[list as usize]))
            });
            Some(format!("two clusters are formed: {one}, and {other}"))
        })
    }

    fn pack(&self, state: &State) -> [u64; 3] {
        let state = state.sorted();
        let mut bits = Bits::empty();
        for store in &state.stores {
            bits.put(store.node.into(), 3);
            bits.put(store.alive.into(), 1);
            bits.put(store.told.into(), 2);
            bits.put(store.claim.into(), 3);
            bits.put(store.two_founders.into(), 1);
            bits.put(store.bound.into(), 3);
        }
        for attempt in &state.attempts {
            bits.put(attempt.ballot.into(), 2);
            bits.put(attempt.founder.into(), 3);
            bits.put(attempt.list.into(), 1);
            bits.put(attempt.accepted.into(), 6);
            bits.put(attempt.members.into(), 6);
            bits.put(attempt.formed.into(), 1);
        }
        for used in [state.wipes, state.twins, state.retold] {
            bits.put(used.into(), 2);
        }
        bits.words
    }

    fn unpack(&self, key: &[u64; 3]) -> State {
        let mut bits = Bits::of(*key);
        let mut state = State::default();
        for store in &mut state.stores {
            store.node = bits.take(3) as u8;
            store.alive = bits.take(1) == 1;
            store.told = bits.take(2) as u8;
            store.claim = bits.take(3) as u8;
            store.two_founders = bits.take(1) == 1;
            store.bound = bits.take(3) as u8;
        }
        for attempt in &mut state.attempts {
            attempt.ballot = bits.take(2) as u8;
            attempt.founder = bits.take(3) as u8;
            attempt.list = bits.take(1) as u8;
            attempt.accepted = bits.take(6) as Set;
            attempt.members = bits.take(6) as Set;
            attempt.formed = bits.take(1) == 1;
        }
        for used in [&mut state.wipes, &mut state.twins, &mut state.retold] {
            *used = bits.take(2) as u8;
        }
        state
    }
}
