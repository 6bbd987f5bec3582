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
                connection::serve(&seat.0, stream, id).await;
                debug!(id, "a client has gone");
            };
            self.rt.spawn(task).detach();
        }
    }
}

/// A connection's place among [`MAX_CLIENTS`], given back however its task ends.
struct Seat<R: AsyncRuntime>(Rc<Server<R>>);

impl<R: AsyncRuntime> Seat<R> {
    fn take(server: Rc<Server<R>>) -> Self {
        server.clients.set(server.clients.get() + 1);
        Self(server)
    }
}

impl<R: AsyncRuntime> Drop for Seat<R> {
    fn drop(&mut self) {
        self.0.clients.set(self.0.clients.get() - 1);
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
