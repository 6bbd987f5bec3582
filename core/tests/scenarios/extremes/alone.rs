//! One engine in each role, whose peers are made by hand: every message from everybody, and what
//! follows on it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use quorate_core::codec::{Gather, decode_message, put_message};
use quorate_core::engine::{Engine, Input, Local, ReceiveStep};
use quorate_core::{
    AppendOutcome, Body, Boot, Config, Digest, Entries, Entry, HardState, LogId, LogMeta,
    Membership, Message, Payload, Recovered, Replica, Role, SnapshotMeta, Standing, Term,
};
use quorate_rt::Instant;

use super::bodies::{Ours, bases, memberships, numbers, variations};
use crate::cluster::list;

const ME: Replica = Replica::new(1, 1);
const PEER: Replica = Replica::new(2, 1);

/// Three voters, and learners.
static MEMBERSHIP: LazyLock<Membership> = LazyLock::new(|| memberships().swap_remove(1));

struct Alone {
    engine: Engine,
    now: Instant,
    /// What has come in of a snapshot, in bytes.
    stored: u64,
    begun: Option<Digest>,
}

impl Alone {
    fn new(state: State) -> Self {
        let membership = MEMBERSHIP.clone();
        let meta = SnapshotMeta {
            log_id: LogId::new(1, 2, 3),
            time: 0,
            membership: membership.clone(),
            membership_index: 1,
            bytes: 10,
            digest: Digest([7; Digest::BYTES]),
        };
        let purges = matches!(state, State::Purged | State::Sending);
        let mut recovered = Recovered::default();
        if !matches!(state, State::Unformed | State::Forming) {
            let mut log_meta =
                if purges { LogMeta::after(meta.log_id) } else { LogMeta::default() };
            let first = Payload::Membership(membership);
            let entry = |index, payload| {
                let log_id = if index == 1 { LogId::FIRST } else { LogId::new(1, 2, index) };
                Entry { log_id, time: 0, payload }
            };
            if !purges {
                log_meta.push(&entry(1, first));
            }
            for index in log_meta.last().index + 1..=6 {
                log_meta.push(&entry(index, Payload::Blank));
            }
            recovered = Recovered {
                hard_state: HardState { term: Term(1), voted_for: Some(PEER) },
                snapshot: purges.then_some(meta),
                log_meta,
                ..recovered
            };
        }
        if state == State::Spent {
            recovered.standing = Standing::Spent;
        }
        let local = Local { replica: ME, boot: Boot { number: 1, tag: 1 }, cluster: None };
        let now = Instant::default();
        let engine = Engine::new(local, 1, Config::default(), recovered, 1, now);
        let mut alone = Self { engine, now, stored: 0, begun: None };
        alone.act();
        alone.reach(state);
        alone
    }

    fn reach(&mut self, state: State) {
        match state {
            State::Waiting | State::Unformed | State::Spent => return,
            State::Forming => {
                let begun = self.engine.initialize(self.now, list(&[1, 2, 3]));
                begun.expect("nothing is promised yet");
            }
            State::Following | State::Purged => self.heartbeat(5),
            State::Asking | State::Campaigning | State::Leading | State::Sending => self.wake(),
        }
        if matches!(state, State::Campaigning | State::Leading | State::Sending) {
            self.hear(PEER, Body::PreVoteReply { granted: true, attempt: 0 }, Term(2));
        }
        if matches!(state, State::Leading | State::Sending) {
            self.hear(PEER, Body::VoteReply { granted: true, attempt: 0 }, Term(2));
            let commands = [1, 2, 3].map(|n: u8| Bytes::from(vec![n]));
            self.engine.propose(self.now, 0, commands);
            self.engine.step(self.now, Input::Read { ticket: 0 });
            let outcome = match state {
                State::Sending => AppendOutcome::Rejected { prev: 6, hint: LogId::ZERO },
                _ => AppendOutcome::Accepted { matched: 6 },
            };
            self.hear(PEER, Body::AppendReply { round: 0, outcome }, Term(2));
            assert_eq!(self.engine.role(), Role::Leader);
        }
        self.act();
    }

    fn ours(&self) -> Ours {
        Ours {
            me: ME,
            leader: PEER,
            term: self.engine.hard_state().term,
            last: self.engine.last_log_id(),
            committed: self.engine.committed(),
        }
    }

    fn hear(&mut self, from: Replica, body: Body, term: Term) {
        let message = Message { group: 1, cluster: None, from, to: ME, term, body };
        self.engine.step(self.now, Input::Message(message));
        self.act();
    }

    /// Of the leader of the present term.
    fn heartbeat(&mut self, committed: u64) {
        let Ours { term, last, .. } = self.ours();
        let entries = Entries::default();
        let body = Body::Append { prev: last, committed, round: 1, durable: 1, entries };
        self.hear(PEER, body, term);
    }

    fn wake(&mut self) {
        let output = self.engine.take_output();
        if let Some(at) = output.wake_at {
            self.now = self.now.max(at);
        }
        self.engine.step(self.now, Input::Wake);
        self.act();
    }

