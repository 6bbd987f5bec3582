//! Replicated counters behind a line protocol, on monoio: the clients' sockets, Raft, the log and
//! the state machine share one thread and one io_uring, the one that the service has anyway.
//! Three nodes, each in a terminal, and a client of any of them:
//!
//! $ cargo run -p counters 1                                       # and 2, and 3
//! $ nc localhost 7201
//! add apples 3
//! 3
//! get apples
//! 3

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use quorate::prelude::*;

const MEMBERS: [&str; 3] = ["127.0.0.1:7204", "127.0.0.1:7205", "127.0.0.1:7206"];
const MAX_LINE_BYTES: usize = 1024;

#[derive(Default, Serialize, Deserialize)]
struct Counters(BTreeMap<String, i64>);

impl StateMachine for Counters {
    type Command = (String, i64);
    type Response = i64;

    async fn apply(&mut self, (name, add): (String, i64), _: At) -> i64 {
        let counter = self.0.entry(name).or_default();
        // Whatever a client sends comes here: it must not panic.
        *counter = counter.saturating_add(add);
        *counter
    }
}

#[monoio::main(timer_enabled = true)]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    match serve_node().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}"); // As text. `main` would print it for programmers, by `Debug`.
            ExitCode::FAILURE
        }
    }
}

async fn serve_node() -> Result<(), Box<dyn Error>> {
    let id: usize = std::env::args().nth(1).ok_or("which node: 1, 2 or 3?")?.parse()?;
    let address = *MEMBERS.get(id.wrapping_sub(1)).ok_or("which node: 1, 2 or 3?")?;
    let attached = Monoio::attach()?; // To the runtime that runs this.
    let outcome = run_node(attached.rt(), id, address).await;
    attached.close().await; // After an error, too, or the folder may stay locked.
    outcome
}

async fn run_node(rt: Monoio, id: usize, address: &str) -> Result<(), Box<dyn Error>> {
    let node = Node::builder(id as u64)
        .log_store(FileStore::open(&rt, format!("data/counters-{id}")).await?)
        .transport(TcpTransport::bind(&rt, address).await?)
        .start(&rt)
        .await?;
    // A handle for this thread alone: no atomics, and no wake-ups of other threads.
    let raft = node.group(0).open_local(Counters::default()).await?;
    raft.initialize((1..).zip(MEMBERS)).await?; // The first time it waits until all are there.

    let listener = TcpListener::bind(format!("127.0.0.1:720{id}"))?;
    println!("node {id} answers on {}", listener.local_addr()?);
    let handle = raft.clone();
    monoio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(monoio::spawn(serve(stream, handle.clone()))),
                // It may concern one connection, or there are too many open files for a while.
                Err(_) => monoio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    // A node can also end by itself, say because its disk fails. Then it answers nothing any more.
    race(StopSignal::listen()?.received(), raft.stopped()).await;
    node.shutdown().await?; // One that leads hands its leadership over first.
    Ok(())
}

/// Answers line after line.
async fn serve(mut stream: TcpStream, raft: LocalRaft<Counters>) -> io::Result<()> {
    let (mut lines, mut chunk) = (Vec::new(), Vec::with_capacity(MAX_LINE_BYTES));
    loop {
        let read;
        (read, chunk) = stream.read(chunk).await;
        if read? == 0 || lines.len() > MAX_LINE_BYTES {
            return Ok(());
        }
        lines.extend_from_slice(&chunk);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line = lines.drain(..=end).collect::<Vec<u8>>();
            let answer = answer(&String::from_utf8_lossy(&line), &raft).await;
            let answer = answer.unwrap_or_else(|error| format!("error: {error}"));
            stream.write_all((answer + "\n").into_bytes()).await.0?;
        }
    }
}

async fn answer(line: &str, raft: &LocalRaft<Counters>) -> Result<String, Box<dyn Error>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let value = match words[..] {
        // After `WriteError::Unknown` it may have been counted or not: a service that must not
        // count twice gives each request an id, and keeps the last ones in its state.
        ["add", name, add] => raft.write((name.to_owned(), add.parse()?)).await?,
        ["get", name] => {
            let name = name.to_owned();
            raft.read(move |counters| counters.0.get(&name).copied().unwrap_or(0)).await?
        }
        _ => return Ok("what? add NAME NUMBER, or get NAME".to_owned()),
    };
    Ok(value.to_string())
}
