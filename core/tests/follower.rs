//! One node, and peers whose messages are made by hand: what it answers, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use quorate_core::engine::{Engine, Incoming, Input, Local, Output, Proposal, ReadOutcome};
use quorate_core::{
    AppendOutcome, Body, Boot, Claim, ClusterId, Config, Digest, Entries, Entry, ForwardOutcome,
    Handover, HardState, Index, LogId, LogWrite, Marks, Membership, Memory, Message, Outline,
    Payload, Recovered, Replica, Role, Situation, SnapshotMeta, Standing, Start, Term,
};
use quorate_rt::Instant;

const CLUSTER: ClusterId = ClusterId(7);

/// A node with its first disk.
fn node(id: u64) -> Replica {
    Replica::new(id, 1)
}

fn members(ids: &[u64]) -> Membership {
    let members = ids.iter().map(|id| (node(*id), format!("node-{id}"))).collect();
    Membership::founding(CLUSTER, members).expect("valid")
}

fn first(membership: Membership) -> Entry {
    let payload = Payload::Membership(membership);
    Entry { log_id: LogId::FIRST, time: 0, payload }
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        log_id: LogId::new(1, 2, index),
        time: 0,
        membership: members(&[1, 2, 3]),
        membership_index: 1,
        bytes: 10,
        digest: Digest::of(&index.to_le_bytes()),
    }
}

/// What node 2, the leader of term 1, says.
fn says(body: Body) -> Input {
    message(2, 1, body)
}

fn piece(index: u64, chunk: &'static [u8]) -> Input {
    says(Body::Snapshot {
        meta: Box::new(meta(index)),
        offset: 0,
        chunk: Bytes::from_static(chunk),
    })
}

fn entries(range: std::ops::RangeInclusive<Index>) -> Vec<Entry> {
    let entry = |index| Entry { log_id: LogId::new(1, 2, index), time: 0, payload: Payload::Blank };
    range.map(entry).collect()
}

fn append(after: Index, upto: Index, committed: Index, round: u64) -> Input {
    let prev = if after == 0 { LogId::ZERO } else { LogId::new(1, 2, after) };
    says(Body::Append {
        prev,
        committed,
        round,
        durable: 0,
        entries: entries(after + 1..=upto).into(),
    })
}

/// Node 1, whose log goes from behind `purged` to `last` and is durable. It has heard from nobody yet.
fn follower(purged: Index, last: Index) -> Engine {
    let mut outline = match purged {
        0 => Outline::default(),
        purged => Outline::after(LogId::new(1, 2, purged)),
    };
    entries(purged + 1..=last).iter().for_each(|entry| outline.push(entry));
    let hard_state = HardState { term: Term(1), voted_for: Some(node(2)) };
    let snapshot = (purged > 0).then(|| meta(purged));
    let mut engine = engine(Recovered { hard_state, snapshot, outline, ..Recovered::default() });
    output_of(&mut engine);
    engine
}

/// Node 1, which has recovered this.
fn engine(recovered: Recovered) -> Engine {
    let local = Local { replica: node(1), boot: Boot { number: 1, tag: 1 }, cluster: None };
    Engine::new(local, 0, Config::default(), recovered, 1, Instant::default())
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
    let output = after(&mut follower, Input::Persisted { write: 3 });
    assert_eq!(answer(&output), (1, accepted(5)));
}

#[test]
fn a_membership_is_told_when_it_is_appended_and_not_again() {
    let mut follower = follower(0, 0);
    let membership = meta(1).membership;
    let append = |term, prev, entries: Vec<Entry>| {
        let body =
            Body::Append { prev, committed: 0, round: 1, durable: 0, entries: entries.into() };
        message(2, term, body)
    };
    let first = first(membership.clone());
    let output = after(&mut follower, append(1, LogId::ZERO, vec![first]));
    assert_eq!(output.membership, Some(membership));
    // Of two terms, so that each of them has to be looked at.
    let others = [(1, 2), (2, 3)].map(|(term, index)| (LogId::new(term, 2, index), Payload::Blank));
    let others = others.map(|(log_id, payload)| Entry { log_id, time: 0, payload }).into();
    let output = after(&mut follower, append(2, LogId::FIRST, others));
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
        let body = Body::Vote { last_log_id: LogId::new(1, 2, 3), handover: None };
        follower.step(Instant::default() + (timeout - early), message(3, 2, body));
        assert_eq!(follower.leader(), leader.map(node), "{early:?} before its end");
    }
}

#[test]
fn a_piece_from_the_middle_of_a_snapshot_begins_no_transfer() {
    let mut follower = follower(0, 3);
    after(&mut follower, append(3, 3, 3, 0));
    let body =
        Body::Snapshot { meta: Box::new(meta(9)), offset: 4, chunk: Bytes::from_static(b"4567") };
    let output = after(&mut follower, says(body));
    assert!(output.incoming.is_empty());
    let reply = Body::SnapshotReply { digest: meta(9).digest, stored: 0 };
    assert_eq!(output.messages.into_iter().map(|m| m.body).collect::<Vec<_>>(), [reply]);
}

/// A draft that is gone: the disk is at a piece of it while an old offer comes again after a newer one.
#[test]
fn what_an_earlier_draft_has_stored_is_not_of_the_next() {
    let now = Instant::default();
    let mut engine = engine(Recovered::default());
    engine.step(now, append(0, 0, 0, 0));
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
    sent(node(from), node(1), term, body)
}

fn sent(from: Replica, to: Replica, term: u64, body: Body) -> Input {
    Input::Message(Message { group: 0, cluster: None, from, to, term: Term(term), body })
}

