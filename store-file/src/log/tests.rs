//! Logs whose first segments were removed: what is noted of them before it is known where they
//! begin; and what makes no sense.

use quorate_core::{Claim, ClusterId, Digest, Entry, Membership, Memory, Payload, Term};

use super::*;

const AT: Position = Position { segment: 5, offset: 4096 };

fn entries(term: u64, first: Index, last: Index) -> LogWrite {
    let entry =
        |index| Entry { log_id: LogId::new(term, 1, index), time: index, payload: Payload::Blank };
    LogWrite { entries: (first..=last).map(entry).collect(), ..LogWrite::default() }
}

fn purge(term: u64, index: Index) -> LogWrite {
    LogWrite { purge: Some(LogId::new(term, 1, index)), ..LogWrite::default() }
}

fn snapshot(index: Index, membership_index: Index) -> LogWrite {
    let membership =
        Membership::founding(ClusterId(5), [(Replica::new(1, 7), "a:1".to_owned())].into())
            .unwrap();
    let log_id = LogId::new(1, 1, index);
    let meta = SnapshotMeta {
        log_id,
        time: index,
        membership,
        membership_index,
        bytes: 0,
        digest: Digest::of(b""),
    };
    LogWrite { snapshot: Some(Box::new(meta)), ..LogWrite::default() }
}

fn note(log: &mut Log, write: &LogWrite, replaces: bool) -> Result<usize, String> {
    let spans = vec![Span { offset: 0, len: 50 }; write.entries.len()];
    log.note(write, replaces, &spans, AT)
}

/// The log after these writes: last purged entry, last entry, and how many there are.
fn noted(writes: &[(LogWrite, bool)]) -> Result<(Index, Index, usize), String> {
    let mut log = Log::new(false);
    for (write, replaces) in writes {
        note(&mut log, write, *replaces)?;
    }
    log.anchor().map_err(|(reason, _)| reason)?;
    Ok((log.log_meta.purged().index, log.log_meta.last().index, log.locations.len()))
}

#[test]
fn a_log_begins_after_its_last_purge() {
    let keep = |write| (write, false);
    let replace = |write| (write, true);
    let cases = [
        // Nothing but votes, nothing but a purge, or all that there ever was.
        (vec![], (0, 0, 0)),
        (vec![keep(purge(1, 9))], (9, 9, 0)),
        (vec![keep(entries(1, 1, 3))], (0, 3, 3)),
        // The purge of the entry before the first that is found, and of a later one.
        (vec![keep(entries(1, 10, 12)), keep(purge(1, 9))], (9, 12, 3)),
        (vec![keep(entries(1, 10, 12)), keep(purge(1, 11))], (11, 12, 1)),
        (vec![keep(entries(1, 10, 12)), keep(purge(1, 12))], (12, 12, 0)),
        (vec![keep(purge(1, 9)), keep(entries(1, 10, 12))], (9, 12, 3)),
        // One of an entry that stood before is none that matters yet.
        (vec![keep(purge(1, 5)), keep(entries(1, 10, 12)), keep(purge(1, 10))], (10, 12, 2)),
        (vec![keep(entries(1, 10, 12)), keep(purge(1, 5)), keep(purge(1, 10))], (10, 12, 2)),
        // What stood before is replaced.
        (vec![keep(purge(1, 5)), keep(entries(1, 10, 12)), keep(entries(2, 6, 6))], (5, 6, 1)),
        (vec![keep(entries(1, 10, 12)), keep(entries(2, 7, 7)), keep(purge(1, 6))], (6, 7, 1)),
        (vec![keep(entries(1, 10, 12)), keep(entries(2, 11, 11)), keep(purge(1, 9))], (9, 11, 2)),
        // A snapshot takes the place of the log, whatever of it was found.
        (vec![keep(entries(1, 10, 12)), replace(purge(2, 9))], (9, 9, 0)),
        (vec![keep(entries(1, 10, 12)), replace(purge(2, 5)), keep(entries(2, 6, 7))], (5, 7, 2)),
        (vec![keep(entries(1, 10, 12)), replace(purge(2, 30))], (30, 30, 0)),
    ];
    for (writes, expected) in cases {
        assert_eq!(noted(&writes), Ok(expected), "{writes:?}");
    }
}

