//! One client's connection: reads, cuts out requests, has them executed in runs, and answers with one write.
//!
//! Consecutive writes of a pipeline become one replicated command and consecutive reads one look at the state. A run is
//! awaited before the next begins. So a client sees its own writes, its commands take effect in order, and at most one write is in
//! flight: one that was refused can be proposed again without overtaking another.

use std::mem;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate::AsyncRuntime;
use quorate::codec::Gather;
use quorate::rt::{ReadHalf, Stream, WriteHalf};
use tracing::debug;

use crate::attempt::Attempts;
use crate::command::{self, Command, Local};
use crate::info;
use crate::reply::{Protocol, Reply};
use crate::request::{Decoder, ProtocolError, Request};
use crate::server::{Seat, Server};
use crate::store::Read;
use crate::write::Batch;

/// What an idle connection reads into, in bytes: all its buffers while nothing is going on.
const LEAST_READ_BYTES: usize = 4 << 10;

/// The most that is read at once, in bytes, and with it the longest pipeline that is looked at before answers go out (a single
/// request may be longer).
const MOST_READ_BYTES: usize = 256 << 10;

/// Answers are sent once they make up this much, in bytes, even if more requests are there. Nothing is read or executed until the
/// client has taken them.
const ANSWERS_BYTES: usize = 1 << 20;

/// The most reads in a run. It bounds how long they keep the state machine.
const MAX_READS: usize = 1024;

/// Serves a connection until either side closes it.
pub(crate) async fn serve<R: AsyncRuntime>(seat: &Seat<R>, stream: R::Stream, id: u64) {
    let server = &seat.server;
    let (mut reader, writer) = stream.split();
    let mut connection = Connection {
        server: Rc::clone(server),
        attempts: Attempts::new(server.rt.clone(), server.raft.clone()),
        id,
        name: Bytes::new(),
        protocol: Protocol::default(),
        decoder: Decoder::default(),
        writes: Batch::default(),
        reads: Vec::new(),
        answers: Gather::new(),
        writer,
    };
    let mut buffer = BytesMut::new();
    let mut read_bytes = LEAST_READ_BYTES;
    loop {
        if buffer.is_empty() && read_bytes == LEAST_READ_BYTES {
            // Whatever a long request has needed before is given back.
            buffer = BytesMut::new();
        }
        let lacks = connection.decoder.lacks(&buffer);
        buffer.reserve(lacks.clamp(read_bytes, MOST_READ_BYTES));
        // What is no longer than what is read at once is bounded by the number of clients.
        let long = if buffer.len() > MOST_READ_BYTES { buffer.len() + MOST_READ_BYTES } else { 0 };
        if !seat.hold(long) {
            let text = "ERR the requests of all clients are too long together, try again later";
            // Where the rest of the request comes on, the client may not get to see it.
            if connection.put(&Reply::error(text)).await.is_ok() {
                let _ = connection.send().await;
            }
            return;
        }
        let (result, filled) = reader.read(buffer).await;
        buffer = filled;
        let read = match result {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) => {
                debug!(id, %error, "a connection broke");
                return;
            }
        };
        // A client that fills what there is will go on doing so.
        read_bytes = if read >= read_bytes { read_bytes * 2 } else { LEAST_READ_BYTES };
        read_bytes = read_bytes.min(MOST_READ_BYTES);
        if connection.answer(&mut buffer).await.is_err() {
            return;
        }
    }
}

/// The connection ends here.
struct Closed;

struct Connection<R: AsyncRuntime> {
    server: Rc<Server<R>>,
    attempts: Attempts<R>,
    id: u64,
    name: Bytes,
    protocol: Protocol,
    decoder: Decoder,
    /// The run that is being collected: of these two at most one holds something.
    writes: Batch,
    reads: Vec<Read>,
    /// What is to be sent.
    answers: Gather,
    writer: <R::Stream as Stream>::WriteHalf,
}

impl<R: AsyncRuntime> Connection<R> {
    /// Executes and answers all whole requests in the buffer.
    async fn answer(&mut self, buffer: &mut BytesMut) -> Result<(), Closed> {
        self.attempts.begin();
        loop {
            match self.decoder.next(buffer) {
                Ok(Some(request)) => self.execute(request).await?,
                Ok(None) => break,
                Err(ProtocolError(text)) => {
                    self.finish_run().await?;
                    self.put(&Reply::error(text)).await?;
                    self.send().await?;
                    return Err(Closed);
                }
            }
        }
        self.finish_run().await?;
        self.send().await
    }

    async fn execute(&mut self, request: Request) -> Result<(), Closed> {
        let commands = &self.server.commands;
        commands.set(commands.get() + 1);
        let command = match request {
            Request::Arguments(arguments) => command::parse(arguments),
            Request::Refused(text) => Err(Reply::error(text)),
        };
        match command {
            Ok(Command::Write(write)) => {
                if !self.reads.is_empty() {
                    self.finish_run().await?;
                }
                self.writes.push(&write);
                // An answer with a value may be long: collect no more of them than can be sent.
                if self.writes.is_full() || write.answers_value() {
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
                self.local(local).await
            }
            Err(error) => {
                self.finish_run().await?;
                self.put(&error).await
            }
        }
    }

    /// Executes what has been collected and puts down the answers.
    async fn finish_run(&mut self) -> Result<(), Closed> {
        let count = self.writes.len();
        if count > 0 {
            let writes = mem::take(&mut self.writes).finish();
            match self.attempts.write(writes).await {
                Ok(replies) => {
                    assert_eq!(replies.len(), count, "a reply for each write");
                    for reply in &replies {
                        self.put(reply).await?;
                    }
                }
                Err(error) => {
                    for _ in 0..count {
                        self.put(&error).await?;
                    }
                }
            }
        }
        let mut reads = mem::take(&mut self.reads);
        while !reads.is_empty() {
            let (rest, result) = self.attempts.read(reads).await;
            reads = rest;
            match result {
                // The rest did not fit into what should be answered at once.
                Ok(replies) => {
                    for reply in &replies {
                        self.put(reply).await?;
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
            Local::Config(patterns) => info::config(&patterns),
            Local::Info(sections) => Reply::Text(info::info(&self.server, &sections)),
            Local::RaftStatus => info::raft_status(&self.server.metrics.borrow()),
            // They take as long as they take: a large state, or another snapshot to be written first.
            Local::RaftSnapshot => info::compacted(self.server.raft.snapshot().await),
            Local::RaftPurge => info::compacted(self.server.raft.purge().await),
            Local::Quit => {
                self.put(&Reply::OK).await?;
                self.send().await?;
                return Err(Closed);
            }
        };
        self.put(&reply).await
    }

    /// Puts down an answer, and sends what is there if it is much.
    async fn put(&mut self, reply: &Reply) -> Result<(), Closed> {
        reply.put(&mut self.answers, self.protocol);
        if self.answers.len() >= ANSWERS_BYTES {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), Closed> {
        let answers = self.answers.take();
        if answers.is_empty() {
            return Ok(());
        }
        self.writer.write_all(answers).await.map_err(|error| {
            debug!(id = self.id, %error, "a connection broke");
            Closed
        })
    }
}