fn entry(term: u64, leader: u64, index: Index) -> Entry {
    Entry { log_id: LogId::new(term, leader, index), time: 0, payload: Payload::Blank }
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
        let body = Body::Append {
            prev,
            committed: 3,
            round: 1,
            durable: 0,
            entries: entries.clone().into(),
        };
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
        let body =
            Body::Append { prev, committed: 3, round: 1, durable: 0, entries: entries.into() };
        after(&mut follower, message(2, 2, body));
        assert_eq!((follower.leader(), follower.last_log_id()), (Some(node(2)), last));
    }
}

#[test]
fn the_first_entry_of_all_may_be_followed_by_any_leaders() {
    let mut follower = follower(0, 0);
    let entries = vec![first(members(&[1, 2, 3])), entry(1, 2, 2)];
    let body = Body::Append {
        prev: LogId::ZERO,
        committed: 0,
        round: 0,
        durable: 0,
        entries: entries.into(),
    };
    after(&mut follower, message(2, 1, body));
    assert_eq!(follower.last_log_id(), LogId::new(1, 2, 2));
}

/// Node 1, whose log ends with 3, and which follows node 2 in term 2.
fn following() -> Engine {
    let mut follower = follower(0, 3);
    after(&mut follower, heartbeat(2));
    assert_eq!(follower.leader(), Some(node(2)));
    follower
}

/// Node 2's, in this term.
fn heartbeat(term: u64) -> Input {
    let prev = LogId::new(1, 2, 3);
    let entries = Entries::default();
    message(2, term, Body::Append { prev, committed: 0, round: 0, durable: 0, entries })
}

#[test]
fn a_snapshot_that_cannot_be_is_not_taken() {
    let with = |change: &dyn Fn(&mut SnapshotMeta)| {
        let mut meta = meta(9);
        change(&mut meta);
        meta
    };
    let says = |meta: &SnapshotMeta, offset| {
        let (meta, chunk) = (Box::new(meta.clone()), Bytes::from_static(b"four"));
        message(2, 2, Body::Snapshot { meta, offset, chunk })
    };
    let farthest = 3 + (1 << 48);
    let bad = [
        (with(&|meta| meta.log_id.term = Term(3)), 0),
        (with(&|meta| meta.membership_index = 0), 0),
        (with(&|meta| meta.membership_index = 10), 0),
        (with(&|meta| meta.log_id.index = farthest + 1), 0),
        (with(&|meta| meta.log_id.index = Index::MAX), 0),
        (with(&|meta| meta.bytes = 3), 0),
        (meta(9), 7),
        (meta(9), u64::MAX),
    ];
    for (meta, offset) in bad {
        let output = after(&mut following(), says(&meta, offset));
        let nothing = output.messages.is_empty() && output.incoming.is_empty();
        assert!(nothing, "{meta:?} at {offset}");
    }
    let good = [
        (meta(9), 6),
        (with(&|meta| meta.membership_index = 9), 0),
        (with(&|meta| meta.log_id.index = farthest), 0),
        (with(&|meta| meta.log_id.term = Term(2)), 0),
    ];
    for (meta, offset) in good {
        let output = after(&mut following(), says(&meta, offset));
        let nothing = output.messages.is_empty() && output.incoming.is_empty();
        assert!(!nothing, "{meta:?} at {offset}");
    }
}

/// I7: whoever has not shown by an append that it leads, offers a snapshot in vain.
#[test]
fn a_snapshot_is_taken_only_from_the_leader_of_the_term() {
    let offer = |from, term| {
        let (meta, chunk) = (Box::new(meta(9)), Bytes::new());
        message(from, term, Body::Snapshot { meta, offset: 0, chunk })
    };
    for (from, term, taken) in [(2, 2, true), (3, 2, false), (3, 3, false), (2, 3, false)] {
        let mut follower = following();
        let output = after(&mut follower, offer(from, term));
        assert_eq!(!output.incoming.is_empty(), taken, "node {from} in term {term}");
        assert_eq!(follower.leader(), (term == 2).then_some(node(2)));
    }
}

/// I9: no message uses all terms up, and repeated ones of a node that is far ahead lead on.
#[test]
fn a_term_that_is_far_ahead_is_followed_by_steps() {
    let step = 1 << 32;
    let mut follower = follower(0, 3);
    after(&mut follower, heartbeat(1 + step));
    assert_eq!((follower.leader(), follower.hard_state().term), (Some(node(2)), Term(1 + step)));

    let ahead = 1 + 4 * step;
    for reached in [1 + 2 * step, 1 + 3 * step, ahead] {
        let output = after(&mut follower, heartbeat(ahead));
        assert_eq!(follower.hard_state().term, Term(reached));
        assert_eq!(follower.leader(), (reached == ahead).then_some(node(2)), "else it is dropped");
        assert!(output.write.is_some_and(|(_, write)| write.hard_state.is_some()), "durably");
    }
    for beyond in [u64::MAX / 2 + 1, u64::MAX] {
        after(&mut follower, heartbeat(beyond));
        assert_eq!(follower.hard_state().term, Term(ahead), "no term that can be");
    }
}

