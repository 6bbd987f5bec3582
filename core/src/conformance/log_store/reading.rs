//! What can be read of an open store: all that was submitted, durable or not, and nothing else.

use futures::future::{join, join_all};
use quorate_rt::Executor;

use super::writes::time_of;
use super::{Scene, StoreFactory, durable, entries, entry, hard_state};
use crate::{Entry, GroupId, LogId, LogStore, LogWrite, Payload};

const GROUP: GroupId = 7;

#[doc(hidden)]
pub async fn unknown_groups_are_empty<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[0, GROUP, u64::MAX]).await;
    scene.check().await;
    scene.put(GROUP, entries(1, 1, 3)).await;
    scene.check().await;
    scene.reopen().await.check().await;
}

/// All kinds of entries, one after the other and many at once, from the one that forms a cluster
/// on.
#[doc(hidden)]
pub async fn reads_what_was_appended<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(0, 1, 1)).await;
    for index in 2..50 {
        scene.put(GROUP, entries(1, index, index)).await;
    }
    scene.put(GROUP, entries(2, 50, 500)).await;
    scene.check().await;
    let log = scene.log(GROUP);
    let reads = (1..=500).map(|index| scene.read(GROUP, index, index + 1));
    for (expected, read) in log.entries.iter().zip(join_all(reads).await) {
        assert_eq!(read.expect("it is there"), *std::slice::from_ref(expected));
    }
}

/// Every range, with every limit that makes a difference: as many entries as fit, and at least one.
#[doc(hidden)]
pub async fn reads_what_fits<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    const LAST: u64 = 18;
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, LAST)).await;
    let all = scene.log(GROUP).entries.clone();
    for first in 1..=LAST {
        for end in first + 1..=LAST + 1 {
            let range = &all[first as usize - 1..end as usize - 1];
            for count in 1..=range.len() {
                let exact: usize = range[..count].iter().map(Entry::bytes).sum();
                for max_bytes in [exact - 1, exact] {
                    let fit = if max_bytes == exact { count } else { count - 1 };
                    let read = scene.store.read(GROUP, first..end, max_bytes).await;
                    assert_eq!(
                        read.expect("all is there"),
                        range[..fit.max(1)],
                        "{first}..{end} in {max_bytes} bytes"
                    );
                }
            }
            let read = scene.store.read(GROUP, first..end, 0).await;
            assert_eq!(read.expect("all is there"), range[..1]);
        }
    }
}

#[doc(hidden)]
pub async fn reads_before_durable<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    let mut outcomes = Vec::new();
    for index in 1..=50 {
        outcomes.push(scene.submit(GROUP, entries(1, index, index)));
        let read = scene.read(GROUP, 1, index + 1).await.expect("what was submitted is there");
        assert_eq!(read, scene.log(GROUP).entries);
    }
    for outcome in outcomes {
        durable(outcome).await;
    }
    scene.check().await;
}

/// An error, and never a shorter answer.
#[doc(hidden)]
pub async fn refuses_what_is_missing<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, GROUP + 1]).await;
    scene.put(GROUP, entries(1, 1, 3)).await;
    for (first, end) in
        [(0, 1), (0, 3), (4, 5), (1, 5), (3, 5), (5, 6), (1000, 1001), (1, u64::MAX)]
    {
        let read = scene.read(GROUP, first, end).await;
        assert!(read.is_err(), "{first}..{end} of 3 entries gives {read:?}");
    }
    assert!(scene.read(GROUP + 1, 1, 2).await.is_err(), "an entry of another group");
    // A refusal has no effect.
    scene.check().await;
}

/// From any place on, with a shorter and with a longer one.
#[doc(hidden)]
pub async fn replaces_a_suffix<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, 30)).await;
    for (term, first, last) in [(2, 30, 31), (3, 20, 21), (4, 21, 40), (5, 1, 1), (6, 2, 9)] {
        let outcome = scene.submit(GROUP, entries(term, first, last));
        scene.check().await;
        durable(outcome).await;
        scene.check().await;
    }
    // All at once: the last one wins.
    let writes = (7..15).map(|term| entries(term, 16 - term, 40 - term));
    let outcomes: Vec<_> = writes.map(|write| scene.submit(GROUP, write)).collect();
    scene.check().await;
    for outcome in outcomes {
        durable(outcome).await;
    }
    scene.check().await;
    scene.reopen().await.check().await;
}

