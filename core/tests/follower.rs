//! One node, and peers whose messages are made by hand: what it answers, and when.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::engine::{Engine, Incoming, Input, Output};
use quorate_core::{
    AppendOutcome, Body, Config, Digest, Entries, Entry, HardState, Index, LogId, Membership,
    Message, Outline, Payload, Recovered, Role, SnapshotMeta, Term, Vote,
};
use quorate_rt::Instant;

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        log_id: LogId::new(1, 2, index),
        membership: Membership::new([1, 2, 3].map(|id| (id, String::new())).into()).expect("valid"),
        membership_index: 1,
        bytes: 10,
        digest: Digest::of(&index.to_le_bytes()),
    }
}

/// What node 2, the leader of term 1, says.
fn says(body: Body) -> Input {
    Input::Message(Message { group: 0, from: 2, to: 1, term: Term(1), body })
}

fn piece(index: u64, chunk: &'static [u8]) -> Input {
    says(Body::Snapshot { meta: meta(index), offset: 0, chunk: Bytes::from_static(chunk) })
}

fn entries(range: std::ops::RangeInclusive<Index>) -> Vec<Entry> {
    let entry = |index| Entry { log_id: LogId::new(1, 2, index), payload: Payload::Blank };
    range.map(entry).collect()
}

fn append(after: Index, upto: Index, committed: Index, round: u64) -> Input {
    let prev = if after == 0 { LogId::ZERO } else { LogId::new(1, 2, after) };
    says(Body::Append { prev, committed, round, entries: entries(after + 1..=upto).into() })
}

/// Node 1, whose log goes from behind `purged` to `last` and is durable. It has heard from nobody yet.
fn follower(purged: Index, last: Index) -> Engine {
    let mut outline = match purged {
        0 => Outline::default(),
        purged => Outline::after(LogId::new(1, 2, purged)),
    };
    entries(purged + 1..=last).iter().for_each(|entry| outline.push(entry));
    let hard_state = HardState { term: Term(1), voted_for: Some(2), caught_up: true };
    let snapshot = (purged > 0).then(|| meta(purged));
    let recovered = Recovered { hard_state, snapshot, outline };
    let mut engine = Engine::new(1, 0, Config::default(), recovered, 1, Instant::default());
    output_of(&mut engine);
    engine
}

/// What comes of this.
fn after(engine: &mut Engine, input: Input) -> Output {
    engine.step(Instant::default(), input);
    output_of(engine)
}

fn output_of(engine: &mut Engine) -> Output {
    let mut output = Box::<Output>::default();
    engine.take_output(&mut output);
    *output
}

/// The one answer in an output, to an append.
fn answer(output: &Output) -> (u64, AppendOutcome) {
    match &output.messages[..] {
        [Message { body: Body::AppendReply { round, outcome }, .. }] => (*round, *outcome),
        other => panic!("one answer to an append is wanted: {other:?}"),
    }
}

fn accepted(matched: Index) -> AppendOutcome {
    AppendOutcome::Accepted { matched }
}

#[test]
fn entries_are_answered_when_they_are_durable_and_a_new_round_at_once() {
    let mut follower = follower(0, 3);
    let output = after(&mut follower, append(3, 4, 3, 0));
    assert_eq!(answer(&output), (0, accepted(3)), "it says for the first time how far it agrees");
    let output = after(&mut follower, append(4, 5, 3, 0));
    assert!(output.messages.is_empty(), "nothing new is durable: {:?}", output.messages);
    let output = after(&mut follower, append(5, 6, 3, 1));
    assert_eq!(answer(&output), (1, accepted(3)), "a round asks whether it is there");
    let output = after(&mut follower, append(6, 7, 3, 1));
    assert!(output.messages.is_empty(), "the same round again: {:?}", output.messages);
    let output = after(&mut follower, Input::Persisted { write: 2 });
    assert_eq!(answer(&output), (1, accepted(5)));
}