#[test]
fn nobody_campaigns_beyond_the_last_term() {
    for (term, role) in [(Term(u64::MAX / 2 - 1), Role::PreCandidate), (Term::LAST, Role::Follower)]
    {
        let mut outline = Outline::default();
        outline.push(&first(members(&[1, 2, 3])));
        let hard_state = HardState { term, voted_for: None };
        let mut last = engine(Recovered { hard_state, outline, ..Recovered::default() });
        let order = Body::TimeoutNow { last_log_id: LogId::FIRST, round: 0 };
        for _ in 0..3 {
            let at = output_of(&mut last).wake_at.expect("it is a voter");
            last.step(at, Input::Wake);
            assert_eq!((last.role(), last.hard_state().term), (role, term));
        }
        last.step(Instant::from_nanos(u64::MAX / 2), message(2, term.0, order));
        assert_eq!(last.hard_state().term, term, "no order of one that does not lead");
    }
}

#[test]
fn who_never_led_in_this_term_says_so_to_a_forward_and_who_may_have_led_says_nothing() {
    for (voted_for, answers) in [(2, 1), (1, 0)] {
        let hard_state = HardState { term: Term(1), voted_for: Some(node(voted_for)) };
        let mut engine = engine(Recovered { hard_state, ..Recovered::default() });
        let commands = vec![Bytes::from_static(b"a")];
        let body = Body::Forward { boot: 1, sequence: 1, commands };
        assert_eq!(after(&mut engine, message(3, 1, body)).messages.len(), answers);
    }
}

/// The number of each forward in an output, with how many commands it has.
fn forwards(output: &Output) -> Vec<(u64, usize)> {
    let forward = |message: &Message| match &message.body {
        Body::Forward { sequence, commands, .. } => Some((*sequence, commands.len())),
        _ => None,
    };
    output.messages.iter().filter_map(forward).collect()
}

const KIB: usize = 1 << 10;

/// Node 1, which follows node 2 and passes on writes in a window that holds four of 250 KiB.
fn passing() -> Engine {
    // Each goes in a message of its own.
    let (max_inflight_bytes, max_append_bytes) = (1 << 20, 100 * KIB);
    let config = Config { max_inflight_bytes, max_append_bytes, ..Config::default() };
    let local = Local { replica: node(1), boot: Boot { number: 1, tag: 1 }, cluster: None };
    let recovered = Recovered {
        hard_state: HardState { term: Term(1), voted_for: Some(node(2)) },
        ..Recovered::default()
    };
    let mut engine = Engine::new(local, 0, config, recovered, 1, Instant::default());
    assert!(!engine.takes(1), "no leader is known");
    after(&mut engine, heartbeat(1));
    assert_eq!(engine.leader(), Some(node(2)));
    engine
}

fn propose(engine: &mut Engine, first: u64, bytes: &[usize]) -> Output {
    let commands = bytes.iter().map(|bytes| Bytes::from(vec![0; *bytes]));
    engine.propose(Instant::default(), first, commands);
    output_of(engine)
}

fn answered(sequence: u64, outcome: ForwardOutcome) -> Input {
    says(Body::ForwardReply { boot: 1, sequence, outcome })
}

/// R20: what is on its way to the leader is bounded, and what exceeds that was sent to nobody.
#[test]
fn what_is_passed_on_has_a_window() {
    let mut engine = passing();
    let output = propose(&mut engine, 1, &[250 * KIB; 6]);
    let sent = forwards(&output);
    assert_eq!(sent.len(), 4);
    assert_eq!(output.proposals, [(5..6, Proposal::Busy), (6..7, Proposal::Busy)]);
    assert!(!engine.takes(250 * KIB));
    assert!(engine.takes(20 * KIB), "there is room for a small one");

    let appended = ForwardOutcome::Appended(LogId::new(1, 2, 20));
    after(&mut engine, answered(sent[0].0, appended.clone()));
    assert!(engine.takes(250 * KIB), "an answer makes room");
    after(&mut engine, answered(sent[0].0, appended));
    let output = propose(&mut engine, 7, &[1 << 20]);
    assert_eq!(output.proposals, [(7..8, Proposal::Busy)], "a repetition makes none");
}

#[test]
fn a_command_that_is_larger_than_the_window_goes_alone() {
    let mut engine = passing();
    assert_eq!(forwards(&propose(&mut engine, 1, &[2 << 20])).len(), 1);
    assert!(!engine.takes(0));
    let mut engine = passing();
    assert_eq!(forwards(&propose(&mut engine, 1, &[1])).len(), 1);
    assert!(!engine.takes(2 << 20));
}

#[test]
fn a_forward_that_was_not_taken_gives_its_room_and_its_writes_back() {
    let mut engine = passing();
    let sent = forwards(&propose(&mut engine, 1, &[600 * KIB]));
    assert!(!engine.takes(600 * KIB));
    assert_eq!(engine.forward_not_taken(sent[0].0), [1]);
    assert!(engine.takes(1 << 20));
    assert!(engine.forward_not_taken(sent[0].0).is_empty());
}

/// A connection breaks while the window is full: the others don't wait until the deadline, at which
/// what was lost has an unknown outcome.
#[test]
fn what_was_lost_leaves_the_window_before_its_deadline() {
    let timeout = Config::default().request_timeout;
    let mut engine = passing();
    let step = |after, engine: &mut Engine| {
        engine.step(Instant::default() + after, Input::Wake);
        output_of(engine).proposals
    };
    let sent = forwards(&propose(&mut engine, 1, &[1 << 20]));
    assert_eq!(step(timeout / 2 - Duration::from_nanos(1), &mut engine), []);
    assert!(!engine.takes(1));
    assert_eq!(step(timeout / 2, &mut engine), []);
    assert!(engine.takes(1 << 20));
    engine.propose(Instant::default() + timeout * 3 / 4, 2, [Bytes::from(vec![0; 1 << 20])]);
    assert_eq!(output_of(&mut engine).proposals, []);
    assert_eq!(step(timeout, &mut engine), [(1..2, Proposal::Unknown)]);
    assert!(!engine.takes(1), "the next one is under way all the same");
    let late = answered(sent[0].0, ForwardOutcome::Busy);
    engine.step(Instant::default() + timeout, late);
    assert!(!engine.takes(1), "an answer that comes too late makes no room");
}

