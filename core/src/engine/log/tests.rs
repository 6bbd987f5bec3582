//! What is in whose hands, and what is durable.

use super::*;
use crate::identity::Replica;
use crate::membership::tests::founded;
use crate::snapshot::Digest;
use crate::types::Payload;

fn log() -> Log {
    Log::new(LogMeta::default(), None)
}

fn push(log: &mut Log, term: u64, leader: u64, index: Index) {
    let log_id = LogId::new(term, leader, index);
    log.push(Entry { log_id, time: 0, payload: Payload::Blank });
}

/// Nothing is told beside the log.
fn alone() -> Beside {
    Beside::default()
}

fn take(log: &mut Log) -> Option<(u64, LogWrite)> {
    log.is_unhanded().then(|| log.take_write(alone(), Instant::default()))
}

fn write(log: &mut Log) -> u64 {
    take(log).expect("something is fresh").0
}

#[test]
fn an_entry_is_durable_when_its_write_is() {
    let mut log = log();
    push(&mut log, 1, 1, 1);
    push(&mut log, 1, 1, 2);
    let first = write(&mut log);
    push(&mut log, 1, 1, 3);
    let second = write(&mut log);
    assert_eq!(log.durable(), 0);
    log.persisted(first);
    assert_eq!(log.durable(), 2);
    log.persisted(second);
    assert_eq!(log.durable(), 3);
    assert!(take(&mut log).is_none(), "nothing is fresh");
}

#[test]
fn one_completion_covers_all_writes_before_it() {
    let mut log = log();
    let hard_state = HardState { term: Term(2), voted_for: Some(Replica::new(1, 7)) };
    push(&mut log, 1, 1, 1);
    let beside = Beside { hard_state: Some(hard_state), standings: 3, ..alone() };
    log.take_write(beside, Instant::default());
    push(&mut log, 1, 1, 2);
    let beside = Beside { standings: 4, ..alone() };
    let (second, _) = log.take_write(beside, Instant::default());
    assert_eq!(log.persisted(second), (Some(hard_state), 4));
    assert_eq!(log.durable(), 2);
    assert_eq!(log.persisted(second), (None, 0), "a repetition says nothing");
}

/// The disk is full: votes go ahead of entries that wait for space, and say nothing of them.
#[test]
fn what_goes_ahead_of_a_write_that_waits_does_not_make_that_durable() {
    let mut log = log();
    let voted = |term| HardState { term: Term(term), voted_for: Some(Replica::new(1, 7)) };
    push(&mut log, 1, 1, 1);
    let first = write(&mut log);
    push(&mut log, 1, 1, 2);
    let beside = Beside { hard_state: Some(voted(2)), standings: 1, ..alone() };
    let (waits, _) = log.take_write(beside, Instant::default());
    log.persisted(first);
    log.delayed(waits);
    let vote = |log: &mut Log, term, standings| {
        let beside = Beside { hard_state: Some(voted(term)), standings, ..alone() };
        let (number, _) = log.take_write(beside, Instant::default());
        log.persisted(number)
    };
    assert_eq!(vote(&mut log, 3, 1), (Some(voted(3)), 0));
    assert_eq!(vote(&mut log, 4, 2), (Some(voted(4)), 0));
    assert_eq!(log.durable(), 1);
    // What went ahead is complete with it, and tells of its standing.
    assert_eq!(log.persisted(waits), (Some(voted(2)), 2));
    assert_eq!(log.durable(), 2);
    assert_eq!(vote(&mut log, 5, 2), (Some(voted(5)), 2));
}

/// Without any entry: a promise waits for it.
#[test]
fn what_is_told_beside_the_log_is_written_at_once() {
    let cluster = ClusterId(5);
    let told = [
        Beside { hard_state: Some(HardState::default()), ..alone() },
        Beside { cluster: Some(cluster), ..alone() },
        Beside { standing: Some(Box::new(Standing::Admitted(cluster))), standings: 1, ..alone() },
    ];
    let mut log = log();
    for beside in told {
        let expected = (beside.hard_state, beside.cluster, beside.standing.clone());
        let (number, write) = log.take_write(beside, Instant::default());
        assert_eq!((write.hard_state, write.cluster, write.standing), expected);
        assert!(write.entries.is_empty());
        log.persisted(number);
    }
    assert!(take(&mut log).is_none());
}

#[test]
fn a_completion_does_not_cover_what_replaces_its_entries() {
    let mut log = log();
    push(&mut log, 1, 1, 1);
    push(&mut log, 1, 1, 2);
    let first = write(&mut log);
    log.truncate(2);
    push(&mut log, 2, 2, 2);
    let second = write(&mut log);
    log.persisted(first);
    assert_eq!(log.durable(), 1, "entry 2 is another one by now");
    log.persisted(second);
    assert_eq!(log.durable(), 2);
}

/// R9: the entry comes back with the same log id while its first write, and that of another in its
/// place, are on their way.
#[test]
fn a_completion_does_not_cover_the_same_entry_written_again() {
    let mut log = log();
    push(&mut log, 1, 1, 1);
    push(&mut log, 1, 1, 2);
    let first = write(&mut log);
    log.truncate(2);
    push(&mut log, 2, 2, 2);
    let second = write(&mut log);
    log.truncate(2);
    push(&mut log, 1, 1, 2);
    let third = write(&mut log);
    log.persisted(first);
    assert_eq!(log.durable(), 1, "a crash may still leave the entry of term 2");
    log.persisted(second);
    assert_eq!(log.durable(), 1);
    log.persisted(third);
    assert_eq!(log.durable(), 2);
}

