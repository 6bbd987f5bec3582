//! The shape of a log against the log itself.

use super::*;
use crate::membership::tests::founded as membership;
use crate::types::NodeId;

fn blank(term: u64, leader: NodeId, index: Index) -> Entry {
    Entry { log_id: LogId::new(term, leader, index), time: 0, payload: Payload::Blank }
}

/// Entries of these terms, whose leaders have the number of the term.
fn log(terms: &[u64]) -> LogMeta {
    let mut log_meta = LogMeta::default();
    for (term, index) in terms.iter().zip(1..) {
        log_meta.push(&blank(*term, *term, index));
    }
    log_meta
}

#[test]
fn an_empty_log_ends_before_the_first_entry() {
    let log_meta = LogMeta::default();
    assert_eq!(log_meta.last(), LogId::ZERO);
    assert_eq!(log_meta.log_id(0), Some(LogId::ZERO));
    assert_eq!(log_meta.log_id(1), None);
    assert!(log_meta.contains(LogId::ZERO));
    assert!(!log_meta.contains(LogId::FIRST));
    assert_eq!(log_meta.last_at_most(7, Term(7)), LogId::ZERO);
    assert_eq!(log_meta.membership(), None);
}

#[test]
fn each_entry_has_the_log_id_that_it_was_pushed_with() {
    let terms = [0, 1, 1, 1, 3, 4, 4];
    let log_meta = log(&terms);
    for (term, index) in terms.iter().zip(1..) {
        let log_id = LogId::new(*term, *term, index);
        assert_eq!(log_meta.log_id(index), Some(log_id));
        assert!(log_meta.contains(log_id));
        assert!(!log_meta.contains(LogId::new(*term + 1, *term, index)), "another term");
        assert!(!log_meta.contains(LogId::new(*term, *term + 1, index)), "another leader");
    }
    assert_eq!(log_meta.log_id(8), None);
    assert!(!log_meta.contains(LogId::new(4, 4, 8)), "beyond the end");
    assert_eq!(log_meta.last(), LogId::new(4, 4, 7));
}

#[test]
fn what_may_follow() {
    let log_meta = log(&[0, 2, 2]);
    assert!(log_meta.follows(LogId::new(2, 2, 4)));
    assert!(log_meta.follows(LogId::new(3, 1, 4)), "a later term, another leader");
    assert!(!log_meta.follows(LogId::new(2, 1, 4)), "a term has one leader");
    assert!(!log_meta.follows(LogId::new(1, 1, 4)), "a term never falls");
    assert!(!log_meta.follows(LogId::new(2, 2, 5)), "a gap");
    assert!(!log_meta.follows(LogId::new(2, 2, 3)), "a repetition");
    assert!(LogMeta::default().follows(LogId::FIRST));
}

#[test]
fn a_truncated_log_is_the_log_that_was_never_longer() {
    let terms = [0, 1, 1, 3, 3, 4];
    for keep in 0..=terms.len() {
        let mut log_meta = log(&terms);
        log_meta.truncate(keep as Index + 1);
        assert_eq!(log_meta, log(&terms[..keep]), "cut after {keep}");
    }
    let mut log_meta = log(&terms);
    log_meta.truncate(9);
    assert_eq!(log_meta, log(&terms), "there is nothing to cut");
}

#[test]
fn a_log_grows_again_after_a_truncation() {
    let mut log_meta = log(&[0, 1, 1, 1]);
    log_meta.truncate(3);
    log_meta.push(&blank(2, 7, 3));
    assert_eq!(log_meta.log_id(2), Some(LogId::new(1, 1, 2)));
    assert_eq!(log_meta.last(), LogId::new(2, 7, 3));
    // The same leader goes on where it was cut: one run, not two.
    let mut log_meta = log(&[0, 1, 1, 1]);
    log_meta.truncate(3);
    log_meta.push(&blank(1, 1, 3));
    assert_eq!(log_meta, log(&[0, 1, 1]));
}

#[test]
fn last_at_most_is_the_last_entry_of_a_term_not_above() {
    let terms = [0, 1, 1, 3, 3, 6];
    let log_meta = log(&terms);
    for index in 0..=8 {
        for term in 0..=7 {
            let fitting = terms.iter().zip(1..).filter(|(t, i)| *i <= index && **t <= term);
            let expected = fitting.last();
            let expected = expected.map_or(LogId::ZERO, |(t, i)| LogId::new(*t, *t, i));
            assert_eq!(log_meta.last_at_most(index, Term(term)), expected, "{index}, {term}");
        }
    }
}

