//! The suite of a log store: the factory, the macro, and the scene in which its cases play. What the contract promises is kept
//! as a model beside the store: the states of each group's log, one after each write, and the content of each snapshot. A reopened store must
//! be in one of these states, and in none before the last write that was reported as durable.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate_rt::AsyncRuntime;
use quorate_rt::channel::oneshot;

use crate::{
    Completion, Digest, Entries, Entry, GroupId, HardState, Index, LogId, LogStore, LogWrite,
    Membership, Outline, Payload, Recovered, SnapshotMeta, StoreError, Term,
};

mod durability;
mod purging;
mod reading;
mod snapshots;

pub use self::durability::*;
pub use self::purging::*;
pub use self::reading::*;
pub use self::snapshots::*;

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
                crashes_while_a_suffix_is_replaced, purges_a_prefix, purges_all, purges_again,
                purges_while_it_reads, purges_one_group_alone, replaces_a_suffix_after_a_purge,
                begins_anew_after_a_snapshot, grows_and_is_purged_for_long, crashes_while_it_purges,
                keeps_snapshots, reads_snapshots_from_anywhere, opens_nothing_else, forgets_drafts,
                forgets_what_is_not_named, writes_snapshots_side_by_side, finishes_a_snapshot_again,
                reads_a_snapshot_that_is_superseded
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
    snapshot: Option<SnapshotMeta>,
    /// The entry before the first.
    purged: LogId,
    /// The membership in force where the log begins, where the suite knows it.
    in_force: Option<(Index, Membership)>,
    entries: Vec<Entry>,
}

impl Log {
    fn apply(&mut self, write: &LogWrite) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(meta) = &write.snapshot {
            self.snapshot = Some(meta.clone());
        }
        if let Some(to) = write.purge {
            self.purge(to);
        }
        if let Some(first) = write.entries.first() {
            self.entries.truncate((first.log_id.index - self.first()) as usize);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    fn purge(&mut self, to: LogId) {
        if to.index <= self.purged.index {
            return;
        }
        if self.holds(to) {
            self.in_force = self.membership_at(to.index);
            self.entries.drain(..=(to.index - self.first()) as usize);
        } else {
            let snapshot = self.snapshot.as_ref();
            self.in_force = snapshot.map(|meta| (meta.membership_index, meta.membership.clone()));
            self.entries.clear();
        }
        self.purged = to;
    }

    fn first(&self) -> Index {
        self.purged.index + 1
    }

    fn last(&self) -> LogId {
        self.entries.last().map_or(self.purged, |entry| entry.log_id)
    }

    /// The last entry that the snapshot covers.
    fn covered(&self) -> Index {
        self.snapshot.as_ref().map_or(0, |meta| meta.log_id.index)
    }

    fn holds(&self, log_id: LogId) -> bool {
        self.entries.iter().any(|entry| entry.log_id == log_id)
    }

    fn membership_at(&self, index: Index) -> Option<(Index, Membership)> {
        let up_to = self.entries.iter().rev().skip_while(|entry| entry.log_id.index > index);
        up_to.filter_map(membership_of).next().or_else(|| self.in_force.clone())
    }

    /// Whether a store has recovered this, apart from the outline's details.
    fn is(&self, recovered: &Recovered, entries: &[Entry]) -> bool {
        self.hard_state == recovered.hard_state
            && self.snapshot == recovered.snapshot
            && self.purged == recovered.outline.purged()
            && self.last() == recovered.outline.last()
            && self.entries == entries
    }

    /// The identity of each entry, and what is in force after any truncation.
    fn check_outline(&self, outline: &Outline) {
        for entry in &self.entries {
            assert_eq!(outline.log_id(entry.log_id.index), Some(entry.log_id));
        }
        assert_eq!(outline.log_id(self.last().index + 1), None);
        let mut cut = outline.clone();
        for (index, membership) in self.entries.iter().rev().filter_map(membership_of) {
            assert_eq!(cut.membership(), Some((index, &membership)));
            cut.truncate(index);
        }
        // The one where the log begins is the snapshot's to tell.
        let before = cut.membership().map_or(0, |(index, _)| index);
        assert!(before <= self.purged.index, "a membership at {before}, which holds none");
    }

    /// What a snapshot of this content would be, were it taken at `log_id`.
    fn meta(&self, log_id: LogId, content: &[u8]) -> SnapshotMeta {
        let (membership_index, membership) =
            self.membership_at(log_id.index).unwrap_or_else(|| {
                let voters = BTreeMap::from([(1, "node-1.example:1".to_owned())]);
                (1, Membership::new(voters).expect("a possible one"))
            });
        let (bytes, digest) = (content.len() as u64, Digest::of(content));
        SnapshotMeta { log_id, membership, membership_index, bytes, digest }
    }
}

fn membership_of(entry: &Entry) -> Option<(Index, Membership)> {
    match &entry.payload {
        Payload::Membership(membership) => Some((entry.log_id.index, membership.clone())),
        _ => None,
    }
}

/// What became of writes, by their numbers from 1 on, in the order in which the store told.
type Told = Vec<(usize, Result<(), StoreError>)>;

/// The writes of a group since the store was opened.
struct History {
    /// The log as it was opened, and after each write.
    states: Vec<Log>,
    told: Rc<RefCell<Told>>,
    /// Each snapshot that is or was there, and its content.
    finished: Vec<(SnapshotMeta, Bytes)>,
}

impl History {
    fn opened(log: Log, finished: Vec<(SnapshotMeta, Bytes)>) -> Self {
        Self { states: vec![log], told: Rc::default(), finished }
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
        let groups =
            groups.iter().map(|group| (*group, History::opened(Log::default(), vec![]))).collect();
        Self::resume(rt, factory, groups).await
    }

