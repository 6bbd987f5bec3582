//! The connections after their handshake, in both directions: which replica is at the other end,
//! and in which boot.
//!
//! Two boots of one replica can't run at a time, unless the data folder was copied. When one comes
//! that is not the one that is connected, the older one is pinged on all its connections:
//!
//! - It answers: two processes share copies of a folder, and the newer is refused.
//! - Its connections close, or it does not answer in time: it was a reboot, and the newer takes its
//!   place.
//!
//! The dialler pings by a frame with a body of one byte, [`PING_FRAME`], and the acceptor by a
//! report of [`PING_REPORT`] bytes. Both are answered by an echo on the same connection.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use quorate_core::{Boot, Replica};
use quorate_rt::Executor;
use quorate_rt::channel::Signal;

use crate::handshake::{Lane, Refusal};

/// The body of a frame that asks whether the other side lives.
pub(crate) const PING_FRAME: u8 = 1;

/// The body of the frame that answers [`PING_REPORT`].
pub(crate) const ECHO_FRAME: u8 = 2;

/// A report that asks whether the other side lives: so many bytes are never sent.
pub(crate) const PING_REPORT: u64 = u64::MAX;

/// The report that answers [`PING_FRAME`].
pub(crate) const ECHO_REPORT: u64 = u64::MAX - 1;

/// A connection after its handshake.
pub(crate) struct Session {
    pub(crate) peer: Replica,
    pub(crate) boot: Boot,
    pub(crate) proven: bool,
    pub(crate) way: Way,
    /// Raised when a ping or an echo is to be written.
    pub(crate) due: Rc<Signal>,
    ping_due: Cell<bool>,
    echo_due: Cell<bool>,
    /// Who waits for an echo.
    checks: RefCell<Vec<Rc<Check>>>,
    /// An outgoing connection is to end, and to be opened again.
    ended: Cell<bool>,
    ending: Signal,
}

/// The direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The peer has connected, for this lane, and asked for this replica or for any of this node:
    /// it may have one connection for each of these.
    In {
        lane: Lane,
        any: bool,
    },
    Out,
}

/// What is to be written beside messages, or reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Ping,
    Echo,
}

impl Session {
    pub(crate) fn new(
        peer: Replica,
        boot: Boot,
        proven: bool,
        way: Way,
        due: Rc<Signal>,
    ) -> Rc<Self> {
        Rc::new(Self {
            peer,
            boot,
            proven,
            way,
            due,
            ping_due: Cell::new(false),
            echo_due: Cell::new(false),
            checks: RefCell::default(),
            ended: Cell::new(false),
            ending: Signal::default(),
        })
    }

    /// Takes what is to be written. However often the other side asks, it is answered once for each
    /// write.
    pub(crate) fn take_due(&self) -> impl Iterator<Item = Control> {
        let ping = self.ping_due.take().then_some(Control::Ping);
        let echo = self.echo_due.take().then_some(Control::Echo);
        ping.into_iter().chain(echo)
    }

    pub(crate) fn is_due(&self) -> bool {
        self.ping_due.get() || self.echo_due.get()
    }

    /// The other side has sent this.
    pub(crate) fn heard(&self, control: Control) {
        match control {
            Control::Ping => {
                self.echo_due.set(true);
                self.due.raise();
            }
            Control::Echo => {
                for check in self.checks.take() {
                    check.answered.set(true);
                    check.changed.raise();
                }
            }
        }
    }

    fn ping(&self, check: &Rc<Check>) {
        let checks = &mut *self.checks.borrow_mut();
        // A peer may never answer, however often others come in its name.
        checks.retain(|check| !check.is_over.get());
        checks.push(Rc::clone(check));
        self.ask();
    }

    /// Pings, so that a peer that is there says something.
    pub(crate) fn ask(&self) {
        self.ping_due.set(true);
        self.due.raise();
    }

    /// Whoever waits for an echo needs not wait for this connection.
    fn end(&self) {
        // They look when this turn is over, and what holds them here is gone by then.
        self.checks.take().iter().for_each(|check| check.changed.raise());
        self.ended.set(true);
        self.ending.raise();
    }

    /// Whether nothing more is to go over it.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    pub(crate) async fn until_ended(&self) {
        self.ending.wait().await;
    }
}

/// Which connections of a replica can show that it has a twin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Those that are proven, where the other side proves that it is of the cluster: anybody can
    /// name himself after a member, connect first, and answer pings.
    Proven,
    /// Also the others, where it proves nothing more than they do.
    All,
}

/// Waits for an echo on any of some connections, each of which holds it until then.
#[derive(Default)]
struct Check {
    answered: Cell<bool>,
    /// Nobody waits for it any more.
    is_over: Cell<bool>,
    changed: Signal,
}

/// Ends a check with the one who waits for it.
struct Over<'a>(&'a Check);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.set(true);
    }
}

impl Check {
    /// Whether an echo has come; no connection is left otherwise.
    async fn answered(self: &Rc<Self>) -> bool {
        loop {
            if self.answered.get() || Rc::strong_count(self) == 1 {
                return self.answered.get();
            }
            self.changed.wait().await;
        }
    }
}

/// All connections.
#[derive(Default)]
pub(crate) struct Sessions {
    open: RefCell<BTreeMap<u64, Rc<Session>>>,
}

impl Sessions {
    pub(crate) fn is_connected(&self, replica: Replica) -> bool {
        self.open.borrow().values().any(|session| session.peer == replica)
    }

    /// Who has proven that it belongs to the cluster, and in which boot.
    pub(crate) fn proven(&self) -> Vec<(Replica, Boot)> {
        let open = self.open.borrow();
        let proven = open.values().filter(|session| session.proven);
        proven.map(|session| (session.peer, session.boot)).collect()
    }

