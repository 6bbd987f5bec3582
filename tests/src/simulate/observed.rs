//! The store and the transport of a node, with somebody who looks on. They do what they do: nothing
//! is changed, and nothing delayed but the end of a snapshot, where an epilogue wants that. What a
//! node sends whose disk was put back is lost, unless it goes to who remembers what that has
//! forgotten (`faults/put_backs.rs`); what was sent once may come again, much later
//! (`faults/late.rs`); and a filter may lose single messages, or hold them back, where a situation
//! is brought about on purpose. A transport may do all of that.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use async_trait::async_trait;
use bytes::Bytes;
use quorate::sim::Sim;
use quorate::{
    Appended, Completes, Completion, Credentials, Entries, GroupId, Identity, Inbox, Index,
    LogStore, LogWrite, Message, MessageLimit, NodeId, Obstacle, Recovered, Replica,
    SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError, Transport,
};

use super::observer::{Observer, now};

/// The group that is looked at. What other groups and the nodes themselves say passes as it is.
const WATCHED: GroupId = 0;

pub struct Observed<T> {
    pub inner: T,
    pub node: NodeId,
    /// Which of the node's lives this is of.
    pub life: u32,
    pub observer: Rc<Observer>,
    pub rt: Sim,
}

impl<S: LogStore> LogStore for Observed<S> {
    async fn identify(&self, node: NodeId) -> Result<Identity, StoreError> {
        let identity = self.inner.identify(node).await?;
        self.observer.identified(node, &identity);
        Ok(identity)
    }

    async fn settle(&self) {
        self.inner.settle().await;
    }

    fn cluster(&self) -> Option<quorate::ClusterId> {
        self.inner.cluster()
    }

    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        let recovered = self.inner.recover(group).await?;
        if group == WATCHED {
            self.observer.recovered(self.node, self.life, &recovered);
        }
        Ok(recovered)
    }

    fn release(&self, group: GroupId) {
        self.inner.release(group);
    }

    async fn remove(&self, group: GroupId) -> Result<(), StoreError> {
        self.inner.remove(group).await
    }

    fn append(&self, group: GroupId, write: LogWrite, done: Completion) -> Appended {
        if group != WATCHED {
            return self.inner.append(group, write, done);
        }
        let number = self.observer.submits(self.node, &write);
        let (observer, node) = (Rc::clone(&self.observer), self.node);
        let watched = Rc::new(Watched { observer, node, done: Cell::new(Some(done)) });
        let target: Rc<Watched> = Rc::clone(&watched);
        match self.inner.append(group, write, Completion::to(target, number)) {
            Appended::Pending => Appended::Pending,
            durable => match watched.done.take() {
                Some(done) => {
                    watched.observer.durable(self.node, number);
                    done.durable()
                }
                None => durable,
            },
        }
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Entries, StoreError> {
        self.inner.read(group, range, max_bytes).await
    }

    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        let inner = self.inner.draft(group).await?;
        if group != WATCHED {
            return Ok(inner);
        }
        let (node, observer, rt) = (self.node, Rc::clone(&self.observer), self.rt.clone());
        Ok(Box::new(ObservedDraft { inner, node, observer, rt }))
    }

    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        self.inner.snapshot(group, meta).await
    }
}

/// A write that was submitted, of which the observer hears first.
struct Watched {
    observer: Rc<Observer>,
    node: NodeId,
    done: Cell<Option<Completion>>,
}

impl Completes for Watched {
    fn completed(&self, number: u64, outcome: Result<(), StoreError>) {
        if outcome.is_ok() {
            self.observer.durable(self.node, number);
        }
        if let Some(done) = self.done.take() {
            done.complete(outcome);
        }
    }

    fn delayed(&self, _: u64) {
        if let Some(done) = self.done.take() {
            done.delayed();
            self.done.set(Some(done));
        }
    }
}

struct ObservedDraft {
    inner: Box<dyn SnapshotDraft>,
    node: NodeId,
    observer: Rc<Observer>,
    rt: Sim,
}

#[async_trait(?Send)]
impl SnapshotDraft for ObservedDraft {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.inner.write(chunk).await
    }

    async fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError> {
        self.observer.while_finishing(&self.rt, self.node).await;
        self.inner.finish(meta).await?;
        self.observer.finished(self.node, meta);
        Ok(())
    }
}

impl<T: Transport> Transport for Observed<T> {
    fn send(&self, message: Message) -> bool {
        if self.observer.is_muted(self.node, message.to.id) {
            return true; // It is lost on its way.
        }
        if message.group != WATCHED {
            self.observer.tell(now(), || format!("node {} sends {message:?}", self.node));
            return self.inner.send(message);
        }
        self.observer.sends(self.node, &message);
        if !self.observer.passes(&message) {
            return true;
        }
        let kept = self.observer.is_to_keep().then(|| message.clone());
        let is_taken = self.inner.send(message);
        // What was not taken must never arrive: its sender knows that.
        if is_taken && let Some(message) = kept {
            self.observer.keep(message);
        }
        is_taken
    }

    fn is_ready(&self, to: Replica) -> bool {
        self.inner.is_ready(to)
    }

    fn message_limit(&self) -> Option<MessageLimit> {
        self.inner.message_limit()
    }

    fn dropped_messages(&self) -> u64 {
        self.inner.dropped_messages()
    }

    fn attach(&self, group: GroupId, credentials: Credentials, inbox: Inbox) {
        if group != WATCHED {
            return self.inner.attach(group, credentials, inbox);
        }
        // The observer keeps the inbox.
        let (observer, node) = (Rc::downgrade(&self.observer), self.node);
        let inbox = inbox.inspect(move |message| {
            if let Some(observer) = observer.upgrade() {
                observer.receives(node, message);
            }
        });
        self.observer.attached(node, &credentials, inbox.clone());
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
