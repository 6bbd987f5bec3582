//! A node whose peers' messages are made by hand, so that they come in an order and at a moment
//! that is rare on a network. Its transport is one of a user's own, which can't do more than it
//! must: it sends, and what comes in is [delivered](quorate::Raft::deliver).

use std::time::Duration;

use bytes::Bytes;
use quorate::rt::channel::mpsc;
use quorate::{
    AppendOutcome, AsyncRuntime, Body, ClusterId, Completion, Config, Entries, Entry, Fatal,
    ForwardOutcome, Index, Leader, LocalRaft, LogId, LogStore, LogWrite, MemStore, Membership,
    Message, Node, NodeId, Payload, Refusal, Replica, Term, Transport, WriteError,
};
use quorate_tests::{Journal, on_each_runtime, quick, wait_for};

on_each_runtime!(
    what_is_applied_before_its_word_comes_has_an_unknown_outcome,
    words_may_come_in_any_order,
    a_write_in_whose_place_another_entry_is_committed_has_no_effect,
    the_word_of_a_leader_that_is_left_in_the_same_turn_is_worth_nothing,
    what_was_not_yet_passed_on_when_a_leader_is_left_has_no_effect,
    a_second_leader_of_a_term_is_ignored,
    what_the_leader_cannot_read_is_refused_and_the_others_are_placed,
    a_committed_command_that_cannot_be_read_stops_its_node,
);

struct Wire(mpsc::Sender<Message>);

impl Transport for Wire {
    fn send(&self, message: Message) {
        let _ = self.0.try_send(message); // What nobody takes is lost.
    }
}

/// Node 1, which follows node 2 in term 1 and has applied the first two entries; and what it sends.
struct Follower {
    node: Node<Journal>,
    raft: LocalRaft<Journal>,
    sent: mpsc::Receiver<Message>,
    round: u64,
}

/// A forward as it was sent.
struct Forward {
    boot: u64,
    sequence: u64,
    commands: Vec<Bytes>,
}

/// The entry with which its leader's term begins.
const BEGIN: LogId = LogId { term: Term(1), leader: 2, index: 2 };

const CLUSTER: ClusterId = ClusterId(5);

fn replica(id: NodeId) -> Replica {
    Replica::new(id, 10 + id)
}

fn message(from: NodeId, term: u64, body: Body) -> Message {
    let (cluster, from, to) = (Some(CLUSTER), replica(from), replica(1));
    Message { group: 0, cluster, from, to, term: Term(term), body }
}

fn entry(term: u64, leader: NodeId, index: Index, payload: Payload) -> Entry {
    Entry { log_id: LogId::new(term, leader, index), time: 0, payload }
}

/// The store of node 1, which holds the entry that has formed the cluster.
fn store() -> MemStore {
    let store = MemStore::with_incarnation(replica(1).incarnation);
    let members = [1, 2, 3].map(|id| (replica(id), format!("node-{id}"))).into();
    let membership = Membership::founding(CLUSTER, members).expect("is valid");
    let payload = Payload::Membership(Box::new(membership));
    let first = Entry { log_id: LogId::FIRST, time: 0, payload };
    let entries = vec![first].into();
    let write = LogWrite { cluster: Some(CLUSTER), entries, ..LogWrite::default() };
    store.append(0, write, Completion::new(|outcome| outcome.expect("it is in memory")));
    store
}

fn append(prev: LogId, committed: Index, entries: Vec<Entry>) -> Body {
    Body::Append { prev, committed, round: 0, entries: entries.into() }
}

impl Follower {
    async fn start<R: AsyncRuntime>(rt: &R) -> Self {
        // It is for the test to say what becomes of its leader and of its writes.
        let long = Duration::from_secs(3600);
        let config = Config { election_timeout: long, request_timeout: long, ..quick() };
        let (sender, sent) = mpsc::channel(1000);
        let node = Node::builder(1)
            .config(config)
            .log_store(store())
            .transport(Wire(sender))
            .state_machine(Journal::default())
            .start(rt)
            .await
            .expect("starts");
        let raft = node.local();
        let follower = Self { node, raft, sent, round: 0 };
        let begin = entry(1, 2, 2, Payload::Blank);
        follower.hears(2, 1, append(LogId::FIRST, 2, vec![begin]));
        wait_for(&mut follower.raft.metrics(), |metrics| metrics.applied == 2).await;
        follower
    }

    fn hears(&self, from: NodeId, term: u64, body: Body) {
        self.raft.deliver(message(from, term, body));
    }

    /// Its leader's word about a forward.
    fn hears_of(&self, Forward { boot, sequence, .. }: &Forward, outcome: ForwardOutcome) {
        self.hears(2, 1, Body::ForwardReply { boot: *boot, sequence: *sequence, outcome });
    }