    /// A handshake has succeeded. Gives the connections whose place this one takes; the caller
    /// closes them. One that proves nothing takes the place of none that does: anybody can name
    /// himself after a member, and in its boot, which it tells whoever connects.
    pub(crate) fn begin(&self, id: u64, session: &Rc<Session>) -> Vec<(u64, Rc<Session>)> {
        let older = self.take(|other| {
            other.peer == session.peer
                && (session.proven || !other.proven)
                && (other.boot.tag != session.boot.tag
                    || other.way == session.way && session.way != Way::Out)
        });
        self.open.borrow_mut().insert(id, Rc::clone(session));
        older
    }

    /// Takes out those for which this holds; the caller closes them.
    pub(crate) fn take(&self, which: impl Fn(&Session) -> bool) -> Vec<(u64, Rc<Session>)> {
        let taken: Vec<_> =
            self.open.borrow_mut().extract_if(.., |_, session| which(session)).collect();
        taken.iter().for_each(|(_, session)| session.end());
        taken
    }

    pub(crate) fn end(&self, id: u64) {
        let ended = self.open.borrow_mut().remove(&id);
        let Some(session) = ended else { return };
        session.end();
        if session.proven && session.way != Way::Out {
            // The peer may be gone, which nobody notices who has nothing to say to it.
            let open = self.open.borrow();
            let is_other =
                |other: &&Rc<Session>| other.peer == session.peer && other.way == Way::Out;
            open.values().filter(is_other).for_each(|other| other.ask());
        }
    }

    /// Whether a replica may connect, or be connected to, in this boot as far as others of it are
    /// connected. It waits for the answer of an older one among those who are asked.
    ///
    /// Errors: that one answers.
    pub(crate) async fn check_twin(
        &self,
        rt: &impl Executor,
        limit: Duration,
        peer: Replica,
        boot: Boot,
        asked: Asked,
    ) -> Result<(), Refusal> {
        let check = Rc::new(Check::default());
        let _over = Over(&check);
        let mut pinged = false;
        for session in self.open.borrow().values() {
            if session.peer == peer
                && session.boot.tag != boot.tag
                && (session.proven || asked == Asked::All)
            {
                session.ping(&check);
                pinged = true;
            }
        }
        if pinged {
            let deadline = pin!(rt.sleep(limit));
            match select(pin!(check.answered()), deadline).await {
                Either::Left((true, _)) => return Err(Refusal::Twin),
                Either::Left((false, _)) | Either::Right(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn replica() -> Replica {
        Replica::new(2, 7)
    }

    #[test]
    fn a_check_ends_with_an_echo_or_with_the_last_connection() {
        let session = |tag| {
            let boot = Boot { number: 1, tag };
            Session::new(Replica::new(2, 7), boot, true, Way::Out, Rc::default())
        };
        let (one, two) = (session(1), session(2));
        let check = Rc::new(Check::default());
        one.ping(&check);
        two.ping(&check);
        assert_eq!(one.take_due().collect::<Vec<_>>(), [Control::Ping]);
        assert_eq!(check.answered().now_or_never(), None);
        one.end();
        assert_eq!(check.answered().now_or_never(), None);
        two.heard(Control::Echo);
        assert_eq!(check.answered().now_or_never(), Some(true));

        let check = Rc::new(Check::default());
        one.ping(&check);
        one.end();
        assert_eq!(check.answered().now_or_never(), Some(false));
    }

    #[test]
    fn checks_that_are_over_are_forgotten() {
        let session = Session::new(replica(), Boot::default(), true, Way::Out, Rc::default());
        for _ in 0..1000 {
            let check = Rc::new(Check::default());
            let _over = Over(&check);
            session.ping(&check);
        }
        assert_eq!(session.checks.borrow().len(), 1);
    }

    #[test]
    fn when_a_peer_s_connection_has_ended_the_one_to_it_is_asked_whether_it_lives() {
        let sessions = Sessions::default();
        let of = |peer, way| Session::new(peer, Boot::default(), true, way, Rc::default());
        let (to, to_another) = (of(replica(), Way::Out), of(Replica::new(3, 7), Way::Out));
        let way = Way::In { lane: Lane::Main, any: false };
        for (id, session) in (1..).zip([&to, &to_another, &of(replica(), way)]) {
            sessions.begin(id, session);
        }
        sessions.end(3);
        assert_eq!((to.is_due(), to_another.is_due()), (true, false));
    }

    #[test]
    fn who_proves_nothing_takes_the_place_of_nobody_who_has() {
        let sessions = Sessions::default();
        let way = Way::In { lane: Lane::Main, any: false };
        let boot = |tag| Boot { number: 1, tag };
        let session = |tag, proven| Session::new(replica(), boot(tag), proven, way, Rc::default());
        let begin = |id, tag, proven| {
            let replaced = sessions.begin(id, &session(tag, proven));
            replaced.iter().map(|(id, _)| *id).collect::<Vec<_>>()
        };
        assert!(begin(1, 1, true).is_empty());
        assert!(begin(2, 1, false).is_empty());
        assert_eq!(begin(3, 2, false), [2]);
        assert_eq!(begin(4, 1, true), [1, 3]);
    }

    #[test]
    fn however_often_a_peer_pings_one_echo_is_written() {
        let boot = Boot::default();
        let session = Session::new(Replica::new(2, 7), boot, true, Way::Out, Rc::default());
        (0..1000).for_each(|_| session.heard(Control::Ping));
        assert_eq!(session.take_due().collect::<Vec<_>>(), [Control::Echo]);
        assert!(!session.is_due());
    }
}
