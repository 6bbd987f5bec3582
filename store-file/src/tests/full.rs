//! Disks that get full while a store is open, and are when it is opened.

use std::cell::RefCell;
use std::rc::Rc;

use quorate_core::{Completes, SnapshotMeta};

use super::images::{closed, in_memory, open};
use super::state::*;
use super::*;

/// What was told, in order: the write, and whether it is durable or waits.
#[derive(Default)]
struct Heard(RefCell<Vec<(u64, &'static str)>>);

impl Completes for Heard {
    fn completed(&self, write: u64, outcome: Result<(), StoreError>) {
        let told = if outcome.is_ok() { "durable" } else { "failed" };
        self.0.borrow_mut().push((write, told));
    }

    fn delayed(&self, write: u64) {
        self.0.borrow_mut().push((write, "waits"));
    }
}

impl Heard {
    fn append<R: Files>(
        self: &Rc<Self>,
        store: &FileStore<R>,
        group: GroupId,
        number: u64,
        write: LogWrite,
    ) {
        let target: Rc<Self> = Rc::clone(self);
        let appended = store.append(group, write, Completion::to(target, number));
        assert_eq!(appended, Appended::Pending);
    }

    fn has(&self, number: u64, told: &'static str) -> bool {
        self.0.borrow().contains(&(number, told))
    }
}

fn large(index: Index) -> LogWrite {
    entries([entry(1, index, vec![index as u8; 4000])])
}

/// Writes entries to group 1 until one waits. Gives its index; the number of each write is its
/// index.
async fn fill(scene: &Scene, store: &Store, heard: &Rc<Heard>) -> Index {
    scene.made(2).await;
    scene.faults().full.set(true);
    for index in 1..100 {
        heard.append(store, 1, index, large(index));
        scene.until(|| heard.has(index, "durable") || heard.has(index, "waits")).await;
        if heard.has(index, "waits") {
            return index;
        }
    }
    panic!("the disk is full");
}

fn snapshot_write(meta: &SnapshotMeta) -> LogWrite {
    let (snapshot, purge) = (Some(Box::new(meta.clone())), Some(meta.log_id));
    LogWrite { snapshot, purge, ..LogWrite::default() }
}

#[test]
fn entries_wait_and_go_on_in_order() {
    scene(async |scene| {
        let store = scene.open().await;
        let heard = Rc::<Heard>::default();
        let first = fill(&scene, &store, &heard).await;
        for index in first + 1..first + 9 {
            heard.append(&store, 1, index, large(index));
        }
        scene.until(|| heard.has(first + 8, "waits")).await;
        assert!(!heard.has(first, "durable"));
        assert_eq!(all(&store, 1).await.len() as u64, first + 8, "all of them are readable");
        scene.faults().full.set(false);
        scene.until(|| heard.has(first + 8, "durable")).await;
        let told = heard.0.take();
        let durable: Vec<u64> =
            told.iter().filter(|(_, told)| *told == "durable").map(|(n, _)| *n).collect();
        assert_eq!(durable, (1..first + 9).collect::<Vec<_>>());
        drop(store);
        assert_eq!(last(&scene.open().await, 1).await, first + 8);
    });
}

#[test]
fn votes_and_starts_need_no_space() {
    scene(async |scene| {
        let store = scene.open().await;
        let heard = Rc::<Heard>::default();
        let first = fill(&scene, &store, &heard).await;
        for (number, term) in (1000..).zip(2..30) {
            heard.append(&store, 1, number, hard_state(term, 2));
            scene.until(|| heard.has(number, "durable")).await;
        }
        drop(store);
        scene.closed().await;
        for boot in 1..20 {
            let store = scene.open().await;
            assert_eq!(store.identify(3).await.unwrap().boot, boot);
            let recovered = recovered(&store, 1).await;
            assert_eq!(recovered.hard_state.term, Term(29));
            assert_eq!(recovered.log_meta.last().index, first - 1);
            drop(store);
            scene.closed().await;
        }
        scene.faults().full.set(false);
        let store = scene.open().await;
        put(&store, 1, large(first)).await;
        assert_eq!(last(&store, 1).await, first);
    });
}

/// The purge is of the same group as what waits, and behind it.
#[test]
fn a_purge_frees_space_and_the_queue_goes_on() {
    scene(async |scene| {
        let store = scene.open().await;
        let meta = meta(LogId::new(1, 1, 4), 1000);
        let heard = Rc::<Heard>::default();
        scene.made(2).await;
        // A snapshot of what is not there yet: it is named later.
        finish(&store, 1, &meta).await.unwrap();
        let first = fill(&scene, &store, &heard).await;
        heard.append(&store, 1, 1000, snapshot_write(&meta));
        scene.until(|| heard.has(1000, "durable")).await;
        scene.until(|| !scene.has(1)).await;
        assert!(!heard.has(first, "durable"), "the disk of this test is still full");
        scene.faults().full.set(false);
        scene.until(|| heard.has(first, "durable")).await;
        drop(store);
        let store = scene.open().await;
        let state = State::of(&store, 1).await;
        assert_eq!(state.snapshot, Some(meta.clone()));
        assert_eq!(state.last().index, first);
        assert_eq!(recovered(&store, 1).await.log_meta.purged(), meta.log_id);
    });
}

/// The last entry that is purged waits. When there is space, it must not follow on its purge.
#[test]
fn entries_that_are_purged_while_they_wait_are_not_written() {
    scene(async |scene| {
        let store = scene.open().await;
        let heard = Rc::<Heard>::default();
        let first = fill(&scene, &store, &heard).await;
        let meta = meta(LogId::new(1, 1, first), 1000);
        // There is space for a moment, in which the log does not look for any.
        scene.faults().full.set(false);
        finish(&store, 1, &meta).await.unwrap();
        scene.faults().full.set(true);
        assert!(!heard.has(first, "durable"));
        heard.append(&store, 1, 1000, snapshot_write(&meta));
        heard.append(&store, 1, first + 1, large(first + 1));
        scene.until(|| heard.has(1000, "durable")).await;
        scene.faults().full.set(false);
        scene.until(|| heard.has(first, "durable") && heard.has(first + 1, "durable")).await;
        drop(store);
        let store = scene.open().await;
        let log_meta = recovered(&store, 1).await.log_meta;
        assert_eq!((log_meta.purged(), log_meta.last().index), (meta.log_id, first + 1));
    });
}

/// A snapshot covers entries that wait. After a crash it stands for them.
#[test]
fn a_snapshot_stands_for_entries_that_waited_and_were_lost() {
    scene(async |scene| {
        let store = scene.open().await;
        let heard = Rc::<Heard>::default();
        scene.made(2).await;
        let metas: Vec<_> = (1..20).map(|index| meta(LogId::new(1, 1, index), 100)).collect();
        for meta in &metas {
            finish(&store, 1, meta).await.unwrap();
        }
        let first = fill(&scene, &store, &heard).await;
        heard.append(&store, 1, first + 1, large(first + 1));
        heard.append(&store, 1, first + 2, large(first + 2));
        scene.until(|| heard.has(first + 2, "waits")).await;
        // Named, and nothing purged.
        let covering = &metas[first as usize];
        assert_eq!(covering.log_id.index, first + 1);
        let snapshot = Some(Box::new(covering.clone()));
        heard.append(&store, 1, 1000, LogWrite { snapshot, ..LogWrite::default() });
        scene.until(|| heard.has(1000, "durable")).await;
        drop(store);
        scene.closed().await;
        for _ in 0..3 {
            let store = scene.open().await;
            let recovered = recovered(&store, 1).await;
            assert_eq!(recovered.snapshot.as_ref(), Some(covering));
            assert_eq!(recovered.log_meta.purged(), covering.log_id);
            assert_eq!(recovered.log_meta.last(), covering.log_id);
            store.identify(3).await.unwrap();
            drop(store);
            scene.closed().await;
        }
        scene.faults().full.set(false);
        let store = scene.open().await;
        put(&store, 1, large(first + 2)).await;
        drop(store);
        assert_eq!(last(&scene.open().await, 1).await, first + 2);
    });
}

#[test]
fn a_draft_fails_and_the_log_goes_on() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, large(1)).await;
        scene.faults().full.set(true);
        let error = finish(&store, 1, &meta(LogId::new(1, 1, 1), 5000)).await.unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        put(&store, 1, hard_state(2, 1)).await;
        put(&store, 1, large(2)).await; // There is space for it in the segment.
        scene.faults().full.set(false);
        finish(&store, 1, &meta(LogId::new(1, 1, 1), 5000)).await.unwrap();
    });
}

