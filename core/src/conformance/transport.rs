//! The cases of a transport: what arrives is what was sent, and a send is never waited for, whoever
//! is away.
//!
//! All nodes but those of one case are members of one cluster. A message to a replica goes to the
//! node that has it.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use futures::channel::mpsc;
use quorate_rt::Executor;

use self::messages::{all_kinds, append, claim, command, founders, snapshot_chunk};
use super::{CLUSTER, replica};
use crate::{
    AppendOutcome, Body, Boot, Credentials, GroupId, Inbox, Message, NODE_GROUP, NodeId, Replica,
    Situation, StoreState, Term, Transport,
};

mod limits;
mod messages;

pub use self::limits::*;

/// What the suite needs to know of a transport.
pub trait TransportFactory<R: Executor>: 'static {
    /// The implementation.
    type Transport: Transport;
    /// Whether each message arrives, once and in order, as long as nothing fails and no queue is
    /// full; the chunks of snapshots among themselves. The contract does not ask for it, but Raft
    /// is faster with it.
    const ORDERED: bool = true;

    /// The transport of one more node, and the address at which the others reach it, as it would
    /// stand in the membership; it may be empty where none is needed.
    async fn transport(&self, rt: &R) -> (Self::Transport, String);
}

/// Makes the tests of a transport: `transport_suite!(name, runtime, launch, factory);` gives a
/// module `name` with a test for each case. See [`conformance`](crate::conformance) for an example.
#[macro_export]
macro_rules! transport_suite {
    ($name:ident, $runtime:ty, $launch:expr, $factory:expr) => {
        #[allow(unused_imports)] // Whatever the types and expressions need from outside.
        mod $name {
            use super::*;
            $crate::suite_cases! { $runtime, $launch, $factory, transport {
                carries_all_kinds_unchanged, reaches_whichever_store_a_node_has, carries_a_formation,
                carries_in_order, carries_a_large_message,
                keeps_groups_apart, drops_what_is_for_unknown_nodes, never_waits_for_who_is_away,
                never_waits_for_who_is_slow, carries_nothing_that_it_has_refused, carries_chunks_beside_the_rest, delivers_nothing_within_a_send, delivers_nothing_after_detach,
                follows_a_node_that_moves, follows_a_node_that_restarts
            } }
        }
    };
}

const GROUP: GroupId = 7;

/// A node, and what it has been sent in each of its groups.
struct Node<T> {
    credentials: Credentials,
    transport: T,
    address: String,
    inboxes: BTreeMap<GroupId, mpsc::UnboundedReceiver<Message>>,
}

impl<T: Transport> Node<T> {
    /// A member of the cluster, in this run of it.
    async fn start<R: Executor>(
        rt: &R,
        factory: &impl TransportFactory<R, Transport = T>,
        id: NodeId,
        run: u64,
        groups: &[GroupId],
    ) -> Self {
        let boot = Boot { number: run, tag: run * 1000 + id };
        let (state, cluster) = (StoreState::Member, Some(CLUSTER));
        let credentials = Credentials { replica: replica(id), boot, state, cluster };
        Self::start_with(rt, factory, credentials, groups).await
    }

    async fn start_with<R: Executor>(
        rt: &R,
        factory: &impl TransportFactory<R, Transport = T>,
        credentials: Credentials,
        groups: &[GroupId],
    ) -> Self {
        let (transport, address) = factory.transport(rt).await;
        let mut node = Self { credentials, transport, address, inboxes: BTreeMap::new() };
        for group in groups {
            let (sender, inbox) = mpsc::unbounded();
            let deliver =
                move |message| sender.unbounded_send(message).expect("a test keeps all it is sent");
            node.transport.attach(*group, credentials, Inbox::new(deliver));
            node.inboxes.insert(*group, inbox);
        }
        node
    }

    /// Where its replica is reached, and where its node is: as a configuration tells it.
    fn places(&self) -> [(Replica, String); 2] {
        let replica = self.credentials.replica;
        [replica, Replica::any(replica.id)].map(|place| (place, self.address.clone()))
    }

    /// From now on it knows where these nodes are, in all its groups. (As a node does, it tells
    /// nothing of the group that stands for messages between nodes.)
    fn meet(&self, others: &[&Self]) {
        let peers = others.iter().flat_map(|other| other.places()).collect();
        for group in self.inboxes.keys().filter(|group| **group != NODE_GROUP) {
            self.transport.set_peers(*group, &peers);
        }
    }

    /// Its standing has changed, in all its groups.
    fn becomes(&mut self, state: StoreState) {
        self.credentials = Credentials { state, cluster: Some(CLUSTER), ..self.credentials };
        for group in self.inboxes.keys() {
            self.transport.set_credentials(*group, self.credentials);
        }
    }

    fn message(&self, group: GroupId, to: NodeId, body: Body) -> Message {
        let (from, to) = (self.credentials.replica, replica(to));
        Message { group, cluster: Some(CLUSTER), from, to, term: Term(3), body }
    }

