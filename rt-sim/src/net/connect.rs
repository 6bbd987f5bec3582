//! Connecting: a packet there, and one back; each may be lost, and is then repeated.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::connection::{Connection, Side};
use super::stream::SimStream;
use super::{Net, address_of, host_at};
use crate::generator::nanos;
use crate::host::HostState;
use crate::world::World;

/// After how long an attempt that gets no answer is repeated; each time after twice that.
const REPEATED: Duration = Duration::from_secs(1);
/// How often, until it is given up.
const ATTEMPTS: u32 = 5;

/// An attempt to connect, as long as somebody waits for it.
struct Connecting {
    world: Rc<World>,
    from: Rc<HostState>,
    to: SocketAddr,
    port: u16,
    attempts: Cell<u32>,
    /// What the other host has made of it, before this one has heard of that.
    taken_in: RefCell<Option<Rc<Connection>>>,
    outcome: RefCell<Option<io::Result<SimStream>>>,
    waker: RefCell<Option<Waker>>,
}

impl Connecting {
    fn end(&self, outcome: io::Result<SimStream>) {
        self.outcome.replace(Some(outcome));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Nobody waits for it any more, and the kernel says so.
    fn close(&self) {
        if let Some(connection) = self.taken_in.take() {
            connection.close(&self.world, Side::Connector);
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.close();
    }
}

impl SimStream {
    pub(crate) async fn connect(
        world: &Rc<World>,
        from: &Rc<HostState>,
        to: SocketAddr,
    ) -> io::Result<Self> {
        from.take_socket(world)?;
        let connecting = Rc::new(Connecting {
            world: Rc::clone(world),
            from: Rc::clone(from),
            to,
            port: from.take_port(),
            attempts: Cell::new(0),
            taken_in: RefCell::default(),
            outcome: RefCell::default(),
            waker: RefCell::default(),
        });
        let hang = world.net.config.borrow().hang;
        let itself = from.has(to.ip());
        if !itself && world.networking.chance(hang) {
            world.trace.count("connecting hangs");
            // It is repeated once, in vain, and long after anybody's patience.
            connecting.attempts.set(ATTEMPTS);
            repeat(world, &connecting);
        } else {
            ask(world, &connecting);
        }
        poll_fn(|context| match connecting.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                connecting.waker.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

/// Sends the packet there.
fn ask(world: &Rc<World>, connecting: &Rc<Connecting>) {
    let from = connecting.from.id;
    let to = host_at(world, &connecting.from, connecting.to.ip());
    let link = (from, to.as_ref().map_or(from, |to| to.id));
    let at = world.now() + world.net.delay(world, link.0, link.1);
    let connecting = Rc::downgrade(connecting);
    Net::when_it_arrives(world, at, link, move |world| {
        let Some(waiting) = connecting.upgrade() else { return };
        match to {
            Some(to) if passes(world, &waiting.from, &to) => asked(world, &waiting, &to),
            _ => repeat(world, &waiting),
        }
    });
}

fn passes(world: &World, from: &HostState, to: &HostState) -> bool {
    from.is_powered() && to.is_powered() && !world.net.is_cut(from.id, to.id)
}

/// The packet is there.
fn asked(world: &Rc<World>, waiting: &Rc<Connecting>, to: &Rc<HostState>) {
    let from = &waiting.from;
    // It may have been there before, and the answer was lost.
    if waiting.taken_in.borrow().as_ref().is_none_or(|before| before.is_broken(Side::Acceptor)) {
        waiting.close();
        let listening = world.net.listening.borrow().get(&(to.id, waiting.to.port())).cloned();
        let refusal = world.net.config.borrow().refusal;
        let refuses = from.id != to.id && world.networking.chance(refusal);
        if refuses {
            world.trace.count("connection refused");
        }
        if let Some(listening) = listening.filter(|_| !refuses) {
            let connection = Connection::new(world, Rc::clone(from), Rc::clone(to));
            let peer = address_of(from, waiting.to.ip(), waiting.port);
            if !listening.take_in(&connection, peer) {
                return repeat(world, waiting);
            }
            waiting.taken_in.replace(Some(connection));
        }
    }
    let is_taken_in = waiting.taken_in.borrow().is_some();
    world.note(to.id, "is connected to", from.id.0 as u64, u64::from(is_taken_in));
    answer(world, Rc::downgrade(waiting), Rc::clone(to));
}

/// Sends the packet back: that it is taken in, or refused.
fn answer(world: &Rc<World>, connecting: Weak<Connecting>, by: Rc<HostState>) {
    let Some(waiting) = connecting.upgrade() else { return };
    let link = (by.id, waiting.from.id);
    let at = world.now() + world.net.delay(world, link.0, link.1);
    Net::when_it_arrives(world, at, link, move |world| {
        let Some(waiting) = connecting.upgrade() else { return };
        if !passes(world, &by, &waiting.from) {
            return repeat(world, &waiting);
        }
        let taken_in = waiting.taken_in.take();
        waiting.end(match taken_in {
            Some(connection) => Ok(SimStream::new(world, connection, Side::Connector)),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        });
    });
}

/// No answer: once more, or never.
fn repeat(world: &World, waiting: &Rc<Connecting>) {
    let attempts = waiting.attempts.get();
    waiting.attempts.set(attempts + 1);
    let connecting = Rc::downgrade(waiting);
    world.at(world.now() + (nanos(REPEATED) << attempts.min(ATTEMPTS)), move |world| {
        let Some(waiting) = connecting.upgrade() else { return };
        if attempts >= ATTEMPTS {
            waiting.close();
            waiting.end(Err(io::ErrorKind::TimedOut.into()));
        } else {
            ask(world, &waiting);
        }
    });
}
