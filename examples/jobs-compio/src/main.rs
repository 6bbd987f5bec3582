//! The job queue of `examples/jobs` on compio: HTTP, Raft, the log and the state machine share one
//! thread and one io_uring, the one that the service has anyway. Three nodes, each in a terminal:
//!
//! $ cargo run -p jobs-compio 1                                    # and 2, and 3
//! $ curl -X PUT localhost:7231/jobs/fence -d 'paint it'

#[path = "../../jobs/src/http.rs"]
mod http;
#[path = "../../jobs/src/queue.rs"]
mod queue;

use std::process::ExitCode;

use compio::net::TcpListener;
use queue::Queue;
use quorate::prelude::*;

const MEMBERS: [&str; 3] = ["127.0.0.1:7241", "127.0.0.1:7242", "127.0.0.1:7243"];

#[compio::main]
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

async fn serve_node() -> Result<(), Box<dyn std::error::Error>> {
    let id: usize = std::env::args().nth(1).ok_or("which node: 1, 2 or 3?")?.parse()?;
    let address = *MEMBERS.get(id.wrapping_sub(1)).ok_or("which node: 1, 2 or 3?")?;
    let attached = Compio::attach()?; // To the runtime that runs this.
    let outcome = run_node(attached.rt(), id, address).await;
    attached.close().await; // After an error, too, or the folder may stay locked.
    outcome
}

async fn run_node(rt: Compio, id: usize, address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder(id as u64)
        .log_store(FileStore::open(&rt, format!("data/jobs-compio-{id}")).await?)
        .transport(TcpTransport::bind(&rt, address).await?)
        .start(&rt)
        .await?;
    let raft = node.group(0).open(Queue::default()).await?;
    raft.initialize((1..).zip(MEMBERS)).await?; // The first time it waits until all are there.

    let listener = TcpListener::bind(format!("127.0.0.1:723{id}")).await?;
    println!("node {id} serves http://{}", listener.local_addr()?);
    let (signal, handle) = (StopSignal::listen()?, raft.clone());
    // A node can also end by itself, say because its disk fails. Then it answers nothing any more.
    let stop = async move { drop(race(signal.received(), handle.stopped()).await) };
    cyper_axum::serve(listener, http::router(raft)).with_graceful_shutdown(stop).await?;
    node.shutdown().await?; // One that leads hands its leadership over first.
    Ok(())
}
