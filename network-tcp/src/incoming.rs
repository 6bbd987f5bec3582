//! The tasks that accept connections and serve them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use quorate_core::plant;
use quorate_core::{MAX_NODES, Obstacle, Replica};
use quorate_rt::{Listener, Network, Task, yield_now};

use crate::connection_slots::{Class, ConnectionSlots};
use crate::handshake::{Hello, Party, Refusal};
use crate::lines::{Cause, Suppressed};
use crate::marks::{Arrived, Watched};
use crate::memories;
use crate::reading::{Reader, ServeError};
use crate::sessions::{Session, Way};
use crate::transport::State;
use crate::wait::within;
use crate::watch;
use crate::welcome::{Guest, WelcomeError, welcome};

/// Of how many peers is remembered why they were refused, lest each attempt be another line of the
/// log.
const MAX_REFUSED: usize = 2 * MAX_NODES;

/// How long accepting rests after an error: the usual one is that the process has no file
/// descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The accepted connections.
pub(crate) struct Accepted<R: Network> {
    tasks: BTreeMap<u64, R::Task<()>>,
    slots: ConnectionSlots,
    /// Those whose handshake has succeeded.
    pub(crate) watched: BTreeMap<u64, Watched>,
    /// Why peers have been refused since they were last welcome.
    refused: BTreeMap<Replica, Refusals>,
}

/// Why a peer that has dialled was refused.
#[derive(Default)]
struct Refusals {
    /// The codes of all refusals.
    codes: BTreeSet<u8>,
    /// The last one.
    last: Option<Obstacle>,
}

impl<R: Network> Default for Accepted<R> {
    fn default() -> Self {
        Self {
            tasks: BTreeMap::new(),
            slots: ConnectionSlots::default(),
            watched: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }
}

impl<R: Network> Accepted<R> {
    fn take(&mut self, id: u64) -> Option<R::Task<()>> {
        self.slots.leave(id);
        self.watched.remove(&id);
        self.tasks.remove(&id)
    }

    /// Whether the peer was not refused for the same reason before. It may be refused for several
    /// by turns: as a node, and as a replica.
    fn is_news(&mut self, peer: Replica, refusal: Refusal, by_peer: bool) -> bool {
        if self.refused.len() >= MAX_REFUSED && !self.refused.contains_key(&peer) {
            self.refused.clear();
        }
        let refusals = self.refused.entry(peer).or_default();
        let reason = refusal.to_string();
        refusals.last = Some(match refusal {
            Refusal::Replica { asked, .. } if !by_peer => Obstacle::KnowsOther { asked },
            _ if by_peer => Obstacle::Refuses { reason },
            _ => Obstacle::Refused { reason },
        });
        refusals.codes.insert(refusal.code())
    }

    /// How many connections have said who they are, and proven nothing.
    pub(crate) fn unproven(&self) -> usize {
        self.slots.count(Class::Hello) + self.slots.count(Class::Listed)
    }

    /// Why a peer was refused when it has dialled last.
    pub(crate) fn obstacle(&self, peer: Replica) -> Option<Obstacle> {
        let is_it = |dialler: &Replica| match peer.is_known() {
            true => *dialler == peer,
            false => dialler.id == peer.id,
        };
        self.refused.iter().find(|(dialler, _)| is_it(dialler))?.1.last.clone()
    }
}

impl<R: Network> State<R> {
    /// A connection has shown more: it changes its class, and one of that may have to go for it.
    pub(crate) fn rise(&self, id: u64, class: Class) {
        let closed = self.accepted.borrow_mut().slots.rise(id, class);
        self.crowd_out(closed);
    }

    fn crowd_out(&self, closed: Option<u64>) {
        let Some(closed) = closed else { return };
        self.count(|stats| stats.refused_handshakes += 1);
        if let Some(suppressed) = self.lines.pass(Cause::Crowded, self.rt.now()) {
            tracing::warn!(
                suppressed,
                "a connection is closed for a newer one: there are too many"
            );
        }
        self.close_accepted(closed);
    }

