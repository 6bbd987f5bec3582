//! Reading the frames of an accepted connection, and reporting what has arrived.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::select;
use quorate_core::codec::decode_message_within;
use quorate_core::{Body, Message, Replica};
use quorate_rt::{Executor, Network, ReadHalf, WriteHalf, yield_now};
use thiserror::Error;

use crate::budget::Share;
use crate::frame::{FrameError, FrameReader, HEADER_BYTES};
use crate::handshake::{Lane, is_formation};
use crate::marks::Arrived;
use crate::sessions::{Control, ECHO_FRAME, ECHO_REPORT, PING_FRAME, PING_REPORT, Session};
use crate::transport::State;
use crate::watch;

/// The largest message where nothing is proven: one that forms a cluster has up to 64 addresses of
/// 512 bytes. It needs no memory beyond the chunk that each connection has.
const MAX_UNPROVEN_BYTES: usize = FrameReader::CHUNK_BYTES - HEADER_BYTES;

/// Where nothing is proven, one message is taken in this time, over all such connections: whoever
/// reaches the port may send without end. A cluster that is formed, and a disk that is let in, take
/// a few messages for each heartbeat.
const UNPROVEN_PAUSE: Duration = Duration::from_millis(1);

/// So much is taken from a connection before the other tasks of the thread get their turn, even if
/// there is more. A runtime may not look before a hundred reads.
const MAX_BYTES_IN_A_ROW: usize = FrameReader::CHUNK_BYTES;

/// The most bytes of a message besides what it is counted as, with fields of later versions, which
/// are skipped. A command keeps the whole frame alive in which it came, for as long as it is in the
/// log: with more than this, a few would take memory without bound.
const MAX_UNKNOWN_BYTES: usize = 64 << 10;

#[derive(Debug, Error)]
pub(crate) enum ServeError {
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What reads the frames of a connection.
pub(crate) struct Reader<'a, R: Network> {
    pub(crate) state: &'a Rc<State<R>>,
    /// The number of the connection.
    pub(crate) id: u64,
    pub(crate) session: &'a Rc<Session>,
    pub(crate) arrived: &'a Rc<Arrived>,
    /// This replica, as the peer has been told.
    pub(crate) node: Replica,
    pub(crate) lane: Lane,
}

impl<R: Network> Reader<'_, R> {
    /// Reads until the peer closes.
    pub(crate) async fn run(
        &self,
        mut read: impl ReadHalf,
        write: impl WriteHalf,
        rest: BytesMut,
    ) -> Result<(), ServeError> {
        let state = self.state;
        self.arrived.add(rest.len());
        state.count(|stats| stats.bytes_in += rest.len() as u64);
        let _reporter = state.rt.spawn(self.report(write));
        let limit = match self.session.proven {
            true => state.config.max_frame_bytes,
            false => state.config.max_frame_bytes.min(MAX_UNPROVEN_BYTES),
        };
        let mut frames = FrameReader::new(rest, limit);
        // What the frame under way has of the memory for all.
        let mut share = None;
        let mut in_a_row = 0;
        loop {
            while let Some(body) = frames.next()? {
                share = None;
                self.arrived.add_frame();
                self.take(body)?;
                if !self.session.proven {
                    // However many there are, they leave the thread to the others.
                    let all = state.accepted.borrow().unproven() as u32;
                    state.rt.sleep(UNPROVEN_PAUSE * all.max(1)).await;
                }
            }
            self.arrived.set_partial(frames.is_partial());
            if share.is_none()
                && let Some(bytes) = frames.large_bytes()
            {
                share = Some(self.find_room(bytes).await);
            }
            let (count, buffer) = read.read(frames.take_buffer()).await;
            frames.put_back(buffer);
            match count? {
                0 => return Ok(()),
                count => {
                    self.arrived.add(count);
                    state.count(|stats| stats.bytes_in += count as u64);
                    in_a_row += count;
                    if in_a_row >= MAX_BYTES_IN_A_ROW {
                        in_a_row = 0;
                        yield_now().await;
                    }
                }
            }
        }
    }

    /// Waits until there is memory for a frame. Meanwhile nothing is read, and the peer waits.
    async fn find_room(&self, bytes: usize) -> Share {
        let arriving = &self.state.arriving;
        if let Some(share) = arriving.try_take(bytes) {
            return share;
        }
        self.state.count(|stats| stats.arrival_waits += 1);
        self.arrived.set_waits(true);
        let share = arriving.take(bytes).await;
        self.arrived.set_waits(false);
        share
    }

    /// What tells the peer how much has arrived. If it fails, the peer would take this node for a
    /// dead one: the connection closes.
    fn report<W: WriteHalf>(&self, write: W) -> impl Future<Output = ()> + use<R, W> {
        let (state, id) = (Rc::clone(self.state), self.id);
        let (arrived, session) = (Rc::clone(self.arrived), Rc::clone(self.session));
        async move {
            let report = report(state.rt.clone(), write, arrived, session, state.timing.report);
            if watch::alone(&state, "reports what has arrived", report).await {
                state.close_accepted(id);
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
        let bytes = body.len();
        let message = decode_message_within(body, self.state.config.max_frame_bytes)?;
        // What a message keeps of its frame keeps all of it.
        if bytes > message.bytes() + MAX_UNKNOWN_BYTES {
            return Err(FrameError::Unknown { bytes, known: message.bytes() });
        }
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

fn deliver<R: Network>(state: &State<R>, message: Message) {
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

/// Tells the peer how many bytes have arrived: at once after a silence, else at most once in a
/// pause. Pings and echoes go at once.
async fn report<R: Executor>(
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
        let (total, now) = (arrived.bytes(), rt.now());
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
