//! The cases of a transport: what arrives is what was sent, and a send is never waited for, whoever is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use quorate_rt::AsyncRuntime;
use quorate_rt::channel::mpsc;

use crate::{
    AppendOutcome, Body, Digest, Entries, Entry, ForwardOutcome, GroupId, Inbox, LogId, Membership,
    Message, NodeId, Payload, Refusal, SnapshotMeta, Term, Transport, Vote,
};

/// What the suite needs to know of a transport.
pub trait TransportFactory<R: AsyncRuntime>: 'static {
    /// The implementation.
    type Transport: Transport;
    /// Whether each message arrives, once and in order, as long as nothing fails and no queue is full; the pieces of snapshots
    /// among themselves. The contract does not ask for it, but Raft is faster with it.
    const ORDERED: bool = true;

    /// The transport of one more node, and the address at which the others reach it, as it would stand in the membership; it
    /// may be empty where none is needed. All that a factory makes belong to one cluster.
    async fn transport(&self, rt: &R) -> (Self::Transport, String);
}

/// Makes the tests of a transport: `transport_suite!(name, runtime, launch, factory);` gives a module `name` with a test for
/// each case. See [`conformance`](crate::conformance) for an example.
#[macro_export]
macro_rules! transport_suite {
    ($name:ident, $runtime:ty, $launch:expr, $factory:expr) => {
        #[allow(unused_imports)] // Whatever the types and expressions need from outside.
        mod $name {
            use super::*;
            $crate::suite_cases! { $runtime, $launch, $factory, transport {
                carries_all_kinds_unchanged, carries_in_order, carries_a_large_message,
                keeps_groups_apart, drops_what_is_for_unknown_nodes, never_waits_for_who_is_away,
                never_waits_for_who_is_slow, carries_pieces_beside_the_rest, delivers_nothing_within_a_send, delivers_nothing_after_detach,
                follows_a_node_that_moves, follows_a_node_that_restarts
            } }
        }
    };
}

const GROUP: GroupId = 7;

/// What may wait for one peer, in bytes: more than any transport needs, and less than would hurt.
const MAX_WAITING_BYTES: usize = 256 << 20;

/// A node, and what it has been sent in each of its groups.
struct Node<T> {
    id: NodeId,
    transport: T,
    address: String,
    inboxes: BTreeMap<GroupId, mpsc::Receiver<Message>>,
}

impl<T: Transport> Node<T> {
    async fn start<R: AsyncRuntime>(
        rt: &R,
        factory: &impl TransportFactory<R, Transport = T>,
        id: NodeId,
        groups: &[GroupId],
    ) -> Self {
        let (transport, address) = factory.transport(rt).await;
        let mut node = Self { id, transport, address, inboxes: BTreeMap::new() };
        for group in groups {
            let (sender, inbox) = mpsc::channel(100_000);
            let deliver =
                move |message| sender.try_send(message).expect("a test keeps all it is sent");
            node.transport.attach(*group, id, Inbox::new(deliver));
            node.inboxes.insert(*group, inbox);
        }
        node
    }

    /// From now on it knows where these nodes are, in all its groups.
    fn meet(&self, others: &[&Self]) {
        let peers = others.iter().map(|other| (other.id, other.address.clone())).collect();
        for group in self.inboxes.keys() {
            self.transport.set_peers(*group, &peers);
        }
    }

    fn message(&self, group: GroupId, to: NodeId, body: Body) -> Message {
        Message { group, from: self.id, to, term: Term(3), body }
    }

    /// A message that is known by its number.
    fn number(&self, group: GroupId, to: NodeId, sequence: u64) -> Message {
        self.message(group, to, Body::ReadIndex { sequence })
    }

    fn take(&mut self, group: GroupId) -> Option<Message> {
        self.inboxes.get_mut(&group).expect("a group of the test").try_recv()
    }

    async fn receive(&mut self, group: GroupId) -> Message {
        let inbox = self.inboxes.get_mut(&group).expect("a group of the test");
        inbox.recv().await.expect("the transport keeps the inbox")
    }

