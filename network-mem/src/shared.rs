//! The network of nodes on several threads of a process. Messages to a node gather in its mailbox;
//! the first one wakes a task on the node's thread, which takes them all at once. So a burst costs
//! one wake-up.
//!
//! Messages are routed by node id. Whichever replica of the node is attached gets them; the engine
//! drops what is for another one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use quorate_core::{Credentials, GroupId, Inbox, Message, NodeId, Replica, Transport};
use quorate_rt::Executor;

/// What may wait for one node, in bytes. Beyond it messages are lost, as on any network: Raft sends
/// what matters again. It is a few times what all the peers of a node keep in flight, so that only
/// a node that stands still loses any.
pub const MAX_WAITING_BYTES: usize = 128 << 20;

/// A network across threads. A clone is the same network.
#[derive(Clone, Default)]
pub struct SharedNetwork {
    mailboxes: Arc<Mutex<BTreeMap<NodeId, Arc<Mailbox>>>>,
}

impl SharedNetwork {
    /// A network without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// A transport for one node on this thread, of any number of groups.
    pub fn transport<R: Executor>(&self, rt: &R) -> SharedTransport<R> {
        let inner = Inner {
            rt: rt.clone(),
            network: self.clone(),
            inboxes: Rc::default(),
            node: RefCell::new(None),
            known: RefCell::default(),
            dropped: Cell::default(),
        };
        SharedTransport { inner: Rc::new(inner) }
    }
}

impl fmt::Debug for SharedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedNetwork").finish_non_exhaustive()
    }
}

/// What waits for one node. It is all that threads share.
#[derive(Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    receiver: AtomicWaker,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    bytes: usize,
    /// The node is gone, and what is sent to it must look for its next life.
    closed: bool,
}

enum Posted {
    Taken,
    Lost,
    Closed(Message),
}

impl Mailbox {
    fn post(&self, message: Message) -> Posted {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return Posted::Closed(message);
        }
        let bytes = message.bytes();
        let first = waiting.messages.is_empty();
        // One message may always wait, whatever its size.
        if !first && waiting.bytes.saturating_add(bytes) > MAX_WAITING_BYTES {
            drop(waiting);
            tracing::debug!(to = %message.to, "a message is lost: too much waits for its receiver");
            return Posted::Lost;
        }
        waiting.bytes += bytes;
        waiting.messages.push(message);
        drop(waiting);
        if first {
            self.receiver.wake();
        }
        Posted::Taken
    }

    /// Swaps what waits into `batch`, which is empty. None waits: the task is woken when that
    /// changes.
    fn poll_take(&self, batch: &mut Vec<Message>, context: &Context<'_>) {
        assert!(batch.is_empty());
        // Before the look, or a wake between the two would be lost.
        self.receiver.register(context.waker());
        let mut waiting = lock(&self.waiting);
        mem::swap(batch, &mut waiting.messages);
        waiting.bytes = 0;
    }

    fn close(&self) {
        let messages = {
            let mut waiting = lock(&self.waiting);
            waiting.closed = true;
            waiting.bytes = 0;
            mem::take(&mut waiting.messages)
        };
        drop(messages);
    }
}

/// Nothing that can panic half way runs under these locks, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node's place in a [`SharedNetwork`]. It stays on the node's thread. A clone is the same place;
/// with the last one the node leaves.
pub struct SharedTransport<R: Executor> {
    inner: Rc<Inner<R>>,
}

type Inboxes = Rc<RefCell<BTreeMap<GroupId, Inbox>>>;

struct Inner<R: Executor> {
    rt: R,
    network: SharedNetwork,
    inboxes: Inboxes,
    node: RefCell<Option<Node<R>>>,
    /// Mailboxes that have been looked up, so that a send takes no lock that all nodes share.
    known: RefCell<BTreeMap<NodeId, Arc<Mailbox>>>,
    /// Messages that were not taken.
    dropped: Cell<u64>,
}

/// What there is from the first `attach` on.
struct Node<R: Executor> {
    id: NodeId,
    mailbox: Arc<Mailbox>,
    /// Delivers until it is dropped.
    _task: R::Task<()>,
}

impl<R: Executor> Clone for SharedTransport<R> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<R: Executor> Inner<R> {
    fn join(&self, id: NodeId) -> Node<R> {
        let mailbox = Arc::new(Mailbox::default());
        let before = lock(&self.network.mailboxes).insert(id, Arc::clone(&mailbox));
        if let Some(before) = before {
            before.close();
        }
        let task = self.rt.spawn(deliver(Arc::clone(&mailbox), Rc::clone(&self.inboxes)));
        Node { id, mailbox, _task: task }
    }

