//! The suite of a log store: the factory, the macro, and the scene in which its cases play.
//!
//! A model of what the contract promises is kept beside the store: the states of each group's log,
//! one after each write, the content of each snapshot, and the store's identity. A reopened store
//! must be in one of these states, and in none before the last write that was reported as durable.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate_rt::Executor;
use quorate_rt::channel::oneshot;

use self::model::Log;
use self::writes::{content, entries, entry, hard_state, marks, standing};
use super::{CLUSTER, skipped};
use crate::{
    Appended, Completion, Entries, GroupId, Identity, Index, LogId, LogStore, LogWrite, NodeId,
    Recovered, SnapshotMeta, Standing, StoreError,
};

mod durability;
mod faults;
mod groups;
mod identity;
mod model;
mod purging;
mod reading;
mod snapshots;
mod space;
mod writes;

pub use self::durability::*;
pub use self::faults::*;
pub use self::groups::*;
pub use self::identity::*;
pub use self::purging::*;
pub use self::reading::*;
pub use self::snapshots::*;
pub use self::space::*;

/// What the suite needs to know of a log store.
pub trait StoreFactory<R: Executor>: 'static {
    /// The implementation.
    type Store: LogStore;
    /// Whether a store that is opened again holds what the one before held. If not, it must be
    /// empty.
    const DURABLE: bool = true;

    /// Opens the store: the first time an empty one, and each other time the same again. The one
    /// before has been dropped, maybe in the middle of a write.
    async fn open(&self, rt: &R) -> Self::Store;

    /// Drops every byte and every name that was never synced, as a power loss does. Called between
    /// the drop of a store and the next opening. Returns false where that can't be done; then the
    /// suite shows only that the store survives the end of its process.
    ///
    /// A store that never syncs passes the suite of a factory that returns false. Have one with a
    /// disk in memory or a simulated one.
    async fn lose_power(&self, rt: &R) -> bool;

    /// Fills the disk, so that nothing can be allocated, or makes space again. Returns false where
    /// that can't be done: the cases of a full disk are skipped then.
    fn set_full(&self, full: bool) -> bool {
        let _ = full;
        false
    }

    /// Lets the next write to the disk fail (`EIO`), and those after it work. A part of the failed
    /// one may be on the disk. Returns false where that can't be done: the case of a failed write
    /// is skipped then.
    ///
    /// The failed write may be one that the store makes in the background. The case tries it often,
    /// and some of the failures must hit writes to the log.
    fn fail_next_write(&self) -> bool {
        false
    }

    /// Lets the next sync fail (`EIO`), and those after it work. What was written before the failed
    /// one is not durable, and a later sync need not make it so. Returns false where that can't be
    /// done: the case of a failed sync is skipped then.
    fn fail_next_sync(&self) -> bool {
        false
    }

    /// Flips a bit of what the store has written and synced. Reads of an open store see it, too.
    /// `at` is a random number that selects the bit, among those of all files. Best leave out bytes
    /// that are 0 if much is preallocated. Returns false where that can't be done: the case of
    /// flipped bits is skipped then.
    ///
    /// The case flips one bit in each of many stores, each of a factory of its own, and opens them
    /// with [`try_open`](Self::try_open). Some bits flip while the store is open, others after its
    /// drop. A factory must be able to do both, or return false each time.
    fn flip_bit(&self, at: u64) -> bool {
        let _ = at;
        false
    }

    /// Opens a store in which a bit was [flipped](Self::flip_bit), or returns the error with which
    /// the store refuses to be opened. The default calls [`open`](Self::open), which is enough for
    /// factories that can't flip bits.
    async fn try_open(&self, rt: &R) -> Result<Self::Store, StoreError> {
        Ok(self.open(rt).await)
    }
}

