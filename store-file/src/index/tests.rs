//! What of the logs stays in memory, and what of them is read at once.

use quorate_core::{Entry, Payload};

use super::*;

/// Logs that may take so much memory.
fn logs(cache_bytes: usize) -> Logs {
    Logs::new(cache_bytes)
}

fn entry(term: u64, index: Index) -> Entry {
    Entry { log_id: LogId::new(term, 1, index), time: index, payload: Payload::Blank }
}

fn one() -> usize {
    entry(1, 1).bytes()
}

/// Notes and keeps a write of group 1, whose entries stand in this segment.
fn write(logs: &mut Logs, term: u64, range: Range<Index>, segment: u32) {
    let entries: Entries = range.map(|index| entry(term, index)).collect();
    let spans: Vec<_> = (0..entries.len()).map(|at| Span { offset: 50 * at, len: 50 }).collect();
    let write = LogWrite { entries: entries.clone(), ..LogWrite::default() };
    logs.note(1, &write, false, &spans, Position::first_in(segment)).unwrap();
    logs.keep(1, entries);
}

/// How many of the entries of group 1 are read from memory.
fn in_memory(logs: &Logs, range: Range<Index>) -> usize {
    let parts = logs.plan(1, range, usize::MAX).unwrap();
    let recent = |part: &Part| if let Part::Recent(entries) = part { entries.len() } else { 0 };
    parts.iter().map(recent).sum()
}

#[test]
fn what_is_replaced_takes_no_memory_any_more() {
    let mut logs = logs(1 << 20);
    write(&mut logs, 1, 1..4, 1);
    assert_eq!(logs.cached(), ORDER_BYTES + 3 * one());
    write(&mut logs, 2, 2..3, 1);
    assert_eq!(logs.cached(), 2 * ORDER_BYTES + 2 * one());
}

#[test]
fn no_more_writes_are_let_go_than_are_too_many() {
    let full = 2 * ORDER_BYTES + 4 * one();
    let second = ORDER_BYTES + 2 * one();
    for (cache_bytes, kept, cached) in [
        (full, 4, full),
        (full - 1, 2, ORDER_BYTES + second),
        (ORDER_BYTES + second, 2, ORDER_BYTES + second),
        (ORDER_BYTES + second - 1, 2, second),
        (second, 2, second),
        (second - 1, 0, ORDER_BYTES),
        (ORDER_BYTES - 1, 0, 0),
        (0, 0, 0),
    ] {
        let mut logs = logs(cache_bytes);
        write(&mut logs, 1, 1..3, 1);
        write(&mut logs, 1, 3..5, 1);
        logs.shrink(Position::first_in(2));
        assert_eq!(
            (in_memory(&logs, 1..5), logs.cached()),
            (kept, cached),
            "in {cache_bytes} bytes"
        );
    }
}

#[test]
fn of_a_write_that_was_replaced_in_part_no_more_is_let_go_than_is_too_much() {
    let rest = 2 * ORDER_BYTES + 2 * one();
    for (cache_bytes, kept) in [(rest, 2), (rest - 1, 0)] {
        let mut logs = logs(cache_bytes);
        write(&mut logs, 1, 1..5, 1);
        write(&mut logs, 2, 3..5, 1);
        logs.shrink(Position::first_in(2));
        assert_eq!(in_memory(&logs, 1..5), kept, "in {cache_bytes} bytes");
    }
}

#[test]
fn what_is_in_memory_is_part_of_a_read_if_it_is_asked_for_and_fits() {
    let mut logs = logs(ORDER_BYTES + 2 * one());
    write(&mut logs, 1, 1..3, 1);
    write(&mut logs, 1, 3..5, 1);
    logs.shrink(Position::first_in(2));
    let stored = 2 * logs.logs[&1].location(1).unwrap().entry_bytes();
    for (range, max_bytes, expected) in [
        (1..5, stored + 2 * one(), vec![2, 2]),
        (1..5, stored + one(), vec![2, 1]),
        (1..5, stored + one() - 1, vec![2]),
        (1..3, usize::MAX, vec![2]),
        (3..5, 0, vec![1]), // At least one.
    ] {
        let parts = logs.plan(1, range.clone(), max_bytes).unwrap();
        let lens = parts.iter().map(|part| match part {
            Part::Recent(entries) => entries.len(),
            Part::Stored { locations, .. } => locations.len(),
        });
        assert_eq!(lens.collect::<Vec<_>>(), expected, "{range:?} in {max_bytes} bytes");
    }
}

#[test]
fn what_is_not_durable_stays_in_memory() {
    let mut logs = logs(0);
    write(&mut logs, 1, 1..3, 1);
    write(&mut logs, 1, 3..5, 2);
    let end = Position { offset: Position::first_in(2).offset + 100, segment: 2 };
    for (durable, kept) in [(Position::first_in(1), 4), (Position::first_in(2), 2), (end, 0)] {
        logs.shrink(durable);
        assert_eq!(in_memory(&logs, 1..5), kept, "durable to {durable}");
    }
}

#[test]
fn entries_that_stand_near_each_other_are_read_at_once() {
    // Far from the begin of the segment, as most are.
    let location =
        |offset: u64, len| EntryLocation { offset: (64 << 20) + offset, segment: 3, len };
    let before = [location(0, 100), location(100, 50)];
    let most = READ_BYTES as u32;
    for (next, expected) in [
        (location(150, 10), true),
        (location(150 + MAX_GAP_BYTES, 10), true),
        (location(150 + MAX_GAP_BYTES + 1, 10), false),
        (location(150, most - 150), true),
        (location(150, most - 149), false),
        // It was written again since.
        (location(149, 10), false),
        (EntryLocation { segment: 4, ..location(150, 10) }, false),
    ] {
        assert_eq!(neighbours(&before, next), expected, "{next:?}");
    }
}
