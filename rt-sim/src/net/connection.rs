//! A connection: two ends, and what is under way between them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;

use super::{GIVES_UP, Net, REPEATS};
use crate::generator::nanos;
use crate::host::{HostId, HostState};
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Connector = 0,
    Acceptor = 1,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Connector => Self::Acceptor,
            Self::Acceptor => Self::Connector,
        }
    }
}

pub(crate) struct Connection {
    ends: [End; 2],
    window: usize,
}

struct End {
    host: Rc<HostState>,
    state: RefCell<EndState>,
}

#[derive(Default)]
pub(crate) struct EndState {
    /// What this end has sent and the other end has not got yet, and when it is due there.
    sent: VecDeque<(u64, Segment)>,
    /// When the last of it is due.
    last_due: u64,
    /// An event that looks at the first of it is planned.
    planned: bool,
    /// Since when it is repeated in vain, how often it was, and until when it will be.
    repeats: Option<Repeats>,
    /// What of this end's window is in use: what is under way, or has arrived and was not read, or
    /// was read and its acknowledgement has not come.
    used: usize,
    /// The acknowledgements that have not come.
    unacknowledged: usize,
    /// What it has sent has arrived, and no acknowledgement of that can come: until when it waits
    /// for one.
    patient_until: Option<u64>,
    /// It has sent its end.
    pub(crate) shut: bool,
    pub(crate) writer: Option<Waker>,
    /// What has arrived at this end.
    pub(crate) arrived: VecDeque<Bytes>,
    pub(crate) ended: bool,
    pub(crate) reader: Option<Waker>,
    /// A read was dropped: so much of what arrives goes into a buffer that nobody has.
    pub(crate) swallows: usize,
    /// Why nothing goes in or out any more.
    pub(crate) broken: Option<io::ErrorKind>,
    /// Nobody has it open.
    closed: bool,
}

enum Segment {
    Data(Bytes),
    End,
}

struct Repeats {
    pause: u64,
    until: u64,
}

impl EndState {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn break_off(&mut self, kind: io::ErrorKind) {
        self.broken.get_or_insert(kind);
        self.patient_until = None;
        self.sent.clear();
        self.arrived.clear();
        self.wake();
    }

