//! The tasks that accept connections and read messages from them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::codec::decode_message;
use quorate_core::{Message, NodeId};
use quorate_rt::channel::Signal;
use quorate_rt::{AsyncRuntime, Listener, ReadHalf, Stream, Task, WriteHalf};
use thiserror::Error;

use crate::frame::{FrameError, FrameReader};
use crate::handshake::{Answer, Hello, Lane, MAX_HELLO_BYTES, Refusal};
use crate::transport::State;
use crate::wait::within;

/// The most connections at a time, those in their handshake included: several times the nodes of a cluster. It bounds what
/// strangers can make us hold.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// How long accepting rests after an error: the usual one is that the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The accepted connections.
pub(crate) struct Accepted<R: AsyncRuntime> {
    next: u64,
    tasks: BTreeMap<u64, R::Task<()>>,
    /// The one connection of each peer and lane.
    of_peers: BTreeMap<(NodeId, Lane), u64>,
}

impl<R: AsyncRuntime> Default for Accepted<R> {
    fn default() -> Self {
        Self { next: 0, tasks: BTreeMap::new(), of_peers: BTreeMap::new() }
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
        let id = state.accepted.borrow().next;
        let task = state.rt.spawn(connection(Rc::clone(&state), id, stream, address));
        let accepted = &mut *state.accepted.borrow_mut();
        accepted.next += 1;
        accepted.tasks.insert(id, task);
    }
}

/// One connection, from its first byte to its last.
async fn connection<R: AsyncRuntime>(
    state: Rc<State<R>>,
    id: u64,
    stream: R::Stream,
    address: SocketAddr,
) {
    match welcome(&state, stream).await {
        Ok(Guest { hello, read, write, rest }) => {
            let peer = hello.from;
            state.count(|stats| stats.accepts += 1);
            learn(&state, &hello, address);
            replace_older(&state, (peer, hello.lane), id);
            match serve(&state, hello, read, write, rest).await {
                Ok(()) => tracing::info!(peer, %address, "a peer has closed its connection"),
                Err(error) => {
                    if matches!(error, ServeError::Frame(_)) {
                        state.count(|stats| stats.bad_frames += 1);
                    }
                    tracing::warn!(peer, %address, %error, "the connection of a peer is closed");
                }
            }
        }
        Err(WelcomeError::Silent) => tracing::debug!(%address, "connected and said nothing"),
        Err(error) => {
            state.count(|stats| stats.refused_handshakes += 1);
            tracing::warn!(%address, %error, "a connection is refused");
        }
    }
    let own = {
        let accepted = &mut *state.accepted.borrow_mut();
        accepted.of_peers.retain(|_, connection| *connection != id);
        accepted.tasks.remove(&id)
    };
    // It ends by itself right now; dropping the handle would be cancelling oneself.
    if let Some(own) = own {
        own.detach();
    }
}

/// A peer whose handshake succeeded.
struct Guest<S: Stream> {
    hello: Hello,
    read: S::ReadHalf,
    write: S::WriteHalf,
    /// What came after the hello.
    rest: BytesMut,
}

#[derive(Debug, Error)]
enum WelcomeError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("no handshake: {0}")]
    Io(#[from] io::Error),
    /// Closed before the first byte, as health checks do.
    #[error("nothing was said")]
    Silent,
}

async fn welcome<R: AsyncRuntime>(
    state: &State<R>,
    stream: R::Stream,
) -> Result<Guest<R::Stream>, WelcomeError> {
    let node = state.node.get().expect("accepting begins when the node is attached");
    let handshake = shake_hands(stream, state.config.cluster_id, node);
    within(&state.rt, state.timing.handshake, handshake).await?
}

