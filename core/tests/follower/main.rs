//! One node, and peers whose messages are made by hand: what it answers, and when.

mod contradictions;
mod elections;
mod forwards;
mod joining;
mod memories;
mod removal;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use litemap::LiteMap;
use quorate_core::engine::{Engine, Input, Local, Output, Proposal, ReadOutcome, ReceiveStep};
use quorate_core::{
    AppendOutcome, Body, Boot, Claim, ClusterId, Config, Digest, Entries, Entry, ForwardOutcome,
    HardState, Index, LeadershipTransfer, LogId, LogMeta, LogWrite, Marks, Membership, Memory,
    Message, Payload, Recovered, Replica, Role, Situation, SnapshotMeta, Standing, Start, Term,
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

fn snapshot_chunk(index: u64, chunk: &'static [u8]) -> Input {
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

/// Node 1, whose log goes from behind `purged` to `last` and is durable. It has heard from
/// nobody yet.
fn follower(purged: Index, last: Index) -> Engine {
    let mut log_meta = match purged {
        0 => LogMeta::default(),
        purged => LogMeta::after(LogId::new(1, 2, purged)),
    };
    entries(purged + 1..=last).iter().for_each(|entry| log_meta.push(entry));
    let hard_state = HardState { term: Term(1), voted_for: Some(node(2)) };
    let snapshot = (purged > 0).then(|| meta(purged));
    let mut engine = engine(Recovered { hard_state, snapshot, log_meta, ..Recovered::default() });
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
    *engine.take_output()
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
    let mut output = after(&mut follower, append(1, LogId::ZERO, vec![first]));
    assert_eq!(output.rare().membership, Some(membership));
    // Of two terms, so that each of them has to be looked at.
    let others = [(1, 2), (2, 3)].map(|(term, index)| (LogId::new(term, 2, index), Payload::Blank));
    let others = others.map(|(log_id, payload)| Entry { log_id, time: 0, payload }).into();
    let mut output = after(&mut follower, append(2, LogId::FIRST, others));
    assert_eq!((follower.last_log_id().index, output.rare().membership.take()), (3, None));
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
        let mut output = after(&mut follower, snapshot_chunk(index, b""));
        assert_eq!(answer(&output), (0, accepted(6)), "it has all of that");
        assert!(output.rare().receive_steps.is_empty());
    }
    let mut output = after(&mut follower, snapshot_chunk(6, b""));
    assert_eq!(output.rare().receive_steps, [ReceiveStep::Begin(meta(6).digest)]);
}

#[test]
fn other_candidates_are_refused_for_one_election_timeout_after_the_leaders_word() {
    let timeout = Config::default().election_timeout;
    for (early, leader) in [(Duration::from_nanos(1), Some(2)), (Duration::ZERO, None)] {
        let mut follower = follower(0, 3);
        after(&mut follower, append(3, 3, 3, 0));
        let body = Body::Vote { last_log_id: LogId::new(1, 2, 3), transfer: None, attempt: 0 };
        follower.step(Instant::default() + (timeout - early), message(3, 2, body));
        assert_eq!(follower.leader(), leader.map(node), "{early:?} before its end");
    }
}

#[test]
fn a_chunk_from_the_middle_of_a_snapshot_begins_no_transfer() {
    let mut follower = follower(0, 3);
    after(&mut follower, append(3, 3, 3, 0));
    let body =
        Body::Snapshot { meta: Box::new(meta(9)), offset: 4, chunk: Bytes::from_static(b"4567") };
    let mut output = after(&mut follower, says(body));
    assert!(output.rare().receive_steps.is_empty());
    let reply = Body::SnapshotReply { digest: meta(9).digest, stored: 0 };
    assert_eq!(output.messages.into_iter().map(|m| m.body).collect::<Vec<_>>(), [reply]);
}

/// A draft that is gone: the disk is at a chunk of it while an old offer comes again after a
/// newer one.
#[test]
fn what_an_earlier_draft_has_stored_is_not_of_the_next() {
    let now = Instant::default();
    let mut engine = engine(Recovered::default());
    engine.step(now, append(0, 0, 0, 0));
    engine.step(now, snapshot_chunk(5, b""));
    engine.step(now, snapshot_chunk(5, b"half"));
    engine.step(now, snapshot_chunk(7, b""));
    engine.step(now, snapshot_chunk(5, b""));
    output_of(&mut engine);
    engine.step(now, Input::ChunkStored { digest: meta(5).digest, stored: 4 });
    let output = output_of(&mut engine);
    assert!(output.messages.is_empty(), "{:?}", output.messages);
    // The new draft takes its chunks as any other does.
    engine.step(now, snapshot_chunk(5, b"all of it."));
    engine.step(now, Input::ChunkStored { digest: meta(5).digest, stored: 10 });
    let mut output = output_of(&mut engine);
    assert_eq!(output.rare().receive_steps.last(), Some(&ReceiveStep::End(meta(5))));
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
        let mut output = after(&mut following(), says(&meta, offset));
        let nothing = output.messages.is_empty() && output.rare().receive_steps.is_empty();
        assert!(nothing, "{meta:?} at {offset}");
    }
    let good = [
        (meta(9), 6),
        (with(&|meta| meta.membership_index = 9), 0),
        (with(&|meta| meta.log_id.index = farthest), 0),
        (with(&|meta| meta.log_id.term = Term(2)), 0),
    ];
    for (meta, offset) in good {
        let mut output = after(&mut following(), says(&meta, offset));
        let nothing = output.messages.is_empty() && output.rare().receive_steps.is_empty();
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
        let mut output = after(&mut follower, offer(from, term));
        assert_eq!(!output.rare().receive_steps.is_empty(), taken, "node {from} in term {term}");
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

/// Whoever has pretended to lead in a term keeps its leader out no longer than a leader that has
/// died, though the leader goes on talking.
#[test]
fn a_second_leader_of_a_term_does_not_put_off_the_next_election() {
    let mut log_meta = LogMeta::default();
    log_meta.push(&first(members(&[1, 2, 3])));
    let hard_state = HardState { term: Term(1), voted_for: None };
    let mut node = engine(Recovered { hard_state, log_meta, ..Recovered::default() });
    let heartbeat = |from| {
        let (prev, entries) = (LogId::FIRST, Entries::default());
        message(from, 1, Body::Append { prev, committed: 0, round: 0, durable: 0, entries })
    };
    after(&mut node, heartbeat(9));
    let due = output_of(&mut node).wake_at.expect("it is a voter");
    node.step(Instant::default() + Config::default().election_timeout, heartbeat(2));
    assert_eq!(node.leader().map(|leader| leader.id), Some(9));
    node.step(due, Input::Wake);
    assert_eq!((node.role(), node.leader()), (Role::PreCandidate, None));
    node.step(due, heartbeat(2));
    assert_eq!(node.leader().map(|leader| leader.id), Some(2));
}

/// The leader's answer to a read tells what is committed. One to a read that nobody asked is
/// forged.
#[test]
fn an_answer_to_no_question_commits_nothing() {
    let answer = |sequence| says(Body::ReadIndexReply { sequence, index: Some(3), time: 0 });
    let mut follower = follower(0, 3);
    after(&mut follower, append(3, 3, 0, 0));
    after(&mut follower, answer(u64::MAX));
    assert_eq!(follower.committed(), 0);
    let asked = after(&mut follower, Input::Read { ticket: 1 });
    let sequence = asked.messages.iter().find_map(|message| match message.body {
        Body::ReadIndex { sequence } => Some(sequence),
        _ => None,
    });
    after(&mut follower, answer(sequence.expect("it asks the leader")));
    assert_eq!(follower.committed(), 3);
}

#[test]
fn nobody_campaigns_beyond_the_last_term() {
    for (term, role) in [(Term(u64::MAX / 2 - 1), Role::PreCandidate), (Term::LAST, Role::Follower)]
    {
        let mut log_meta = LogMeta::default();
        log_meta.push(&first(members(&[1, 2, 3])));
        let hard_state = HardState { term, voted_for: None };
        let mut last = engine(Recovered { hard_state, log_meta, ..Recovered::default() });
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
fn a_candidate_of_the_last_term_that_nobody_elects_is_not_due_again_at_once() {
    let mut log_meta = LogMeta::default();
    log_meta.push(&first(members(&[1, 2, 3])));
    let term = Term(u64::MAX / 2 - 1);
    let hard_state = HardState { term, voted_for: None };
    let mut last = engine(Recovered { hard_state, log_meta, ..Recovered::default() });
    let due = |engine: &mut Engine| output_of(engine).wake_at.expect("it is a voter");
    let at = due(&mut last);
    last.step(at, Input::Wake);
    last.step(at, message(2, Term::LAST.0, Body::PreVoteReply { granted: true, attempt: 0 }));
    assert_eq!((last.role(), last.hard_state().term), (Role::Candidate, Term::LAST));
    let at = due(&mut last);
    last.step(at, Input::Wake);
    assert!(due(&mut last) > at, "it would have no pause");
}

#[test]
fn only_the_leader_transfers_leadership_and_only_as_long_as_nothing_has_changed() {
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

/// What a voter with a leader makes of a request that rests on a `TimeoutNow`.
#[test]
fn an_order_to_take_over_counts_only_with_those_who_follow_that_leader() {
    let asked = |leader, term, round| {
        let transfer = Some(LeadershipTransfer { leader, term: Term(term), round });
        message(3, 2, Body::Vote { last_log_id: LogId::new(1, 2, 5), transfer, attempt: 0 })
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
    engine.step(later, message(2, 1, Body::PreVoteReply { granted: true, attempt: 0 }));
    assert_eq!(engine.role(), Role::PreCandidate, "that is an answer to an earlier question");
    engine.step(later, message(2, 2, Body::PreVoteReply { granted: true, attempt: 0 }));
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
