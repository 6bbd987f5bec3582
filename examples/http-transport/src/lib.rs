//! Raft over HTTP: a transport of one's own, which posts messages to `/raft` of their peer, all
//! that wait in one request. The suite in `tests/` checks it against the contract of [`Transport`].
//!
//! Peers don't prove who they are: keep the port inside a network of your own. Nor do they tell
//! each other what they remember ([`Inbox::remembered`]): a restored backup goes unnoticed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::post;
use quorate::prelude::*;
use quorate::{Credentials, Executor, GroupId, Inbox, Message, MessageLimit, Replica, Transport};
use tokio::sync::mpsc;

use crate::peer::Peer;

mod peer;

/// The largest message.
const MAX_BYTES: usize = 64 << 20;

/// It lives on the node's thread, as all that implements `Transport`: cells are enough.
pub struct HttpTransport {
    rt: Tokio,
    client: reqwest::Client,
    inboxes: Rc<RefCell<BTreeMap<GroupId, Inbox>>>,
    places: RefCell<BTreeMap<GroupId, BTreeMap<Replica, String>>>,
    peers: RefCell<BTreeMap<String, Peer>>, // By address.
    dropped: Rc<Cell<u64>>,
    _delivers: Task,
}

type Task = <Tokio as Executor>::Task<()>; // It ends when it is dropped.

impl HttpTransport {
    /// A transport, and the route under which its peers reach it, for the service's router.
    pub fn new(rt: &Tokio) -> (Self, Router) {
        // Handlers may run on any thread, an inbox stays on its own: a channel connects them. Where
        // the node is slow, requests wait.
        let (sender, mut receiver) = mpsc::channel::<Vec<Message>>(1);
        let receive = async move |body: Bytes| {
            let messages = peer::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
            sender.send(messages).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
        };
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
            dropped: Rc::default(),
            _delivers: delivers,
        };
        let limit = DefaultBodyLimit::max(peer::MAX_BODY_BYTES);
        (transport, Router::new().route("/raft", post(receive)).layer(limit))
    }
}

impl Transport for HttpTransport {
    fn send(&self, message: Message) -> bool {
        let (places, peers) = (self.places.borrow(), self.peers.borrow());
        // Messages between nodes are of no group that has peers, so all groups are looked at. A
        // replica that is not listed is where its node is.
        let find = |replica| places.values().find_map(|places| places.get(&replica));
        let address = find(message.to).or_else(|| find(Replica::any(message.to.id)));
        let peer = address.and_then(|address| peers.get(address));
        let taken = peer.is_some_and(|peer| peer.send(&message));
        self.dropped.set(self.dropped.get() + u64::from(!taken));
        taken
    }

    fn dropped_messages(&self) -> u64 {
        self.dropped.get()
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
        places.retain(|_, listed| !listed.is_empty()); // None is kept of a group that has ended.
        let addresses: BTreeSet<&String> = places.values().flat_map(BTreeMap::values).collect();
        peers.retain(|address, _| addresses.contains(address));
        for address in addresses {
            let connect = || Peer::connect(&self.rt, &self.client, address, &self.dropped);
            peers.entry(address.clone()).or_insert_with(connect);
        }
    }

    fn detach(&self, group: GroupId) {
        self.set_peers(group, &BTreeMap::new());
        let _inbox = self.inboxes.borrow_mut().remove(&group);
    }
}
