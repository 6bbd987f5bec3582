//! A node whose peers' messages are made by hand, so that they come in an order and at a moment
//! that is rare on a network. Its transport is one of a user's own, which can't do more than it
//! must: it sends, and what comes in is [delivered](quorate::Raft::deliver).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use quorate::{
    AppendOutcome, Body, ClusterId, Completion, Config, Digest, Entries, Entry, Executor, Fatal,
    ForwardOutcome, Index, Leader, LocalRaft, LogId, LogStore, LogWrite, MemStore, Membership,
    Message, NodeId, Payload, Refusal, Replica, SnapshotMeta, Term, Transport, WriteError,
};
use quorate_tests::{Disk, FaultyStore, Journal, Single, on_each_runtime, quick, wait_for};

on_each_runtime!(
    what_is_applied_before_its_word_comes_has_an_unknown_outcome,
    words_may_come_in_any_order,
    a_write_in_whose_place_another_entry_is_committed_has_no_effect,
    what_a_leader_has_placed_before_it_is_left_in_the_same_turn_is_decided_by_the_log,
    what_was_not_yet_passed_on_when_a_leader_is_left_has_no_effect,
    a_second_leader_of_a_term_is_ignored,
    what_has_no_room_on_the_way_waits_and_may_go_to_the_next_leader,
    what_was_not_sent_is_refused_with_certainty_in_the_end,
    without_a_way_to_the_leader_nothing_is_sent_and_nothing_unknown,
    what_the_leader_cannot_read_is_refused_and_the_others_are_placed,
    a_committed_command_that_cannot_be_read_stops_its_node,
    a_snapshot_that_cannot_be_restored_leaves_the_disk_as_it_was,
    a_snapshot_is_adopted_when_it_is_restored_and_not_before,
    a_snapshot_that_the_log_overtakes_while_it_is_restored_does_no_harm,
);

/// What the test gets, and what it says of the way.
struct Wire {
    sent: mpsc::UnboundedSender<Message>,
    way: Way,
}

/// The way to the others, as the transport knows it.
#[derive(Clone, Default)]
struct Way(Rc<Cell<(bool, bool)>>);

impl Way {
    /// Whether no connection is open, and whether forwards are not taken.
    fn set(&self, is_closed: bool, is_full: bool) {
        self.0.set((is_closed, is_full));
    }
}

impl Transport for Wire {
    fn send(&self, message: Message) -> bool {
        let (_, is_full) = self.way.0.get();
        let taken = !is_full || !matches!(message.body, Body::Forward { .. });
        taken && self.sent.unbounded_send(message).is_ok()
    }

    fn is_ready(&self, _: Replica) -> bool {
        !self.way.0.get().0
    }
}

/// Node 1, which follows node 2 in term 1 and has applied the first two entries; and what it sends.
struct Follower {
    store: FaultyStore,
    node: Single<Journal>,
    raft: LocalRaft<Journal>,
    sent: mpsc::UnboundedReceiver<Message>,
    way: Way,
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
    let payload = Payload::Membership(membership);
    let first = Entry { log_id: LogId::FIRST, time: 0, payload };
    let entries = vec![first].into();
    let write = LogWrite { cluster: Some(CLUSTER), entries, ..LogWrite::default() };
    let _durable =
        store.append(0, write, Completion::new(|outcome| outcome.expect("it is in memory")));
    store
}

fn append(prev: LogId, committed: Index, entries: Vec<Entry>) -> Body {
    Body::Append { prev, committed, round: 0, durable: 0, entries: entries.into() }
}

impl Follower {
    async fn start<R: Executor>(rt: &R) -> Self {
        // It is for the test to say what becomes of its leader and of its writes.
        let long = Duration::from_secs(3600);
        let config = Config { election_timeout: long, request_timeout: long, ..quick() };
        Self::start_with(rt, config).await
    }