#[test]
fn only_the_leader_hands_over_and_only_as_long_as_nothing_has_changed() {
    let order = |index, round| Body::TimeoutNow { last_log_id: LogId::new(1, 2, index), round };
    let mut follower = follower(5, 5);
    after(&mut follower, append(5, 5, 5, 3));
    after(&mut follower, message(3, 1, order(5, 3)));
    assert_eq!(follower.role(), Role::Follower, "node 3 does not lead");
    after(&mut follower, message(2, 1, order(4, 3)));
    assert_eq!(follower.role(), Role::Follower, "the leader's log was another then");
    after(&mut follower, message(2, 1, order(5, 2)));
    assert_eq!(follower.role(), Role::Follower, "the leader has begun a round since");
    after(&mut follower, message(2, 1, order(5, 3)));
    assert_eq!(follower.role(), Role::Candidate);
}

/// What a voter with a leader makes of a request that rests on an order to take over.
#[test]
fn an_order_to_take_over_counts_only_with_those_who_follow_that_leader() {
    let asked = |leader, term, round| {
        let handover = Some(Handover { leader, term: Term(term), round });
        message(3, 2, Body::Vote { last_log_id: LogId::new(1, 2, 5), handover })
    };
    for (request, counts) in [
        (asked(node(2), 1, 3), true),
        (asked(node(2), 1, 4), true),
        (asked(node(2), 1, 2), false),
        (asked(node(3), 1, 3), false),
        (asked(Replica::new(2, 2), 1, 3), false),
        (asked(node(2), 2, 3), false),
    ] {
        let mut follower = follower(5, 5);
        after(&mut follower, append(5, 5, 5, 3));
        after(&mut follower, request.clone());
        assert_eq!(follower.hard_state().term == Term(2), counts, "{request:?}");
    }
}

#[test]
fn a_pre_vote_counts_for_the_term_that_was_asked_about() {
    let mut engine = follower(5, 5);
    let later = Instant::default() + Duration::from_secs(10);
    engine.step(later, Input::Wake);
    assert_eq!(engine.role(), Role::PreCandidate);
    engine.step(later, message(2, 1, Body::PreVoteReply { granted: true }));
    assert_eq!(engine.role(), Role::PreCandidate, "that is an answer to an earlier question");
    engine.step(later, message(2, 2, Body::PreVoteReply { granted: true }));
    assert_eq!(engine.role(), Role::Candidate);
}

/// A node without a log.
fn newcomer() -> Engine {
    engine(Recovered::default())
}

fn situation(output: &Output) -> Option<&Situation> {
    output.messages.iter().find_map(|message| match &message.body {
        Body::Situation { situation, .. } => Some(situation),
        _ => None,
    })
}

/// Rule 6: the candidate's configuration names it, and it may know of none itself.
#[test]
fn a_newcomer_votes_when_it_is_asked_by_its_name() {
    let request = || Body::Vote { last_log_id: LogId::FIRST, handover: None };
    let mut engine = newcomer();
    output_of(&mut engine);
    for stranger in [Replica::new(1, 2), Replica::any(1)] {
        let output = after(&mut engine, sent(node(2), stranger, 1, request()));
        assert!(output.write.is_none() && output.messages.is_empty(), "{stranger}");
    }
    let output = after(&mut engine, message(2, 1, request()));
    let (write, LogWrite { hard_state, .. }) = output.write.expect("a vote is to be kept");
    assert_eq!(hard_state, Some(HardState { term: Term(1), voted_for: Some(node(2)) }));
    let output = after(&mut engine, Input::Persisted { write });
    assert_eq!(output.messages[0].body, Body::VoteReply { granted: true });
}

/// The old and the new disk of a node are two candidates: if a vote named the node only, both could
/// be elected with it in one term.
#[test]
fn a_vote_is_for_a_disk_and_not_for_its_node() {
    let request = || Body::Vote { last_log_id: LogId::FIRST, handover: None };
    let mut engine = newcomer();
    let output = after(&mut engine, message(2, 1, request()));
    after(&mut engine, Input::Persisted { write: output.write.expect("a vote").0 });
    let output = after(&mut engine, sent(Replica::new(2, 2), node(1), 1, request()));
    assert_eq!(output.messages[0].body, Body::VoteReply { granted: false });
}