/// Makes the tests of a log store: `log_store_suite!(name, runtime, launch, factory);` gives a
/// module `name` with a test for each case. See [`conformance`](crate::conformance) for an example.
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
                recovers_the_log_meta, recovers_hard_states, recovers_standings_and_marks,
                counts_its_starts, refuses_another_node, joins_a_cluster_with_the_write_that_says_so,
                crashes_at_any_moment,
                crashes_while_a_suffix_is_replaced, purges_a_prefix, purges_all, purges_again,
                purges_while_it_reads, purges_one_group_alone, replaces_a_suffix_after_a_purge,
                begins_anew_after_a_snapshot, grows_and_is_purged_for_long, crashes_while_it_purges,
                keeps_snapshots, reads_snapshots_from_anywhere, opens_nothing_else, forgets_drafts,
                forgets_what_is_not_named, writes_snapshots_side_by_side, finishes_a_snapshot_again,
                reads_a_snapshot_that_is_superseded, opens_a_group_once, completes_what_was_released,
                removes_groups, keeps_that_a_removed_group_is_spent, removes_nothing_in_use,
                survives_a_power_loss, waits_for_space, votes_on_a_full_disk, replaces_what_waits_for_space,
                removes_what_waits_for_space,
                tells_standings_on_a_full_disk, removes_a_spent_group_whose_standing_waits,
                removes_groups_while_the_disk_becomes_full,
                stays_failed_after_a_failed_write, stays_failed_after_a_failed_sync
            } }

            #[test]
            fn tells_stores_apart() {
                $crate::conformance::run($launch, async |rt: $runtime| {
                    $crate::conformance::log_store::tells_stores_apart(rt, $factory, $factory).await
                });
            }

            #[test]
            fn notices_flipped_bits() {
                $crate::conformance::run_in(module_path!(), $launch, async |rt: $runtime| {
                    $crate::conformance::log_store::notices_flipped_bits(rt, || $factory).await
                });
            }

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

type Outcome = oneshot::Receiver<Result<(), StoreError>>;

/// The node that starts on the stores.
const NODE: NodeId = 3;

/// What has happened to a store up to now.
struct Past {
    /// As it was told last; none before the store is opened for the first time.
    identity: Option<Identity>,
    groups: BTreeMap<GroupId, History>,
}

/// An open store, and what it must hold.
struct Scene<R: Executor, F: StoreFactory<R>> {
    rt: R,
    factory: F,
    store: F::Store,
    identity: Identity,
    groups: BTreeMap<GroupId, History>,
}

impl<R: Executor, F: StoreFactory<R>> Scene<R, F> {
    /// Opens an empty store for these groups.
    async fn open(rt: R, factory: F, groups: &[GroupId]) -> Self {
        let groups =
            groups.iter().map(|group| (*group, History::opened(Log::default(), vec![]))).collect();
        Self::resume(rt, factory, Past { identity: None, groups }).await
    }

