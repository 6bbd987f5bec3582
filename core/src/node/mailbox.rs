//! Where everything for a node arrives: from its own thread, and from others.
//!
//! The node takes out all that has gathered and looks at it in one turn. Whoever puts something in wakes the node
//! only if nothing was there before, so at most once a batch.

use std::cell::{Cell, OnceCell, RefCell};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::channel::oneshot as shared_oneshot;
use quorate_rt::channel::{Signal, oneshot, watch};
use quorate_rt::planted::{Bug, planted};

use super::admin::Admin;
use super::quota::{LocalPermit, SharedPermit};
use super::snapshots::View;
use crate::config::Config;
use crate::engine::{Fetch, Input, PieceRead};
use crate::entries::Entries;
use crate::error::{Fatal, ReadError, SnapshotError, StoreError, WriteError};
use crate::identity::{Boot, Memory, Replica};
use crate::message::Message;
use crate::metrics::Metrics;
use crate::snapshot::SnapshotMeta;
use crate::state_machine::StateMachine;
use crate::transport::Receiver;
use crate::types::{LogId, NodeId};

/// The messages that wait for a node's next turn, in bytes. It takes a peer that breaks the protocol's own windows, or a
/// thread that is far behind, to fill it; then messages are dropped, which the protocol repairs.
const MAX_INBOX_BYTES: usize = 256 << 20;

/// So many places of a queue are kept from one turn to the next; what a burst has taken beyond that is let go.
pub(crate) const KEPT_PLACES: usize = 1024;

/// What has happened around a node.
pub(crate) enum Event<SM: StateMachine> {
    Message(Message),
    Persisted {
        write: u64,
        outcome: Result<(), StoreError>,
    },
    Fetched {
        fetch: Fetch,
        outcome: Result<Entries, StoreError>,
    },
    /// The applying task has taken a view of the state, to be written as a snapshot.
    Viewed(View<SM>),
    /// The snapshot at `log_id` is written, or could not be taken or written.
    Built {
        log_id: LogId,
        outcome: Result<SnapshotMeta, SnapshotError>,
    },
    /// What has become of the snapshot that is coming in.
    Incoming(Input),
    /// The state is that of this snapshot, which has come in: now it may become the group's.
    Restored(SnapshotMeta),
    PieceRead {
        piece: PieceRead,
        outcome: Result<Bytes, StoreError>,
    },
    /// The transport wants to know what is remembered of a replica.
    Recall {
        replica: Replica,
        reply: oneshot::Sender<Option<Memory>>,
    },
    /// Another replica remembers this of the present one.
    Remembered {
        from: Replica,
        memory: Memory,
    },
    /// Another replica speaks in this boot from now on.
    Met {
        replica: Replica,
        boot: Boot,
    },
    /// Something that the node has called, has panicked, or the transport can't go on.
    Failed(Fatal),
    Shutdown,
}

/// What a handle wants. `W` answers a write and `R` is a read: of a kind that stays on the thread, or of one that crosses.
pub(crate) enum Request<W, R> {
    Write {
        command: Bytes,
        reply: W,
    },
    Read(R),
    Admin(Admin),
    /// Boxed, so that the queues' places are of a write's size.
    Deliver(Box<Message>),
}

/// What a write gives: where its entry stands, and the response.
pub(crate) type WriteResult<SM> = Result<(LogId, <SM as StateMachine>::Response), WriteError>;
/// A read: called once, with the state machine or with the reason why not.
pub(crate) type LocalRead<SM> = Box<dyn FnOnce(Result<&SM, ReadError>)>;
pub(crate) type SharedRead<SM> = Box<dyn FnOnce(Result<&SM, ReadError>) + Send>;

pub(crate) struct LocalReply<SM: StateMachine> {
    pub(crate) to: oneshot::Sender<WriteResult<SM>>,
    pub(crate) permit: LocalPermit,
}

pub(crate) struct SharedReply<SM: StateMachine> {
    pub(crate) to: shared_oneshot::Sender<WriteResult<SM>>,
    pub(crate) permit: SharedPermit,
}

/// Who waits for a write.
pub(crate) enum Reply<SM: StateMachine> {
    Local(LocalReply<SM>),
    Shared(SharedReply<SM>),
}

impl<SM: StateMachine> Reply<SM> {
    /// Answers. Whoever has stopped waiting is not told.
    pub(crate) fn answer(self, result: WriteResult<SM>) {
        match self {
            Self::Local(LocalReply { to, permit }) => {
                drop(permit);
                let _ = to.send(result);
            }
            Self::Shared(SharedReply { to, permit }) => {
                match planted(Bug::X8) && result.is_err() {
                    true => mem::forget(permit),
                    false => drop(permit),
                }
                let _ = to.send(result);
            }
        }
    }
}