/// What waits is told when the store is closed, and nothing of it is there afterwards.
#[test]
fn a_closed_store_tells_those_who_wait() {
    scene(async |scene| {
        let store = scene.open().await;
        let heard = Rc::<Heard>::default();
        let first = fill(&scene, &store, &heard).await;
        drop(store);
        assert!(heard.has(first, "failed"));
        scene.closed().await;
        assert_eq!(last(&scene.open().await, 1).await, first - 1);
    });
}

/// The cluster that the store has joined with a write that waits is that of its other groups, too;
/// and what a snapshot of the group has superseded goes with it.
#[test]
fn a_group_that_is_removed_while_it_waits_leaves_the_cluster_and_no_files() {
    scene(async |scene| {
        let store = scene.open().await;
        let heard = Rc::<Heard>::default();
        let metas = [3, 4].map(|index| meta(LogId::new(1, 1, index), 100));
        for meta in &metas {
            finish(&store, 1, meta).await.unwrap();
        }
        put(&store, 2, entries([entry(1, 1, "kept")])).await;
        let first = fill(&scene, &store, &heard).await;
        let snapshot = Some(Box::new(metas[0].clone()));
        heard.append(&store, 1, 1000, LogWrite { snapshot, ..large(first + 1) });
        let snapshot = Some(Box::new(metas[1].clone()));
        let joins = LogWrite { cluster: Some(ClusterId(7)), snapshot, ..large(first + 2) };
        heard.append(&store, 1, 1001, joins);
        store.remove(1).await.unwrap();
        assert!([first, 1000, 1001].iter().all(|number| heard.has(*number, "failed")));
        let folder = scene.dir.join("snapshots");
        let has_snapshots = || scene.disk().now().keys().any(|path| path.starts_with(&folder));
        scene.until(|| !has_snapshots()).await;
        assert_eq!(store.cluster(), Some(ClusterId(7)));
        drop(store);
        let store = scene.open().await;
        assert_eq!(store.cluster(), Some(ClusterId(7)));
        assert_eq!(recovered(&store, 1).await, Recovered::default());
        assert_eq!(all(&store, 2).await, [entry(1, 1, "kept")]);
    });
}

