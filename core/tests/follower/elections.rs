//! A replica that asks for pre-votes, and others that ask at the same time.

use super::*;

const ATTEMPT: u64 = 77;

fn timeout() -> Duration {
    Config::default().election_timeout
}

fn heartbeat() -> Duration {
    Config::default().heartbeat_interval
}

/// Node 3 of five. Its log ends with entry 2 of term 1, and it has just asked for pre-votes.
struct Asking {
    engine: Engine,
    now: Instant,
    wake_at: Instant,
    /// The number of its attempt.
    attempt: u64,
    /// What it has sent since it was looked at last.
    sent: Vec<Message>,
}

impl Asking {
    fn new() -> Self {
        let mut log_meta = LogMeta::default();
        log_meta.push(&first(members(&[1, 2, 3, 4, 5])));
        log_meta.push(&entry(1, 2, 2));
        let hard_state = HardState { term: Term(1), voted_for: None };
        let recovered = Recovered { hard_state, log_meta, ..Recovered::default() };
        let local = Local { replica: node(3), boot: Boot { number: 1, tag: 1 }, cluster: None };
        let now = Instant::default();
        let engine = Engine::new(local, 0, Config::default(), recovered, 1, now);
        let mut asking = Self { engine, now, wake_at: now, attempt: 0, sent: Vec::new() };
        asking.step(Input::Wake);
        asking.ask();
        asking
    }

    fn step(&mut self, input: Input) {
        self.engine.step(self.now, input);
        let output = loop {
            let mut output = self.engine.take_output();
            let attempts = output.messages.iter().filter_map(|message| match message.body {
                Body::PreVote { attempt, .. } | Body::Vote { attempt, .. } => Some(attempt),
                _ => None,
            });
            self.attempt = attempts.last().unwrap_or(self.attempt);
            self.sent.append(&mut output.messages);
            let Some((write, _)) = output.write.take() else { break output };
            self.engine.step(self.now, Input::Persisted { write });
        };
        self.wake_at = output.wake_at.expect("it waits for something");
    }

    /// Time goes on to its next timer.
    fn wake(&mut self) {
        self.now = self.now.max(self.wake_at);
        self.step(Input::Wake);
    }

    /// Time goes on until it asks for pre-votes.
    fn ask(&mut self) {
        while self.engine.role() != Role::PreCandidate {
            self.wake();
        }
        self.sent.clear();
    }

    /// Time goes on until it begins its next attempt. Returns how long that takes.
    fn ask_again(&mut self) -> Duration {
        let (began, attempt) = (self.now, self.attempt);
        while self.attempt == attempt {
            self.wake();
        }
        self.sent.clear();
        self.now - began
    }

    fn hear(&mut self, from: u64, term: u64, body: Body) {
        self.step(sent(node(from), node(3), term, body));
    }

    fn granted_by(&mut self, ids: &[u64]) {
        let granted = || Body::PreVoteReply { granted: true, attempt: 0 };
        ids.iter().for_each(|id| self.hear(*id, 2, granted()));
    }

    /// Another asks for a pre-vote, with a log that ends there. Whether it is granted.
    fn asked(&mut self, from: Replica, term: u64, last: LogId) -> bool {
        self.sent.clear();
        let body = Body::PreVote { last_log_id: last, attempt: ATTEMPT };
        self.step(sent(from, node(3), term, body));
        match &self.sent[..] {
            [Message { to, body: Body::PreVoteReply { granted, attempt: ATTEMPT }, .. }] => {
                assert_eq!(*to, from);
                *granted
            }
            other => panic!("one answer is wanted: {other:?}"),
        }
    }

    /// Those that it asks now, if it does.
    fn asks(&mut self) -> Vec<u64> {
        let asked = self.sent.drain(..).filter_map(|message| match message.body {
            Body::PreVote { .. } | Body::Vote { .. } => Some(message.to.id),
            _ => None,
        });
        asked.collect()
    }

    fn role(&self) -> Role {
        self.engine.role()
    }
}

/// The end of the log of all.
fn end() -> LogId {
    LogId::new(1, 2, 2)
}

