//! Crashes while a log is compacted: snapshots written and named, entries purged, segments removed.
//! Whenever it happens, each group is in a state that it was in, whole, and in none before the last
//! that was acknowledged.

use std::rc::Rc;

use quorate_core::{Marks, Standing};

use super::images::*;
use super::state::*;
use super::*;

type MemoryStore = FileStore<Memory>;

/// The states of some groups, one after each write.
#[derive(Clone)]
struct History {
    states: Vec<[State; 4]>,
}

impl History {
    fn new() -> Self {
        Self { states: vec![Default::default()] }
    }

    fn now(&self) -> &[State; 4] {
        self.states.last().unwrap()
    }

    fn log_id(&self, group: usize, index: Index) -> LogId {
        let entries = &self.now()[group].entries;
        entries.iter().find(|entry| entry.log_id.index == index).unwrap().log_id
    }

    /// Submits a write, and keeps the disk informed of what has been submitted and acknowledged.
    fn submit(&mut self, rt: &Memory, store: &MemoryStore, group: usize, write: LogWrite) {
        let mut now = self.now().clone();
        now[group].apply(&write);
        self.states.push(now);
        let (acknowledged, submitted) = rt.disk.progress.get();
        rt.disk.progress.set((acknowledged, submitted + 1));
        let disk = Rc::clone(&rt.disk);
        let done = Completion::new(move |outcome| {
            let (acknowledged, submitted) = disk.progress.get();
            disk.progress.set((acknowledged + usize::from(outcome.is_ok()), submitted));
        });
        let _pending = store.append(group as GroupId, write, done);
    }

    /// The moment's image holds one of the states that it may.
    async fn survives(&self, rt: &Memory, moment: &Moment) -> (Memory, usize) {
        let rt = rt.with(&moment.image);
        let report = FileStore::check(&rt, DIR).await.unwrap();
        assert!(report.damage.is_none(), "{report:?}");
        assert!(rt.disk.now() == moment.image, "a check has changed something");
        let store = open(&rt).await.unwrap();
        let mut found: [State; 4] = Default::default();
        for (group, state) in (0..).zip(&mut found) {
            *state = State::of(&store, group).await;
        }
        let (acknowledged, submitted) = moment.progress;
        let at = self.states[..=submitted].iter().rposition(|states| *states == found);
        let at = at.unwrap_or_else(|| panic!("was never in this state: {found:?}"));
        assert!(at >= acknowledged, "state {at}, and {acknowledged} were acknowledged");
        let cluster = report.identity.and_then(|identity| identity.cluster);
        let joined = found[0].standing != Standing::Empty;
        assert_eq!(cluster, joined.then_some(CLUSTER), "it joins with the write that says so");
        for (group, state) in (0..).zip(&found) {
            if let Some(reported) = report.groups.get(&group) {
                assert_eq!(
                    (reported.hard_state, reported.purged),
                    (state.hard_state, state.purged)
                );
                let ends = state.entries.first().zip(state.entries.last());
                assert_eq!(reported.entries, ends.map(|(a, b)| (a.log_id, b.log_id)));
                let snapshot = reported.snapshot.as_ref().map(|found| (found.log_id, found.bytes));
                let expected = state.snapshot.as_ref().map(|meta| (meta.log_id, meta.bytes));
                assert_eq!(snapshot, expected);
            }
        }
        // Nothing is left over, and the log goes on.
        let named = found.iter().filter(|state| state.snapshot.is_some()).count();
        let files = rt.disk.now();
        let snapshots = files.keys().filter(|file| file.starts_with("/store/snapshots"));
        assert_eq!(snapshots.count(), named);
        (rt, at)
    }
}

const CLUSTER: ClusterId = ClusterId(7);

