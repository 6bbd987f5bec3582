//! Where everything for a group arrives: from its node's own thread, and from others.
//!
//! The group takes out what has gathered and looks at it in one turn. Whoever puts something in
//! notes the group as ready only if nothing was there before, so at most once a batch.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use bytes::Bytes;
use quorate_rt::channel::{oneshot, watch};

use super::super::groups::OF_SHUTDOWN;
use super::super::liveness::{Liveness, OpenGroup};
use super::super::ready::{Ready, Slot};
use super::super::{LeaderChange, NodeOutcome};
use super::admin::Admin;
use super::quota::LocalPermit;
use super::room::{Line, Queue, Queued};
use super::shared::{Crossing, Load, SharedMailbox, SharedReply, SharedRequest, SharedState};
use super::snapshots::View;
use crate::config::Config;
use crate::engine::{Fetch, Input, ReadChunk};
use crate::entries::Entries;
use crate::error::{Fatal, ReadError, SnapshotError, StoreError, WriteError};
use crate::identity::{Boot, Memory, Replica};
use crate::log_store::Completes;
use crate::message::Message;
use crate::metrics::{GroupState, Metrics};
use crate::plant;
use crate::snapshot::SnapshotMeta;
use crate::state_machine::StateMachine;
use crate::transport::Receiver;
use crate::types::{GroupId, LogId, NodeId};

/// The messages that wait for a group's next turn, in bytes. It takes a peer that breaks the
/// protocol's own windows, or a thread that is far behind, to fill it; then messages are dropped,
/// which the protocol repairs.
const MAX_INBOX_BYTES: usize = 256 << 20;

/// So many places of a queue are kept from one turn to the next; what a burst has taken beyond that
/// is let go.
pub(crate) const KEPT_CAPACITY: usize = 1024;

/// So many events, and so many requests, are taken in one turn of a group. What is left has its
/// place in the next one, after the other groups of the node. It is more than the clients of one
/// group mostly have under way at a time, as each turn has a cost of its own.
const TAKEN_PER_TURN: usize = 4096;

/// What has happened around a group.
pub(crate) enum Event<SM: StateMachine> {
    Message(Message),
    Persisted {
        write: u64,
        outcome: Result<(), StoreError>,
    },
    /// The disk is full, and the write waits for space.
    Delayed {
        write: u64,
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
    ReceiveStepDone(Input),
    /// The state is that of this snapshot, which has come in: now it may become the group's.
    Restored(SnapshotMeta),
    /// The task that has applied is at its end.
    Applied(Result<(), Fatal>),
    ChunkRead {
        wanted: ReadChunk,
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
    /// Something has become of the node of another member.
    OfNode(Input),
    /// Something that the group has called, has panicked, or the transport can't go on.
    Failed(Fatal),
    /// The group is to stop.
    Stop,
}

/// What a handle wants. `W` answers a write and `R` is a read: of a kind that stays on the thread,
/// or of one that crosses.
pub(crate) enum Request<W, R> {
    Write { command: Bytes, reply: W },
    Read(R),
    // Boxed, so that the queues' places are of a write's size.
    Admin(Box<Admin>),
    Deliver(Box<Message>),
}

/// What a write gives: where its entry stands, and the response.
pub(crate) type WriteResult<SM> = Result<(LogId, <SM as StateMachine>::Response), WriteError>;
/// A read: called once, with the state machine or with the reason why not.
pub(crate) type LocalRead<SM> = Box<dyn FnOnce(Result<&SM, ReadError>)>;

pub(crate) struct LocalReply<SM: StateMachine> {
    pub(crate) to: oneshot::Sender<WriteResult<SM>>,
    pub(crate) permit: LocalPermit,
}

/// Who waits for a write.
pub(crate) enum Reply<SM: StateMachine> {
    Local(LocalReply<SM>),
    Shared(SharedReply<SM>, Rc<Crossing>),
}

impl<SM: StateMachine> Reply<SM> {
    /// Answers. Whoever has stopped waiting is not told.
    pub(crate) fn answer(self, result: WriteResult<SM>) {
        match self {
            Self::Local(LocalReply { to, permit }) => {
                drop(permit);
                let _ = to.send(result);
            }
            Self::Shared(SharedReply { to, bytes }, crossing) => {
                plant!(X8, bytes = if result.is_ok() { bytes } else { 0 });
                crossing.returned.update(|load| Load { bytes: load.bytes + bytes, ..load });
                to.send(result, &crossing.wakes);
            }
        }
    }
}

pub(crate) type LocalRequest<SM> = Request<Reply<SM>, LocalRead<SM>>;

/// How a group has ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Shutdown,
    Fatal(Fatal),
}

impl From<Result<(), Fatal>> for End {
    fn from(outcome: Result<(), Fatal>) -> Self {
        outcome.map_or_else(Self::Fatal, |()| Self::Shutdown)
    }
}

/// What of the metrics changes rarely: those who wait for it for long are not woken by each turn.
#[derive(Clone, Default)]
pub(crate) struct Status {
    pub(crate) leader: LeaderChange,
    /// It is told after all who wait for the group have their answers.
    pub(crate) state: GroupState,
}

/// What all handles know of their group.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) id: NodeId,
    pub(crate) group: GroupId,
    pub(crate) metrics: watch::Receiver<Metrics>,
    pub(crate) status: watch::Receiver<Status>,
    /// What the node comes to.
    pub(crate) node: NodeOutcome,
}

