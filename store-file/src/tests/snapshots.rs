//! Snapshots: what the store keeps of them, what it refuses, and what a disk that fails or is full
//! does to them, and to nothing else.

use std::io;

use quorate_core::SnapshotMeta;

use super::images::{DIR, closed, in_memory, open};
use super::state::*;
use super::*;
use crate::snapshots::{BLOCK_BYTES, place};

impl Scene {
    /// The files of snapshots.
    pub(super) fn files(&self) -> Vec<String> {
        let image = self.disk().now();
        let files = image.keys().filter(|path| path.starts_with(self.dir.join("snapshots")));
        files.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }
}

/// Ten entries, the last four in another segment than the first six.
async fn put_ten<R: Files>(store: &FileStore<R>, group: GroupId) {
    for entry in ten() {
        put(store, group, entries([entry])).await;
    }
}

fn ten() -> Vec<Entry> {
    (1..11).map(|index| entry(1, index, vec![1; 1900])).collect()
}

fn at(index: Index) -> LogId {
    LogId::new(1, 1, index)
}

#[test]
fn what_is_finished_is_read_and_what_is_named_is_kept() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        let block = BLOCK_BYTES;
        let metas: Vec<_> = [0, 1, block - 1, block, block + 1, 3 * block]
            .into_iter()
            .zip(1..)
            .map(|(bytes, index)| meta(at(index), bytes))
            .collect();
        for meta in &metas {
            finish(&store, 1, meta).await.unwrap();
            let whole = content(meta.log_id, meta.bytes);
            let opened = store.snapshot(1, meta).await.unwrap();
            for offset in [0, 1, 7, block - 1, block, 2 * block + 1, u64::MAX] {
                for len in [0, 1, 100, BLOCK_BYTES as usize, BLOCK_BYTES as usize + 1, usize::MAX] {
                    let begin = offset.min(meta.bytes) as usize;
                    let end = begin.saturating_add(len).min(whole.len());
                    let read = opened.read(offset, len).await.unwrap();
                    assert!(read == whole[begin..end], "{len} at {offset} of {}", meta.bytes);
                }
            }
        }
        put(&store, 1, named(&metas[2], None)).await;
        scene.until(|| scene.files().len() == 4).await;
        for (meta, index) in metas.iter().zip(0..) {
            let opened = store.snapshot(1, meta).await;
            assert_eq!(opened.is_ok(), index >= 2, "{index}");
            assert!(store.snapshot(2, meta).await.is_err(), "it is of another group");
        }
        drop(store.draft(1).await.unwrap());
        // It was the seventh, and is removed in the background: what a crash leaves of another is
        // written when its name is free.
        scene.until(|| scene.files().len() == 4).await;
        drop(store);
        scene.disk().put(scene.dir.join("snapshots/7.tmp"), "half");
        scene.disk().put(scene.dir.join("snapshots/notes.txt"), "a stranger's");
        scene.closed().await;
        let report = FileStore::check(&scene.rt, &scene.dir).await.unwrap();
        assert!(report.damage.is_none() && report.leftovers.len() == 4, "{report:?}");
        let store = scene.open().await;
        assert_eq!(scene.files().len(), 2, "{:?}", scene.files());
        assert_eq!(State::of(&store, 1).await.snapshot.as_ref(), Some(&metas[2]));
    });
}

#[test]
fn an_open_snapshot_stays_readable_when_another_takes_its_place() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        let (old, new) = (meta(at(4), 200_000), meta(at(9), 10));
        finish(&store, 1, &old).await.unwrap();
        put(&store, 1, named(&old, Some(at(4)))).await;
        let opened = store.snapshot(1, &old).await.unwrap();
        finish(&store, 1, &new).await.unwrap();
        // Not before the new one is named durably.
        scene.faults().hold_syncs.close();
        let naming = submit(&store, 1, named(&new, Some(at(9))));
        scene.until(|| scene.faults().hold_syncs.waiting() == 1).await;
        assert_eq!(scene.files().len(), 2);
        scene.faults().hold_syncs.open();
        naming.await.unwrap().unwrap();
        scene.until(|| scene.files().len() == 1).await;
        assert!(opened.read(0, usize::MAX).await.unwrap() == content(at(4), 200_000));
        assert!(matches!(store.snapshot(1, &old).await, Err(StoreError::Missing(4))));
    });
}

#[test]
#[should_panic(expected = "the snapshot at 1.1-3 is not finished")]
fn naming_what_is_not_finished_is_a_bug_of_the_caller() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        submit(&store, 1, named(&meta(at(3), 3), None)).await.unwrap().unwrap();
    });
}

