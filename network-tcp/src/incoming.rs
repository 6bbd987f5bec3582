//! The tasks that accept connections and read messages from them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::select;
use quorate_core::codec::decode_message;
use quorate_core::{Body, Credentials, GroupId, MAX_NODES, Memory, Message, Obstacle, Replica};
use quorate_rt::channel::Signal;
use quorate_rt::{AsyncRuntime, Listener, ReadHalf, Stream, Task, WriteHalf};
use thiserror::Error;

use crate::frame::{FrameError, FrameReader};
use crate::handshake::{
    Answer, Confirm, Hello, Lane, MAX_HELLO_BYTES, Party, Refusal, Role, is_formation, judge, mac,
};
use crate::memories;
use crate::sessions::{Control, ECHO_FRAME, ECHO_REPORT, PING_FRAME, PING_REPORT, Session, Way};
use crate::transport::State;
use crate::wait::{read_until, within};

/// The most connections at a time, those in their handshake included: several times the nodes of a
/// cluster. It bounds what strangers can make us hold.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// Of how many peers is remembered why they were refused, lest each attempt be another line of the
/// log.
const MAX_REFUSED: usize = 2 * MAX_NODES;

/// How long accepting rests after an error: the usual one is that the process has no file
/// descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The accepted connections.
pub(crate) struct Accepted<R: AsyncRuntime> {
    tasks: BTreeMap<u64, R::Task<()>>,
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

impl<R: AsyncRuntime> Default for Accepted<R> {
    fn default() -> Self {
        Self { tasks: BTreeMap::new(), refused: BTreeMap::new() }
    }
}

impl<R: AsyncRuntime> Accepted<R> {
    pub(crate) fn take(&mut self, id: u64) -> Option<R::Task<()>> {
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

    /// Why a peer was refused when it has dialled last.
    pub(crate) fn obstacle(&self, peer: Replica) -> Option<Obstacle> {
        let is_it = |dialler: &Replica| match peer.is_known() {
            true => *dialler == peer,
            false => dialler.id == peer.id,
        };
        self.refused.iter().find(|(dialler, _)| is_it(dialler))?.1.last.clone()
    }
}

/// Accepts until its handle is dropped.
pub(crate) async fn accept<R: AsyncRuntime>(state: Rc<State<R>>, mut listener: R::Listener) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                state.rt.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if state.accepted.borrow().tasks.len() >= MAX_CONNECTIONS {
            state.count(|stats| stats.refused_handshakes += 1);
            tracing::warn!(%address, "a connection is refused: there are {MAX_CONNECTIONS}");
            continue;
        }
        let id = state.next_id();
        let task = state.rt.spawn(connection(Rc::clone(&state), id, stream, address));
        state.accepted.borrow_mut().tasks.insert(id, task);
    }
}

/// One connection, from its first byte to its last.
async fn connection<R: AsyncRuntime>(
    state: Rc<State<R>>,
    id: u64,
    stream: R::Stream,
    address: SocketAddr,
) {
    let handshake = welcome(Rc::clone(&state), stream);
    let welcomed = within(&state.rt, state.timing.handshake, handshake).await;
    match welcomed.map_err(WelcomeError::from).flatten() {
        Ok(guest) if !state.still_holds(&guest.own, guest.proven) => {
            tracing::debug!(%address, "this node has changed meanwhile; the peer connects anew");
        }
        Ok(guest) => serve(&state, id, guest, address).await,
        Err(WelcomeError::Silent) => tracing::debug!(%address, "connected and said nothing"),
        Err(WelcomeError::Detached) => tracing::debug!(%address, "connected when no node is here"),
        Err(error) => {
            state.count(|stats| {
                stats.refused_handshakes += 1;
                stats.twins += u64::from(error.refusal() == Some(Refusal::Twin));
            });
            log_refused(&state, address, &error);
        }
    }
    let own = state.accepted.borrow_mut().take(id);
    // It ends by itself right now; dropping the handle would be cancelling oneself.
    if let Some(own) = own {
        own.detach();
    }
}

fn log_refused<R: AsyncRuntime>(state: &State<R>, address: SocketAddr, error: &WelcomeError) {
    let (WelcomeError::Refused(peer, refusal) | WelcomeError::Told(peer, refusal)) = error else {
        tracing::warn!(%address, %error, "a connection is refused");
        return;
    };
    let by_peer = matches!(error, WelcomeError::Told(..));
    let news = peer.is_none_or(|peer| state.accepted.borrow_mut().is_news(peer, *refusal, by_peer));
    let peer = peer.map(tracing::field::display);
    if !news {
        tracing::debug!(peer, %address, %error, "a connection is refused again");
    } else if refusal.is_grave() {
        tracing::error!(peer, %address, %error, "a connection is refused");
    } else {
        tracing::warn!(peer, %address, %error, "a connection is refused");
    }
}

