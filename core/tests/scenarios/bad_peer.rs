//! Messages that no engine would send: numbers at their ends, answers to what was never asked. Each is refused, ignored or answered, in
//! every role, and the cluster works afterwards; none is a panic. A leader that contradicts what is
//! committed stops the node, and nothing else does.

use std::time::Duration;

use bytes::Bytes;
use quorate_core::engine::Input;
use quorate_core::{
    AppendOutcome, Body, Claim, ClusterId, Config, Digest, Entry, ForwardOutcome, Handover, LogId,
    Message, NodeId, Payload, Replica, Role, Situation, SnapshotMeta, Term,
};

use crate::cluster::{Cluster, list, members};

const MAX: u64 = u64::MAX;

fn bodies(term: u64) -> Vec<Body> {
    let last = LogId::new(term, MAX, MAX);
    let append = |prev, entries: Vec<Entry>| {
        let entries = entries.into();
        Body::Append { prev, committed: MAX, round: MAX, durable: MAX, entries }
    };
    let entry =
        |index| Entry { log_id: LogId::new(term, 1, index), time: MAX, payload: Payload::Blank };
    let replied = |outcome| Body::AppendReply { round: 0, outcome };
    let rejected = |prev, hint| replied(AppendOutcome::Rejected { prev, hint });
    let at = ForwardOutcome::Appended(last);
    let members = members(&[1]);
    let claim = |founder, ids: &[NodeId]| {
        let cluster = ClusterId(9);
        Body::Claim(Box::new(Claim { cluster, ballot: MAX, founder, list: list(ids) }))
    };
    let situation = |situation| Body::Situation { situation, told: [7].into() };
    let handover = Handover { leader: Replica::new(1, 1), term: Term(term), round: MAX };
    let snapshot = |log_id, offset, bytes, chunk: &'static [u8]| {
        let (membership, digest) = (members.clone(), Digest::of(b"something else"));
        let meta =
            SnapshotMeta { log_id, time: MAX, membership, membership_index: 1, bytes, digest };
        Body::Snapshot { meta: Box::new(meta), offset, chunk: Bytes::from_static(chunk) }
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
        Body::PreVoteReply { granted: true },
        Body::Vote { last_log_id: last, handover: Some(handover) },
        Body::VoteReply { granted: true },
        Body::TimeoutNow { last_log_id: last, round: MAX },
        Body::Who { told: [7].into() },
        claim(Replica::new(1, 1), &[1, 2, 3]),
        claim(Replica::new(2, 1), &[2]),
        claim(Replica::new(9, 1), &[1, 2, 3]),
        Body::Admit { cluster: ClusterId(9), founders: [9].into() },
        situation(Situation::Empty),
        situation(Situation::Claimed { ballot: MAX, founder: Replica::new(9, 9), ids: [9].into() }),
        Body::Situation {
            situation: Situation::Claimed {
                ballot: MAX,
                founder: Replica::new(1, 9),
                ids: [1, 2, 3].into(),
            },
            told: [1, 2, 3].into(),
        },
        situation(Situation::Admitted),
        situation(Situation::Member { founders: [9].into(), voter: false }),
        situation(Situation::Spent),
        situation(Situation::Elsewhere),
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
        Body::Forward { boot: MAX, sequence: MAX, commands: Vec::new() },
        Body::Forward { boot: 0, sequence: 0, commands: vec![Bytes::new()] },
        Body::ForwardReply { boot: MAX, sequence: MAX, outcome: at },
        Body::ReadIndexReply { sequence: MAX, index: Some(MAX), time: MAX },
    ]
}

/// A cluster whose node 1 leads, and whose node 3 is about to campaign.
fn cluster() -> Cluster {
    let mut cluster = Cluster::formed(Config::default(), &[1, 2, 3], &[1, 2, 3]);
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
                let from = Replica::new(if to == 1 { 2 } else { 1 }, 1);
                let receiver = Replica::new(to, 1);
                let (term, body) = (Term(term), body.clone());
                let message = Message { group: 1, cluster: None, from, to: receiver, term, body };
                for _ in 0..2 {
                    if cluster.engine(to).is_some() {
                        cluster.step(to, vec![Input::Message(message.clone())]);
                    }
                }
                match cluster.engine(to) {
                    Some(engine) if term > Term(2) => assert!(engine.hard_state().term <= Term(2)),
                    Some(_) => {}
                    None => {
                        let leads =
                            matches!(message.body, Body::Append { .. } | Body::Snapshot { .. });
                        assert!(leads && term <= Term(2), "{message:?} has stopped node {to}");
                    }
                }
            }
        }
    }
}

/// The same while nodes form a cluster: the founder, another node of the list, and one that was
/// told nothing. Node 2 can't be reached, so that nothing is formed in between.
#[test]
fn no_message_is_a_panic_while_a_cluster_is_formed() {
    for (body, term) in bodies(1).into_iter().chain(bodies(0)).zip([0, 1, MAX].into_iter().cycle())
    {
        for (to, speaker) in [(1, 2), (1, 3), (3, 1), (3, 2), (4, 1)] {
            let ids = [1, 2, 3, 4];
            let mut cluster = Cluster::new(Config::default(), &ids, &ids);
            cluster.cut(vec![[1, 3, 4].into(), [2].into()]);
            for id in [1, 3] {
                cluster.initialize(id, list(&[1, 2, 3])).expect("nothing is promised yet");
            }
            let (from, receiver) = (Replica::new(speaker, 7), Replica::new(to, 1));
            let (term, body) = (Term(term), body.clone());
            let message = Message { group: 1, cluster: None, from, to: receiver, term, body };
            for _ in 0..3 {
                cluster.step(to, vec![Input::Message(message.clone())]);
                let end = cluster.now + Duration::from_millis(200);
                cluster.run_until(end, |_| false);
            }
            assert!(cluster.engine(to).is_some_and(|engine| engine.membership().is_none()));
        }
    }
}

#[test]
fn messages_for_others_are_ignored() {
    let body = Body::VoteReply { granted: true };
    let (from, to) = (Replica::new(2, 1), Replica::new(1, 1));
    let good = Message { group: 1, cluster: None, from, to, term: Term(9), body };
    let mut cluster = cluster();
    for message in [
        Message { group: 2, ..good.clone() },
        Message { cluster: Some(ClusterId(9)), ..good.clone() },
        Message { to: from, ..good.clone() },
        Message { to: Replica::new(1, 2), ..good.clone() },
        Message { to: Replica::any(1), ..good.clone() },
        Message { from: to, ..good.clone() },
        Message { from: Replica::new(0, 1), ..good.clone() },
    ] {
        cluster.step(1, vec![Input::Message(message)]);
        assert_eq!(cluster.engine(1).map(|engine| engine.hard_state().term), Some(Term(1)));
    }
    cluster.step(1, vec![Input::Message(good)]);
    assert_eq!(cluster.engine(1).map(|engine| engine.hard_state().term), Some(Term(9)));
}
