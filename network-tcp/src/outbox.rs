//! The outbox of a peer's lane: what waits for the task that writes it. No I/O.

use std::cell::{Cell, RefCell};
use std::mem;
use std::rc::Rc;

use bytes::{Buf, Bytes};
use quorate_core::codec::Gather;
use quorate_core::{Obstacle, Replica};
use quorate_rt::channel::Signal;

use crate::addresses::Address;
use crate::frame::put_frame;
use crate::handshake::Lane;
use crate::sessions::{Control, ECHO_FRAME, PING_FRAME, Session};

/// What waits for a connection, in bytes (and one message more): enough for the first words of an
/// election, as what is older than a failed attempt is worthless.
const UNCONNECTED_BYTES: usize = 64 << 10;

/// What the transport and the peer's task share.
pub(crate) struct Link {
    /// Whom it is for; maybe [`any`](Replica::any) of a node.
    pub(crate) to: Replica,
    pub(crate) lane: Lane,
    pub(crate) address: Address,
    outbox: RefCell<Outbox>,
    /// Raised when there is something to write.
    pub(crate) filled: Rc<Signal>,
    /// It is connected to even if there is nothing to say to it.
    wanted: Cell<bool>,
    /// What came of the last attempt to connect, or of the last connection, if that was no good.
    trouble: RefCell<Option<Obstacle>>,
}

#[derive(Default)]
struct Outbox {
    /// What may go over any connection. It overtakes the others.
    formation: Queue,
    /// What needs a proven connection.
    others: Queue,
    /// What the task has taken and not yet written: it is memory, too.
    writing_bytes: usize,
    writing_frames: u64,
    /// Over which it is written, until that has ended.
    connection: Option<Rc<Session>>,
}

#[derive(Default)]
struct Queue {
    waiting: Gather,
    frames: u64,
    /// What waited when the present attempt to connect began, in bytes and in messages.
    old: (usize, u64),
}

impl Queue {
    fn drop_old(&mut self) -> u64 {
        let (mut bytes, frames) = mem::take(&mut self.old);
        for mut chunk in self.waiting.take() {
            let dropped = bytes.min(chunk.len());
            bytes -= dropped;
            chunk.advance(dropped);
            self.waiting.put_bytes(&chunk);
        }
        self.frames -= frames;
        frames
    }
}

impl Outbox {
    fn bytes(&self) -> usize {
        self.formation.waiting.len() + self.others.waiting.len() + self.writing_bytes
    }
}

impl Link {
    pub(crate) fn new(to: Replica, lane: Lane, address: Address) -> Self {
        Self {
            to,
            lane,
            address,
            outbox: RefCell::default(),
            filled: Rc::default(),
            wanted: Cell::new(false),
            trouble: RefCell::default(),
        }
    }

    /// What hinders the exchange with the peer, as far as it is known here.
    pub(crate) fn trouble(&self) -> Option<Obstacle> {
        self.trouble.borrow().clone()
    }

    pub(crate) fn set_trouble(&self, trouble: Option<Obstacle>) {
        self.trouble.replace(trouble);
    }

    /// From now on it is connected to even if there is nothing to say to it, or not any more.
    pub(crate) fn set_wanted(&self, wanted: bool) {
        if !self.wanted.replace(wanted) && wanted {
            self.filled.raise();
        }
    }

    /// Waits until it is to be connected to.
    pub(crate) async fn until_wanted(&self) {
        while !self.wanted.get() && self.has_nothing() {
            self.filled.wait().await;
        }
    }

    fn has_nothing(&self) -> bool {
        let outbox = self.outbox.borrow();
        outbox.formation.waiting.is_empty() && outbox.others.waiting.is_empty()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.outbox.borrow().connection.as_ref().is_some_and(|session| !session.has_ended())
    }

    /// Whether a message with commands is taken, and goes out without delay.
    pub(crate) fn is_ready(&self, max_outbox_bytes: usize) -> bool {
        let outbox = self.outbox.borrow();
        let is_open = |session: &Rc<Session>| session.proven && !session.has_ended();
        outbox.connection.as_ref().is_some_and(is_open) && outbox.bytes() < max_outbox_bytes
    }

    /// Whether another message is taken.
    pub(crate) fn takes(&self, is_formation: bool, max_outbox_bytes: usize) -> bool {
        let outbox = self.outbox.borrow();
        let limit = match outbox.connection.as_ref().filter(|session| !session.has_ended()) {
            None => max_outbox_bytes.min(UNCONNECTED_BYTES),
            Some(session) if !session.proven && !is_formation => return false,
            Some(_) => max_outbox_bytes,
        };
        outbox.bytes() < limit
    }