#[test]
fn what_is_missing_between_a_purge_and_the_first_entry_is_noticed() {
    let keep = |write| (write, false);
    for writes in [
        vec![keep(entries(1, 2, 3))],
        vec![keep(purge(1, 5)), keep(entries(1, 10, 12))],
        vec![keep(entries(1, 10, 12)), keep(purge(1, 8))],
        vec![keep(entries(1, 10, 12)), keep(entries(1, 14, 15)), keep(purge(1, 14))],
        vec![keep(entries(1, 10, 12)), keep(purge(1, 13))],
        vec![keep(entries(1, 10, 12)), keep(purge(2, 11))],
        vec![keep(entries(1, 10, 12)), keep(purge(2, 9))],
        vec![keep(purge(1, 11)), keep(entries(1, 11, 12))],
    ] {
        assert!(noted(&writes).is_err(), "{writes:?}");
    }
    let reason = noted(&[keep(purge(1, 5)), keep(entries(1, 10, 12))]).unwrap_err();
    assert_eq!(reason, "the log begins with entry 10, and 5 is purged");
}

#[test]
fn what_makes_no_sense_in_a_whole_log_is_refused() {
    let start = || {
        let mut log = Log::new(true);
        note(&mut log, &entries(1, 1, 5), false).unwrap();
        note(&mut log, &snapshot(4, 1), false).unwrap();
        note(&mut log, &purge(1, 3), false).unwrap();
        log
    };
    assert_eq!((start().log_meta.purged().index, start().locations.len()), (3, 2));
    // As it is already.
    assert_eq!(note(&mut start(), &purge(1, 2), false), Ok(0));
    assert_eq!(note(&mut start(), &purge(1, 3), false), Ok(0));
    let state = LogWrite {
        hard_state: Some(HardState { term: Term(3), voted_for: None }),
        ..LogWrite::default()
    };
    let mut voted = start();
    note(&mut voted, &state, false).unwrap();
    let back = HardState { term: Term(2), voted_for: None };
    note(&mut voted, &LogWrite { hard_state: Some(back), ..state }, false).unwrap_err();
    for (write, replaces) in [
        (entries(1, 3, 5), false),
        (entries(1, 7, 7), false),
        (entries(0, 6, 6), false),
        (entries(1, Index::MAX, Index::MAX), false),
        (entries(1, MAX_INDEX + 1, MAX_INDEX + 1), false),
        (purge(2, 3), false),
        (purge(2, 4), false),
        (purge(1, Index::MAX), true),
        (purge(1, MAX_INDEX + 1), true),
        (snapshot(3, 1), false),
        (snapshot(9, 0), false),
        (snapshot(9, 10), false),
    ]
    .into_iter()
    .chain(unreadable().map(|write| (write, false)))
    {
        assert!(note(&mut start(), &write, replaces).is_err(), "{write:?}");
    }
    // One that went ahead of entries that waited for space may have found what it does not expect.
    let mut ahead = start();
    note(&mut ahead, &purge(1, 4), true).unwrap();
    assert_eq!((ahead.log_meta.last().index, ahead.locations.len()), (4, 0), "nothing is left");
}

/// Writes that could be written, and not be read again.
fn unreadable() -> [LogWrite; 6] {
    let nobody = Replica::any(1);
    let claim = |founder, id| {
        let list = std::sync::Arc::new([(id, "a:1".to_owned())].into_iter().collect());
        Standing::Claimed(Claim { cluster: ClusterId(1), ballot: 1, founder, list })
    };
    let standing =
        |standing| LogWrite { standing: Some(Box::new(standing)), ..LogWrite::default() };
    let marks = |replicas: Vec<Replica>| {
        let memories = replicas.into_iter().map(|replica| (replica, Memory::default())).collect();
        let marks = Marks { memories, ..Marks::default() };
        LogWrite { marks: Some(Box::new(marks)), ..LogWrite::default() }
    };
    let vote = HardState { term: Term(9), voted_for: Some(nobody) };
    let many = (0..=MAX_MEMORIES as u64).map(|at| Replica::new(1, at + 1)).collect();
    [
        LogWrite { hard_state: Some(vote), ..LogWrite::default() },
        standing(claim(nobody, 1)),
        standing(claim(Replica::new(1, 7), 0)),
        marks(vec![nobody]),
        marks(vec![Replica::new(0, 1)]),
        marks(many),
    ]
}

