//! Raft over HTTP: a transport of one's own, which posts each message to `/raft` of its peer, one
//! a request. The suite in `tests/` checks it against the contract of [`Transport`].
//!
//! Peers don't prove who they are: keep the port inside a network of your own. Nor do they tell
//! each other what they remember ([`Inbox::remembered`]): a restored backup goes unnoticed.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use quorate::codec::{Gather, decode_message, put_message};
use quorate::prelude::*;
use quorate::{Credentials, Executor, GroupId, Inbox, Message, MessageLimit, Replica, Transport};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// The largest message, and what may wait for one peer.
const MAX_BYTES: usize = 64 << 20;

/// It lives on the node's thread, as all that implements `Transport`: cells are enough.
pub struct HttpTransport {
    rt: Tokio,
    client: reqwest::Client,
    inboxes: Rc<RefCell<BTreeMap<GroupId, Inbox>>>,
    places: RefCell<BTreeMap<GroupId, BTreeMap<Replica, String>>>,
    peers: RefCell<BTreeMap<String, Peer>>, // By address.
    _delivers: Task,
}

struct Peer {
    queue: mpsc::UnboundedSender<(Message, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>, // In bytes.
    _posts: Task,
}

type Task = <Tokio as Executor>::Task<()>; // It ends when it is dropped.

impl HttpTransport {
    /// A transport, and the route under which its peers reach it, for the service's router.
    pub fn new(rt: &Tokio) -> (Self, Router) {
        // Handlers may run on any thread, an inbox stays on its own: a channel connects them. Where
        // the node is slow, requests wait.
        let (sender, mut receiver) = mpsc::channel::<Message>(1);
        let receive = async move |body: Bytes| {
            let message = decode_message(body).map_err(|_| StatusCode::BAD_REQUEST)?;
            sender.send(message).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
        };
        let inboxes = Rc::<RefCell<BTreeMap<GroupId, Inbox>>>::default();
        let of_groups = Rc::clone(&inboxes);
        let delivers = rt.spawn(async move {
            while let Some(message) = receiver.recv().await {
                let inbox = of_groups.borrow().get(&message.group).cloned();
                if let Some(inbox) = inbox {
                    inbox.deliver(message);
                }
            }
        });
        let transport = Self {
            rt: *rt,
            client: reqwest::Client::new(),
            inboxes,
            places: RefCell::default(),
            peers: RefCell::default(),
            _delivers: delivers,
        };
        let limit = DefaultBodyLimit::max(MAX_BYTES);
        (transport, Router::new().route("/raft", post(receive)).layer(limit))
    }

    /// Posts messages one after another, so that they arrive in their order. One that fails is not
    /// repeated: Raft repeats what matters.
    fn connect(&self, address: &str) -> Peer {
        let (queue, mut messages) = mpsc::unbounded_channel();
        let (client, url) = (self.client.clone(), format!("http://{address}/raft"));
        let posts = self.rt.spawn(async move {
            while let Some((message, _room)) = messages.recv().await {
                let mut body = Gather::new();
                put_message(&mut body, &message);
                let request = client.post(&url).body(body.take().concat());
                let _may_fail = request.timeout(Duration::from_secs(5)).send().await;
            }
        });
        Peer { queue, room: Arc::new(Semaphore::new(MAX_BYTES)), _posts: posts }
    }
}

impl Transport for HttpTransport {
    fn send(&self, message: Message) -> bool {
        let (places, peers) = (self.places.borrow(), self.peers.borrow());
        // Messages between nodes are of no group that has peers, so all groups are looked at. A
        // replica that is not listed is where its node is.
        let find = |replica| places.values().find_map(|places| places.get(&replica));
        let address = find(message.to).or_else(|| find(Replica::any(message.to.id)));
        let Some(peer) = address.and_then(|address| peers.get(address)) else { return false };
        let bytes = message.bytes().min(MAX_BYTES) as u32;
        let room = Arc::clone(&peer.room).try_acquire_many_owned(bytes);
        room.is_ok_and(|room| peer.queue.send((message, room)).is_ok())
    }

    fn message_limit(&self) -> Option<MessageLimit> {
        Some(MessageLimit { bytes: MAX_BYTES, setting: "MAX_BYTES" })
    }

    fn attach(&self, group: GroupId, _: Credentials, inbox: Inbox) {
        self.inboxes.borrow_mut().insert(group, inbox);
    }

    fn set_peers(&self, group: GroupId, listed: &BTreeMap<Replica, String>) {
        let (mut places, mut peers) = (self.places.borrow_mut(), self.peers.borrow_mut());
        places.insert(group, listed.clone());
        let addresses: BTreeSet<&String> = places.values().flat_map(BTreeMap::values).collect();
        peers.retain(|address, _| addresses.contains(address));
        for address in addresses {
            peers.entry(address.clone()).or_insert_with(|| self.connect(address));
        }
    }

    fn detach(&self, group: GroupId) {
        self.set_peers(group, &BTreeMap::new());
        let _inbox = self.inboxes.borrow_mut().remove(&group);
    }
}
