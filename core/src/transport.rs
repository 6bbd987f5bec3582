//! The trait of a transport, which a user may implement: one method, [`Transport::send`], and one
//! call, [`Inbox::deliver`] (or [`Raft::deliver`](crate::Raft::deliver) from another thread).

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::identity::{Boot, ClusterId, Memory, Replica};
use crate::message::Message;
use crate::metrics::Obstacle;
use crate::types::{GroupId, NodeId};

/// Carries messages to other replicas. It may lose, delay, repeat or reorder them; it must not
/// change them.
///
/// All methods are called on the node's thread, most of them within a turn of the node: none of
/// them may wait. They may start tasks on the runtime.
pub trait Transport: 'static {
    /// Takes a message for the replica `message.to`. It never waits: what can't be taken now is
    /// dropped. It must not call [`Inbox::deliver`] of its own node before it returns.
    ///
    /// Returns whether the message was taken. After `false` it must never arrive: the node answers
    /// the writes of a forward that was not taken as refused. After `true` it may be lost all the
    /// same.
    fn send(&self, message: Message) -> bool;

    /// Returns whether a message with commands would be taken for this replica now, and go out
    /// without delay: a connection is open and not too much waits for it. The default is `true`.
    ///
    /// A follower asks before it passes on writes. As long as the answer is `false` it keeps them,
    /// and asks again in its next turn, and once in a heartbeat interval.
    fn is_ready(&self, to: Replica) -> bool {
        let _ = to;
        true
    }

    /// Returns the largest message that is carried. Without a limit, which is the default, it
    /// returns none. A node does not start if its [`Config`](crate::Config) allows messages that
    /// are larger.
    fn message_limit(&self) -> Option<MessageLimit> {
        None
    }

    /// Returns how many messages were dropped so far, those that [`send`](Self::send) has not taken
    /// and those that were lost later as far as this is known; see
    /// [`Metrics::dropped_messages`](crate::Metrics::dropped_messages). The default is 0.
    fn dropped_messages(&self) -> u64 {
        0
    }

    /// The node begins to listen: from now on, messages of `group` go to `inbox`. Called once for
    /// each group of a node, and before the first of them for [`NODE_GROUP`](crate::NODE_GROUP), of
    /// which the messages between nodes are. An inbox takes messages of the node's other groups as
    /// well, so a transport may keep one of a group only. One that calls
    /// [`Raft::deliver`](crate::Raft::deliver) by itself needs nothing here.
    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        let _ = (group, credentials, inbox);
    }

    /// What the node shows to others has changed: it was let into a cluster, or has formed one.
    fn set_credentials(&self, group: GroupId, credentials: Credentials) {
        let _ = (group, credentials);
    }

    /// Where the replicas of `group` are reached, each time this changes: those of this node, too.
    /// One that is not listed is reached where [its node](Replica::any) is. A transport that knows
    /// already needs nothing here.
    ///
    /// It is not called for [`NODE_GROUP`](crate::NODE_GROUP): for a message of that, look the
    /// replica up among those of all groups. A transport that loses these messages works, but its
    /// groups never rest.
    fn set_peers(&self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        let _ = (group, peers);
    }

    /// What hinders the exchange of messages with a replica of a node of the configuration or the
    /// list, as far as it is known. It is asked for while the node waits for others, at most once
    /// in a heartbeat interval for each.
    ///
    /// [`Obstacle::Unheard`] stands for a connection that is open, [`Obstacle::Silent`], which is
    /// the default, for no knowledge.
    fn obstacle(&self, to: Replica) -> Obstacle {
        let _ = to;
        Obstacle::Silent
    }

    /// The group has ended on this node: nothing goes to its inbox any more, and what runs on its
    /// behalf stops. With the last group, [`NODE_GROUP`](crate::NODE_GROUP) is detached, too.
    fn detach(&self, group: GroupId) {
        let _ = group;
    }

    /// Checks a list of nodes before anything is formed of it: whether its addresses can be ones,
    /// and whether the entry of node `me` is where this transport is reached.
    ///
    /// Errors: a sentence that says what is wrong. What may be right is only warned of.
    fn check_list(&self, me: NodeId, list: &BTreeMap<NodeId, String>) -> Result<(), String> {
        let _ = (me, list);
        Ok(())
    }
}

/// The largest message that a transport carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimit {
    /// Its size in bytes, as [`codec::put_message`](crate::codec::put_message) encodes it.
    pub bytes: usize,
    /// The name of the transport's setting, for who has to change it.
    pub setting: &'static str,
}

