//! Groups that write little and purge nothing, beside others that write much: their entries are
//! copied, so that old segments can go.

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::Poll;

use super::images::{DIR, closed, in_memory, open};
use super::state::*;
use super::*;

/// The segments that there may be where next to nothing is needed: four whole ones, of which the
/// headers don't count, the one in use, and the one that is made for what comes next.
const ALLOWED: usize = 5 + 2;

fn segments_in(image: &Image) -> usize {
    image.keys().filter(|path| path.extension().is_some_and(|is| is == "wal")).count()
}

fn segments(scene: &Scene) -> usize {
    segments_in(&scene.disk().now())
}

fn segment_at(number: u32) -> PathBuf {
    PathBuf::from(format!("{DIR}/wal/{number:016}.wal"))
}

/// A group that writes much, and purges all but its last entry now and then.
struct Busy {
    group: GroupId,
    last: Index,
}

impl Busy {
    fn new(group: GroupId) -> Self {
        Self { group, last: 0 }
    }

    /// Writes as much as a segment takes.
    async fn write<R: Files>(&mut self, store: &FileStore<R>) {
        for _ in 0..4 {
            self.last += 1;
            put(store, self.group, entries([entry(1, self.last, vec![7; 3000])])).await;
        }
    }

    async fn purge<R: Files>(&self, store: &FileStore<R>) {
        let meta = meta(LogId::new(1, 1, self.last - 1), 10);
        finish(store, self.group, &meta).await.unwrap();
        put(store, self.group, named(&meta, Some(meta.log_id))).await;
    }

    /// Writes and purges until a segment is gone.
    async fn outlive(&mut self, scene: &Scene, store: &Store, segment: u32) {
        for _ in 0..30 {
            self.write(store).await;
            self.purge(store).await;
            if !scene.has(segment) {
                return;
            }
        }
        panic!("segment {segment} is still there");
    }
}

fn few(term: u64, first: Index, last: Index) -> Vec<Entry> {
    (first..last + 1).map(|index| entry(term, index, format!("{term} {index}"))).collect()
}

/// Until nothing is copied or removed any more.
async fn quiet(scene: &Scene) {
    loop {
        let before = scene.disk().now();
        scene.rt.sleep(Duration::from_millis(50)).await;
        if scene.disk().now() == before {
            return;
        }
    }
}

#[test]
fn an_idle_group_keeps_no_old_segments() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries(few(1, 1, 5))).await;
        put(&store, 1, hard_state(1, 1)).await;
        let mut busy = Busy::new(2);
        let mut most = 0;
        for _ in 0..60 {
            busy.write(&store).await;
            busy.purge(&store).await;
            most = most.max(segments(&scene));
        }
        // Those that are about to be cleaned or removed.
        assert!(most <= ALLOWED + 4, "{most} segments");
        quiet(&scene).await;
        assert!(segments(&scene) <= ALLOWED, "{} segments", segments(&scene));
        assert!(!scene.has(50));
        assert_eq!(all(&store, 1).await, few(1, 1, 5));
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await, few(1, 1, 5));
        assert_eq!(recovered(&store, 1).await.hard_state.term, Term(1));
        assert_eq!(last(&store, 2).await, busy.last);
    });
}

/// Each byte that others write costs one of a copy at most, however much an idle group holds.
#[test]
fn copies_are_no_more_than_what_is_written() {
    scene(async |scene| {
        let store = scene.open().await;
        let held: Vec<_> = (1..60).map(|index| entry(1, index, vec![3; 2000])).collect();
        for entry in &held {
            put(&store, 1, entries([entry.clone()])).await;
        }
        quiet(&scene).await;
        // With its overhead, what the groups are told, and the busy group's last entry.
        let needed = 59 * 2045 + 2 * 4096 + 3045;
        scene.faults().written.take();
        let mut busy = Busy::new(2);
        for _ in 0..80 {
            busy.write(&store).await;
            busy.purge(&store).await;
        }
        quiet(&scene).await;
        // Records, in files that were opened before they had their name.
        let is_record =
            |path: &PathBuf, at: &Range<u64>| path.ends_with("next.tmp") && at.start > 0;
        let written = scene.faults().written.take();
        let records = written.iter().filter(|(path, at)| is_record(path, at));
        let written: u64 = records.map(|(_, at)| at.end - at.start).sum();
        let by_busy = 80 * 4 * 3100;
        assert!((by_busy + 50_000..2 * by_busy).contains(&written), "{written} for {by_busy}");
        let allowed = 2 * needed / (12 << 10) + ALLOWED + 2;
        assert!(segments(&scene) <= allowed, "{} segments", segments(&scene));
        assert!(!scene.has(1));
        assert_eq!(all(&store, 1).await, held);
        drop(store);
        assert_eq!(all(&scene.open().await, 1).await, held);
    });
}