    /// Waits for a message of a kind, and passes over others.
    async fn sends<T>(&mut self, kind: impl Fn(Message) -> Option<T>) -> T {
        loop {
            let message = self.sent.recv().await.expect("the node runs");
            if let Some(wanted) = kind(message) {
                return wanted;
            }
        }
    }

    async fn forwards(&mut self) -> Forward {
        let forward = |message: Message| match message.body {
            Body::Forward { boot, sequence, commands } if message.to == replica(2) => {
                Some(Forward { boot, sequence, commands })
            }
            _ => None,
        };
        self.sends(forward).await
    }

    /// Waits until it has done what follows from all that it has heard, by a round that its leader
    /// begins.
    async fn turns(&mut self) {
        self.round += 1;
        let begun = self.round;
        let body =
            Body::Append { prev: BEGIN, committed: 2, round: begun, entries: Entries::default() };
        self.hears(2, 1, body);
        let echo = |message: Message| match message.body {
            Body::AppendReply { round, outcome: AppendOutcome::Accepted { .. } } => {
                (round == begun).then_some(())
            }
            _ => None,
        };
        self.sends(echo).await;
    }

    /// What it has applied, once its leader has told that this much is committed.
    async fn journal(&mut self, leader: NodeId, term: u64, committed: Index) -> Vec<String> {
        let read = self.raft.read(|journal| journal.entries.clone());
        let question = |message: Message| match message.body {
            Body::ReadIndex { sequence } if message.to == replica(leader) => Some(sequence),
            _ => None,
        };
        let sequence = self.sends(question).await;
        let index = Some(committed);
        self.hears(leader, term, Body::ReadIndexReply { sequence, index, time: 0 });
        read.await.expect("reads")
    }
}

async fn what_is_applied_before_its_word_comes_has_an_unknown_outcome<R: AsyncRuntime>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    let write = follower.raft.write("a".to_owned());
    let forward = follower.forwards().await;
    let command = Payload::Command(forward.commands[0].clone());
    follower.hears(2, 1, append(BEGIN, 3, vec![entry(1, 2, 3, command)]));
    wait_for(&mut follower.raft.metrics(), |metrics| metrics.applied == 3).await;
    follower.hears_of(&forward, ForwardOutcome::Appended(LogId::new(1, 2, 3)));
    let write = write.await;
    assert!(matches!(write, Err(WriteError::Unknown)), "its response is gone: {write:?}");
    assert_eq!(follower.journal(2, 1, 3).await, ["a"]);
}

async fn words_may_come_in_any_order<R: AsyncRuntime>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    let (mut writes, mut forwards) = (Vec::new(), Vec::new());
    for line in ["a", "b", "c"] {
        writes.push(follower.raft.write(line.to_owned()));
        forwards.push(follower.forwards().await);
    }
    // The leader has taken them in the order in which they were sent.
    for place in [2, 0, 1] {
        let log_id = LogId::new(1, 2, 3 + place as Index);
        follower.hears_of(&forwards[place], ForwardOutcome::Appended(log_id));
    }
    let commands = forwards.into_iter().flat_map(|forward| forward.commands);
    let entries = (3..).zip(commands.map(Payload::Command));
    let entries = entries.map(|(index, payload)| entry(1, 2, index, payload)).collect();
    follower.turns().await;
    follower.hears(2, 1, append(BEGIN, 5, entries));
    for (write, response) in writes.into_iter().zip(1..) {
        assert_eq!(write.await.expect("is applied"), response);
    }
    assert_eq!(follower.journal(2, 1, 5).await, ["a", "b", "c"]);
}

async fn a_write_in_whose_place_another_entry_is_committed_has_no_effect<R: AsyncRuntime>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    let write = follower.raft.write("a".to_owned());
    let forward = follower.forwards().await;
    follower.hears_of(&forward, ForwardOutcome::Appended(LogId::new(1, 2, 3)));
    follower.turns().await;
    // The next leader didn't have it, and has committed another entry there.
    follower.hears(3, 2, append(BEGIN, 3, vec![entry(2, 3, 3, Payload::Blank)]));
    let Err(WriteError::NotLeader { leader }) = write.await else { panic!("it has no effect") };
    assert_eq!(leader, Some(Leader { id: 3, address: "node-3".to_owned() }));
    assert!(follower.journal(3, 2, 3).await.is_empty());
}

