//! A side of a connection, as a process has it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use quorate_rt::{ReadHalf, Stream, WriteHalf};

use super::connection::{Connection, Side};
use crate::world::World;

/// How much of a write that was dropped still goes out, at most: the operating system may have
/// begun to copy that.
const STILL_GOES: u64 = 128 << 10;

/// One side of a connection; closes it when it is dropped.
struct Socket {
    world: Rc<World>,
    connection: Rc<Connection>,
    side: Side,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.connection.close(&self.world, self.side);
    }
}

/// A TCP connection.
pub struct SimStream {
    socket: Rc<Socket>,
}

impl SimStream {
    pub(super) fn new(world: &Rc<World>, connection: Rc<Connection>, side: Side) -> Self {
        Self { socket: Rc::new(Socket { world: Rc::clone(world), connection, side }) }
    }
}

impl Stream for SimStream {
    type ReadHalf = SimReadHalf;
    type WriteHalf = SimWriteHalf;

    fn split(self) -> (SimReadHalf, SimWriteHalf) {
        let reading = SimReadHalf { socket: Rc::clone(&self.socket) };
        (reading, SimWriteHalf { socket: self.socket })
    }
}

/// The reading side of a connection.
pub struct SimReadHalf {
    socket: Rc<Socket>,
}

impl SimReadHalf {
    fn poll_read(&self, context: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        let Socket { world, connection, side } = &*self.socket;
        let mut state = connection.state(*side).borrow_mut();
        if let Some(kind) = state.broken {
            return Poll::Ready(Err(kind.into()));
        }
        let Some(first) = state.arrived.front_mut() else {
            if state.ended {
                return Poll::Ready(Ok(0));
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        };
        let count = first.len().min(into.capacity() - into.len());
        into.extend_from_slice(&first[..count]);
        first.advance(count);
        if first.is_empty() {
            state.arrived.pop_front();
        }
        drop(state);
        connection.consumed(world, *side, count);
        Poll::Ready(Ok(count))
    }
}

/// A read that was dropped before it ended: what comes next may go into its buffer.
struct Reading<'a> {
    socket: &'a Socket,
    room: usize,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if self.room > 0 && self.socket.world.networking.chance(0.5) {
            self.socket.connection.state(self.socket.side).borrow_mut().swallows = self.room;
        }
    }
}

impl ReadHalf for SimReadHalf {
    async fn read(&mut self, mut into: BytesMut) -> (io::Result<usize>, BytesMut) {
        let room = into.capacity() - into.len();
        if room == 0 {
            return (Err(io::ErrorKind::InvalidInput.into()), into);
        }
        let mut reading = Reading { socket: &self.socket, room };
        let result = poll_fn(|context| self.poll_read(context, &mut into)).await;
        reading.room = 0;
        drop(reading);
        (result, into)
    }
}

/// The writing side of a connection.
pub struct SimWriteHalf {
    socket: Rc<Socket>,
}

/// A write under way. If it is dropped, some of the rest may still go out.
struct Writing<'a> {
    socket: &'a Socket,
    rest: std::vec::IntoIter<Bytes>,
    next: Bytes,
}

impl Writing<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Socket { world, connection, side } = self.socket;
        loop {
            let state = connection.state(*side).borrow();
            let kind = state.broken.or(state.shut.then_some(io::ErrorKind::BrokenPipe));
            if let Some(kind) = kind {
                self.finish();
                return Poll::Ready(Err(kind.into()));
            }
            drop(state);
            while self.next.is_empty() {
                match self.rest.next() {
                    Some(next) => self.next = next,
                    None => return Poll::Ready(Ok(())),
                }
            }
            let room = connection.room(*side).min(self.next.len());
            if room == 0 {
                connection.state(*side).borrow_mut().writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            let part = self.next.split_to(room);
            connection.send(world, *side, part);
        }
    }

    fn finish(&mut self) {
        self.next = Bytes::new();
        self.rest = Vec::new().into_iter();
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Socket { world, connection, side } = self.socket;
        let is_over = self.next.is_empty() && self.rest.len() == 0;
        if is_over || connection.host(*side).is_dying() || world.networking.chance(0.5) {
            return;
        }
        let mut left = world.networking.below(STILL_GOES) as usize;
        let rest = std::mem::take(&mut self.rest);
        for part in [std::mem::take(&mut self.next)].into_iter().chain(rest) {
            let part = part.slice(..part.len().min(left));
            left -= part.len();
            connection.send(world, *side, part);
        }
        world.trace.count("write dropped and done");
    }
}

impl WriteHalf for SimWriteHalf {
    async fn write_all(&mut self, from: Vec<Bytes>) -> io::Result<()> {
        let mut writing =
            Writing { socket: &self.socket, rest: from.into_iter(), next: Bytes::new() };
        poll_fn(|context| writing.poll(context)).await
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        let Socket { world, connection, side } = &*self.socket;
        if let Some(kind) = connection.state(*side).borrow().broken {
            return Err(kind.into());
        }
        connection.shut(world, *side);
        Ok(())
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream").field("side", &self.socket.side).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimReadHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimReadHalf").field("side", &self.socket.side).finish_non_exhaustive()
    }
}

impl fmt::Debug for SimWriteHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimWriteHalf").field("side", &self.socket.side).finish_non_exhaustive()
    }
}