/// What a store has of a group, as others are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreState {
    /// No log and no promise.
    #[default]
    Empty,
    /// No log; it has accepted a claim.
    Claimed,
    /// No log; a member of a cluster has let it in.
    Admitted,
    /// A log or a snapshot.
    Member,
    /// It was removed from the group.
    Spent,
}

/// What a node shows to others: who it is, and by what it can prove to which cluster it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The node and its store.
    pub replica: Replica,
    /// This run of it.
    pub boot: Boot,
    /// What its store has.
    pub state: StoreState,
    /// The cluster that it belongs to, or whose claim it has accepted. It is a key, and not to be
    /// sent.
    pub cluster: Option<ClusterId>,
}

/// Where a transport brings what it has for a node. It stays on the node's thread; a clone is
/// cheap.
#[derive(Clone)]
pub struct Inbox(Rc<dyn Receiver>);

/// The node behind an [`Inbox`].
pub(crate) trait Receiver {
    fn deliver(&self, message: Message);
    fn recall(&self, replica: Replica) -> Pin<Box<dyn Future<Output = Option<Memory>>>>;
    fn remembered(&self, from: Replica, memory: Memory);
    fn met(&self, replica: Replica, boot: Boot);
    fn failed(&self, reason: String);
}

impl<F: Fn(Message)> Receiver for F {
    fn deliver(&self, message: Message) {
        self(message);
    }

    fn recall(&self, _: Replica) -> Pin<Box<dyn Future<Output = Option<Memory>>>> {
        Box::pin(async { None })
    }

    fn remembered(&self, _: Replica, _: Memory) {}

    fn met(&self, _: Replica, _: Boot) {}

    fn failed(&self, _: String) {}
}

/// What [`Inbox::with_memory`] makes.
struct Remembering<D, A, B, M> {
    deliver: D,
    recall: A,
    remembered: B,
    met: M,
}

impl<D, A, B, M> Receiver for Remembering<D, A, B, M>
where
    D: Fn(Message),
    A: Fn(Replica) -> Option<Memory>,
    B: Fn(Replica, Memory),
    M: Fn(Replica, Boot),
{
    fn deliver(&self, message: Message) {
        (self.deliver)(message);
    }

    fn recall(&self, replica: Replica) -> Pin<Box<dyn Future<Output = Option<Memory>>>> {
        let memory = (self.recall)(replica);
        Box::pin(async move { memory })
    }

    fn remembered(&self, from: Replica, memory: Memory) {
        (self.remembered)(from, memory);
    }

    fn met(&self, replica: Replica, boot: Boot) {
        (self.met)(replica, boot);
    }

    fn failed(&self, _: String) {}
}

/// An inbox at which somebody looks on.
struct Inspected<F> {
    look: F,
    inbox: Inbox,
}

impl<F: Fn(&Message)> Receiver for Inspected<F> {
    fn deliver(&self, message: Message) {
        (self.look)(&message);
        self.inbox.deliver(message);
    }

    fn recall(&self, replica: Replica) -> Pin<Box<dyn Future<Output = Option<Memory>>>> {
        self.inbox.0.recall(replica)
    }

    fn remembered(&self, from: Replica, memory: Memory) {
        self.inbox.remembered(from, memory);
    }

    fn met(&self, replica: Replica, boot: Boot) {
        self.inbox.met(replica, boot);
    }

    fn failed(&self, reason: String) {
        self.inbox.failed(reason);
    }
}

impl Inbox {
    /// Calls `deliver` for each message, and remembers nothing. (The node makes its own; a test of
    /// a transport may make these.)
    pub fn new(deliver: impl Fn(Message) + 'static) -> Self {
        Self(Rc::new(deliver))
    }

    /// Calls `deliver` for each message, `recall` for what is remembered of a replica, `remembered`
    /// for what others remember, and `met` for the boots in which others speak. A test of a
    /// transport that carries memories makes it.
    pub fn with_memory(
        deliver: impl Fn(Message) + 'static,
        recall: impl Fn(Replica) -> Option<Memory> + 'static,
        remembered: impl Fn(Replica, Memory) + 'static,
        met: impl Fn(Replica, Boot) + 'static,
    ) -> Self {
        Self(Rc::new(Remembering { deliver, recall, remembered, met }))
    }

    /// An inbox of the same node that shows each message to `look` before it delivers it. A
    /// transport that wraps another one hands it on in [`attach`](Transport::attach), to see what
    /// arrives.
    pub fn inspect(self, look: impl Fn(&Message) + 'static) -> Self {
        Self(Rc::new(Inspected { look, inbox: self }))
    }

