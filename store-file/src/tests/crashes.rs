//! Every fault of a kind: a log cut at every byte, with every bit flipped, with any of its unsynced
//! sectors missing. After each, an opening finds every acknowledged write, and of the others the
//! first few, in order; or it names what is damaged.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::images::*;
use super::*;

/// A log of one group, in the moment of a crash: a batch has been written and not synced yet.
struct Crash {
    rt: Memory,
    /// What was submitted.
    written: Vec<Entry>,
    /// How much of it was acknowledged.
    acknowledged: usize,
    /// What the disk has for sure.
    synced: Image,
    /// What it has if everything got there.
    now: Image,
}

impl Crash {
    /// Writes the acknowledged entries one by one, then the others as one batch. The sizes are
    /// those of the entries' commands.
    async fn make(rt: &Memory, acknowledged: &[usize], batch: &[usize], sync_marker: bool) -> Self {
        let written: Vec<_> = (acknowledged.iter().chain(batch).zip(1..))
            .map(|(size, index)| entry(1, index, vec![0x40 + index as u8; *size]))
            .collect();
        let mut rt = rt.with(&Image::new());
        let mut store = open(&rt).await.unwrap();
        let (first, others) = written.split_at(acknowledged.len());
        for entry in first {
            put(&store, 1, entries([entry.clone()])).await;
        }
        if sync_marker {
            drop(store);
            rt = rt.with(&closed(&rt).await);
            store = open(&rt).await.unwrap();
        }
        // The next segment is made in the background.
        while !ends_with_an_empty_segment(&rt.disk.now()) {
            yield_now().await;
        }
        rt.disk.faults.hold_syncs.close();
        for entry in others {
            drop(submit(&store, 1, entries([entry.clone()])));
        }
        let (mut synced, mut now) = (rt.disk.synced(), rt.disk.now());
        while !others.is_empty() && differences(&synced, &now).is_empty() {
            yield_now().await;
            (synced, now) = (rt.disk.synced(), rt.disk.now());
        }
        Self { rt, acknowledged: first.len(), written, synced, now }
    }

    /// Cases which differ in where the batch stands.
    async fn all(rt: &Memory) -> Vec<Self> {
        let mut crashes = Vec::new();
        let batch = [10, 700, 0, 300, 900];
        for sync_marker in [false, true] {
            for acknowledged in [&[][..], &[0], &[40, 1000], &[40, 12_040], &[40, 20_000, 7]] {
                crashes.push(Self::make(rt, acknowledged, &batch, sync_marker).await);
            }
        }
        crashes
    }

    /// Opens a disk with this content: what it finds must be right, and is how many entries.
    async fn survives(&self, image: &Image, what: &str) -> (Memory, usize) {
        let rt = self.rt.with(image);
        let report = FileStore::check(&rt, DIR).await.unwrap();
        assert!(rt.disk.now() == *image, "{what}: a check has changed something");
        let store = open(&rt).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = all(&store, 1).await;
        let reported = report.groups.get(&1).and_then(|group| group.entries);
        assert!(report.damage.is_none() && report.end.is_some(), "{what}: {report:?}");
        let ends = found.first().zip(found.last()).map(|(first, last)| (first.log_id, last.log_id));
        assert_eq!(reported, ends, "{what}");
        assert!(found.len() >= self.acknowledged, "{what}: an acknowledged write is lost");
        assert_eq!(found, self.written[..found.len()], "{what}");
        (rt, found.len())
    }

    /// Opens a disk with this content: it must be found damaged there.
    async fn damaged(&self, image: &Image, file: &PathBuf, at: usize, what: &str) {
        let disk = self.rt.with(image);
        match open(&disk).await {
            Err(StoreError::Damaged { file: found, offset, .. }) => {
                assert_eq!((&found, offset), (file, at as u64), "{what}");
            }
            Err(error) => panic!("{what}: {error}"),
            Ok(_) => panic!("{what}: went unnoticed"),
        }
        let report = FileStore::check(&disk, DIR).await.unwrap();
        let damage = report.damage.unwrap_or_else(|| panic!("{what}: unnoticed by a check"));
        assert!(matches!(damage, StoreError::Damaged { offset, .. } if offset == at as u64));
        assert!(disk.disk.now() == *image, "{what}: something was changed");
    }
}