    /// Opens the store in which all this has happened, and checks what it holds.
    async fn resume(rt: R, factory: F, past: Past) -> Self {
        let Past { identity: before, mut groups } = past;
        let store = factory.open(&rt).await;
        let identity = store.identify(NODE).await.expect("the store is this node's");
        assert_ne!(identity.incarnation, 0, "0 stands for an incarnation that is not known");
        match before {
            Some(before) if F::DURABLE => {
                assert_eq!(identity.incarnation, before.incarnation, "it was the same store");
                assert_eq!(identity.boot, before.boot + 1, "each start counts once");
            }
            Some(before) => {
                assert_ne!(identity.incarnation, before.incarnation, "it is another store");
                assert_eq!(identity.boot, 1, "it is the first start");
            }
            None => assert_eq!(identity.boot, 1, "it is the first start"),
        }
        // Whether it must belong to a cluster, and whether it may.
        let joined = before.is_some_and(|before| F::DURABLE && before.cluster.is_some());
        let (mut must, mut may) = (joined, joined);
        for (group, history) in &mut groups {
            let recovered = store.recover(*group).await.expect("the store recovers");
            let (first, end) =
                (recovered.log_meta.purged().index + 1, recovered.log_meta.last().index + 1);
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
            // Of states that differ in nothing else, the store may be in the first or in the last.
            let durable = durable.min(found);
            let first = states[durable..].iter().find(|state| state.is(&recovered, &entries));
            must |= first.is_some_and(|state| state.cluster.is_some());
            may |= states[found].cluster.is_some();
            let log = Log { cluster: identity.cluster, ..states[found].clone() };
            log.check_log_meta(&recovered.log_meta);
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
        match identity.cluster {
            Some(cluster) => assert!(may && cluster == CLUSTER, "it never joined {cluster}"),
            None => assert!(!must, "it has joined a cluster, durably"),
        }
        let scene = Self { rt, factory, store, identity, groups };
        scene.check_cluster();
        scene.check_snapshots().await;
        scene
    }

    /// Drops the store as it is.
    fn crash(self) -> (R, F, Past) {
        let past = Past { identity: Some(self.identity), groups: self.groups };
        (self.rt, self.factory, past)
    }

    /// Drops the store as it is, loses what was not synced, and opens it again.
    async fn reopen(self) -> Self {
        let (rt, factory, past) = self.crash();
        factory.lose_power(&rt).await;
        Self::resume(rt, factory, past).await
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
        let told = Rc::clone(&history.told);
        let begun = told.borrow().len();
        match self.store.append(group, write, Completion::new(then)) {
            Appended::Durable => {
                assert_eq!(told.borrow().len(), begun, "what is durable at once tells nothing");
                told.borrow_mut().push((number, Ok(())));
                self.check_cluster();
                let (sender, outcome) = oneshot::channel();
                let _nobody_may_wait = sender.send(Ok(()));
                return outcome;
            }
            Appended::Pending => {
                assert_eq!(told.borrow().len(), begun, "nothing is told before append returns");
            }
        }
        self.check_cluster();
        outcome
    }

    /// Removes a group that is open. That it was spent is left of it.
    async fn remove(&mut self, group: GroupId) {
        self.store.release(group);
        self.store.remove(group).await.expect("it is released");
        let standing = self.log(group).standing.clone();
        let mut left = Log::default();
        if standing == Standing::Spent {
            left.standing = standing;
        }
        self.groups.insert(group, History::opened(left, vec![]));
    }

    /// Asserts that a group that was removed has nothing but its standing: at once, or after the
    /// store was opened again.
    async fn holds_only_the_standing(mut self, group: GroupId, reopens: bool) -> Self {
        if reopens {
            self = self.reopen().await;
            self.check().await;
        } else {
            let recovered = self.store.recover(group).await.expect("it is an empty one");
            let standing = self.log(group).standing.clone();
            assert_eq!(recovered, Recovered { standing, ..Recovered::default() });
        }
        self
    }

    /// Writes durably.
    async fn put(&mut self, group: GroupId, write: LogWrite) {
        durable(self.submit(group, write)).await;
    }

    async fn read(&self, group: GroupId, first: Index, end: Index) -> Result<Entries, StoreError> {
        self.store.read(group, first..end, usize::MAX).await
    }

    /// Writes a snapshot of this content, in chunks, and finishes it; nothing names it yet.
    async fn finish(&mut self, group: GroupId, log_id: LogId, content: Bytes) -> SnapshotMeta {
        let meta = self.log(group).meta(log_id, &content);
        let mut draft = self.store.draft(group).await.expect("there is space");
        for chunk in content.chunks(100_000) {
            draft.write(Bytes::copy_from_slice(chunk)).await.expect("there is space");
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
        self.put(group, LogWrite { snapshot: Some(Box::new(meta)), ..LogWrite::default() }).await;
    }

    /// The store tells at once which cluster it was made part of, by whichever group.
    fn check_cluster(&self) {
        let joined = self.groups.values().find_map(|history| history.now().cluster);
        assert_eq!(self.store.cluster(), self.identity.cluster.or(joined));
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