/// What the groups are told takes more than their entries, and is told again with each cleaning.
#[test]
fn many_groups_without_entries_are_no_reason_to_clean() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries(few(1, 1, 1))).await;
        for group in 100..1600 {
            put(&store, group, hard_state(1, 1)).await;
        }
        quiet(&scene).await;
        let before = segments(&scene);
        assert!(before > ALLOWED + 3, "{before} segments");
        // Nothing to purge, but the store looks whether there is something to clean.
        put(&store, 1, LogWrite { purge: Some(LogId::ZERO), ..LogWrite::default() }).await;
        quiet(&scene).await;
        assert!(scene.has(1) && segments(&scene) == before);
    });
}

/// What is needed alone is not copied, however often the store is opened and its groups purge.
#[test]
fn a_log_of_which_everything_is_needed_is_left_alone() {
    scene(async |scene| {
        let mut store = scene.open().await;
        for index in 0..80 {
            // Records that leave as much of their segments empty as they can.
            put(&store, index % 7, entries([entry(1, 1 + (index - index % 7) / 7, vec![1; 6200])]))
                .await;
        }
        quiet(&scene).await;
        let end = segments(&scene);
        for _ in 0..5 {
            drop(store);
            scene.closed().await;
            store = scene.open().await;
            let meta = meta(LogId::new(1, 1, 1), 10);
            finish(&store, 1, &meta).await.unwrap();
            put(&store, 1, named(&meta, Some(meta.log_id))).await;
            quiet(&scene).await;
        }
        assert!(scene.has(1) && segments(&scene) <= end + 1);
    });
}

/// An entry is replaced, and others are purged, after they were read to be copied, or when their
/// copy is under way.
#[test]
fn what_is_replaced_or_purged_while_it_is_copied_stays_so() {
    for moment in 0..80 {
        scene(async |scene| {
            let store = scene.open().await;
            put(&store, 1, entries(few(1, 1, 9))).await;
            put(&store, 3, entries(few(1, 1, 9))).await;
            let meta = meta(LogId::new(1, 1, 4), 10);
            finish(&store, 3, &meta).await.unwrap();
            let mut busy = Busy::new(2);
            for _ in 0..7 {
                busy.write(&store).await;
            }
            assert!(scene.has(8));
            busy.purge(&store).await; // From now on there is something to clean.
            for _ in 0..moment {
                yield_now().await;
            }
            assert!(moment > 0 || scene.has(1));
            let replaced = submit(&store, 1, entries(few(2, 6, 7)));
            let purged = submit(&store, 3, named(&meta, Some(meta.log_id)));
            for outcome in [replaced, purged] {
                outcome.await.unwrap().unwrap();
            }
            quiet(&scene).await;
            assert!(!scene.has(1));
            let expected = [few(1, 1, 5), few(2, 6, 7)].concat();
            assert_eq!(all(&store, 1).await, expected, "after {moment} moments");
            drop(store);
            for _ in 0..2 {
                let store = scene.open().await;
                assert_eq!(all(&store, 1).await, expected, "after {moment} moments");
                assert_eq!(store.read(3, 5..10, usize::MAX).await.unwrap(), few(1, 5, 9));
                busy.outlive(&scene, &store, busy.last as u32 / 4 - 1).await;
                drop(store);
                scene.closed().await;
            }
        });
    }
}

/// The same, when they were read and are not queued yet.
#[test]
fn what_is_replaced_or_purged_when_it_was_read_is_not_copied() {
    scene(async |scene| {
        let store = scene.open().await;
        let meta = meta(LogId::new(1, 1, 9), 10);
        for group in [1, 3, 4] {
            put(&store, group, entries(few(1, 1, 9))).await;
            finish(&store, group, &meta).await.unwrap();
        }
        let mut busy = Busy::new(2);
        for _ in 0..7 {
            busy.write(&store).await;
        }
        scene.faults().hold_reads.close();
        busy.purge(&store).await;
        scene.until(|| scene.faults().hold_reads.waiting() == 1).await;
        let writes = [
            submit(&store, 1, entries(few(2, 4, 5))),
            submit(&store, 3, named(&meta, Some(LogId::new(1, 1, 4)))),
            submit(&store, 4, named(&meta, Some(meta.log_id))),
        ];
        scene.faults().hold_reads.open();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        scene.until(|| !scene.has(1)).await;
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await, [few(1, 1, 3), few(2, 4, 5)].concat());
        assert_eq!(store.read(3, 5..10, usize::MAX).await.unwrap(), few(1, 5, 9));
        assert_eq!(recovered(&store, 4).await.log_meta.purged(), meta.log_id);
    });
}