    /// Puts a message behind the others; the task looks at it after this turn.
    pub(crate) fn push(&self, body: &mut Gather, is_formation: bool) {
        let outbox = &mut *self.outbox.borrow_mut();
        let queue = if is_formation { &mut outbox.formation } else { &mut outbox.others };
        put_frame(&mut queue.waiting, body);
        queue.frames += 1;
        self.filled.raise();
    }

    /// An attempt to connect begins. There is no connection.
    pub(crate) fn attempt_begins(&self) {
        let Outbox { formation, others, .. } = &mut *self.outbox.borrow_mut();
        for queue in [formation, others] {
            queue.old = (queue.waiting.len(), queue.frames);
        }
    }

    /// It has failed: throws away what is older than it, and says how many messages that were.
    pub(crate) fn attempt_has_failed(&self) -> u64 {
        let Outbox { formation, others, .. } = &mut *self.outbox.borrow_mut();
        formation.drop_old() + others.drop_old()
    }

    /// Throws away what waits and what has not been written to its end, and says how many messages
    /// that were.
    pub(crate) fn clear(&self) -> u64 {
        let lost = self.outbox.take();
        lost.formation.frames + lost.others.frames + lost.writing_frames
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.outbox.borrow().bytes()
    }

    /// Waits until there is something to write over this connection.
    pub(crate) async fn until_filled(&self, session: &Session) {
        while self.has_nothing() && !session.is_due() {
            self.filled.wait().await;
        }
    }

    /// A connection is there. Gives how many messages wait that can't go over it, and are dropped.
    pub(crate) fn connected(&self, session: &Rc<Session>) -> u64 {
        let outbox = &mut *self.outbox.borrow_mut();
        outbox.connection = Some(Rc::clone(session));
        self.filled.raise();
        if session.proven { 0 } else { mem::take(&mut outbox.others).frames }
    }

    /// The connection is gone, and what waits is for the next one. Gives how many messages were
    /// being written.
    pub(crate) fn disconnected(&self) -> u64 {
        let outbox = &mut *self.outbox.borrow_mut();
        outbox.connection = None;
        outbox.writing_bytes = 0;
        mem::take(&mut outbox.writing_frames)
    }

    pub(crate) fn begin_write(&self, session: &Session) -> (Vec<Bytes>, usize) {
        let outbox = &mut *self.outbox.borrow_mut();
        assert!(outbox.writing_frames == 0, "one write at a time");
        // Before all that waits: a ping is answered soon, or in vain.
        let mut control = Gather::new();
        for due in session.take_due() {
            let mut body = Gather::new();
            body.put_u8(match due {
                Control::Ping => PING_FRAME,
                Control::Echo => ECHO_FRAME,
            });
            put_frame(&mut control, &mut body);
        }
        outbox.writing_bytes = outbox.bytes() + control.len();
        let mut batch = Vec::new();
        let Outbox { formation, others, .. } = outbox;
        for waiting in [&mut control, &mut formation.waiting, &mut others.waiting] {
            match batch.is_empty() {
                true => batch = waiting.take(),
                false => batch.append(&mut waiting.take()),
            }
        }
        for queue in [formation, others] {
            outbox.writing_frames += mem::take(&mut queue.frames);
        }
        (batch, outbox.writing_bytes)
    }

    pub(crate) fn end_write(&self) -> (usize, u64) {
        let outbox = &mut *self.outbox.borrow_mut();
        (mem::take(&mut outbox.writing_bytes), mem::take(&mut outbox.writing_frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::HEADER_BYTES;

    #[test]
    fn a_failed_attempt_throws_away_what_is_older_and_keeps_what_came_since() {
        let address = Address { at: "a:1".to_owned(), is_configured: true };
        let link = Link::new(Replica::new(2, 7), Lane::Main, address);
        let push = |bytes: usize, is_formation| {
            let mut body = Gather::new();
            body.put_bytes(&Bytes::from(vec![bytes as u8; bytes]));
            link.push(&mut body, is_formation);
        };
        push(3000, false);
        push(5, false);
        push(7, true);
        link.attempt_begins();
        push(11, false);
        push(2000, false);
        push(13, true);
        assert_eq!(link.attempt_has_failed(), 3);
        assert_eq!(link.bytes(), 3 * HEADER_BYTES + 11 + 2000 + 13);
        // An attempt that nothing waited for throws nothing away.
        assert_eq!(link.attempt_has_failed(), 0);
        let waiting = link.outbox.borrow_mut().others.waiting.take().concat();
        let expected = [&[11; 11][..], &[208; 2000]].map(<[u8]>::to_vec);
        let bodies = [&waiting[HEADER_BYTES..][..11], &waiting[2 * HEADER_BYTES + 11..]];
        assert_eq!(bodies, expected);
        assert_eq!(link.clear(), 3, "those that came since");
    }
}