#[test]
fn indexes_reach_far() {
    assert_eq!(MAX_INDEX, u64::MAX / 4);
    let mut log = Log::new(true);
    note(&mut log, &purge(1, MAX_INDEX - 1), true).unwrap();
    note(&mut log, &entries(1, MAX_INDEX, MAX_INDEX), false).unwrap();
    note(&mut log, &purge(1, MAX_INDEX), false).unwrap();
}

#[test]
fn a_purge_replaces_a_log_that_does_not_hold_its_entry() {
    let mut log = Log::new(true);
    note(&mut log, &entries(1, 1, 5), false).unwrap();
    note(&mut log, &purge(1, 3), false).unwrap();
    for (term, index, expected) in
        [(1, 3, false), (1, 4, false), (1, 5, false), (2, 4, true), (1, 6, true)]
    {
        assert_eq!(log.replaces(LogId::new(term, 1, index)), expected, "{term} {index}");
    }
    // Those make no sense, and replace nothing.
    assert!(!log.replaces(LogId::new(2, 1, 3)) && !log.replaces(LogId::new(2, 1, 2)));
}

#[test]
fn a_purge_lets_go_of_memory() {
    let mut log = Log::new(true);
    let write = entries(1, 1, 100_000);
    let bytes: usize = write.entries.iter().map(Entry::bytes).sum();
    note(&mut log, &write, false).unwrap();
    log.recent.push(write.entries);
    note(&mut log, &snapshot(100_000, 1), false).unwrap();
    let one = bytes / 100_000;
    assert_eq!(note(&mut log, &purge(1, 99_990), false), Ok(bytes - 10 * one));
    assert_eq!((log.recent.bytes(), log.locations.len()), (10 * one, 10));
    assert!(log.locations.list().capacity() < 1000);
    assert_eq!(log.first_recent(), 99_991);
    assert!(log.location(99_990).is_none() && log.location(99_991).is_some());
    assert_eq!(note(&mut log, &entries(2, 99_995, 99_995), false), Ok(6 * one));
    // Of a log that is told anew, all that was told comes again.
    assert_eq!(log.state_before(5), None);
    let again = log.state_before(6).unwrap();
    assert_eq!(
        (again.purge, again.snapshot),
        (Some(LogId::new(1, 1, 99_990)), log.snapshot.map(Box::new))
    );
    assert_eq!((again.hard_state, again.standing, again.marks), (None, None, None));
}

#[test]
fn a_log_that_was_long_keeps_room_for_twice_of_what_is_left() {
    for (room, left, shrinks) in
        [(1024, 10, false), (1025, 10, true), (4096, 1024, false), (4096, 1023, true)]
    {
        let mut log = Log::new(true);
        log.locations.list().reserve_exact(room);
        let room = log.locations.list().capacity();
        note(&mut log, &entries(1, 1, room as Index), false).unwrap();
        note(&mut log, &purge(1, (room - left) as Index), false).unwrap();
        let now = log.locations.list().capacity();
        assert!(if shrinks { (2 * left..room).contains(&now) } else { now == room }, "{now}");
    }
}

/// What an opening notes of a log whose first segments were removed.
#[derive(Clone, Debug)]
enum Noted {
    Write(LogWrite),
    Replace(LogWrite),
    Copy(LogWrite),
}

fn noted_with_copies(records: &[Noted]) -> Result<(Index, Index, usize), String> {
    let mut log = Log::new(false);
    for (segment, record) in (5..).zip(records) {
        let at = Position { segment, ..AT };
        let (Noted::Write(write) | Noted::Replace(write) | Noted::Copy(write)) = record;
        let spans = vec![Span { offset: 0, len: 50 }; write.entries.len()];
        match record {
            Noted::Copy(write) => log.note_copy(&write.entries, &spans, at)?,
            Noted::Write(write) => drop(log.note(write, false, &spans, at)?),
            Noted::Replace(write) => drop(log.note(write, true, &spans, at)?),
        }
    }
    log.anchor().map_err(|(reason, _)| reason)?;
    assert_eq!(log.locations.bytes(), 50 * log.locations.len() as u64);
    Ok((log.log_meta.purged().index, log.log_meta.last().index, log.locations.len()))
}