    /// Sends `message` until it arrives, as a transport may lose any. Gives what else came meanwhile.
    async fn reach(&self, rt: &impl AsyncRuntime, to: &mut Self, message: Message) -> Vec<Message> {
        let mut others = Vec::new();
        loop {
            self.transport.send(message.clone());
            for _ in 0..100 {
                while let Some(arrived) = to.take(message.group) {
                    if arrived == message {
                        return others;
                    }
                    others.push(arrived);
                }
                rt.sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Two nodes that know and have heard each other.
async fn pair<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: &R,
    factory: &F,
    groups: &[GroupId],
) -> (Node<F::Transport>, Node<F::Transport>) {
    let mut one = Node::start(rt, factory, 1, groups).await;
    let mut two = Node::start(rt, factory, 2, groups).await;
    one.meet(&[&two]);
    two.meet(&[&one]);
    for group in groups {
        one.reach(rt, &mut two, one.number(*group, 2, 0)).await;
        two.reach(rt, &mut one, two.number(*group, 1, 0)).await;
    }
    (one, two)
}

/// Two nodes get one more group, in which `to` listens with this inbox.
fn join<T: Transport>(from: &Node<T>, to: &Node<T>, inbox: Inbox) {
    from.transport.attach(GROUP, from.id, Inbox::new(drop));
    to.transport.attach(GROUP, to.id, inbox);
    for (node, other) in [(from, to), (to, from)] {
        let peers = BTreeMap::from([(other.id, other.address.clone())]);
        node.transport.set_peers(GROUP, &peers);
    }
}

fn command(index: u64, bytes: usize) -> Entry {
    let content: Vec<u8> = (0..bytes).map(|n| (n as u64 * 7 + index) as u8).collect();
    Entry { log_id: LogId::new(2, 1, index), payload: Payload::Command(content.into()) }
}

fn append(entries: Vec<Entry>) -> Body {
    Body::Append { prev: LogId::new(2, 1, 10), committed: 9, round: 77, entries: entries.into() }
}

/// A piece of a snapshot.
fn piece(offset: u64, chunk: Bytes) -> Body {
    let voters = BTreeMap::from([(1, "a:1".to_owned()), (2, String::new())]);
    let meta = SnapshotMeta {
        log_id: LogId::new(2, 1, 10),
        membership: Membership::new(voters).expect("a possible one"),
        membership_index: 10,
        bytes: u64::MAX,
        digest: Digest::of(b"a snapshot"),
    };
    Body::Snapshot { meta, offset, chunk }
}

/// Each kind of message, with each outcome, each kind of entry, and numbers at their limits.
fn all_kinds() -> Vec<Body> {
    let log_id = LogId::new(2, 1, 10);
    let largest = LogId::new(u64::MAX, u64::MAX, u64::MAX);
    let voters = BTreeMap::from([(1, "a:1".to_owned()), (u64::MAX, String::new())]);
    let membership = Membership::new(voters).expect("a possible one");
    let entries = vec![
        Entry { log_id: LogId::new(2, 1, 11), payload: Payload::Blank },
        command(12, 0),
        command(13, 100),
        command(14, 70_000),
        Entry { log_id: LogId::new(3, 2, 15), payload: Payload::Membership(membership) },
    ];
    let commands = vec![Bytes::new(), Bytes::from_static(b"set"), Bytes::from(vec![1; 30_000])];
    let accepted = AppendOutcome::Accepted { matched: u64::MAX };
    let rejected = AppendOutcome::Rejected { prev: 10, hint: log_id };
    let forwarded = |outcome| Body::ForwardReply { session: 5, sequence: 6, outcome };
    vec![
        Body::PreVote { last_log_id: log_id },
        Body::PreVote { last_log_id: largest },
        Body::PreVoteReply { vote: Vote::Yes },
        Body::PreVoteReply { vote: Vote::No },
        Body::Vote { last_log_id: LogId::ZERO, handover: false },
        Body::Vote { last_log_id: log_id, handover: true },
        Body::VoteReply { vote: Vote::Yes },
        Body::VoteReply { vote: Vote::No },
        Body::VoteReply { vote: Vote::Tentative },
        append(entries),
        Body::Append {
            prev: LogId::ZERO,
            committed: 0,
            round: u64::MAX,
            entries: Entries::default(),
        },
        Body::AppendReply { round: 77, outcome: accepted },
        Body::AppendReply { round: 78, outcome: rejected },
        Body::Forward { session: 5, sequence: 6, commands },
        Body::Forward { session: u64::MAX, sequence: u64::MAX, commands: vec![] },
        forwarded(ForwardOutcome::Appended(log_id)),
        forwarded(ForwardOutcome::NotLeader),
        forwarded(ForwardOutcome::Busy),
        forwarded(ForwardOutcome::Partly {
            first: log_id,
            refused: vec![Refusal::new(1, "why".to_owned()), Refusal::new(3, "why".to_owned())],
        }),
        Body::ReadIndex { sequence: 8 },
        Body::ReadIndexReply { sequence: 8, index: Some(u64::MAX) },
        Body::ReadIndexReply { sequence: 9, index: None },
        Body::TimeoutNow,
        piece(0, Bytes::new()),
        piece(u64::MAX, Bytes::from_static(b"a piece")),
        piece(7, Bytes::from(vec![1; 70_000])),
        Body::SnapshotReply { digest: Digest::of(b"a snapshot"), stored: 0 },
        Body::SnapshotReply { digest: Digest::of(b""), stored: u64::MAX },
    ]
}

#[doc(hidden)]
pub async fn carries_all_kinds_unchanged<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    for body in all_kinds() {
        let message = one.message(GROUP, 2, body);
        one.reach(&rt, &mut two, message).await;
    }
}

/// In both directions at once, in bursts; what arrives is what was sent, and, if the transport says so, all and in order.
#[doc(hidden)]
pub async fn carries_in_order<R: AsyncRuntime, F: TransportFactory<R>>(rt: R, factory: F) {
    const COUNT: u64 = 2000;
    let (mut one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    for sequence in 1..=COUNT {
        one.transport.send(one.number(GROUP, 2, sequence));
        two.transport.send(two.number(GROUP, 1, sequence));
        if sequence % 500 == 0 {
            rt.sleep(Duration::from_millis(1)).await;
        }
    }
    if F::ORDERED {
        for (from, to) in [(1, &mut two), (2, &mut one)] {
            let mut next = 1;
            while next <= COUNT {
                let message = to.receive(GROUP).await;
                let body = Body::ReadIndex { sequence: next };
                let expected = Message { group: GROUP, from, to: to.id, term: Term(3), body };
                // The first contact may have been repeated.
                if message.body != (Body::ReadIndex { sequence: 0 }) {
                    assert_eq!(message, expected);
                    next += 1;
                }
            }
        }
    } else {
        let last = one.number(GROUP, 2, COUNT + 1);
        for message in one.reach(&rt, &mut two, last).await {
            let Body::ReadIndex { sequence } = message.body else {
                panic!("never sent: {message:?}")
            };
            assert!(sequence <= COUNT + 1, "never sent: {message:?}");
            assert_eq!(message, one.number(GROUP, 2, sequence));
        }
    }
}

/// Of many entries and of one, and a piece of a snapshot.
#[doc(hidden)]
pub async fn carries_a_large_message<R: AsyncRuntime, F: TransportFactory<R>>(rt: R, factory: F) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    let entries = (11..4011).map(|index| command(index, 1000)).collect();
    let chunk: Vec<u8> = (0..4_u32 << 20).map(|n| (n.wrapping_mul(n) >> 8) as u8).collect();
    let large = [append(entries), append(vec![command(11, 4 << 20)]), piece(5, chunk.into())];
    for body in large {
        let message = one.message(GROUP, 2, body);
        one.reach(&rt, &mut two, message).await;
        one.reach(&rt, &mut two, one.number(GROUP, 2, 1)).await;
    }
}

/// The groups of two nodes share their transports, and no message goes to another group.
#[doc(hidden)]
pub async fn keeps_groups_apart<R: AsyncRuntime, F: TransportFactory<R>>(rt: R, factory: F) {
    const GROUPS: [GroupId; 4] = [0, 1, GROUP, u64::MAX];
    let (one, mut two) = pair(&rt, &factory, &GROUPS).await;
    for sequence in 1..100 {
        for group in GROUPS {
            one.transport.send(one.number(group, 2, sequence));
        }
        // Of a group that isn't here.
        one.transport.send(one.number(GROUP + 1, 2, sequence));
    }
    for group in GROUPS {
        let others = one.reach(&rt, &mut two, one.number(group, 2, 100)).await;
        assert!(others.iter().all(|message| message.group == group && message.to == 2));
        if F::ORDERED {
            assert!(others.len() >= 99, "of group {group} only {} arrived", others.len());
        }
    }
}

/// Messages to nodes that nobody knows, or not any more, do no harm.
#[doc(hidden)]
pub async fn drops_what_is_for_unknown_nodes<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    for sequence in 1..100 {
        one.transport.send(one.number(GROUP, 3, sequence));
        one.transport.send(one.number(GROUP, u64::MAX, sequence));
    }
    one.reach(&rt, &mut two, one.number(GROUP, 2, 1)).await;
    // Nobody is a member any more, and then it is again.
    one.meet(&[]);
    one.transport.send(one.number(GROUP, 2, 2));
    one.meet(&[&two]);
    one.reach(&rt, &mut two, one.number(GROUP, 2, 3)).await;
    while let Some(message) = two.take(GROUP) {
        assert_eq!(message.to, 2);
    }
}

/// The content of a command, which tells how many of them exist.
struct Counted(Arc<AtomicUsize>);

static CONTENT: [u8; 64 << 10] = [7; 64 << 10];

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &CONTENT
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Sends far more to node `to` than may wait, entries or pieces of a snapshot, `pause` after some of it, and looks at how much does.
async fn flood<T: Transport>(from: &Node<T>, to: NodeId, pieces: bool, pause: impl AsyncFn()) {
    let waiting = Arc::new(AtomicUsize::new(0));
    for index in 1..=(4 * MAX_WAITING_BYTES / CONTENT.len()) as u64 {
        waiting.fetch_add(1, Ordering::Relaxed);
        let content = Bytes::from_owner(Counted(Arc::clone(&waiting)));
        let body = if pieces {
            piece(index, content)
        } else {
            let payload = Payload::Command(content);
            append(vec![Entry { log_id: LogId::new(2, 1, index), payload }])
        };
        from.transport.send(from.message(GROUP, to, body));
        let bytes = waiting.load(Ordering::Relaxed) * CONTENT.len();
        assert!(bytes <= MAX_WAITING_BYTES, "{bytes} bytes wait for one peer");
        if index % 1024 == 0 {
            pause().await;
        }
    }
}

/// A peer that has been here, and one that never was, though its address is known. Meanwhile the others are reached.
#[doc(hidden)]
pub async fn never_waits_for_who_is_away<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (one, two) = pair(&rt, &factory, &[GROUP]).await;
    let mut three = Node::start(&rt, &factory, 3, &[GROUP]).await;
    let (gone, address) = factory.transport(&rt).await;
    drop(gone);
    let addresses =
        BTreeMap::from([(2, two.address.clone()), (3, three.address.clone()), (4, address)]);
    one.transport.set_peers(GROUP, &addresses);
    drop(two);
    for (away, pieces) in [(2, false), (4, true), (2, true), (4, false)] {
        flood(&one, away, pieces, async || rt.sleep(Duration::from_millis(1)).await).await;
        one.reach(&rt, &mut three, one.number(GROUP, 3, away)).await;
    }
}

