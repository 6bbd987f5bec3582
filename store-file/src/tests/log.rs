//! What is written is read, now and after an opening.

use quorate_core::{LogMeta, Membership};

use super::*;

#[test]
fn an_empty_directory_is_an_empty_store() {
    scene(async |scene| {
        let store = scene.open().await;
        assert_eq!(recovered(&store, 1).await, Recovered::default());
        drop(store);
        let store = scene.open().await;
        assert_eq!(recovered(&store, 1).await, Recovered::default());
        assert!(matches!(store.read(1, 1..2, 100).await, Err(StoreError::Missing(1))));
    });
}

#[test]
fn entries_of_all_kinds_and_the_hard_state_survive_together() {
    scene(async |scene| {
        let membership =
            Membership::founding(ClusterId(5), [(Replica::new(1, 7), "a:1".to_owned())].into())
                .unwrap();
        let written = vec![
            Entry {
                log_id: LogId::FIRST,
                time: 1,
                payload: Payload::Membership(membership.clone()),
            },
            Entry { log_id: LogId::new(3, 2, 2), time: 2, payload: Payload::Blank },
            Entry { log_id: LogId::new(3, 2, 3), time: 3, payload: Payload::Command(Bytes::new()) },
            Entry {
                log_id: LogId::new(4, 1, 4),
                time: u64::MAX,
                payload: Payload::Command("four".into()),
            },
        ];
        let hard_state = HardState { term: Term(4), voted_for: Some(Replica::new(1, 7)) };
        let store = scene.open().await;
        let write = LogWrite {
            hard_state: Some(hard_state),
            entries: written.clone().into(),
            ..LogWrite::default()
        };
        put(&store, 9, write).await;
        assert_eq!(all(&store, 9).await, written);
        drop(store);

        let store = scene.open().await;
        let mut log_meta = LogMeta::default();
        written.iter().for_each(|entry| log_meta.push(entry));
        assert_eq!(
            recovered(&store, 9).await,
            Recovered { hard_state, log_meta, ..Recovered::default() }
        );
        assert_eq!(all(&store, 9).await, written);
    });
}

#[test]
fn the_last_hard_state_counts() {
    scene(async |scene| {
        let store = scene.open().await;
        for (term, vote) in [(1, 0), (1, 3), (2, 0), (7, 2)] {
            put(&store, 1, hard_state(term, vote)).await;
        }
        drop(store);
        let recovered = recovered(&scene.open().await, 1).await;
        assert_eq!(
            recovered.hard_state,
            HardState { term: Term(7), voted_for: Some(Replica::new(2, 7)) }
        );
        assert_eq!(recovered.log_meta, LogMeta::default());
    });
}

#[test]
#[should_panic(expected = "the hard state goes back")]
fn a_changed_vote_is_a_bug_of_the_caller() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, hard_state(2, 1)).await;
        submit(&store, 1, hard_state(2, 3)).await.unwrap().unwrap();
    });
}

#[test]
#[should_panic(expected = "in group 1, a gap: entry 2 after 0")]
fn a_gap_is_a_bug_of_the_caller() {
    scene(async |scene| {
        let store = scene.open().await;
        submit(&store, 1, entries([entry(1, 2, "b")])).await.unwrap().unwrap();
    });
}

#[test]
fn what_is_submitted_is_readable_before_it_is_durable() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.faults().hold_syncs.close();
        let outcome = submit(&store, 1, entries([entry(1, 1, "a"), entry(1, 2, "b")]));
        assert_eq!(all(&store, 1).await, [entry(1, 1, "a"), entry(1, 2, "b")]);
        scene.faults().hold_syncs.open();
        outcome.await.unwrap().unwrap();
    });
}