/// M8: the configuration before comes back when the one after is truncated.
#[test]
fn the_last_membership_is_in_force_until_it_is_truncated() {
    let mut log_meta = LogMeta::default();
    let push = |log_meta: &mut LogMeta, log_id, ids: &[NodeId]| {
        let payload = Payload::Membership(membership(ids));
        log_meta.push(&Entry { log_id, time: 0, payload });
    };
    push(&mut log_meta, LogId::FIRST, &[1]);
    log_meta.push(&blank(1, 1, 2));
    push(&mut log_meta, LogId::new(1, 1, 3), &[1, 2]);
    log_meta.push(&blank(1, 1, 4));
    assert_eq!(log_meta.membership(), Some((3, &membership(&[1, 2]))));
    log_meta.truncate(4);
    assert_eq!(log_meta.membership(), Some((3, &membership(&[1, 2]))));
    log_meta.truncate(3);
    assert_eq!(log_meta.membership(), Some((1, &membership(&[1]))));
    log_meta.truncate(1);
    assert_eq!(log_meta.membership(), None);
}

/// The log has a later membership than the snapshot, which was not committed and goes with it (M6).
#[test]
fn the_membership_of_a_log_that_a_snapshot_replaces_is_forgotten() {
    let mut log_meta = LogMeta::default();
    for (log_id, ids) in [(LogId::FIRST, &[1][..]), (LogId::new(1, 1, 2), &[1, 2])] {
        let payload = Payload::Membership(membership(ids));
        log_meta.push(&Entry { log_id, time: 0, payload });
    }
    log_meta.purge(LogId::new(2, 2, 9));
    assert_eq!(log_meta.membership(), None);
    log_meta.set_membership(1, membership(&[1]));
    assert_eq!(log_meta.membership(), Some((1, &membership(&[1]))));
}

/// Entries `1..=terms.len()` of these terms, purged up to `purged`.
fn purged(terms: &[u64], purged: usize) -> LogMeta {
    let mut log_meta = log(terms);
    log_meta.purge(log_meta.log_id(purged as Index).unwrap());
    log_meta
}

#[test]
fn a_purged_log_answers_for_what_is_left_and_for_the_entry_before() {
    let terms = [0, 1, 1, 1, 3, 3, 4];
    for cut in 0..=terms.len() {
        let log_meta = purged(&terms, cut);
        let whole = log(&terms);
        assert_eq!(log_meta.purged(), whole.log_id(cut as Index).unwrap());
        assert_eq!(log_meta.last(), whole.last(), "S6: the last log id is not lost");
        for index in 1..=8 {
            let expected = whole.log_id(index).filter(|log_id| log_id.index >= cut as Index);
            assert_eq!(log_meta.log_id(index), expected, "{index} of a log purged to {cut}");
        }
        assert!(log_meta.contains(LogId::ZERO));
        for index in 0..=8 {
            for term in 0..=5 {
                let expected = whole.last_at_most(index, Term(term));
                let expected = if expected.index < cut as Index { LogId::ZERO } else { expected };
                let found = log_meta.last_at_most(index, Term(term));
                assert_eq!(found, expected, "{index}, {term} of a log purged to {cut}");
            }
        }
    }
}

#[test]
fn a_purged_log_is_the_log_that_has_begun_there_and_grows_and_shrinks_like_it() {
    let terms = [0, 1, 1, 1, 3, 3, 4];
    for cut in 0..=terms.len() {
        let mut begun = LogMeta::after(log(&terms).log_id(cut as Index).unwrap());
        for (term, index) in terms.iter().zip(1..).skip(cut) {
            begun.push(&blank(*term, *term, index));
        }
        let mut log_meta = purged(&terms, cut);
        assert_eq!(log_meta, begun, "purged to {cut}");
        log_meta.push(&blank(4, 4, 8));
        log_meta.truncate(cut as Index + 1);
        assert_eq!(log_meta, LogMeta::after(begun.purged()), "purged to {cut} and cut to nothing");
        assert_eq!(log_meta.last(), begun.purged());
        log_meta.push(&blank(5, 5, cut as Index + 1));
        assert_eq!(log_meta.last(), LogId::new(5, 5, cut as Index + 1));
    }
}