#[test]
fn a_membership_is_told_when_it_is_appended_and_not_again() {
    let mut follower = follower(0, 0);
    let membership = meta(1).membership;
    let append = |term, prev, entries: Vec<Entry>| {
        let body = Body::Append { prev, committed: 0, round: 1, entries: entries.into() };
        Input::Message(Message { group: 0, from: 2, to: 1, term: Term(term), body })
    };
    let payload = Payload::Membership(membership.clone());
    let first = Entry { log_id: LogId::new(1, 2, 1), payload };
    let output = after(&mut follower, append(1, LogId::ZERO, vec![first]));
    assert_eq!(output.membership, Some(membership));
    // Of two terms, so that each of them has to be looked at.
    let others = [(1, 2), (2, 3)].map(|(term, index)| (LogId::new(term, 2, index), Payload::Blank));
    let others = others.map(|(log_id, payload)| Entry { log_id, payload }).into();
    let output = after(&mut follower, append(2, LogId::new(1, 2, 1), others));
    assert_eq!((follower.last_log_id().index, output.membership), (3, None));
}

#[test]
fn appends_that_begin_before_a_purged_log_are_taken_from_there_on() {
    for (first, last, end) in [(2, 4, 5), (2, 5, 5), (4, 5, 5), (2, 7, 7), (0, 7, 7), (5, 7, 7)] {
        let mut follower = follower(5, 5);
        let output = after(&mut follower, append(first, last, 5, 1));
        let written = output.write.as_ref().map(|(_, write)| write.entries.clone());
        assert_eq!(written.unwrap_or_default(), entries(6..=end), "{first} to {last}");
        assert_eq!(answer(&output), (1, accepted(5)), "{first} to {last}");
        assert_eq!(follower.last_log_id().index, end);
    }
}

#[test]
fn a_heartbeat_without_a_place_says_nothing_of_a_purged_log() {
    let mut follower = follower(5, 8);
    let output = after(&mut follower, append(0, 0, 8, 1));
    assert_eq!(answer(&output), (1, accepted(0)));
    assert_eq!(follower.committed(), 5, "where the log agrees with the leader's is not known");
    let output = after(&mut follower, append(3, 3, 8, 1));
    assert_eq!(answer(&output), (1, accepted(5)), "what is purged is committed");
}

#[test]
fn a_snapshot_of_what_is_committed_is_not_taken_and_one_of_more_is() {
    let mut follower = follower(0, 6);
    after(&mut follower, append(6, 6, 5, 0));
    assert_eq!(follower.committed(), 5);
    for index in [4, 5] {
        let output = after(&mut follower, piece(index, b""));
        assert_eq!(answer(&output), (0, accepted(6)), "it has all of that");
        assert!(output.incoming.is_empty());
    }
    let output = after(&mut follower, piece(6, b""));
    assert_eq!(output.incoming, [Incoming::Begin(meta(6).digest)]);
}

#[test]
fn other_candidates_are_refused_for_one_election_timeout_after_the_leaders_word() {
    let timeout = Config::default().election_timeout;
    for (early, leader) in [(Duration::from_nanos(1), Some(2)), (Duration::ZERO, None)] {
        let mut follower = follower(0, 3);
        after(&mut follower, append(3, 3, 3, 0));
        let body = Body::Vote { last_log_id: LogId::new(1, 2, 3), handover: false };
        let vote = Message { group: 0, from: 3, to: 1, term: Term(2), body };
        follower.step(Instant::default() + (timeout - early), Input::Message(vote));
        assert_eq!(follower.leader(), leader, "{early:?} before its end");
    }
}

#[test]
fn a_piece_from_the_middle_of_a_snapshot_begins_no_transfer() {
    let mut follower = follower(0, 3);
    let body = Body::Snapshot { meta: meta(9), offset: 4, chunk: Bytes::from_static(b"4567") };
    let output = after(&mut follower, says(body));
    assert!(output.incoming.is_empty());
    let reply = Body::SnapshotReply { digest: meta(9).digest, stored: 0 };
    assert_eq!(output.messages.into_iter().map(|m| m.body).collect::<Vec<_>>(), [reply]);
}

