//! What is left of a log when a snapshot stands for its beginning, or for all of it: exactly what
//! comes after, under the same log ids.

use futures::future::{join, join_all};
use quorate_rt::Executor;

use super::{
    CLUSTER, Scene, StoreFactory, content, durable, entries, entry, hard_state, marks, standing,
};
use crate::{Appended, Completion, Entries, GroupId, Index, LogId, LogStore, LogWrite, StoreError};

const GROUP: GroupId = 7;

fn purge(to: LogId) -> LogWrite {
    LogWrite { purge: Some(to), ..LogWrite::default() }
}

/// A store with the entries `1..=last` of term 1, all of which a snapshot covers.
async fn covered<R: Executor, F: StoreFactory<R>>(rt: R, factory: F, last: Index) -> Scene<R, F> {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    scene.put(GROUP, entries(1, 1, last)).await;
    scene.take_snapshot(GROUP, last, content(1, 1000)).await;
    scene
}

impl<R: Executor, F: StoreFactory<R>> Scene<R, F> {
    /// Checks what is there, and again when it is opened anew, if anything is there then.
    async fn check_twice(self) -> Self {
        self.check().await;
        if !F::DURABLE {
            return self;
        }
        let scene = self.reopen().await;
        scene.check().await;
        scene
    }
}

/// In the middle, further, and with what comes next in the same write.
#[doc(hidden)]
pub async fn purges_a_prefix<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = covered(rt, factory, 60).await;
    for to in [1, 2, 30, 31, 59] {
        let outcome = scene.submit(GROUP, purge(entry(1, to).log_id));
        scene.check().await;
        durable(outcome).await;
        scene = scene.check_twice().await;
        // The suffix grows and is replaced as before.
        let last = scene.log(GROUP).last();
        scene.put(GROUP, entries(last.term.0, last.index + 1, last.index + 3)).await;
        scene = scene.check_twice().await;
    }
    let last = scene.log(GROUP).last().index;
    let write = LogWrite {
        hard_state: hard_state(2, Some(1)).hard_state,
        purge: Some(entry(1, 60).log_id),
        ..entries(2, last + 1, last + 20)
    };
    scene.put(GROUP, write).await;
    scene.check_twice().await;
}

/// Up to its end. Its last log id stays known, or a restarted node would vote for one that has less
/// (S6).
#[doc(hidden)]
pub async fn purges_all<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = covered(rt, factory, 20).await;
    for term in 2..6 {
        let last = scene.log(GROUP).last();
        scene.put(GROUP, purge(last)).await;
        scene = scene.check_twice().await;
        if F::DURABLE {
            let again = scene.reopen().await;
            scene = again.check_twice().await;
        }
        assert_eq!((scene.log(GROUP).last(), scene.log(GROUP).purged), (last, last));
        scene.put(GROUP, entries(term, last.index + 1, last.index + 4)).await;
        scene = scene.check_twice().await;
        scene.take_snapshot(GROUP, last.index + 4, content(term, 500)).await;
    }
    scene.check_twice().await;
}

/// What is purged already changes nothing.
#[doc(hidden)]
pub async fn purges_again<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = covered(rt, factory, 40).await;
    for to in [20, 20, 10, 1, 21, 20, 40, 40, 39] {
        scene.put(GROUP, purge(entry(1, to).log_id)).await;
        scene = scene.check_twice().await;
    }
    scene.put(GROUP, entries(1, 41, 50)).await;
    scene.put(GROUP, purge(entry(1, 40).log_id)).await;
    scene = scene.check_twice().await;
    assert_eq!(scene.log(GROUP).entries.len(), 10);
}

/// An answer that began before the purge is what was there, or says that it is not there any more.
#[doc(hidden)]
pub async fn purges_while_it_reads<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = covered(rt, factory, 400).await;
    for round in 0..20 {
        let (first, to) = (round * 20 + 1, (round + 1) * 20);
        let before = scene.log(GROUP).entries.clone();
        let (sender, told) = quorate_rt::channel::oneshot::channel();
        let done = Completion::new(move |outcome| sender.send(outcome).unwrap_or(()));
        // The first ones are polled before the purge, and the last one after it.
        let reads = join_all([first, to, to + 1].map(|from| scene.read(GROUP, from, 401)));
        let write = purge(entry(1, to).log_id);
        let purged = async { scene.store.append(GROUP, write, done) };
        let after = scene.read(GROUP, (to + 1).min(400), 401);
        let (reads, (appended, after)) = join(reads, join(purged, after)).await;
        for (from, read) in [first, to, to + 1].into_iter().zip(reads) {
            match read {
                Ok(read) => assert_eq!(read, before[(from - first) as usize..]),
                Err(StoreError::Missing(_)) => assert!(from <= to || to == 400, "{from} of {to}"),
                Err(error) => panic!("{from}..401 gives {error}"),
            }
        }
        if to < 400 {
            assert_eq!(after.expect("it is there"), before[20..]);
        }
        if appended == Appended::Pending {
            durable(told).await;
        }
        let history = scene.groups.get_mut(&GROUP).expect("a group of the scene");
        let mut log = history.now().clone();
        log.apply(&purge(entry(1, to).log_id));
        history.states = vec![log];
        scene.check().await;
    }
}

/// All other groups have what they had.
#[doc(hidden)]
pub async fn purges_one_group_alone<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    const GROUPS: [GroupId; 4] = [0, GROUP, 8, u64::MAX];
    let mut scene = Scene::open(rt, factory, &GROUPS).await;
    for index in (1..200).step_by(5) {
        for group in GROUPS {
            scene.put(group, entries(1, index, index + 4)).await;
        }
    }
    for (group, to) in [(GROUP, 200), (0, 100), (u64::MAX, 1)] {
        scene.take_snapshot(group, to, content(group, 3000)).await;
        let outcome = scene.submit(group, purge(entry(1, to).log_id));
        scene.check().await;
        durable(outcome).await;
        scene = scene.check_twice().await;
        if !F::DURABLE {
            return;
        }
    }
    assert_eq!(scene.log(8).entries.len(), 200);
}