/// All that a group can be told besides its log.
fn told(term: u64) -> LogWrite {
    LogWrite {
        standing: Some(Box::new(Standing::Admitted(CLUSTER))),
        marks: Some(Box::new(Marks { committed: LogId::new(term, 1, term), ..Marks::default() })),
        ..hard_state(term, 2)
    }
}

async fn run(rt: &Memory) -> (History, Vec<Moment>) {
    let rt = rt.with(&Image::new());
    rt.disk.record_moments();
    let store = open(&rt).await.unwrap();
    let mut history = History::new();
    // Group 0 is told all but entries, and then nothing any more; group 3 has no entries.
    history.submit(&rt, &store, 0, LogWrite { cluster: Some(CLUSTER), ..told(7) });
    let mut index = 0;
    for round in 1..7u64 {
        for _ in 0..2 {
            for _ in 0..3 {
                index += 1;
                let write = entries([entry(round, index, vec![round as u8; 1900])]);
                history.submit(&rt, &store, 1, write);
                yield_now().await;
            }
            settle(&rt).await;
        }
        history.submit(&rt, &store, 3, told(round));
        // Group 2 keeps few entries, so that what it needs is soon in later segments.
        let last = history.now()[2].last();
        let two = [1, 2].map(|next| entry(round, last.index + next, "few"));
        history.submit(&rt, &store, 2, entries(two));
        match round {
            // A snapshot, and the purge later.
            1 | 4 => {
                for group in [1, 2] {
                    let at = history.now()[group].last();
                    let meta = meta(at, 70_000 + round);
                    finish(&store, group as GroupId, &meta).await.unwrap();
                    history.submit(&rt, &store, group, named(&meta, None));
                    settle(&rt).await;
                    let to = history.log_id(group, at.index - 1);
                    let purge = LogWrite {
                        purge: Some(to),
                        ..entries([entry(round, at.index + 1, "behind")])
                    };
                    history.submit(&rt, &store, group, purge);
                    index += u64::from(group == 1);
                }
            }
            // Both at once; and a draft is given up.
            2 | 5 => {
                let mut draft = store.draft(1).await.unwrap();
                draft.write(Bytes::from(vec![1; 100_000])).await.unwrap();
                for group in [1, 2] {
                    let at = history.now()[group].last();
                    let meta = meta(at, 1000 * round);
                    finish(&store, group as GroupId, &meta).await.unwrap();
                    history.submit(&rt, &store, group, named(&meta, Some(at)));
                }
                drop(draft);
            }
            // One that was received takes the place of what there is.
            _ => {
                let at = LogId::new(round, 1, index + 5);
                let meta = meta(at, round);
                finish(&store, 1, &meta).await.unwrap();
                history.submit(&rt, &store, 1, named(&meta, Some(at)));
                index += 5;
            }
        }
        settle(&rt).await;
    }
    for removed in 1..4 {
        let file = PathBuf::from(format!("/store/wal/{removed:016}.wal"));
        assert!(!rt.disk.now().contains_key(&file), "segment {removed} is still there");
    }
    drop(store);
    closed(&rt).await;
    let moments = rt.disk.take_moments();
    (history, moments)
}

/// Until everything has happened that waits for nothing.
async fn settle(rt: &Memory) {
    loop {
        let before = rt.disk.progress.get();
        for _ in 0..50 {
            yield_now().await;
        }
        let (acknowledged, submitted) = rt.disk.progress.get();
        if acknowledged == submitted && before.0 == acknowledged {
            return;
        }
    }
}

/// S8, D4.
#[test]
fn a_crash_at_any_operation_leaves_each_group_whole() {
    in_memory(async |rt| {
        let (history, moments) = run(&rt).await;
        assert!(moments.len() > 200, "{}", moments.len());
        let mut torn = 0;
        for moment in &moments {
            let (_, at) = history.survives(&rt, moment).await;
            torn += usize::from(at < moment.progress.1);
        }
        assert!(torn > 10, "{torn}");
    });
}