    async fn start_with<R: Executor>(rt: &R, config: Config) -> Self {
        let (sender, sent) = mpsc::unbounded();
        let way = Way::default();
        let store = FaultyStore::over(store());
        let node = Single::start(
            rt,
            1,
            config,
            store.clone(),
            Wire { sent: sender, way: way.clone() },
            Journal::default(),
        )
        .await
        .expect("starts");
        let raft = node.local();
        let follower = Self { store, node, raft, sent, way, round: 0 };
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
        let body = Body::Append {
            prev: BEGIN,
            committed: 2,
            round: begun,
            durable: 0,
            entries: Entries::default(),
        };
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

async fn what_is_applied_before_its_word_comes_has_an_unknown_outcome<R: Executor>(rt: R) {
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

async fn words_may_come_in_any_order<R: Executor>(rt: R) {
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

async fn a_write_in_whose_place_another_entry_is_committed_has_no_effect<R: Executor>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    let write = follower.raft.write("a".to_owned());
    let forward = follower.forwards().await;
    follower.hears_of(&forward, ForwardOutcome::Appended(LogId::new(1, 2, 3)));
    follower.turns().await;
    // The next leader didn't have it, and has committed another entry there.
    follower.hears(3, 2, append(BEGIN, 3, vec![entry(2, 3, 3, Payload::Blank)]));
    let Err(WriteError::NotLeader { leader, .. }) = write.await else { panic!("it has no effect") };
    assert_eq!(leader, Some(Leader { id: 3, address: "node-3".to_owned() }));
    assert!(follower.journal(3, 2, 3).await.is_empty());
}

async fn what_a_leader_has_placed_before_it_is_left_in_the_same_turn_is_decided_by_the_log<
    R: Executor,
>(
    rt: R,
) {
    let mut follower = Follower::start(&rt).await;
    let write = follower.raft.write("a".to_owned());
    let forward = follower.forwards().await;
    // The node gets no turn in between.
    follower.hears_of(&forward, ForwardOutcome::Appended(LogId::new(1, 2, 3)));
    let command = Payload::Command(forward.commands[0].clone());
    follower.hears(3, 2, append(BEGIN, 2, vec![entry(1, 2, 3, command)]));
    let begin = entry(2, 3, 4, Payload::Blank);
    follower.hears(3, 2, append(LogId::new(1, 2, 3), 4, vec![begin]));
    assert_eq!(write.await.expect("the next leader has it"), 1);
    assert_eq!(follower.journal(3, 2, 4).await, ["a"]);
}

async fn what_was_not_yet_passed_on_when_a_leader_is_left_has_no_effect<R: Executor>(rt: R) {
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

/// A window of one line of ten bytes.
fn narrow(timeout: Duration) -> Config {
    let (max_append_bytes, max_inflight_bytes) = (100, 100);
    let times = Config { election_timeout: timeout, request_timeout: timeout, ..quick() };
    Config { max_append_bytes, max_inflight_bytes, ..times }
}

/// R20: what was not sent has a certain outcome, and goes on with the next leader.
async fn what_has_no_room_on_the_way_waits_and_may_go_to_the_next_leader<R: Executor>(rt: R) {
    let mut follower = Follower::start_with(&rt, narrow(Duration::from_secs(3600))).await;
    let [a, b, c] = ["a", "b", "c"].map(|line| follower.raft.write(line.repeat(10)));
    let forward = follower.forwards().await;
    assert_eq!(forward.commands.len(), 1);
    follower.turns().await; // (In which nothing more is passed on.)
    follower.hears_of(&forward, ForwardOutcome::Busy);
    assert!(matches!(a.await, Err(WriteError::Busy)));
    let forward = follower.forwards().await;
    assert_eq!(forward.commands[0][1..], *b"bbbbbbbbbb");
    follower.hears(3, 2, append(BEGIN, 3, vec![entry(2, 3, 3, Payload::Blank)]));
    follower.hears_of(&forward, ForwardOutcome::NotLeader);
    let b = b.await;
    assert!(matches!(b, Err(WriteError::NotLeader { .. })), "who leads no more knows it: {b:?}");
    let forward = follower.sends(|message| match message.body {
        Body::Forward { boot, sequence, .. } => Some((message.to, boot, sequence)),
        _ => None,
    });
    let (to, boot, sequence) = forward.await;
    assert_eq!(to, replica(3), "nobody had the last one");
    let outcome = ForwardOutcome::Appended(LogId::new(2, 3, 4));
    follower.hears(3, 2, Body::ForwardReply { boot, sequence, outcome });
    let line = Payload::Command(Bytes::from_static(b"\xaacccccccccc"));
    let prev = LogId::new(2, 3, 3);
    follower.hears(3, 2, append(prev, 4, vec![entry(2, 3, 4, line)]));
    assert_eq!(c.await.expect("is applied"), 1);
}

async fn what_was_not_sent_is_refused_with_certainty_in_the_end<R: Executor>(rt: R) {
    let follower = Follower::start_with(&rt, narrow(Duration::from_millis(600))).await;
    // The leader answers nothing, and may be given up just before.
    // (What is lost leaves the window half-way to the end, and another takes its place.)
    let lines = ["a", "b", "c"].map(|line| follower.raft.write(line.repeat(1000)));
    let [sent, _later, waits] = lines;
    let sent = sent.await;
    assert!(matches!(sent, Err(WriteError::Unknown)), "{sent:?}");
    let waits = waits.await;
    assert!(matches!(waits, Err(WriteError::Busy | WriteError::NotLeader { .. })), "{waits:?}");
    follower.way.set(true, false);
    let refused = follower.raft.write("d".to_owned()).await;
    assert!(matches!(refused, Err(WriteError::NotLeader { .. })), "{refused:?}");
}

async fn without_a_way_to_the_leader_nothing_is_sent_and_nothing_unknown<R: Executor>(rt: R) {
    let mut follower = Follower::start_with(&rt, narrow(Duration::from_secs(3600))).await;
    follower.way.set(true, false);
    let waits = follower.raft.write("b".to_owned());
    follower.turns().await;
    follower.way.set(false, false);
    // Nothing but time tells the node of it.
    let forward = follower.forwards().await;
    assert_eq!(forward.commands[0][..], b"\xa1b"[..]);
    drop(waits);
    follower.hears_of(&forward, ForwardOutcome::Busy);
    follower.turns().await;
    follower.way.set(false, true);
    let refused = follower.raft.write("c".to_owned()).await;
    assert!(matches!(refused, Err(WriteError::NotLeader { .. })), "{refused:?}");
    follower.way.set(false, false);
    let next = follower.raft.write("d".to_owned());
    assert_eq!(follower.forwards().await.commands[0][..], b"\xa1d"[..], "the room is free again");
    drop(next);
}

async fn what_the_leader_cannot_read_is_refused_and_the_others_are_placed<R: Executor>(rt: R) {
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
async fn a_committed_command_that_cannot_be_read_stops_its_node<R: Executor>(rt: R) {
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

impl Follower {
    /// Sends it a snapshot of its leader's at index 10, and waits until all of it is written.
    async fn hears_snapshot(&mut self, content: &'static [u8]) -> SnapshotMeta {
        let members = [1, 2, 3].map(|id| (replica(id), format!("node-{id}"))).into();
        let meta = SnapshotMeta {
            time: 0,
            log_id: LogId::new(1, 2, 10),
            membership: Membership::founding(CLUSTER, members).expect("is valid"),
            membership_index: 1,
            bytes: content.len() as u64,
            digest: Digest::of(content),
        };
        let snapshot_chunk =
            |chunk| Body::Snapshot { meta: Box::new(meta.clone()), offset: 0, chunk };
        self.hears(2, 1, snapshot_chunk(Bytes::new()));
        self.hears(2, 1, snapshot_chunk(Bytes::from_static(content)));
        let written = content.len() as u64;
        let is_written = |message: Message| match message.body {
            Body::SnapshotReply { stored, .. } => (stored == written).then_some(()),
            _ => None,
        };
        self.sends(is_written).await;
        meta
    }

    /// Waits until it has acknowledged this much.
    async fn acknowledges(&mut self, index: Index) {
        let matches = |message: Message| match message.body {
            Body::AppendReply { outcome: AppendOutcome::Accepted { matched }, .. } => {
                (matched == index).then_some(())
            }
            _ => None,
        };
        self.sends(matches).await;
    }
}

/// Entries "a", "b" and so on, as a `Journal` with serde has them.
const STATE: &[u8] = b"\x81\xa7entries\x92\xa1a\xa1b";

async fn a_snapshot_that_cannot_be_restored_leaves_the_disk_as_it_was<R: Executor>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    follower.raft.snapshot().await.expect("is taken");
    let before = follower.store.inspect(0);
    assert_eq!(before.snapshot.as_ref().map(|snapshot| snapshot.log_id), Some(BEGIN));
    follower.hears_snapshot(b"\x81\xa7entries\xc0").await;
    let cause = follower.node.stopped().await.expect_err("it has no state");
    let Fatal::Snapshot { index: 10, reason } = &cause else { panic!("{cause}") };
    assert!(reason.contains("expected a sequence"), "{reason}");
    let after = follower.store.inspect(0);
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
}

async fn a_snapshot_is_adopted_when_it_is_restored_and_not_before<R: Executor>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    follower.store.set(Disk::HoldsOpenings);
    let meta = follower.hears_snapshot(STATE).await;
    while follower.store.held() == 0 {
        rt.sleep(quick().heartbeat_interval).await;
    }
    // It goes on as a follower meanwhile, and acknowledges what it has, and no more.
    follower.turns().await;
    let metrics = follower.raft.metrics().borrow().clone();
    assert_eq!((metrics.snapshot, metrics.last_log_id), (LogId::ZERO, BEGIN));
    // (The store is not asked what it holds: it would take that for a restart and forget what no
    // write has named.)
    follower.store.set(Disk::Works);
    follower.store.release();
    follower.acknowledges(10).await;
    let after = follower.store.inspect(0);
    assert_eq!(after.snapshot, Some(meta));
    assert_eq!(follower.journal(2, 1, 10).await, ["a", "b"]);
}

async fn a_snapshot_that_the_log_overtakes_while_it_is_restored_does_no_harm<R: Executor>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    follower.store.set(Disk::HoldsOpenings);
    follower.hears_snapshot(STATE).await;
    while follower.store.held() == 0 {
        rt.sleep(quick().heartbeat_interval).await;
    }
    // "a" and "b", then blanks up to 11, and "c".
    let line = |line: &'static [u8]| Payload::Command(Bytes::from_static(line));
    let mut payloads = vec![line(b"\xa1a"), line(b"\xa1b")];
    payloads.resize(9, Payload::Blank);
    payloads.push(line(b"\xa1c"));
    let entries = (3..).zip(payloads).map(|(index, payload)| entry(1, 2, index, payload)).collect();
    follower.hears(2, 1, append(BEGIN, 12, entries));
    follower.acknowledges(12).await;
    follower.store.set(Disk::Works);
    follower.store.release();
    wait_for(&mut follower.raft.metrics(), |metrics| metrics.applied == 12).await;
    assert_eq!(follower.journal(2, 1, 12).await, ["a", "b", "c"]);
    let metrics = follower.raft.metrics().borrow().clone();
    assert_eq!((metrics.purged, metrics.last_log_id.index), (LogId::ZERO, 12));
}

async fn a_second_leader_of_a_term_is_ignored<R: Executor>(rt: R) {
    let mut follower = Follower::start(&rt).await;
    // As if it were of the one that it follows.
    let other = Payload::Command(Bytes::from_static(b"\xa1x"));
    follower.hears(3, 1, append(BEGIN, 3, vec![entry(1, 2, 3, other)]));
    follower.turns().await;
    let metrics = follower.raft.metrics().borrow().clone();
    assert_eq!((metrics.leader, metrics.last_log_id, metrics.committed), (Some(2), BEGIN, 2));
    assert!(metrics.state.is_running());
    follower.hears(2, 1, append(BEGIN, 3, vec![entry(1, 2, 3, Payload::Blank)]));
    assert!(follower.journal(2, 1, 3).await.is_empty());
}