    fn acknowledged(&mut self, bytes: usize) {
        self.used -= bytes;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

impl Connection {
    pub(crate) fn new(
        world: &World,
        connector: Rc<HostState>,
        acceptor: Rc<HostState>,
    ) -> Rc<Self> {
        let config = world.net.config.borrow();
        let window = world.networking.within(&config.window).max(1) as usize;
        let end = |host| End { host, state: RefCell::default() };
        let connection = Rc::new(Self { ends: [end(connector), end(acceptor)], window });
        world.net.add(&connection);
        connection
    }

    fn end(&self, side: Side) -> &End {
        &self.ends[side as usize]
    }

    pub(crate) fn host(&self, side: Side) -> &Rc<HostState> {
        &self.end(side).host
    }

    pub(crate) fn state(&self, side: Side) -> &RefCell<EndState> {
        &self.end(side).state
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open_at(Side::Connector) || self.is_open_at(Side::Acceptor)
    }

    pub(crate) fn is_open_at(&self, side: Side) -> bool {
        let state = self.state(side).borrow();
        !state.closed && state.broken.is_none()
    }

    pub(crate) fn is_broken(&self, side: Side) -> bool {
        self.state(side).borrow().broken.is_some()
    }

    /// The link over which this side sends.
    fn link(&self, side: Side) -> (HostId, HostId) {
        (self.host(side).id, self.host(side.other()).id)
    }

    /// Whether what is sent there arrives.
    fn passes(&self, world: &World, from: Side) -> bool {
        let (from, to) = (self.host(from), self.host(from.other()));
        from.is_powered() && to.is_powered() && !world.net.is_cut(from.id, to.id)
    }

    /// How much more this side may send now.
    pub(crate) fn room(&self, side: Side) -> usize {
        self.window.saturating_sub(self.state(side).borrow().used)
    }

    /// Sends data, within the window or not.
    pub(crate) fn send(self: &Rc<Self>, world: &Rc<World>, side: Side, mut data: Bytes) {
        if self.host(side).is_dying() {
            return;
        }
        self.state(side).borrow_mut().used += data.len();
        while !data.is_empty() {
            let len = {
                let config = world.net.config.borrow();
                world.networking.within(&config.segment).clamp(1, data.len() as u64)
            };
            let segment = data.split_to(len as usize);
            self.push(world, side, Segment::Data(segment));
        }
    }

    /// Sends the end of the stream.
    pub(crate) fn shut(self: &Rc<Self>, world: &Rc<World>, side: Side) {
        if !std::mem::replace(&mut self.state(side).borrow_mut().shut, true) {
            self.push(world, side, Segment::End);
        }
    }

    fn push(self: &Rc<Self>, world: &Rc<World>, side: Side, segment: Segment) {
        let (from, to) = self.link(side);
        let bytes = match &segment {
            Segment::Data(data) => data.len() as u64,
            Segment::End => 0,
        };
        let mut due = world.net.carried(world, from, to, bytes) + world.net.delay(world, from, to);
        let loss = world.net.config.borrow().loss;
        if from != to && world.networking.chance(loss) {
            world.trace.count("segment lost");
            due += nanos(REPEATS.start);
        }
        let mut state = self.state(side).borrow_mut();
        // In order, whatever each one takes.
        state.last_due = state.last_due.max(due);
        let due = state.last_due;
        state.sent.push_back((due, segment));
        drop(state);
        self.plan(world, side);
    }

    /// Plans to look at what is due next.
    fn plan(self: &Rc<Self>, world: &Rc<World>, side: Side) {
        let mut state = self.state(side).borrow_mut();
        let Some(due) = state.sent.front().map(|(due, _)| *due) else { return };
        if std::mem::replace(&mut state.planned, true) {
            return;
        }
        drop(state);
        let connection = Rc::clone(self);
        Net::when_it_arrives(world, due, self.link(side), move |world| {
            connection.arrive(world, side);
        });
    }

    /// What this side has sent may arrive now.
    fn arrive(self: &Rc<Self>, world: &Rc<World>, side: Side) {
        self.state(side).borrow_mut().planned = false;
        if !self.passes(world, side) {
            return self.repeat(world, side);
        }
        self.state(side).borrow_mut().repeats = None;
        while let Some(segment) = self.next_due(world, side) {
            self.deliver(world, side, segment);
        }
        self.plan(world, side);
    }

    fn next_due(&self, world: &World, side: Side) -> Option<Segment> {
        let mut state = self.state(side).borrow_mut();
        state.sent.pop_front_if(|(due, _)| *due <= world.now()).map(|(_, segment)| segment)
    }

    fn deliver(self: &Rc<Self>, world: &Rc<World>, side: Side, segment: Segment) {
        let receiver = self.host(side.other()).id;
        let mut state = self.state(side.other()).borrow_mut();
        if state.closed && matches!(segment, Segment::End) && state.broken.is_none() {
            return; // Now both sides have closed it, in order.
        }
        if state.closed || state.broken.is_some() {
            drop(state);
            return self.send_reset(world, side.other());
        }
        match segment {
            Segment::Data(data) => {
                let content = u64::from(crc32fast::hash(&data));
                world.note(receiver, "receives", data.len() as u64, content);
                let swallowed = state.swallows.min(data.len());
                state.swallows = 0;
                if swallowed > 0 {
                    world.trace.count("read dropped with its bytes");
                }
                let rest = data.slice(swallowed..);
                if !rest.is_empty() {
                    state.arrived.push_back(rest);
                }
                if let Some(reader) = state.reader.take() {
                    reader.wake();
                }
                drop(state);
                self.misses_acknowledgement(world, side);
                if swallowed > 0 {
                    self.consumed(world, side.other(), swallowed);
                }
            }
            Segment::End => {
                world.note(receiver, "receives an end", 0, 0);
                state.ended = true;
                if let Some(reader) = state.reader.take() {
                    reader.wake();
                }
            }
        }
    }

    /// Nothing gets through: it is sent again after a while, or given up.
    fn repeat(self: &Rc<Self>, world: &Rc<World>, side: Side) {
        if !self.host(side).is_powered() {
            return; // There is nobody to repeat it.
        }
        let mut state = self.state(side).borrow_mut();
        if state.sent.is_empty() {
            return;
        }
        let repeats = state.repeats.get_or_insert_with(|| Repeats {
            pause: nanos(REPEATS.start) / 2,
            until: world.now() + nanos(world.networking.duration(&GIVES_UP)),
        });
        if world.now() >= repeats.until {
            drop(state);
            return self.give_up(world, side);
        }
        repeats.pause = (2 * repeats.pause).min(nanos(REPEATS.end));
        let at = world.now() + repeats.pause;
        state.planned = true;
        drop(state);
        let connection = Rc::clone(self);
        Net::when_it_arrives(world, at, self.link(side), move |world| {
            connection.arrive(world, side);
        });
    }

    /// This side has read so much; the other one learns of it, if it can.
    pub(crate) fn consumed(self: &Rc<Self>, world: &Rc<World>, side: Side, bytes: usize) {
        self.state(side.other()).borrow_mut().unacknowledged += bytes;
        let connection = Rc::clone(self);
        world.net.unless_stalled(world, self.link(side), move |world| {
            connection.acknowledge(world, side);
        });
    }

    /// The other side learns of all that this one has read, if it can.
    fn acknowledge(&self, world: &World, side: Side) {
        if self.passes(world, side) {
            let mut sender = self.state(side.other()).borrow_mut();
            let bytes = std::mem::take(&mut sender.unacknowledged);
            sender.patient_until = None;
            sender.acknowledged(bytes);
        }
    }

    /// What this side has sent has arrived. Where no acknowledgement of it can come, it has
    /// patience for so long.
    fn misses_acknowledgement(self: &Rc<Self>, world: &World, side: Side) {
        let mut state = self.state(side).borrow_mut();
        if self.passes(world, side.other()) || state.patient_until.is_some() {
            return;
        }
        let until = world.now() + nanos(world.networking.duration(&GIVES_UP));
        state.patient_until = Some(until);
        let connection = Rc::clone(self);
        world.at(until, move |world| {
            if connection.state(side).borrow().patient_until == Some(until) {
                connection.give_up(world, side);
            }
        });
    }

    fn give_up(&self, world: &World, side: Side) {
        world.trace.count("connection timed out");
        world.note(self.host(side).id, "gives up a connection", 0, 0);
        self.state(side).borrow_mut().break_off(io::ErrorKind::TimedOut);
    }

    /// A link was healed, maybe one of these.
    pub(crate) fn healed(&self, world: &World) {
        for side in [Side::Connector, Side::Acceptor] {
            self.acknowledge(world, side);
        }
    }

    /// Nobody has this side open any more. What was sent goes on its way.
    pub(crate) fn close(self: &Rc<Self>, world: &Rc<World>, side: Side) {
        let mut state = self.state(side).borrow_mut();
        let was_closed = std::mem::replace(&mut state.closed, true);
        if !self.host(side).is_powered() {
            // When the machine runs again, it knows nothing of it.
            return state.break_off(io::ErrorKind::ConnectionReset);
        }
        if was_closed {
            return;
        }
        let unread = !state.arrived.is_empty();
        state.arrived.clear();
        let dropped = (state.reader.take(), state.writer.take());
        let broken = state.broken.is_some();
        drop(state);
        drop(dropped);
        if broken {
            return;
        }
        if unread {
            self.state(side).borrow_mut().sent.clear();
            self.send_reset(world, side);
        } else {
            self.shut(world, side);
        }
    }

    /// This side tells the other one that there is no connection any more. If that is lost, the
    /// other one learns of it when it sends something.
    fn send_reset(self: &Rc<Self>, world: &Rc<World>, side: Side) {
        if !self.host(side).is_powered() {
            return;
        }
        let (from, to) = self.link(side);
        let at = world.now() + world.net.delay(world, from, to);
        let connection = Rc::clone(self);
        Net::when_it_arrives(world, at, (from, to), move |world| {
            if connection.passes(world, side) {
                world.note(connection.host(side.other()).id, "receives a reset", 0, 0);
                let mut state = connection.state(side.other()).borrow_mut();
                state.break_off(io::ErrorKind::ConnectionReset);
            }
        });
    }

    /// Something in between has broken it, for both sides.
    pub(crate) fn break_off(&self, world: &World) {
        world.trace.count("connection reset");
        for end in &self.ends {
            world.note(end.host.id, "loses a connection", 0, 0);
            end.state.borrow_mut().break_off(io::ErrorKind::ConnectionReset);
        }
    }
}