/// What each of the groups must hold after a crash: the idle ones all, the busy one at least what
/// was durable.
async fn survives(rt: &Memory, image: &Image, idle: &[Vec<Entry>; 2], durable: Index, what: &str) {
    let rt = rt.with(image);
    let report = FileStore::check(&rt, DIR).await.unwrap();
    assert!(report.damage.is_none(), "{what}: {report:?}");
    assert!(rt.disk.now() == *image, "{what}: a check has changed something");
    let store = open(&rt).await.unwrap();
    for (group, expected) in [(1, &idle[0]), (3, &idle[1])] {
        assert_eq!(all(&store, group).await, *expected, "{what}, group {group}");
    }
    assert!(last(&store, 2).await >= durable, "{what}");
    assert_eq!(recovered(&store, 1).await.hard_state.term, Term(2), "{what}");
}

/// X12, X13. The log is cleaned several times over, so copies are copied; the entries of one group
/// stand in several segments, and are copied at several times.
#[test]
fn a_crash_at_any_operation_of_a_cleaning_loses_nothing() {
    in_memory(async |rt| {
        let recorded = rt.with(&Image::new());
        let store = open(&recorded).await.unwrap();
        let mut busy = Busy::new(2);
        let mut idle = [few(1, 1, 6), few(1, 1, 3)];
        put(&store, 1, hard_state(2, 1)).await;
        put(&store, 1, entries(idle[0].clone())).await;
        for round in 0..6 {
            busy.write(&store).await;
            // Some are replaced, and some follow.
            let at = idle[0].len() as Index;
            idle[0].truncate(at as usize - 1);
            idle[0].extend(few(2 + round, at, at + 1));
            put(&store, 1, entries(idle[0][at as usize - 1..].to_vec())).await;
        }
        put(&store, 3, entries(idle[1].clone())).await;
        let disk = &recorded.disk;
        disk.record_moments();
        for _ in 0..14 {
            disk.progress.set((busy.last as usize, 0));
            busy.write(&store).await;
            busy.purge(&store).await;
        }
        drop(store);
        let image = closed(&recorded).await;
        assert!(segments_in(&image) <= ALLOWED + 4, "{} segments", segments_in(&image));
        let moments = disk.take_moments();
        assert!(moments.len() > 300, "{}", moments.len());
        for (at, Moment { progress, image }) in moments.iter().enumerate() {
            survives(&rt, image, &idle, progress.0 as Index, &format!("moment {at}")).await;
            if at % 23 > 0 {
                continue;
            }
            // A crash of what the opening does, which goes on with the cleaning.
            let again = rt.with(image);
            again.disk.record_moments();
            let store = open(&again).await.unwrap();
            for _ in 0..100 {
                yield_now().await;
            }
            drop(store);
            closed(&again).await;
            for second in again.disk.take_moments() {
                let what = format!("moment {at}, and another crash");
                survives(&rt, &second.image, &idle, progress.0 as Index, &what).await;
            }
        }
    });
}

/// X13. The power goes while a sync is under way, whichever.
#[test]
fn no_segment_goes_before_what_was_copied_from_it_is_durable() {
    in_memory(async |rt| {
        let (mut held, mut removed) = (0, 0);
        for moment in 0..60 {
            let rt = rt.with(&Image::new());
            let store = open(&rt).await.unwrap();
            put(&store, 1, hard_state(2, 1)).await;
            put(&store, 1, entries(few(1, 1, 9))).await;
            let mut busy = Busy::new(2);
            for _ in 0..7 {
                busy.write(&store).await;
            }
            let meta = meta(LogId::new(1, 1, busy.last - 1), 10);
            finish(&store, 2, &meta).await.unwrap();
            drop(submit(&store, 2, named(&meta, Some(meta.log_id))));
            for _ in 0..moment {
                yield_now().await;
            }
            rt.disk.faults.hold_syncs.close();
            for _ in 0..100 {
                yield_now().await;
            }
            held += rt.disk.faults.hold_syncs.waiting();
            let image = rt.disk.synced();
            removed += usize::from(!image.contains_key(&segment_at(1)));
            let idle = [few(1, 1, 9), vec![]];
            survives(&rt, &image, &idle, busy.last, &format!("moment {moment}")).await;
            rt.disk.faults.hold_syncs.open();
        }
        assert!(held > 2 && removed > 10, "{held} syncs were held, {removed} segments removed");
    });
}

