//! The network of nodes that share a thread: a send is a call of the receiver's inbox, which puts
//! the message into the receiver's queue. No system call, no timer, no task.
//!
//! Messages are routed by node id. Whichever replica of the node is attached gets them; the engine
//! drops what is for another one.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;

use quorate_core::{Credentials, GroupId, Inbox, Message, NodeId, Transport};

/// A network within a thread. Its links can be cut for tests. A clone is the same network.
#[derive(Clone, Default)]
pub struct LocalNetwork {
    hub: Rc<Hub>,
}

/// No inbox is called or dropped while a cell is borrowed: either may run code that comes back
/// here.
#[derive(Default)]
struct Hub {
    listening: RefCell<BTreeMap<(GroupId, NodeId), Listening>>,
    /// From whom to whom nothing goes.
    cut: RefCell<BTreeSet<(NodeId, NodeId)>>,
    isolated: RefCell<BTreeSet<NodeId>>,
    transports: Cell<u64>,
}

struct Listening {
    /// Which transport it is, so that a late end of a node's former life doesn't end its new one.
    transport: u64,
    inbox: Inbox,
}

impl LocalNetwork {
    /// A network without nodes, all of whose links work.
    pub fn new() -> Self {
        Self::default()
    }

    /// A transport for one node, of any number of groups.
    pub fn transport(&self) -> LocalTransport {
        let id = self.hub.transports.get() + 1;
        self.hub.transports.set(id);
        let inner = Inner { hub: Rc::clone(&self.hub), id, dropped: Cell::default() };
        LocalTransport { inner: Rc::new(inner) }
    }

    /// From now on, messages from `from` to `to` are lost; those in the other direction are not.
    pub fn disconnect(&self, from: NodeId, to: NodeId) {
        self.hub.cut.borrow_mut().insert((from, to));
    }

    /// From now on, messages from and to `node` are lost.
    pub fn isolate(&self, node: NodeId) {
        self.hub.isolated.borrow_mut().insert(node);
    }

    /// All links work again.
    pub fn heal(&self) {
        self.hub.cut.borrow_mut().clear();
        self.hub.isolated.borrow_mut().clear();
    }
}

impl fmt::Debug for LocalNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalNetwork").finish_non_exhaustive()
    }
}

impl Hub {
    fn connected(&self, from: NodeId, to: NodeId) -> bool {
        let isolated = self.isolated.borrow();
        // A node's messages to itself are a mistake of the sender, and no transport delivers them.
        from != to
            && !isolated.contains(&from)
            && !isolated.contains(&to)
            && !self.cut.borrow().contains(&(from, to))
    }
}

/// A node's place in a [`LocalNetwork`]. A clone is the same place; with the last one the node
/// leaves.
#[derive(Clone)]
pub struct LocalTransport {
    inner: Rc<Inner>,
}

struct Inner {
    hub: Rc<Hub>,
    id: u64,
    /// Messages for nodes that were not there.
    dropped: Cell<u64>,
}

impl Inner {
    /// Takes out what this transport listens for, in `group` or in all.
    fn leave(&self, group: Option<GroupId>) {
        let mut inboxes = Vec::new();
        self.hub.listening.borrow_mut().retain(|(of, _), listening| {
            let stays = listening.transport != self.id || group.is_some_and(|group| group != *of);
            if !stays {
                inboxes.push(listening.inbox.clone());
            }
            stays
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.leave(None);
    }
}

impl Transport for LocalTransport {
    fn send(&self, message: Message) -> bool {
        let hub = &self.inner.hub;
        let to = message.to.id;
        if !hub.connected(message.from.id, to) {
            return true; // It is lost on its way, which nobody knows.
        }
        let inbox = match hub.listening.borrow().get(&(message.group, to)) {
            Some(listening) => listening.inbox.clone(),
            None => {
                self.inner.dropped.set(self.inner.dropped.get() + 1);
                return false;
            }
        };
        inbox.deliver(message);
        true
    }

    fn dropped_messages(&self) -> u64 {
        self.inner.dropped.get()
    }

    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        let node = credentials.replica.id;
        let listening = Listening { transport: self.inner.id, inbox };
        let _before = self.inner.hub.listening.borrow_mut().insert((group, node), listening);
    }

    fn detach(&self, group: GroupId) {
        self.inner.leave(Some(group));
    }
}

impl fmt::Debug for LocalTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalTransport").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::{Body, Boot, Replica, StoreState, Term};