    /// Opens the store in which all this has happened, and checks what it holds.
    async fn resume(rt: R, factory: F, mut groups: Histories) -> Self {
        let store = factory.open(&rt).await;
        for (group, history) in &mut groups {
            let recovered = store.recover(*group).await.expect("the store recovers");
            let (first, end) =
                (recovered.outline.purged().index + 1, recovered.outline.last().index + 1);
            let entries = if first == end {
                Entries::default()
            } else {
                let read = store.read(*group, first..end, usize::MAX).await;
                read.expect("what is recovered is read")
            };
            let durable = history.durable();
            let states = if F::DURABLE { &history.states[..] } else { &[Log::default()] };
            let found = states.iter().rposition(|state| state.is(&recovered, &entries));
            let Some(found) = found else {
                panic!(
                    "group {group} was never in the state it is reopened in: {recovered:?}, {entries:?}"
                )
            };
            assert!(
                found >= durable || !F::DURABLE,
                "group {group} is back where it was after {found} writes, of which {durable} were durable"
            );
            let log = states[found].clone();
            log.check_outline(&recovered.outline);
            for (meta, _) in &history.finished {
                let named = |state: &Log| state.snapshot.as_ref() == Some(meta);
                if !states[..=found].iter().any(named) {
                    let opened = store.snapshot(*group, meta).await;
                    assert!(
                        opened.is_err(),
                        "nothing durable names the snapshot at {}",
                        meta.log_id
                    );
                }
            }
            let mut finished = std::mem::take(&mut history.finished);
            finished.retain(|(meta, _)| log.snapshot.as_ref() == Some(meta));
            *history = History::opened(log, finished);
        }
        let scene = Self { rt, factory, store, groups };
        scene.check_snapshots().await;
        scene
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

    async fn read(&self, group: GroupId, first: Index, end: Index) -> Result<Entries, StoreError> {
        self.store.read(group, first..end, usize::MAX).await
    }

    /// Writes a snapshot of this content, in pieces, and finishes it; nothing names it yet.
    async fn finish(&mut self, group: GroupId, log_id: LogId, content: Bytes) -> SnapshotMeta {
        let meta = self.log(group).meta(log_id, &content);
        let mut draft = self.store.draft(group).await.expect("there is space");
        for piece in content.chunks(100_000) {
            draft.write(Bytes::copy_from_slice(piece)).await.expect("there is space");
        }
        draft.finish(&meta).await.expect("there is space");
        let history = self.groups.get_mut(&group).expect("a group of the scene");
        history.finished.push((meta.clone(), content));
        meta
    }

    /// Takes a snapshot at `index`, which the log holds, and names it.
    async fn take_snapshot(&mut self, group: GroupId, index: Index, content: Bytes) {
        let at = (index - self.log(group).first()) as usize;
        let log_id = self.log(group).entries[at].log_id;
        let meta = self.finish(group, log_id, content).await;
        self.put(group, LogWrite { snapshot: Some(meta), ..LogWrite::default() }).await;
    }

    /// Each group's snapshot is there as it was written.
    async fn check_snapshots(&self) {
        for (group, history) in &self.groups {
            let Some(meta) = &history.now().snapshot else { continue };
            let known = history.finished.iter().find(|(finished, _)| finished == meta);
            let (_, expected) = known.expect("only what is finished is named");
            let content = self.store.snapshot(*group, meta).await.expect("it is there");
            let read = content.read(0, expected.len() + 1).await.expect("it can be read");
            assert!(read == expected, "the snapshot at {} of group {group}", meta.log_id);
        }
    }

    /// Reads all that there should be, and that there is no more.
    async fn check(&self) {
        self.check_snapshots().await;
        for (group, history) in &self.groups {
            let log = history.now();
            let (first, end) = (log.first(), log.last().index + 1);
            if end > first {
                let entries = self.read(*group, first, end).await;
                let entries = entries.expect("what was written is read");
                assert_eq!(entries, log.entries, "group {group}");
            }
            let beyond = self.read(*group, end, end + 1).await;
            assert!(beyond.is_err(), "group {group} ends before {end}, and there is {beyond:?}");
            for (purged, end) in [(1, first), (first - 1, first), (first - 1, end), (1, end)] {
                if (1..first).contains(&purged) {
                    // A node that asked before the purge knows it by this error.
                    let read = self.read(*group, purged, end).await;
                    assert!(
                        matches!(read, Err(StoreError::Missing(_))),
                        "group {group} begins at {first}, and {purged}..{end} gives {read:?}"
                    );
                }
            }
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
    let hard_state = HardState { term: Term(term), voted_for, caught_up: term > 1 };
    LogWrite { hard_state: Some(hard_state), ..LogWrite::default() }
}

/// Bytes without a pattern, so that a part in the wrong place is seen.
fn content(seed: u64, len: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut content = vec![0; len];
    random.fill(&mut content);
    content.into()
}

impl<R: AsyncRuntime, F: StoreFactory<R>> Scene<R, F> {
    /// Submits a write as a node could make it in this state: entries at the end or in place of some, a hard state, a snapshot that was taken
    /// or received, a purge, or several of these.
    async fn submit_random(&mut self, random: &mut fastrand::Rng, group: GroupId) -> Outcome {
        let log = self.log(group).clone();
        // Above all that was, so that no log id ever means another entry.
        let newer = log.hard_state.term.0.max(log.last().term.0) + 1;
        let (covered, last) = (log.covered(), log.last().index);
        let content = content(random.u64(..), random.usize(..3000));
        let write = match random.u8(..16) {
            0 | 1 if covered < last => {
                let at = random.u64(covered.max(log.purged.index) + 1..=last);
                let meta = log.entries[(at - log.first()) as usize].log_id;
                let meta = self.finish(group, meta, content).await;
                let purge =
                    (meta.log_id.index > log.purged.index && random.bool()).then_some(meta.log_id);
                LogWrite { snapshot: Some(meta), purge, ..LogWrite::default() }
            }
            2 => {
                // Of a leader that is far ahead, or in another term.
                let at = random.u64(covered + 1..=last + 10);
                let meta = self.finish(group, entry(newer, at).log_id, content).await;
                let purge = Some(meta.log_id);
                let and = if random.bool() {
                    entries(newer, at + 1, at + 3)
                } else {
                    LogWrite::default()
                };
                let hard_state = HardState { term: Term(newer), voted_for: None, caught_up: true };
                let hard_state = Some(hard_state);
                LogWrite { hard_state, snapshot: Some(meta), purge, ..and }
            }
            3 | 4 if log.purged.index < covered => {
                let held = log.entries.iter().map(|entry| entry.log_id);
                let held: Vec<LogId> = held.filter(|held| held.index <= covered).collect();
                let purge = held.get(random.usize(..held.len())).copied();
                LogWrite { purge, ..random_write(random, &log) }
            }
            5 => {
                // One that is never named.
                self.finish(group, entry(newer, last + 1).log_id, content).await;
                random_write(random, &log)
            }
            _ => random_write(random, &log),
        };
        self.submit(group, write)
    }
}

/// Of entries, a hard state, or both. What the snapshot covers is committed and stays.
fn random_write(random: &mut fastrand::Rng, log: &Log) -> LogWrite {
    let kind = random.u8(..8);
    let newer = log.hard_state.term.0.max(log.last().term.0) + 1;
    let last = log.last().index;
    let (term, first) = match kind {
        0 => (newer, random.u64(log.covered() + 1..=last + 1)),
        1 => (newer, last + 1),
        _ => (log.last().term.0.max(1), last + 1),
    };
    let mut write = match kind {
        2 => LogWrite::default(),
        _ => entries(term, first, first + random.u64(..6)),
    };
    if kind < 4 {
        let voted_for = Some(1 + random.u64(..3)).filter(|_| random.bool());
        write.hard_state = Some(HardState { term: Term(newer), voted_for, caught_up: true });
    }
    write
}
