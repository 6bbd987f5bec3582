//! The task that connects to a peer and writes what has gathered in its outbox.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::future::{Either, select};
use quorate_core::plant;
use quorate_core::{Boot, Credentials, Obstacle, Replica};
use quorate_rt::channel::Signal;
use quorate_rt::{Executor, Instant, Network, ReadHalf, Stream, WriteHalf};
use thiserror::Error;

use crate::config::Timing;
use crate::dialling::{in_order, open};
use crate::handshake::{Answer, Confirm, Hello, Lane, Party, Refusal, Role, VERSIONS, judge, mac};
use crate::lines::{Cause, Suppressed};
use crate::memories;
use crate::outbox::Link;
use crate::sessions::{Asked, Control, ECHO_REPORT, PING_REPORT, Session, Way};
use crate::transport::State;
use crate::wait::{read_until, resolve, within};

#[derive(Debug, Error)]
enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Here, by this node.
    #[error("the handshake is refused: {0}")]
    Refused(#[from] Refusal),
    /// There, by the peer.
    #[error("the peer refuses this node: {0}")]
    RefusedByPeer(Refusal),
    #[error("no node is attached")]
    Detached,
}

impl ConnectError {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) | Self::RefusedByPeer(refusal) => Some(*refusal),
            Self::Io(_) | Self::Detached => None,
        }
    }

    fn obstacle(&self, address: &str) -> Option<Obstacle> {
        Some(match self {
            Self::Io(error) => unreachable_at(address, error),
            Self::Refused(refusal) => refusal.obstacle(false, address),
            Self::RefusedByPeer(refusal) => refusal.obstacle(true, address),
            Self::Detached => return None,
        })
    }
}

fn unreachable_at(address: &str, reason: impl ToString) -> Obstacle {
    Obstacle::Unreachable { address: address.to_owned(), reason: reason.to_string() }
}

/// Connects whenever there is something to send, and writes it; to a member of the cluster at once.
/// Never ends; its handle is dropped.
///
/// To a replica that no group names it connects only as often as there is something to send: each
/// stranger may name itself after a listed node, with an incarnation of its own.
///
/// Members stay connected even if they have nothing to say to each other, as two followers: another
/// process on a copy of a member's folder is known as such only where that member is connected.
pub(crate) async fn run<R: Network>(state: Rc<State<R>>, link: Rc<Link>) {
    let (to, lane) = (link.to, link.lane);
    let mut failures = 0;
    // So that a peer that is away for long is one line of the log, and not one a second.
    let mut logged = String::new();
    loop {
        link.until_wanted().await;
        link.attempt_begins();
        let (address, newest) = {
            let addresses = state.addresses.borrow();
            (addresses.nth(to, failures), addresses.nth(to, 0))
        };
        let timing = match address == newest {
            true => state.timing,
            false => state.timing.elsewhere(),
        };
        let address = address.as_deref().unwrap_or(&link.address.at);
        let lost = match connect(&state, &link, &timing, address).await {
            Ok(connection) if !state.still_holds(&connection.own, connection.proven) => {
                continue; // With what this node is now.
            }
            Ok(connection) => {
                failures = 0;
                logged.clear();
                state.addresses.borrow_mut().reached(to, address);
                link.set_trouble(None);
                let (peer, proven) = (connection.peer, connection.proven);
                if let Some(suppressed) = pass(&state, to) {
                    tracing::info!(%to, %peer, ?lane, address, proven, suppressed, "connected");
                }
                match serve(&state, &link, connection).await {
                    Ok(End::Idle) => {
                        link.set_wanted(false); // It has proven nothing.
                        tracing::debug!(%to, ?lane, address, "closed, as it is idle");
                    }
                    Ok(End::Again) => {
                        tracing::debug!(%to, ?lane, address, "connects anew, as a node has changed");
                        keep_waiting(&state, &link);
                        continue;
                    }
                    // Most likely the peer has changed, and more can be proven now. What waits is
                    // for then.
                    Err(reason) if !proven => {
                        tracing::debug!(%to, ?lane, address, %reason, "an unproven connection has ended");
                        keep_waiting(&state, &link);
                        pause(&state, 0).await;
                        continue;
                    }
                    Err(reason) => {
                        if let Some(suppressed) = pass(&state, to) {
                            tracing::warn!(%to, ?lane, address, %reason, suppressed, "the connection is lost");
                        }
                        link.set_trouble(Some(unreachable_at(address, reason)));
                    }
                }
                link.clear()
            }
            Err(error) => {
                let refusal = error.refusal();
                link.set_trouble(error.obstacle(address));
                let reason = error.to_string();
                let told = if reason == logged { None } else { pass(&state, to) };
                match told {
                    None => {
                        tracing::debug!(%to, ?lane, address, %reason, "a peer can't be reached")
                    }
                    Some(suppressed) if refusal.is_some_and(Refusal::is_grave) => {
                        tracing::error!(%to, ?lane, address, %reason, suppressed, "a peer can't be reached");
                    }
                    Some(suppressed) => {
                        tracing::warn!(%to, ?lane, address, %reason, suppressed, "a peer can't be reached; trying on");
                    }
                }
                logged = reason;
                link.attempt_has_failed()
            }
        };
        state.count(|stats| stats.dropped_out += lost);
        pause(&state, failures).await;
        failures += 1;
    }
}

