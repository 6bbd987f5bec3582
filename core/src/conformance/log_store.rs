//! The suite of a log store: the factory, the macro, and the scene in which its cases play. What the contract promises is kept
//! as a model beside the store: the states of each group's log, one after each write. A reopened store must be in one of them, and
//! in none before the last write that was reported as durable.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate_rt::AsyncRuntime;
use quorate_rt::channel::oneshot;

use crate::{
    Completion, Entry, GroupId, HardState, Index, LogId, LogStore, LogWrite, Membership, Outline,
    Payload, StoreError, Term,
};

mod durability;
mod reading;

pub use self::durability::*;
pub use self::reading::*;

/// What the suite needs to know of a log store.
pub trait StoreFactory<R: AsyncRuntime>: 'static {
    /// The implementation.
    type Store: LogStore;
    /// Whether a store that is opened again holds what the one before held. If not, it must be empty.
    const DURABLE: bool = true;

    /// Opens the store: the first time an empty one, and each other time the same again. The one before has been dropped, maybe
    /// in the middle of a write; a factory over a simulated disk may lose here what was not synced.
    async fn open(&self, rt: &R) -> Self::Store;
}

/// Makes the tests of a log store: `log_store_suite!(name, runtime, launch, factory);` gives a module `name` with a test for each
/// case. See [`conformance`](crate::conformance) for an example.
#[macro_export]
macro_rules! log_store_suite {
    ($name:ident, $runtime:ty, $launch:expr, $factory:expr) => {
        #[allow(unused_imports)] // Whatever the types and expressions need from outside.
        mod $name {
            use super::*;
            $crate::suite_cases! { $runtime, $launch, $factory, log_store {
                unknown_groups_are_empty, reads_what_was_appended, reads_what_fits, reads_before_durable,
                refuses_what_is_missing, replaces_a_suffix, replaces_while_it_reads,
                writes_the_same_suffix_again, large_writes, completes_in_order, many_groups,
                recovers_the_outline, recovers_hard_states, crashes_at_any_moment,
                crashes_while_a_suffix_is_replaced
            } }

            #[test]
            fn ends_with_its_runtime() {
                $crate::conformance::within_limit(|| {
                    $crate::conformance::log_store::ends_with_its_runtime::<$runtime, _>(
                        &$launch, $factory,
                    );
                });
            }
        }
    };
}

/// A group's log, as the contract has it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Log {
    hard_state: HardState,
    entries: Vec<Entry>,
}

impl Log {
    fn apply(&mut self, write: &LogWrite) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(first) = write.entries.first() {
            self.entries.truncate(first.log_id.index as usize - 1);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    fn last(&self) -> LogId {
        self.entries.last().map_or(LogId::ZERO, |entry| entry.log_id)
    }

    fn outline(&self) -> Outline {
        let mut outline = Outline::default();
        self.entries.iter().for_each(|entry| outline.push(entry));
        outline
    }
}

/// What became of writes, by their numbers from 1 on, in the order in which the store told.
type Told = Vec<(usize, Result<(), StoreError>)>;

/// The writes of a group since the store was opened.
struct History {
    /// The log as it was opened, and after each write.
    states: Vec<Log>,
    told: Rc<RefCell<Told>>,
}

impl History {
    fn opened(log: Log) -> Self {
        Self { states: vec![log], told: Rc::default() }
    }

    fn now(&self) -> &Log {
        self.states.last().expect("there is always a first one")
    }

    /// How many writes were reported as durable: those are the first ones, and were told in order.
    fn durable(&self) -> usize {
        let told = self.told.borrow();
        let durable: Vec<usize> =
            told.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(number, _)| *number).collect();
        let in_order: Vec<usize> = (1..=durable.len()).collect();
        assert_eq!(durable, in_order, "completions must come in the order of submission");
        durable.len()
    }
}

type Histories = BTreeMap<GroupId, History>;
type Outcome = oneshot::Receiver<Result<(), StoreError>>;

/// An open store, and what it must hold.
struct Scene<R: AsyncRuntime, F: StoreFactory<R>> {
    rt: R,
    factory: F,
    store: F::Store,
    groups: Histories,
}

impl<R: AsyncRuntime, F: StoreFactory<R>> Scene<R, F> {
    /// Opens an empty store for these groups.
    async fn open(rt: R, factory: F, groups: &[GroupId]) -> Self {
        let groups = groups.iter().map(|group| (*group, History::opened(Log::default()))).collect();
        Self::resume(rt, factory, groups).await
    }

