//! The transport itself, and the state that its tasks share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use quorate_core::codec::{Gather, put_message};
use quorate_core::{GroupId, Inbox, Message, NodeId, Transport};
use quorate_rt::{AsyncRuntime, Listener};

use crate::addresses::Addresses;
use crate::config::{Stats, TcpConfig, Timing};
use crate::handshake::Lane;
use crate::incoming::{self, Accepted};
use crate::outgoing::{self, Link};
use crate::wait::resolve;

/// A node's transport over TCP. A clone is the same transport, so that all groups of a node share its connections.
///
/// It stays on its thread. When the last clone is dropped, its listener and all its connections close, as soon as the
/// runtime gets to it; what was still to be written is lost.
pub struct TcpTransport<R: AsyncRuntime> {
    handle: Rc<Handle<R>>,
}

/// Ends the tasks, which hold the state themselves.
struct Handle<R: AsyncRuntime> {
    state: Rc<State<R>>,
}

/// Nothing that may run other code (an inbox, a task being dropped) is called while one of the cells is borrowed.
pub(crate) struct State<R: AsyncRuntime> {
    pub(crate) rt: R,
    pub(crate) config: TcpConfig,
    pub(crate) timing: Timing,
    pub(crate) advertise: String,
    pub(crate) node: Cell<Option<NodeId>>,
    pub(crate) inboxes: RefCell<BTreeMap<GroupId, Inbox>>,
    pub(crate) accepted: RefCell<Accepted<R>>,
    local_addr: SocketAddr,
    stats: RefCell<Stats>,
    addresses: RefCell<Addresses>,
    peers: RefCell<BTreeMap<(NodeId, Lane), Peer<R>>>,
    acceptor: RefCell<Acceptor<R>>,
    /// A message being encoded; kept for its allocation.
    body: RefCell<Gather>,
}

struct Peer<R: AsyncRuntime> {
    link: Rc<Link>,
    /// Connects and writes until it is dropped.
    _task: R::Task<()>,
}

enum Acceptor<R: AsyncRuntime> {
    /// Until the first `attach`, the kernel keeps who connects.
    Idle(R::Listener),
    Accepting {
        _task: R::Task<()>,
    },
    Closed,
}

impl<R: AsyncRuntime> TcpTransport<R> {
    /// Listens on `address` (`host:port`; port 0 takes a free one) with the default settings.
    ///
    /// Errors: those of [`bind_with`](Self::bind_with).
    pub async fn bind(rt: &R, address: &str) -> io::Result<Self> {
        Self::bind_with(rt, address, TcpConfig::default()).await
    }

    /// Listens on `address` (`host:port`; port 0 takes a free one). A name is resolved, and the first of its addresses that
    /// can be listened on is taken. Connections are accepted from the first [`attach`](Transport::attach) on.
    ///
    /// Errors: `InvalidInput` with the name of a setting that can't work; a name that can't be resolved; `AddrInUse`
    /// and the others of listening.
    pub async fn bind_with(rt: &R, address: &str, config: TcpConfig) -> io::Result<Self> {
        Self::bind_timed(rt, address, config, Timing::DEFAULT).await
    }

    pub(crate) async fn bind_timed(
        rt: &R,
        address: &str,
        config: TcpConfig,
        timing: Timing,
    ) -> io::Result<Self> {
        config.validate().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = listen(rt, address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("can't listen on {address}: {error}"))
        })?;
        let local_addr = listener.local_addr()?;
        let advertise = config.advertise.clone().unwrap_or_else(|| local_addr.to_string());
        let state = Rc::new(State {
            rt: rt.clone(),
            config,
            timing,
            advertise,
            node: Cell::new(None),
            inboxes: RefCell::default(),
            accepted: RefCell::default(),
            local_addr,
            stats: RefCell::default(),
            addresses: RefCell::default(),
            peers: RefCell::default(),
            acceptor: RefCell::new(Acceptor::Idle(listener)),
            body: RefCell::default(),
        });
        Ok(Self { handle: Rc::new(Handle { state }) })
    }

    /// The address it listens on, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.state.local_addr
    }

    /// What it has done so far.
    pub fn stats(&self) -> Stats {
        *self.handle.state.stats.borrow()
    }

    #[cfg(test)]
    pub(crate) fn outbox_bytes(&self, peer: NodeId, lane: Lane) -> usize {
        let peers = self.handle.state.peers.borrow();
        peers.get(&(peer, lane)).map_or(0, |peer| peer.link.bytes())
    }
}