    /// Ends an accepted connection, whatever it does.
    pub(crate) fn close_accepted(&self, id: u64) {
        // Not borrowed while it is dropped.
        let task = self.accepted.borrow_mut().take(id);
        drop(task);
    }
}

/// Accepts until its handle is dropped.
pub(crate) async fn accept<R, L>(state: Rc<State<R>>, mut listener: L)
where
    R: Network,
    L: Listener<Stream = R::Stream>,
{
    loop {
        match listener.accept().await {
            Ok((stream, address)) => begin(&state, stream, address),
            Err(error) => {
                state.count(|stats| stats.accept_errors += 1);
                if let Some(suppressed) = state.lines.pass(Cause::Accept, state.rt.now()) {
                    tracing::warn!(%error, suppressed, "connections can't be accepted; trying on");
                }
                plant!(P7, return);
                state.rt.sleep(ACCEPT_PAUSE).await;
            }
        }
        // Those that are accepted must get to read what is there already, before so many others
        // are accepted that they lose their place.
        yield_now().await;
    }
}

fn begin<R: Network>(state: &Rc<State<R>>, stream: R::Stream, address: SocketAddr) {
    let id = state.next_id();
    let closed = state.accepted.borrow_mut().slots.enter(id, address.ip());
    state.crowd_out(closed);
    plant!(
        P10,
        if closed == Some(id) {
            return;
        }
    );
    let shared = Rc::clone(state);
    let task = state.rt.spawn(async move {
        let connection = connection(&shared, id, stream, address);
        watch::alone(&shared, "serves an accepted connection", connection).await;
        let own = shared.accepted.borrow_mut().take(id);
        // It ends by itself right now; dropping the handle would be cancelling oneself.
        if let Some(own) = own {
            own.detach();
        }
    });
    state.accepted.borrow_mut().tasks.insert(id, task);
}

/// One connection, from its first byte to its last.
async fn connection<R: Network>(
    state: &Rc<State<R>>,
    id: u64,
    stream: R::Stream,
    address: SocketAddr,
) {
    let handshake = welcome(Rc::clone(state), id, stream);
    let welcomed = within(&state.rt, state.timing.handshake, handshake).await;
    match welcomed.map_err(WelcomeError::from).flatten() {
        Ok(guest) if !state.still_holds(&guest.own, guest.proven) => {
            tracing::debug!(%address, "this node has changed meanwhile; the peer connects anew");
        }
        Ok(guest) => serve(state, id, guest, address).await,
        Err(WelcomeError::Silent) => tracing::debug!(%address, "connected and said nothing"),
        Err(WelcomeError::Detached) => tracing::debug!(%address, "connected when no node is here"),
        Err(error) => {
            state.count(|stats| {
                stats.refused_handshakes += 1;
                stats.twins += u64::from(error.refusal() == Some(Refusal::Twin));
            });
            log_refused(state, address, &error);
        }
    }
}

fn log_refused<R: Network>(state: &State<R>, address: SocketAddr, error: &WelcomeError) {
    let pass = |cause| state.lines.pass(cause, state.rt.now());
    let (WelcomeError::Refused(peer, refusal) | WelcomeError::RefusedByPeer(peer, refusal)) = error
    else {
        if let Some(suppressed) = pass(Cause::NoHandshake) {
            tracing::warn!(%address, %error, suppressed, "a connection is refused");
        }
        return;
    };
    let by_peer = matches!(error, WelcomeError::RefusedByPeer(..));
    let news = peer.is_none_or(|peer| state.accepted.borrow_mut().is_news(peer, *refusal, by_peer));
    let told: Option<Suppressed> = if news { pass(Cause::refused(*refusal)) } else { None };
    let peer = peer.map(tracing::field::display);
    match told {
        None => tracing::debug!(peer, %address, %error, "a connection is refused again"),
        Some(suppressed) if refusal.is_grave() => {
            tracing::error!(peer, %address, %error, suppressed, "a connection is refused");
        }
        Some(suppressed) => {
            tracing::warn!(peer, %address, %error, suppressed, "a connection is refused");
        }
    }
}

fn learn<R: Network>(state: &Rc<State<R>>, hello: &Hello, seen: SocketAddr) {
    if !hello.address.is_empty() {
        let address = complete(&hello.address, seen);
        let is_connected = |replica| state.sessions.is_connected(replica);
        state.change_addresses(|all| all.learn(hello.from.replica, address, is_connected));
    }
}

/// Who listens on all its addresses can't name one; we have seen one.
fn complete(address: &str, seen: SocketAddr) -> String {
    match address.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            SocketAddr::new(seen.ip(), address.port()).to_string()
        }
        _ => address.to_owned(),
    }
}

