//! The trait of a transport, which a user may implement: one method, [`Transport::send`], and one call,
//! [`Inbox::deliver`] (or [`Raft::deliver`](crate::Raft::deliver) from another thread).

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::message::Message;
use crate::types::{GroupId, NodeId};

/// Carries messages to other nodes. It may lose, delay, repeat or reorder them; it must not change them.
pub trait Transport: 'static {
    /// Takes a message for the node `message.to`. It never waits: what can't be taken now is dropped. It must not
    /// call [`Inbox::deliver`] of its own node before it returns.
    fn send(&self, message: Message);

    /// The node begins to listen: from now on, messages to `node` of `group` go to `inbox`. Called once for each node that
    /// uses this transport. One that calls [`Raft::deliver`](crate::Raft::deliver) by itself needs nothing here.
    fn attach(&self, group: GroupId, node: NodeId, inbox: Inbox) {
        let _ = (group, node, inbox);
    }

    /// Where the nodes of `group` are reached, each time this changes. A transport that knows already needs nothing here.
    fn set_peers(&self, group: GroupId, peers: &BTreeMap<NodeId, String>) {
        let _ = (group, peers);
    }

    /// The node has ended: nothing goes to the inbox any more, and what runs on its behalf stops.
    fn detach(&self, group: GroupId) {
        let _ = group;
    }
}

/// Where a transport brings the messages for a node. It stays on the node's thread; a clone is cheap.
#[derive(Clone)]
pub struct Inbox(Rc<dyn Fn(Message)>);

impl Inbox {
    /// Calls `deliver` for each message. (The node makes these; a test of a transport may, too.)
    pub fn new(deliver: impl Fn(Message) + 'static) -> Self {
        Self(Rc::new(deliver))
    }

    /// Hands a message to the node, which looks at it in its next turn. What is not meant for the node is ignored there.
    pub fn deliver(&self, message: Message) {
        (self.0)(message);
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}
