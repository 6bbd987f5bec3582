//! The outbox of a peer's lane, and the task that connects to the peer and writes what has gathered.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::{Either, select};
use quorate_core::NodeId;
use quorate_core::codec::Gather;
use quorate_rt::channel::Signal;
use quorate_rt::{AsyncRuntime, Instant, ReadHalf, Stream, TaskError, WriteHalf};
use thiserror::Error;

use crate::frame::put_frame;
use crate::handshake::{ANSWER_BYTES, Answer, Hello, Lane, Refusal};
use crate::transport::State;
use crate::wait::{resolve, within};

/// What waits for a connection, in bytes (and one message more): enough for the first words of an election, as what
/// is older than a failed attempt is worthless.
const UNCONNECTED_BYTES: usize = 64 << 10;

/// What the transport and the peer's task share.
pub(crate) struct Link {
    pub(crate) peer: NodeId,
    pub(crate) lane: Lane,
    pub(crate) address: String,
    outbox: RefCell<Outbox>,
    filled: Signal,
}

#[derive(Default)]
struct Outbox {
    waiting: Gather,
    waiting_frames: u64,
    /// What the task has taken and not yet written: it is memory, too.
    writing_bytes: usize,
    writing_frames: u64,
    connected: bool,
}

impl Link {
    pub(crate) fn new(peer: NodeId, lane: Lane, address: String) -> Self {
        Self { peer, lane, address, outbox: RefCell::default(), filled: Signal::default() }
    }

    /// Whether another message is taken.
    pub(crate) fn has_room(&self, max_outbox_bytes: usize) -> bool {
        let outbox = self.outbox.borrow();
        let limit = if outbox.connected {
            max_outbox_bytes
        } else {
            max_outbox_bytes.min(UNCONNECTED_BYTES)
        };
        outbox.waiting.len() + outbox.writing_bytes < limit
    }

    /// Puts a message behind the others; the task looks at it after this turn.
    pub(crate) fn push(&self, body: &mut Gather) {
        let mut outbox = self.outbox.borrow_mut();
        put_frame(&mut outbox.waiting, body);
        outbox.waiting_frames += 1;
        drop(outbox);
        self.filled.raise();
    }

    /// Throws away what waits and what has not been written to its end, and says how many messages that were.
    pub(crate) fn clear(&self) -> u64 {
        let lost = self.outbox.take();
        lost.waiting_frames + lost.writing_frames
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        let outbox = self.outbox.borrow();
        outbox.waiting.len() + outbox.writing_bytes
    }

    async fn until_filled(&self) {
        while self.outbox.borrow().waiting.is_empty() {
            self.filled.wait().await;
        }
    }

    fn set_connected(&self, connected: bool) {
        self.outbox.borrow_mut().connected = connected;
    }

    fn begin_write(&self) -> (Vec<Bytes>, usize) {
        let outbox = &mut *self.outbox.borrow_mut();
        assert!(outbox.writing_frames == 0, "one write at a time");
        outbox.writing_bytes = outbox.waiting.len();
        outbox.writing_frames = std::mem::take(&mut outbox.waiting_frames);
        (outbox.waiting.take(), outbox.writing_bytes)
    }

    fn end_write(&self) -> (usize, u64) {
        let outbox = &mut *self.outbox.borrow_mut();
        (std::mem::take(&mut outbox.writing_bytes), std::mem::take(&mut outbox.writing_frames))
    }
}

#[derive(Debug, Error)]
enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the handshake is refused: {0}")]
    Refused(#[from] Refusal),
}

/// Connects whenever there is something to send, and writes it. Never ends; its handle is dropped.
pub(crate) async fn run<R: AsyncRuntime>(state: Rc<State<R>>, link: Rc<Link>, node: NodeId) {
    let (peer, lane, address) = (link.peer, link.lane, link.address.as_str());
    let mut failures = 0;
    // So that a peer that is away for long is one line of the log, and not one a second.
    let mut logged = String::new();
    loop {
        link.until_filled().await;
        let hello = Hello {
            cluster: state.config.cluster_id,
            from: node,
            to: peer,
            lane: link.lane,
            address: state.advertise.clone(),
        };
        let attempt = connect(state.rt.clone(), link.address.clone(), hello);
        let connection = within(&state.rt, state.timing.handshake, attempt).await;
        match connection.map_err(ConnectError::from).flatten() {
            Ok(connection) => {
                failures = 0;
                logged.clear();
                state.count(|stats| stats.connects += 1);
                tracing::info!(peer, ?lane, address, "connected");
                match serve(&state, &link, connection).await {
                    Ok(()) => {
                        tracing::info!(peer, ?lane, address, "an idle connection is closed");
                        // What has come at this very moment is for the next connection.
                        link.set_connected(false);
                        continue;
                    }
                    Err(reason) => {
                        tracing::warn!(peer, ?lane, address, %reason, "the connection to a peer has ended");
                    }
                }
            }
            Err(error) => {
                if matches!(error, ConnectError::Refused(_)) {
                    state.count(|stats| stats.refused_handshakes += 1);
                }
                let reason = error.to_string();
                if reason != logged {
                    tracing::warn!(peer, ?lane, address, %reason, "a peer can't be reached; trying on");
                    logged = reason;
                }
            }
        }
        let lost = link.clear();
        state.count(|stats| stats.dropped_out += lost);
        state.rt.sleep(state.timing.backoff(failures, state.rt.random())).await;
        failures += 1;
    }
}

