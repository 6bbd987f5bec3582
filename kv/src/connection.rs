//! One client's connection: reads, cuts out requests, has them executed in runs, and answers with
//! one write.
//!
//! Consecutive writes of a pipeline become one replicated command and consecutive reads one look at
//! the state. A run is awaited before the next begins. So a client sees its own writes, its
//! commands take effect in order, and at most one write is in flight: one that was refused can be
//! proposed again without overtaking another.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::pin;
use std::slice;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate::Network;
use quorate::codec::Gather;
use quorate::rt::{Instant, ReadHalf, Stream, WriteHalf};
use tracing::debug;

use crate::alarm::Alarm;
use crate::attempt::Attempts;
use crate::change;
use crate::command::{self, Command, Local};
use crate::info;
use crate::leadership;
use crate::read::Read;
use crate::reply::{Protocol, Reply};
use crate::request::{Decoder, MAX_VALUE_BYTES, ProtocolError, Request};
use crate::server::ClientSlot;
use crate::settings;
use crate::write::Batch;

/// What an idle connection reads into, in bytes: all its buffers while nothing is going on.
pub(crate) const LEAST_READ_BYTES: usize = 4 << 10;

/// The most that is read at once, in bytes, and with it the longest pipeline that is looked at
/// before answers go out (a single request may be longer).
const MOST_READ_BYTES: usize = 256 << 10;

/// Answers are sent once they make up this much, in bytes, even if more requests are there. Nothing
/// is read or executed until the client has taken them.
const ANSWERS_BYTES: usize = 1 << 20;

/// The client has to take so much of the answers within the stall timeout, in bytes: nine kilobytes
/// a second by default.
const PIECE_BYTES: usize = 256 << 10;

/// The most reads in a run. It bounds how long they keep the state machine.
const MAX_READS: usize = 1024;

/// How long a command waits for memory for its answer, and how long from one look to the next,
/// doubling.
const ROOM_PATIENCE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(10);

const REQUESTS_TOO_LONG: &str =
    "ERR the requests of all clients are too long together, try again later";

pub(crate) const NO_ROOM: &str =
    "ERR the answers that clients have not read are too long together, try again later";

/// After so many requests and arguments, some 20 µs, the time is looked at: see
/// [`ThreadTime`](crate::thread_time::ThreadTime).
const ARGUMENTS_PER_LOOK: usize = 256;

/// Serves a connection until either side closes it.
pub(crate) async fn serve<R: Network>(slot: &ClientSlot<R>, stream: R::Stream, id: u64) {
    let server = &slot.server;
    let (mut reader, writer) = stream.split();
    let mut connection = Connection {
        slot,
        attempts: Attempts::new(server),
        alarm: Alarm::new(server.rt.clone()),
        id,
        name: Bytes::new(),
        protocol: Protocol::default(),
        decoder: Decoder::default(),
        writes: Batch::default(),
        reads: Vec::new(),
        arguments: 0,
        answers: Gather::new(),
        writer,
    };
    match connection.run(&mut reader).await {
        Closed::Broken => {}
        Closed::AfterAnswers => {
            let Connection { writer, .. } = connection;
            // They are for those who stay.
            slot.unread.hold(0);
            slot.unfinished.hold(0);
            server.close(reader, writer).await;
        }
    }
}

/// How a connection ends.
enum Closed {
    /// Nothing can be sent any more, or nobody is there.
    Broken,
    /// In order: what was answered has been sent.
    AfterAnswers,
}

/// What a wait for the client has come to.
enum Heard {
    Bytes(io::Result<usize>, BytesMut),
    TooLate,
    /// Others need the memory that the request takes.
    IsToGo,
    Stops,
}

/// A request that is not whole.
struct Unfinished {
    since: Instant,
    bytes: u64,
}

struct Connection<'a, R: Network> {
    slot: &'a ClientSlot<R>,
    attempts: Attempts<R>,
    /// For what concerns the client.
    alarm: Alarm<R>,
    id: u64,
    name: Bytes,
    protocol: Protocol,
    decoder: Decoder,
    /// The run that is being collected: of these two at most one holds something.
    writes: Batch,
    reads: Vec<Read>,
    /// Requests and arguments since the time was looked at; see [`ARGUMENTS_PER_LOOK`].
    arguments: usize,
    /// What is to be sent.
    answers: Gather,
    writer: <R::Stream as Stream>::WriteHalf,
}