pub(crate) type LocalRequest<SM> = Request<Reply<SM>, LocalRead<SM>>;
pub(crate) type SharedRequest<SM> = Request<SharedReply<SM>, SharedRead<SM>>;

impl<SM: StateMachine> From<SharedRequest<SM>> for LocalRequest<SM> {
    fn from(request: SharedRequest<SM>) -> Self {
        match request {
            Request::Write { command, reply } => {
                Self::Write { command, reply: Reply::Shared(reply) }
            }
            Request::Read(read) => Self::Read(read),
            Request::Admin(admin) => Self::Admin(admin),
            Request::Deliver(message) => Self::Deliver(message),
        }
    }
}

/// How a node has ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Shutdown,
    Fatal(Fatal),
}

/// What all handles know of their node.
#[derive(Clone)]
pub(crate) struct Card {
    pub(crate) id: NodeId,
    pub(crate) config: Config,
    pub(crate) metrics: watch::Receiver<Metrics>,
}

/// The part within the node's thread.
pub(crate) struct Mailbox<SM: StateMachine> {
    pub(crate) card: Card,
    requests: RefCell<Vec<LocalRequest<SM>>>,
    events: RefCell<Vec<Event<SM>>>,
    inbox: Cell<InboxLoad>,
    signal: Signal,
    pub(crate) queued_bytes: Rc<Cell<usize>>,
    pub(crate) pending_reads: Rc<Cell<usize>>,
    /// The write that the store is being given at this moment.
    submitting: Cell<Option<u64>>,
    ended: RefCell<Option<End>>,
    /// Made when the first handle that crosses threads is asked for; without one, nothing here locks.
    shared: OnceCell<Arc<SharedMailbox<SM>>>,
    /// Nothing: memory for what is on its way from there.
    crossing: RefCell<Vec<SharedRequest<SM>>>,
}

impl<SM: StateMachine> Mailbox<SM> {
    pub(crate) fn new(card: Card) -> Self {
        Self {
            card,
            requests: RefCell::default(),
            events: RefCell::default(),
            inbox: Cell::default(),
            signal: Signal::default(),
            queued_bytes: Rc::default(),
            pending_reads: Rc::default(),
            submitting: Cell::default(),
            ended: RefCell::default(),
            shared: OnceCell::new(),
            crossing: RefCell::default(),
        }
    }

    pub(crate) fn shared(&self) -> Arc<SharedMailbox<SM>> {
        let shared = self.shared.get_or_init(|| {
            // The node has to look at the new part as well, from now on.
            self.signal.raise();
            Arc::new(SharedMailbox {
                card: self.card.clone(),
                queued_bytes: Arc::default(),
                pending_reads: Arc::default(),
                state: Mutex::new(SharedState {
                    requests: Vec::new(),
                    inbox: InboxLoad::default(),
                    waker: None,
                    ended: self.ended.borrow().clone(),
                }),
            })
        });
        Arc::clone(shared)
    }

    /// Refuses the request if the node has ended.
    pub(crate) fn request(&self, request: LocalRequest<SM>) -> Result<(), End> {
        if let Some(end) = &*self.ended.borrow() {
            return Err(end.clone());
        }
        self.requests.borrow_mut().push(request);
        self.signal.raise();
        Ok(())
    }

    /// After the end nobody looks at it any more.
    pub(crate) fn event(&self, event: Event<SM>) {
        if self.has_ended() {
            return;
        }
        self.events.borrow_mut().push(event);
        self.signal.raise();
    }

    /// Gives the store this write; whether it was made durable at once, which no event tells then.
    pub(crate) fn submit(&self, write: u64, append: impl FnOnce()) -> bool {
        self.submitting.set(Some(write));
        append();
        self.submitting.take().is_none()
    }

    /// The store is done with a write.
    pub(crate) fn persisted(&self, write: u64, outcome: Result<(), StoreError>) {
        if self.submitting.get() == Some(write) && outcome.is_ok() {
            self.submitting.set(None);
        } else {
            self.event(Event::Persisted { write, outcome });
        }
    }

    pub(crate) fn deliver(&self, message: Message) {
        let mut inbox = self.inbox.get();
        let takes = inbox.takes(&message);
        self.inbox.set(inbox);
        if takes {
            self.event(Event::Message(message));
        }
    }

    /// What the node remembers of a replica; none if it ends.
    fn recall(&self, replica: Replica) -> oneshot::Receiver<Option<Memory>> {
        let (reply, memory) = oneshot::channel();
        self.event(Event::Recall { replica, reply });
        memory
    }

