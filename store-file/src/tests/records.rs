//! The records by which a log is compacted: cut at every byte, with any of their unsynced sectors
//! missing, with every bit flipped.

use quorate_core::{Marks, Standing};

use super::images::*;
use super::state::*;
use super::*;

/// What group 2 is told.
fn told() -> LogWrite {
    LogWrite {
        cluster: Some(ClusterId(7)),
        standing: Some(Box::new(Standing::Admitted(ClusterId(7)))),
        marks: Some(Box::new(Marks { committed: LogId::new(4, 1, 6), ..Marks::default() })),
        ..hard_state(5, 3)
    }
}

/// A crash after a write has purged most of the log, and made its first segment useless, and before
/// that is durable. Group 2 has all that it is told only there, and so has the store what it knows
/// of itself.
struct Crash {
    rt: Memory,
    /// Of group 1: before and after.
    states: [State; 2],
    synced: Image,
    now: Image,
}

impl Crash {
    async fn make(rt: &Memory, received: bool) -> Self {
        let rt = rt.with(&Image::new());
        let store = open(&rt).await.unwrap();
        store.identify(1).await.unwrap();
        put(&store, 2, told()).await;
        let mut before = State::default();
        for index in 1..9 {
            let write = entries([entry(1, index, vec![1; 1900])]);
            before.apply(&write);
            put(&store, 1, write).await;
        }
        let at = if received { LogId::new(2, 1, 30) } else { LogId::new(1, 1, 8) };
        let meta = meta(at, 70_000);
        finish(&store, 1, &meta).await.unwrap();
        let write = LogWrite {
            hard_state: Some(HardState { term: Term(2), voted_for: Some(Replica::new(1, 7)) }),
            entries: vec![entry(2, at.index + 1, "behind")].into(),
            ..named(&meta, Some(at))
        };
        let mut after = before.clone();
        after.apply(&write);
        assert_eq!(write.entries, after.entries);
        while !ends_with_an_empty_segment(&rt.disk.now()) {
            yield_now().await;
        }
        rt.disk.faults.hold_syncs.close();
        drop(submit(&store, 1, write));
        let (synced, mut now) = (rt.disk.synced(), rt.disk.now());
        while differences(&synced, &now).is_empty() {
            yield_now().await;
            now = rt.disk.now();
        }
        // Nothing is removed before that is durable.
        for _ in 0..50 {
            yield_now().await;
        }
        let first = PathBuf::from("/store/wal/0000000000000001.wal");
        assert!(rt.disk.now().contains_key(&first), "removed before its time");
        Self { rt, states: [before, after], synced, now }
    }

    /// The records of the batch: the purge, once more whose store it is and what the other group
    /// was told, the begin.
    fn batch(&self) -> Vec<Place> {
        let mut places = places(&self.now);
        assert!(places.iter().all(|place| !place.sync_marker));
        places.split_off(places.len() - 4)
    }

    /// Whether the new state is found, and not the old one.
    async fn survives(&self, image: &Image, what: &str) -> bool {
        let rt = self.rt.with(image);
        let store = open(&rt).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = State::of(&store, 1).await;
        let at = self.states.iter().position(|state| *state == found);
        let mut other = State::default();
        other.apply(&told());
        assert_eq!(State::of(&store, 2).await, other, "{what}");
        let identity = store.identify(1).await.unwrap();
        assert_eq!((identity.boot, identity.cluster), (2, told().cluster), "{what}");
        at.unwrap_or_else(|| panic!("{what}: {found:?}")) == 1
    }
}

#[test]
fn a_log_is_cut_at_every_byte_of_a_purge() {
    in_memory(async |rt| {
        for received in [false, true] {
            let crash = Crash::make(&rt, received).await;
            let batch = crash.batch();
            let [purge, _, _, begin] = &batch[..] else { panic!("{batch:?}") };
            for at in purge.begin..=begin.end {
                for kind in [1, 2] {
                    let mut image = crash.now.clone();
                    let content = image.get_mut(&begin.file).unwrap();
                    match kind {
                        1 => content[at..].fill(0),
                        _ => content[at..begin.end].fill(0xAA),
                    }
                    let what = format!("cut at {at} in way {kind}");
                    let new = crash.survives(&image, &what).await;
                    // Filled up with zeros, it may lack what fills it up, or what was zeros.
                    assert!(new || at < purge.end, "{what}");
                    assert!(!new || at > purge.begin + 100, "{what}");
                }
            }
        }
    });
}

