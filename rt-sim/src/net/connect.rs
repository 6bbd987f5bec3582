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
use super::{address_of, host_at};
use crate::generator::nanos;
use crate::host::HostState;
use crate::world::World;

/// After how long an attempt that gets no answer is repeated; each time after twice that.
const REPEATED: Duration = Duration::from_secs(1);
/// How often, until it is given up.
const ATTEMPTS: u32 = 5;

/// An attempt to connect, as long as somebody waits for it.
struct Connecting {
    from: Rc<HostState>,
    to: SocketAddr,
    port: u16,
    attempts: Cell<u32>,
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
}

impl SimStream {
    pub(crate) async fn connect(
        world: &Rc<World>,
        from: &Rc<HostState>,
        to: SocketAddr,
    ) -> io::Result<Self> {
        let connecting = Rc::new(Connecting {
            from: Rc::clone(from),
            to,
            port: from.take_port(),
            attempts: Cell::new(0),
            outcome: RefCell::default(),
            waker: RefCell::default(),
        });
        let hang = world.net.config.borrow().hang;
        let itself = from.has(to.ip());
        if !itself && world.networking.chance(hang) {
            world.trace.count("connecting hangs");
            connecting.attempts.set(ATTEMPTS); // It is repeated once, in vain, and long after anybody's patience.
            repeat(world, &Rc::downgrade(&connecting));
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
    let from = &connecting.from;
    let to = host_at(world, from, connecting.to.ip());
    let delay = world.net.delay(world, from.id, to.as_ref().map_or(from.id, |to| to.id));
    let connecting = Rc::downgrade(connecting);
    world.at(world.now() + delay, move |world| {
        let Some(waiting) = connecting.upgrade() else { return };
        match to {
            Some(to) if passes(world, &waiting.from, &to) => asked(world, &waiting, &to),
            _ => repeat(world, &connecting),
        }
    });
}

fn passes(world: &World, from: &HostState, to: &HostState) -> bool {
    from.is_powered() && to.is_powered() && !world.net.is_cut(from.id, to.id)
}

/// The packet is there.
fn asked(world: &Rc<World>, waiting: &Rc<Connecting>, to: &Rc<HostState>) {
    let from = &waiting.from;
    let listening = world.net.listening.borrow().get(&(to.id, waiting.to.port())).cloned();
    let refusal = world.net.config.borrow().refusal;
    let refuses = from.id != to.id && world.networking.chance(refusal);
    if refuses {
        world.trace.count("connection refused");
    }
    let connection = match listening.filter(|_| !refuses) {
        None => None,
        Some(listening) => {
            let connection = Connection::new(world, Rc::clone(from), Rc::clone(to));
            let peer = address_of(from, waiting.to.ip(), waiting.port);
            if !listening.take_in(&connection, peer) {
                return repeat(world, &Rc::downgrade(waiting));
            }
            Some(connection)
        }
    };
    world.note(to.id, "is connected to", from.id.0 as u64, u64::from(connection.is_some()));
    answer(world, Rc::downgrade(waiting), connection, Rc::clone(to));
}

/// Sends the packet back.
fn answer(
    world: &Rc<World>,
    connecting: Weak<Connecting>,
    connection: Option<Rc<Connection>>,
    by: Rc<HostState>,
) {
    let Some(waiting) = connecting.upgrade() else {
        // Nobody waits for it any more, and the kernel says so.
        if let Some(connection) = connection {
            connection.close(world, Side::Connector);
        }
        return;
    };
    let delay = world.net.delay(world, by.id, waiting.from.id);
    world.at(world.now() + delay, move |world| {
        let Some(waiting) = connecting.upgrade() else {
            if let Some(connection) = connection {
                connection.close(world, Side::Connector);
            }
            return;
        };
        if !passes(world, &by, &waiting.from) {
            let pause = nanos(REPEATED);
            return world.at(world.now() + pause, move |world| {
                answer(world, connecting, connection, by);
            });
        }
        waiting.end(match connection {
            Some(connection) => Ok(SimStream::new(world, connection, Side::Connector)),
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        });
    });
}

/// No answer: once more, or never.
fn repeat(world: &Rc<World>, connecting: &Weak<Connecting>) {
    let Some(waiting) = connecting.upgrade() else { return };
    let attempts = waiting.attempts.get();
    waiting.attempts.set(attempts + 1);
    let connecting = Weak::clone(connecting);
    world.at(world.now() + (nanos(REPEATED) << attempts.min(ATTEMPTS)), move |world| {
        let Some(waiting) = connecting.upgrade() else { return };
        if attempts >= ATTEMPTS {
            waiting.end(Err(io::ErrorKind::TimedOut.into()));
        } else {
            ask(world, &waiting);
        }
    });
}