    /// A message that forms a cluster, or lets a store in: it has no term, and tells no cluster
    /// beside its body.
    fn without_cluster(&self, group: GroupId, to: Replica, body: Body) -> Message {
        let from = self.credentials.replica;
        Message { group, cluster: None, from, to, term: Term(0), body }
    }

    /// A message that is known by its number.
    fn number(&self, group: GroupId, to: NodeId, sequence: u64) -> Message {
        self.message(group, to, Body::ReadIndex { sequence })
    }

    fn take(&mut self, group: GroupId) -> Option<Message> {
        self.inboxes.get_mut(&group).expect("a group of the test").try_recv().ok()
    }

    async fn receive(&mut self, group: GroupId) -> Message {
        let inbox = self.inboxes.get_mut(&group).expect("a group of the test");
        inbox.recv().await.expect("the transport keeps the inbox")
    }

    /// Sends `message` until it arrives, as a transport may lose any. Gives what else came
    /// meanwhile.
    async fn reach(&self, rt: &impl Executor, to: &mut Self, message: Message) -> Vec<Message> {
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
async fn pair<R: Executor, F: TransportFactory<R>>(
    rt: &R,
    factory: &F,
    groups: &[GroupId],
) -> (Node<F::Transport>, Node<F::Transport>) {
    let mut one = Node::start(rt, factory, 1, 1, groups).await;
    let mut two = Node::start(rt, factory, 2, 1, groups).await;
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
    from.transport.attach(GROUP, from.credentials, Inbox::new(drop));
    to.transport.attach(GROUP, to.credentials, inbox);
    for (node, other) in [(from, to), (to, from)] {
        let peers = BTreeMap::from(other.places());
        node.transport.set_peers(GROUP, &peers);
    }
}

#[doc(hidden)]
pub async fn carries_all_kinds_unchanged<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    for body in all_kinds() {
        let message = match body {
            Body::Who { .. } | Body::Situation { .. } | Body::Claim(_) | Body::Admit { .. } => {
                one.without_cluster(GROUP, replica(2), body)
            }
            body => one.message(GROUP, 2, body),
        };
        one.reach(&rt, &mut two, message).await;
    }
}

/// A question and a claim for whoever lives there, and messages for a replica of which only the
/// node's address is known.
#[doc(hidden)]
pub async fn reaches_whichever_store_a_node_has<R: Executor, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    for whoever in [Body::Who { listed: founders(3) }, Body::Claim(Box::new(claim(1, 3)))] {
        one.reach(&rt, &mut two, one.without_cluster(GROUP, Replica::any(2), whoever)).await;
    }
    let [_, (node, address)] = two.places();
    one.transport.set_peers(GROUP, &BTreeMap::from([(node, address)]));
    one.reach(&rt, &mut two, one.number(GROUP, 2, 1)).await;
    one.reach(&rt, &mut two, one.without_cluster(GROUP, node, Body::Who { listed: founders(0) }))
        .await;
    one.reach(&rt, &mut two, one.number(GROUP, 2, 2)).await;
}

/// Two nodes with empty stores become members of one cluster, and tell their transports so on the
/// way.
#[doc(hidden)]
pub async fn carries_a_formation<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
    let empty = |id| {
        let boot = Boot { number: 1, tag: id };
        Credentials { replica: replica(id), boot, state: StoreState::Empty, cluster: None }
    };
    let mut one = Node::start_with(&rt, &factory, empty(1), &[GROUP]).await;
    let mut two = Node::start_with(&rt, &factory, empty(2), &[GROUP]).await;
    for (node, other) in [(&one, &two), (&two, &one)] {
        // As the list says it that both were told.
        let [_, (other, address)] = other.places();
        node.transport.set_peers(GROUP, &BTreeMap::from([(other, address)]));
    }
    let situation = |situation| Body::Situation { situation, listed: founders(2) };
    let who = one.without_cluster(GROUP, Replica::any(2), Body::Who { listed: founders(2) });
    one.reach(&rt, &mut two, who).await;
    let answer = two.without_cluster(GROUP, replica(1), situation(Situation::Empty));
    two.reach(&rt, &mut one, answer).await;

    one.becomes(StoreState::Claimed);
    let claim = claim(1, 2);
    let (ballot, founder, ids) = (claim.ballot, claim.founder, claim.ids());
    let claim = one.without_cluster(GROUP, Replica::any(2), Body::Claim(Box::new(claim)));
    one.reach(&rt, &mut two, claim).await;
    two.becomes(StoreState::Claimed);
    let accepted = situation(Situation::Claimed { ballot, founder, ids });
    let accepted = two.without_cluster(GROUP, replica(1), accepted);
    two.reach(&rt, &mut one, accepted).await;

    one.becomes(StoreState::Member);
    one.meet(&[&two]);
    let first = append(vec![command(11, 100)]);
    one.reach(&rt, &mut two, one.message(GROUP, 2, first)).await;
    two.becomes(StoreState::Member);
    two.meet(&[&one]);
    let outcome = AppendOutcome::Accepted { matched: 11 };
    let reply = two.message(GROUP, 1, Body::AppendReply { round: 77, outcome });
    two.reach(&rt, &mut one, reply).await;
    one.reach(&rt, &mut two, one.number(GROUP, 2, 1)).await;
}