impl<R: Network> Connection<'_, R> {
    /// Reads and answers until the connection ends.
    async fn run(&mut self, reader: &mut <R::Stream as Stream>::ReadHalf) -> Closed {
        let mut buffer = BytesMut::new();
        let mut read_bytes = LEAST_READ_BYTES;
        let mut unfinished: Option<Unfinished> = None;
        loop {
            if self.slot.stops() {
                return Closed::AfterAnswers;
            }
            if buffer.is_empty() && read_bytes == LEAST_READ_BYTES {
                // Whatever a long request has needed before is given back.
                buffer = BytesMut::new();
            }
            let lacks = self.decoder.lacks(&buffer);
            let mut room = lacks.clamp(read_bytes, MOST_READ_BYTES);
            if !self.slot.unfinished.hold(buffer.len() + room) {
                room = LEAST_READ_BYTES;
                if !self.slot.unfinished.hold(buffer.len() + room) {
                    return self.last_answer(&Reply::error(REQUESTS_TOO_LONG)).await;
                }
            }
            buffer.reserve(room);
            let heard = self.hear(reader, buffer, unfinished.as_ref()).await;
            let read = match heard {
                Heard::Bytes(Ok(0), _) => return Closed::Broken,
                Heard::Bytes(Ok(read), filled) => {
                    buffer = filled;
                    read
                }
                Heard::Bytes(Err(error), _) => {
                    debug!(id = self.id, %error, "a connection broke");
                    return Closed::Broken;
                }
                Heard::TooLate => {
                    debug!(id = self.id, "a client that says nothing is closed");
                    if unfinished.is_none() {
                        return Closed::AfterAnswers;
                    }
                    let text = "ERR the request was not whole in time";
                    return self.last_answer(&Reply::error(text)).await;
                }
                Heard::IsToGo => {
                    debug!(id = self.id, "a client is closed whose request takes too much memory");
                    return self.last_answer(&Reply::error(REQUESTS_TOO_LONG)).await;
                }
                Heard::Stops => return Closed::AfterAnswers,
            };
            // A client that fills what there is will go on doing so.
            read_bytes = if read >= room { room * 2 } else { LEAST_READ_BYTES };
            read_bytes = read_bytes.min(MOST_READ_BYTES);
            let answered = match self.answer(&mut buffer).await {
                Ok(answered) => answered,
                Err(closed) => return closed,
            };
            if self.decoder.is_between(&buffer) {
                unfinished = None;
                continue;
            }
            let now = self.slot.server.rt.now();
            let begun = unfinished.take().filter(|_| !answered);
            let mut begun = begun.unwrap_or(Unfinished { since: now, bytes: 0 });
            begun.bytes += read as u64;
            unfinished = Some(begun);
        }
    }

    /// Waits for bytes, as long as the client may be silent and the node doesn't stop.
    async fn hear(
        &mut self,
        reader: &mut <R::Stream as Stream>::ReadHalf,
        buffer: BytesMut,
        unfinished: Option<&Unfinished>,
    ) -> Heard {
        let slot = self.slot;
        let limits = &slot.server.limits;
        let now = slot.server.rt.now();
        let deadline = match unfinished {
            Some(unfinished) => {
                let whole = unfinished.since + limits.request_time(unfinished.bytes);
                Some(whole.min(now + limits.stall_timeout))
            }
            None if limits.client_timeout.is_zero() => None,
            None => Some(now + limits.client_timeout),
        };
        let mut read = pin!(reader.read(buffer));
        let heard = poll_fn(|context| match read.as_mut().poll(context) {
            Poll::Ready((result, buffer)) => Poll::Ready(Heard::Bytes(result, buffer)),
            Poll::Pending if slot.poll_stops(context) => Poll::Ready(Heard::Stops),
            Poll::Pending => Poll::Pending,
        });
        let heard = async { slot.unfinished.waiting(heard).await.unwrap_or(Heard::IsToGo) };
        match deadline {
            Some(deadline) => self.alarm.until(deadline, heard).await.unwrap_or(Heard::TooLate),
            None => heard.await,
        }
    }

    /// Executes and answers all whole requests in the buffer. Whether there was one.
    async fn answer(&mut self, buffer: &mut BytesMut) -> Result<bool, Closed> {
        self.attempts.begin();
        let mut answered = false;
        self.pass().await;
        loop {
            match self.decoder.next(buffer) {
                Ok(Some(request)) => {
                    answered = true;
                    self.execute(request).await?;
                }
                Ok(None) => break,
                Err(ProtocolError(text)) => {
                    self.finish_run().await?;
                    return Err(self.last_answer(&Reply::error(text)).await);
                }
            }
        }
        self.finish_run().await?;
        self.send().await?;
        Ok(answered)
    }

    /// Counts requests and arguments, and waits now and then while others are to have the thread.
    async fn count(&mut self, arguments: usize) {
        self.arguments += 1 + arguments;
        if self.arguments >= ARGUMENTS_PER_LOOK {
            self.pass().await;
        }
    }

    async fn pass(&mut self) {
        self.arguments = 0;
        self.slot.server.thread_time.pass().await;
    }

    async fn execute(&mut self, request: Request) -> Result<(), Closed> {
        let arguments = if let Request::Arguments(all) = &request { all.len() } else { 0 };
        self.count(arguments).await;
        let command = match request {
            Request::Nothing => return Ok(()),
            Request::Arguments(arguments) => command::parse(arguments),
            Request::Refused(text) => Err(Reply::error(text)),
        };
        let commands = &self.slot.server.commands;
        commands.set(commands.get() + 1);
        match command {
            Ok(Command::Write(write)) => {
                if !self.reads.is_empty() {
                    self.finish_run().await?;
                }
                self.writes.push(&write);
                // An answer with a value may be long: collect no more of them than can be sent.
                if write.answers_value() {
                    self.finish_run_with_value().await?;
                } else if self.writes.is_full() {
                    self.finish_run().await?;
                }
                Ok(())
            }
            Ok(Command::Read(read)) => {
                if self.writes.len() > 0 {
                    self.finish_run().await?;
                }
                self.reads.push(read);
                if self.reads.len() >= MAX_READS {
                    self.finish_run().await?;
                }
                Ok(())
            }
            Ok(Command::Local(local)) => {
                self.finish_run().await?;
                self.local(local).await?;
                // What it takes is not to be seen from its arguments.
                self.pass().await;
                Ok(())
            }
            Err(error) => {
                self.finish_run().await?;
                self.put(&error).await
            }
        }
    }

    /// The same where the last write answers a value, which can't be refused when it has taken
    /// place: where memory gets short, there must be room for it before.
    async fn finish_run_with_value(&mut self) -> Result<(), Closed> {
        if self.slot.unread.budget().is_tight() {
            self.send().await?;
            if !self.room(MAX_VALUE_BYTES).await {
                for _ in 0..mem::take(&mut self.writes).len() {
                    self.put(&Reply::error(NO_ROOM)).await?;
                }
                return Ok(());
            }
        }
        self.finish_run().await
    }

    /// Executes what has been collected and puts down the answers.
    async fn finish_run(&mut self) -> Result<(), Closed> {
        let count = self.writes.len();
        if count > 0 {
            let writes = mem::take(&mut self.writes).finish();
            match self.attempts.write(writes).await {
                Ok(replies) => {
                    assert_eq!(replies.len(), count, "a reply for each write");
                    self.put_all(&replies).await?;
                }
                Err(error) => {
                    for _ in 0..count {
                        self.put(&error).await?;
                    }
                }
            }
        }
        let mut reads = mem::take(&mut self.reads);
        // Reads that have waited for memory once.
        let mut waited = 0_usize;
        while !reads.is_empty() {
            // Where memory gets short, they may have to be repeated.
            let is_tight = self.slot.unread.budget().is_tight();
            let again = (is_tight && waited == 0).then(|| reads.clone());
            let (rest, result) = self.attempts.read(reads).await;
            reads = rest;
            match result {
                // The rest did not fit into what should be answered at once.
                Ok(replies) => {
                    let bytes = replies.iter().map(Reply::size).sum::<usize>();
                    waited = waited.saturating_sub(replies.len());
                    if self.slot.unread.hold(self.answers.len() + bytes) {
                        self.put_all(&replies).await?;
                        if !reads.is_empty() {
                            // It may take a while, and the next ones, too.
                            self.send().await?;
                        }
                        continue;
                    }
                    let count = replies.len();
                    drop(replies);
                    self.send().await?;
                    match again {
                        Some(again) if self.room(bytes).await => {
                            (reads, waited) = (again, count);
                        }
                        _ => {
                            for _ in 0..count {
                                self.put(&Reply::error(NO_ROOM)).await?;
                            }
                        }
                    }
                }
                Err(error) => {
                    for _ in mem::take(&mut reads) {
                        self.put(&error).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Waits until there is memory for so much of answers, and holds it. False: there is none in
    /// time.
    async fn room(&self, bytes: usize) -> bool {
        let rt = &self.slot.server.rt;
        let deadline = rt.now() + ROOM_PATIENCE;
        let mut pause = FIRST_PAUSE;
        while !self.slot.unread.hold(bytes) {
            if rt.now() + pause > deadline || self.slot.stops() {
                return false;
            }
            rt.sleep(pause).await;
            pause *= 2;
        }
        true
    }

    async fn local(&mut self, local: Local) -> Result<(), Closed> {
        let reply = match local {
            Local::Answer(reply) => reply,
            Local::Hello { protocol, name } => {
                self.protocol = protocol.unwrap_or(self.protocol);
                self.name = name.unwrap_or(mem::take(&mut self.name));
                info::hello(self.id, self.protocol)
            }
            Local::ClientId => Reply::Integer(self.id.cast_signed()),
            Local::ClientName if self.name.is_empty() => Reply::Null,
            Local::ClientName => Reply::Bulk(self.name.clone()),
            Local::SetClientName(name) => {
                self.name = name;
                Reply::OK
            }
            Local::Config(patterns) => info::config(&self.slot.server, &patterns),
            Local::Info(sections) => Reply::Text(info::info(&self.slot.server, &sections)),
            Local::RaftStatus => info::raft_status(&self.slot.server),
            // They take as long as they take: a large state, or another snapshot to be written
            // first.
            Local::RaftSnapshot => info::compacted(self.slot.server.raft.snapshot().await),
            Local::RaftPurge => info::compacted(self.slot.server.raft.purge().await),
            Local::RaftTransfer(to) => {
                leadership::transferred(self.slot.server.raft.transfer_leadership(to).await)
            }
            Local::RaftCampaign => leadership::campaigned(self.slot.server.raft.campaign().await),
            Local::RaftConfig(words) => settings::answer(&self.slot.server, &words).await,
            // A change takes until its nodes have caught up. It goes on if the client goes.
            Local::Membership(request) => change::answer(&self.slot.server, *request).await,
            Local::Close(reply) => return Err(self.last_answer(&reply).await),
        };
        self.put(&reply).await
    }

    /// Puts down an answer, and sends what is there if it is much.
    async fn put(&mut self, reply: &Reply) -> Result<(), Closed> {
        self.put_all(slice::from_ref(reply)).await
    }

    /// The same with several, for which there is room.
    async fn put_all(&mut self, replies: &[Reply]) -> Result<(), Closed> {
        replies.iter().for_each(|reply| reply.put(&mut self.answers, self.protocol));
        let bytes = self.answers.len();
        if self.slot.unread.hold(bytes) && bytes < ANSWERS_BYTES {
            return Ok(());
        }
        self.slot.unread.take(bytes);
        self.send().await
    }

    /// Sends an answer after which the connection is closed.
    async fn last_answer(&mut self, reply: &Reply) -> Closed {
        match self.put(reply).await {
            Ok(()) => self.send().await.err().unwrap_or(Closed::AfterAnswers),
            Err(closed) => closed,
        }
    }

    async fn send(&mut self) -> Result<(), Closed> {
        let mut left = self.answers.len();
        let mut answers = self.answers.take();
        let limit = self.slot.server.limits.stall_timeout;
        while !answers.is_empty() {
            let rest = split_off(&mut answers, PIECE_BYTES);
            left -= answers.iter().map(Bytes::len).sum::<usize>();
            // Pinned here, as a future that is handed on takes its place twice.
            let mut write = pin!(self.writer.write_all(answers));
            let written = self.slot.unread.waiting(write.as_mut());
            match self.alarm.within(limit, written).await {
                Some(Some(Ok(()))) => {}
                Some(Some(Err(error))) => {
                    debug!(id = self.id, %error, "a connection broke");
                    return Err(Closed::Broken);
                }
                Some(None) | None => {
                    debug!(id = self.id, "a client that does not read its answers is closed");
                    return Err(Closed::Broken);
                }
            }
            self.slot.unread.hold(left);
            answers = rest;
        }
        Ok(())
    }
}

/// Leaves the first so many bytes in the list, and gives the rest.
fn split_off(chunks: &mut Vec<Bytes>, bytes: usize) -> Vec<Bytes> {
    let mut before = 0;
    let Some(at) = chunks.iter().position(|chunk| {
        before += chunk.len();
        before > bytes
    }) else {
        return Vec::new();
    };
    let mut rest = chunks.split_off(at);
    let kept = rest[0].len() - (before - bytes);
    if kept > 0 {
        chunks.push(rest[0].split_to(kept));
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_split_at_any_byte() {
        let whole =
            || ["abc", "", "de", "f"].map(|text| Bytes::from_static(text.as_bytes())).to_vec();
        for bytes in 0..8 {
            let mut begin = whole();
            let rest = split_off(&mut begin, bytes);
            assert_eq!(begin.concat().len(), bytes.min(6));
            assert_eq!([begin.concat(), rest.concat()].concat(), b"abcdef");
        }
    }
}