#[test]
fn an_overwritten_suffix_stays_overwritten() {
    scene(async |mut scene| {
        // Once with everything in memory, once with everything on disk.
        for (group, cache_bytes) in [(1, 1 << 20), (2, 0)] {
            scene.config.cache_bytes = cache_bytes;
            let store = scene.open().await;
            put(&store, group, entries([entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")]))
                .await;
            put(&store, group, entries([entry(2, 2, "B")])).await;
            let after = [entry(1, 1, "a"), entry(2, 2, "B")];
            assert_eq!(all(&store, group).await, after);
            assert!(matches!(store.read(group, 2..4, 99).await, Err(StoreError::Missing(3))));
            drop(store);
            let store = scene.open().await;
            assert_eq!(all(&store, group).await, after);
            put(&store, group, entries([entry(2, 3, "C")])).await;
            assert_eq!(all(&store, group).await[2], entry(2, 3, "C"));
        }
    });
}

#[test]
fn a_read_that_a_truncation_overtakes_answers_with_the_new_log() {
    scene(async |scene| {
        let store = scene.open().await;
        put(&store, 1, entries([entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")])).await;
        scene.faults().hold_reads.close();
        let reader = store.clone();
        let read = scene.rt.spawn(async move { reader.read(1, 1..4, usize::MAX).await });
        scene.until(|| scene.faults().hold_reads.waiting() == 1).await;
        let outcome = submit(&store, 1, entries([entry(2, 2, "B"), entry(2, 3, "C")]));
        scene.faults().hold_reads.open();
        let expected = [entry(1, 1, "a"), entry(2, 2, "B"), entry(2, 3, "C")];
        assert_eq!(read.await.unwrap().unwrap(), expected);
        outcome.await.unwrap().unwrap();
    });
}

#[test]
fn groups_share_a_log_and_nothing_else() {
    scene(async |scene| {
        let store = scene.open().await;
        for index in 1..20 {
            for group in 1..4 {
                put(&store, group, entries([entry(group, index, format!("{group}/{index}"))]))
                    .await;
            }
        }
        put(&store, 2, entries([entry(9, 5, "cut")])).await;
        drop(store);
        let store = scene.open().await;
        for (group, len) in [(1, 19), (2, 5), (3, 19)] {
            let log = all(&store, group).await;
            assert_eq!(log.len(), len);
            assert_eq!(log[3], entry(group, 4, format!("{group}/4")));
        }
    });
}

#[test]
fn a_read_gives_what_fits_from_memory_and_from_disk() {
    scene(async |mut scene| {
        for cache_bytes in [0, 300, 1 << 20] {
            scene.config.cache_bytes = cache_bytes;
            let group = cache_bytes as GroupId;
            let store = scene.open().await;
            for index in 1..6 {
                put(&store, group, entries([entry(1, index, "x")])).await;
            }
            let one = entry(1, 1, "x").bytes();
            for (max_bytes, count) in [(0, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (999, 4)] {
                let read = store.read(group, 2..6, max_bytes).await.unwrap();
                assert_eq!(read.len(), count, "{max_bytes} bytes, {cache_bytes} in memory");
                assert_eq!(read[0], entry(1, 2, "x"));
            }
        }
    });
}

#[test]
fn neighbours_on_disk_are_read_at_once() {
    scene(async |scene| {
        let store = scene.open().await;
        for index in 1..31 {
            put(&store, 1, entries([entry(1, index, "small")])).await;
        }
        let before = scene.faults().reads.get();
        assert_eq!(all(&store, 1).await.len(), 30);
        assert_eq!(scene.faults().reads.get(), before + 1);
    });
}

#[test]
fn memory_is_bounded_over_all_groups() {
    scene(async |mut scene| {
        scene.config.cache_bytes = 10_000;
        let store = scene.open().await;
        for round in 1..40 {
            for group in 1..4 {
                put(&store, group, entries([entry(1, round, vec![7; 100])])).await;
                assert!(store.cached() <= 10_000);
            }
        }
        assert!(store.cached() > 9_000, "what there is room for is kept");
        let reads = scene.faults().reads.get();
        store.read(1, 39..40, 999).await.unwrap();
        assert_eq!(scene.faults().reads.get(), reads, "from memory");
        assert_eq!(all(&store, 1).await.len(), 39);
        assert!(scene.faults().reads.get() > reads);
        // The same index again and again fills nothing up.
        for term in 2..400 {
            put(&store, 1, entries([entry(term, 1, "x")])).await;
            assert!(store.cached() <= 10_000);
        }
    });
}

#[test]
fn the_log_moves_on_to_further_segments() {
    scene(async |scene| {
        let store = scene.open().await;
        let log: Vec<_> = (1..61).map(|index| entry(1, index, vec![index as u8; 1000])).collect();
        for entry in &log {
            put(&store, 1, entries([entry.clone()])).await;
        }
        assert!(scene.has(5));
        assert_eq!(all(&store, 1).await, log);
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await, log);
        for index in 61..81 {
            put(&store, 1, entries([entry(1, index, vec![0; 1000])])).await;
        }
        drop(store);
        assert_eq!(last(&scene.open().await, 1).await, 80);
    });
}

#[test]
fn a_burst_larger_than_a_batch_and_a_segment_is_stored_in_order() {
    scene(async |scene| {
        let store = scene.open().await;
        let outcomes: Vec<_> = (1..61)
            .map(|index| submit(&store, 1, entries([entry(1, index, vec![1; 1000])])))
            .collect();
        for outcome in outcomes {
            outcome.await.unwrap().unwrap();
        }
        drop(store);
        assert_eq!(all(&scene.open().await, 1).await.len(), 60);
    });
}

#[test]
fn a_write_larger_than_a_segment_gets_one_of_its_size() {
    scene(async |scene| {
        let store = scene.open().await;
        let large: Vec<u8> = (0..3_000_000).map(|at| at as u8).collect();
        let log = [
            entry(1, 1, large.clone()),
            entry(1, 2, "b"),
            entry(1, 3, large.clone()),
            entry(1, 4, large),
            entry(1, 5, "e"),
        ];
        for entry in &log {
            put(&store, 1, entries([entry.clone()])).await;
        }
        assert_eq!(all(&store, 1).await, log);
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await, log);
        // The first write needs another segment than the first one, and all records stand within
        // the length that theirs was made with.
        scene.fits();
        assert!(!scene.has(8));
    });
}

#[test]
fn segments_may_change_their_size() {
    scene(async |mut scene| {
        let mut index = 0;
        for segment_bytes in [16 << 10, 64 << 10, 16 << 10] {
            scene.config.segment_bytes = segment_bytes;
            let store = scene.open().await;
            assert_eq!(all(&store, 1).await.len(), index as usize);
            for _ in 0..30 {
                index += 1;
                put(&store, 1, entries([entry(1, index, vec![0; 1000])])).await;
            }
            drop(store);
            scene.closed().await;
            scene.fits();
        }
    });
}

#[test]
fn all_that_arrives_during_a_sync_goes_out_with_the_next() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.made(2).await;
        let faults = scene.faults();
        let (writes, syncs) = (faults.writes.get(), faults.syncs.get());
        faults.hold_syncs.close();
        let first = submit(&store, 1, entries([entry(1, 1, "a")]));
        scene.until(|| faults.hold_syncs.waiting() == 1).await;
        let later: Vec<_> = (1..51)
            .map(|group| submit(&store, group, entries([entry(1, u64::from(group == 1) + 1, "b")])))
            .collect();
        faults.hold_syncs.open();
        first.await.unwrap().unwrap();
        for outcome in later {
            outcome.await.unwrap().unwrap();
        }
        assert_eq!(faults.writes.get() - writes, 2);
        assert_eq!(faults.syncs.get() - syncs, 2);
    });
}

#[test]
fn settings_that_cannot_work_are_refused() {
    scene(async |mut scene| {
        for (segment_bytes, max_batch_bytes, field) in
            [(100, 1 << 20, "segment_bytes"), (1 << 20, 100, "max_batch_bytes")]
        {
            scene.config = FileConfig { segment_bytes, max_batch_bytes, ..SMALL };
            let error = scene.try_open().await.unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        FileConfig::default().validate().unwrap();
    });
}