/// The reserve is used up by votes, and made anew when there is space.
#[test]
fn when_the_reserve_is_used_up_all_wait_in_order() {
    scene(async |scene| {
        let store = scene.open().await;
        let heard = Rc::<Heard>::default();
        let first = fill(&scene, &store, &heard).await;
        let mut number = 1000;
        while !heard.has(number, "waits") {
            number += 1;
            heard.append(&store, 2, number, hard_state(number, 2));
            scene.until(|| heard.has(number, "durable") || heard.has(number, "waits")).await;
        }
        assert!(number > 1100, "{number}");
        heard.append(&store, 1, 5000, LogWrite { ..hard_state(5000, 1) });
        scene.until(|| heard.has(5000, "waits")).await;
        scene.faults().full.set(false);
        scene.until(|| heard.has(5000, "durable")).await;
        assert!(heard.has(first, "durable") && heard.has(number, "durable"));
        drop(store);
        let store = scene.open().await;
        assert_eq!(last(&store, 1).await, first);
        assert_eq!(recovered(&store, 1).await.hard_state.term, Term(5000));
        assert_eq!(recovered(&store, 2).await.hard_state.term, Term(number));
        // And once more.
        drop(store);
        scene.closed().await;
        assert!(scene.disk().has(scene.dir.join("wal/reserve")));
    });
}

