//! The transport itself, and the state that its tasks share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;

use quorate_core::codec::{Gather, put_message};
use quorate_core::{
    Body, Credentials, GroupId, Inbox, MAX_NODES, Message, MessageLimit, NodeId, Obstacle, Replica,
    StoreState, Transport,
};
use quorate_rt::channel::Signal;
use quorate_rt::{Listener, Network};

use crate::addresses::Addresses;
use crate::budget::Budget;
use crate::config::{Stats, TcpConfig, Timing};
use crate::handshake::{Lane, Nonce, is_formation};
use crate::incoming::{self, Accepted};
use crate::lines::Lines;
use crate::list;
use crate::marks;
use crate::outbox::Link;
use crate::sessions::{Session, Sessions, Way};
use crate::wait::resolve;
use crate::watch;

/// A node's transport over TCP. A clone is the same transport, so that all groups of a node share
/// its connections.
///
/// It stays on its thread. When the last clone is dropped, its listener and all its connections
/// close, as soon as the runtime gets to it; what was still to be written is lost.
pub struct TcpTransport<R: Network> {
    handle: Rc<Handle<R>>,
}

/// Ends the tasks, which hold the state themselves.
struct Handle<R: Network> {
    state: Rc<State<R>>,
}

/// Nothing that may run other code (an inbox, a task being dropped) is called while one of the
/// cells is borrowed.
pub(crate) struct State<R: Network> {
    pub(crate) rt: R,
    pub(crate) config: TcpConfig,
    pub(crate) timing: Timing,
    pub(crate) advertise: String,
    /// What the node shows to others: what its groups have in common. None while there are no
    /// groups.
    pub(crate) own: Cell<Option<Credentials>>,
    pub(crate) accepted: RefCell<Accepted<R>>,
    pub(crate) sessions: Sessions,
    /// The memory for frames that are arriving.
    pub(crate) arriving: Rc<Budget>,
    /// Raised when there is something to sweep.
    pub(crate) sweeps: Signal,
    pub(crate) lines: Lines,
    groups: RefCell<BTreeMap<GroupId, (Credentials, Inbox)>>,
    /// The number of the next connection.
    next_id: Cell<u64>,
    local_addr: SocketAddr,
    stats: RefCell<Stats>,
    pub(crate) addresses: RefCell<Addresses>,
    peers: RefCell<BTreeMap<(Replica, Lane), Peer<R>>>,
    acceptor: RefCell<Acceptor<R>>,
    /// A message being encoded; kept for its allocation.
    body: RefCell<Gather>,
}

struct Peer<R: Network> {
    link: Rc<Link>,
    /// The order in which they were made.
    number: u64,
    /// Connects and writes until it is dropped.
    _task: R::Task<()>,
}

enum Acceptor<R: Network> {
    /// Until the first `attach`, the kernel keeps who connects.
    Idle(R::Listener),
    Accepting {
        _task: R::Task<()>,
        _sweep: R::Task<()>,
    },
    Closed,
}

impl<R: Network> TcpTransport<R> {
    /// Listens on `address` (`host:port`; port 0 takes a free one) with the default settings.
    ///
    /// Errors: those of [`bind_with`](Self::bind_with).
    pub async fn bind(rt: &R, address: &str) -> io::Result<Self> {
        Self::bind_with(rt, address, TcpConfig::default()).await
    }

