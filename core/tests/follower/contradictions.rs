//! What contradicts a committed or an agreed entry is not taken.

use super::*;

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
        let mut log_meta = LogMeta::default();
        log_meta.push(&first(members(&[1, 2, 3])));
        let hard_state = HardState { term: Term(1), voted_for: None };
        let mut follower = engine(Recovered { hard_state, log_meta, ..Recovered::default() });
        let entries = Entries::default();
        let prev = LogId::FIRST;
        let body = Body::Append { prev, committed: 1, round: 0, durable: 0, entries };
        after(&mut follower, says(body));
        after(&mut follower, snapshot_chunk(9, b""));
        after(&mut follower, snapshot_chunk(9, b"all of it."));
        let digest = meta(9).digest;
        let stored = if whole { 10 } else { 5 };
        let mut output = after(&mut follower, Input::ChunkStored { digest, stored });
        assert_eq!(output.rare().receive_steps.last() == Some(&ReceiveStep::End(meta(9))), whole);

        let at = output.wake_at.expect("it is a voter");
        follower.step(at, Input::Wake);
        let role = if whole { Role::Follower } else { Role::PreCandidate };
        assert_eq!((follower.role(), follower.leader()), (role, None));
        follower.step(at, Input::ChunkStored { digest, stored: 10 });
        assert!(output_of(&mut follower).rare().receive_steps.is_empty(), "not without a leader");
        follower.step(at, Input::SnapshotReady(meta(9)));
        assert_eq!(follower.last_log_id().index, if whole { 9 } else { 1 });
    }
}
