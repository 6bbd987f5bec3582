//! Forwards: who answers them, and the window for those that a follower passes on.

use super::*;

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
        engine.step(Instant::default() + after, heartbeat(1));
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

/// A leader that comes back in another boot knows nothing of what it was sent before: nobody waits
/// for its answer until the deadline. Whoever leads by now, the one it was sent to is asked.
#[test]
fn what_was_sent_to_an_earlier_boot_has_an_unknown_outcome_at_once() {
    let mut engine = passing();
    let met = |id, number| Input::Met { replica: node(id), boot: Boot { number, tag: number } };
    after(&mut engine, met(2, 5));
    let sent = forwards(&propose(&mut engine, 1, &[1, 1]));
    assert_eq!(after(&mut engine, met(2, 5)).proposals, []);
    assert_eq!(after(&mut engine, met(3, 9)).proposals, [], "another peer's");
    let proposals = after(&mut engine, met(2, 6)).proposals;
    assert_eq!(proposals, [(1..2, Proposal::Unknown), (2..3, Proposal::Unknown)]);
    let late = answered(sent[0].0, ForwardOutcome::NotLeader);
    assert_eq!(after(&mut engine, late).proposals, [], "it is answered once (R16)");
}