/// A peer whose handshake succeeded.
struct Guest<S: Stream> {
    hello: Hello,
    /// What this node has shown it.
    own: Credentials,
    proven: bool,
    /// What it remembers of this node.
    remember: Vec<(GroupId, Memory)>,
    read: S::ReadHalf,
    write: S::WriteHalf,
    /// What came after the handshake.
    rest: BytesMut,
}

#[derive(Debug, Error)]
enum WelcomeError {
    /// Here, by this node. The peer, if it has said who it is.
    #[error("{1}")]
    Refused(Option<Replica>, Refusal),
    /// There, by the peer.
    #[error("the peer refuses this node: {1}")]
    Told(Option<Replica>, Refusal),
    #[error("no handshake: {0}")]
    Io(#[from] io::Error),
    /// Closed before the first byte, as health checks do.
    #[error("nothing was said")]
    Silent,
    #[error("no node is attached")]
    Detached,
}

impl WelcomeError {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(_, refusal) | Self::Told(_, refusal) => Some(*refusal),
            Self::Io(_) | Self::Silent | Self::Detached => None,
        }
    }
}

async fn welcome<R: AsyncRuntime>(
    state: Rc<State<R>>,
    stream: R::Stream,
) -> Result<Guest<R::Stream>, WelcomeError> {
    let own = state.own.get().ok_or(WelcomeError::Detached)?;
    let (mut read, mut write) = stream.split();
    let mut rest = BytesMut::with_capacity(MAX_HELLO_BYTES);
    let hello = match read_until(&mut read, &mut rest, Hello::take).await {
        Ok(hello) => hello,
        Err(_) if rest.is_empty() => return Err(WelcomeError::Silent),
        Err(error) => return Err(error.into()),
    };
    let node = Party::new(&own, state.nonce());
    let peer = hello.as_ref().ok().map(|hello| hello.from.replica);
    let verdict = match hello {
        Ok(hello) => check(&state, &own, &hello).await.map(|()| hello),
        Err(refusal) => Err(refusal),
    };
    let hello = match verdict {
        Ok(hello) => hello,
        Err(refusal) => {
            // Whether it hears that or not, it is refused.
            let _ = write.write_all(vec![Answer::refuse(refusal, Some(node)).encode()]).await;
            return Err(WelcomeError::Refused(peer, refusal));
        }
    };
    let mac_of = |role| own.cluster.map(|cluster| mac(cluster, role, &hello.from, &node));
    let answer = Answer::welcome(&hello, node, mac_of(Role::Acceptor));
    write.write_all(vec![answer.encode()]).await?;
    let refused = |refusal| WelcomeError::Refused(peer, refusal);
    let confirm = read_until(&mut read, &mut rest, Confirm::take).await?.map_err(refused)?;
    let expected = mac_of(Role::Dialler);
    let judged = judge(own.state, hello.from.state, expected, confirm.mac);
    if confirm.refused != 0 {
        if judged == Ok(true) {
            memories::hear(&state, hello.from.replica, confirm.remember);
        }
        return Err(WelcomeError::Told(peer, Refusal::from_code(confirm.refused)));
    }
    let proven = judged.map_err(refused)?;
    Ok(Guest { hello, own, proven, remember: confirm.remember, read, write, rest })
}

async fn check<R: AsyncRuntime>(
    state: &State<R>,
    own: &Credentials,
    hello: &Hello,
) -> Result<(), Refusal> {
    let Party { replica, boot, .. } = hello.from;
    hello.check(own)?;
    state.sessions.check_twin(&state.rt, state.timing.ping, replica, boot).await?;
    match memories::is_older(boot, &memories::recall(state, replica).await) {
        true => Err(Refusal::OlderBoot),
        false => Ok(()),
    }
}

fn learn<R: AsyncRuntime>(state: &Rc<State<R>>, hello: &Hello, seen: SocketAddr) {
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

#[derive(Debug, Error)]
enum ServeError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// From the handshake to the end.
async fn serve<R: AsyncRuntime>(
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
    let way = Way::In { lane: hello.lane, any: !hello.to.is_known() };
    let session = Session::new(peer, boot, proven, way, Rc::default());
    // A peer connects anew when the old connection is of no use to it, which we may not have
    // noticed.
    let _open = state.begin_session(id, &session);
    learn(state, &hello, address);
    if proven {
        memories::hear(state, peer, remember);
    }
    let reader = Reader { state, session: &session, node: own.replica, lane: hello.lane };
    match reader.run(read, write, rest).await {
        Ok(()) => tracing::info!(%peer, %address, "a peer has closed its connection"),
        // Most likely the peer has changed, and connects anew to prove more.
        Err(ServeError::Io(error)) if !proven => {
            tracing::debug!(%peer, %address, %error, "an unproven connection has ended");
        }
        Err(error) => {
            if matches!(error, ServeError::Frame(_)) {
                state.count(|stats| stats.bad_frames += 1);
            }
            tracing::warn!(%peer, %address, %error, "the connection of a peer is closed");
        }
    }
}

/// What reads the frames of a connection.
struct Reader<'a, R: AsyncRuntime> {
    state: &'a Rc<State<R>>,
    session: &'a Rc<Session>,
    /// This replica, as the peer has been told.
    node: Replica,
    lane: Lane,
}

