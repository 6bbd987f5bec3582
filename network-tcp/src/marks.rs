//! What an accepted connection has brought, and whether that is enough. The connections leave
//! marks, at which a sweep looks now and then, so that reading needs no timer.
//!
//! A connection is closed whose
//!
//! - frame under way does not advance: of one that is the same at two looks, at least
//!   [`LEAST_PROGRESS_BYTES`] must have come between them;
//! - peer has vanished: nothing has come for long. A member's main connection may be silent for as
//!   long as nothing is to be said, so it is pinged first. All others are closed by the peer itself
//!   when they are idle.

use std::cell::Cell;
use std::rc::Rc;

use quorate_rt::channel::Signal;
use quorate_rt::{Instant, Network};

use crate::config::Timing;
use crate::handshake::Lane;
use crate::lines::Cause;
use crate::sessions::{Session, Way};
use crate::transport::State;

/// What must come of a frame from one look to the next: less is slower than any link that carries
/// heartbeats and entries.
pub(crate) const LEAST_PROGRESS_BYTES: u64 = 16 << 10;

/// What has arrived on a connection.
#[derive(Default)]
pub(crate) struct Arrived {
    bytes: Cell<u64>,
    /// Raised when there are more bytes.
    pub(crate) more: Signal,
    frames: Cell<u64>,
    is_partial: Cell<bool>,
    waits: Cell<bool>,
    has_waited: Cell<bool>,
}

impl Arrived {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(crate) fn add(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.set(self.bytes.get() + bytes as u64);
            self.more.raise();
        }
    }

    pub(crate) fn add_frame(&self) {
        self.frames.set(self.frames.get() + 1);
    }

    /// Whether what has been read ends within a frame.
    pub(crate) fn set_partial(&self, is_partial: bool) {
        self.is_partial.set(is_partial);
    }

    /// It is not read, as there is no memory for what comes.
    pub(crate) fn set_waits(&self, waits: bool) {
        self.waits.set(waits);
        self.has_waited.set(true);
    }
}

/// A connection that is looked at.
pub(crate) struct Watched {
    arrived: Rc<Arrived>,
    session: Rc<Session>,
    /// What was seen at the last look.
    bytes: u64,
    frame: Option<u64>,
    /// Since when nothing has come.
    quiet_since: Instant,
    is_pinged: bool,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Its frame does not advance.
    Stalled,
    /// Its peer is silent for too long.
    Vanished,
}

impl Watched {
    pub(crate) fn new(arrived: Rc<Arrived>, session: Rc<Session>, now: Instant) -> Self {
        Self { arrived, session, bytes: 0, frame: None, quiet_since: now, is_pinged: false }
    }

    fn look(&mut self, now: Instant, timing: &Timing) -> Option<Closed> {
        let arrived = &self.arrived;
        let came = arrived.bytes.get() - self.bytes;
        let frame = arrived.is_partial.get().then_some(arrived.frames.get());
        self.bytes = arrived.bytes.get();
        let before = std::mem::replace(&mut self.frame, frame);
        // It was not read all the time, which is not the peer's fault.
        if arrived.waits.get() || arrived.has_waited.take() {
            (self.frame, self.quiet_since) = (None, now);
            return None;
        }
        if frame.is_some() && frame == before && came < LEAST_PROGRESS_BYTES {
            return Some(Closed::Stalled);
        }
        if came > 0 {
            (self.quiet_since, self.is_pinged) = (now, false);
        }
        let quiet = now - self.quiet_since;
        let is_kept = self.session.is_kept();
        let limit = match is_kept {
            true => 2 * timing.quiet,
            // The peer closes it much sooner, if it is there.
            false if self.session.proven => 2 * timing.idle,
            false => 2 * timing.unproven_idle,
        };
        if quiet >= limit {
            return Some(Closed::Vanished);
        }
        if is_kept && quiet >= timing.quiet && !self.is_pinged {
            self.is_pinged = true;
            self.session.ask();
        }
        None
    }
}

/// Looks at all connections now and then, as long as there are any.
pub(crate) async fn sweep<R: Network>(state: Rc<State<R>>) {
    let pause = state.timing.sweep;
    loop {
        while state.accepted.borrow().watched.is_empty() {
            state.sweeps.wait().await;
        }
        let due = state.rt.now() + pause;
        state.rt.sleep_until(due).await;
        let now = state.rt.now();
        // This thread was held up: it has not read yet what has come meanwhile.
        if now - due > pause / 2 {
            continue;
        }
        let closed: Vec<_> = {
            let accepted = &mut *state.accepted.borrow_mut();
            let look = |(id, watched): (&u64, &mut Watched)| {
                let why = watched.look(now, &state.timing)?;
                Some((*id, Rc::clone(&watched.session), why))
            };
            accepted.watched.iter_mut().filter_map(look).collect()
        };
        for (id, session, why) in closed {
            close(&state, id, &session, why);
        }
    }
}

