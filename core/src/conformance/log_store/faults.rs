//! Writes and syncs that fail, and bits that change on the disk. Cases for factories that have such
//! faults; for others they are skipped, with a line that says so.

use std::collections::BTreeSet;
use std::iter::once;
use std::time::Duration;

use bytes::Bytes;
use quorate_rt::Executor;

use super::model::Log;
use super::{
    CLUSTER, History, NODE, Past, Scene, StoreFactory, content, durable, entries, hard_state,
    marks, skipped, standing,
};
use crate::{GroupId, LogStore, LogWrite, SnapshotMeta, StoreError};

const GROUP: GroupId = 7;
const OTHER: GroupId = 8;

/// How often a write or a sync fails.
const FAILURES: u64 = 20;

/// How many bits are flipped, each in a store of its own.
const FLIPS: usize = 100;

/// What a store has to close in order.
const CLOSING: Duration = Duration::from_millis(5);

/// A write fails, and the disk works again. The store refuses what is submitted from then on.
/// Opened again, it holds everything up to some write, and whatever was durable is among it.
#[doc(hidden)]
pub async fn stays_failed_after_a_failed_write<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    if !stays_failed(rt, factory, F::fail_next_write).await {
        skipped("stays_failed_after_a_failed_write", "no write to its disk can fail");
    }
}

/// The same after a sync that fails. A store that syncs again, successfully, must not report that
/// the write is durable: the kernel may take pages for clean that never got to the disk. Nor is it
/// durable by a sync when the next process finds it.
#[doc(hidden)]
pub async fn stays_failed_after_a_failed_sync<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    if !stays_failed(rt, factory, F::fail_next_sync).await {
        skipped("stays_failed_after_a_failed_sync", "no sync of its disk can fail");
    }
}

/// Returns false if the factory can't let anything fail.
async fn stays_failed<R: Executor, F: StoreFactory<R>>(
    rt: R,
    factory: F,
    fail_next: fn(&F) -> bool,
) -> bool {
    let mut scene = Scene::open(rt, factory, &[GROUP, OTHER]).await;
    let mut failures = 0;
    for life in 1..=FAILURES {
        for group in [GROUP, OTHER] {
            scene.put(group, next_entries(scene.log(group))).await;
        }
        // One that can be removed later.
        let spare = OTHER + life;
        scene.store.recover(spare).await.expect("it is an empty one");
        scene.groups.insert(spare, History::opened(Log::default(), vec![]));
        scene.put(spare, entries(1, 1, 3)).await;

        if !fail_next(&scene.factory) {
            return false;
        }
        let mut outcomes = Vec::new();
        for at in 0..2 * (1 + life % 3) {
            let group = if at % 2 == 0 { GROUP } else { OTHER };
            let write = match life % 4 {
                0 => hard_state(life, Some(1 + at % 2)),
                1 => a_newer_end(scene.log(group)),
                _ => next_entries(scene.log(group)),
            };
            outcomes.push((group, scene.submit(group, write)));
            if life % 2 == 0 {
                scene.turn().await;
            }
        }
        let mut failed = BTreeSet::new();
        for (group, outcome) in outcomes {
            match outcome.await.expect("each completion tells") {
                Ok(()) => assert!(
                    !failed.contains(&group),
                    "a write to group {group} is durable, and an earlier one has failed"
                ),
                Err(_) => drop(failed.insert(group)),
            }
        }
        // Else it was something in the background that failed, which the store may do once more.
        if !failed.is_empty() {
            failures += 1;
            refuses_all(&mut scene, life, spare).await;
        }
        if life % 3 > 0 {
            // The next process finds what the kernel has. What it recovers must be durable from
            // then on, also where the kernel takes it for written.
            let (rt, factory, past) = scene.crash();
            rt.sleep(CLOSING).await;
            scene = Scene::resume(rt, factory, past).await;
        }
        scene = scene.reopen().await;
        scene.check().await;
    }
    assert!(
        failures > 0,
        "{FAILURES} times a write or a sync has failed, and no write to the log with it: does the \
         store try again?"
    );
    true
}