    /// Opens the store in which all this has happened, and checks what it holds.
    async fn resume(rt: R, factory: F, mut groups: Histories) -> Self {
        let store = factory.open(&rt).await;
        for (group, history) in &mut groups {
            let recovered = store.recover(*group).await.expect("the store recovers");
            let end = recovered.outline.last().index + 1;
            let entries = match end {
                1 => Vec::new(),
                _ => {
                    store.read(*group, 1..end, usize::MAX).await.expect("what is recovered is read")
                }
            };
            let log = Log { hard_state: recovered.hard_state, entries };
            assert_eq!(log.outline(), recovered.outline, "the outline of group {group}");
            let durable = history.durable();
            if F::DURABLE {
                let found = history.states.iter().rposition(|state| *state == log);
                let Some(found) = found else {
                    panic!("group {group} was never in the state it is reopened in: {log:?}")
                };
                assert!(
                    found >= durable,
                    "group {group} is back where it was after {found} writes, of which {durable} were durable"
                );
            } else {
                assert_eq!(log, Log::default(), "not durable, and still there");
            }
            *history = History::opened(log);
        }
        Self { rt, factory, store, groups }
    }

    /// Drops the store as it is.
    fn crash(self) -> (R, F, Histories) {
        (self.rt, self.factory, self.groups)
    }

    /// Drops the store as it is, and opens it again.
    async fn reopen(self) -> Self {
        let (rt, factory, groups) = self.crash();
        Self::resume(rt, factory, groups).await
    }

    fn log(&self, group: GroupId) -> &Log {
        self.groups[&group].now()
    }

    /// Submits, without waiting.
    fn submit(&mut self, group: GroupId, write: LogWrite) -> Outcome {
        let history = self.groups.get_mut(&group).expect("a group of the scene");
        let mut log = history.now().clone();
        log.apply(&write);
        history.states.push(log);
        let number = history.states.len() - 1;
        let told = Rc::clone(&history.told);
        let (sender, outcome) = oneshot::channel();
        let then = move |outcome: Result<(), StoreError>| {
            told.borrow_mut().push((number, outcome.clone()));
            let _nobody_may_wait = sender.send(outcome);
        };
        self.store.append(group, write, Completion::new(then));
        outcome
    }

    /// Writes durably.
    async fn put(&mut self, group: GroupId, write: LogWrite) {
        durable(self.submit(group, write)).await;
    }

    async fn read(
        &self,
        group: GroupId,
        first: Index,
        end: Index,
    ) -> Result<Vec<Entry>, StoreError> {
        self.store.read(group, first..end, usize::MAX).await
    }

    /// Reads all that there should be, and that there is no more.
    async fn check(&self) {
        for (group, history) in &self.groups {
            let end = history.now().last().index + 1;
            if end > 1 {
                let entries = self.read(*group, 1, end).await.expect("what was written is read");
                assert_eq!(entries, history.now().entries, "group {group}");
            }
            let beyond = self.read(*group, end, end + 1).await;
            assert!(beyond.is_err(), "group {group} ends before {end}, and there is {beyond:?}");
        }
    }

    /// Lets the other tasks go first, once.
    async fn turn(&self) {
        let _it_ends = self.rt.spawn(async {}).await;
    }
}

/// Waits until a write is durable.
async fn durable(outcome: Outcome) {
    outcome.await.expect("each completion tells").expect("the write is durable");
}

/// The entry with this log id: a blank one, a command of one of many sizes, or a membership.
fn entry(term: u64, index: Index) -> Entry {
    let seed = term.wrapping_mul(31).wrapping_add(index.wrapping_mul(17));
    let payload = match seed % 11 {
        0 => Payload::Blank,
        1 => {
            let address = format!("node-{term}.example:{index}");
            let voters = (1..=1 + seed % 5).map(|id| (id, address.clone())).collect();
            Payload::Membership(Membership::new(voters).expect("a possible one"))
        }
        kind => {
            let len = (seed % (kind * kind * kind)) as usize;
            Payload::Command(Bytes::from(vec![seed as u8; len]))
        }
    };
    // One leader for each term, and none for the entry that forms a cluster.
    let leader = if term == 0 { 0 } else { 1 + term % 3 };
    Entry { log_id: LogId::new(term, leader, index), payload }
}

/// A write of the entries `first..=last` of a term.
fn entries(term: u64, first: Index, last: Index) -> LogWrite {
    LogWrite {
        entries: (first..=last).map(|index| entry(term, index)).collect(),
        ..LogWrite::default()
    }
}

fn hard_state(term: u64, voted_for: Option<u64>) -> LogWrite {
    LogWrite { hard_state: Some(HardState { term: Term(term), voted_for }), ..LogWrite::default() }
}

/// A write as a node could make it in this state: entries at the end or in place of some, a hard state, or both.
fn random_write(random: &mut fastrand::Rng, log: &Log) -> LogWrite {
    let kind = random.u8(..8);
    // Above all that was, so that no log id ever means another entry.
    let newer = log.hard_state.term.0.max(log.last().term.0) + 1;
    let last = log.last().index;
    let (term, first) = match kind {
        0 => (newer, random.u64(1..=last + 1)),
        1 => (newer, last + 1),
        _ => (log.last().term.0.max(1), last + 1),
    };
    let mut write = match kind {
        2 => LogWrite::default(),
        _ => entries(term, first, first + random.u64(..6)),
    };
    if kind < 4 {
        let voted_for = Some(1 + random.u64(..3)).filter(|_| random.bool());
        write.hard_state = Some(HardState { term: Term(newer), voted_for });
    }
    write
}