#[test]
#[should_panic(expected = "1.1-4 is purged, and the snapshot ends at 3")]
fn purging_what_no_snapshot_covers_is_a_bug_of_the_caller() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        let meta = meta(at(3), 3);
        finish(&store, 1, &meta).await.unwrap();
        submit(&store, 1, named(&meta, Some(at(4)))).await.unwrap().unwrap();
    });
}

#[test]
fn a_read_that_a_purge_overtakes_names_what_is_missing() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        let meta = meta(at(9), 3);
        finish(&store, 1, &meta).await.unwrap();
        scene.faults().hold_reads.close();
        let reader = store.clone();
        let read = scene.rt.spawn(async move { reader.read(1, 2..11, usize::MAX).await });
        scene.until(|| scene.faults().hold_reads.waiting() == 1).await;
        put(&store, 1, named(&meta, Some(at(9)))).await;
        scene.until(|| !scene.has(1)).await;
        scene.faults().hold_reads.open();
        assert!(matches!(read.await.unwrap(), Err(StoreError::Missing(2))));
        assert_eq!(store.read(1, 10..11, 1).await.unwrap(), ten()[9..]);
    });
}

#[test]
fn what_cannot_be_removed_is_removed_the_next_time() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        let (old, new) = (meta(at(9), 3), meta(at(10), 3));
        finish(&store, 1, &old).await.unwrap();
        scene.faults().fail_remove.set(true);
        drop(store.draft(1).await.unwrap());
        put(&store, 1, named(&old, Some(at(9)))).await;
        put(&store, 1, entries([entry(1, 11, "the log goes on")])).await;
        // The draft comes before it.
        scene.until(|| scene.faults().removes.borrow().contains(&scene.segment(1))).await;
        assert!(scene.has(1));
        scene.faults().fail_remove.set(false);
        finish(&store, 1, &new).await.unwrap();
        put(&store, 1, named(&new, None)).await;
        scene.until(|| !scene.has(1) && scene.files().len() == 1).await;
    });
}

/// … or by itself after a while, where nothing else happens.
#[test]
fn what_cannot_be_removed_is_tried_again() {
    scene(async |scene| {
        let store = scene.open().await;
        let draft = store.draft(1).await.unwrap();
        scene.faults().fail_remove.set(true);
        drop(draft);
        let drafts = || {
            let files = scene.disk().now();
            files.keys().filter(|path| path.extension().is_some_and(|end| end == "tmp")).count()
        };
        scene.until(|| !scene.faults().removes.borrow().is_empty()).await;
        assert_eq!(drafts(), 1);
        scene.faults().fail_remove.set(false);
        scene.until(|| drafts() == 0).await;
    });
}

/// Nothing but the snapshot has failed: the log goes on, and with more space so does the next
/// snapshot.
async fn goes_on(scene: &Scene, store: Store, repair: impl FnOnce(&Faults)) {
    put(&store, 1, entries([entry(1, 11, "the log goes on")])).await;
    repair(scene.faults());
    let meta = meta(at(10), 100_000);
    finish(&store, 1, &meta).await.unwrap();
    put(&store, 1, named(&meta, Some(at(10)))).await;
    drop(store);
    let state = State::of(&scene.open().await, 1).await;
    assert_eq!((state.last(), state.snapshot), (at(11), Some(meta)));
    assert_eq!(scene.files().len(), 1);
}

/// D5.
#[test]
fn a_full_disk_fails_a_snapshot_and_not_the_log() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        scene.made(3).await;
        let mut draft = store.draft(1).await.unwrap();
        draft.write(Bytes::from(vec![1; 100_000])).await.unwrap();
        scene.faults().full.set(true);
        let is_full = |error: StoreError| {
            let StoreError::Io { source, .. } = &error else { panic!("{error}") };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        };
        is_full(draft.write(Bytes::from(vec![1; 100_000])).await.unwrap_err());
        // What was written in part is not written on, even if there were space again.
        let writes = scene.faults().writes.get();
        is_full(draft.write(Bytes::from_static(b"x")).await.unwrap_err());
        is_full(draft.finish(&meta(at(10), 100_000)).await.unwrap_err());
        assert_eq!(scene.faults().writes.get(), writes);
        scene.until(|| scene.files().is_empty()).await;
        goes_on(&scene, store, |faults| faults.full.set(false)).await;
    });
}

#[test]
fn a_full_disk_fails_the_end_of_a_snapshot_and_not_the_log() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        scene.made(3).await;
        let meta = meta(at(10), 100_000);
        let mut draft = store.draft(1).await.unwrap();
        draft.write(content(meta.log_id, meta.bytes)).await.unwrap();
        scene.faults().full.set(true);
        assert!(matches!(draft.finish(&meta).await, Err(StoreError::Io { .. })));
        scene.until(|| scene.files().is_empty()).await;
        assert!(matches!(store.snapshot(1, &meta).await, Err(StoreError::Missing(10))));
        goes_on(&scene, store, |faults| faults.full.set(false)).await;
    });
}