/// An answer that began before a suffix was replaced is the log as it was before, or as it is now,
/// or an error; no mixture.
#[doc(hidden)]
pub async fn replaces_while_it_reads<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    for round in 0..20 {
        let term = 2 * round + 1;
        scene.put(GROUP, entries(term, 1, 40)).await;
        let before = scene.log(GROUP).entries.clone();
        let last = if round % 2 == 0 { 40 } else { 30 };
        let write = entries(term + 1, 11, last);
        let after = [&before[..10], &write.entries[..]].concat();
        let told = {
            let (sender, told) = quorate_rt::channel::oneshot::channel();
            let done = crate::Completion::new(move |outcome| sender.send(outcome).unwrap_or(()));
            // The first of the two is polled first.
            let replace = async { scene.store.append(GROUP, write.clone(), done) };
            let (read, appended) = join(scene.read(GROUP, 1, 41), replace).await;
            if let Ok(read) = read {
                assert!(
                    read[..] == before || (read[..] == after && last == 40),
                    "a mixture: {read:?}"
                );
            } else {
                assert_eq!(last, 30, "all of it is there, before and after");
            }
            (appended == crate::Appended::Pending).then_some(told)
        };
        if let Some(told) = told {
            durable(told).await;
        }
        assert_eq!(scene.read(GROUP, 1, last + 1).await.expect("it is there"), after);
    }
}

/// A leader's entries may come again after those of another have replaced them. The ones behind
/// them do not.
#[doc(hidden)]
pub async fn writes_the_same_suffix_again<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, 20)).await;
    let turns = [(2, 5, 6), (1, 5, 8), (3, 8, 8), (1, 8, 10), (2, 5, 6), (1, 5, 10), (1, 3, 4)];
    for wait in [true, false] {
        let mut outcomes = Vec::new();
        for (term, first, last) in turns {
            let outcome = scene.submit(GROUP, entries(term, first, last));
            if wait {
                durable(outcome).await;
            } else {
                outcomes.push(outcome);
            }
            scene.check().await;
        }
        for outcome in outcomes {
            durable(outcome).await;
        }
        assert_eq!(scene.log(GROUP).last(), entry(1, 4).log_id);
        scene.check().await;
    }
    scene.reopen().await.check().await;
}

/// One command of several MiB, and one write of many entries of some KiB.
#[doc(hidden)]
pub async fn large_writes<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let large = |index: u64, bytes: usize| {
        let command = (0..bytes).map(|n| (n as u64 ^ (index << 3)) as u8).collect::<Vec<u8>>();
        let log_id = LogId::new(1, 1, index);
        Entry { log_id, time: time_of(log_id), payload: Payload::Command(command.into()) }
    };
    let write = |entries: Vec<Entry>| LogWrite { entries: entries.into(), ..LogWrite::default() };
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, write(vec![large(1, 10)])).await;
    scene.put(GROUP, write(vec![large(2, 5 << 20)])).await;
    scene.put(GROUP, write((3..800).map(|index| large(index, 5000)).collect())).await;
    scene.put(GROUP, write(vec![large(800, 10)])).await;
    scene.check().await;
    scene.reopen().await.check().await;
}

/// Writes of many groups, mixed: each group's completions come in its order, all of them, and say
/// that it is durable.
#[doc(hidden)]
pub async fn completes_in_order<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    const GROUPS: [GroupId; 5] = [1, 2, 3, 4, 5];
    let mut random = fastrand::Rng::with_seed(1);
    let mut scene = Scene::open(rt, factory, &GROUPS).await;
    let mut outcomes = Vec::new();
    for number in 0..500 {
        let group = GROUPS[random.usize(..GROUPS.len())];
        outcomes.push(scene.submit_random(&mut random, group).await);
        if number % 20 == 0 {
            scene.turn().await;
        }
    }
    for outcome in outcomes {
        durable(outcome).await;
    }
    for history in scene.groups.values() {
        assert_eq!(history.durable(), history.states.len() - 1);
    }
    // A write of nothing comes in its turn as well.
    scene.put(1, LogWrite::default()).await;
    scene.check().await;
}

/// What happens in one group is not seen in any other, nor in the one that a store's other user
/// has.
#[doc(hidden)]
pub async fn many_groups<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let groups: Vec<GroupId> = (0..20).chain([1 << 40, u64::MAX - 1, u64::MAX]).collect();
    let mut random = fastrand::Rng::with_seed(2);
    let mut scene = Scene::open(rt, factory, &groups).await;
    for _ in 0..10 {
        let mut last = None;
        for _ in 0..60 {
            let group = groups[random.usize(..groups.len())];
            last = Some(scene.submit_random(&mut random, group).await);
        }
        scene.check().await;
        if let Some(outcome) = last {
            durable(outcome).await;
        }
        scene.check().await;
    }
    // Of hard states alone.
    for (group, term) in groups.iter().zip(1000..) {
        scene.put(*group, hard_state(term, Some(1 + term % 3))).await;
    }
    let scene = scene.reopen().await;
    scene.check().await;
}