/// A peer that does not get to run while it is sent to.
#[doc(hidden)]
pub async fn never_waits_for_who_is_slow<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP + 1]).await;
    // What is delivered waits no longer.
    join(&one, &two, Inbox::new(drop));
    for pieces in [false, true] {
        flood(&one, 2, pieces, async || ()).await;
        one.reach(&rt, &mut two, one.number(GROUP + 1, 2, 1)).await;
    }
}

/// A snapshot is sent, piece after piece, while the usual messages come and go: all arrive, in their order.
#[doc(hidden)]
pub async fn carries_pieces_beside_the_rest<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    const COUNT: u64 = 200;
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    let chunk = Bytes::from(vec![3; 100_000]);
    // The offer, which is answered before the pieces are sent.
    one.reach(&rt, &mut two, one.message(GROUP, 2, piece(0, Bytes::new()))).await;
    let (mut next, mut number) = (1, 1);
    while next <= COUNT {
        // No more at a time than what any transport holds.
        for offset in next..next + 10 {
            one.transport.send(one.message(GROUP, 2, piece(offset, chunk.clone())));
            one.transport.send(one.number(GROUP, 2, offset));
        }
        if !F::ORDERED {
            one.reach(&rt, &mut two, one.message(GROUP, 2, piece(next, chunk.clone()))).await;
            one.reach(&rt, &mut two, one.number(GROUP, 2, next)).await;
            next += 10;
            continue;
        }
        let end = next + 10;
        while next < end || number < end {
            let message = two.receive(GROUP).await;
            match &message.body {
                // The first contact, and the offer, may have been repeated.
                Body::ReadIndex { sequence: 0 } | Body::Snapshot { offset: 0, .. } => {}
                Body::Snapshot { .. } => {
                    assert!(message == one.message(GROUP, 2, piece(next, chunk.clone())), "{next}");
                    next += 1;
                }
                _ => {
                    assert_eq!(message, one.number(GROUP, 2, number));
                    number += 1;
                }
            }
        }
    }
}