/// A sync that fails for lack of space is one that failed.
#[test]
fn a_lack_of_space_in_a_sync_fails_the_store() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.faults().fail_sync_for_space.set(true);
        submit(&store, 1, large(1)).await.unwrap().unwrap_err();
        scene.faults().fail_sync_for_space.set(false);
        let error = submit(&store, 1, large(1)).await.unwrap().unwrap_err();
        assert!(matches!(error, StoreError::Poisoned(_)), "{error}");
    });
}

/// The power goes at any point: while the disk fills, while entries wait and the rest goes ahead of
/// them, when there is space again. The log is always valid and has what was reported; and on a
/// disk that is full it opens as well.
#[test]
fn a_power_cut_at_any_point_leaves_a_valid_log() {
    in_memory(async |rt| {
        let recorded = rt.with(&Image::new());
        recorded.disk.record_moments();
        let progress = &recorded.disk.progress;
        let store = open(&recorded).await.unwrap();
        let heard = Rc::<Heard>::default();
        let hears = async |number: u64| {
            while !heard.has(number, "durable") && !heard.has(number, "waits") {
                yield_now().await;
            }
            heard.has(number, "durable")
        };
        let meta = meta(LogId::new(1, 1, 6), 1000);
        put(&store, 2, entries([entry(1, 1, "another group")])).await;
        let mut index = 1;
        loop {
            heard.append(&store, 1, index, large(index));
            if !hears(index).await {
                break;
            }
            progress.set((index as usize, 0));
            if index == 6 {
                finish(&store, 1, &meta).await.unwrap();
                recorded.disk.faults.full.set(true);
            }
            index += 1;
        }
        for (more, term) in (index + 1..index + 6).zip(2..) {
            heard.append(&store, 1, more, large(more));
            heard.append(&store, 1, 100 + term, hard_state(term, 2));
            assert!(hears(100 + term).await && !hears(more).await);
            progress.set((index as usize - 1, term as usize));
        }
        heard.append(&store, 1, 200, snapshot_write(&meta));
        assert!(hears(200).await);
        recorded.disk.faults.full.set(false);
        let end = index + 5;
        while !heard.has(end, "durable") {
            recorded.sleep(Duration::from_millis(1)).await;
        }
        progress.set((end as usize, 6));
        put(&store, 1, large(end + 1)).await;
        drop(store);
        closed(&recorded).await;
        let moments = recorded.disk.take_moments();
        assert!(moments.len() > 100, "{}", moments.len());
        for Moment { progress: (durable, term), image } in moments {
            for full in [true, false] {
                let rt = rt.with(&image);
                // The very first segment needs space.
                rt.disk.faults.full.set(full && durable > 0);
                let store = open(&rt).await.unwrap();
                let recovered = recovered(&store, 1).await;
                let (purged, last) = (recovered.log_meta.purged(), recovered.log_meta.last());
                assert!(last.index >= durable as u64, "{last} of {durable}");
                assert!(recovered.hard_state.term >= Term(term as u64));
                assert!(purged.index == 0 || purged == meta.log_id && term == 6);
                for index in purged.index + 1..last.index + 1 {
                    let read = store.read(1, index..index + 1, usize::MAX).await.unwrap();
                    assert_eq!(read, large(index).entries);
                }
                if durable > 0 {
                    assert_eq!(all(&store, 2).await, [entry(1, 1, "another group")]);
                    assert_eq!(store.identify(3).await.unwrap().boot, 1);
                    put(&store, 1, hard_state(100, 1)).await;
                }
            }
        }
    });
}
