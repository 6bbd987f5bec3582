//! Whose store it is: bound at the first start, counted at each, and kept whatever is purged,
//! removed or lost in a crash.

use quorate_core::{Identity, Marks, Standing};

use super::images::{DIR, closed, in_memory, open};
use super::state::*;
use super::*;

const CLUSTER: ClusterId = ClusterId(77);

/// A write by which the store joins a cluster.
fn join(cluster: ClusterId) -> LogWrite {
    LogWrite { cluster: Some(cluster), ..LogWrite::default() }
}

async fn start<R: Files>(store: &FileStore<R>) -> Identity {
    store.identify(1).await.unwrap()
}

/// I3, I4.
#[test]
fn the_first_node_is_the_only_one_and_each_of_its_starts_is_counted() {
    scene(async |scene| {
        let store = scene.open().await;
        let first = start(&store).await;
        assert!(first.incarnation != 0);
        assert_eq!((first.cluster, first.boot), (None, 1));
        assert_eq!(start(&store).await, Identity { boot: 2, ..first });
        drop(store);
        let store = scene.open().await;
        assert_eq!(start(&store).await, Identity { boot: 3, ..first });
        // At rest, so that what an other node changes can be told.
        drop(store);
        scene.closed().await;
        let store = scene.open().await;
        scene.made(2).await;
        let before = scene.content(1);
        match store.identify(2).await {
            Err(StoreError::OtherNode { place, holds: 1, wanted: 2 }) => {
                assert_eq!(place, scene.dir.display().to_string());
            }
            other => panic!("{other:?}"),
        }
        drop(store);
        scene.closed().await;
        assert!(scene.content(1) == before, "nothing is changed");
        assert_eq!(start(&scene.open().await).await, Identity { boot: 4, ..first });
    });
    scene(async |scene| {
        let one = start(&scene.open().await).await;
        let mut other = scene;
        other.dir = PathBuf::from("/other");
        assert!(start(&other.open().await).await.incarnation != one.incarnation);
    });
}

#[test]
fn a_store_belongs_to_a_cluster_from_the_write_that_says_so() {
    scene(async |scene| {
        let store = scene.open().await;
        assert_eq!(start(&store).await.cluster, None);
        put(&store, 5, LogWrite { cluster: Some(CLUSTER), ..entries([entry(1, 1, "a")]) }).await;
        assert_eq!(start(&store).await.cluster, Some(CLUSTER));
        drop(store);
        let store = scene.open().await;
        assert_eq!(start(&store).await.cluster, Some(CLUSTER));
        // Once more, by another group.
        put(&store, 6, join(CLUSTER)).await;
        drop(store);
        assert_eq!(start(&scene.open().await).await.cluster, Some(CLUSTER));
    });
}

#[test]
#[should_panic(expected = "a write that makes no sense: the store changes its cluster")]
fn another_cluster_is_a_bug_of_the_caller() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 5, join(CLUSTER)).await;
        submit(&store, 6, join(ClusterId(78))).await.unwrap().unwrap();
    });
}

#[test]
#[should_panic(expected = "a node id must not be 0")]
fn a_node_without_an_id_is_a_bug_of_the_caller() {
    scene(async |scene| drop(scene.open().await.identify(0).await));
}

#[test]
fn a_start_that_can_not_be_written_is_told() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.made(2).await;
        scene.faults().fail_sync.set(true);
        assert!(matches!(store.identify(1).await, Err(StoreError::Io { .. })));
        scene.faults().fail_sync.set(false);
        assert!(matches!(store.identify(1).await, Err(StoreError::Poisoned(_))));
        drop(store);
        // It may be counted, as it may have got to the disk.
        let store = scene.open().await;
        assert!((1..=2).contains(&start(&store).await.boot));
    });
}

#[test]
fn what_was_told_in_segments_that_are_removed_is_still_known() {
    scene(async |scene| {
        let store = scene.open().await;
        let first = start(&store).await;
        let standing = Standing::Admitted(CLUSTER);
        let marks = Marks { committed: LogId::new(1, 1, 3), ..Marks::default() };
        let write = LogWrite {
            standing: Some(Box::new(standing.clone())),
            marks: Some(Box::new(marks.clone())),
            ..join(CLUSTER)
        };
        put(&store, 2, write).await;
        let (mut store, mut index) = (store, 0);
        for boot in 2..5 {
            for _ in 0..20 {
                index += 1;
                put(&store, 1, entries([entry(1, index, vec![1; 1900])])).await;
            }
            let meta = meta(LogId::new(1, 1, index), 3);
            finish(&store, 1, &meta).await.unwrap();
            put(&store, 1, named(&meta, Some(meta.log_id))).await;
            let removed = index as u32 / 8;
            scene.until(|| !scene.has(removed)).await;
            drop(store);
            store = scene.open().await;
            let expected = Identity { cluster: Some(CLUSTER), boot, ..first };
            assert_eq!(start(&store).await, expected);
            let recovered = recovered(&store, 2).await;
            assert_eq!((&recovered.standing, &recovered.marks), (&standing, &marks));
        }
    });
}