/// A node that sends is in the middle of its turn: its own inbox must not be called.
#[doc(hidden)]
pub async fn delivers_nothing_within_a_send<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP + 1]).await;
    let sending = Rc::new(Cell::new(false));
    let within = Rc::clone(&sending);
    let deliver = move |_| assert!(!within.get(), "delivered within the receiver's own send");
    join(&two, &one, Inbox::new(deliver));
    for sequence in 0..1000 {
        two.transport.send(two.number(GROUP, 1, sequence));
        if sequence % 10 == 0 {
            rt.sleep(Duration::ZERO).await;
        }
        sending.set(true);
        one.transport.send(one.number(GROUP, 1, sequence));
        one.transport.send(one.number(GROUP + 1, 2, sequence));
        sending.set(false);
    }
    one.reach(&rt, &mut two, one.number(GROUP + 1, 2, 1000)).await;
}

/// Neither what is under way nor what is sent later; the transport's other groups go on.
#[doc(hidden)]
pub async fn delivers_nothing_after_detach<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (mut one, mut two) = pair(&rt, &factory, &[GROUP + 1]).await;
    let detached = Rc::new(Cell::new(false));
    let ended = Rc::clone(&detached);
    let deliver = move |_| assert!(!ended.get(), "delivered after detach");
    join(&one, &two, Inbox::new(deliver));
    for sequence in 1..1000 {
        one.transport.send(one.number(GROUP, 2, sequence));
    }
    two.transport.detach(GROUP);
    detached.set(true);
    for sequence in 1000..2000 {
        one.transport.send(one.number(GROUP, 2, sequence));
    }
    // What was sent before this one has arrived, at least where there is an order.
    one.reach(&rt, &mut two, one.number(GROUP + 1, 2, 1)).await;
    // Twice does no harm, nor does a group that never was.
    two.transport.detach(GROUP);
    two.transport.detach(GROUP + 2);
    one.reach(&rt, &mut two, one.number(GROUP + 1, 2, 2)).await;
    two.reach(&rt, &mut one, two.number(GROUP + 1, 1, 1)).await;
}

