//! Explores every state that a model can reach, breadth first, and finds the shortest way to a
//! violation.
//!
//! A state is kept whole, packed into a few words, and compared whole: no result depends on a
//! hash being free of collisions.

use std::fmt::Display;

/// A system of states and steps, with something that must never happen.
pub trait Model {
    /// A state as the steps work on it.
    type State: Clone;
    /// A state as it is kept.
    type Key: Copy + Eq + AsRef<[u64]>;
    /// What happens between two states. Its text is a line of a trace.
    type Step: Display;

    /// Returns the states to begin with.
    fn starts(&self) -> Vec<Self::State>;

    /// Calls `visit` with each step that is possible in `state`, and the state that it leads to.
    fn steps(&self, state: &Self::State, visit: &mut impl FnMut(Self::Step, Self::State));

    /// Returns what is wrong with this state, if anything is.
    fn violation(&self, state: &Self::State) -> Option<String>;

    /// Packs a state. States that a symmetry maps to each other have one key.
    fn pack(&self, state: &Self::State) -> Self::Key;

    /// Returns a state with this key.
    fn unpack(&self, key: &Self::Key) -> Self::State;
}

/// What an exploration found.
#[derive(Debug)]
pub struct Report {
    /// The number of different states, up to symmetry.
    pub states: usize,
    /// The number of steps taken from them.
    pub steps: u64,
    /// The length of the longest shortest way to a state.
    pub depth: usize,
    /// How the exploration ended.
    pub outcome: Outcome,
}

/// How an exploration ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every state that can be reached was visited, and none is wrong.
    Safe,
    /// A state is wrong. No shorter way leads to a wrong state.
    Violation(Trace),
    /// There are more states than the limit, and none of those visited is wrong.
    Limit,
}

/// The shortest way to a violation.
#[derive(Debug)]
pub struct Trace {
    /// The steps, one a line.
    pub steps: Vec<String>,
    /// What is wrong after the last step.
    pub violation: String,
}

/// Visits all states of `model`, at most `limit` of them (and never more than `u32::MAX - 1`).
pub fn explore<M: Model>(model: &M, limit: usize) -> Report {
    let limit = limit.min(u32::MAX as usize - 1);
    let mut visited = Visited::new();
    let mut report = Report { states: 0, steps: 0, depth: 0, outcome: Outcome::Safe };
    for start in model.starts() {
        visited.insert(model.pack(&start), ROOT);
    }
    let (mut next, mut level_end) = (0, visited.keys.len());
    while next < visited.keys.len() {
        if next == level_end {
            report.depth += 1;
            level_end = visited.keys.len();
        }
        let state = model.unpack(&visited.keys[next]);
        let mut violated = false;
        model.steps(&state, &mut |_, to| {
            report.steps += 1;
            if model.violation(&to).is_some() {
                violated = true;
            } else {
                visited.insert(model.pack(&to), next as u32);
            }
        });
        if violated {
            report.depth += 1;
            report.outcome = Outcome::Violation(trace(model, &visited, next));
            break;
        }
        if visited.keys.len() > limit {
            report.outcome = Outcome::Limit;
            break;
        }
        next += 1;
    }
    report.states = visited.keys.len();
    report
}

/// Replays the way to the state at `last` and the step from there to a violation.
///
/// The replay takes the steps from states that really follow each other. The keys along the way
/// may each stand for a mirror image, so each is only used to recognise the next state.
fn trace<M: Model>(model: &M, visited: &Visited<M::Key>, last: usize) -> Trace {
    let mut way = vec![];
    let mut at = last as u32;
    while at != ROOT {
        way.push(visited.keys[at as usize]);
        at = visited.parents[at as usize];
    }
    let mut state = model.unpack(&way.pop().expect("the way has a start"));
    let mut steps = vec![];
    while let Some(key) = way.pop() {
        let mut found = None;
        model.steps(&state, &mut |step, to| {
            if found.is_none() && model.violation(&to).is_none() && model.pack(&to) == key {
                found = Some((step, to));
            }
        });
        let (step, to) = found.expect("a mirrored state has mirrored steps");
        steps.push(step.to_string());
        state = to;
    }
    let mut violation = None;
    model.steps(&state, &mut |step, to| {
        if violation.is_none()
            && let Some(wrong) = model.violation(&to)
        {
            violation = Some((step, wrong));
        }
    });
    let (step, violation) = violation.expect("a mirrored state has mirrored steps");
    steps.push(step.to_string());
    Trace { steps, violation }
}

/// The parent of a state to begin with.
const ROOT: u32 = u32::MAX;

/// The states seen so far, in the order in which they were found, each with the one it was found
/// from. A table with open addressing finds them by their key: 4 bytes a slot instead of a copy
/// of the key, because memory is what limits a scope.
struct Visited<K> {
    keys: Vec<K>,
    parents: Vec<u32>,
    /// Positions in `keys` plus one; zero is a free slot. The length is a power of two.
    slots: Vec<u32>,
}

impl<K: Copy + Eq + AsRef<[u64]>> Visited<K> {
    fn new() -> Self {
        Self { keys: vec![], parents: vec![], slots: vec![0; 1 << 10] }
    }

    fn insert(&mut self, key: K, parent: u32) {
        let mut slot = self.home(&key);
        while self.slots[slot] != 0 {
            if self.keys[self.slots[slot] as usize - 1] == key {
                return;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.keys.push(key);
        self.parents.push(parent);
        self.slots[slot] = self.keys.len() as u32;
        // Linear probing gets slow beyond a load of 3/4.
        if self.keys.len() > self.slots.len() / 4 * 3 {
            self.grow();
        }
    }

    fn home(&self, key: &K) -> usize {
        let mut hash = 0_u64;
        for word in key.as_ref() {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 32;
        }
        hash as usize & (self.slots.len() - 1)
    }

    fn grow(&mut self) {
        let slots = self.slots.len() * 2;
        // Frees the old table first, so that the two never exist side by side.
        self.slots = vec![];
        self.slots = vec![0; slots];
        for at in 0..self.keys.len() {
            let mut slot = self.home(&self.keys[at]);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (slots - 1);
            }
            self.slots[slot] = at as u32 + 1;
        }
    }
}