/// What a store does that has failed, though its disk works again.
async fn refuses_all<R: Executor, F: StoreFactory<R>>(
    scene: &mut Scene<R, F>,
    life: u64,
    spare: GroupId,
) {
    for group in [GROUP, OTHER] {
        let next = next_entries(scene.log(group));
        let end = a_newer_end(scene.log(group));
        for write in [next, hard_state(life + 1, None), marks(life), standing(1), end] {
            let outcome = scene.submit(group, write.clone()).await.expect("each completion tells");
            assert!(outcome.is_err(), "the store has failed, and reports as durable: {write:?}");
        }
        // What can be read is what was submitted, refused or not.
        let states = &scene.groups[&group].states;
        let end = states[0].last().index + 1;
        if let Ok(read) = scene.read(group, 1, end).await {
            let submitted = states.iter().any(|log| log.entries.starts_with(&read));
            assert!(submitted, "nobody has submitted this to group {group}: {read:?}");
        }
    }
    scene.store.release(spare);
    scene.groups.remove(&spare);
    let removed = scene.store.remove(spare).await;
    assert!(removed.is_err(), "the store has failed, and reports that a group is removed");
}

/// Three more entries.
fn next_entries(log: &Log) -> LogWrite {
    let last = log.last();
    entries(last.term.0.max(1), last.index + 1, last.index + 3)
}

/// Another leader's entries in the place of the last one.
fn a_newer_end(log: &Log) -> LogWrite {
    let last = log.last();
    entries(last.term.0 + 1, last.index, last.index + 2)
}

/// When a bit flips.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The store is open.
    Open,
    /// It was closed in order, and then the power is gone.
    Closed,
    /// It was dropped, and the power is gone.
    Crashed,
    /// It has settled, and then the process was killed. The power stays.
    Killed,
}

const MOMENTS: [Moment; 4] = [Moment::Open, Moment::Closed, Moment::Crashed, Moment::Killed];

/// A bit changes in what a store has synced, in each round another one of another store. The store
/// returns an error, or everything is as it was written. After a loss of power the writes of the
/// last sync may be missing, which are one write here: damage of it can't be told from a crash in
/// the middle of it. Of what a store wrote before it settled, nothing may be missing if the power
/// has stayed. An opening that was refused must not have cut anything off for the next one.
#[doc(hidden)]
pub async fn notices_flipped_bits<R: Executor, F: StoreFactory<R>>(rt: R, make: impl Fn() -> F) {
    let mut random = fastrand::Rng::with_seed(5);
    let mut noticed = 0;
    for round in 0..FLIPS {
        let moment = MOMENTS[round % MOMENTS.len()];
        let at = random.u64(..);
        let flips = |factory: &F| {
            let flips = F::DURABLE && factory.flip_bit(at);
            assert!(flips || round == 0, "{moment:?}: no bit is flipped, and others were before");
            flips
        };
        let mut scene = Scene::open(rt.clone(), make(), &[GROUP, OTHER]).await;
        write_something_of_each_kind(&mut scene).await;
        if moment == Moment::Killed {
            write_several_at_once(&mut scene).await;
        }
        let mut found = Ok(());
        if moment == Moment::Open {
            if !flips(&scene.factory) {
                return skipped("notices_flipped_bits", "no bit of its disk can be flipped");
            }
            for (group, history) in &scene.groups {
                let read = reads(&scene.store, *group, history.now(), &history.finished).await;
                found = found.and(read);
            }
        }
        if matches!(moment, Moment::Closed | Moment::Killed) {
            scene.store.settle().await;
        }
        let (rt, factory, past) = scene.crash();
        if moment == Moment::Closed {
            rt.sleep(CLOSING).await;
        }
        if moment != Moment::Killed {
            factory.lose_power(&rt).await;
        }
        if moment != Moment::Open {
            flips(&factory);
        }
        for _ in 0..2 {
            found = found.and(examine(&rt, &factory, &past, moment).await);
            if moment != Moment::Killed {
                factory.lose_power(&rt).await;
            }
        }
        noticed += u64::from(found.is_err());
    }
    assert!(noticed > 0, "of {FLIPS} flipped bits none made a difference: are they the store's?");
}