fn close<R: Network>(state: &State<R>, id: u64, session: &Session, why: Closed) {
    let (peer, proven) = (session.peer, session.proven);
    state.count(|stats| match why {
        Closed::Stalled => stats.stalled += 1,
        Closed::Vanished => stats.vanished += 1,
    });
    let reason = match why {
        Closed::Stalled => "a frame has begun, and does not advance",
        Closed::Vanished => "nothing has come for long: the peer has vanished",
    };
    if proven {
        if let Some(suppressed) = state.lines.pass(Cause::Closed, state.rt.now()) {
            tracing::warn!(%peer, reason, suppressed, "the connection of a peer is closed");
        }
    } else if let Some(suppressed) = state.lines.pass(Cause::Unproven, state.rt.now()) {
        tracing::warn!(%peer, reason, suppressed, "an unproven connection is closed");
    }
    state.close_accepted(id);
}

impl Session {
    /// Whether the peer keeps it open even if it has nothing to say.
    fn is_kept(&self) -> bool {
        self.proven && self.way == Way::In { lane: Lane::Main, any: false }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_core::{Boot, Replica};

    use super::*;
    use crate::sessions::Control;

    const SECOND: Duration = Duration::from_secs(1);

    fn watched(proven: bool, lane: Lane) -> Watched {
        let way = Way::In { lane, any: false };
        let session = Session::new(Replica::new(2, 7), Boot::default(), proven, way, Rc::default());
        Watched::new(Rc::default(), session, at(0))
    }

    fn at(second: u32) -> Instant {
        Instant::from_nanos(0) + second * SECOND
    }

    /// The second at which it is closed, if it is looked at every five, and before that
    /// `happens` each time.
    fn closed(watched: &mut Watched, happens: impl Fn(&Watched)) -> Option<(u32, Closed)> {
        (5..600).step_by(5).find_map(|second| {
            happens(watched);
            watched.look(at(second), &Timing::DEFAULT).map(|why| (second, why))
        })
    }

    #[test]
    fn a_frame_that_does_not_advance_ends_its_connection_at_the_second_look() {
        for bytes in [0, 1, LEAST_PROGRESS_BYTES as usize - 1] {
            let mut one = watched(true, Lane::Main);
            let dripped = closed(&mut one, |one| {
                one.arrived.add(bytes);
                one.arrived.set_partial(true);
            });
            assert_eq!(dripped, Some((10, Closed::Stalled)));
        }
        let mut large = watched(true, Lane::Main);
        let advances = closed(&mut large, |one| {
            one.arrived.add(LEAST_PROGRESS_BYTES as usize);
            one.arrived.set_partial(true);
        });
        let mut small = watched(true, Lane::Main);
        let others = closed(&mut small, |one| {
            one.arrived.add(10);
            one.arrived.add_frame(); // Another one each time.
            one.arrived.set_partial(true);
        });
        assert_eq!((advances, others), (None, None));
    }

    #[test]
    fn who_is_not_read_is_not_blamed_for_it() {
        let mut one = watched(true, Lane::Main);
        one.arrived.add(100);
        one.arrived.set_partial(true);
        assert_eq!(one.look(at(5), &Timing::DEFAULT), None);
        one.arrived.set_waits(true);
        assert_eq!(closed(&mut one, |_| ()), None);
        // And not for the time before it is read again.
        one.arrived.set_waits(false);
        assert_eq!(one.look(at(605), &Timing::DEFAULT), None);
        assert_eq!(one.look(at(610), &Timing::DEFAULT), None);
        assert_eq!(one.look(at(615), &Timing::DEFAULT), Some(Closed::Stalled));
    }

    #[test]
    fn who_is_silent_is_pinged_and_closed_without_an_answer() {
        let mut silent = watched(true, Lane::Main);
        assert_eq!(closed(&mut silent, |_| ()), Some((30, Closed::Vanished)));
        assert_eq!(silent.session.take_due().collect::<Vec<_>>(), [Control::Ping]);
        let mut alive = watched(true, Lane::Main);
        let answers = |one: &Watched| one.session.take_due().for_each(|_| one.arrived.add(9));
        assert_eq!(closed(&mut alive, answers), None);
    }

    #[test]
    fn what_its_peer_closes_when_idle_is_not_pinged_which_would_keep_it_open() {
        for (proven, lane, second) in [(true, Lane::Bulk, 60), (false, Lane::Main, 10)] {
            let mut one = watched(proven, lane);
            assert_eq!(closed(&mut one, |_| ()), Some((second, Closed::Vanished)));
            assert_eq!(one.session.take_due().count(), 0);
        }
    }
}