async fn listen<R: AsyncRuntime>(rt: &R, address: &str) -> io::Result<R::Listener> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for on in resolve(rt, address).await? {
        match rt.listen(on).await {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl<R: AsyncRuntime> State<R> {
    pub(crate) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.borrow_mut());
    }

    /// Changes what is known of addresses. The connections to a peer that is now elsewhere, or nowhere, close; the next
    /// message to it opens another.
    pub(crate) fn change_addresses(&self, change: impl FnOnce(&mut Addresses)) {
        let gone: Vec<Peer<R>> = {
            let addresses = &mut *self.addresses.borrow_mut();
            change(addresses);
            let moved = |(id, _): &(NodeId, Lane), peer: &mut Peer<R>| {
                addresses.get(*id) != Some(peer.link.address.as_str())
            };
            self.peers.borrow_mut().extract_if(.., moved).map(|(_, peer)| peer).collect()
        };
        let lost: u64 = gone.iter().map(|peer| peer.link.clear()).sum();
        self.count(|stats| stats.dropped_out += lost);
        drop(gone);
    }

    /// The way to a peer, of which somebody takes care from now on; none if its address is unknown.
    fn link(self: &Rc<Self>, node: NodeId, peer: NodeId, lane: Lane) -> Option<Rc<Link>> {
        if let Some(peer) = self.peers.borrow().get(&(peer, lane)) {
            return Some(Rc::clone(&peer.link));
        }
        let address = self.addresses.borrow().get(peer)?.to_owned();
        let link = Rc::new(Link::new(peer, lane, address));
        let task = self.rt.spawn(outgoing::run(Rc::clone(self), Rc::clone(&link), node));
        self.peers.borrow_mut().insert((peer, lane), Peer { link: Rc::clone(&link), _task: task });
        Some(link)
    }

    /// Encodes a message into the outbox of its peer and lane. False: it is dropped.
    fn enqueue(self: &Rc<Self>, message: &Message) -> bool {
        let Some(node) = self.node.get() else { return false };
        assert_eq!(message.from, node, "a node sends in its own name");
        if message.to == node {
            return false;
        }
        let lane = Lane::of(&message.body);
        let Some(link) = self.link(node, message.to, lane) else { return false };
        if !link.has_room(self.config.max_outbox_bytes) {
            return false;
        }
        let body = &mut *self.body.borrow_mut();
        put_message(body, message);
        if body.len() > self.config.max_frame_bytes {
            tracing::error!(
                peer = message.to,
                bytes = body.len(),
                "a message is dropped, and will be each time: it is larger than max_frame_bytes"
            );
            body.take();
            return false;
        }
        link.push(body);
        true
    }
}

impl<R: AsyncRuntime> Drop for Handle<R> {
    fn drop(&mut self) {
        let state = &self.state;
        let _acceptor = state.acceptor.replace(Acceptor::Closed);
        incoming::close_all(&state.accepted);
        let _peers = state.peers.take();
        let _inboxes = state.inboxes.take();
    }
}

impl<R: AsyncRuntime> Transport for TcpTransport<R> {
    /// # Panics
    /// Where `message.from` is not the attached node.
    fn send(&self, message: Message) {
        let state = &self.handle.state;
        if !state.enqueue(&message) {
            state.count(|stats| stats.dropped_out += 1);
        }
    }

    /// # Panics
    /// Where another node is attached already: a transport is one node's.
    fn attach(&self, group: GroupId, node: NodeId, inbox: Inbox) {
        let state = &self.handle.state;
        let attached = state.node.get().unwrap_or(node);
        assert_eq!(attached, node, "a transport belongs to one node");
        state.node.set(Some(node));
        let _before = state.inboxes.borrow_mut().insert(group, inbox);
        match state.acceptor.replace(Acceptor::Closed) {
            Acceptor::Idle(listener) => {
                let task = state.rt.spawn(incoming::accept(Rc::clone(state), listener));
                state.acceptor.replace(Acceptor::Accepting { _task: task });
            }
            other => {
                state.acceptor.replace(other);
            }
        }
    }

    fn set_peers(&self, group: GroupId, peers: &BTreeMap<NodeId, String>) {
        self.handle.state.change_addresses(|addresses| addresses.set(group, peers));
    }

    /// With the last group, all connections close. The port stays until the transport is dropped.
    fn detach(&self, group: GroupId) {
        let state = &self.handle.state;
        let _inbox = state.inboxes.borrow_mut().remove(&group);
        state.change_addresses(|addresses| addresses.forget(group));
        if state.inboxes.borrow().is_empty() {
            incoming::close_all(&state.accepted);
        }
    }
}

impl<R: AsyncRuntime> Clone for TcpTransport<R> {
    fn clone(&self) -> Self {
        Self { handle: Rc::clone(&self.handle) }
    }
}

impl<R: AsyncRuntime> fmt::Debug for TcpTransport<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local_addr = self.handle.state.local_addr;
        f.debug_struct("TcpTransport").field("local_addr", &local_addr).finish_non_exhaustive()
    }
}