/// The part within the node's thread.
pub(crate) struct Mailbox<SM: StateMachine> {
    pub(crate) known: Known,
    config: RefCell<Arc<Config>>,
    /// Where the group notes that it has something to do, and as what.
    ready: Rc<Ready>,
    slot: Slot,
    liveness: Rc<Liveness>,
    is_ready: Cell<bool>,
    requests: RefCell<VecDeque<LocalRequest<SM>>>,
    events: RefCell<VecDeque<Event<SM>>>,
    inbox: Cell<InboxLoad>,
    pub(crate) queued_bytes: Rc<Cell<usize>>,
    /// Those who wait for room among the queued bytes.
    line: RefCell<Line>,
    pub(crate) pending_reads: Rc<Cell<usize>>,
    ended: RefCell<Option<End>>,
    /// Made when the first handle that crosses threads is asked for; without one, nothing here
    /// locks.
    shared: OnceCell<Arc<SharedMailbox<SM>>>,
    /// What has come from there and has not had its turn.
    crossed: RefCell<VecDeque<SharedRequest<SM>>>,
    /// The turn has not looked for more of it, as it had some left from the one before.
    has_more: Cell<bool>,
    crossing: Rc<Crossing>,
}

impl<SM: StateMachine> Mailbox<SM> {
    pub(in crate::node) fn new(
        known: Known,
        config: Arc<Config>,
        ready: Rc<Ready>,
        slot: Slot,
        liveness: Rc<Liveness>,
    ) -> Self {
        let wakes = Rc::clone(&ready.wakes);
        let crossing = Rc::new(Crossing { wakes, returned: Cell::default() });
        Self {
            known,
            config: RefCell::new(config),
            ready,
            slot,
            liveness,
            is_ready: Cell::default(),
            requests: RefCell::default(),
            events: RefCell::default(),
            inbox: Cell::default(),
            queued_bytes: Rc::default(),
            line: RefCell::default(),
            pending_reads: Rc::default(),
            ended: RefCell::default(),
            shared: OnceCell::new(),
            crossed: RefCell::default(),
            has_more: Cell::new(false),
            crossing,
        }
    }

    pub(crate) fn shared(&self) -> Arc<SharedMailbox<SM>> {
        let shared = self.shared.get_or_init(|| {
            Arc::new(SharedMailbox {
                known: self.known.clone(),
                max_command_bytes: AtomicUsize::new(self.config().max_command_bytes),
                ready: self.ready.shared(),
                slot: self.slot,
                state: Mutex::new(SharedState {
                    config: Arc::clone(&self.config()),
                    requests: VecDeque::new(),
                    load: Load::default(),
                    line: Line::default(),
                    inbox: InboxLoad::default(),
                    ended: self.ended.borrow().clone(),
                }),
            })
        });
        Arc::clone(shared)
    }

