//! A node's server for clients: what its connections share, and the loop that accepts them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::lock::Mutex;
use quorate::rt::channel::watch;
use quorate::rt::{Instant, Limited, Listener, ReadHalf, Stream, Task, WriteHalf};
use quorate::{LocalRaft, Metrics, Network};
use tracing::{debug, info, warn};

use crate::alarm::Alarm;
use crate::budget::{Budget, Share};
use crate::connection;
use crate::limits::Limits;
use crate::queue::Queue;
use crate::store::Store;
use crate::thread_time::ThreadTime;

/// How long to wait after a failed accept. It fails when the process has no file left, which takes
/// a while to change.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time from one line of the log to the next while accepts fail.
const ACCEPT_TOLD: Duration = Duration::from_secs(10);

/// Refused clients that are told why at the same time. More are closed without a word: each takes a
/// file meanwhile.
pub(crate) const REFUSALS: usize = 16;

/// How long a connection that the node closes is read from for what the client still sends: to
/// close it before would have the kernel send a reset, which can overtake the last answers. A
/// client that has nothing more to say closes its side at once.
const LINGER: Duration = Duration::from_secs(1);

/// The same while the node stops, from the last that was heard: enough for what is on the way, and
/// an idle client delays the end no longer.
const LINGER_AT_END: Duration = Duration::from_millis(50);

/// How long a node that stops goes on accepting, and closes in order what it accepts.
const LAST_ACCEPTS: Duration = Duration::from_millis(10);

/// How long a node that stops waits for its connections once it has answered all that they have
/// asked, which takes a request timeout at most.
const CLIENTS_STOP_WITHIN: Duration = Duration::from_secs(2);

/// What the connections of a node share. They all live on the node's thread.
pub(crate) struct Server<R: Network> {
    pub(crate) rt: R,
    pub(crate) raft: LocalRaft<Store>,
    pub(crate) metrics: watch::Receiver<Metrics>,
    /// How many keys this node's state machine holds.
    pub(crate) keys: Rc<Cell<usize>>,
    /// The long reads of all connections. One of them is answered at a time, in parts: or there
    /// would be as many parts from one turn of the node to the next as there are clients that have
    /// one. It also bounds the views of the state that are held.
    pub(crate) long_reads: Rc<Queue>,
    pub(crate) thread_time: Rc<ThreadTime<R>>,
    /// How long a command waits for a leader or for another attempt: the node's request timeout.
    pub(crate) patience: Cell<Duration>,
    /// Held while settings are changed: each change is made to what the one before has left.
    pub(crate) settings: Mutex<()>,
    pub(crate) port: u16,
    pub(crate) started: Instant,
    /// The most clients at a time.
    pub(crate) max_clients: usize,
    pub(crate) limits: Limits,
    /// Connections now, and ever; the latter numbers them.
    pub(crate) clients: Cell<usize>,
    pub(crate) accepted: Cell<u64>,
    /// Answers that clients have not read.
    pub(crate) unread: Rc<Budget>,
    /// Requests that are not whole or not answered.
    pub(crate) unfinished: Rc<Budget>,
    /// Requests answered.
    pub(crate) commands: Cell<u64>,
    /// What this node waits for before it is a member, for people.
    pub(crate) waits_to_join: RefCell<Option<String>>,
    /// Refusals that are being sent.
    refusals: Cell<usize>,
    /// Nothing more is read.
    stops: Cell<bool>,
    /// Connections that wait for their clients, by number.
    waiting: RefCell<BTreeMap<u64, Rc<RefCell<Option<Waker>>>>>,
    /// Waits for the last connection to end.
    at_end: RefCell<Option<Waker>>,
}

impl<R: Network> Server<R> {
    /// A server before its first connection.
    pub(crate) fn new(
        rt: R,
        raft: LocalRaft<Store>,
        keys: Rc<Cell<usize>>,
        port: u16,
        max_clients: usize,
        limits: Limits,
        patience: Duration,
    ) -> Self {
        Self {
            started: rt.now(),
            metrics: raft.metrics(),
            thread_time: Rc::new(ThreadTime::new(rt.clone())),
            rt,
            raft,
            keys,
            long_reads: Rc::default(),
            patience: Cell::new(patience),
            settings: Mutex::default(),
            port,
            max_clients,
            clients: Cell::default(),
            accepted: Cell::default(),
            unread: Budget::new(limits.max_unread_bytes),
            unfinished: Budget::new(limits.max_unfinished_bytes),
            limits,
            commands: Cell::default(),
            waits_to_join: RefCell::default(),
            refusals: Cell::default(),
            stops: Cell::default(),
            waiting: RefCell::default(),
            at_end: RefCell::default(),
        }
    }

