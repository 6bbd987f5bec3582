//! Groups that are removed, and what else is in their segments.

use super::state::*;
use super::*;

/// The records of a removed group stand in segments that other groups need.
#[test]
fn a_removed_group_stays_removed_while_its_records_are_there() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 2, entries([entry(1, 1, "kept")])).await;
        put(&store, 1, hard_state(3, 2)).await;
        put(&store, 1, entries([entry(3, 1, "a"), entry(3, 2, "b")])).await;
        store.remove(1).await.unwrap();
        drop(store);
        let store = scene.open().await;
        assert_eq!(recovered(&store, 1).await, Recovered::default());
        put(&store, 1, hard_state(1, 2)).await;
        put(&store, 1, entries([entry(1, 1, "anew")])).await;
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await, [entry(1, 1, "anew")]);
        assert_eq!(recovered(&store, 1).await.hard_state.term, Term(1));
        assert_eq!(all(&store, 2).await, [entry(1, 1, "kept")]);
    });
}

#[test]
fn the_segments_and_snapshots_of_a_removed_group_go() {
    scene(async |scene| {
        let store = scene.open().await;
        for index in 1..20 {
            put(&store, 1, entries([entry(1, index, vec![1; 4000])])).await;
        }
        let meta = meta(LogId::new(1, 1, 5), 1000);
        finish(&store, 1, &meta).await.unwrap();
        let snapshot = Some(Box::new(meta.clone()));
        put(&store, 1, LogWrite { snapshot, ..LogWrite::default() }).await;
        put(&store, 2, hard_state(1, 2)).await;
        let folder = scene.dir.join("snapshots");
        let is_snapshot = |path: &PathBuf| path.starts_with(&folder);
        let snapshots = || scene.disk().now().into_keys().filter(is_snapshot).count();
        assert_eq!(snapshots(), 1);
        store.remove(1).await.unwrap();
        scene.until(|| snapshots() == 0 && !scene.has(1)).await;
        drop(store);
        let store = scene.open().await;
        assert_eq!(recovered(&store, 1).await, Recovered::default());
        assert_eq!(recovered(&store, 2).await.hard_state.term, Term(1));
    });
}