/// A draft that is gone: the disk is at a piece of it while an old offer comes again after a newer one.
#[test]
fn what_an_earlier_draft_has_stored_is_not_of_the_next() {
    let now = Instant::default();
    let mut engine = Engine::new(1, 0, Config::default(), Recovered::default(), 1, now);
    engine.step(now, piece(5, b""));
    engine.step(now, piece(5, b"half"));
    engine.step(now, piece(7, b""));
    engine.step(now, piece(5, b""));
    output_of(&mut engine);
    engine.step(now, Input::PieceStored { digest: meta(5).digest, stored: 4 });
    let output = output_of(&mut engine);
    assert!(output.messages.is_empty(), "{:?}", output.messages);
    // The new draft takes its pieces as any other does.
    engine.step(now, piece(5, b"all of it."));
    engine.step(now, Input::PieceStored { digest: meta(5).digest, stored: 10 });
    let output = output_of(&mut engine);
    assert_eq!(output.incoming.last(), Some(&Incoming::End(meta(5))));
}

fn message(from: u64, term: u64, body: Body) -> Input {
    Input::Message(Message { group: 0, from, to: 1, term: Term(term), body })
}

fn entry(term: u64, leader: u64, index: Index) -> Entry {
    Entry { log_id: LogId::new(term, leader, index), payload: Payload::Blank }
}

#[test]
fn an_append_whose_entries_cannot_be_is_no_word_of_a_leader() {
    let prev = LogId::new(1, 2, 3);
    let bad = [
        vec![entry(1, 2, 5)],
        vec![entry(1, 2, 3)],
        vec![entry(0, 2, 4)],
        vec![entry(2, 2, 4), entry(1, 2, 5)],
        vec![entry(1, 3, 4)],
        vec![entry(2, 2, 4), entry(2, 3, 5)],
        vec![entry(3, 2, 4)],
    ];
    for entries in bad {
        let mut follower = follower(0, 3);
        let body = Body::Append { prev, committed: 3, round: 1, entries: entries.clone().into() };
        let output = after(&mut follower, message(2, 2, body));
        assert!(output.messages.is_empty() && follower.leader().is_none(), "{entries:?}");
        assert_eq!(follower.last_log_id(), prev);
    }
    let good = [
        vec![entry(1, 2, 4), entry(1, 2, 5)],
        vec![entry(2, 2, 4)],
        vec![entry(1, 2, 4), entry(2, 3, 5)],
        vec![entry(2, 3, 4)],
    ];
    for entries in good {
        let mut follower = follower(0, 3);
        let last = entries[entries.len() - 1].log_id;
        let body = Body::Append { prev, committed: 3, round: 1, entries: entries.into() };
        after(&mut follower, message(2, 2, body));
        assert_eq!((follower.leader(), follower.last_log_id()), (Some(2), last));
    }
}

#[test]
fn the_first_entry_of_all_may_be_followed_by_any_leaders() {
    let mut follower = follower(0, 0);
    let entries = vec![Entry { log_id: LogId::FIRST, ..entry(0, 0, 1) }, entry(1, 2, 2)];
    let body = Body::Append { prev: LogId::ZERO, committed: 0, round: 0, entries: entries.into() };
    after(&mut follower, message(2, 1, body));
    assert_eq!(follower.last_log_id(), LogId::new(1, 2, 2));
}