/// The sectors under an old entry have gone bad. Nothing is lost silently: its segment stays, who
/// reads it gets the error, and when it is purged the cleaning goes on.
#[test]
fn an_entry_that_cannot_be_read_keeps_its_segment_and_stops_nobody() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries(few(1, 1, 5))).await;
        put(&store, 1, entries([entry(1, 6, vec![6; 500])])).await;
        let at = scene.end(1) - 100;
        let mut busy = Busy::new(2);
        busy.write(&store).await;
        let mut content = scene.content(1);
        content[at as usize] ^= 1;
        scene.set_content(1, &content);
        for _ in 0..20 {
            busy.write(&store).await;
            busy.purge(&store).await;
        }
        quiet(&scene).await;
        assert!(scene.has(1), "what stands there is still needed");
        assert_eq!(store.read(1, 1..6, usize::MAX).await.unwrap(), few(1, 1, 5));
        let error = store.read(1, 6..7, usize::MAX).await.unwrap_err();
        let StoreError::Damaged { file, .. } = error else { panic!("{error}") };
        assert_eq!(file, scene.segment(1));
        // It is not tried again with each purge.
        let reads = scene.faults().reads.get();
        for _ in 0..3 {
            put(&store, 2, LogWrite { purge: Some(LogId::ZERO), ..LogWrite::default() }).await;
            quiet(&scene).await;
        }
        assert_eq!(scene.faults().reads.get(), reads);
        // A leader sends a snapshot in its place.
        let meta = meta(LogId::new(1, 1, 6), 10);
        finish(&store, 1, &meta).await.unwrap();
        put(&store, 1, named(&meta, Some(meta.log_id))).await;
        busy.outlive(&scene, &store, 10).await;
        assert!(segments(&scene) <= ALLOWED + 4, "{} segments", segments(&scene));
    });
}

/// It has read from the first segment, and is about to read from the second, when both go.
#[test]
fn a_read_outlives_the_segments_that_it_was_to_read() {
    scene(async |scene| {
        let store = scene.open().await;
        let mut busy = Busy::new(2);
        put(&store, 1, entries(few(1, 1, 2))).await;
        busy.write(&store).await;
        put(&store, 1, entries(few(1, 3, 4))).await;
        assert!(scene.has(2));
        scene.faults().hold_reads.close();
        let mut reading = pin!(store.read(1, 1..5, usize::MAX));
        let waits = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context).is_pending()));
        assert!(waits.await && scene.faults().hold_reads.waiting() == 1);
        scene.faults().hold_reads.open();
        busy.outlive(&scene, &store, 2).await;
        assert_eq!(reading.await.unwrap(), few(1, 1, 4));
    });
}

/// A full disk: an idle group keeps segments that are of no use otherwise. There is no space for
/// the next segment, but for what the idle group needs.
#[test]
fn a_full_disk_is_cleaned_where_next_to_nothing_is_needed() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries(few(1, 1, 3))).await;
        let mut busy = Busy::new(2);
        for _ in 0..3 {
            busy.write(&store).await;
        }
        busy.purge(&store).await;
        scene.made(4).await;
        assert!(scene.has(1), "not enough to be cleaned");
        scene.faults().full.set(true);
        let write = |index| entries([entry(1, index, vec![7; 3000])]);
        let mut waits = Vec::new();
        for _ in 0..9 {
            busy.last += 1;
            waits.push(submit(&store, 2, write(busy.last)));
        }
        scene.until(|| !scene.has(1)).await;
        assert_eq!(all(&store, 1).await, few(1, 1, 3));
        put(&store, 1, hard_state(5, 1)).await;
        scene.faults().full.set(false);
        for outcome in waits {
            outcome.await.unwrap().unwrap();
        }
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await, few(1, 1, 3));
        assert_eq!(last(&store, 2).await, busy.last);
    });
}