/// Whether a line about a peer is written, and then how many were left out. Strangers cause those
/// of replicas that no group names.
fn pass<R: Network>(state: &State<R>, to: Replica) -> Option<Suppressed> {
    match state.addresses.borrow().names(to) {
        true => Some(None),
        false => state.lines.pass(Cause::Unnamed, state.rt.now()),
    }
}

/// The connection is gone; what waits is for the next one.
fn keep_waiting<R: Network>(state: &State<R>, link: &Link) {
    let lost = link.disconnected();
    state.count(|stats| stats.dropped_out += lost);
}

async fn pause<R: Network>(state: &State<R>, failures: u32) {
    state.rt.sleep(state.timing.backoff(failures, state.rt.random())).await;
}

/// An open connection after its handshake.
struct Connection<S: Stream> {
    peer: Replica,
    boot: Boot,
    /// What this node has shown it.
    own: Credentials,
    proven: bool,
    read: S::ReadHalf,
    write: S::WriteHalf,
    /// What came after the answer.
    rest: BytesMut,
}

/// Connects to one of the addresses of a peer. As long as looking its name up takes, and where it
/// fails, those are tried that the name had before: the handshake shows whether they are still its.
async fn connect<R: Network>(
    state: &Rc<State<R>>,
    link: &Rc<Link>,
    timing: &Timing,
    name: &str,
) -> Result<Connection<R::Stream>, ConnectError> {
    let known = || state.addresses.borrow().found(name);
    let looking = pin!(resolve(&state.rt, timing, name));
    let patience = pin!(state.rt.sleep(timing.lookup_patience));
    let (found, known) = match select(looking, patience).await {
        Either::Left((found, _)) => (found, known()),
        Either::Right(((), looking)) => {
            if link.trouble().is_none() {
                link.set_trouble(Some(unreachable_at(name, "its name is still being looked up")));
            }
            if let Some(known) = known() {
                tracing::debug!(name, ?known, "a look-up takes long; trying what the name was");
                if let Ok(connection) = reach(state, link, timing, known).await {
                    return Ok(connection);
                }
            }
            (looking.await, None) // Tried already.
        }
    };
    match (found, known) {
        (Ok(found), _) => {
            let addresses = in_order(&found);
            plant!(P5, addresses = addresses.into_iter().take(1).collect());
            if name.parse::<SocketAddr>().is_err() {
                state.addresses.borrow_mut().set_found(name, addresses.clone());
            }
            reach(state, link, timing, addresses).await
        }
        (Err(unknown), Some(known)) => {
            reach(state, link, timing, known).await.map_err(|error| match error {
                ConnectError::Io(error) => {
                    let both = format!("{unknown}; at its last known addresses: {error}");
                    ConnectError::Io(io::Error::new(error.kind(), both))
                }
                refused => refused,
            })
        }
        (Err(unknown), None) => Err(unknown.into()),
    }
}