#[test]
fn a_snapshot_that_cannot_be_is_no_word_of_a_leader() {
    let with = |change: &dyn Fn(&mut SnapshotMeta)| {
        let mut meta = meta(9);
        change(&mut meta);
        meta
    };
    let bad = [
        (with(&|meta| meta.log_id.term = Term(3)), 0),
        (with(&|meta| meta.membership_index = 0), 0),
        (with(&|meta| meta.membership_index = 10), 0),
        (with(&|meta| meta.log_id.index = (Index::MAX >> 2) + 1), 0),
        (with(&|meta| meta.bytes = 3), 0),
        (meta(9), 7),
        (meta(9), u64::MAX),
    ];
    for (meta, offset) in bad {
        let mut follower = follower(0, 3);
        let body =
            Body::Snapshot { meta: meta.clone(), offset, chunk: Bytes::from_static(b"four") };
        let output = after(&mut follower, message(2, 2, body));
        assert!(output.messages.is_empty() && follower.leader().is_none(), "{meta:?} at {offset}");
    }
    let good = [
        (meta(9), 6),
        (with(&|meta| meta.membership_index = 9), 0),
        (with(&|meta| meta.log_id.index = Index::MAX >> 2), 0),
        (with(&|meta| meta.log_id.term = Term(2)), 0),
    ];
    for (meta, offset) in good {
        let mut follower = follower(0, 3);
        let body = Body::Snapshot { meta, offset, chunk: Bytes::from_static(b"four") };
        after(&mut follower, message(2, 2, body));
        assert_eq!(follower.leader(), Some(2));
    }
}

#[test]
fn a_term_that_cannot_be_is_not_believed() {
    let last = u64::MAX / 2;
    for (term, leader) in [(last, Some(2)), (last + 1, None)] {
        let mut follower = follower(0, 3);
        let prev = LogId::new(1, 2, 3);
        let body = Body::Append { prev, committed: 0, round: 0, entries: Entries::default() };
        after(&mut follower, message(2, term, body));
        assert_eq!(follower.leader(), leader, "term {term}");
    }
}

#[test]
fn who_never_led_in_this_term_says_so_to_a_forward_and_who_may_have_led_says_nothing() {
    for (voted_for, answers) in [(2, 1), (1, 0)] {
        let hard_state = HardState { term: Term(1), voted_for: Some(voted_for), caught_up: true };
        let recovered = Recovered { hard_state, ..Recovered::default() };
        let mut engine = Engine::new(1, 0, Config::default(), recovered, 1, Instant::default());
        let commands = vec![Bytes::from_static(b"a")];
        let body = Body::Forward { session: 1, sequence: 1, commands };
        assert_eq!(after(&mut engine, message(3, 1, body)).messages.len(), answers);
    }
}

#[test]
fn only_the_leader_hands_over() {
    let mut follower = follower(5, 5);
    after(&mut follower, append(5, 5, 5, 0));
    after(&mut follower, message(3, 1, Body::TimeoutNow));
    assert_eq!(follower.role(), Role::Follower, "node 3 does not lead");
    after(&mut follower, message(2, 1, Body::TimeoutNow));
    assert_eq!(follower.role(), Role::Candidate);
}

#[test]
fn a_pre_vote_counts_for_the_term_that_was_asked_about() {
    let mut engine = follower(5, 5);
    let later = Instant::default() + Duration::from_secs(10);
    engine.step(later, Input::Wake);
    assert_eq!(engine.role(), Role::PreCandidate);
    engine.step(later, message(2, 1, Body::PreVoteReply { vote: Vote::Yes }));
    assert_eq!(engine.role(), Role::PreCandidate, "that is an answer to an earlier question");
    engine.step(later, message(2, 2, Body::PreVoteReply { vote: Vote::Yes }));
    assert_eq!(engine.role(), Role::Candidate);
}

/// A node that begins with nothing.
fn newcomer() -> Engine {
    Engine::new(1, 0, Config::default(), Recovered::default(), 1, Instant::default())
}

/// What it answers to a request for its vote, which its leader has asked for. (The answer waits for the disk.)
fn vote(engine: &mut Engine, from: u64, term: u64, last_log_id: LogId) -> Vote {
    let asked = message(from, term, Body::Vote { last_log_id, handover: true });
    let output = after(engine, asked);
    let write = output.write.as_ref().expect("a new term is to be kept").0;
    match &after(engine, Input::Persisted { write }).messages[..] {
        [Message { body: Body::VoteReply { vote }, .. }] => *vote,
        other => panic!("one answer to a vote is wanted: {other:?}"),
    }
}

