//! A replica without a log: for whom it votes, and with what its log may begin.

use super::*;

/// Rule 6: the candidate's configuration names it, and it may know of none itself.
#[test]
fn a_newcomer_votes_when_it_is_asked_by_its_name() {
    let request = || Body::Vote { last_log_id: LogId::FIRST, transfer: None, attempt: 0 };
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
    assert_eq!(output.messages[0].body, Body::VoteReply { granted: true, attempt: 0 });
}

/// The old and the new disk of a node are two candidates: if a vote named the node only, both could
/// be elected with it in one term.
#[test]
fn a_vote_is_for_a_disk_and_not_for_its_node() {
    let request = || Body::Vote { last_log_id: LogId::FIRST, transfer: None, attempt: 0 };
    let mut engine = newcomer();
    let output = after(&mut engine, message(2, 1, request()));
    after(&mut engine, Input::Persisted { write: output.write.expect("a vote").0 });
    let output = after(&mut engine, sent(Replica::new(2, 2), node(1), 1, request()));
    assert_eq!(output.messages[0].body, Body::VoteReply { granted: false, attempt: 0 });
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
        let list = [1, 2, 3].map(|id| (id, format!("node-{id}")));
        let claim = quorate_core::Claim {
            cluster,
            ballot: 1,
            founder,
            list: std::sync::Arc::new(list.into_iter().collect()),
        };
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
    let mut listed = newcomer();
    let list = [1, 2].map(|id| (id, format!("node-{id}"))).into();
    listed.initialize(Instant::default(), list).expect("nothing stands against it");
    assert!(!begins(&mut listed, node(2), &all), "it was told another list");
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

/// Anybody can say to an empty store that it is let in.
#[test]
fn a_new_disk_that_a_stranger_has_let_in_is_let_in_by_its_cluster_all_the_same() {
    let let_in = |engine: &mut Engine, from: Replica, cluster| {
        let admit = Body::Admit { cluster, founders: [1, 2, 3].into() };
        let output = after(engine, sent(from, node(1), 0, admit));
        let (write, _) = output.write.expect("it is noted");
        let output = after(engine, Input::Persisted { write });
        assert_eq!(situation(&output), Some(&Situation::Admitted));
    };
    let mut engine = newcomer();
    output_of(&mut engine);
    let stranger = Replica::new(9, 1);
    let_in(&mut engine, stranger, ClusterId(8));
    let_in(&mut engine, node(2), CLUSTER);
    assert_eq!(*engine.standing(), Standing::Admitted(CLUSTER));
    let begin = vec![first(members(&[1, 2, 3]))].into();
    let body =
        Body::Append { prev: LogId::ZERO, committed: 0, round: 0, durable: 0, entries: begin };
    after(&mut engine, message(2, 1, body));
    // From here on it belongs there.
    let admit = Body::Admit { cluster: ClusterId(8), founders: [1, 2, 3].into() };
    after(&mut engine, sent(stranger, node(1), 0, admit));
    assert_eq!(*engine.standing(), Standing::Admitted(CLUSTER));
    assert_eq!(engine.cluster(), Some(CLUSTER));
}

/// Its founder lost its disk, and the next attempt has a leader of the same term. A late word of
/// the first one must not keep a node without a log from that: it has no vote, and so it waits for
/// whoever leads when its leader has been silent for an election timeout.
#[test]
fn a_newcomer_hears_the_next_leader_of_a_term() {
    let mut engine = newcomer();
    let late = Body::Append {
        prev: LogId::FIRST,
        committed: 0,
        round: 0,
        durable: 0,
        entries: vec![entry(1, 2, 2)].into(),
    };
    let output = after(&mut engine, sent(Replica::new(3, 9), node(1), 1, late));
    assert!(output.write.is_none_or(|(_, write)| write.entries.is_empty()));
    let begins = || {
        let entries = vec![first(members(&[1, 2, 3]))].into();
        Body::Append { prev: LogId::ZERO, committed: 0, round: 0, durable: 0, entries }
    };
    hears_another_leader(&mut engine, Replica::new(3, 9), node(2), begins);
    assert_eq!(engine.last_log_id(), LogId::FIRST);
}

/// The same for one that has a log, but no vote: its leader is false, and says no more.
#[test]
fn a_learner_hears_another_leader_of_the_term_when_its_own_is_silent() {
    let mut engine = follower(0, 3);
    let heartbeat = || {
        let (prev, entries) = (LogId::new(1, 2, 3), Entries::default());
        Body::Append { prev, committed: 0, round: 0, durable: 0, entries }
    };
    after(&mut engine, sent(Replica::new(9, 1), node(1), 1, heartbeat()));
    hears_another_leader(&mut engine, Replica::new(9, 1), node(2), heartbeat);
}

/// It follows `leader` until that has been silent for an election timeout.
fn hears_another_leader(
    engine: &mut Engine,
    leader: Replica,
    other: Replica,
    says: impl Fn() -> Body,
) {
    assert_eq!(engine.leader(), Some(leader));
    let output = after(engine, sent(other, node(1), 1, says()));
    assert_eq!(engine.leader(), Some(leader), "a term has one leader");
    let silent_at = output.wake_at.expect("it waits for its leader");
    engine.step(silent_at, Input::Wake);
    assert_eq!(engine.leader(), None);
    engine.step(silent_at, sent(other, node(1), 1, says()));
    assert_eq!(engine.leader(), Some(other));
}

/// A group that was removed from the store has forgotten its votes, and what it acknowledged. If
/// it took part in anything, what others have committed with it could be lost.
#[test]
fn what_was_removed_votes_acknowledges_and_confirms_nothing() {
    let removed = || Recovered { standing: Standing::Spent, ..Recovered::default() };
    let last_log_id = LogId::new(4, 2, 9);
    let round = Body::Append {
        prev: LogId::ZERO,
        committed: 0,
        round: 7,
        durable: 0,
        entries: Entries::default(),
    };
    for body in [
        Body::Vote { last_log_id, transfer: None, attempt: 0 },
        Body::PreVote { last_log_id, attempt: 0 },
        round,
        Body::Rest { last_log_id: LogId::ZERO, round: 7, boot: Boot { number: 1, tag: 1 } },
        Body::TimeoutNow { last_log_id: LogId::ZERO, round: 7 },
    ] {
        let mut engine = engine(removed());
        let output = after(&mut engine, message(2, 5, body.clone()));
        let says = |write: &LogWrite| write.hard_state.is_some() || write.standing.is_some();
        assert!(!output.write.as_ref().is_some_and(|(_, write)| says(write)), "{body:?}");
        assert!(output.messages.is_empty(), "{body:?}: {:?}", output.messages);
        assert_eq!((engine.hard_state().term, engine.leader()), (Term(0), None));
    }
    // What others remember of it is no reason to stop the node.
    let mut engine = engine(removed());
    let memory = Memory { term: Term(5), voted: Term(5), ..Memory::default() };
    let mut output = after(&mut engine, Input::Remembered { from: node(2), memory });
    assert_eq!(output.rare().rolled_back, None);
}