/// Connects to the first of the addresses at which the handshake succeeds: at one of them there may
/// be another node, or nothing that answers.
async fn reach<R: Network>(
    state: &Rc<State<R>>,
    link: &Rc<Link>,
    timing: &Timing,
    mut addresses: Vec<SocketAddr>,
) -> Result<Connection<R::Stream>, ConnectError> {
    let mut refused = None;
    loop {
        let (stream, at) = match open(&state.rt, timing, &addresses).await {
            Ok(open) => open,
            Err(error) => return Err(refused.unwrap_or_else(|| error.into())),
        };
        let shaking = shake_hands(Rc::clone(state), Rc::clone(link), stream);
        let shaken = within(&state.rt, timing.handshake, shaking).await;
        let error = match shaken.map_err(ConnectError::from).flatten() {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        state.count(|stats| {
            let refusal = error.refusal();
            stats.refused_handshakes += u64::from(refusal.is_some());
            stats.twins += u64::from(refusal == Some(Refusal::Twin));
        });
        addresses.retain(|other| *other != at);
        if addresses.is_empty() {
            return Err(refused.unwrap_or(error));
        }
        tracing::debug!(%at, %error, "no handshake there; trying the other addresses");
        refused.get_or_insert(error);
    }
}

async fn shake_hands<R: Network>(
    state: Rc<State<R>>,
    link: Rc<Link>,
    stream: R::Stream,
) -> Result<Connection<R::Stream>, ConnectError> {
    let (mut read, mut write) = stream.split();
    let own = state.own.get().ok_or(ConnectError::Detached)?;
    let hello = Hello {
        versions: VERSIONS,
        from: Party::new(&own, state.nonce()),
        to: link.to,
        lane: link.lane,
        address: state.advertise.clone(),
    };
    write.write_all(vec![hello.encode()]).await?;
    let mut rest = BytesMut::new();
    let answer = read_until(&mut read, &mut rest, Answer::take).await??;
    let is_told = answer.refused != 0;
    let refused = |refusal| match is_told {
        true => ConnectError::RefusedByPeer(refusal),
        false => ConnectError::Refused(refusal),
    };
    let node = answer.check(&hello).map_err(refused)?;
    let mac_of = |role| own.cluster.map(|cluster| mac(cluster, role, &hello.from, &node));
    let judged = judge(own.state, node.state, mac_of(Role::Acceptor), answer.mac);
    let (peer, boot) = (node.replica, node.boot);
    let mut remember = Vec::new();
    let verdict = match judged {
        Ok(proven) => {
            let asked = if proven { Asked::Proven } else { Asked::All };
            match state.sessions.check_twin(&state.rt, state.timing.ping, peer, boot, asked).await {
                Ok(()) => {
                    remember = memories::recall(&state, peer).await;
                    let is_older = memories::is_older(boot, &remember);
                    if is_older { Err(Refusal::OlderBoot) } else { Ok(proven) }
                }
                Err(twin) => Err(twin),
            }
        }
        Err(refusal) => Err(refusal),
    };
    let refused = verdict.err().map_or(0, Refusal::code);
    let confirm = match (judged, verdict) {
        // A store that was put back is refused, and is to know what it has forgotten all the same:
        // its node stops then.
        (Ok(true), Ok(_) | Err(Refusal::OlderBoot)) => {
            Confirm { refused, mac: mac_of(Role::Dialler), remember }
        }
        (_, Ok(_)) => Confirm { mac: mac_of(Role::Dialler), ..Confirm::default() },
        (_, Err(_)) => Confirm { refused, ..Confirm::default() },
    };
    write.write_all(vec![confirm.encode()]).await?;
    Ok(Connection { peer, boot, own, proven: verdict?, read, write, rest })
}

/// Why a connection has ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nothing was to be written for long.
    Idle,
    /// It was asked to: this node, or the peer, has become another.
    Again,
}