#[test]
fn a_log_begins_only_with_a_cluster_that_it_may_join() {
    let begins = |engine: &mut Engine, from: Replica, membership: &Membership| {
        let entries = vec![first(membership.clone()), entry(1, 2, 2)].into();
        let body = Body::Append { prev: LogId::ZERO, committed: 0, round: 0, durable: 0, entries };
        after(engine, sent(from, node(1), 1, body));
        engine.membership().is_some()
    };
    let all = members(&[1, 2, 3]);
    let claimed = |cluster, founder| {
        let list = [1, 2, 3].map(|id| (id, format!("node-{id}"))).into();
        let claim = quorate_core::Claim { cluster, ballot: 1, founder, list };
        Recovered { standing: Standing::Claimed(claim), ..Recovered::default() }
    };
    let admitted =
        |cluster| Recovered { standing: Standing::Admitted(cluster), ..Recovered::default() };
    let other = ClusterId(8);
    assert!(begins(&mut engine(claimed(CLUSTER, node(1))), node(2), &all), "its claim");
    assert!(begins(&mut engine(admitted(CLUSTER)), node(2), &all), "it was let in");
    assert!(begins(&mut newcomer(), node(2), &all), "by a member that has not founded it");
    let stranger = Replica::new(9, 1);
    assert!(!begins(&mut newcomer(), stranger, &all), "by nobody of it");
    let founder = members(&[2, 3]);
    assert!(!begins(&mut newcomer(), node(2), &founder), "by the founder, without a claim");
    assert!(!begins(&mut engine(admitted(other)), stranger, &all), "let in elsewhere");
    let mut told = newcomer();
    let list = [1, 2].map(|id| (id, format!("node-{id}"))).into();
    told.initialize(Instant::default(), list).expect("nothing stands against it");
    assert!(!begins(&mut told, node(2), &all), "it was told another list");
}

#[test]
fn a_configuration_of_another_cluster_is_not_taken() {
    let mut engine = newcomer();
    let begin = vec![first(members(&[1, 2, 3]))].into();
    after(
        &mut engine,
        says(Body::Append {
            prev: LogId::ZERO,
            committed: 0,
            round: 0,
            durable: 0,
            entries: begin,
        }),
    );
    let voters = [(node(2), "node-2".to_owned())].into();
    let elsewhere = Membership::founding(ClusterId(8), voters).expect("valid");
    let payload = Payload::Membership(elsewhere);
    let entries = vec![Entry { payload, ..entry(1, 2, 2) }].into();
    after(
        &mut engine,
        says(Body::Append { prev: LogId::FIRST, committed: 0, round: 0, durable: 0, entries }),
    );
    assert_eq!(engine.last_log_id(), LogId::FIRST);
}

#[test]
fn what_contradicts_what_is_committed_is_not_taken() {
    let mut follower = follower(0, 3);
    after(&mut follower, append(3, 3, 3, 0));
    assert_eq!(follower.committed(), 3);
    let contradicting = [
        (LogId::new(1, 2, 1), vec![entry(2, 3, 2)]),
        (LogId::new(2, 3, 2), vec![entry(2, 3, 3)]),
        (LogId::FIRST, vec![entry(1, 3, 2)]),
    ];
    for (count, (prev, entries)) in (1..).zip(contradicting) {
        let body =
            Body::Append { prev, committed: 0, round: 0, durable: 0, entries: entries.into() };
        let output = after(&mut follower, message(3, 2, body));
        assert_eq!(follower.contradictions(), count, "{prev}");
        assert!(!output.messages.iter().any(|message| message.to == node(3)), "{prev}");
        assert!(output.write.is_none_or(|(_, write)| write.entries.is_empty()), "{prev}");
        assert_eq!(follower.last_log_id(), LogId::new(1, 2, 3));
    }
    let body = Body::Append {
        prev: LogId::new(1, 2, 3),
        committed: 4,
        round: 0,
        durable: 0,
        entries: vec![entry(2, 3, 4)].into(),
    };
    after(&mut follower, message(3, 2, body));
    assert_eq!(follower.last_log_id(), LogId::new(2, 3, 4), "afterwards it follows");
}

/// The state of such a leader is another, until it tells what is here.
#[test]
fn a_leader_that_contradicts_confirms_no_read() {
    for (contradicts, confirmed) in [(true, false), (false, true)] {
        let mut follower = follower(0, 3);
        after(&mut follower, append(3, 3, 3, 0));
        let output = after(&mut follower, Input::Read { ticket: 7 });
        let [Message { body: Body::ReadIndex { sequence }, .. }] = output.messages[..] else {
            panic!("it asks: {:?}", output.messages)
        };
        let (prev, entries) = (LogId::new(1, 9, 2), Entries::default());
        let body = Body::Append { prev, committed: 3, round: 0, durable: 0, entries };
        after(&mut follower, says(body));
        assert_eq!(follower.contradictions(), 1);
        if !contradicts {
            after(&mut follower, append(3, 3, 3, 0));
        }
        let reply = Body::ReadIndexReply { sequence, index: Some(3), time: 0 };
        let output = after(&mut follower, says(reply));
        let outcome = if confirmed { ReadOutcome::At(3) } else { ReadOutcome::NotLeader };
        assert_eq!(output.reads, [(7, outcome)]);
    }
}

/// A leader doesn't replace what it has told itself. But a message may be forged.
#[test]
fn what_was_agreed_and_is_cut_is_not_agreed_any_more() {
    let mut follower = following();
    let tell = |follower: &mut Engine, prev, committed, entries: Vec<Entry>| {
        let entries = entries.into();
        let body = Body::Append { prev, committed, round: 0, durable: 0, entries };
        after(follower, message(2, 2, body))
    };
    tell(&mut follower, LogId::new(1, 2, 3), 3, entries(4..=6));
    tell(&mut follower, LogId::new(1, 2, 3), 3, vec![entry(2, 2, 4)]);
    tell(&mut follower, LogId::new(2, 2, 4), 6, Vec::new());
    assert_eq!((follower.last_log_id().index, follower.committed()), (4, 4));
}

#[test]
fn entries_that_contradict_a_purged_one_are_not_taken() {
    let mut follower = follower(5, 5);
    let of_nobody = |index| Entry { log_id: LogId::new(0, 0, index), ..entry(0, 0, index) };
    let (prev, entries) = (LogId::ZERO, (1..=7).map(of_nobody).collect::<Vec<_>>().into());
    let body = Body::Append { prev, committed: 7, round: 0, durable: 0, entries };
    after(&mut follower, says(body));
    assert_eq!(follower.contradictions(), 1);
    assert_eq!(follower.last_log_id(), LogId::new(1, 2, 5));
}

