//! Messages that no engine would send: numbers at their ends, answers to what was never asked. Each is refused, ignored or answered, in
//! every role, and the cluster works afterwards; none is a panic.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::engine::Input;
use quorate_core::{
    AppendOutcome, Body, Config, Digest, Entry, ForwardOutcome, LogId, Membership, Message, NodeId,
    Payload, Role, SnapshotMeta, Term, Vote,
};

use crate::cluster::Cluster;

const MAX: u64 = u64::MAX;

fn bodies(term: u64) -> Vec<Body> {
    let last = LogId::new(term, MAX, MAX);
    let append = |prev, entries: Vec<Entry>| {
        let entries = entries.into();
        Body::Append { prev, committed: MAX, round: MAX, entries }
    };
    let entry = |index| Entry { log_id: LogId::new(term, 1, index), payload: Payload::Blank };
    let replied = |outcome| Body::AppendReply { round: 0, outcome };
    let rejected = |prev, hint| replied(AppendOutcome::Rejected { prev, hint });
    let at = ForwardOutcome::Appended(last);
    let members = Membership::new([(1, "node-1".to_owned())].into()).expect("valid");
    let snapshot = |log_id, offset, bytes, chunk: &'static [u8]| {
        let (membership, digest) = (members.clone(), Digest::of(b"something else"));
        let meta = SnapshotMeta { log_id, membership, membership_index: 1, bytes, digest };
        Body::Snapshot { meta, offset, chunk: Bytes::from_static(chunk) }
    };
    vec![
        snapshot(last, 0, MAX, b""),
        snapshot(LogId::new(term, 1, MAX - 1), 0, MAX, b"piece"),
        snapshot(LogId::new(1, 1, 500), MAX, MAX, b"piece"),
        snapshot(LogId::new(1, 1, 500), 0, 5, b"piece"),
        snapshot(LogId::new(1, 1, 500), 0, 0, b""),
        snapshot(LogId::new(1, 1, 500), 0, 3, b"piece"),
        snapshot(LogId::new(1, 1, 1), 0, MAX, b""),
        snapshot(LogId::ZERO, 0, 0, b""),
        Body::SnapshotReply { digest: Digest::of(b""), stored: MAX },
        Body::PreVote { last_log_id: last },
        Body::PreVoteReply { vote: Vote::Yes },
        Body::VoteReply { vote: Vote::Yes },
        append(last, Vec::new()),
        append(last, vec![entry(1)]),
        append(LogId::new(term, 1, MAX - 1), vec![entry(MAX)]),
        append(LogId::new(1, 1, 500), vec![entry(1000)]),
        replied(AppendOutcome::Accepted { matched: MAX }),
        Body::AppendReply { round: MAX, outcome: AppendOutcome::Accepted { matched: 0 } },
        rejected(MAX, last),
        rejected(MAX, LogId::ZERO),
        rejected(0, last),
        rejected(1, last),
        Body::Forward { session: MAX, sequence: MAX, commands: Vec::new() },
        Body::Forward { session: 0, sequence: 0, commands: vec![Bytes::new()] },
        Body::ForwardReply { session: MAX, sequence: MAX, outcome: at },
        Body::ReadIndexReply { sequence: MAX, index: Some(MAX) },
    ]
}

/// A cluster whose node 1 leads, and whose node 3 is about to campaign.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(Config::default(), &[1, 2, 3], &[1, 2, 3]);
    for id in 1..=3 {
        assert!(cluster.initialize(id));
        cluster.persist(id, 1);
    }
    let role = |cluster: &Cluster, id| cluster.engine(id).map(|engine| engine.role());
    while role(&cluster, 1) != Some(Role::PreCandidate) {
        cluster.now = cluster.wake_at(1).expect("it waits for a leader");
        cluster.wake(1);
    }
    cluster.settle();
    assert_eq!(role(&cluster, 1), Some(Role::Leader));
    cluster.cut(vec![[1, 2].into(), [3].into()]);
    let end = cluster.now + Duration::from_secs(5);
    cluster.run_until(end, |cluster| role(cluster, 3) == Some(Role::PreCandidate));
    assert_eq!(role(&cluster, 3), Some(Role::PreCandidate));
    cluster.heal();
    cluster
}

#[test]
fn no_message_is_a_panic() {
    for term in [1, 2, MAX - 1, MAX] {
        for body in bodies(term) {
            for to in 1..=3 {
                let mut cluster = cluster();
                // Node 2 follows node 1; what node 1 says is believed more than what others say.
                let from: NodeId = if to == 1 { 2 } else { 1 };
                let message = Message { group: 1, from, to, term: Term(term), body: body.clone() };
                for _ in 0..2 {
                    cluster.step(to, vec![Input::Message(message.clone())]);
                }
                if term > 2 {
                    assert!(cluster.engine(to).is_some_and(|e| e.hard_state().term <= Term(2)));
                }
            }
        }
    }
}

#[test]
fn messages_for_others_are_ignored() {
    let body = Body::VoteReply { vote: Vote::Yes };
    let good = Message { group: 1, from: 2, to: 1, term: Term(9), body };
    let mut cluster = cluster();
    for message in [
        Message { group: 2, ..good.clone() },
        Message { to: 2, ..good.clone() },
        Message { from: 1, ..good.clone() },
        Message { from: 0, ..good.clone() },
    ] {
        cluster.step(1, vec![Input::Message(message)]);
        assert_eq!(cluster.engine(1).map(|engine| engine.hard_state().term), Some(Term(1)));
    }
    cluster.step(1, vec![Input::Message(good)]);
    assert_eq!(cluster.engine(1).map(|engine| engine.hard_state().term), Some(Term(9)));
}