#[test]
fn any_unsynced_sectors_may_be_missing() {
    in_memory(async |rt| {
        let mut cut = 0;
        for crash in Crash::all(&rt).await {
            let sectors = differences(&crash.synced, &crash.now);
            assert!((5..9).contains(&sectors.len()), "{sectors:?}");
            for mask in 0..1 << sectors.len() {
                let missing = subset(&sectors, mask);
                let image = without(&crash.synced, &crash.now, &missing);
                let what = format!("{} acknowledged, without {missing:?}", crash.acknowledged);
                let (rt, found) = crash.survives(&image, &what).await;
                assert!(mask > 0 || found == crash.written.len(), "{what}: {found} found");
                cut += usize::from(found < crash.written.len());
                // What goes on from there is never mixed with what was cut: the new record has the
                // size of the batch's first.
                let mut expected = crash.written[..found].to_vec();
                expected.push(entry(2, found as Index + 1, vec![0xEE; 10]));
                let rt = rt.with(&closed(&rt).await);
                let store = open(&rt).await.unwrap();
                put(&store, 1, entries(expected[found..].to_vec())).await;
                // Another crash, before there is a sync marker.
                let store = open(&rt.with(&rt.disk.synced())).await.unwrap();
                assert_eq!(all(&store, 1).await, expected, "{what}");
            }
        }
        assert!(cut > 100, "{cut}");
    });
}

#[test]
fn a_crash_in_a_recovery_loses_nothing_either() {
    in_memory(async |rt| {
        for crash in Crash::all(&rt).await {
            let sectors = differences(&crash.synced, &crash.now);
            for mask in (0..1 << sectors.len()).step_by(3) {
                let missing = subset(&sectors, mask);
                let image = without(&crash.synced, &crash.now, &missing);
                let rt = crash.rt.with(&image);
                rt.disk.faults.hold_syncs.close();
                let mut opening = pin!(open(&rt));
                let waits =
                    poll_fn(|context| Poll::Ready(opening.as_mut().poll(context).is_pending()));
                assert!(
                    waits.await && rt.disk.faults.hold_syncs.waiting() == 1,
                    "nothing else can be waited for"
                );
                let (old, new) = (rt.disk.synced(), rt.disk.now());
                let sectors = differences(&old, &new);
                for at in 0..=sectors.len() {
                    for mask in [(1 << at) - 1, !((1 << at) - 1)] {
                        let missing_now = subset(&sectors, mask);
                        let image = without(&old, &new, &missing_now);
                        let what = format!("without {missing:?}, then {missing_now:?}");
                        crash.survives(&image, &what).await;
                    }
                }
            }
        }
    });
}

#[test]
fn a_log_is_cut_at_every_byte() {
    in_memory(async |rt| {
        for (acknowledged, sync_marker) in
            [(&[][..], false), (&[5, 60], false), (&[5, 60], true), (&[60, 12_040], true)]
        {
            let crash = Crash::make(&rt, acknowledged, &[9, 0, 30], sync_marker).await;
            let places = places(&crash.now);
            assert_eq!(
                places.len(),
                crash.written.len() + usize::from(acknowledged == [60, 12_040])
            );
            let file = &places.last().unwrap().file;
            let batch = &places[places.len() - 3..];
            for at in batch[0].begin..=batch[2].end {
                for kind in [1, 2] {
                    let mut image = crash.now.clone();
                    let content = image.get_mut(file).unwrap();
                    match kind {
                        1 => content[at..].fill(0),
                        _ => content[at..batch[2].end].fill(0xAA),
                    }
                    let what = format!("cut at {at} in way {kind}");
                    let (_, found) = crash.survives(&image, &what).await;
                    // Filled up with zeros, a record may lack what fills it up.
                    let needed = |place: &&Place| {
                        if kind == 1 { place.begin + place.used } else { place.end }
                    };
                    let whole = batch.iter().filter(|place| needed(place) <= at).count();
                    // Or more, where what was cut off was zeros.
                    assert!(found >= crash.acknowledged + whole, "{what}: {found} found");
                    let begun = batch.iter().filter(|place| place.begin < at).count();
                    assert!(found <= crash.acknowledged + begun, "{what}: {found} found");
                }
            }
        }
    });
}

#[test]
fn a_cut_before_what_follows_is_damage() {
    in_memory(async |rt| {
        // The second entry ends the first segment.
        let crash = Crash::make(&rt, &[60, 12_040, 60], &[], true).await;
        let places = places(&crash.now);
        let [first, second, third, sync_marker] = &places[..] else { panic!("{places:?}") };
        assert!(sync_marker.sync_marker && third.file != first.file);
        let ends = (first.begin..first.end).chain(second.begin..second.begin + 100);
        for at in ends.chain(second.begin + second.used - 100..second.begin + second.used) {
            let mut image = crash.now.clone();
            image.get_mut(&first.file).unwrap()[at..].fill(0);
            let place = if at < first.end { first } else { second };
            if at >= place.begin + place.used {
                continue; // Only what fills it up is lost, and the next one begins there.
            }
            crash.damaged(&image, &place.file, place.begin, &format!("cut at {at}")).await;
        }
    });
}