    use super::*;

    const GROUP: GroupId = 7;

    fn replica(id: NodeId) -> Replica {
        Replica::new(id, 10 + id)
    }

    fn credentials(id: NodeId) -> Credentials {
        let (boot, state) = (Boot::default(), StoreState::Member);
        Credentials { replica: replica(id), boot, state, cluster: None }
    }

    /// A node that keeps what it gets.
    struct Node {
        id: NodeId,
        transport: LocalTransport,
        got: Rc<RefCell<Vec<Message>>>,
    }

    impl Node {
        fn join(network: &LocalNetwork, id: NodeId) -> Self {
            let got = Rc::new(RefCell::new(Vec::new()));
            let transport = network.transport();
            let inbox = Rc::clone(&got);
            let inbox = Inbox::new(move |message| inbox.borrow_mut().push(message));
            transport.attach(GROUP, credentials(id), inbox);
            Self { id, transport, got }
        }

        fn send(&self, to: NodeId) {
            self.send_in(GROUP, to);
        }

        fn send_in(&self, group: GroupId, to: NodeId) {
            let (from, to) = (replica(self.id), replica(to));
            let body = Body::ReadIndex { sequence: 1 };
            self.transport.send(Message { group, cluster: None, from, to, term: Term(1), body });
        }

        /// From whom it got something since the last call.
        fn heard_from(&self) -> Vec<NodeId> {
            self.got.take().iter().map(|message| message.from.id).collect()
        }
    }

    #[test]
    fn a_message_reaches_the_node_of_its_group_and_nobody_else() {
        let network = LocalNetwork::new();
        let nodes = [1, 2, 3].map(|id| Node::join(&network, id));
        nodes[0].send(2);
        nodes[2].send(2);
        nodes[0].send_in(GROUP + 1, 2);
        nodes[0].send(9);
        nodes[0].send(1);
        assert_eq!(nodes[1].heard_from(), [1, 3]);
        assert!(nodes[0].heard_from().is_empty());
        assert!(nodes[2].heard_from().is_empty());
    }

    #[test]
    fn a_cut_link_loses_messages_one_way_until_it_is_healed() {
        let network = LocalNetwork::new();
        let [one, two] = [1, 2].map(|id| Node::join(&network, id));
        network.disconnect(1, 2);
        one.send(2);
        two.send(1);
        assert_eq!((one.heard_from(), two.heard_from()), (vec![2], Vec::<NodeId>::new()));
        network.heal();
        one.send(2);
        assert_eq!(two.heard_from(), [1]);
    }

    #[test]
    fn an_isolated_node_neither_hears_nor_is_heard() {
        let network = LocalNetwork::new();
        let [one, two, three] = [1, 2, 3].map(|id| Node::join(&network, id));
        network.isolate(1);
        one.send(2);
        two.send(1);
        two.send(3);
        assert!(one.heard_from().is_empty());
        assert!(two.heard_from().is_empty());
        assert_eq!(three.heard_from(), [2]);
        network.heal();
        two.send(1);
        assert_eq!(one.heard_from(), [2]);
    }

    #[test]
    fn a_restarted_node_is_not_ended_by_its_former_life() {
        let network = LocalNetwork::new();
        let [one, before] = [1, 2].map(|id| Node::join(&network, id));
        let after = Node::join(&network, 2);
        before.transport.detach(GROUP);
        drop(before);
        one.send(2);
        assert_eq!(after.heard_from(), [1]);
        drop(after.transport);
        one.send(2);
        assert!(after.got.borrow().is_empty(), "the last clone is gone, and so is the node");
    }

    #[test]
    fn a_detached_group_hears_nothing() {
        let network = LocalNetwork::new();
        let [one, two] = [1, 2].map(|id| Node::join(&network, id));
        two.transport.detach(GROUP + 1);
        one.send(2);
        two.transport.detach(GROUP);
        one.send(2);
        assert_eq!(two.heard_from(), [1]);
    }

    #[test]
    fn an_inbox_may_send_from_within() {
        let network = LocalNetwork::new();
        let one = Node::join(&network, 1);
        let echo = network.transport();
        let answers = network.transport();
        let inbox = Inbox::new(move |message| {
            answers.send(Message { from: message.to, to: message.from, ..message });
        });
        echo.attach(GROUP, credentials(2), inbox);
        one.send(2);
        assert_eq!(one.heard_from(), [2]);
    }
}