    /// The settings of the group.
    pub(crate) fn config(&self) -> Ref<'_, Arc<Config>> {
        self.config.borrow()
    }

    /// From now on these settings count for the handles.
    pub(crate) fn configure(&self, config: Arc<Config>) {
        if let Some(shared) = self.shared.get() {
            shared.configure(Arc::clone(&config));
        }
        self.config.replace(config);
    }

    /// The group is to have a turn.
    pub(crate) fn raise(&self) {
        if !self.is_ready.replace(true) {
            self.ready.add(self.slot);
        }
    }

    /// Stops the node, also if the group has ended.
    pub(crate) fn shut_down(&self) {
        self.ready.add(OF_SHUTDOWN);
    }

    /// Refuses the request if the group has ended.
    pub(crate) fn request(&self, request: LocalRequest<SM>) -> Result<(), End> {
        if let Some(end) = &*self.ended.borrow() {
            return Err(end.clone());
        }
        self.requests.borrow_mut().push_back(request);
        self.raise();
        Ok(())
    }

    /// After the end nobody looks at it any more.
    pub(crate) fn event(&self, event: Event<SM>) {
        if self.has_ended() {
            return;
        }
        self.events.borrow_mut().push_back(event);
        self.raise();
    }

    pub(crate) fn deliver(&self, message: Message) {
        let mut inbox = self.inbox.get();
        let takes = inbox.takes(&message);
        self.inbox.set(inbox);
        match takes {
            Ok(()) => self.event(Event::Message(message)),
            Err(dropped) => dropped.tell(&message),
        }
    }

    /// What the node remembers of a replica; none if it ends.
    fn recall(&self, replica: Replica) -> oneshot::Receiver<Option<Memory>> {
        let (reply, memory) = oneshot::channel();
        self.event(Event::Recall { replica, reply });
        memory
    }

    /// A turn of the group begins: how many events it takes. What comes from now on is for the
    /// next one.
    pub(crate) fn begin_turn(&self) -> usize {
        self.is_ready.set(false);
        self.inbox.update(|inbox| InboxLoad { has_dropped: false, ..inbox });
        self.events.borrow().len().min(TAKEN_PER_TURN)
    }

    pub(crate) fn take_event(&self) -> Option<Event<SM>> {
        let event = self.events.borrow_mut().pop_front()?;
        if let Event::Message(message) = &event {
            let bytes = message.bytes();
            self.inbox.update(|inbox| InboxLoad { bytes: inbox.bytes - bytes, ..inbox });
        }
        Some(event)
    }

    /// How many requests the turn takes.
    pub(crate) fn waiting_requests(&self) -> usize {
        let mut crossed = self.crossed.borrow_mut();
        match self.shared.get() {
            Some(shared) if crossed.is_empty() => shared.lock().take(&mut crossed),
            // Whoever has sent the first of it since has had this turn for that.
            _ => self.has_more.set(!crossed.is_empty()),
        }
        (self.requests.borrow().len() + crossed.len()).min(TAKEN_PER_TURN)
    }

    pub(crate) fn take_request(&self) -> Option<LocalRequest<SM>> {
        let local = self.requests.borrow_mut().pop_front();
        local.or_else(|| self.crossed.borrow_mut().pop_front().map(|request| self.cross(request)))
    }

    /// What another thread has sent, as a request of this one.
    fn cross(&self, request: SharedRequest<SM>) -> LocalRequest<SM> {
        let crossing = || Rc::clone(&self.crossing);
        match request {
            Request::Write { command, reply } => {
                Request::Write { command, reply: Reply::Shared(reply, crossing()) }
            }
            Request::Read(read) => {
                let crossing = crossing();
                Request::Read(Box::new(move |state| read(state, &crossing)))
            }
            Request::Admin(admin) => Request::Admin(admin),
            Request::Deliver(message) => Request::Deliver(message),
        }
    }

    /// Gives back what the requests of other threads have held that were answered, and what has
    /// become free to those who wait for it.
    #[inline]
    pub(crate) fn give_back(&self) {
        let Load { bytes, reads } = self.crossing.returned.get();
        if (bytes, reads) != (0, 0) || self.has_line() {
            self.give_back_all();
        }
    }

    #[inline(never)] // Out of the way of the turns in which there is nothing.
    fn give_back_all(&self) {
        let Load { bytes, reads } = self.crossing.returned.take();
        if (bytes, reads) != (0, 0)
            && let Some(shared) = self.shared.get()
        {
            shared.give_back(bytes, reads);
        }
        if self.has_line() {
            let admitted = self.look(|queued| queued.admit());
            admitted.into_iter().flatten().for_each(Waker::wake);
        }
    }

    /// Whether anybody on this thread waits for room.
    pub(crate) fn has_line(&self) -> bool {
        !self.line.borrow().is_empty()
    }

    /// The turn has taken its part. If that was not all, there is another.
    pub(crate) fn end_turn(&self) {
        let (events, requests) = (&mut *self.events.borrow_mut(), &mut *self.requests.borrow_mut());
        let crossed = &mut *self.crossed.borrow_mut();
        let has_more = self.has_more.take();
        if has_more || !events.is_empty() || !requests.is_empty() || !crossed.is_empty() {
            self.raise();
        }
        shrink_large(events);
        shrink_large(requests);
        shrink_large(crossed);
    }

    /// Lets go of memory that is not in use.
    pub(crate) fn shrink(&self) {
        self.events.borrow_mut().shrink_to_fit();
        self.requests.borrow_mut().shrink_to_fit();
        self.crossed.borrow_mut().shrink_to_fit();
        if let Some(shared) = self.shared.get() {
            shared.lock().requests.shrink_to_fit();
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
        let mut requests = self.requests.take();
        let mut crossed = self.crossed.take();
        let mut waiting = self.line.borrow_mut().end();
        if let Some(shared) = self.shared.get() {
            let mut state = shared.lock();
            state.ended.get_or_insert_with(|| end.clone());
            crossed.append(&mut state.requests);
            waiting.append(&mut state.line.end());
        }
        waiting.into_iter().for_each(Waker::wake);
        requests.extend(crossed.into_iter().map(|request| self.cross(request)));
        for request in requests {
            refuse(request, end);
        }
    }
}