#[test]
fn copies_of_what_was_written_in_removed_segments_are_the_begin_of_the_log() {
    use Noted::{Copy, Replace, Write};
    let good = [
        // Nothing else was found; or what follows was, before it or behind it.
        (vec![Copy(entries(1, 1, 3))], (0, 3, 3)),
        (vec![Write(entries(2, 4, 5)), Copy(entries(1, 1, 3))], (0, 5, 5)),
        (vec![Copy(entries(1, 1, 3)), Write(entries(2, 4, 5))], (0, 5, 5)),
        // In parts, in any order, and more than once; also of what was found.
        (vec![Copy(entries(1, 3, 4)), Write(entries(1, 5, 6)), Copy(entries(1, 1, 2))], (0, 6, 6)),
        (vec![Copy(entries(1, 1, 4)), Copy(entries(1, 3, 6)), Copy(entries(1, 1, 1))], (0, 6, 6)),
        (vec![Write(entries(1, 5, 6)), Copy(entries(1, 1, 6))], (0, 6, 6)),
        // A later write truncates what was copied, and what it begins before.
        (vec![Copy(entries(1, 1, 4)), Write(entries(2, 3, 3))], (0, 3, 3)),
        (vec![Write(entries(1, 5, 6)), Copy(entries(1, 1, 4)), Write(entries(2, 3, 3))], (0, 3, 3)),
        // A purge of what is copied, with what follows or without; and of all.
        (vec![Copy(entries(1, 1, 4)), Write(purge(1, 2))], (2, 4, 2)),
        (vec![Write(purge(1, 2)), Copy(entries(1, 3, 4))], (2, 4, 2)),
        (vec![Copy(entries(1, 1, 4)), Write(entries(1, 5, 5)), Write(purge(1, 2))], (2, 5, 3)),
        (vec![Copy(entries(1, 1, 4)), Write(entries(1, 5, 5)), Write(purge(1, 4))], (4, 5, 1)),
        (vec![Copy(entries(1, 1, 4)), Replace(purge(3, 9))], (9, 9, 0)),
        (vec![Copy(entries(1, 1, 4)), Replace(purge(3, 9)), Write(entries(3, 10, 11))], (9, 11, 2)),
        (vec![Write(entries(1, 1, 4)), Copy(entries(1, 2, 3)), Write(purge(1, 2))], (2, 4, 2)),
    ];
    for (records, expected) in good {
        assert_eq!(noted_with_copies(&records), Ok(expected), "{records:?}");
    }
    let bad = [
        (vec![Copy(entries(1, 2, 3))], "the log begins with entry 2, and 0 is purged"),
        (
            vec![Copy(entries(1, 1, 2)), Copy(entries(1, 4, 5))],
            "the entries between 2 and 4 are missing",
        ),
        (
            vec![Copy(entries(1, 1, 2)), Write(entries(1, 4, 5))],
            "the entries between 2 and 4 are missing",
        ),
        (vec![Copy(entries(2, 1, 2)), Copy(entries(1, 3, 3))], "1.1-3 after 2.1-2"),
        (vec![Copy(entries(2, 1, 2)), Write(entries(1, 3, 3))], "1.1-3 after 2.1-2"),
        (vec![Copy(entries(1, 1, 2)), Copy(entries(2, 2, 3))], "a copy of 2.1-2, and one of 1.1-2"),
        (vec![Write(purge(1, 3)), Copy(entries(1, 2, 4))], "a copy of 1.1-2, which"),
        (vec![Write(entries(1, 5, 6)), Copy(entries(1, 6, 7))], "a copy of 1.1-7, which"),
        (vec![Write(entries(1, 5, 6)), Copy(entries(2, 6, 6))], "a copy of 2.1-6, which"),
        (vec![Copy(entries(1, 1, 4)), Write(purge(2, 3))], "2.1-3 is to be purged"),
        (vec![Replace(purge(1, 3)), Copy(entries(1, 4, 4))], "a copy of 1.1-4, which"),
    ];
    for (records, reason) in bad {
        let found = noted_with_copies(&records).expect_err(reason);
        assert!(found.starts_with(reason), "{records:?}: {found}");
    }
}