/// D7. No crash shortens a file; whatever does may have taken acknowledged writes with it.
#[test]
fn a_segment_that_is_shorter_than_it_was_made_is_damage_wherever_it_ends() {
    in_memory(async |rt| {
        // The last segment is full of acknowledged writes, holds a large one alone, or is still
        // empty; with a sync marker or without.
        for (acknowledged, batch, sync_marker) in
            [(&[40, 900, 0][..], &[][..], false), (&[40, 20_000], &[9, 700], true)]
        {
            let crash = Crash::make(&rt, acknowledged, batch, sync_marker).await;
            let places = places(&crash.now);
            for (file, whole) in segments(&crash.now) {
                let bytes = segment_header(whole, number(file)).bytes as usize;
                assert!((SMALL.segment_bytes as usize..=whole.len()).contains(&bytes));
                let begins = places.iter().filter(|place| place.file == *file);
                let begins = begins.flat_map(|place| [place.begin - 1, place.begin, place.end]);
                let edges = begins.chain([0, 1, 27, 4095, 4096, 4097, bytes - 1]);
                for at in (0..bytes).step_by(17).chain(edges.filter(|at| *at < bytes)) {
                    let mut image = crash.now.clone();
                    image.get_mut(file).unwrap().truncate(at);
                    let what = format!("{} cut at {at}", file.display());
                    crash.damaged(&image, file, at, &what).await;
                }
                // All that it was made with is there: a sync marker may stand behind that, and be
                // lost.
                let mut image = crash.now.clone();
                image.get_mut(file).unwrap().truncate(bytes);
                crash.survives(&image, "cut behind its length").await;
            }
        }
    });
}

/// What is read while a store is open is not there any more: no check of its length comes before
/// that.
#[test]
fn an_entry_that_is_cut_off_an_open_store_is_damage() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries([entry(1, 1, vec![1; 3000]), entry(1, 2, vec![2; 3000])])).await;
        let at = HEADER_BYTES + 4000;
        scene.set_content(1, &scene.content(1)[..at as usize]);
        assert_eq!(store.read(1, 1..2, 1).await.unwrap(), [entry(1, 1, vec![1; 3000])]);
        match store.read(1, 2..3, 1).await {
            Err(StoreError::Damaged { file, offset, .. }) => {
                assert_eq!((file, offset), (scene.segment(1), at));
            }
            read => panic!("{read:?}"),
        }
    });
}

#[test]
fn every_flipped_bit_is_noticed_or_means_nothing() {
    in_memory(async |rt| {
        // Closed, with a sync marker; or crashed with a batch behind what was acknowledged. Where
        // it goes over two segments, each recovery takes long, and the bits after the first of a
        // body are left to the others.
        let cases: [(&[usize], &[usize], usize); 3] =
            [(&[30, 12_040, 7], &[], 44), (&[0, 33], &[], 200), (&[60], &[30, 3], 200)];
        for (acknowledged, batch, most) in cases {
            let crash = Crash::make(&rt, acknowledged, batch, batch.is_empty()).await;
            let places = places(&crash.now);
            let sync_markers = places.iter().filter(|place| place.sync_marker).count();
            assert_eq!(places.len(), crash.written.len() + sync_markers);
            assert!(batch.is_empty() == (sync_markers > 0));
            let mut number = 0;
            for place in &places {
                number += usize::from(!place.sync_marker);
                for at in place.begin..place.end.min(place.begin + most) {
                    for bit in 0..8 {
                        let mut image = crash.now.clone();
                        image.get_mut(&place.file).unwrap()[at] ^= 1 << bit;
                        let what = format!("bit {bit} of {at} in record {number}");
                        let meant = !place.sync_marker && at < place.begin + place.used;
                        if meant && number <= crash.acknowledged {
                            crash.damaged(&image, &place.file, place.begin, &what).await;
                        } else {
                            let (_, found) = crash.survives(&image, &what).await;
                            let expected = if meant { number - 1 } else { crash.written.len() };
                            assert_eq!(found, expected, "{what}");
                        }
                    }
                }
            }
        }
    });
}