impl<R: AsyncRuntime> Reader<'_, R> {
    /// Reads until the peer closes.
    async fn run(
        &self,
        mut read: impl ReadHalf,
        write: impl WriteHalf,
        rest: BytesMut,
    ) -> Result<(), ServeError> {
        let state = self.state;
        let arrived = Rc::new(Arrived::default());
        arrived.add(rest.len());
        state.count(|stats| stats.bytes_in += rest.len() as u64);
        let report = report(
            state.rt.clone(),
            write,
            Rc::clone(&arrived),
            Rc::clone(self.session),
            state.timing.report,
        );
        let _reporter = state.rt.spawn(report);
        let mut frames = FrameReader::new(rest, state.config.max_frame_bytes);
        loop {
            while let Some(body) = frames.next()? {
                self.take(body)?;
            }
            let (count, buffer) = read.read(frames.take_buffer()).await;
            frames.put_back(buffer);
            match count? {
                0 => return Ok(()),
                count => {
                    arrived.add(count);
                    state.count(|stats| stats.bytes_in += count as u64);
                }
            }
        }
    }

    fn take(&self, body: Bytes) -> Result<(), FrameError> {
        match body[..] {
            [PING_FRAME] => self.session.heard(Control::Ping),
            [ECHO_FRAME] => self.session.heard(Control::Echo),
            _ => deliver(self.state, self.decode(body)?),
        }
        Ok(())
    }

    fn decode(&self, body: Bytes) -> Result<Message, FrameError> {
        let message = decode_message(body)?;
        let (peer, node) = (self.session.peer, self.node);
        let Message { from, to, ref body, .. } = message;
        let is_for_any = matches!(body, Body::Who { .. } | Body::Claim(_));
        if from != peer || to != node && !(is_for_any && to == Replica::any(node.id)) {
            return Err(FrameError::Misdirected { from, to, peer, node });
        }
        if Lane::of(body) != self.lane {
            return Err(FrameError::Lane(self.lane));
        }
        if !self.session.proven && !is_formation(body) {
            return Err(FrameError::Unproven);
        }
        Ok(message)
    }
}

fn deliver<R: AsyncRuntime>(state: &State<R>, message: Message) {
    // Not borrowed while the inbox is called: it may attach, detach or drop the transport.
    let inbox = state.inbox(message.group);
    state.count(|stats| {
        stats.frames_in += 1;
        stats.dropped_in += u64::from(inbox.is_none());
    });
    match inbox {
        Some(inbox) => inbox.deliver(message),
        None => tracing::debug!(group = message.group, "a message for a group that isn't here"),
    }
}

#[derive(Default)]
struct Arrived {
    bytes: Cell<u64>,
    more: Signal,
}

impl Arrived {
    fn add(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.set(self.bytes.get() + bytes as u64);
            self.more.raise();
        }
    }
}

/// Tells the peer how many bytes have arrived: at once after a silence, else at most once in a
/// pause. Pings and echoes go at once.
async fn report<R: AsyncRuntime>(
    rt: R,
    mut write: impl WriteHalf,
    arrived: Rc<Arrived>,
    session: Rc<Session>,
    pause: Duration,
) {
    let (mut told, mut next) = (0, rt.now());
    loop {
        let mut reports = BytesMut::new();
        for control in session.take_due() {
            reports.put_u64_le(match control {
                Control::Ping => PING_REPORT,
                Control::Echo => ECHO_REPORT,
            });
        }
        let (total, now) = (arrived.bytes.get(), rt.now());
        if total > told && now >= next {
            reports.put_u64_le(total);
            (told, next) = (total, now + pause);
        }
        if !reports.is_empty() {
            if write.write_all(vec![reports.freeze()]).await.is_err() {
                return; // The reader sees the same, and says so.
            }
        } else if now < next {
            select(pin!(session.due.wait()), pin!(rt.sleep_until(next))).await;
        } else {
            select(pin!(session.due.wait()), pin!(arrived.more.wait())).await;
        }
    }
}

/// Ends all connections.
pub(crate) fn close_all<R: AsyncRuntime>(accepted: &RefCell<Accepted<R>>) {
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