#[test]
fn an_entry_that_was_copied_is_read_from_there() {
    let mut log = Log::new(true);
    note(&mut log, &entries(1, 1, 5), false).unwrap();
    let at = Position { segment: 9, ..AT };
    log.note_copy(&entries(1, 2, 3).entries, &[Span { offset: 0, len: 50 }; 2], at).unwrap();
    let segments = (1..6).map(|index| log.location(index).unwrap().segment);
    assert_eq!(segments.collect::<Vec<_>>(), [5, 9, 9, 5, 5]);
    assert_eq!((log.locations.bytes_in(5), log.locations.bytes_in(9)), (150, 100));
    assert_eq!(log.locations.first_segment(), Some(5));
    note(&mut log, &entries(2, 3, 3), false).unwrap();
    assert_eq!((log.locations.bytes_in(5), log.locations.bytes_in(9)), (100, 50));
    // One that has moved meanwhile stays where it is.
    let (from, to) = (log.location(1).unwrap(), log.location(2).unwrap());
    log.moved(2, from, EntryLocation { segment: 11, ..to });
    assert_eq!(log.location(2), Some(to));
    log.moved(1, from, EntryLocation { segment: 11, ..from });
    assert_eq!(log.location(1).unwrap().segment, 11);
}

/// A random history of writes, truncations, purges and copies. Whatever of its begin is removed, as
/// nothing stands there that is still needed, the rest tells the same log.
#[test]
fn what_is_left_of_a_history_tells_the_whole_log() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut cut = 0;
    for _ in 0..3000 {
        let (mut log, mut term, mut history) = (Log::new(true), 1, Vec::new());
        let run = |log: &Log, first: Index, last: Index| -> Entries {
            (first..=last)
                .map(|index| {
                    let log_id = log.log_meta.log_id(index).unwrap();
                    Entry { log_id, time: index, payload: Payload::Blank }
                })
                .collect()
        };
        for segment in 1..6 + below(20) as u32 {
            let (begin, last) = (log.log_meta.purged().index + 1, log.log_meta.last().index);
            let held = last + 1 - begin;
            let (mut write, is_copy) = match below(8) {
                0 if held > 0 => (purge(1, begin + below(held)), false),
                1..=3 if held > 0 => {
                    let first = begin + below(held);
                    let copied = run(&log, first, last.min(first + below(5)));
                    (LogWrite { entries: copied, ..LogWrite::default() }, true)
                }
                4 if held > 0 => {
                    term += 1;
                    let first = begin + below(held);
                    (entries(term, first, first + below(4)), false)
                }
                _ => (entries(term, last + 1, last + 1 + below(4)), false),
            };
            write.purge = write.purge.and_then(|to| log.log_meta.log_id(to.index));
            let spans = vec![Span { offset: 0, len: 50 }; write.entries.len()];
            let at = Position { segment, ..AT };
            match is_copy {
                true => log.note_copy(&write.entries, &spans, at).unwrap(),
                false => drop(log.note(&write, false, &spans, at).unwrap()),
            }
            history.push((at, write, is_copy));
        }
        let first = log.locations.first_segment().unwrap_or(1);
        let mut left = Log::new(false);
        for (at, write, is_copy) in history.iter().filter(|(at, ..)| at.segment >= first) {
            let spans = vec![Span { offset: 0, len: 50 }; write.entries.len()];
            match is_copy {
                true => left.note_copy(&write.entries, &spans, *at).unwrap(),
                false => drop(left.note(write, false, &spans, *at).unwrap()),
            }
        }
        // Told again before the others went.
        let again = LogWrite { purge: Some(log.purged), ..LogWrite::default() };
        note(&mut left, &again, false).unwrap();
        left.anchor().unwrap();
        assert_eq!(left.log_meta, log.log_meta, "{history:?} from {first}");
        assert_eq!(left.locations.list(), log.locations.list(), "{history:?} from {first}");
        let is_early = |of: &(Position, LogWrite, bool)| of.2 && of.0.segment >= first;
        cut += usize::from(first > 1 && history.iter().any(is_early));
    }
    assert!(cut > 500, "{cut}");
}