/// A snapshot that is being put in the place of the log must not meet a leader or a candidate.
#[test]
fn nobody_campaigns_while_a_snapshot_takes_the_place_of_its_log() {
    for whole in [false, true] {
        let mut outline = Outline::default();
        outline.push(&first(members(&[1, 2, 3])));
        let hard_state = HardState { term: Term(1), voted_for: None };
        let mut follower = engine(Recovered { hard_state, outline, ..Recovered::default() });
        let entries = Entries::default();
        let prev = LogId::FIRST;
        let body = Body::Append { prev, committed: 1, round: 0, durable: 0, entries };
        after(&mut follower, says(body));
        after(&mut follower, piece(9, b""));
        after(&mut follower, piece(9, b"all of it."));
        let digest = meta(9).digest;
        let stored = if whole { 10 } else { 5 };
        let output = after(&mut follower, Input::PieceStored { digest, stored });
        assert_eq!(output.incoming.last() == Some(&Incoming::End(meta(9))), whole);

        let at = output.wake_at.expect("it is a voter");
        follower.step(at, Input::Wake);
        let role = if whole { Role::Follower } else { Role::PreCandidate };
        assert_eq!((follower.role(), follower.leader()), (role, None));
        follower.step(at, Input::PieceStored { digest, stored: 10 });
        assert!(output_of(&mut follower).incoming.is_empty(), "not without a leader");
        follower.step(at, Input::SnapshotReady(meta(9)));
        assert_eq!(follower.last_log_id().index, if whole { 9 } else { 1 });
    }
}

/// A leader whose disk was put back may be elected by another that knows of nothing, while the node
/// that has committed what both have forgotten restarts. It must not give that up without a word.
#[test]
fn what_was_committed_before_a_restart_is_not_replaced() {
    let mut outline = Outline::default();
    outline.push(&first(members(&[1, 2, 3])));
    entries(2..=7).iter().for_each(|entry| outline.push(entry));
    let hard_state = HardState { term: Term(1), voted_for: Some(node(2)) };
    let marks = Marks { committed: LogId::new(1, 2, 5), ..Marks::default() };
    let recovered = Recovered { hard_state, outline, marks, ..Recovered::default() };
    let mut restarted = engine(recovered);
    assert_eq!(after(&mut restarted, Input::Wake).committed, Some(5));
    let shorter = |prev, entries: Vec<Entry>| Body::Append {
        prev,
        committed: 0,
        round: 0,
        durable: 0,
        entries: entries.into(),
    };
    let body = shorter(LogId::new(1, 2, 2), vec![entry(2, 3, 3)]);
    let output = after(&mut restarted, message(3, 2, body));
    assert!(output.write.is_none_or(|(_, write)| write.entries.is_empty()));
    assert_eq!(restarted.contradictions(), 1);
    assert_eq!(restarted.last_log_id(), LogId::new(1, 2, 7));
    let body = shorter(LogId::new(1, 2, 5), vec![entry(2, 3, 6)]);
    after(&mut restarted, message(3, 2, body));
    assert_eq!(restarted.contradictions(), 1, "what is not known to be committed may be replaced");
    assert_eq!(restarted.last_log_id(), LogId::new(2, 3, 6));
}

/// Each thing that a peer may remember of a disk that was put back, and what is no accusation.
#[test]
fn a_disk_that_was_put_back_is_noticed_by_what_others_remember() {
    let nothing = Memory::default();
    let at = |index| LogId::new(1, 2, index);
    for (memory, accused) in [
        (nothing, false),
        (
            Memory {
                term: Term(1),
                voted: Term(1),
                acknowledged: at(7),
                committed: at(6),
                ..nothing
            },
            false,
        ),
        (Memory { committed: at(3), ..nothing }, false),
        (Memory { term: Term(2), ..nothing }, true),
        (Memory { voted: Term(2), ..nothing }, false),
        (Memory { acknowledged: at(8), ..nothing }, true),
        (Memory { acknowledged: LogId::new(2, 3, 6), ..nothing }, true),
        (Memory { acknowledged: LogId::new(0, 0, 9), ..nothing }, false),
        (Memory { committed: at(8), ..nothing }, true),
        (Memory { committed: LogId::new(2, 3, 7), ..nothing }, true),
    ] {
        let output = after(&mut follower(5, 7), Input::Remembered { from: node(2), memory });
        assert_eq!(output.rolled_back.is_some(), accused, "{memory:?}");
    }
    let in_start = |number, tag| Memory { boot: Boot { number, tag }, ..nothing };
    for (memory, accused) in [
        (in_start(1, 1), false),
        (in_start(1, 2), true),
        (in_start(2, 1), true),
        (in_start(0, 9), false),
    ] {
        let output = after(&mut follower(5, 7), Input::Remembered { from: node(2), memory });
        assert_eq!(output.rolled_back.is_some(), accused, "{memory:?}");
    }
    let voted = Memory { voted: Term(1), ..nothing };
    let output = after(&mut follower(5, 7), Input::Remembered { from: node(3), memory: voted });
    assert!(output.rolled_back.is_some(), "its vote was node 2's, and node 3 has got one");
}