    /// Whether the message waits for its receiver now.
    fn post(&self, message: Message) -> bool {
        let (from, to) = (message.from.id, message.to.id);
        let mailbox = if from == to { None } else { self.mailbox(to) };
        let Some(mailbox) = mailbox else { return false };
        match mailbox.post(message) {
            Posted::Taken => true,
            Posted::Lost => false,
            Posted::Closed(message) => {
                self.known.borrow_mut().remove(&to);
                // If its next life has ended as well, the message is lost.
                let next = self.mailbox(to);
                next.is_some_and(|mailbox| matches!(mailbox.post(message), Posted::Taken))
            }
        }
    }

    fn mailbox(&self, id: NodeId) -> Option<Arc<Mailbox>> {
        let mut known = self.known.borrow_mut();
        if let Some(mailbox) = known.get(&id) {
            return Some(Arc::clone(mailbox));
        }
        let mailbox = Arc::clone(lock(&self.network.mailboxes).get(&id)?);
        known.insert(id, Arc::clone(&mailbox));
        Some(mailbox)
    }
}

impl<R: Executor> Drop for Inner<R> {
    fn drop(&mut self) {
        let Some(node) = self.node.take() else { return };
        node.mailbox.close();
        let mut mailboxes = lock(&self.network.mailboxes);
        // A next life may have taken the place already.
        if mailboxes.get(&node.id).is_some_and(|mailbox| Arc::ptr_eq(mailbox, &node.mailbox)) {
            mailboxes.remove(&node.id);
        }
    }
}

/// Delivers one batch each time it is polled. Whoever sends after the swap finds the mailbox empty
/// and wakes this again, so a steady stream can't keep the node itself from its turns.
async fn deliver(mailbox: Arc<Mailbox>, inboxes: Inboxes) {
    let mut batch = Vec::new();
    poll_fn(|context| {
        mailbox.poll_take(&mut batch, context);
        for message in batch.drain(..) {
            // Not borrowed while the inbox is called: it may attach or detach.
            let inbox = inboxes.borrow().get(&message.group).cloned();
            if let Some(inbox) = inbox {
                inbox.deliver(message);
            }
        }
        Poll::<()>::Pending
    })
    .await;
}

impl<R: Executor> Transport for SharedTransport<R> {
    fn send(&self, message: Message) -> bool {
        let taken = self.inner.post(message);
        if !taken {
            self.inner.dropped.set(self.inner.dropped.get() + 1);
        }
        taken
    }

    fn is_ready(&self, to: Replica) -> bool {
        let mailbox = self.inner.mailbox(to.id);
        mailbox.is_some_and(|mailbox| lock(&mailbox.waiting).bytes < MAX_WAITING_BYTES)
    }

    fn dropped_messages(&self) -> u64 {
        self.inner.dropped.get()
    }

    /// # Panics
    /// Where another node is attached already: a transport is one node's.
    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        let node = credentials.replica.id;
        let _before = self.inner.inboxes.borrow_mut().insert(group, inbox);
        let mut joined = self.inner.node.borrow_mut();
        let joined = joined.get_or_insert_with(|| self.inner.join(node));
        assert_eq!(joined.id, node, "a transport belongs to one node");
    }

    fn detach(&self, group: GroupId) {
        let _inbox = self.inner.inboxes.borrow_mut().remove(&group);
    }
}

