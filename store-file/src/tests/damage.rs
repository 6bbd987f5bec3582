//! What a crash leaves is cut off; what was durable once and isn't any more is refused.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;
use crate::format::HEADER_BYTES;

const FIRST: u64 = HEADER_BYTES;

/// Writes an entry durably, and gives the end of the log in segment 1.
async fn put_at(scene: &Scene, store: &Store, index: Index, command: &'static str) -> u64 {
    put(store, 1, entries([entry(1, index, command)])).await;
    scene.end(1)
}

#[test]
fn a_torn_tail_is_cut_at_whichever_byte_it_was_torn() {
    scene(async |scene| {
        let store = scene.open().await;
        put_at(&scene, &store, 1, "first").await;
        let begin = put_at(&scene, &store, 2, "second").await as usize;
        let end = put_at(&scene, &store, 3, "third").await as usize;
        drop(store);
        scene.closed().await;
        scene.crash(1);
        let whole = scene.content(1);
        assert!(end - begin > 80);
        for torn in begin..end - 8 {
            let mut content = whole.clone();
            match torn % 2 {
                0 => content[torn..].fill(0),
                _ => content[torn..end].fill(0xAA),
            }
            scene.set_content(1, &content);
            let store = scene.open().await;
            assert_eq!(last(&store, 1).await, 2, "torn at {torn}");
            // What is written there now is what an opening finds.
            put(&store, 1, entries([entry(2, 3, "3")])).await;
            drop(store);
            let store = scene.open().await;
            assert_eq!(all(&store, 1).await[1..], [entry(1, 2, "second"), entry(2, 3, "3")]);
        }
    });
}

/// Tears the last batch, and gives its begin and end.
async fn tear(scene: &Scene) -> (u64, u64) {
    let store = scene.open().await;
    let begin = put_at(scene, &store, 1, "first").await;
    let end = put_at(scene, &store, 2, "second").await;
    drop(store);
    scene.closed().await;
    scene.crash(1);
    let mut content = scene.content(1);
    content[begin as usize] ^= 1;
    scene.set_content(1, &content);
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    assert!((end - 8..=end).contains(&used));
    (begin, end)
}

#[test]
fn a_torn_tail_that_is_cut_is_told_of_once() {
    let told = Told::default();
    let _listening = tracing::subscriber::set_default(told.clone());
    scene(async |scene| {
        // The first thread that has something to tell, now that somebody listens, decides whether
        // it is heard at all; and that may be another test's, for which nobody listens. So it is
        // told once, and then decided here.
        tear(&scene).await;
        drop(scene.open().await);
        scene.closed().await;
        let (begin, end) = tear(&scene).await;
        tracing::callsite::rebuild_interest_cache();
        told.take();
        drop(scene.open().await);
        let expected = vec![("offset", begin), ("bytes", end - begin)];
        assert_eq!(told.take(), [expected]);
        scene.closed().await;
        drop(scene.open().await);
        assert!(told.take().is_empty(), "nothing was torn");
    });
}

#[test]
fn records_of_a_torn_batch_never_come_back() {
    scene(async |scene| {
        let store = scene.open().await;
        let begin = put_at(&scene, &store, 1, "one").await as usize;
        // One batch of three records, of which the first gets torn.
        let outcomes = [2, 3, 4].map(|at| submit(&store, 1, entries([entry(1, at, "same size")])));
        for outcome in outcomes {
            outcome.await.unwrap().unwrap();
        }
        drop(store);
        scene.closed().await;
        scene.crash(1);
        let mut content = scene.content(1);
        content[begin + 50] ^= 1;
        scene.set_content(1, &content);
        let store = scene.open().await;
        assert!(scene.content(1)[begin..].iter().all(|byte| *byte == 0), "it is gone at once");
        assert_eq!(last(&store, 1).await, 1);
        // The new record ends where the second of the torn batch began.
        put(&store, 1, entries([entry(1, 2, "same SIZE")])).await;
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await, [entry(1, 1, "one"), entry(1, 2, "same SIZE")]);
    });
}