/// A disk that was put back can come by the same term again, and lead in it. What it has then shows
/// nothing, but how its runs began does.
#[test]
fn a_disk_that_was_put_back_is_noticed_when_its_term_has_risen_again() {
    let starts: BTreeMap<u64, Start> = (1..=4)
        .map(|number| {
            (
                number,
                Start {
                    tag: 10 + number,
                    term: Term(number),
                    last: LogId::new(number, 1, 10 * number),
                },
            )
        })
        .collect();
    let memory = |number, tag, term| {
        let boot = Boot { number, tag };
        Memory { term: Term(term), boot, ..Memory::default() }
    };
    let judge = |memory: Memory| {
        let hard_state = HardState { term: Term(9), voted_for: Some(node(1)) };
        let marks = Marks { starts: starts.clone(), ..Marks::default() };
        let recovered = Recovered { hard_state, marks, ..Recovered::default() };
        let local = Local { replica: node(1), boot: Boot { number: 6, tag: 16 }, cluster: None };
        let now = Instant::default();
        let mut engine = Engine::new(local, 0, Config::default(), recovered, 1, now);
        after(&mut engine, Input::Remembered { from: node(2), memory }).rolled_back.is_some()
    };
    for (number, acknowledged, committed, accused) in [
        (2, LogId::new(3, 1, 30), LogId::ZERO, false),
        (2, LogId::new(3, 1, 31), LogId::ZERO, true), // Start 3 began with term 3 and 3.1-30.
        (2, LogId::new(2, 1, 99), LogId::ZERO, false), // Replaced in term 3, perhaps.
        (2, LogId::new(3, 1, 31), LogId::new(3, 1, 31), true),
    ] {
        let boot = Boot { number, tag: 10 + number };
        let memory = Memory { term: Term(3), acknowledged, committed, boot, ..Memory::default() };
        assert_eq!(judge(memory), accused, "start {number}, {acknowledged}, {committed}");
    }
    for (number, tag, term, accused) in [
        (2, 12, 3, false), // Start 3 began with term 3.
        (2, 12, 4, true),
        (2, 13, 1, true), // Another process was start 2.
        (4, 14, 9, false),
        (4, 14, 10, true),
        (5, 99, 9, false), // Start 5 has written nothing.
        (6, 16, 9, false),
        (6, 17, 9, true),
        (7, 17, 9, true),
    ] {
        assert_eq!(judge(memory(number, tag, term)), accused, "start {number}/{tag}, term {term}");
    }
}

/// Followers remember of their leader what it has said to be durable, and of which run that was.
#[test]
fn a_follower_remembers_how_far_the_log_of_its_leader_was_durable() {
    let mut follower = follower(0, 3);
    let boot = Boot { number: 5, tag: 50 };
    after(&mut follower, Input::Met { replica: node(2), boot });
    let append = |durable| {
        let (prev, entries) = (LogId::new(1, 2, 3), vec![entry(1, 2, 4), entry(1, 2, 5)]);
        says(Body::Append { prev, committed: 4, round: 0, entries: entries.into(), durable })
    };
    let at = |index| LogId::new(1, 2, index);
    let remembers = |acknowledged, committed| {
        Some(Memory { term: Term(1), voted: Term(0), acknowledged, committed, boot })
    };
    after(&mut follower, append(2));
    assert_eq!(follower.memory_of(node(2)), remembers(at(2), at(2)));
    after(&mut follower, append(5));
    assert_eq!(follower.memory_of(node(2)), remembers(at(5), at(4)));
    after(&mut follower, append(99));
    assert_eq!(follower.memory_of(node(2)), remembers(at(5), at(4)), "what lies here is known");
    // It goes to the disk with the next write, and by itself when there is none for a while.
    let later = Instant::from_nanos(Duration::from_secs(5).as_nanos() as u64);
    follower.step(later, Input::Wake);
    let (_, write) = output_of(&mut follower).write.expect("marks that nothing takes along");
    let marks = write.marks.expect("marks");
    assert_eq!(marks.memories.get(&node(2)).copied(), remembers(at(5), at(4)));
    assert_eq!(marks.starts, [(1, Start { tag: 1, term: Term(1), last: at(3) })].into());
}

/// A leader of a later term may put entries of earlier terms in the place of what was acknowledged
/// and never committed; until its own follow, the log ends before what a former leader remembers.
#[test]
fn what_a_later_leader_has_replaced_is_no_accusation() {
    let mut replaced = follower(0, 5);
    let of_term_2 = |index| entry(2, 3, index);
    let append = |prev, entries: Vec<Entry>| Body::Append {
        prev,
        committed: 0,
        round: 0,
        durable: 0,
        entries: entries.into(),
    };
    let ends_at_5 = LogId::new(1, 2, 5);
    let body = append(ends_at_5, vec![of_term_2(6), of_term_2(7), of_term_2(8)]);
    after(&mut replaced, message(3, 2, body));
    after(&mut replaced, message(2, 3, append(ends_at_5, vec![entry(1, 2, 6)])));
    assert_eq!(replaced.last_log_id(), LogId::new(1, 2, 6));
    let acknowledged = LogId::new(2, 3, 8);
    let memory = Memory { term: Term(2), acknowledged, ..Memory::default() };
    let remembered = || Input::Remembered { from: node(3), memory };
    assert_eq!(after(&mut replaced, remembered()).rolled_back, None);

    // The same after a restart in between.
    let mut outline = Outline::default();
    entries(1..=6).iter().for_each(|entry| outline.push(entry));
    let hard_state = HardState { term: Term(3), voted_for: None };
    let mut restarted = engine(Recovered { hard_state, outline, ..Recovered::default() });
    assert_eq!(after(&mut restarted, remembered()).rolled_back, None);
}

