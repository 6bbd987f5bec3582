//! Messages that no engine would send: every kind, with every field at its extremes, from members
//! and strangers, in every role. None is a panic, now or later, and afterwards the cluster elects
//! and commits.

mod alone;
mod bodies;

use std::time::Duration;

use bytes::Bytes;
use quorate_core::engine::Input;
use quorate_core::{Body, ClusterId, Config, LogId, Message, NodeId, Replica, Role, Term};

use self::bodies::{Ours, bases, variations};
use crate::cluster::Cluster;

fn is(cluster: &Cluster, id: NodeId, role: Role) -> bool {
    cluster.engine(id).is_some_and(|engine| engine.role() == role)
}

/// A cluster whose node 1 leads, and whose node 3 asks for pre-votes.
fn cluster() -> Cluster {
    let mut cluster = Cluster::formed(Config::default(), &[1, 2, 3], &[1, 2, 3]);
    while !is(&cluster, 1, Role::PreCandidate) {
        cluster.now = cluster.wake_at(1).expect("it waits for a leader");
        cluster.wake(1);
    }
    cluster.settle();
    assert!(is(&cluster, 1, Role::Leader));
    cluster.cut(vec![[1, 2].into(), [3].into()]);
    let end = cluster.now + Duration::from_secs(5);
    cluster.run_until(end, |cluster| is(cluster, 3, Role::PreCandidate));
    assert!(is(&cluster, 3, Role::PreCandidate));
    cluster.heal();
    cluster
}

/// What the node with this id has.
fn ours(cluster: &Cluster, id: NodeId) -> Ours {
    let engine = cluster.engine(id).expect("it runs");
    let leader = Replica::new(if id == 1 { 2 } else { 1 }, 1);
    Ours {
        me: engine.replica(),
        leader,
        term: engine.hard_state().term,
        last: engine.last_log_id(),
        committed: engine.committed(),
    }
}

/// Whether a leader commits a command together with another node, in time.
fn elects_and_commits(cluster: &mut Cluster, number: &mut u64) -> bool {
    for _ in 0..40 {
        let leader = cluster.ids().into_iter().find(|id| is(cluster, *id, Role::Leader));
        if let Some(leader) = leader {
            *number += 1;
            cluster.propose(leader, &[Bytes::from(format!("command-{number}"))]);
            let placed = cluster.engine(leader).map(|engine| engine.last_log_id());
            let placed = placed.expect("it runs");
            cluster.run(Duration::from_secs(2));
            let has = |id: &NodeId| {
                let committed = cluster.engine(*id).is_some_and(|e| e.committed() >= placed.index);
                committed && cluster.holds(*id, placed)
            };
            if cluster.ids().iter().filter(|id| has(id)).count() >= 2 {
                return true;
            }
        }
        cluster.run(Duration::from_secs(1));
    }
    false
}

/// All messages of a kind, one after the other, to the same node. What it believes of its leader
/// may spoil its log; the others go on without it.
#[test]
fn afterwards_the_cluster_elects_and_commits() {
    let mut number = 0;
    let kinds = bases(ours(&cluster(), 1)).len();
    for to in 1..=3 {
        for kind in 0..kinds {
            for from in [Replica::new(if to == 1 { 2 } else { 1 }, 1), Replica::new(9, 9)] {
                let mut cluster = cluster();
                cluster.safety.off = true;
                let ours = ours(&cluster, to);
                for (at, body) in (0..).zip(variations(&bases(ours)[kind], ours)) {
                    let engine = cluster.engine(to).expect("it has not stopped");
                    let term = Term(engine.hard_state().term.0 + at % 2);
                    let to = ours.me;
                    let message = Message { group: 1, cluster: None, from, to, term, body };
                    cluster.step(to.id, vec![Input::Message(message)]);
                }
                cluster.events.clear();
                let goes_on = elects_and_commits(&mut cluster, &mut number);
                assert!(goes_on, "kind {kind} from {from} to {to}");
            }
        }
    }
}

/// One that makes all others old at once.
#[test]
fn afterwards_no_term_is_too_late() {
    let mut number = 0;
    for to in 1..=3 {
        for term in bodies::numbers(1) {
            let mut cluster = cluster();
            let (from, to) = (Replica::new(if to == 1 { 2 } else { 1 }, 1), Replica::new(to, 1));
            let (term, body) = (Term(term), Body::VoteReply { granted: false, attempt: 0 });
            let message = Message { group: 1, cluster: None, from, to, term, body };
            for _ in 0..3 {
                cluster.step(to.id, vec![Input::Message(message.clone())]);
            }
            assert!(elects_and_commits(&mut cluster, &mut number), "{term}");
        }
    }
}

#[test]
fn messages_for_others_are_ignored() {
    let body = Body::VoteReply { granted: true, attempt: 0 };
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

/// A follower that was told of a round by a forged append answers the next honest one with the
/// round of that, and a leader's reads go on.
#[test]
fn a_forged_round_is_not_echoed_for_long() {
    let mut cluster = cluster();
    cluster.settle();
    let (prev, term) = (cluster.engine(1).map_or(LogId::ZERO, |e| e.last_log_id()), Term(1));
    let entries = Vec::new().into();
    let body = Body::Append { prev, committed: 0, round: u64::MAX, durable: 0, entries };
    let (from, to) = (Replica::new(1, 1), Replica::new(2, 1));
    cluster
        .step(2, vec![Input::Message(Message { group: 1, cluster: None, from, to, term, body })]);
    cluster.cut(vec![[1, 2].into(), [3].into()]);
    cluster.read(1);
    cluster.run(Duration::from_secs(3));
    let answered = cluster.events.iter().any(|event| event.text.contains("answers read 1: at"));
    assert!(answered && is(&cluster, 1, Role::Leader));
}
