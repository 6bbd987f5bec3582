//! A transport whose messages take their time, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use quorate::rt::{Instant, Task};
use quorate::{
    Credentials, Executor, GroupId, Inbox, LocalTransport, Message, NodeId, Obstacle, Replica,
    Transport,
};

pub(super) struct Delayed {
    inner: LocalTransport,
    /// Messages on their way, and when they arrive. None: they arrive at once.
    way: Option<mpsc::UnboundedSender<(Instant, Message)>>,
    arrives_at: Box<dyn Fn() -> Instant>,
}

impl Delayed {
    pub(super) fn new<R: Executor>(rt: &R, inner: LocalTransport, delay: Duration) -> Self {
        let clock = rt.clone();
        let arrives_at = Box::new(move || clock.now() + delay);
        if delay.is_zero() {
            return Self { inner, way: None, arrives_at };
        }
        let (way, mut messages) = mpsc::unbounded::<(Instant, Message)>();
        let (to, clock) = (inner.clone(), rt.clone());
        // It ends with the transport.
        rt.spawn(async move {
            while let Some((at, message)) = messages.next().await {
                let now = clock.now();
                if at > now {
                    clock.sleep(at - now).await;
                }
                to.send(message);
            }
        })
        .detach();
        Self { inner, way: Some(way), arrives_at }
    }
}

impl Transport for Delayed {
    fn send(&self, message: Message) -> bool {
        match &self.way {
            Some(way) => way.unbounded_send(((self.arrives_at)(), message)).is_ok(),
            None => self.inner.send(message),
        }
    }

    fn is_ready(&self, to: Replica) -> bool {
        self.inner.is_ready(to)
    }

    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        self.inner.attach(group, credentials, inbox);
    }

    fn set_credentials(&self, group: GroupId, credentials: Credentials) {
        self.inner.set_credentials(group, credentials);
    }

    fn set_peers(&self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        self.inner.set_peers(group, peers);
    }

    fn check_list(&self, me: NodeId, list: &BTreeMap<NodeId, String>) -> Result<(), String> {
        self.inner.check_list(me, list)
    }

    fn obstacle(&self, to: Replica) -> Obstacle {
        self.inner.obstacle(to)
    }

    fn detach(&self, group: GroupId) {
        self.inner.detach(group);
    }
}