    /// Ready when something has come since the last time.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let own = self.signal.poll(context);
        match self.shared.get() {
            Some(shared) if shared.lock().poll(context).is_ready() => Poll::Ready(()),
            _ => own,
        }
    }

    /// Takes what has come into `events`, which are none so far.
    pub(crate) fn take_events(&self, events: &mut Vec<Event<SM>>) {
        assert!(events.is_empty(), "what was taken is not looked at");
        self.inbox.set(InboxLoad::default());
        mem::swap(&mut *self.events.borrow_mut(), events);
    }

    /// Takes what has come into `requests`, which are none so far.
    pub(crate) fn take_requests(&self, requests: &mut Vec<LocalRequest<SM>>) {
        assert!(requests.is_empty(), "what was taken is not looked at");
        mem::swap(&mut *self.requests.borrow_mut(), requests);
        if let Some(shared) = self.shared.get() {
            let mut crossing = self.crossing.borrow_mut();
            shared.lock().take(&mut crossing);
            requests.extend(crossing.drain(..).map(LocalRequest::from));
            crossing.shrink_to(KEPT_PLACES);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// From now on nothing is taken, and what waits is refused.
    pub(crate) fn close(&self, end: &End) {
        self.ended.borrow_mut().get_or_insert_with(|| end.clone());
        // Out of the cell first: what is dropped may run code that comes back here.
        drop(self.events.take());
        let mut requests = mem::take(&mut *self.requests.borrow_mut());
        if let Some(shared) = self.shared.get() {
            let mut crossing = Vec::new();
            let mut state = shared.lock();
            state.ended.get_or_insert_with(|| end.clone());
            state.take(&mut crossing);
            drop(state);
            requests.extend(crossing.into_iter().map(LocalRequest::from));
        }
        for request in requests {
            refuse(request, end);
        }
    }
}

impl<SM: StateMachine> Receiver for Mailbox<SM> {
    fn deliver(&self, message: Message) {
        Self::deliver(self, message);
    }

    fn recall(&self, replica: Replica) -> Pin<Box<dyn Future<Output = Option<Memory>>>> {
        let memory = Self::recall(self, replica);
        Box::pin(async move { memory.await.ok().flatten() })
    }

    fn remembered(&self, from: Replica, memory: Memory) {
        self.event(Event::Remembered { from, memory });
    }

    fn met(&self, replica: Replica, boot: Boot) {
        self.event(Event::Met { replica, boot });
    }

    fn failed(&self, reason: String) {
        self.event(Event::Failed(Fatal::Transport(reason)));
    }
}

/// Answers a request that the node has not looked at.
pub(crate) fn refuse<SM: StateMachine>(request: LocalRequest<SM>, end: &End) {
    match request {
        Request::Write { reply, .. } => reply.answer(Err(end.into())),
        Request::Read(read) => read(Err(end.into())),
        Request::Admin(_) | Request::Deliver(_) => {}
    }
}

/// The part that other threads reach.
pub(crate) struct SharedMailbox<SM: StateMachine> {
    pub(crate) card: Card,
    pub(crate) queued_bytes: Arc<AtomicUsize>,
    pub(crate) pending_reads: Arc<AtomicUsize>,
    state: Mutex<SharedState<SM>>,
}

struct SharedState<SM: StateMachine> {
    requests: Vec<SharedRequest<SM>>,
    inbox: InboxLoad,
    waker: Option<Waker>,
    ended: Option<End>,
}

impl<SM: StateMachine> SharedMailbox<SM> {
    fn lock(&self) -> MutexGuard<'_, SharedState<SM>> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses the request if the node has ended.
    pub(crate) fn request(&self, request: SharedRequest<SM>) -> Result<(), End> {
        let mut state = self.lock();
        if let Some(end) = &state.ended {
            return Err(end.clone());
        }
        state.requests.push(request);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub(crate) fn deliver(&self, message: Message) {
        let mut state = self.lock();
        if state.inbox.takes(&message) {
            drop(state);
            let _ = self.request(Request::Deliver(Box::new(message)));
        }
    }
}

impl<SM: StateMachine> SharedState<SM> {
    fn take(&mut self, requests: &mut Vec<SharedRequest<SM>>) {
        self.inbox = InboxLoad::default();
        mem::swap(&mut self.requests, requests);
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.requests.is_empty() {
            return Poll::Ready(());
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// The messages that wait for a node's next turn.
#[derive(Clone, Copy, Default)]
struct InboxLoad {
    bytes: usize,
    /// Some were dropped, which was told.
    has_dropped: bool,
}

impl InboxLoad {
    /// Whether a message is taken.
    fn takes(&mut self, message: &Message) -> bool {
        let sum = self.bytes + message.bytes();
        if sum <= MAX_INBOX_BYTES {
            self.bytes = sum;
            return true;
        }
        if !mem::replace(&mut self.has_dropped, true) {
            let bytes = self.bytes;
            tracing::warn!(from = %message.from, "dropped a message: {bytes} bytes wait already");
        }
        false
    }
}