/// What a store has been told, and when.
#[derive(Clone, Copy)]
enum Step {
    Start,
    Join,
    Fill,
    Purge,
    Reopen,
}

/// Takes the steps one by one, and keeps the disk informed of how many have begun and are
/// acknowledged.
async fn run(rt: &Memory, steps: &[Step]) {
    let mut store = open(rt).await.unwrap();
    let mut index = 0;
    for (at, step) in steps.iter().enumerate() {
        rt.disk.progress.set((at, at + 1));
        match step {
            Step::Start => drop(start(&store).await),
            Step::Join => {
                index += 1;
                let joined = entries([entry(1, index, "the first")]);
                put(&store, 1, LogWrite { cluster: Some(CLUSTER), ..joined }).await;
            }
            Step::Fill => {
                for _ in 0..9 {
                    index += 1;
                    put(&store, 1, entries([entry(1, index, vec![1; 1900])])).await;
                }
            }
            Step::Purge => {
                let meta = meta(LogId::new(1, 1, index), 3);
                finish(&store, 1, &meta).await.unwrap();
                put(&store, 1, named(&meta, Some(meta.log_id))).await;
                for _ in 0..50 {
                    yield_now().await; // Until what is not needed is removed.
                }
            }
            Step::Reopen => {
                drop(store);
                closed(rt).await;
                store = open(rt).await.unwrap();
            }
        }
        rt.disk.progress.set((at + 1, at + 1));
    }
    drop(store);
    closed(rt).await;
}

#[test]
fn a_crash_at_any_operation_leaves_the_identity_that_was_acknowledged() {
    use Step::*;
    let steps = [
        Start, Join, Fill, Purge, Reopen, Start, Fill, Fill, Purge, Start, Reopen, Start, Fill,
        Purge,
    ];
    // The starts and the cluster after some steps.
    let after = |taken: usize| {
        let starts = steps[..taken].iter().filter(|step| matches!(step, Start)).count() as u64;
        (starts, Some(CLUSTER).filter(|_| taken >= 2))
    };
    in_memory(async |rt| {
        let rt = rt.with(&Image::new());
        rt.disk.record_moments();
        run(&rt, &steps).await;
        let moments = rt.disk.take_moments();
        assert!(moments.len() > 300, "{}", moments.len());
        assert!(!moments.last().unwrap().image.contains_key(&segment(2)), "nothing was removed");
        let (mut incarnations, mut lost) = (Vec::new(), 0);
        for moment in moments {
            let (acknowledged, begun) = moment.progress;
            let rt = rt.with(&moment.image);
            let report = FileStore::check(&rt, DIR).await.unwrap();
            assert!(report.damage.is_none(), "{report:?}");
            let held = report.identity.map_or((0, None), |held| (held.boots, held.cluster));
            assert!((acknowledged..=begun).any(|taken| after(taken) == held), "{held:?}");
            lost += usize::from(after(begun) != held);
            let store = open(&rt).await.unwrap();
            if held.0 > 0 {
                let other = store.identify(2).await;
                assert!(matches!(other, Err(StoreError::OtherNode { .. })), "{other:?}");
                incarnations.push(report.identity.unwrap().incarnation);
                assert_eq!(report.identity.unwrap().node, Some(1));
            }
            let identity = start(&store).await;
            assert_eq!((identity.boot, identity.cluster), (held.0 + 1, held.1));
            // It is bound to its cluster together with the entry.
            let recovered = recovered(&store, 1).await;
            assert_eq!(held.1.is_some(), recovered.log_meta.last().index > 0);
        }
        assert!(lost > 10, "{lost}");
        incarnations.dedup();
        assert_eq!(incarnations.len(), 1);
    });
}

fn segment(number: u32) -> PathBuf {
    PathBuf::from(format!("{DIR}/wal/{number:016}.wal"))
}

#[test]
fn a_report_says_whose_store_it_is() {
    scene(async |scene| {
        drop(scene.open().await);
        scene.closed().await;
        let identity = async || {
            let report = FileStore::check(&scene.rt, &scene.dir).await.unwrap();
            report.identity
        };
        let nobodys = identity().await.unwrap();
        assert_eq!((nobodys.node, nobodys.boots, nobodys.cluster), (None, 0, None));
        let store = scene.open().await;
        let started = start(&store).await;
        put(&store, 1, join(CLUSTER)).await;
        drop(store);
        scene.closed().await;
        let held = identity().await.unwrap();
        assert_eq!((held.node, held.boots, held.cluster), (Some(1), 1, Some(CLUSTER)));
        assert_eq!(held.incarnation, started.incarnation);
        // As far as it can be read.
        scene.disk().put(scene.segment(1), b"");
        assert_eq!(identity().await, None);
    });
}