#[test]
fn purging_twice_or_less_changes_nothing() {
    let terms = [0, 1, 1, 3];
    let mut log_meta = purged(&terms, 3);
    log_meta.purge(LogId::new(1, 1, 3));
    log_meta.purge(LogId::new(1, 1, 2));
    log_meta.purge(LogId::ZERO);
    assert_eq!(log_meta, purged(&terms, 3));
}

#[test]
fn what_contradicts_the_log_or_lies_beyond_it_takes_its_place() {
    for to in [LogId::new(2, 2, 3), LogId::new(1, 2, 3), LogId::new(3, 3, 5), LogId::new(4, 4, 9)] {
        let mut log_meta = log(&[0, 1, 1, 3]);
        log_meta.purge(to);
        assert_eq!(log_meta, LogMeta::after(to));
        assert_eq!((log_meta.purged(), log_meta.last()), (to, to));
        assert_eq!(log_meta.membership(), None);
    }
}

/// M7: the entry that brought the membership in force may be purged, again and again.
#[test]
fn the_membership_in_force_outlives_its_entry() {
    let mut log_meta = LogMeta::default();
    let push = |log_meta: &mut LogMeta, log_id, ids: &[NodeId]| {
        let payload = Payload::Membership(membership(ids));
        log_meta.push(&Entry { log_id, time: 0, payload });
    };
    push(&mut log_meta, LogId::FIRST, &[1]);
    push(&mut log_meta, LogId::new(1, 1, 2), &[1, 2]);
    log_meta.push(&blank(1, 1, 3));
    push(&mut log_meta, LogId::new(1, 1, 4), &[1, 2, 3]);
    for to in [1, 3] {
        log_meta.purge(log_meta.log_id(to).unwrap());
        assert_eq!(log_meta.membership(), Some((4, &membership(&[1, 2, 3]))));
    }
    log_meta.truncate(4);
    assert_eq!(log_meta.membership(), Some((2, &membership(&[1, 2]))), "M8");
    log_meta.purge(LogId::new(2, 2, 9));
    log_meta.set_membership(7, membership(&[5]));
    assert_eq!(log_meta.membership(), Some((7, &membership(&[5]))), "M6");
}

#[test]
fn going_back_by_bytes_is_right_to_within_a_mark() {
    let entry = |index| Entry {
        log_id: LogId::new(1, 1, index),
        time: 0,
        payload: Payload::Command(vec![0; 10_000 - Entry::OVERHEAD_BYTES].into()),
    };
    let entries: Entries = (1..=1000).map(entry).collect();
    for run in [1, 5, 1000] {
        let mut log_meta = LogMeta::default();
        for begin in (0..1000).step_by(run) {
            log_meta.extend(&entries.slice(begin..begin + run));
        }
        let mark = MARK_BYTES / 10_000 + 1;
        for from in [1000, 500, 20] {
            assert_eq!(log_meta.back_by(from, 0), from);
            for entries in [1, 7, 100, 400] {
                let exact = from.saturating_sub(entries);
                let found = log_meta.back_by(from, entries * 10_000);
                let range = exact.saturating_sub(2 * mark)..=exact + mark;
                assert!(range.contains(&found), "{found} is {entries} before {from}");
            }
            assert_eq!(log_meta.back_by(from, u64::MAX / 2), 0);
        }
        log_meta.purge(LogId::new(1, 1, 300));
        assert_eq!(log_meta.back_by(500, u64::MAX / 2), 300, "not beyond where the log begins");
        assert_eq!(log_meta.back_by(100, 0), 300);
        let before = log_meta.back_by(700, 1_000_000);
        log_meta.truncate(800);
        (800..=900).for_each(|index| log_meta.push(&entry(index)));
        assert_eq!(log_meta.back_by(700, 1_000_000), before, "what was cut does not count");
    }
}

#[test]
fn a_run_is_noted_as_its_entries_are_up_to_the_first_that_does_not_follow() {
    let run = |terms: &[u64]| {
        (3..).zip(terms).map(|(index, term)| blank(*term, *term, index)).collect::<Entries>()
    };
    for terms in [&[2; 4][..], &[2, 2, 3], &[2; 5000]] {
        let run = run(terms);
        let (mut log_meta, mut one_by_one) = (log(&[1, 1]), log(&[1, 1]));
        assert_eq!(log_meta.try_extend(&run), Ok(()));
        run.iter().for_each(|entry| one_by_one.push(entry));
        assert_eq!(log_meta, one_by_one);
        assert_eq!(log_meta.try_extend(&run), Err(LogId::new(2, 2, 3)), "it is there already");
        assert_eq!(log_meta, one_by_one);
    }
    let mut log_meta = log(&[1, 1]);
    assert_eq!(log_meta.try_extend(&run(&[2, 3, 2])), Err(LogId::new(2, 2, 5)));
    assert_eq!(log_meta, log(&[1, 1, 2, 3]));
}