/// Right behind what is purged, and further on; by the same entries, too.
#[doc(hidden)]
pub async fn replaces_a_suffix_after_a_purge<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = covered(rt, factory, 30).await;
    scene.put(GROUP, LogWrite { purge: Some(entry(1, 20).log_id), ..entries(1, 31, 40) }).await;
    for (term, first, last) in [(2, 35, 36), (1, 35, 38), (3, 31, 33), (1, 31, 50), (4, 40, 40)] {
        scene.put(GROUP, entries(term, first, last)).await;
        scene = scene.check_twice().await;
    }
    scene.put(GROUP, LogWrite { purge: Some(entry(1, 30).log_id), ..entries(5, 31, 31) }).await;
    scene = scene.check_twice().await;
    scene.put(GROUP, entries(6, 31, 45)).await;
    scene.check_twice().await;
}

/// A received snapshot takes the place of a log that ends before it, or that holds another entry
/// there: nothing of that is left, and what comes next follows the snapshot.
#[doc(hidden)]
pub async fn begins_anew_after_a_snapshot<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP, GROUP + 1]).await;
    scene.put(GROUP + 1, entries(1, 1, 20)).await;
    // Into an empty log first; then beyond the end, right behind it, in the middle, at its last
    // entry.
    for (term, at) in [(1, 100), (2, 300), (3, 311), (5, 315), (7, 325)] {
        let meta = scene.finish(GROUP, entry(term, at).log_id, content(term, 2000)).await;
        scene.check().await;
        let write = LogWrite {
            hard_state: hard_state(term, Some(3)).hard_state,
            snapshot: Some(Box::new(meta.clone())),
            purge: Some(meta.log_id),
            ..LogWrite::default()
        };
        let outcome = scene.submit(GROUP, write);
        assert_eq!((scene.log(GROUP).last(), scene.log(GROUP).purged), (meta.log_id, meta.log_id));
        scene.check().await;
        durable(outcome).await;
        scene = scene.check_twice().await;
        scene.put(GROUP, entries(term, at + 1, at + 5)).await;
        scene = scene.check_twice().await;
        scene.put(GROUP, entries(term + 1, at + 3, at + 10)).await;
        scene = scene.check_twice().await;
    }
    // And with what follows it, at once.
    let meta = scene.finish(GROUP, entry(9, 1000).log_id, content(9, 2000)).await;
    let purge = Some(meta.log_id);
    let hard_state = hard_state(9, None).hard_state;
    let write =
        LogWrite { hard_state, snapshot: Some(Box::new(meta)), purge, ..entries(9, 1001, 1020) };
    scene.put(GROUP, write).await;
    scene = scene.check_twice().await;
    assert_eq!(scene.log(GROUP).entries.len(), 20);
}

/// A log that is written for long, and of which little is kept. What was written beside it at the
/// beginning stays.
#[doc(hidden)]
pub async fn grows_and_is_purged_for_long<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    const GROUPS: [GroupId; 3] = [1, 2, 3];
    let mut scene = Scene::open(rt, factory, &GROUPS).await;
    for group in GROUPS {
        let marks = marks(group).marks;
        let write = LogWrite { cluster: Some(CLUSTER), marks, ..standing(group) };
        scene.put(group, write).await;
    }
    for round in 0..30_u64 {
        let last = (round + 1) * 100;
        for group in GROUPS {
            scene.put(group, entries(1 + round / 7, last - 99, last)).await;
            // The third one's is kept long.
            if group < 3 || round % 10 == 9 {
                scene.take_snapshot(group, last - 10, content(round, 5000)).await;
                let kept = if group == 1 { 15 } else { 60 };
                let to = scene.log(group).entries.iter().rev().nth(kept).map(|e| e.log_id);
                let to = to.filter(|to| to.index > scene.log(group).purged.index);
                scene.put(group, LogWrite { purge: to, ..LogWrite::default() }).await;
            }
        }
        if round % 5 == 0 {
            scene = scene.check_twice().await;
            if !F::DURABLE {
                return;
            }
        }
    }
    scene.check_twice().await;
}

/// The store is dropped while a snapshot takes the place of the log, or of its beginning: the old
/// state is left, or the new one, whole.
#[doc(hidden)]
pub async fn crashes_while_it_purges<R: Executor, F: StoreFactory<R>>(rt: R, factory: F) {
    let mut scene = Scene::open(rt, factory, &[GROUP]).await;
    for life in 1..30 {
        let before = scene.log(GROUP).last();
        let first = before.index + 1;
        let outcome = scene.submit(GROUP, entries(2 * life, first, first + 20));
        let (at, term) =
            if life % 2 == 0 { (first + 10, 2 * life) } else { (first + 30, 2 * life + 1) };
        let meta = scene.finish(GROUP, entry(term, at).log_id, content(life, 4000)).await;
        let purge = Some(meta.log_id);
        let write = LogWrite {
            snapshot: Some(Box::new(meta)),
            purge,
            ..entries(term, first + 31, first + 33)
        };
        let write =
            if life % 2 == 0 { LogWrite { entries: Entries::default(), ..write } } else { write };
        let named = scene.submit(GROUP, write);
        match life % 5 {
            0 => {}
            1 => durable(outcome).await,
            2 => durable(named).await,
            turns => {
                for _ in 0..turns * turns {
                    scene.turn().await;
                }
            }
        }
        scene = scene.reopen().await;
        scene.check().await;
    }
}