impl<SM: StateMachine> Queue for Mailbox<SM> {
    fn look<T>(&self, look: impl FnOnce(Queued<'_>) -> T) -> Result<T, End> {
        if let Some(end) = &*self.ended.borrow() {
            return Err(end.clone());
        }
        let (mut used, max) = (self.queued_bytes.get(), self.config().max_queued_bytes);
        let seen = look(Queued { line: &mut self.line.borrow_mut(), used: &mut used, max });
        self.queued_bytes.set(used);
        Ok(seen)
    }
}

impl<SM: StateMachine> Completes for Mailbox<SM> {
    fn completed(&self, write: u64, outcome: Result<(), StoreError>) {
        self.event(Event::Persisted { write, outcome });
    }

    fn delayed(&self, write: u64) {
        self.event(Event::Delayed { write });
    }
}

impl<SM: StateMachine> OpenGroup for Mailbox<SM> {
    fn hear_of_node(&self, input: Input) {
        self.event(Event::OfNode(input));
    }

    fn deliver(&self, message: Message) {
        Self::deliver(self, message);
    }
}

impl<SM: StateMachine> Receiver for Mailbox<SM> {
    /// Also for other groups, and for the node: a transport may know only one inbox.
    fn deliver(&self, message: Message) {
        match message.group == self.known.group {
            true => Self::deliver(self, message),
            false => self.liveness.route(message),
        }
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

/// Keeps what a usual turn needs.
#[inline]
fn shrink_large<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > KEPT_CAPACITY {
        queue.shrink_to(KEPT_CAPACITY);
    }
}

/// Answers a request that the group has not looked at.
pub(crate) fn refuse<SM: StateMachine>(request: LocalRequest<SM>, end: &End) {
    match request {
        Request::Write { reply, .. } => reply.answer(Err(end.into())),
        Request::Read(read) => read(Err(end.into())),
        Request::Admin(_) | Request::Deliver(_) => {}
    }
}

/// The messages that wait for a group's next turn.
#[derive(Clone, Copy, Default)]
pub(super) struct InboxLoad {
    bytes: usize,
    /// Some were dropped, which was told.
    has_dropped: bool,
}

impl InboxLoad {
    /// Takes a message, if there is room.
    pub(super) fn takes(&mut self, message: &Message) -> Result<(), InboxFull> {
        let sum = self.bytes + message.bytes();
        if sum <= MAX_INBOX_BYTES {
            self.bytes = sum;
            return Ok(());
        }
        let is_first = !mem::replace(&mut self.has_dropped, true);
        Err(InboxFull { bytes: self.bytes, is_first })
    }
}

/// A message is dropped. It is logged apart from finding that out, which may be under a lock: what
/// the log calls is not ours, and may take long or come back.
pub(super) struct InboxFull {
    bytes: usize,
    /// None was dropped since the last turn.
    is_first: bool,
}

impl InboxFull {
    pub(super) fn tell(&self, message: &Message) {
        if self.is_first {
            let bytes = self.bytes;
            tracing::warn!(from = %message.from, "dropped a message: {bytes} bytes wait already");
        }
    }
}