#[test]
fn a_crash_at_any_operation_of_an_opening_leaves_each_group_whole() {
    in_memory(async |rt| {
        let (history, moments) = run(&rt).await;
        for moment in moments.iter().step_by(7) {
            let again = rt.with(&moment.image);
            again.disk.record_moments();
            drop(open(&again).await.unwrap());
            closed(&again).await;
            for second in again.disk.take_moments() {
                let second = Moment { progress: moment.progress, ..second };
                history.survives(&rt, &second).await;
            }
        }
    });
}

#[test]
fn what_survived_a_crash_is_compacted_further() {
    in_memory(async |rt| {
        let (history, moments) = run(&rt).await;
        for moment in moments.iter().step_by(5) {
            let (rt, at) = history.survives(&rt, moment).await;
            let rt = rt.with(&closed(&rt).await);
            let mut history = History { states: vec![history.states[at].clone()] };
            let store = open(&rt).await.unwrap();
            let last = history.now()[1].last().index;
            for index in last + 1..last + 30 {
                history.submit(&rt, &store, 1, entries([entry(9, index, vec![9; 1900])]));
                yield_now().await;
            }
            for group in [1, 2] {
                let at = history.now()[group].last();
                if at.index == 0 {
                    continue;
                }
                let meta = meta(at, 5);
                finish(&store, group as GroupId, &meta).await.unwrap();
                history.submit(&rt, &store, group, named(&meta, Some(at)));
            }
            settle(&rt).await;
            drop(store);
            let image = closed(&rt).await;
            assert!(images_of_segments(&image) <= 3, "one in use, the next, and the one before");
            let all = history.states.len() - 1;
            history.survives(&rt, &Moment { progress: (all, all), image }).await;
        }
    });
}

/// The begin that follows on a purge may get into the next segment, and so into a later write.
#[test]
fn what_a_purge_left_goes_with_the_next_opening_if_its_begin_was_lost() {
    in_memory(async |rt| {
        let recorded = rt.with(&Image::new());
        recorded.disk.record_moments();
        let store = open(&recorded).await.unwrap();
        for index in 1..40 {
            put(&store, 1, entries([entry(1, index, vec![1; 1900])])).await;
        }
        let at = LogId::new(1, 1, 39);
        let meta = meta(at, 1000);
        finish(&store, 1, &meta).await.unwrap();
        put(&store, 1, named(&meta, Some(at))).await;
        drop(store);
        closed(&recorded).await;
        let mut lost = 0;
        for Moment { mut image, .. } in recorded.disk.take_moments() {
            let Some(last) = places(&image).into_iter().rfind(|place| !place.sync_marker) else {
                continue;
            };
            image.get_mut(&last.file).unwrap()[last.begin..].fill(0);
            let rt = rt.with(&image);
            let Ok(store) = open(&rt).await else { continue };
            if recovered(&store, 1).await.log_meta.purged() != at {
                continue;
            }
            lost += usize::from(images_of_segments(&image) > 3);
            settle(&rt).await;
            drop(store);
            let left = images_of_segments(&closed(&rt).await);
            assert!(left <= 3, "{left} segments: one in use, the next, and the one before");
        }
        assert!(lost > 0, "no begin was lost");
    });
}

/// Nobody purges there: each start writes its owner, and no entry comes.
#[test]
fn a_log_without_entries_does_not_grow_with_the_starts() {
    in_memory(async |rt| {
        for _ in 0..400 {
            let store = open(&rt).await.unwrap();
            store.identify(1).await.unwrap();
            drop(store);
            closed(&rt).await;
        }
        let left = images_of_segments(&rt.disk.now());
        assert!(left <= 3, "{left} segments: one in use, the next, and the one before");
    });
}

fn images_of_segments(image: &Image) -> usize {
    let is_segment = |file: &&PathBuf| file.extension().is_some_and(|is| is == "wal");
    image.keys().filter(is_segment).count()
}