/// Ends with entries of [`GROUP`].
async fn write_something_of_each_kind<R: Executor, F: StoreFactory<R>>(scene: &mut Scene<R, F>) {
    scene.put(GROUP, LogWrite { cluster: Some(CLUSTER), ..entries(0, 1, 1) }).await;
    for group in [GROUP, OTHER] {
        let first = scene.log(group).last().index + 1;
        scene.put(group, entries(1, first, 20)).await;
        scene.put(group, standing(1)).await;
        scene.take_snapshot(group, 12, content(group, 3000)).await;
        let purge = Some(scene.log(group).entries[4].log_id);
        scene.put(group, LogWrite { purge, ..marks(2) }).await;
        scene.put(group, entries(2, 18, 40)).await;
        scene.put(group, hard_state(3, Some(2))).await;
        scene.put(group, entries(3, 41, 45)).await;
    }
    scene.put(GROUP, entries(3, 46, 50)).await;
}

/// A store may make all of these durable with one sync.
async fn write_several_at_once<R: Executor, F: StoreFactory<R>>(scene: &mut Scene<R, F>) {
    let mut outcomes = Vec::new();
    for round in 0..3 {
        for group in [GROUP, OTHER] {
            let write = match round {
                1 => hard_state(4, Some(1)),
                _ => next_entries(scene.log(group)),
            };
            outcomes.push(scene.submit(group, write));
        }
    }
    for outcome in outcomes {
        durable(outcome).await;
    }
}

/// Opens a damaged store and compares what it shows with what was written.
///
/// Errors: the first one of the store.
async fn examine<R: Executor, F: StoreFactory<R>>(
    rt: &R,
    factory: &F,
    past: &Past,
    moment: Moment,
) -> Result<(), StoreError> {
    let store = factory.try_open(rt).await?;
    let identity = store.identify(NODE).await?;
    let before = past.identity.expect("it was opened before");
    assert_eq!(identity.incarnation, before.incarnation, "it was the same store");
    assert!(identity.boot > before.boot, "each start counts");
    assert_eq!(identity.cluster, Some(CLUSTER), "it has joined a cluster, durably");
    let mut outcome = Ok(());
    for (group, history) in &past.groups {
        let recovered = match store.recover(*group).await {
            Ok(recovered) => recovered,
            Err(error) => {
                outcome = outcome.and(Err(error));
                continue;
            }
        };
        let may_miss = usize::from(*group == GROUP && moment != Moment::Killed);
        let states = &history.states[history.states.len() - 1 - may_miss..];
        let found = states.iter().rev().find(|state| state.is_recovered(&recovered));
        let Some(log) = found else {
            panic!(
                "{moment:?}: a bit was flipped, and group {group} is opened without an error: \
                 {recovered:?}"
            )
        };
        log.check_log_meta(&recovered.log_meta);
        outcome = outcome.and(reads(&store, *group, log, &history.finished).await);
    }
    outcome
}

/// Reads all entries, together and one by one, and the snapshot. What is read is what was written.
///
/// Errors: the first one of the store.
async fn reads<S: LogStore>(
    store: &S,
    group: GroupId,
    log: &Log,
    finished: &[(SnapshotMeta, Bytes)],
) -> Result<(), StoreError> {
    let (first, end) = (log.first(), log.last().index + 1);
    let mut outcome = Ok(());
    for range in once(first..end).chain((first..end).map(|index| index..index + 1)) {
        let expected = &log.entries[(range.start - first) as usize..(range.end - first) as usize];
        match store.read(group, range.clone(), usize::MAX).await {
            Ok(read) => {
                let right = read.iter().zip(expected).take_while(|(read, is)| read == is).count();
                assert!(
                    read == *expected,
                    "a bit was flipped, and a read of {range:?} of group {group} is wrong after \
                     {right} entries"
                );
            }
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    let Some(meta) = &log.snapshot else { return outcome };
    let known = finished.iter().find(|(finished, _)| finished == meta);
    let (_, expected) = known.expect("only what is finished is named");
    let read = async {
        let content = store.snapshot(group, meta).await?;
        content.read(0, expected.len() + 1).await
    };
    match read.await {
        Ok(read) => {
            assert!(
                read == expected,
                "a bit was flipped, and the snapshot of group {group} is wrong"
            )
        }
        Err(error) => outcome = outcome.and(Err(error)),
    }
    outcome
}