/// Writes until the connection is idle, is asked to end, or breaks, and says why it did. Whichever
/// task ends first, the others are dropped, and with them the socket.
async fn serve<R: Network>(
    state: &Rc<State<R>>,
    link: &Rc<Link>,
    connection: Connection<R::Stream>,
) -> Result<End, String> {
    let Connection { peer, boot, proven, read, write, rest, .. } = connection;
    let rt = &state.rt;
    let session = Session::new(peer, boot, proven, Way::Out, Rc::clone(&link.filled));
    let _open = state.begin_session(state.next_id(), &session);
    let lost = link.connected(&session);
    state.count(|stats| {
        stats.connects += 1;
        stats.unproven += u64::from(!proven);
        stats.dropped_out += lost;
    });
    let progress = Rc::new(Progress::default());
    let reader = read_reports(rt.clone(), read, rest, Rc::clone(&session), Rc::clone(&progress));
    let writer = write_outbox(
        Rc::clone(state),
        Rc::clone(link),
        Rc::clone(&session),
        write,
        Rc::clone(&progress),
    );
    let tasks = select(rt.spawn(reader), rt.spawn(writer));
    let silence = pin!(progress.until_silent(rt, state.timing.silence));
    let ended = pin!(session.until_ended());
    let end = match select(tasks, select(silence, ended)).await {
        Either::Left((Either::Left((end, _)) | Either::Right((end, _)), _)) => end,
        Either::Right((Either::Left(((), _)), _)) => {
            return Err("nothing of what was sent arrives".to_owned());
        }
        Either::Right((Either::Right(((), _)), _)) => return Ok(End::Again),
    };
    end.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Ends well when the connection is idle and need not stay.
async fn write_outbox<R: Network>(
    state: Rc<State<R>>,
    link: Rc<Link>,
    session: Rc<Session>,
    mut write: impl WriteHalf,
    progress: Rc<Progress>,
) -> io::Result<End> {
    let idle = match (link.lane, session.proven) {
        (_, false) => Some(state.timing.unproven_idle),
        (Lane::Main, true) if link.to.is_known() => None,
        _ => Some(state.timing.idle),
    };
    loop {
        let filled = link.until_filled(&session);
        match idle {
            None => filled.await,
            Some(idle) => {
                let idle = pin!(state.rt.sleep(idle));
                match select(pin!(filled), idle).await {
                    Either::Left(_) => {}
                    // Not as long as something may still be on its way.
                    Either::Right(_) if progress.waiting_since.get().is_none() => {
                        return Ok(End::Idle);
                    }
                    Either::Right(_) => continue,
                }
            }
        }
        if session.has_ended() {
            return Ok(End::Again); // What waits is for the next one.
        }
        let (batch, bytes) = link.begin_write(&session);
        progress.sends(bytes, state.rt.now());
        write.write_all(batch).await?;
        let (bytes, frames) = link.end_write();
        state.count(|stats| {
            stats.writes += 1;
            stats.frames_out += frames;
            stats.bytes_out += bytes as u64;
        });
    }
}

async fn read_reports<R: Executor>(
    rt: R,
    mut read: impl ReadHalf,
    mut reports: BytesMut,
    session: Rc<Session>,
    progress: Rc<Progress>,
) -> io::Result<End> {
    loop {
        while reports.len() >= size_of::<u64>() {
            match reports.get_u64_le() {
                PING_REPORT => session.heard(Control::Ping),
                ECHO_REPORT => session.heard(Control::Echo),
                total if progress.reported(total, rt.now()) => {}
                _ => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the peer reports nonsense",
                    ));
                }
            }
        }
        reports.reserve(size_of::<u64>());
        let (count, back) = read.read(reports).await;
        reports = back;
        if count? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the peer"));
        }
    }
}

/// How far the peer is behind what was sent to it. TCP alone doesn't tell for many minutes that a
/// peer has lost its power, and never that it has stopped reading.
#[derive(Default)]
struct Progress {
    /// Bytes handed to the socket, those of a write under way included.
    sent: Cell<u64>,
    /// Bytes that the peer has reported.
    arrived: Cell<u64>,
    /// Since when the peer owes a report: since the oldest bytes on their way were sent, or since
    /// it last reported others.
    waiting_since: Cell<Option<Instant>>,
    waiting: Signal,
}

impl Progress {
    fn sends(&self, bytes: usize, now: Instant) {
        self.sent.set(self.sent.get() + bytes as u64);
        if self.waiting_since.get().is_none() {
            self.waiting_since.set(Some(now));
            self.waiting.raise();
        }
    }

    /// False: what the peer says can't be.
    fn reported(&self, total: u64, now: Instant) -> bool {
        let (arrived, sent) = (self.arrived.get(), self.sent.get());
        if total <= arrived || total > sent {
            return false;
        }
        self.arrived.set(total);
        self.waiting_since.set((total < sent).then_some(now));
        true
    }

    /// Ends once the peer has owed a report for so long. There is no timer while it owes none.
    async fn until_silent<R: Executor>(&self, rt: &R, limit: Duration) {
        loop {
            while let Some(since) = self.waiting_since.get() {
                let deadline = since + limit;
                if rt.now() >= deadline {
                    return;
                }
                rt.sleep_until(deadline).await;
            }
            self.waiting.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_owes_a_report_as_long_as_bytes_are_on_their_way() {
        let at = Instant::from_nanos;
        let progress = Progress::default();
        progress.sends(100, at(1));
        progress.sends(50, at(2));
        assert_eq!(progress.waiting_since.get(), Some(at(1)), "since the oldest");
        assert!(progress.reported(100, at(3)));
        assert_eq!(progress.waiting_since.get(), Some(at(3)), "it lives, and owes 50");
        assert!(progress.reported(150, at(4)));
        assert_eq!(progress.waiting_since.get(), None);
        progress.sends(1, at(9));
        assert_eq!(progress.waiting_since.get(), Some(at(9)));
    }

    #[test]
    fn reports_of_what_was_not_sent_or_of_nothing_new_are_refused() {
        let at = Instant::from_nanos;
        let progress = Progress::default();
        assert!(!progress.reported(1, at(1)));
        progress.sends(100, at(2));
        assert!(!progress.reported(101, at(3)));
        assert!(progress.reported(60, at(4)));
        assert!(!progress.reported(60, at(5)));
        assert!(!progress.reported(59, at(6)));
        assert_eq!(progress.waiting_since.get(), Some(at(4)));
    }
}