async fn shake_hands<S: Stream>(
    stream: S,
    cluster: u64,
    node: NodeId,
) -> Result<Guest<S>, WelcomeError> {
    let (mut read, mut write) = stream.split();
    let mut rest = BytesMut::with_capacity(MAX_HELLO_BYTES);
    let verdict = loop {
        match Hello::take(&mut rest) {
            Ok(Some(hello)) => break hello.check(cluster, node).map(|()| hello),
            Ok(None) => {}
            Err(refusal) => break Err(refusal),
        }
        let (count, back) = read.read(rest).await;
        rest = back;
        if count? == 0 {
            let said_something = !rest.is_empty();
            return Err(if said_something {
                io::Error::from(io::ErrorKind::UnexpectedEof).into()
            } else {
                WelcomeError::Silent
            });
        }
    };
    let answer = Answer { cluster, node, refused: verdict.as_ref().err().copied() };
    let answered = write.write_all(vec![answer.encode()]).await;
    let hello = verdict?;
    answered?;
    Ok(Guest { hello, read, write, rest })
}

fn learn<R: AsyncRuntime>(state: &Rc<State<R>>, hello: &Hello, seen: SocketAddr) {
    if !hello.address.is_empty() {
        let address = complete(&hello.address, seen);
        state.change_addresses(|addresses| addresses.learn(hello.from, address));
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

/// A peer connects anew when the old connection of the lane is of no use to it, which we may not have noticed.
fn replace_older<R: AsyncRuntime>(state: &State<R>, peer: (NodeId, Lane), id: u64) {
    let accepted = &mut *state.accepted.borrow_mut();
    let older = accepted.of_peers.insert(peer, id);
    let older = older.and_then(|older| accepted.tasks.remove(&older));
    drop(older);
}

#[derive(Debug, Error)]
enum ServeError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Reads until the peer closes.
async fn serve<R: AsyncRuntime>(
    state: &Rc<State<R>>,
    hello: Hello,
    mut read: impl ReadHalf,
    write: impl WriteHalf,
    rest: BytesMut,
) -> Result<(), ServeError> {
    let arrived = Rc::new(Arrived::default());
    arrived.add(rest.len());
    let _reporter =
        state.rt.spawn(report(state.rt.clone(), write, Rc::clone(&arrived), state.timing.report));
    let mut frames = FrameReader::new(rest, state.config.max_frame_bytes);
    loop {
        while let Some(body) = frames.next()? {
            let message = decode(body, &hello)?;
            deliver(state, message);
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

fn decode(body: Bytes, hello: &Hello) -> Result<Message, FrameError> {
    let message = decode_message(body)?;
    let (peer, node) = (hello.from, hello.to);
    if message.from != peer || message.to != node {
        return Err(FrameError::Misdirected { from: message.from, to: message.to, peer, node });
    }
    if Lane::of(&message.body) != hello.lane {
        return Err(FrameError::Lane(hello.lane));
    }
    Ok(message)
}

fn deliver<R: AsyncRuntime>(state: &State<R>, message: Message) {
    // Not borrowed while the inbox is called: it may attach, detach or drop the transport.
    let inbox = state.inboxes.borrow().get(&message.group).cloned();
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

/// Tells the peer how many bytes have arrived: at once after a silence, else at most once in a pause.
async fn report<R: AsyncRuntime>(
    rt: R,
    mut write: impl WriteHalf,
    arrived: Rc<Arrived>,
    pause: Duration,
) {
    loop {
        arrived.more.wait().await;
        let total = arrived.bytes.get().to_le_bytes();
        if write.write_all(vec![Bytes::copy_from_slice(&total)]).await.is_err() {
            return; // The reader sees the same, and says so.
        }
        rt.sleep(pause).await;
    }
}

/// Ends all connections.
pub(crate) fn close_all<R: AsyncRuntime>(accepted: &RefCell<Accepted<R>>) {
    let Accepted { tasks, .. } = accepted.take();
    drop(tasks);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_names_no_host_is_completed_by_what_was_seen() {
        let seen = "192.0.2.7:50000".parse().unwrap();
        assert_eq!(complete("0.0.0.0:7001", seen), "192.0.2.7:7001");
        assert_eq!(complete("[::]:7001", seen), "192.0.2.7:7001");
        assert_eq!(complete("192.0.2.9:7001", seen), "192.0.2.9:7001");
        assert_eq!(complete("raft-1.example:7001", seen), "raft-1.example:7001");
    }
}