/// It takes all of these from node 2, the leader of term 1, and they become durable.
fn takes(engine: &mut Engine, entries: Vec<Entry>, prev: LogId, committed: Index) {
    let output =
        after(engine, says(Body::Append { prev, committed, round: 0, entries: entries.into() }));
    if let Some((write, _)) = output.write {
        let output = after(engine, Input::Persisted { write });
        // That it has caught up is one more write.
        if let Some((write, _)) = output.write {
            after(engine, Input::Persisted { write });
        }
    }
}

fn first_entry() -> Entry {
    Entry { log_id: LogId::FIRST, payload: Payload::Membership(meta(1).membership) }
}

/// R15: it may have lost its disk.
#[test]
fn the_vote_of_a_node_without_a_past_counts_only_with_those_of_all() {
    assert_eq!(vote(&mut newcomer(), 2, 1, LogId::FIRST), Vote::Tentative);
    assert_eq!(vote(&mut newcomer(), 2, 2, LogId::new(1, 2, 2)), Vote::Tentative);
}

#[test]
fn a_node_has_caught_up_with_what_was_committed_when_it_could_first_follow() {
    let mut engine = newcomer();
    takes(&mut engine, vec![first_entry()], LogId::ZERO, 4);
    takes(&mut engine, entries(2..=3), LogId::FIRST, 4);
    assert!(!engine.hard_state().caught_up, "four were committed when it was first spoken to");
    takes(&mut engine, entries(4..=4), LogId::new(1, 2, 3), 4);
    assert!(engine.hard_state().caught_up);
    assert_eq!(vote(&mut engine, 3, 2, LogId::new(1, 2, 4)), Vote::Yes);
}

#[test]
fn an_echo_of_the_round_that_forms_the_cluster_waits_until_that_is_durable() {
    let mut engine = newcomer();
    takes(&mut engine, vec![first_entry()], LogId::ZERO, 0);
    takes(&mut engine, entries(2..=2), LogId::FIRST, 0);
    assert!(!engine.hard_state().caught_up);
    let output = after(&mut engine, append(2, 2, 2, 1));
    assert!(engine.hard_state().caught_up && output.messages.is_empty());
    let write = output.write.expect("it is to be kept").0;
    assert_eq!(answer(&after(&mut engine, Input::Persisted { write })), (1, accepted(2)));
}

#[test]
fn what_a_leader_knows_to_be_committed_means_little_before_its_own_entry_is() {
    // Of term 1: node 2 leads in term 2 now, and doesn't know yet that they are committed.
    let mut engine = newcomer();
    let said = |prev, committed, entries: Vec<Entry>| {
        let body = Body::Append { prev, committed, round: 0, entries: entries.into() };
        message(2, 2, body)
    };
    let mut old = vec![first_entry()];
    old.extend(entries(2..=3));
    let own = Entry { log_id: LogId::new(2, 2, 4), payload: Payload::Blank };
    let hears = |engine: &mut Engine, input| {
        let output = after(engine, input);
        output.write.into_iter().for_each(|(write, _)| {
            after(engine, Input::Persisted { write });
        });
    };
    hears(&mut engine, said(LogId::ZERO, 0, old));
    hears(&mut engine, said(LogId::new(1, 2, 3), 3, Vec::new()));
    assert!(!engine.hard_state().caught_up, "more of term 1 may be committed");
    hears(&mut engine, said(LogId::new(1, 2, 3), 3, vec![own]));
    hears(&mut engine, said(LogId::new(2, 2, 4), 4, Vec::new()));
    assert!(engine.hard_state().caught_up);
}

#[test]
fn a_restart_on_the_way_does_not_pass_for_having_caught_up() {
    let mut outline = Outline::default();
    outline.push(&first_entry());
    entries(2..=3).iter().for_each(|entry| outline.push(entry));
    let hard_state = HardState { term: Term(1), voted_for: None, caught_up: false };
    let recovered = Recovered { hard_state, snapshot: None, outline };
    let mut engine = Engine::new(1, 0, Config::default(), recovered, 1, Instant::default());
    output_of(&mut engine);
    assert_eq!(vote(&mut engine, 3, 2, LogId::new(1, 2, 3)), Vote::Tentative);
}