async fn the_word_of_a_leader_that_is_left_in_the_same_turn_is_worth_nothing<R: AsyncRuntime>(
    rt: R,
) {
    let mut follower = Follower::start(&rt).await;
    let write = follower.raft.write("a".to_owned());
    let forward = follower.forwards().await;
    // The node gets no turn in between.
    follower.hears_of(&forward, ForwardOutcome::Appended(LogId::new(1, 2, 3)));
    let command = Payload::Command(forward.commands[0].clone());
    follower.hears(3, 2, append(BEGIN, 2, vec![entry(1, 2, 3, command)]));
    let write = write.await;
    assert!(matches!(write, Err(WriteError::Unknown)), "the next leader may have it: {write:?}");
    let begin = entry(2, 3, 4, Payload::Blank);
    follower.hears(3, 2, append(LogId::new(1, 2, 3), 4, vec![begin]));
    assert_eq!(follower.journal(3, 2, 4).await, ["a"], "and it has");
}

async fn what_was_not_yet_passed_on_when_a_leader_is_left_has_no_effect<R: AsyncRuntime>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    // Requests and messages of this handle are looked at in order.
    let raft = follower.node.raft();
    let write = raft.write("a".to_owned());
    let begin = entry(2, 3, 3, Payload::Blank);
    let body = append(BEGIN, 3, vec![begin]);
    raft.deliver(message(3, 2, body));
    let write = write.await;
    assert!(matches!(write, Err(WriteError::NotLeader { .. })), "{write:?}");
    // The next one is the first that anybody gets.
    let next = raft.write("b".to_owned());
    let forward = follower.sends(|message| match message.body {
        Body::Forward { commands, .. } => Some((message.to, commands)),
        _ => None,
    });
    let (to, commands) = forward.await;
    assert_eq!((to, &commands[0][..]), (replica(3), &b"\xa1b"[..]));
    drop(next);
    assert!(follower.journal(3, 2, 3).await.is_empty());
}

async fn what_the_leader_cannot_read_is_refused_and_the_others_are_placed<R: AsyncRuntime>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    let writes = ["a", "b", "c", "d"].map(|line| follower.raft.write(line.to_owned()));
    let forward = follower.forwards().await;
    assert_eq!(forward.commands.len(), 4, "they go together");
    let refused = [0, 2].map(|place| Refusal::new(place, "too new".to_owned())).into();
    let first = LogId::new(1, 2, 3);
    follower.hears_of(&forward, ForwardOutcome::Partly { first, refused });
    follower.turns().await;
    let kept = [1, 3].map(|place: usize| Payload::Command(forward.commands[place].clone()));
    let entries = (3..).zip(kept).map(|(index, payload)| entry(1, 2, index, payload)).collect();
    follower.hears(2, 1, append(BEGIN, 4, entries));
    let [a, b, c, d] = writes;
    for refused in [a.await, c.await] {
        let Err(WriteError::Command(reason)) = refused else { panic!("{refused:?}") };
        assert_eq!(reason, "too new");
    }
    assert_eq!((b.await.expect("is applied"), d.await.expect("is applied")), (1, 2));
    assert_eq!(follower.journal(2, 1, 4).await, ["b", "d"]);
}

/// Its leader could read it: that one's program is newer.
async fn a_committed_command_that_cannot_be_read_stops_its_node<R: AsyncRuntime>(rt: R) {
    let follower = Follower::start(&rt).await;
    let [readable, unreadable] =
        [&b"\xa1x"[..], b"\xc0"].map(|bytes| Payload::Command(Bytes::from_static(bytes)));
    let entries = vec![entry(1, 2, 3, readable), entry(1, 2, 4, unreadable)];
    follower.hears(2, 1, append(BEGIN, 4, entries));
    let cause = follower.node.stopped().await.expect_err("it can't go on");
    let Fatal::Command { index: 4, reason } = &cause else { panic!("{cause}") };
    assert!(reason.contains("expected a string"), "{reason}");
    assert_eq!(follower.raft.metrics().borrow().applied, 2, "nothing of the batch");
}

async fn a_second_leader_of_a_term_is_ignored<R: AsyncRuntime>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    // As if it were of the one that it follows.
    let other = Payload::Command(Bytes::from_static(b"\xa1x"));
    follower.hears(3, 1, append(BEGIN, 3, vec![entry(1, 2, 3, other)]));
    follower.turns().await;
    let metrics = follower.raft.metrics().borrow().clone();
    assert_eq!((metrics.leader, metrics.last_log_id, metrics.committed), (Some(2), BEGIN, 2));
    assert!(metrics.fatal.is_none());
    follower.hears(2, 1, append(BEGIN, 3, vec![entry(1, 2, 3, Payload::Blank)]));
    assert!(follower.journal(2, 1, 3).await.is_empty());
}