/// Once its new address is known, messages go there, though its old place still listens.
#[doc(hidden)]
pub async fn follows_a_node_that_moves<R: AsyncRuntime, F: TransportFactory<R>>(rt: R, factory: F) {
    let (one, mut before) = pair(&rt, &factory, &[GROUP]).await;
    one.transport.send(one.number(GROUP, 2, 1));
    let mut after = Node::start(&rt, &factory, 2, &[GROUP]).await;
    one.meet(&[&after]);
    one.reach(&rt, &mut after, one.number(GROUP, 2, 2)).await;
    while let Some(message) = before.take(GROUP) {
        assert_ne!(message, one.number(GROUP, 2, 2), "sent to the old place");
    }
}

/// A node that dies in the middle of something and comes back elsewhere, again and again.
#[doc(hidden)]
pub async fn follows_a_node_that_restarts<R: AsyncRuntime, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (mut one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    for life in 1..=5 {
        for _ in 0..100 {
            one.transport.send(one.message(GROUP, 2, append(vec![command(11, 1000)])));
            two.transport.send(two.message(GROUP, 1, append(vec![command(11, 1000)])));
        }
        drop(two);
        one.transport.send(one.number(GROUP, 2, 0));
        two = Node::start(&rt, &factory, 2, &[GROUP]).await;
        two.meet(&[&one]);
        one.meet(&[&two]);
        one.reach(&rt, &mut two, one.number(GROUP, 2, life)).await;
        two.reach(&rt, &mut one, two.number(GROUP, 1, life)).await;
    }
}