#[test]
fn a_pre_candidate_yields_to_a_better_one_and_refuses_a_worse_one() {
    let mut asking = Asking::new();
    assert!(!asking.asked(node(2), 2, end()), "its id is smaller");
    assert_eq!(asking.role(), Role::PreCandidate);
    assert!(asking.asked(node(4), 2, end()));
    assert_eq!(asking.role(), Role::Follower);
    // The grants that it has waited for count for nothing any more.
    asking.granted_by(&[1, 2, 5]);
    assert_eq!(asking.role(), Role::Follower);
    assert_eq!(asking.engine.hard_state(), HardState { term: Term(1), voted_for: None });
}

#[test]
fn who_has_yielded_goes_over_to_better_ones_only() {
    let mut asking = Asking::new();
    assert!(asking.asked(node(4), 2, end()));
    assert!(!asking.asked(node(2), 2, end()));
    assert!(asking.asked(node(4), 2, end()), "the request is repeated");
    assert!(asking.asked(node(5), 2, end()));
    assert!(!asking.asked(node(4), 2, end()));
    assert!(asking.asked(node(1), 3, end()), "in a later term, the others would be refused");
    // It has voted: what comes now is another election.
    asking.hear(1, 3, Body::Vote { last_log_id: end(), transfer: None, attempt: 0 });
    assert_eq!(asking.engine.hard_state().voted_for, Some(node(1)));
    assert!(asking.asked(node(1), 4, end()) && asking.asked(node(2), 4, end()));
}

#[test]
fn the_longer_log_counts_before_the_id() {
    let mut asking = Asking::new();
    for shorter in [LogId::FIRST, LogId::new(0, 0, 9)] {
        assert!(!asking.asked(node(5), 2, shorter));
        assert_eq!(asking.role(), Role::PreCandidate, "it does not yield to {shorter}");
    }
    for longer in [LogId::new(1, 2, 3), LogId::new(2, 4, 2)] {
        let mut asking = Asking::new();
        assert!(asking.asked(node(1), 2, longer));
        assert_eq!(asking.role(), Role::Follower, "it yields to {longer}");
        assert!(!asking.asked(node(5), 2, end()));
    }
}

#[test]
fn it_asks_anew_when_it_would_have_asked_anyway() {
    let mut asking = Asking::new();
    asking.now += 5 * heartbeat();
    assert!(asking.asked(node(4), 2, end()));
    asking.wake();
    assert_eq!(asking.role(), Role::PreCandidate);
    let passed = asking.now - Instant::default();
    assert!(passed >= 2 * timeout() && passed <= timeout() * 22 / 10, "{passed:?}");
}

/// One that is better and can't be elected, as it hears nobody, must not keep others from it.
#[test]
fn it_yields_in_one_attempt_and_not_in_the_next() {
    let mut asking = Asking::new();
    for round in 0..3 {
        assert!(asking.asked(node(5), 2, end()));
        assert_eq!(asking.role(), Role::Follower, "it yields in round {round}");
        asking.ask();
        assert!(asking.asked(node(5), 2, end()), "as anybody is granted it without this rule");
        assert!(asking.asked(node(2), 2, end()));
        assert_eq!(asking.role(), Role::PreCandidate, "it does not yield in round {round}");
        asking.ask_again();
    }
}

#[test]
fn after_a_leader_or_a_vote_it_yields_again() {
    for leads in [true, false] {
        let mut asking = Asking::new();
        assert!(asking.asked(node(5), 2, end()));
        let body = match leads {
            true => {
                let entries = Entries::default();
                Body::Append { prev: end(), committed: 2, round: 0, durable: 2, entries }
            }
            false => Body::Vote { last_log_id: end(), transfer: None, attempt: 0 },
        };
        asking.hear(5, 2, body);
        asking.ask();
        assert!(asking.asked(node(4), 3, end()));
        assert_eq!(asking.role(), Role::Follower, "a leader: {leads}");
    }
}