/// A log that was cut or purged may tell a later time than it holds, and never an earlier one.
#[test]
fn the_largest_time_is_that_of_any_entry_that_was_ever_there() {
    let timed = |index, time| Entry { time, ..blank(1, 1, index) };
    let mut log_meta = LogMeta::default();
    assert_eq!(log_meta.time(), 0);
    log_meta.push(&timed(1, 1000));
    log_meta.push(&timed(2, 900));
    assert_eq!(log_meta.time(), 1000);
    log_meta.extend(&[1000, 1100, 1200].into_iter().zip(3..).map(|(t, i)| timed(i, t)).collect());
    log_meta.extend_plain(LogId::new(1, 1, 6), 1300, [100, 200]);
    assert_eq!(log_meta.time(), 1300);
    log_meta.truncate(4);
    assert_eq!(log_meta.time(), 1300);
    log_meta.purge(LogId::new(2, 2, 9));
    assert_eq!(log_meta.time(), 1300);
}

/// An outline that knows the entries from `from` on, and not which comes before.
fn rest(entries: &[Entry], from: usize) -> LogMeta {
    let unknown = LogId { index: from as Index, ..LogId::ZERO };
    let mut rest = LogMeta::after(unknown);
    entries[from..].iter().for_each(|entry| rest.push(entry));
    rest
}

#[test]
fn two_parts_of_a_log_are_joined() {
    let mut entries: Vec<Entry> = [1, 1, 2, 2, 2, 5, 5]
        .iter()
        .zip(1..)
        .map(|(term, index)| blank(*term, *term, index))
        .collect();
    entries[1].payload = Payload::Membership(membership(&[1, 2]));
    entries[4].payload = Payload::Membership(membership(&[1, 2, 3]));
    let whole = rest(&entries, 0);
    for from in 0..=entries.len() {
        let mut joined = LogMeta::default();
        for entry in &entries[..from] {
            let of_entry = match &entry.payload {
                Payload::Membership(membership) => Some(membership.clone()),
                _ => None,
            };
            joined.try_push(entry.log_id, entry.time, entry.bytes(), of_entry).unwrap();
        }
        assert_eq!(joined.try_join(rest(&entries, from)), Ok(()));
        assert_eq!(joined, whole, "from {from}");
        assert_eq!((joined.bytes, joined.time), (whole.bytes, whole.time));
        joined.push(&blank(5, 5, 8));
        joined.truncate(5);
        assert_eq!(joined.membership().unwrap().0, 2);
    }
}

#[test]
fn what_does_not_follow_is_not_joined() {
    let entries: Vec<Entry> = (1..7).map(|index| blank(2, 2, index)).collect();
    let before = |terms: &[u64]| log(terms);
    for (terms, from) in [(&[2, 2][..], 3), (&[2, 2], 1), (&[3, 3], 2), (&[][..], 1)] {
        let mut joined = before(terms);
        assert_eq!(joined.try_join(rest(&entries, from)), Err(entries[from].log_id));
        assert_eq!(joined, before(terms), "nothing is noted");
        assert_eq!(joined.try_push(entries[from].log_id, 0, 10, None), Err(entries[from].log_id));
    }
    let mut joined = before(&[2, 2]);
    assert_eq!(joined.try_join(rest(&entries, 6)), Ok(()), "an empty one");
    assert_eq!(joined, before(&[2, 2]));
}

/// What lies behind a join is where it would be in a log that was never two.
#[test]
fn going_back_by_bytes_goes_over_a_join() {
    let large =
        |index| Entry { payload: Payload::Command(vec![1; 30_000].into()), ..blank(1, 1, index) };
    let entries: Vec<Entry> = (1..41).map(large).collect();
    let whole = rest(&entries, 0);
    let mut joined = rest(&entries[..20], 0);
    joined.try_join(rest(&entries, 20)).unwrap();
    for bytes in [1, 100_000, 500_000, 900_000] {
        let (found, expected) = (joined.back_by(40, bytes), whole.back_by(40, bytes));
        assert!(found.abs_diff(expected) <= 4, "{found} and {expected} for {bytes}");
    }
}