    /// Does what is to be done, until nothing is left.
    fn act(&mut self) {
        for _ in 0..20 {
            let output = self.engine.take_output();
            let rare = output.rare.unwrap_or_default();
            let mut inputs = Vec::new();
            inputs.extend(output.write.map(|(write, _)| Input::Persisted { write }));
            for fetch in rare.fetches {
                let (peer, term, entries) = (fetch.peer, fetch.term, Entries::default());
                inputs.push(Input::Fetched { peer, term, entries });
            }
            for chunk in rare.chunks {
                let (peer, digest, offset) = (chunk.peer, chunk.meta.digest, chunk.offset);
                let chunk = Bytes::from(vec![0; chunk.len]);
                inputs.push(Input::ChunkRead { peer, digest, offset, chunk });
            }
            for incoming in rare.receive_steps {
                match incoming {
                    ReceiveStep::Begin(digest) => (self.begun, self.stored) = (Some(digest), 0),
                    ReceiveStep::Chunk(chunk) => {
                        self.stored += chunk.len() as u64;
                        let digest = self.begun.expect("it has begun");
                        inputs.push(Input::ChunkStored { digest, stored: self.stored });
                    }
                    ReceiveStep::End(meta) => inputs.push(Input::SnapshotReady(meta)),
                }
            }
            if inputs.is_empty() {
                return;
            }
            inputs.into_iter().for_each(|input| self.engine.step(self.now, input));
        }
    }

    /// What comes later: honest peers, clients, time.
    fn live_on(&mut self) {
        let ours = self.ours();
        self.heartbeat(ours.committed);
        if ours.last.index < u64::MAX >> 2 {
            let log_id = LogId { term: ours.term, leader: 2, index: ours.last.index + 1 };
            let entries = vec![Entry { log_id, time: 0, payload: Payload::Blank }].into();
            let (prev, committed) = (ours.last, log_id.index);
            let body = Body::Append { prev, committed, round: 2, durable: committed, entries };
            self.hear(PEER, body, ours.term);
        }
        let prev = LogId::new(1, 2, 6);
        let body = Body::Append {
            prev,
            committed: 6,
            round: 3,
            durable: 6,
            entries: [].into_iter().collect(),
        };
        self.hear(PEER, body, self.ours().term);
        for matched in [0, 6, self.ours().last.index] {
            let outcome = AppendOutcome::Accepted { matched };
            self.hear(PEER, Body::AppendReply { round: 1, outcome }, self.ours().term);
        }
        self.engine.propose(self.now, 10, [Bytes::from_static(b"later")]);
        self.engine.step(self.now, Input::Read { ticket: 10 });
        self.engine.step(self.now, Input::Purge);
        self.act();
        for _ in 0..3 {
            self.wake();
        }
        if let Some(term) = self.ours().term.next() {
            self.hear(PEER, Body::PreVoteReply { granted: true, attempt: 0 }, term);
            self.hear(PEER, Body::VoteReply { granted: true, attempt: 0 }, self.ours().term);
        }
        self.wake();
        let _: BTreeMap<_, _> = self.engine.peers().collect();
    }
}

/// One test for each state, each of which is in one of them.
macro_rules! no_message_is_a_panic {
    ($($name:ident $state:ident)*) => {
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum State {
            $($state,)*
        }

        $(
            #[test]
            fn $name() {
                no_message_is_a_panic(State::$state);
            }
        )*
    };
}

no_message_is_a_panic! {
    to_one_who_waits Waiting
    to_a_follower Following
    to_one_with_a_purged_log Purged
    to_one_who_asks Asking
    to_a_candidate Campaigning
    to_a_leader Leading
    to_one_who_sends_a_snapshot Sending
    to_an_empty_store Unformed
    to_a_founder Forming
    to_one_who_was_removed Spent
}

fn no_message_is_a_panic(state: State) {
    let others = [
        Replica::new(3, 1),
        Replica::new(4, 1), // A learner.
        Replica::new(9, 9),
        Replica::new(2, 9),
    ];
    let ours = Alone::new(state).ours();
    for base in bases(ours) {
        for from in others.into_iter().chain([ME, Replica::default()]) {
            try_on(state, from, &base, ours.term);
        }
        for term in numbers(ours.term.0) {
            try_on(state, PEER, &base, Term(term));
        }
        for (at, body) in variations(&base, ours).iter().enumerate() {
            let next = Term(ours.term.0 + 1);
            try_on(state, PEER, body, if at % 3 == 0 { next } else { ours.term });
            // The others in turn.
            try_on(state, others[at % others.len()], body, ours.term);
            comes_back(body, next);
        }
    }
}

/// It comes twice, and then all goes on.
fn try_on(state: State, from: Replica, body: &Body, term: Term) {
    let mut alone = Alone::new(state);
    alone.hear(from, body.clone(), term);
    alone.hear(from, body.clone(), term);
    alone.live_on();
}

/// What is on the wire is that message, or refused.
fn comes_back(body: &Body, term: Term) {
    let body = body.clone();
    let message = Message { group: 1, cluster: None, from: PEER, to: ME, term, body };
    let mut to = Gather::new();
    put_message(&mut to, &message);
    if let Ok(decoded) = decode_message(Bytes::from(to.take().concat())) {
        assert_eq!(decoded, message);
    }
    assert!(message.bytes() > 0);
}