#[test]
fn any_sectors_of_a_purge_may_be_missing() {
    in_memory(async |rt| {
        for received in [false, true] {
            let crash = Crash::make(&rt, received).await;
            let sectors = differences(&crash.synced, &crash.now);
            let purge = &crash.batch()[0];
            assert!(sectors.len() > 1, "{sectors:?}");
            for mask in 0..1 << sectors.len() {
                let missing = subset(&sectors, mask);
                let image = without(&crash.synced, &crash.now, &missing);
                let new = crash.survives(&image, &format!("without {missing:?}")).await;
                let of_purge = |at: usize| at < purge.begin + purge.used;
                assert_eq!(new, !missing.iter().any(|(_, at)| of_purge(*at)), "{missing:?}");
            }
        }
    });
}

#[test]
fn every_bit_flipped_in_a_purge_is_noticed() {
    in_memory(async |rt| {
        let crash = Crash::make(&rt, false).await;
        let batch = crash.batch();
        // All of it got to the disk; the next one to open it writes a sync marker, and removes the
        // first segment.
        let rt = crash.rt.with(&crash.now);
        let store = open(&rt).await.unwrap();
        assert_eq!(State::of(&store, 1).await, crash.states[1]);
        drop(store);
        let image = closed(&rt).await;
        let kept = places(&image);
        assert!(!kept[0].file.ends_with("0000000000000001.wal"));
        assert!(kept.last().unwrap().sync_marker);
        let mut noticed = 0;
        for place in [&kept[0]].into_iter().chain(&batch) {
            for at in place.begin..place.begin + place.used.min(400) {
                for bit in 0..8 {
                    let mut image = image.clone();
                    image.get_mut(&place.file).unwrap()[at] ^= 1 << bit;
                    match open(&rt.with(&image)).await {
                        Err(StoreError::Damaged { file, offset, .. }) => {
                            assert_eq!((&file, offset), (&place.file, place.begin as u64));
                            noticed += 1;
                        }
                        opened => panic!("bit {bit} of {at}: {:?}", opened.err()),
                    }
                }
            }
        }
        assert!(noticed > 4000, "{noticed}");
    });
}

#[test]
fn a_missing_segment_is_noticed_and_one_before_the_begin_is_not() {
    in_memory(async |rt| {
        let crash = Crash::make(&rt, false).await;
        // The segments before the begin, some of them removed in any order.
        let first = PathBuf::from("/store/wal/0000000000000001.wal");
        let mut image = crash.now.clone();
        assert!(image.remove(&first).is_some());
        assert!(crash.survives(&image, "the first segment is not needed").await);
        // As long as the begin is not told, it is.
        let begin = &crash.batch()[3];
        image.get_mut(&begin.file).unwrap()[begin.begin..].fill(0);
        let damaged = |opened: Result<_, StoreError>| match opened {
            Err(StoreError::Damaged { file, offset: 0, reason }) => (file, String::from(reason)),
            Err(error) => panic!("{error}"),
            Ok(FileStore { .. }) => panic!("went unnoticed"),
        };
        let missing = "the file is missing".to_owned();
        assert_eq!(damaged(open(&crash.rt.with(&image)).await), (first, missing.clone()));
        // The first one that is needed.
        let mut image = crash.now.clone();
        assert!(image.remove(&begin.file).is_some());
        let opened = open(&crash.rt.with(&image)).await;
        assert_eq!(damaged(opened), (begin.file.clone(), missing));
        // All of them, while there is a snapshot.
        let mut image = crash.now.clone();
        image.retain(|file, _| !file.starts_with("/store/wal"));
        let (file, reason) = damaged(open(&crash.rt.with(&image)).await);
        assert!(file.ends_with("0000000000000001.wal") && reason.contains("snapshot"), "{reason}");
    });
}
