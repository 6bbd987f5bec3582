//! Raft over HTTP: a transport of one's own. Messages for a peer gather in a queue, and a task
//! posts them to `/raft` of that peer, batch after batch. The suite in `tests/` checks it against
//! the contract of [`Transport`].
//!
//! Two things that `TcpTransport` has are left out. Peers don't prove who they are, so whoever
//! reaches the port can speak as any node: keep it inside a network of your own. And peers don't
//! tell each other what they remember ([`Inbox::recall`] and [`Inbox::remembered`]), so a node
//! whose disk was put back to an earlier state is not noticed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::post;
use bytes::{Buf, Bytes};
use quorate::codec::{DecodeError, Gather, decode_message, put_message};
use quorate::rt::channel::Signal;
use quorate::{
    Credentials, Executor, GroupId, Inbox, Message, MessageLimit, Replica, Tokio, Transport,
};
use tokio::sync::mpsc;

const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// What waits for one peer. More is dropped: Raft repeats what matters.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// Of small messages, so many go in one request.
const BATCH_BYTES: usize = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);

/// It lives on the node's thread, as all that implements `Transport`: cells are enough.
pub struct HttpTransport {
    rt: Tokio,
    client: reqwest::Client,
    inboxes: Rc<RefCell<BTreeMap<GroupId, Inbox>>>,
    places: RefCell<BTreeMap<GroupId, BTreeMap<Replica, String>>>,
    /// By address. Dropping the handle of a task ends it.
    peers: RefCell<BTreeMap<String, (Rc<Queue>, Task)>>,
    dropped: Cell<u64>,
    _delivers: Task,
}

type Task = <Tokio as Executor>::Task<()>;

#[derive(Default)]
struct Queue {
    messages: RefCell<VecDeque<Message>>,
    bytes: Cell<usize>,
    filled: Signal,
}

impl HttpTransport {
    /// A transport, and the route under which its peers reach it, for the service's router.
    pub fn new(rt: &Tokio) -> (Self, Router) {
        // Handlers may run on any thread, an inbox stays on its own: a channel connects them. Where
        // the node is slow, requests wait.
        let (sender, mut receiver) = mpsc::channel::<Vec<Message>>(1);
        let inboxes = Rc::<RefCell<BTreeMap<GroupId, Inbox>>>::default();
        let of_groups = Rc::clone(&inboxes);
        let delivers = rt.spawn(async move {
            while let Some(messages) = receiver.recv().await {
                for message in messages {
                    let inbox = of_groups.borrow().get(&message.group).cloned();
                    if let Some(inbox) = inbox {
                        inbox.deliver(message);
                    }
                }
            }
        });
        let transport = Self {
            rt: *rt,
            client: reqwest::Client::new(),
            inboxes,
            places: RefCell::default(),
            peers: RefCell::default(),
            dropped: Cell::default(),
            _delivers: delivers,
        };
        let limit = DefaultBodyLimit::max(MAX_MESSAGE_BYTES + 4 + BATCH_BYTES);
        let route = Router::new().route("/raft", post(receive)).layer(limit).with_state(sender);
        (transport, route)
    }
}

/// Takes what a peer has posted.
async fn receive(
    State(node): State<mpsc::Sender<Vec<Message>>>,
    mut body: Bytes,
) -> Result<(), (StatusCode, String)> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let message = take_message(&mut body);
        messages.push(message.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?);
    }
    let ended = |_| (StatusCode::SERVICE_UNAVAILABLE, "the node has ended".to_owned());
    node.send(messages).await.map_err(ended)
}

fn take_message(body: &mut Bytes) -> Result<Message, DecodeError> {
    let short = |needs, has| DecodeError::Short { what: "a message", needs, has };
    let len = body.try_get_u32_le().map_err(|_| short(4, body.len()))? as usize;
    if len > body.len() {
        return Err(short(len, body.len()));
    }
    decode_message(body.split_to(len))
}

/// Posts what gathers, request after request, so that messages arrive in their order. A request
/// that fails is not repeated: nothing may arrive twice that must arrive once.
async fn post_all(client: reqwest::Client, address: String, queue: Rc<Queue>) {
    let url = format!("http://{address}/raft");
    loop {
        let mut batch = Gather::new();
        while batch.len() < BATCH_BYTES
            && let Some(message) = queue.messages.borrow_mut().pop_front()
        {
            queue.bytes.set(queue.bytes.get() - message.bytes());
            let (length, begin) = (batch.reserve_u32(), batch.len());
            put_message(&mut batch, &message);
            let bytes = batch.len() - begin;
            batch.fill(length, bytes as u32);
        }
        if batch.is_empty() {
            queue.filled.wait().await;
            continue;
        }
        let request = client.post(&url).timeout(TIMEOUT).body(batch.take().concat());
        let _lost_where_it_fails = request.send().await;
    }
}

impl Transport for HttpTransport {
    fn send(&self, message: Message) -> bool {
        let (places, peers) = (self.places.borrow(), self.peers.borrow());
        // Messages between nodes are of no group that has peers, so all groups are looked at. A
        // replica that is not listed is where its node is.
        let find = |replica| places.values().find_map(|places| places.get(&replica));
        let address = find(message.to).or_else(|| find(Replica::any(message.to.id)));
        let queue = address.and_then(|address| peers.get(address)).map(|(queue, _)| queue);
        let bytes = message.bytes();
        let has_room = |queue: &&Rc<Queue>| {
            let waiting = queue.bytes.get();
            waiting == 0 || waiting + bytes <= MAX_WAITING_BYTES
        };
        let Some(queue) = queue.filter(has_room) else {
            self.dropped.set(self.dropped.get() + 1);
            return false;
        };
        queue.bytes.set(queue.bytes.get() + bytes);
        queue.messages.borrow_mut().push_back(message);
        queue.filled.raise();
        true
    }

    fn message_limit(&self) -> Option<MessageLimit> {
        Some(MessageLimit { bytes: MAX_MESSAGE_BYTES, setting: "MAX_MESSAGE_BYTES" })
    }

    fn dropped_messages(&self) -> u64 {
        self.dropped.get()
    }

    fn attach(&self, group: GroupId, _: Credentials, inbox: Inbox) {
        self.inboxes.borrow_mut().insert(group, inbox);
    }

    fn set_peers(&self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        self.places.borrow_mut().insert(group, peers.clone());
        self.connect();
    }

    fn detach(&self, group: GroupId) {
        self.places.borrow_mut().remove(&group);
        let _inbox = self.inboxes.borrow_mut().remove(&group);
        self.connect();
    }
}

impl HttpTransport {
    /// A queue and a task for each address that any group names, and for no other.
    fn connect(&self) {
        let (places, mut peers) = (self.places.borrow(), self.peers.borrow_mut());
        let addresses = || places.values().flat_map(BTreeMap::values);
        peers.retain(|address, _| addresses().any(|named| named == address));
        for address in addresses() {
            peers.entry(address.clone()).or_insert_with(|| {
                let queue = Rc::<Queue>::default();
                let posts = post_all(self.client.clone(), address.clone(), Rc::clone(&queue));
                (queue, self.rt.spawn(posts))
            });
        }
    }
}