/// In both directions at once, in bursts; what arrives is what was sent, and, if the transport says
/// so, all and in order.
#[doc(hidden)]
pub async fn carries_in_order<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
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
            let (from, me) = (replica(from), to.credentials.replica);
            let mut next = 1;
            while next <= COUNT {
                let message = to.receive(GROUP).await;
                // The first contact may have been repeated.
                if message.body != (Body::ReadIndex { sequence: 0 }) {
                    assert_eq!((message.from, message.to), (from, me));
                    assert_eq!(message.body, Body::ReadIndex { sequence: next });
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

/// Of many entries and of one, and a chunk of a snapshot.
#[doc(hidden)]
pub async fn carries_a_large_message<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    let entries = (11..4011).map(|index| command(index, 1000)).collect();
    let chunk: Vec<u8> = (0..4_u32 << 20).map(|n| (n.wrapping_mul(n) >> 8) as u8).collect();
    let large =
        [append(entries), append(vec![command(11, 4 << 20)]), snapshot_chunk(5, chunk.into())];
    for body in large {
        let message = one.message(GROUP, 2, body);
        one.reach(&rt, &mut two, message).await;
        one.reach(&rt, &mut two, one.number(GROUP, 2, 1)).await;
    }
}

/// The groups of two nodes share their transports, and no message goes to another group.
#[doc(hidden)]
pub async fn keeps_groups_apart<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
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
        assert!(others.iter().all(|message| message.group == group && message.to == replica(2)));
        if F::ORDERED {
            assert!(others.len() >= 99, "of group {group} only {} arrived", others.len());
        }
    }
}

/// Messages to nodes that nobody knows, or not any more, do no harm.
#[doc(hidden)]
pub async fn drops_what_is_for_unknown_nodes<R: Executor, F: TransportFactory<R>>(
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
        assert_eq!(message.to, replica(2));
    }
}

/// A snapshot is sent, chunk after chunk, while the usual messages come and go: all arrive, in
/// their order.
#[doc(hidden)]
pub async fn carries_chunks_beside_the_rest<R: Executor, F: TransportFactory<R>>(
    rt: R,
    factory: F,
) {
    const COUNT: u64 = 200;
    let (one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    let chunk = Bytes::from(vec![3; 100_000]);
    // The offer, which is answered before the chunks are sent.
    one.reach(&rt, &mut two, one.message(GROUP, 2, snapshot_chunk(0, Bytes::new()))).await;
    let (mut next, mut number) = (1, 1);
    while next <= COUNT {
        // No more at a time than what any transport holds.
        for offset in next..next + 10 {
            one.transport.send(one.message(GROUP, 2, snapshot_chunk(offset, chunk.clone())));
            one.transport.send(one.number(GROUP, 2, offset));
        }
        if !F::ORDERED {
            one.reach(&rt, &mut two, one.message(GROUP, 2, snapshot_chunk(next, chunk.clone())))
                .await;
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
                    assert!(
                        message == one.message(GROUP, 2, snapshot_chunk(next, chunk.clone())),
                        "{next}"
                    );
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
pub async fn delivers_nothing_within_a_send<R: Executor, F: TransportFactory<R>>(
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
pub async fn delivers_nothing_after_detach<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
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

/// Once its new address is known, messages go there, though its old place still listens, without
/// the node.
#[doc(hidden)]
pub async fn follows_a_node_that_moves<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
    let (one, before) = pair(&rt, &factory, &[GROUP]).await;
    one.transport.send(one.number(GROUP, 2, 1));
    before.transport.detach(GROUP);
    let mut after = Node::start(&rt, &factory, 2, 2, &[GROUP]).await;
    one.meet(&[&after]);
    one.reach(&rt, &mut after, one.number(GROUP, 2, 2)).await;
    drop(before);
    one.reach(&rt, &mut after, one.number(GROUP, 2, 3)).await;
}

/// A node that dies in the middle of something and comes back elsewhere, again and again.
#[doc(hidden)]
pub async fn follows_a_node_that_restarts<R: Executor, F: TransportFactory<R>>(rt: R, factory: F) {
    let (mut one, mut two) = pair(&rt, &factory, &[GROUP]).await;
    for life in 1..=5 {
        for _ in 0..100 {
            one.transport.send(one.message(GROUP, 2, append(vec![command(11, 1000)])));
            two.transport.send(two.message(GROUP, 1, append(vec![command(11, 1000)])));
        }
        drop(two);
        one.transport.send(one.number(GROUP, 2, 0));
        two = Node::start(&rt, &factory, 2, 1 + life, &[GROUP]).await;
        two.meet(&[&one]);
        one.meet(&[&two]);
        one.reach(&rt, &mut two, one.number(GROUP, 2, life)).await;
        two.reach(&rt, &mut one, two.number(GROUP, 1, life)).await;
    }
}