/// A founder loses its disk as the leader of term 1, before another disk has the first entry. Its
/// next disk may lead in term 1 as well: who waits for the first entry follows that one then.
#[test]
fn another_promise_ends_the_following_of_a_leader() {
    let local = Local { replica: node(3), boot: Boot { number: 1, tag: 1 }, cluster: None };
    let mut engine =
        Engine::new(local, 0, Config::default(), Recovered::default(), 1, Instant::default());
    let mut hear = |disk, term, body| {
        let (from, to, term) = (Replica::new(1, disk), node(3), Term(term));
        let message = Message { group: 0, cluster: None, from, to, term, body };
        after(&mut engine, Input::Message(message));
        engine.leader()
    };
    for disk in [1, 2] {
        let claim = Claim {
            cluster: ClusterId(disk.into()),
            ballot: disk,
            founder: Replica::new(1, disk),
            list: [1, 3].map(|id| (id, format!("node-{id}"))).into(),
        };
        assert_eq!(hear(disk, 0, Body::Claim(Box::new(claim))), None);
        let (prev, entries) = (LogId::FIRST, Entries::default());
        let heartbeat = Body::Append { prev, committed: 0, round: 0, durable: 0, entries };
        assert_eq!(hear(disk, 1, heartbeat), Some(Replica::new(1, disk)));
    }
}

/// Who forms a cluster hears anybody at a listed address.
#[test]
fn a_ballot_at_the_end_of_all_numbers_is_no_panic() {
    let mut founder = engine(Recovered::default());
    let list = [1, 2].map(|id| (id, format!("node-{id}"))).into();
    founder.initialize(Instant::default(), list).unwrap();
    for ballot in [u64::MAX - 1, u64::MAX, u64::MAX] {
        let ids = [1, 2].into();
        let situation = Situation::Claimed { ballot, founder: Replica::new(1, 9), ids };
        let body = Body::Situation { situation, told: [1, 2].into() };
        after(&mut founder, message(2, 0, body));
        let claim = founder.standing().claim().map(|claim| claim.ballot);
        assert_eq!(claim, Some(u64::MAX));
    }
}

/// What a leader remembers of its peers goes along with later writes, and comes back with the
/// store.
#[test]
fn memories_outlive_a_restart() {
    let memory = Memory { term: Term(3), acknowledged: LogId::new(3, 1, 9), ..Memory::default() };
    let marks = Marks { memories: [(node(2), memory)].into(), ..Marks::default() };
    let mut engine = engine(Recovered { marks, ..Recovered::default() });
    assert_eq!(engine.memory_of(node(2)), Some(memory));
    assert_eq!(engine.memory_of(Replica::new(2, 2)), None);
}

/// Absence alone is not enough: a node that joins replays the time before.
#[test]
fn who_was_a_voter_and_has_committed_a_configuration_without_itself_is_spent() {
    let others = || Entry { payload: Payload::Membership(members(&[2, 3])), ..entry(1, 2, 2) };
    for (begin, spent) in [(&[1, 2, 3][..], true), (&[2, 3], false)] {
        let mut engine = newcomer();
        let entries = vec![first(members(begin)), others()].into();
        let body = Body::Append { prev: LogId::ZERO, committed: 1, round: 0, durable: 0, entries };
        after(&mut engine, message(3, 1, body));
        assert_ne!(*engine.standing(), Standing::Spent, "it is not committed");
        let body = Body::Append {
            prev: LogId::new(1, 2, 2),
            committed: 2,
            round: 0,
            durable: 0,
            entries: Entries::default(),
        };
        let output = after(&mut engine, message(3, 1, body));
        assert_eq!(*engine.standing() == Standing::Spent, spent);
        let written = output.write.and_then(|(_, write)| write.standing);
        assert_eq!(written.as_deref() == Some(&Standing::Spent), spent, "durably");
        let output = after(&mut engine, message(2, 0, Body::Who { told: [].into() }));
        assert_ne!(situation(&output), Some(&Situation::Spent), "not before it is durable");
    }
}

/// Voters vote before they have the first entry, and a founder may lose it again: until somebody
/// has acknowledged it, the claim may have to be made anew, and who is let in would not take that.
#[test]
fn a_founder_lets_nobody_in_before_its_first_entry_has_left_it() {
    let mut founder = newcomer();
    let list = [1, 2].map(|id| (id, format!("node-{id}"))).into();
    founder.initialize(Instant::default(), list).expect("it may found");
    let (write, _) = output_of(&mut founder).write.expect("its claim");
    after(&mut founder, Input::Persisted { write });
    let told: BTreeSet<u64> = [1, 2].into();
    let situation = Situation::Claimed { ballot: 1, founder: node(1), ids: told.clone() };
    let body = Body::Situation { situation, told: told.clone() };
    after(&mut founder, sent(node(2), node(1), 0, body));
    assert_eq!(founder.last_log_id(), LogId::FIRST);
    for (term, body) in
        [(1, Body::PreVoteReply { granted: true }), (1, Body::VoteReply { granted: true })]
    {
        after(&mut founder, sent(node(2), node(1), term, body));
    }
    assert_ne!(founder.memory_of(node(2)), None, "its vote is remembered");
    let asked = |founder: &mut Engine| {
        let who = Body::Who { told: told.clone() };
        let output = after(founder, sent(node(2), node(1), 0, who));
        output.messages.iter().any(|message| matches!(message.body, Body::Admit { .. }))
    };
    assert!(!asked(&mut founder));
}