#[test]
fn a_flipped_bit_before_the_tail_is_refused_with_file_and_offset() {
    scene(async |scene| {
        let store = scene.open().await;
        let begin = put_at(&scene, &store, 1, "first").await;
        let end = put_at(&scene, &store, 2, "second!").await;
        put_at(&scene, &store, 3, "third").await;
        drop(store);
        drop(scene.open().await);
        let whole = scene.content(1);
        for at in FIRST..end - 8 {
            let mut content = whole.clone();
            content[at as usize] ^= 0x10;
            scene.set_content(1, &content);
            let offset = match scene.try_open().await {
                Err(StoreError::Damaged { offset, .. }) => offset,
                // Only the bytes that fill a record up mean nothing.
                Ok(_) => {
                    assert!((begin - 8..begin).contains(&at), "unnoticed at {at}");
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!(offset, if at < begin { FIRST } else { begin });
            assert!(scene.content(1) == content, "nothing is changed");
        }
    });
}

#[test]
fn a_missing_end_of_a_segment_is_noticed_in_the_next() {
    scene(async |scene| {
        let store = scene.open().await;
        for index in 1..21 {
            put(&store, 1, entries([entry(1, index, vec![1; 1000])])).await;
        }
        drop(store);
        drop(scene.open().await);
        let mut content = scene.content(1);
        let end = content.iter().rposition(|byte| *byte != 0).unwrap();
        content[end] ^= 1;
        scene.set_content(1, &content);
        let (file, offset) = scene.damage().await;
        assert_eq!(file, "0000000000000001.wal");
        assert!((end as u64 - 1100..end as u64).contains(&offset), "{offset}");
    });
}

#[test]
fn a_torn_first_batch_of_a_segment_is_cut() {
    scene(async |scene| {
        let store = scene.open().await;
        let mut index = 0;
        while !scene.has(3) {
            index += 1;
            put(&store, 1, entries([entry(1, index, vec![1; 1000])])).await;
            scene.made(2).await;
            // The third is made when the second is begun.
            if scene.content(2)[FIRST as usize..].iter().any(|byte| *byte != 0) {
                scene.made(3).await;
            }
        }
        drop(store);
        scene.closed().await;
        scene.crash(2);
        let mut content = scene.content(2);
        content[FIRST as usize + 500] ^= 1;
        scene.set_content(2, &content);
        let store = scene.open().await;
        assert_eq!(last(&store, 1).await, index - 1);
        assert!(!scene.has(3), "what comes after the tail is made anew");
        put(&store, 1, entries([entry(2, index, vec![2; 1000])])).await;
        drop(store);
        let store = scene.open().await;
        assert_eq!(all(&store, 1).await[index as usize - 1], entry(2, index, vec![2; 1000]));
    });
}

/// A disk that loses a block gives back zeros, as preallocated space does.
const BLOCK: u64 = 4 << 10;

/// A store that was closed, with ten entries of 1000 bytes in its first segment; and the end of its
/// log, behind which the sync marker stands.
async fn closed_with_ten(scene: &Scene) -> (Vec<u8>, u64) {
    let store = scene.open().await;
    for index in 1..=10 {
        put(&store, 1, entries([entry(1, index, vec![1; 1000])])).await;
    }
    drop(store);
    scene.closed().await;
    (scene.content(1), scene.end(1))
}

#[test]
fn zeros_over_acknowledged_records_are_damage_where_any_later_record_survives() {
    scene(async |scene| {
        let (whole, end) = closed_with_ten(&scene).await;
        // The last one leaves nothing but the sync marker.
        for at in (FIRST..end - BLOCK).step_by(999).chain([end - BLOCK]) {
            let mut content = whole.clone();
            content[at as usize..(at + BLOCK) as usize].fill(0);
            scene.set_content(1, &content);
            let report = FileStore::check(&scene.rt, &scene.dir).await.unwrap();
            assert!(report.damage.is_some() && report.end.is_none(), "zeros at {at}: {report:?}");
            let (file, offset) = scene.damage().await;
            assert_eq!(file, "0000000000000001.wal");
            assert!(offset <= at && at - offset < 1100, "{offset} for zeros at {at}");
        }
    });
}

/// They can't be told from a tail that was never written: the peers remember more, and the check
/// says what it does not know.
#[test]
fn zeros_over_the_very_end_are_a_tail_without_a_sync_marker() {
    scene(async |scene| {
        let (whole, end) = closed_with_ten(&scene).await;
        let report = FileStore::check(&scene.rt, &scene.dir).await.unwrap().end.unwrap();
        assert!(
            report.has_sync_marker && report.torn_bytes == 0 && report.offset == end,
            "{report:?}"
        );
        let mut within = 0;
        for begin in (end - BLOCK + SYNC_MARKER_BYTES..=end - 1000).step_by(13) {
            let mut content = whole.clone();
            content[begin as usize..(begin + BLOCK).min(SMALL.segment_bytes) as usize].fill(0);
            scene.set_content(1, &content);
            let report = FileStore::check(&scene.rt, &scene.dir).await.unwrap();
            assert!(report.damage.is_none(), "{report:?}");
            let (_, last) = report.groups[&1].entries.unwrap();
            assert!((6..10).contains(&last.index), "{last}");
            let found = report.end.unwrap();
            assert!(!found.has_sync_marker, "{found:?}");
            // The bytes that fill up a record are zeros anyway.
            assert!(found.offset < begin + ALIGNMENT, "{found:?} for zeros at {begin}");
            // What is left of the record in which they begin.
            assert!(found.offset + found.torn_bytes < begin + ALIGNMENT, "{found:?}");
            within += usize::from(found.torn_bytes > 0);
        }
        assert!(within > 100, "{within}");
    });
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    scene(async |scene| {
        let store = scene.open().await;
        for index in 1..41 {
            put(&store, 1, entries([entry(1, index, vec![1; 1000])])).await;
        }
        drop(store);
        drop(scene.open().await);
        let second = scene.content(2);
        scene.disk().remove(scene.segment(2));
        assert_eq!(scene.damage().await, ("0000000000000002.wal".to_owned(), 0));

        let header = segment_header(&second, 2);
        let mut foreign = second.clone();
        foreign[..FIRST as usize]
            .copy_from_slice(&SegmentHeader { store: 4711, ..header }.encode(2));
        scene.set_content(2, &foreign);
        assert_eq!(scene.damage().await, ("0000000000000002.wal".to_owned(), 0));

        for at in (0..100).chain([FIRST as usize - 1]) {
            let mut content = second.clone();
            content[at] ^= 1;
            scene.set_content(2, &content);
            assert_eq!(scene.damage().await, ("0000000000000002.wal".to_owned(), 0));
        }
        // Records at another place than their own are none.
        let mut moved = second.clone();
        let third = scene.content(3);
        moved[FIRST as usize..].copy_from_slice(&third[FIRST as usize..]);
        scene.set_content(2, &moved);
        assert_eq!(scene.damage().await, ("0000000000000002.wal".to_owned(), FIRST));

        scene.set_content(2, &second);
        assert_eq!(last(&scene.open().await, 1).await, 40);
        scene.disk().remove(scene.segment(1));
        assert_eq!(scene.damage().await, ("0000000000000001.wal".to_owned(), 0));
    });
}

#[test]
fn a_half_made_segment_is_made_anew() {
    scene(async |scene| {
        let store = scene.open().await;
        scene.made(2).await;
        put(&store, 1, entries([entry(1, 1, "a")])).await;
        drop(store);
        scene.disk().put(scene.dir.join("wal/next.tmp"), b"QUO");
        scene.disk().put(scene.dir.join("wal/notes.txt"), b"a stranger");
        let store = scene.open().await;
        assert_eq!(last(&store, 1).await, 1);
        scene.made(2).await;
        assert!(!scene.disk().has(scene.dir.join("wal/next.tmp")));
    });
}

#[test]
fn an_entry_damaged_while_the_store_is_open_is_refused_by_the_read() {
    scene(async |scene| {
        let store = scene.open().await;
        put_at(&scene, &store, 1, "first").await;
        let mut content = scene.content(1);
        let at = content.windows(5).position(|window| window == b"first").unwrap();
        content[at] ^= 1;
        scene.set_content(1, &content);
        let error = store.read(1, 1..2, 99).await.unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    });
}

/// The numbers in a message, by name.
type Numbers = Vec<(&'static str, u64)>;

/// Hears what the program tells its operator: the numbers in each message.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Numbers>>>);

impl Told {
    fn take(&self) -> Vec<Numbers> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("quorate_store_file")
    }

    fn event(&self, event: &Event<'_>) {
        struct Visitor(Numbers);
        impl Visit for Visitor {
            fn record_u64(&mut self, field: &Field, value: u64) {
                self.0.push((field.name(), value));
            }

            fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
        }
        let mut numbers = Visitor(Vec::new());
        event.record(&mut numbers);
        self.0.lock().unwrap().push(numbers.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