/// An open connection after its handshake.
struct Connection<S: Stream> {
    read: S::ReadHalf,
    write: S::WriteHalf,
    /// What came after the answer.
    rest: BytesMut,
}

async fn connect<R: AsyncRuntime>(
    rt: R,
    address: String,
    hello: Hello,
) -> Result<Connection<R::Stream>, ConnectError> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    let mut stream = None;
    for to in resolve(&rt, &address).await? {
        match rt.connect(to).await {
            Ok(open) => {
                stream = Some(open);
                break;
            }
            Err(error) => failed = error,
        }
    }
    let (mut read, mut write) = stream.ok_or(failed)?.split();
    write.write_all(vec![hello.encode()]).await?;
    let mut rest = BytesMut::new();
    loop {
        if let Some(answer) = Answer::take(&mut rest)? {
            answer.check(&hello)?;
            return Ok(Connection { read, write, rest });
        }
        rest.reserve(ANSWER_BYTES);
        let (count, back) = read.read(rest).await;
        rest = back;
        if count? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Writes until the connection is idle, or breaks, and says why it did. Whichever task ends first, the others are dropped, and
/// with them the socket.
async fn serve<R: AsyncRuntime>(
    state: &Rc<State<R>>,
    link: &Rc<Link>,
    connection: Connection<R::Stream>,
) -> Result<(), String> {
    let Connection { read, write, rest } = connection;
    let rt = &state.rt;
    let progress = Rc::new(Progress::default());
    link.set_connected(true);
    link.filled.raise();
    let reader = rt.spawn(read_reports(rt.clone(), read, rest, Rc::clone(&progress)));
    let writer =
        rt.spawn(write_outbox(Rc::clone(state), Rc::clone(link), write, Rc::clone(&progress)));
    let silence = pin!(progress.until_silent(rt, state.timing.silence));
    let end: Result<io::Result<()>, TaskError> = match select(select(reader, writer), silence).await
    {
        Either::Left((Either::Left((end, _)) | Either::Right((end, _)), _)) => end,
        Either::Right(((), _)) => return Err("nothing of what was sent arrives".to_owned()),
    };
    end.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Ends well when the connection is idle and need not stay.
async fn write_outbox<R: AsyncRuntime>(
    state: Rc<State<R>>,
    link: Rc<Link>,
    mut write: impl WriteHalf,
    progress: Rc<Progress>,
) -> io::Result<()> {
    loop {
        match link.lane {
            Lane::Main => link.until_filled().await,
            Lane::Bulk => {
                if !filled_before_idle(&state, &link, &progress).await {
                    return Ok(());
                }
            }
        }
        let (batch, bytes) = link.begin_write();
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

/// Waits for something to write; false if for long there is nothing, and all that was written has arrived.
async fn filled_before_idle<R: AsyncRuntime>(
    state: &State<R>,
    link: &Link,
    progress: &Progress,
) -> bool {
    loop {
        let idle = pin!(state.rt.sleep(state.timing.idle));
        match select(pin!(link.until_filled()), idle).await {
            Either::Left(_) => return true,
            Either::Right(_) if progress.waiting_since.get().is_none() => return false,
            Either::Right(_) => {}
        }
    }
}

async fn read_reports<R: AsyncRuntime>(
    rt: R,
    mut read: impl ReadHalf,
    mut reports: BytesMut,
    progress: Rc<Progress>,
) -> io::Result<()> {
    loop {
        while reports.len() >= size_of::<u64>() {
            if !progress.reported(reports.get_u64_le(), rt.now()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the peer reports nonsense",
                ));
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

/// How far the peer is behind what was sent to it. TCP alone doesn't tell for many minutes that a peer has lost its power,
/// and never that it has stopped reading.
#[derive(Default)]
struct Progress {
    /// Bytes handed to the socket, those of a write under way included.
    sent: Cell<u64>,
    /// Bytes that the peer has reported.
    arrived: Cell<u64>,
    /// Since when the peer owes a report: since the oldest bytes on their way were sent, or since it last reported others.
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
    async fn until_silent<R: AsyncRuntime>(&self, rt: &R, limit: Duration) {
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