    pub(crate) fn of(receiver: Rc<dyn Receiver>) -> Self {
        Self(receiver)
    }

    /// Hands a message to the node, which looks at it in its next turn. What is not meant for the
    /// node is ignored there.
    pub fn deliver(&self, message: Message) {
        self.0.deliver(message);
    }

    /// What the node remembers of a replica, to be told to that one before any message: see
    /// [`remembered`](Self::remembered).
    ///
    /// # Cancellation
    /// Nothing happens.
    pub fn recall(&self, replica: Replica) -> impl Future<Output = Option<Memory>> + use<> {
        self.0.recall(replica)
    }

    /// Another replica remembers this of the node. It is to come before the messages of that one. A
    /// node that has less stops: its store was put back to an earlier state.
    pub fn remembered(&self, from: Replica, memory: Memory) {
        self.0.remembered(from, memory);
    }

    /// Another replica has proven that it belongs to the same cluster. The messages that come from
    /// it after this call are of this boot. Without these calls a store goes unnoticed that was put
    /// back while the peers that remember more of it were away.
    pub fn met(&self, replica: Replica, boot: Boot) {
        self.0.met(replica, boot);
    }

    /// The transport can't go on, and the node ends with
    /// [`Fatal::Transport`](crate::Fatal::Transport). It is for what would leave the node cut off
    /// although it looks healthy; a peer that can't be reached is no reason.
    pub fn failed(&self, reason: String) {
        self.0.failed(reason);
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::task::{Context, Waker};

    use super::*;
    use crate::message::Body;
    use crate::types::{LogId, Term};

    /// A node that notes what it is told, and remembers one thing of everybody.
    #[derive(Default)]
    struct Node {
        delivered: Cell<usize>,
        told: RefCell<Vec<(Replica, Memory)>>,
        met: RefCell<Vec<(Replica, Boot)>>,
        failed: RefCell<Vec<String>>,
    }

    const BOOT: Boot = Boot { number: 3, tag: 9 };
    const MEMORY: Memory = Memory {
        term: Term(7),
        voted: Term(6),
        acknowledged: LogId::ZERO,
        committed: LogId::ZERO,
        boot: BOOT,
    };

    impl Receiver for Node {
        fn deliver(&self, _: Message) {
            self.delivered.set(self.delivered.get() + 1);
        }

        fn recall(&self, _: Replica) -> Pin<Box<dyn Future<Output = Option<Memory>>>> {
            Box::pin(async { Some(MEMORY) })
        }

        fn remembered(&self, from: Replica, memory: Memory) {
            self.told.borrow_mut().push((from, memory));
        }

        fn met(&self, replica: Replica, boot: Boot) {
            self.met.borrow_mut().push((replica, boot));
        }

        fn failed(&self, reason: String) {
            self.failed.borrow_mut().push(reason);
        }
    }

    fn recalled(inbox: &Inbox) -> Option<Memory> {
        let mut recall = Box::pin(inbox.recall(Replica::new(2, 1)));
        match recall.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            std::task::Poll::Ready(memory) => memory,
            std::task::Poll::Pending => panic!("nothing is to be waited for"),
        }
    }

    #[test]
    fn an_inspected_inbox_is_the_node_s_own_but_for_the_look() {
        let (node, seen) = (Rc::new(Node::default()), Rc::new(Cell::new(0)));
        let looks = Rc::clone(&seen);
        let inbox = Inbox::of(Rc::clone(&node) as Rc<dyn Receiver>);
        let inbox = inbox.inspect(move |_| looks.set(looks.get() + 1));
        let (from, to, body) =
            (Replica::new(2, 1), Replica::new(1, 1), Body::ReadIndex { sequence: 1 });
        inbox.deliver(Message { group: 0, cluster: None, from, to, term: Term(1), body });
        assert_eq!((seen.get(), node.delivered.get()), (1, 1));
        assert_eq!(recalled(&inbox), Some(MEMORY));
        inbox.remembered(from, MEMORY);
        assert_eq!(node.told.take(), [(from, MEMORY)]);
        inbox.met(from, BOOT);
        assert_eq!(node.met.take(), [(from, BOOT)]);
        inbox.failed("why".to_owned());
        assert_eq!(node.failed.take(), ["why"]);
    }

    #[test]
    fn an_inbox_that_a_test_made_remembers_nothing() {
        let inbox = Inbox::new(drop);
        assert_eq!(recalled(&inbox), None);
        inbox.remembered(Replica::new(2, 1), MEMORY);
        inbox.met(Replica::new(2, 1), BOOT);
        inbox.failed(String::new());
    }
}
