//! What the operating system refuses is told as that, and not taken for damage; what comes too late
//! is missing; and what is not needed is closed.

use std::io;

use super::state::*;
use super::*;

/// The error must be the system's, about this.
fn refused(error: StoreError, what: &str) -> io::ErrorKind {
    let StoreError::Io { what: told, source } = &error else { panic!("{error}") };
    assert!(told.starts_with(what), "{error}");
    source.kind()
}

/// A store with ten entries and a snapshot in group 1, closed.
async fn closed(scene: &Scene) {
    let store = scene.open().await;
    for index in 1..=10 {
        put(&store, 1, entries([entry(1, index, vec![1; 1900])])).await;
    }
    let meta = meta(LogId::new(1, 1, 2), 3);
    finish(&store, 1, &meta).await.unwrap();
    put(&store, 1, named(&meta, None)).await;
    drop(store);
    scene.closed().await;
}

#[test]
fn what_can_not_be_read_is_no_damage() {
    scene(async |scene| {
        closed(&scene).await;
        scene.faults().fail_read.set(true);
        refused(scene.try_open().await.unwrap_err(), "reading");
        scene.closed().await;
        let checked = FileStore::check(&scene.rt, &scene.dir).await;
        refused(checked.unwrap_err(), "reading");
        scene.faults().fail_read.set(false);
        let store = scene.open().await;
        scene.faults().fail_read.set(true);
        refused(store.read(1, 3..5, usize::MAX).await.unwrap_err(), "reading");
        put(&store, 1, entries([entry(1, 11, "writing goes on")])).await;
        scene.faults().fail_read.set(false);
        assert_eq!(all(&store, 1).await.len(), 11, "and so does reading");
    });
}

#[test]
fn what_may_not_be_listed_or_opened_is_told() {
    scene(async |scene| {
        closed(&scene).await;
        for (name, what) in [
            ("wal", "listing"),
            ("snapshots", "listing"),
            ("0000000000000001.wal", "opening"),
            (".snapshot", "opening"),
        ] {
            scene.faults().refuse.set(Some(name));
            let kind = refused(scene.try_open().await.unwrap_err(), what);
            assert_eq!(kind, io::ErrorKind::PermissionDenied, "{name}");
            scene.closed().await;
            let checked = FileStore::check(&scene.rt, &scene.dir).await;
            assert_eq!(refused(checked.unwrap_err(), what), kind, "{name}");
        }
        scene.faults().refuse.set(None);
        assert_eq!(last(&scene.open().await, 1).await, 10);
    });
}

#[test]
fn what_may_not_be_locked_is_not_opened_but_may_be_checked() {
    scene(async |scene| {
        closed(&scene).await;
        let check = async || FileStore::check(&scene.rt, &scene.dir).await;
        assert!(check().await.unwrap().locked);
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            scene.faults().refuse_lock.set(Some(kind));
            assert_eq!(refused(scene.try_open().await.unwrap_err(), "locking"), kind);
            let report = check().await.unwrap();
            assert!(!report.locked && report.damage.is_none(), "{report:?}");
            assert_eq!(report.groups[&1].entries.unwrap().1.index, 10);
        }
        // Whatever else it is, it is not that the lock is a matter of others.
        scene.faults().refuse_lock.set(Some(io::ErrorKind::Other));
        refused(check().await.unwrap_err(), "locking");
    });
}

#[test]
fn a_snapshot_that_is_superseded_while_it_is_opened_is_missing() {
    scene(async |scene| {
        closed(&scene).await;
        let store = scene.open().await;
        let (old, new) = (meta(LogId::new(1, 1, 2), 3), meta(LogId::new(1, 1, 9), 3));
        let path = recovered(&store, 1).await.snapshot;
        assert_eq!(path.as_ref(), Some(&old));
        finish(&store, 1, &new).await.unwrap();
        let snapshots = || scene.files().len();
        scene.faults().hold_opens.close();
        let reader = store.clone();
        let opening = scene.rt.spawn(async move { reader.snapshot(1, &old).await.map(|_| ()) });
        scene.until(|| scene.faults().hold_opens.waiting() > 0).await;
        put(&store, 1, named(&new, None)).await;
        scene.until(|| snapshots() == 1).await;
        scene.faults().hold_opens.open();
        let opened = opening.await.unwrap();
        assert!(matches!(opened, Err(StoreError::Missing(2))), "{opened:?}");
    });
}

#[test]
fn a_sync_marker_that_can_not_be_written_costs_nothing() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.made(2).await;
        put(&store, 1, entries([entry(1, 1, "a")])).await;
        let writes = scene.faults().writes.get();
        scene.faults().fail_write.set(true);
        scene.until(|| scene.faults().writes.get() > writes).await;
        scene.faults().fail_write.set(false);
        put(&store, 1, entries([entry(1, 2, "b")])).await;
        drop(store);
        assert_eq!(all(&scene.open().await, 1).await, [entry(1, 1, "a"), entry(1, 2, "b")]);
    });
}

#[test]
fn entries_that_have_changed_places_are_noticed() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries([entry(1, 1, "the first"), entry(1, 2, "no second")])).await;
        // Each is whole, and its CRC is right.
        let mut content = scene.content(1);
        let end_of = |command: &[u8]| {
            let at = content.windows(command.len()).position(|bytes| bytes == command);
            at.unwrap() + command.len()
        };
        let (first, second) = (end_of(b"the first"), end_of(b"no second"));
        let len = second - first;
        content[first - len..second].rotate_left(len);
        scene.set_content(1, &content);
        let read = store.read(1, 1..2, 1).await;
        let Err(StoreError::Damaged { file, offset, reason }) = read else { panic!("{read:?}") };
        assert_eq!((file, offset), (scene.segment(1), (first - len) as u64));
        assert_eq!(&*reason, "entry 1.1-2 where 1 was written");
    });
}

#[test]
fn so_many_segments_are_open_and_none_that_is_removed() {
    /// Of a log that is much longer.
    const MOST: usize = 64;
    const SEGMENTS: u64 = 80;
    scene(async |scene| {
        let store = scene.open().await;
        let log: Vec<_> = (1..=SEGMENTS).map(|index| entry(1, index, vec![1; 9000])).collect();
        for entry in &log {
            put(&store, 1, entries([entry.clone()])).await;
        }
        scene.made(SEGMENTS as u32 + 1).await;
        // Beside those that are read, the one that is written and the next.
        let open = || scene.faults().open.borrow().len();
        assert!((MOST..=MOST + 2).contains(&open()), "{}", open());
        assert!(all(&store, 1).await == log);
        assert!((MOST..=MOST + 2).contains(&open()), "{}", open());

        let last = meta(LogId::new(1, 1, SEGMENTS), 3);
        finish(&store, 1, &last).await.unwrap();
        scene.faults().hold_opened.close();
        let reader = store.clone();
        let read = scene.rt.spawn(async move { reader.read(1, 1..2, 1).await });
        scene.until(|| scene.faults().open.borrow().contains(&scene.segment(1))).await;
        put(&store, 1, named(&last, Some(last.log_id))).await;
        scene.until(|| !scene.has(SEGMENTS as u32 - 1)).await;
        scene.faults().hold_opened.open();
        assert!(matches!(read.await.unwrap(), Err(StoreError::Missing(1))));
        assert!(!scene.faults().open.borrow().contains(&scene.segment(1)));
        assert!(open() <= 4, "{:?}", scene.faults().open.borrow());
    });
}
