//! Listening sockets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use quorate_rt::Listener;

use super::connection::{Connection, Side};
use super::stream::SimStream;
use crate::host::HostState;
use crate::world::World;

/// How many connections the kernel keeps for a listener that is busy.
const BACKLOG: usize = 1024;

/// The kernel's part of a listening socket.
pub(super) struct Listening {
    backlog: RefCell<VecDeque<(Rc<Connection>, SocketAddr)>>,
    waker: RefCell<Option<Waker>>,
    closed: Cell<bool>,
}

impl Listening {
    /// Takes a connection in. False: there are too many.
    pub(super) fn take_in(&self, connection: &Rc<Connection>, peer: SocketAddr) -> bool {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.len() >= BACKLOG {
            return false;
        }
        backlog.push_back((Rc::clone(connection), peer));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        true
    }

    /// What was not accepted is closed.
    pub(super) fn close(&self, world: &Rc<World>) {
        self.closed.set(true);
        self.waker.take();
        let backlog = self.backlog.take();
        for (connection, _) in backlog {
            connection.close(world, Side::Acceptor);
        }
    }

    fn poll_accept(
        &self,
        world: &Rc<World>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(SimStream, SocketAddr)>> {
        if let Some((connection, peer)) = self.backlog.borrow_mut().pop_front() {
            return Poll::Ready(Ok((SimStream::new(world, connection, Side::Acceptor), peer)));
        }
        self.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }
}

/// A listening TCP socket.
pub struct SimListener {
    world: Rc<World>,
    host: Rc<HostState>,
    address: SocketAddr,
    listening: Rc<Listening>,
}

impl SimListener {
    pub(crate) fn bind(
        world: &Rc<World>,
        host: &Rc<HostState>,
        on: SocketAddr,
    ) -> io::Result<Self> {
        if !host.has(on.ip()) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let mut all = world.net.listening.borrow_mut();
        let port = match on.port() {
            0 => loop {
                let port = host.take_port();
                if !all.contains_key(&(host.id, port)) {
                    break port;
                }
            },
            port => port,
        };
        if all.contains_key(&(host.id, port)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let listening = Rc::new(Listening {
            backlog: RefCell::default(),
            waker: RefCell::default(),
            closed: Cell::new(false),
        });
        all.insert((host.id, port), Rc::clone(&listening));
        let address = SocketAddr::new(on.ip(), port);
        Ok(Self { world: Rc::clone(world), host: Rc::clone(host), address, listening })
    }
}

impl HostState {
    /// A port that was not given out lately.
    pub(super) fn take_port(&self) -> u16 {
        let port = self.next_port.get();
        self.next_port.set(port.checked_add(1).unwrap_or(32_768));
        port
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        // (The kernel takes a descriptor first, and then a connection for it.)
        self.host.take_socket(&self.world)?;
        poll_fn(|context| self.listening.poll_accept(&self.world, context)).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        // It may have been closed with its process, and the port be another's.
        if !self.listening.closed.get() {
            self.world.net.listening.borrow_mut().remove(&(self.host.id, self.address.port()));
            self.listening.close(&self.world);
        }
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimListener").field("address", &self.address).finish_non_exhaustive()
    }
}