    /// Listens on `address` (`host:port`; port 0 takes a free one). A name is resolved, and the
    /// first of its addresses that can be listened on is taken. Connections are accepted from the
    /// first [`attach`](Transport::attach) on.
    ///
    /// Errors: `InvalidInput` with the name of a setting that can't work; a name that can't be
    /// resolved; `AddrInUse` and the others of listening.
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
        let listener = listen(rt, &timing, address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("can't listen on {address}: {error}"))
        })?;
        let local_addr = listener.local_addr()?;
        let advertise = config.advertise.clone().unwrap_or_else(|| local_addr.to_string());
        let arriving = Budget::new(config.max_arriving_bytes);
        let state = Rc::new(State {
            rt: rt.clone(),
            config,
            timing,
            advertise,
            own: Cell::new(None),
            accepted: RefCell::default(),
            sessions: Sessions::default(),
            arriving,
            sweeps: Signal::default(),
            lines: Lines::default(),
            groups: RefCell::default(),
            next_id: Cell::new(0),
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
    pub(crate) fn state(&self) -> &Rc<State<R>> {
        &self.handle.state
    }

    /// To how many replicas and lanes there are ways.
    #[cfg(test)]
    pub(crate) fn ways(&self) -> usize {
        self.handle.state.peers.borrow().len()
    }

    #[cfg(test)]
    pub(crate) fn outbox_bytes(&self, peer: Replica, lane: Lane) -> usize {
        let peers = self.handle.state.peers.borrow();
        peers.get(&(peer, lane)).map_or(0, |peer| peer.link.bytes())
    }
}

async fn listen<R: Network>(rt: &R, timing: &Timing, address: &str) -> io::Result<R::Listener> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for on in resolve(rt, timing, address).await? {
        match rt.listen(on).await {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

impl<R: Network> State<R> {
    pub(crate) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.borrow_mut());
    }

    pub(crate) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    pub(crate) fn nonce(&self) -> Nonce {
        let random = [self.rt.random(), self.rt.random()].map(u64::to_le_bytes);
        let mut nonce = Nonce::default();
        nonce.copy_from_slice(random.as_flattened());
        nonce
    }

    pub(crate) fn inbox(&self, group: GroupId) -> Option<Inbox> {
        self.groups.borrow().get(&group).map(|(_, inbox)| inbox.clone())
    }

    pub(crate) fn groups(&self) -> Vec<(GroupId, Inbox)> {
        let groups = self.groups.borrow();
        groups.iter().map(|(group, (_, inbox))| (*group, inbox.clone())).collect()
    }

    /// Whether the result of a handshake, in which this node has shown `shown`, is what it would be
    /// now.
    pub(crate) fn still_holds(&self, shown: &Credentials, proven: bool) -> bool {
        self.own.get().is_some_and(|own| {
            let same =
                (own.replica, own.boot, own.cluster) == (shown.replica, shown.boot, shown.cluster);
            same && (proven || own.state == shown.state)
        })
    }

    /// The groups have changed, and with them what the node shows to others. Connections on which
    /// something else would be proven now are closed; the next message shakes hands anew.
    ///
    /// A group that has come or has more than before leaves the others out: a node may have many.
    fn refresh(&self, risen: Option<Credentials>) {
        let before = self.own.get();
        let own = match risen {
            Some(risen) => before.into_iter().chain([risen]).max_by_key(rank),
            None => self.groups.borrow().values().map(|(own, _)| *own).max_by_key(rank),
        };
        self.own.set(own);
        if let Some(before) = before
            && own.is_some()
            && own != Some(before)
        {
            let ended = self.sessions.take(|session| !self.still_holds(&before, session.proven));
            self.close(ended);
        }
    }

    /// A handshake has succeeded: whatever connection this one replaces is closed. It counts as
    /// open until what is returned is dropped.
    pub(crate) fn begin_session(self: &Rc<Self>, id: u64, session: &Rc<Session>) -> Open<R> {
        let replaced = self.sessions.begin(id, session);
        let open = Open { state: Rc::clone(self), id };
        self.close(replaced);
        if session.proven {
            self.groups().iter().for_each(|(_, inbox)| inbox.met(session.peer, session.boot));
        }
        open
    }

    /// Closes connections that have been taken out of the open ones. An outgoing one does so by
    /// itself.
    fn close(&self, sessions: Vec<(u64, Rc<Session>)>) {
        for (id, session) in sessions {
            if session.way != Way::Out {
                self.close_accepted(id);
            }
        }
    }

    /// Changes what is known of addresses. The connections to a peer that is now elsewhere, or
    /// nowhere, close; the next message to it opens another.
    pub(crate) fn change_addresses(&self, change: impl FnOnce(&mut Addresses)) {
        let gone: Vec<Peer<R>> = {
            let addresses = &mut *self.addresses.borrow_mut();
            change(addresses);
            let moved = |(replica, _): &(Replica, Lane), peer: &mut Peer<R>| {
                addresses.get(*replica).as_ref() != Some(&peer.link.address)
            };
            self.peers.borrow_mut().extract_if(.., moved).map(|(_, peer)| peer).collect()
        };
        let lost: u64 = gone.iter().map(|peer| peer.link.clear()).sum();
        self.count(|stats| stats.dropped_out += lost);
        drop(gone);
    }

    /// Whether a node is in the configuration or a list of a group.
    pub(crate) fn is_listed(&self, replica: Replica) -> bool {
        self.addresses.borrow().get(replica).is_some_and(|address| address.is_configured)
    }

    /// The way to a peer, of which somebody takes care from now on; none if its address is unknown.
    fn link(self: &Rc<Self>, to: Replica, lane: Lane) -> Option<Rc<Link>> {
        if let Some(peer) = self.peers.borrow().get(&(to, lane)) {
            return Some(Rc::clone(&peer.link));
        }
        let address = self.addresses.borrow().get(to)?;
        self.make_room(to);
        let link = Rc::new(Link::new(to, lane, address));
        let task = self.rt.spawn(watch::peer(Rc::clone(self), Rc::clone(&link)));
        let peer = Peer { link: Rc::clone(&link), number: self.next_id(), _task: task };
        self.peers.borrow_mut().insert((to, lane), peer);
        Some(link)
    }

    /// Gives the oldest way up to a replica that no group names, if another would be one too many;
    /// where it can, one that leads nowhere.
    fn make_room(&self, to: Replica) {
        let oldest = {
            let (addresses, peers) = (self.addresses.borrow(), &mut *self.peers.borrow_mut());
            let unnamed = peers.iter().filter(|((replica, _), _)| !addresses.names(*replica));
            if addresses.names(to) || unnamed.clone().count() < MAX_UNNAMED {
                return;
            }
            let oldest = unnamed.min_by_key(|(_, peer)| (peer.link.is_connected(), peer.number));
            let oldest = oldest.map(|(key, _)| *key);
            oldest.and_then(|key| peers.remove(&key))
        };
        let Some(oldest) = oldest else { return };
        let lost = oldest.link.clear();
        self.count(|stats| stats.dropped_out += lost);
        // Dropped here, where nothing is borrowed.
    }

    /// Where the others reach this node: as they know it from the configuration or the list, if
    /// that is known here.
    fn own_address(&self) -> String {
        let own = self.own.get().map(|own| own.replica);
        let configured = own.and_then(|own| self.addresses.borrow().get(own));
        configured.map_or_else(|| self.advertise.clone(), |address| address.at)
    }

    /// Encodes a message into the outbox of its peer and lane. False: it is dropped.
    fn enqueue(self: &Rc<Self>, message: &Message) -> bool {
        let Some(own) = self.own.get() else { return false };
        let Message { from, to, ref body, .. } = *message;
        assert_eq!(from, own.replica, "a node sends in its own name");
        if to.id == from.id {
            return false; // Where this node was on its lost disk, it is itself now.
        }
        let Some(link) = self.link(to, Lane::of(body)) else { return false };
        // Of the cluster's id, only these tell those who don't know it. They go where this node was
        // told that a member is, and never to who has only said so.
        let tells = matches!(body, Body::Claim(_) | Body::Admit { .. });
        if tells && !link.address.is_configured {
            return false;
        }
        let is_formation = is_formation(body) && message.cluster.is_none();
        let max_bytes = match has_content(body) {
            true => self.config.max_outbox_bytes,
            false => self.config.max_outbox_bytes + WORD_BYTES,
        };
        if !link.takes(is_formation, max_bytes) {
            return false;
        }
        let encoded = &mut *self.body.borrow_mut();
        put_message(encoded, message);
        if encoded.len() > self.config.max_frame_bytes {
            tracing::error!(
                peer = %to,
                bytes = encoded.len(),
                "a message is dropped, and will be each time: it is larger than max_frame_bytes"
            );
            encoded.take();
            return false;
        }
        link.push(encoded, is_formation);
        true
    }
}

/// What waits for one peer of messages without content, in bytes beyond the limit of all others:
/// some hundred. A heartbeat, a vote or an answer must not be dropped because a large entry fills
/// the outbox: the outcome of forwarded writes would be unknown, or a leader thought dead.
const WORD_BYTES: usize = 64 << 10;

/// To how many replicas there are ways that no group names. They are answered where they say that
/// they are, or where their node is listed: new stores of members, nodes while a cluster is formed,
/// and whatever strangers make up. More than there are [learned addresses](Addresses::learn), so
/// that connections to strangers leave room.
const MAX_UNNAMED: usize = 2 * MAX_NODES;

/// Whether a message carries commands, entries or a chunk of a snapshot.
fn has_content(body: &Body) -> bool {
    match body {
        Body::Append { entries, .. } => !entries.is_empty(),
        Body::Snapshot { chunk, .. } => !chunk.is_empty(),
        Body::Forward { .. } => true,
        _ => false,
    }
}

/// Orders what groups show: the node shows to others what the group does that has most.
fn rank(own: &Credentials) -> (bool, u8) {
    let state = match own.state {
        StoreState::Empty => 0,
        StoreState::Claimed => 1,
        // Its word is a member's, and an attempt to form another group may be in vain.
        StoreState::Admitted => 2,
        StoreState::Spent => 3,
        StoreState::Member => 4,
    };
    (own.cluster.is_some(), state)
}

/// A connection that counts as open until this is dropped.
pub(crate) struct Open<R: Network> {
    state: Rc<State<R>>,
    id: u64,
}

impl<R: Network> Drop for Open<R> {
    fn drop(&mut self) {
        self.state.sessions.end(self.id);
    }
}

impl<R: Network> Drop for Handle<R> {
    fn drop(&mut self) {
        let state = &self.state;
        let _acceptor = state.acceptor.replace(Acceptor::Closed);
        incoming::close_all(&state.accepted);
        let _peers = state.peers.take();
        let _groups = state.groups.take();
    }
}

impl<R: Network> Transport for TcpTransport<R> {
    /// # Panics
    /// Where `message.from` is not the attached replica.
    fn send(&self, message: Message) -> bool {
        let state = &self.handle.state;
        let taken = state.enqueue(&message);
        if !taken {
            state.count(|stats| stats.dropped_out += 1);
        }
        taken
    }

    fn is_ready(&self, to: Replica) -> bool {
        let state = &self.handle.state;
        let Some(link) = state.link(to, Lane::Main) else { return false };
        link.set_wanted(true); // Whoever asks has something to send once it is.
        link.is_ready(state.config.max_outbox_bytes)
    }

    fn message_limit(&self) -> Option<MessageLimit> {
        let bytes = self.handle.state.config.max_frame_bytes;
        Some(MessageLimit { bytes, setting: "TcpConfig::max_frame_bytes" })
    }

    fn dropped_messages(&self) -> u64 {
        self.handle.state.stats.borrow().dropped_out
    }

    /// # Panics
    /// Where another replica is attached already: a transport is one node's.
    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        let state = &self.handle.state;
        let attached = state.own.get().map_or(credentials.replica, |own| own.replica);
        assert_eq!(attached, credentials.replica, "a transport belongs to one node");
        state.sessions.proven().into_iter().for_each(|(peer, boot)| inbox.met(peer, boot));
        let before = state.groups.borrow_mut().insert(group, (credentials, inbox));
        state.refresh(before.is_none().then_some(credentials));
        match state.acceptor.replace(Acceptor::Closed) {
            Acceptor::Idle(listener) => {
                let accept = incoming::accept(Rc::clone(state), listener);
                let accept = watch::or_fail(Rc::clone(state), "accepts connections", accept);
                let sweep = marks::sweep(Rc::clone(state));
                let sweep = watch::or_fail(Rc::clone(state), "looks after connections", sweep);
                let (task, sweep) = (state.rt.spawn(accept), state.rt.spawn(sweep));
                state.acceptor.replace(Acceptor::Accepting { _task: task, _sweep: sweep });
            }
            other => {
                state.acceptor.replace(other);
            }
        }
    }

    fn set_credentials(&self, group: GroupId, credentials: Credentials) {
        let state = &self.handle.state;
        let mut groups = state.groups.borrow_mut();
        let Some((own, _)) = groups.get_mut(&group) else { return };
        let before = mem::replace(own, credentials);
        drop(groups);
        state.refresh((rank(&before) <= rank(&credentials)).then_some(credentials));
    }

    /// It connects to the replicas among them that are known, and stays connected.
    fn set_peers(&self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        let state = &self.handle.state;
        state.change_addresses(|addresses| addresses.set(group, peers));
        let own = state.own.get().map(|own| own.replica.id);
        let members = peers.keys().filter(|peer| peer.is_known() && Some(peer.id) != own);
        let links = members.filter_map(|member| state.link(*member, Lane::Main));
        links.for_each(|link| link.set_wanted(true));
    }

    /// What came of the last attempt to connect; otherwise why that peer was refused when it has
    /// dialled last; otherwise whether the connection is open.
    fn obstacle(&self, to: Replica) -> Obstacle {
        let state = &self.handle.state;
        let link = state.peers.borrow().get(&(to, Lane::Main)).map(|peer| Rc::clone(&peer.link));
        let trouble = link.as_ref().and_then(|link| link.trouble());
        let refusal = || state.accepted.borrow().obstacle(to);
        let connected = || {
            link.as_ref().filter(|link| link.is_connected())?;
            Some(Obstacle::Unheard { address: state.own_address() })
        };
        trouble.or_else(refusal).or_else(connected).unwrap_or(Obstacle::Silent)
    }

    /// With the last group, all connections close. The port stays until the transport is dropped.
    fn detach(&self, group: GroupId) {
        let state = &self.handle.state;
        let _group = state.groups.borrow_mut().remove(&group);
        state.refresh(None);
        state.change_addresses(|addresses| addresses.forget(group));
        if state.own.get().is_none() {
            let _ended = state.sessions.take(|_| true);
            incoming::close_all(&state.accepted);
        }
    }

    /// Each address must be `host:port`, with an IPv6 address in brackets, and the entry of node
    /// `me` where this transport listens or what it [advertises](TcpConfig::advertise). A host is
    /// compared only if it is an IP address.
    fn check_list(&self, me: NodeId, list: &BTreeMap<NodeId, String>) -> Result<(), String> {
        let State { local_addr, config, .. } = &*self.handle.state;
        if let Some(doubt) = list::check(me, list, *local_addr, config.advertise.as_deref())? {
            tracing::warn!(node = me, "the address of this node may be wrong: {doubt}");
        }
        Ok(())
    }
}

impl<R: Network> Clone for TcpTransport<R> {
    fn clone(&self) -> Self {
        Self { handle: Rc::clone(&self.handle) }
    }
}

impl<R: Network> fmt::Debug for TcpTransport<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local_addr = self.handle.state.local_addr;
        f.debug_struct("TcpTransport").field("local_addr", &local_addr).finish_non_exhaustive()
    }
}