#[test]
fn a_candidate_does_not_yield() {
    let mut asking = Asking::new();
    asking.granted_by(&[1, 2]);
    assert_eq!(asking.role(), Role::Candidate);
    assert!(!asking.asked(node(5), 2, LogId::new(1, 2, 3)), "it has voted in that term");
    assert!(asking.asked(node(5), 3, LogId::new(1, 2, 3)), "this is about the next one");
    assert_eq!(asking.role(), Role::Candidate);
}

/// The other had heard of the leader later, and so has refused; now it asks itself. Its answer
/// would not be asked for again.
#[test]
fn it_yields_to_a_worse_one_that_has_refused_it() {
    let mut asking = Asking::new();
    asking.hear(2, 1, Body::PreVoteReply { granted: false, attempt: 0 });
    assert!(!asking.asked(node(1), 2, end()));
    assert!(asking.asked(node(2), 2, end()));
    assert_eq!(asking.role(), Role::Follower);
}

#[test]
fn an_attempt_that_is_nearly_over_yields_to_anybody() {
    let mut asking = Asking::new();
    (0..5).for_each(|_| asking.wake());
    assert!(!asking.asked(node(1), 2, end()), "it will ask once more");
    asking.wake();
    assert!(asking.asked(node(1), 2, end()));
    assert_eq!(asking.role(), Role::Follower);
}

#[test]
fn a_stranger_ends_no_attempt() {
    for stranger in [node(6), Replica::new(5, 2)] {
        let mut asking = Asking::new();
        assert!(asking.asked(stranger, 2, LogId::new(1, 2, 9)));
        assert_eq!(asking.role(), Role::PreCandidate);
    }
}

#[test]
fn requests_are_repeated_to_those_who_have_not_answered() {
    let mut asking = Asking::new();
    let began = asking.now;
    asking.hear(1, 2, Body::PreVoteReply { granted: true, attempt: 0 });
    asking.hear(4, 1, Body::PreVoteReply { granted: false, attempt: 0 });
    asking.wake();
    assert_eq!((asking.now - began, asking.asks()), (heartbeat(), vec![2, 5]));
    asking.step(Input::Wake);
    assert_eq!(asking.asks(), [0u64; 0], "not before another heartbeat interval");
    asking.hear(5, 2, Body::PreVoteReply { granted: true, attempt: 0 });
    assert_eq!((asking.role(), asking.asks()), (Role::Candidate, vec![1, 2, 4, 5]));
    asking.hear(2, 2, Body::VoteReply { granted: true, attempt: 0 });
    let began = asking.now;
    for repetition in 1..=6 {
        asking.wake();
        assert_eq!(asking.now - began, repetition * heartbeat());
        assert_eq!(asking.asks(), [1, 4, 5]);
    }
    asking.wake();
    assert!(asking.now - began >= timeout(), "then the attempt is over");
    assert_eq!((asking.role(), asking.asks()), (Role::PreCandidate, vec![1, 2, 4, 5]));
}

/// With many groups that have lost their quorum, it would have a lot to send.
#[test]
fn requests_are_not_repeated_to_nodes_that_are_gone() {
    let mut asking = Asking::new();
    for id in [1, 2] {
        let (replica, heard) = (node(id), asking.now);
        asking.step(Input::NodeIsAlive { replica, boot: Boot { number: 4, tag: 4 } });
        asking.step(Input::NodeIsSilent { replica, heard });
    }
    asking.step(Input::NodeIsAlive { replica: node(2), boot: Boot { number: 5, tag: 5 } });
    asking.wake();
    assert_eq!(asking.asks(), [2, 4, 5]);
    while asking.asks() != [1, 2, 4, 5] {
        asking.wake(); // Each attempt asks all of them.
    }
    assert!(asking.now - Instant::default() >= 2 * timeout());
}

#[test]
fn attempts_are_an_election_timeout_and_up_to_a_tenth_apart() {
    let mut asking = Asking::new();
    let waits: BTreeSet<_> = (0..50).map(|_| asking.ask_again()).collect();
    let (shortest, longest) = (waits.first().expect("some"), waits.last().expect("some"));
    assert!(*shortest >= timeout() && *longest <= timeout() * 11 / 10, "{waits:?}");
    assert!(*longest - *shortest > timeout() / 20, "they are spread: {waits:?}");
}