/// D3.
#[test]
fn a_failed_sync_discards_a_snapshot_and_is_never_tried_again() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        scene.made(3).await;
        let faults = scene.faults();
        faults.fail_sync.set(true);
        // At its end, and in between.
        let meta = meta(at(10), 100_000);
        assert!(matches!(finish(&store, 1, &meta).await, Err(StoreError::Io { .. })));
        let mut draft = store.draft(1).await.unwrap();
        let mut written = Ok(());
        while written.is_ok() {
            written = draft.write(Bytes::from(vec![1; 1 << 20])).await;
        }
        faults.fail_sync.set(false);
        let syncs = faults.syncs.get();
        assert!(draft.write(Bytes::from_static(b"x")).await.is_err());
        assert!(draft.finish(&meta).await.is_err());
        assert_eq!(faults.syncs.get(), syncs);
        goes_on(&scene, store, |_| ()).await;
    });
}

#[test]
fn a_store_that_has_failed_or_is_closed_takes_no_snapshot() {
    scene(async |scene| {
        let store = scene.open().await;
        put_ten(&store, 1).await;
        let mut draft = store.draft(1).await.unwrap();
        drop(store);
        assert!(matches!(draft.write("x".into()).await, Err(StoreError::Abandoned)));
        assert!(matches!(draft.finish(&meta(at(1), 0)).await, Err(StoreError::Abandoned)));
        let store = scene.open().await;
        scene.faults().fail_sync.set(true);
        submit(&store, 1, hard_state(1, 1)).await.unwrap().unwrap_err();
        scene.faults().fail_sync.set(false);
        assert!(matches!(store.draft(1).await, Err(StoreError::Poisoned(_))));
    });
}

#[test]
fn space_that_comes_in_time_saves_the_log() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.made(2).await;
        scene.faults().full.set(true);
        // Into the second segment; the third can't be made yet.
        for index in 1..10 {
            put(&store, 1, entries([entry(1, index, vec![1; 1900])])).await;
        }
        scene.until(|| !scene.disk().has(scene.dir.join("wal/next.tmp"))).await;
        assert!(!scene.has(3));
        scene.faults().full.set(false);
        for index in 10..30 {
            put(&store, 1, entries([entry(1, index, vec![1; 1900])])).await;
        }
        drop(store);
        assert_eq!(last(&scene.open().await, 1).await, 29);
    });
}

/// A store with a snapshot of two blocks in group 1 and another in group 2, closed.
async fn with_snapshots(rt: &Memory) -> (Image, [SnapshotMeta; 2]) {
    let rt = rt.with(&Image::new());
    let store = open(&rt).await.unwrap();
    let metas = [meta(at(10), 70_000), meta(at(9), 70_000)];
    for (group, meta) in (1..).zip(&metas) {
        put_ten(&store, group).await;
        finish(&store, group, meta).await.unwrap();
        put(&store, group, named(meta, Some(meta.log_id))).await;
    }
    for _ in 0..20 {
        yield_now().await;
    }
    drop(store);
    (closed(&rt).await, metas)
}

fn file(image: &Image, group: GroupId) -> PathBuf {
    let of_group = PathBuf::from(DIR).join(format!("snapshots/{group}-"));
    let found =
        image.keys().find(|file| file.to_str().unwrap().starts_with(of_group.to_str().unwrap()));
    found.unwrap().clone()
}