/// From the handshake to the end.
async fn serve<R: Network>(
    state: &Rc<State<R>>,
    id: u64,
    guest: Guest<R::Stream>,
    address: SocketAddr,
) {
    let Guest { hello, own, proven, remember, read, write, rest } = guest;
    let Party { replica: peer, boot, .. } = hello.from;
    state.count(|stats| {
        stats.accepts += 1;
        stats.unproven += u64::from(!proven);
    });
    state.accepted.borrow_mut().refused.remove(&peer);
    if proven {
        state.rise(id, Class::Member);
    }
    let way = Way::In { lane: hello.lane, any: !hello.to.is_known() };
    let session = Session::new(peer, boot, proven, way, Rc::default());
    // A peer connects anew when the old connection is of no use to it, which we may not have
    // noticed.
    let _open = state.begin_session(id, &session);
    learn(state, &hello, address);
    if proven {
        memories::hear(state, peer, remember);
    }
    let arrived = Rc::new(Arrived::default());
    let watched = Watched::new(Rc::clone(&arrived), Rc::clone(&session), state.rt.now());
    state.accepted.borrow_mut().watched.insert(id, watched);
    state.sweeps.raise();
    let lane = hello.lane;
    let reader =
        Reader { state, id, session: &session, arrived: &arrived, node: own.replica, lane };
    let ended = reader.run(read, write, rest).await;
    if matches!(ended, Err(ServeError::Frame(_))) {
        state.count(|stats| stats.bad_frames += 1);
    }
    match ended {
        Ok(()) if proven => {
            if let Some(suppressed) = state.lines.pass(Cause::Closes, state.rt.now()) {
                tracing::info!(%peer, %address, suppressed, "a peer has closed its connection");
            }
        }
        Err(error) if proven => {
            if let Some(suppressed) = state.lines.pass(Cause::Closed, state.rt.now()) {
                tracing::warn!(%peer, %address, %error, suppressed, "the connection of a peer is closed");
            }
        }
        Err(error @ ServeError::Frame(_)) => {
            if let Some(suppressed) = state.lines.pass(Cause::Unproven, state.rt.now()) {
                tracing::warn!(%peer, %address, %error, suppressed, "an unproven connection is closed");
            }
        }
        // Most likely the peer has changed, and connects anew to prove more.
        Ok(()) | Err(ServeError::Io(_)) => {
            tracing::debug!(%peer, %address, "an unproven connection has ended");
        }
    }
}

/// Ends all connections.
pub(crate) fn close_all<R: Network>(accepted: &RefCell<Accepted<R>>) {
    let Accepted { tasks, .. } = accepted.take();
    drop(tasks);
}

#[cfg(test)]
mod tests {
    use quorate_rt_tokio::Tokio;

    use super::*;

    #[test]
    fn refusals_that_take_turns_are_news_once_each() {
        let mut accepted = Accepted::<Tokio>::default();
        let peer = Replica::new(2, 7);
        let refusals = [(Refusal::Cluster, false), (Refusal::Twin, true)];
        let mut news = || refusals.map(|(why, by_peer)| accepted.is_news(peer, why, by_peer));
        assert_eq!([news(), news()], [[true; 2], [false; 2]]);
        let last = Obstacle::Refuses { reason: Refusal::Twin.to_string() };
        for asked in [peer, Replica::any(2)] {
            assert_eq!(accepted.obstacle(asked).as_ref(), Some(&last));
        }
        assert_eq!(accepted.obstacle(Replica::new(2, 8)), None);
    }

    #[test]
    fn an_address_that_names_no_host_is_completed_by_what_was_seen() {
        let seen = "192.0.2.7:50000".parse().unwrap();
        assert_eq!(complete("0.0.0.0:7001", seen), "192.0.2.7:7001");
        assert_eq!(complete("[::]:7001", seen), "192.0.2.7:7001");
        assert_eq!(complete("192.0.2.9:7001", seen), "192.0.2.9:7001");
        assert_eq!(complete("raft-1.example:7001", seen), "raft-1.example:7001");
    }
}
