//! A node's server for clients: what its connections share, and the loop that accepts them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quorate::rt::channel::watch;
use quorate::rt::{Instant, Listener, Stream, Task, WriteHalf};
use quorate::{AsyncRuntime, LocalRaft, Metrics};
use tracing::{debug, warn};

use crate::connection;
use crate::store::Store;

/// The most clients at a time: Redis' default. With what an idle connection holds they take some 100 MiB.
pub(crate) const MAX_CLIENTS: usize = 10_000;

/// What all clients together may have sent of long requests that have not ended or not been answered, in bytes: twice what a node
/// queues of commands (`Config::max_queued_bytes`), so that it is not this which refuses those who get on. Without it ten thousand clients that
/// never end a request of 16 MiB would take all memory there is.
pub(crate) const MAX_LONG_REQUESTS_BYTES: usize = 256 << 20;

/// How long to wait after a failed accept. It fails when the process has no file left, which takes a while to change.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of a node share. They all live on the node's thread.
pub(crate) struct Server<R: AsyncRuntime> {
    pub(crate) rt: R,
    pub(crate) raft: LocalRaft<Store>,
    pub(crate) metrics: watch::Receiver<Metrics>,
    /// How many keys this node's state machine holds.
    pub(crate) keys: Rc<Cell<usize>>,
    pub(crate) port: u16,
    pub(crate) started: Instant,
    /// Connections now, and ever; the latter numbers them.
    pub(crate) clients: Cell<usize>,
    pub(crate) accepted: Cell<u64>,
    /// What they hold of [`MAX_LONG_REQUESTS_BYTES`].
    pub(crate) long_requests_bytes: Cell<usize>,
    /// Requests answered.
    pub(crate) commands: Cell<u64>,
}

impl<R: AsyncRuntime> Server<R> {
    /// A server before its first connection.
    pub(crate) fn new(rt: R, raft: LocalRaft<Store>, keys: Rc<Cell<usize>>, port: u16) -> Self {
        Self {
            started: rt.now(),
            metrics: raft.metrics(),
            rt,
            raft,
            keys,
            port,
            clients: Cell::default(),
            accepted: Cell::default(),
            long_requests_bytes: Cell::default(),
            commands: Cell::default(),
        }
    }

    /// Accepts connections, each into a task of its own, for as long as it is polled. Connections go on without it.
    pub(crate) async fn accept(self: Rc<Self>, mut listener: R::Listener) {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    self.rt.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if self.clients.get() >= MAX_CLIENTS {
                debug!(%from, "refused: too many clients");
                self.rt.spawn(refuse(stream)).detach();
                continue;
            }
            self.accepted.set(self.accepted.get() + 1);
            let seat = Seat::take(Rc::clone(&self));
            let id = self.accepted.get();
            debug!(%from, id, "a client has connected");
            let task = async move {
                connection::serve(&seat, stream, id).await;
                debug!(id, "a client has gone");
            };
            self.rt.spawn(task).detach();
        }
    }
}

/// A connection's place among [`MAX_CLIENTS`], and its part of [`MAX_LONG_REQUESTS_BYTES`], given back however its task ends.
pub(crate) struct Seat<R: AsyncRuntime> {
    pub(crate) server: Rc<Server<R>>,
    long_request_bytes: Cell<usize>,
}

impl<R: AsyncRuntime> Seat<R> {
    fn take(server: Rc<Server<R>>) -> Self {
        server.clients.set(server.clients.get() + 1);
        Self { server, long_request_bytes: Cell::default() }
    }

    /// From now on the connection holds this much of a long request, or 0. False: there is no room for that, and it must go.
    pub(crate) fn hold(&self, bytes: usize) -> bool {
        let others = self.server.long_requests_bytes.get() - self.long_request_bytes.replace(bytes);
        self.server.long_requests_bytes.set(others + bytes);
        bytes == 0 || others + bytes <= MAX_LONG_REQUESTS_BYTES
    }
}

impl<R: AsyncRuntime> Drop for Seat<R> {
    fn drop(&mut self) {
        self.hold(0);
        self.server.clients.set(self.server.clients.get() - 1);
    }
}

/// The text fits into the buffer of any new socket, so this doesn't wait for the client.
async fn refuse(stream: impl Stream) {
    let (_reader, mut writer) = stream.split();
    let text = Bytes::from_static(b"-ERR max number of clients reached\r\n");
    let _ = writer.write_all(vec![text]).await;
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