async fn refusal(rt: &Memory, image: &Image) -> (PathBuf, u64, String) {
    let rt = rt.with(image);
    let report = FileStore::check(&rt, DIR).await.unwrap();
    let damage = report.damage.expect("unnoticed by a check");
    match open(&rt).await {
        Err(StoreError::Damaged { file, offset, reason }) => {
            assert!(rt.disk.now() == *image, "something was changed");
            let refused =
                StoreError::Damaged { file: file.clone(), offset, reason: reason.clone() };
            assert_eq!(damage.to_string(), refused.to_string());
            (file, offset, reason.into())
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the damage went unnoticed"),
    }
}

#[test]
fn a_snapshot_that_is_missing_or_not_the_right_one_is_refused() {
    in_memory(async |rt| {
        let (image, _) = with_snapshots(&rt).await;
        let (ours, other) = (file(&image, 1), file(&image, 2));
        let whole = image[&ours].clone();
        let with = |content: Vec<u8>| {
            let mut image = image.clone();
            image.insert(ours.clone(), content);
            image
        };
        let mut missing = image.clone();
        missing.remove(&ours);
        let (file, _, reason) = refusal(&rt, &missing).await;
        assert_eq!((&file, &reason[..]), (&ours, "the file is missing"));

        let len = whole.len() as u64;
        let (_, offset, _) = refusal(&rt, &with(whole[..whole.len() - 1].to_vec())).await;
        assert_eq!(offset, len - 1);
        let (_, offset, _) = refusal(&rt, &with([&whole[..], &[0]].concat())).await;
        assert_eq!(offset, len);
        for at in (0..whole.len()).step_by(499) {
            let (file, offset, _) = refusal(&rt, &with(whole[..at].to_vec())).await;
            assert_eq!((file, offset), (ours.clone(), at as u64));
        }

        let (_, _, reason) = refusal(&rt, &with(image[&other].clone())).await;
        assert_eq!(reason, "the snapshot of group 2");
        let (foreign, _) = with_snapshots(&rt).await;
        let (_, _, reason) = refusal(&rt, &with(foreign[&ours].clone())).await;
        assert_eq!(reason, "the snapshot of another store");
        let renumbered = |at: usize, value: u8| {
            let mut content = whole.clone();
            content[at] = value;
            let header = &content[..4096];
            let crc = crate::format::crc(0, [&header[..12], &header[16..]]);
            content[12..16].copy_from_slice(&crc.to_le_bytes());
            content
        };
        let (_, _, reason) = refusal(&rt, &with(renumbered(66, 9))).await;
        assert_eq!(reason, "another snapshot than the one at 1.1-10");
        let rt_newer = rt.with(&with(renumbered(8, 4)));
        let newer = open(&rt_newer).await.map(drop);
        assert!(matches!(newer, Err(StoreError::Unsupported { offset: 0, .. })), "{newer:?}");
        let checked = FileStore::check(&rt_newer, DIR).await.map(drop);
        assert!(matches!(checked, Err(StoreError::Unsupported { .. })), "{checked:?}");

        for at in (0..160).chain([4095]) {
            for bit in 0..8 {
                let mut content = whole.clone();
                content[at] ^= 1 << bit;
                let (file, offset, _) = refusal(&rt, &with(content)).await;
                assert_eq!((file, offset), (ours.clone(), 0), "bit {bit} of {at}");
            }
        }
    });
}

#[test]
fn a_bit_flipped_in_the_content_is_told_by_the_read_with_its_block() {
    in_memory(async |rt| {
        let (image, [meta, _]) = with_snapshots(&rt).await;
        let path = file(&image, 1);
        let second = place(BLOCK_BYTES) as usize;
        let end = image[&path].len();
        let first = place(0) as usize;
        let places = (first..first + 50).chain(second - 50..second + 50).chain(end - 50..end);
        for at in places.chain((first..end).step_by(997)) {
            let mut image = image.clone();
            image.get_mut(&path).unwrap()[at] ^= 1 << (at % 8);
            let rt = rt.with(&image);
            let block = if at < second { first } else { second };
            let is_there = |error: &StoreError| {
                let StoreError::Damaged { file, offset, .. } = error else { panic!("{error}") };
                assert_eq!((file, *offset), (&path, block as u64), "at {at}");
            };
            let report = FileStore::check(&rt, DIR).await.unwrap();
            is_there(&report.damage.unwrap());
            let store = open(&rt).await.unwrap();
            let opened = store.snapshot(1, &meta).await.unwrap();
            is_there(&opened.read(0, usize::MAX).await.unwrap_err());
            // The other block is as good as ever.
            let whole = content(meta.log_id, meta.bytes);
            let (sound, len) =
                if at < second { (BLOCK_BYTES, 9000) } else { (0, BLOCK_BYTES as usize) };
            let read = opened.read(sound, len).await.unwrap();
            assert!(read == whole[sound as usize..][..read.len()] && read.len() > 4000);
        }
    });
}

#[test]
fn a_check_computes_the_digest() {
    in_memory(async |rt| {
        let rt = rt.with(&Image::new());
        let store = open(&rt).await.unwrap();
        put_ten(&store, 1).await;
        // As if what was finished were not what was meant.
        let wrong = SnapshotMeta { digest: meta(at(3), 7).digest, ..meta(at(3), 70_000) };
        finish(&store, 1, &wrong).await.unwrap();
        put(&store, 1, named(&wrong, None)).await;
        drop(store);
        let image = closed(&rt).await;
        let report = FileStore::check(&rt.with(&image), DIR).await.unwrap();
        let damage = report.damage.unwrap().to_string();
        assert!(damage.contains("digest"), "{damage}");
    });
}