#[test]
fn a_truncation_takes_back_what_was_durable() {
    let mut log = log();
    for index in 1..=3 {
        push(&mut log, 1, 1, index);
    }
    let first = write(&mut log);
    log.persisted(first);
    log.truncate(2);
    push(&mut log, 2, 2, 2);
    assert_eq!(log.durable(), 1);
}

#[test]
fn fresh_entries_are_at_hand_until_the_turn_ends() {
    let mut log = log();
    push(&mut log, 1, 1, 1);
    write(&mut log);
    assert_eq!(log.fresh_from(1).as_deref().map(<[_]>::len), Some(1));
    log.end_turn();
    assert!(log.fresh_from(1).is_none());
    push(&mut log, 1, 1, 2);
    push(&mut log, 1, 1, 3);
    assert!(log.fresh_from(1).is_none(), "the first is not at hand");
    assert_eq!(log.fresh_from(3).as_deref().map(<[_]>::len), Some(1));
    log.truncate(3);
    assert_eq!(log.fresh_from(2).as_deref().map(<[_]>::len), Some(1));
}

#[test]
fn a_second_write_of_a_turn_holds_what_the_first_does_not() {
    let indexes = |log: &mut Log| {
        let write = take(log);
        let entries = write.map(|(_, write)| write.entries).unwrap_or_default();
        entries.iter().map(|entry| (entry.log_id.term.0, entry.log_id.index)).collect::<Vec<_>>()
    };
    let mut log = log();
    push(&mut log, 1, 1, 1);
    push(&mut log, 1, 1, 2);
    assert_eq!(indexes(&mut log), [(1, 1), (1, 2)]);
    assert_eq!(indexes(&mut log), []);
    push(&mut log, 1, 1, 3);
    assert_eq!(indexes(&mut log), [(1, 3)]);
    // What is cut and written anew is not what was submitted.
    log.truncate(2);
    push(&mut log, 2, 2, 2);
    assert_eq!(indexes(&mut log), [(2, 2)]);
    log.end_turn();
    push(&mut log, 2, 2, 3);
    assert_eq!(indexes(&mut log), [(2, 3)]);
}

fn snapshot(term: u64, leader: u64, index: Index) -> SnapshotMeta {
    SnapshotMeta {
        log_id: LogId::new(term, leader, index),
        time: 0,
        membership: founded(&[1]),
        membership_index: 1,
        bytes: 0,
        digest: Digest::of(b""),
    }
}

/// Entries 1 to 3, written and durable, and 4 to 6, of which 4 is being written.
fn growing() -> Log {
    let mut log = log();
    (1..=3).for_each(|index| push(&mut log, 1, 1, index));
    let first = write(&mut log);
    log.persisted(first);
    push(&mut log, 1, 1, 4);
    write(&mut log);
    push(&mut log, 1, 1, 5);
    push(&mut log, 1, 1, 6);
    log
}

#[test]
fn what_follows_a_snapshot_that_the_log_holds_stays() {
    for (covered, written) in [(2, vec![5, 6]), (4, vec![5, 6]), (5, vec![6]), (6, vec![])] {
        let mut log = growing();
        log.install(snapshot(1, 1, covered), 1);
        assert_eq!((log.purged().index, log.last().index), (covered, 6));
        assert_eq!(log.durable(), 3, "a snapshot is no reason to doubt what is durable");
        let (number, content) = take(&mut log).expect("it is to be named");
        assert_eq!(content.snapshot, Some(Box::new(snapshot(1, 1, covered))));
        assert_eq!(content.purge, Some(LogId::new(1, 1, covered)));
        let indexes: Vec<_> = content.entries.iter().map(|entry| entry.log_id.index).collect();
        assert_eq!(indexes, written, "behind {covered}");
        log.persisted(number);
        assert_eq!(log.durable(), 6);
    }
}

#[test]
fn a_log_that_does_not_hold_the_snapshots_end_is_replaced() {
    for end in [LogId::new(2, 2, 2), LogId::new(2, 2, 5), LogId::new(2, 2, 9)] {
        let mut log = growing();
        log.install(snapshot(2, 2, end.index), 1);
        assert_eq!((log.purged(), log.last()), (end, end));
        assert_eq!(
            log.durable(),
            1,
            "what was durable beyond the commit index may be others' by now"
        );
        let (number, content) = take(&mut log).expect("it is to be named");
        assert!(content.entries.is_empty());
        log.persisted(number - 1);
        assert_eq!(log.durable(), 1, "the write before was of the log that is gone");
        log.persisted(number);
        assert_eq!(log.durable(), end.index);
    }
}

#[test]
fn a_purge_that_was_made_before_changes_nothing() {
    let mut log = growing();
    write(&mut log);
    log.name_snapshot(snapshot(1, 1, 3));
    log.purge(2);
    let (_, content) = take(&mut log).expect("there is something");
    assert_eq!(content.purge, Some(LogId::new(1, 1, 2)));
    log.purge(2);
    log.purge(1);
    assert!(take(&mut log).is_none());
}

#[test]
fn a_compaction_is_durable_when_the_write_that_tells_of_it_is() {
    let mut log = growing();
    let before = write(&mut log);
    assert!(log.compaction_is_durable(), "there is none");
    log.name_snapshot(snapshot(1, 1, 3));
    assert!(!log.compaction_is_durable(), "named, and not yet written");
    let named = write(&mut log);
    assert!(!log.compaction_is_durable());
    log.persisted(before);
    assert!(!log.compaction_is_durable());
    log.persisted(named);
    assert!(log.compaction_is_durable());
    log.purge(3);
    assert!(!log.compaction_is_durable(), "purged, and not yet written");
    let purged = write(&mut log);
    push(&mut log, 1, 1, 7);
    write(&mut log);
    assert!(!log.compaction_is_durable());
    log.persisted(purged);
    assert!(log.compaction_is_durable(), "what is written since tells of nothing new");
}