impl<R: Executor> fmt::Debug for SharedTransport<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTransport").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::task::{Wake, Waker};
    use std::thread;

    use futures::channel::mpsc::{UnboundedReceiver, unbounded};
    use quorate_core::{Body, Boot, Entry, LogId, Payload, Replica, StoreState, Term};
    use quorate_rt::Launch;
    use quorate_rt_tokio::Tokio;

    use super::*;

    const GROUP: GroupId = 7;

    fn message(from: NodeId, to: NodeId, sequence: u64) -> Message {
        in_term_one(from, to, Body::ReadIndex { sequence })
    }

    fn in_term_one(from: NodeId, to: NodeId, body: Body) -> Message {
        let (from, to) = (Replica::new(from, 1), Replica::new(to, 1));
        Message { group: GROUP, cluster: None, from, to, term: Term(1), body }
    }

    fn sequence(message: &Message) -> u64 {
        match message.body {
            Body::ReadIndex { sequence } => sequence,
            _ => panic!("only read indexes are sent here"),
        }
    }

    /// Attaches node `id`, whose messages come out of the channel.
    fn listen(transport: &SharedTransport<Tokio>, id: NodeId) -> UnboundedReceiver<Message> {
        let (sender, receiver) = unbounded();
        let inbox =
            Inbox::new(move |message| sender.unbounded_send(message).expect("a test's receiver"));
        let (boot, state) = (Boot::default(), StoreState::Member);
        let credentials = Credentials { replica: Replica::new(id, 1), boot, state, cluster: None };
        transport.attach(GROUP, credentials, inbox);
        receiver
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it takes real threads")]
    fn bursts_from_several_threads_arrive_whole_and_each_in_order() {
        const EACH: u64 = 10_000;
        let network = SharedNetwork::new();
        let (ready, is_ready) = mpsc::channel();
        let receiver = thread::spawn({
            let network = network.clone();
            move || {
                Tokio::run(&Launch::default(), async |rt| {
                    let transport = network.transport(&rt);
                    let mut messages = listen(&transport, 9);
                    ready.send(()).unwrap();
                    let mut next = BTreeMap::from([(1, 0), (2, 0), (3, 0)]);
                    while next.values().any(|next| *next < EACH) {
                        let message = messages.recv().await.unwrap();
                        assert_eq!(Some(&sequence(&message)), next.get(&message.from.id));
                        *next.get_mut(&message.from.id).unwrap() += 1;
                    }
                })
            }
        });
        is_ready.recv().unwrap();
        let senders = [1, 2, 3].map(|id| {
            let network = network.clone();
            thread::spawn(move || {
                Tokio::run(&Launch::default(), async |rt| {
                    let transport = network.transport(&rt);
                    (0..EACH).for_each(|sequence| {
                        transport.send(message(id, 9, sequence));
                    });
                })
            })
        });
        for thread in senders {
            thread.join().unwrap().unwrap();
        }
        receiver.join().unwrap().unwrap();
    }

    #[test]
    fn a_message_goes_to_its_group_and_a_restarted_node_gets_the_next_ones() {
        Tokio::run(&Launch::default(), async |rt| {
            let network = SharedNetwork::new();
            let one = network.transport(&rt);
            let first_life = network.transport(&rt);
            let mut got_first = listen(&first_life, 2);
            one.send(message(1, 2, 1));
            one.send(Message { group: GROUP + 1, ..message(1, 2, 2) });
            one.send(message(1, 2, 3));
            assert_eq!(sequence(&got_first.recv().await.unwrap()), 1);
            assert_eq!(sequence(&got_first.recv().await.unwrap()), 3);

            let second_life = network.transport(&rt);
            let mut got_second = listen(&second_life, 2);
            drop(first_life);
            one.send(message(1, 2, 4));
            assert_eq!(sequence(&got_second.recv().await.unwrap()), 4);

            drop(second_life);
            one.send(message(1, 2, 5));
            assert!(lock(&network.mailboxes).is_empty());
        })
        .unwrap();
    }

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_batch_wakes_its_receiver_once() {
        let mailbox = Mailbox::default();
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let context = Context::from_waker(&waker);
        let mut batch = Vec::new();
        for turn in 1..=3 {
            batch.clear();
            mailbox.poll_take(&mut batch, &context);
            (0..100).for_each(|sequence| {
                mailbox.post(message(1, 2, sequence));
            });
            assert_eq!(wakes.0.load(Ordering::SeqCst), turn);
        }
    }

    #[test]
    fn what_waits_for_a_node_that_stands_still_is_bounded_in_bytes() {
        const COMMAND_BYTES: usize = 1 << 20;
        let command = bytes::Bytes::from(vec![0; COMMAND_BYTES]);
        let entry =
            Entry { log_id: LogId::new(1, 1, 1), time: 0, payload: Payload::Command(command) };
        let body = Body::Append {
            prev: LogId::ZERO,
            committed: 0,
            round: 0,
            durable: 0,
            entries: vec![entry].into(),
        };
        let append = in_term_one(1, 2, body);
        let mailbox = Mailbox::default();
        let taken = (0..2 * MAX_WAITING_BYTES / COMMAND_BYTES)
            .filter(|_| matches!(mailbox.post(append.clone()), Posted::Taken))
            .count();
        assert_eq!(taken, MAX_WAITING_BYTES / append.bytes());
        assert!(matches!(mailbox.post(message(1, 2, 0)), Posted::Taken), "a small one still fits");

        let mut batch = Vec::new();
        mailbox.poll_take(&mut batch, &Context::from_waker(Waker::noop()));
        assert_eq!(batch.len(), taken + 1);
        assert!(matches!(mailbox.post(append), Posted::Taken), "there is room again");
    }
}