    /// Accepts connections, each into a task of its own, for as long as it is polled. Connections
    /// go on without it.
    pub(crate) async fn accept(self: Rc<Self>, mut listener: R::Listener) {
        let lines = Limited::new(1, ACCEPT_TOLD);
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(suppressed) = lines.pass(self.rt.now()) {
                        warn!(%error, suppressed, "a connection could not be accepted; tries on");
                    }
                    self.rt.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.clients.get() >= self.max_clients {
                debug!(%from, "refused: too many clients");
                self.refuse(stream);
                continue;
            }
            self.accepted.set(self.accepted.get() + 1);
            let id = self.accepted.get();
            let slot = ClientSlot::take(Rc::clone(&self), id);
            debug!(%from, id, "a client has connected");
            let task = async move {
                let time = Rc::clone(&slot.server.thread_time);
                // Boxed, as a future that is handed on takes its place twice.
                time.measured(Box::pin(connection::serve(&slot, stream, id))).await;
                debug!(id, "a client has gone");
            };
            self.rt.spawn(task).detach();
        }
    }

    fn refuse(self: &Rc<Self>, stream: R::Stream) {
        if self.refusals.get() >= REFUSALS {
            return;
        }
        self.refusals.set(self.refusals.get() + 1);
        let server = Rc::clone(self);
        let task = async move {
            let (reader, mut writer) = stream.split();
            let text = Bytes::from_static(b"-ERR max number of clients reached\r\n");
            // It fits into the buffer of any new socket, so this doesn't wait for the client.
            if writer.write_all(vec![text]).await.is_ok() {
                server.close(reader, writer).await;
            }
            server.refusals.set(server.refusals.get() - 1);
        };
        self.rt.spawn(task).detach();
    }

    /// Ends a connection after its last answer, so that the client gets to see that: sends the end
    /// of the stream, and reads for a while what still comes. The connection must be dropped then.
    pub(crate) async fn close(
        &self,
        mut reader: <R::Stream as Stream>::ReadHalf,
        mut writer: <R::Stream as Stream>::WriteHalf,
    ) {
        if writer.shutdown().await.is_err() {
            return;
        }
        let mut alarm = Alarm::new(self.rt.clone());
        let until = self.rt.now() + LINGER;
        let mut buffer = BytesMut::with_capacity(connection::LEAST_READ_BYTES);
        loop {
            let silence = if self.stops.get() { LINGER_AT_END } else { LINGER };
            let deadline = until.min(self.rt.now() + silence);
            match alarm.until(deadline, reader.read(buffer)).await {
                Some((Ok(read), filled)) if read > 0 && self.rt.now() < until => buffer = filled,
                _ => return,
            }
            buffer.clear();
        }
    }

    /// Stops accepting, has all connections end, each after what it is doing, and waits for that,
    /// but not for much longer than the node may take to answer them.
    pub(crate) async fn stop(&self, accepting: impl Task<()>) {
        self.stops.set(true);
        let waiting: Vec<_> = self.waiting.borrow().values().map(|slot| slot.take()).collect();
        waiting.into_iter().flatten().for_each(Waker::wake);
        // Those that the kernel has taken already would be reset with the listener.
        self.rt.sleep(LAST_ACCEPTS).await;
        drop(accepting);
        let gone = poll_fn(|context| {
            if self.clients.get() == 0 {
                return Poll::Ready(());
            }
            *self.at_end.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        });
        let mut alarm = Alarm::new(self.rt.clone());
        if alarm.within(self.patience.get() + CLIENTS_STOP_WITHIN, gone).await.is_none() {
            info!(clients = self.clients.get(), "connections are cut off, as they don't end");
        }
    }
}

/// A connection's place among the clients, and its parts of the budgets, given back however its
/// task ends.
pub(crate) struct ClientSlot<R: Network> {
    pub(crate) server: Rc<Server<R>>,
    pub(crate) unread: Share,
    pub(crate) unfinished: Share,
    id: u64,
    waker: Rc<RefCell<Option<Waker>>>,
}

impl<R: Network> ClientSlot<R> {
    fn take(server: Rc<Server<R>>, id: u64) -> Self {
        server.clients.set(server.clients.get() + 1);
        let waker = Rc::new(RefCell::new(None));
        server.waiting.borrow_mut().insert(id, Rc::clone(&waker));
        let (unread, unfinished) = (Share::of(&server.unread), Share::of(&server.unfinished));
        Self { server, unread, unfinished, id, waker }
    }

    /// Whether the node stops.
    pub(crate) fn stops(&self) -> bool {
        self.server.stops.get()
    }

    /// Whether the node stops; otherwise the task is woken when it does.
    pub(crate) fn poll_stops(&self, context: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        self.stops()
    }
}

impl<R: Network> Drop for ClientSlot<R> {
    fn drop(&mut self) {
        self.server.waiting.borrow_mut().remove(&self.id);
        self.server.clients.set(self.server.clients.get() - 1);
        if self.server.clients.get() == 0
            && let Some(waker) = self.server.at_end.take()
        {
            waker.wake();
        }
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
