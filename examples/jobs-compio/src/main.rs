//! The job queue of `examples/jobs` on compio: HTTP, Raft, the log and the state machine share one
//! thread and one io_uring, the one that the service has anyway. Three nodes, each in a terminal:
//!
//! $ cargo run -p jobs-compio 1                                    # and 2, and 3
//! $ curl -X PUT localhost:7231/jobs/fence -d 'paint it'

#[path = "../../jobs/src/queue.rs"]
mod queue;

use compio::net::TcpListener;
use queue::Queue;
use quorate::prelude::*;

const MEMBERS: [&str; 3] = ["127.0.0.1:7241", "127.0.0.1:7242", "127.0.0.1:7243"];

#[compio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    let id = std::env::args().nth(1).and_then(|id| id.parse().ok());
    let Some(id @ 1..=3) = id else { anyhow::bail!("which node: 1, 2 or 3?") };
    let attached = Compio::attach()?; // To the runtime that runs this.
    let outcome = serve_node(attached.rt(), id).await;
    attached.close().await; // After an error, too, or the folder may stay locked.
    outcome
}

async fn serve_node(rt: Compio, id: u64) -> anyhow::Result<()> {
    let node = Node::builder(id)
        .log_store(FileStore::open(&rt, format!("data/jobs-compio-{id}")).await?)
        .transport(TcpTransport::bind(&rt, MEMBERS[id as usize - 1]).await?)
        .start(&rt)
        .await?;
    let raft = node.group(0).open(Queue::default()).await?;
    raft.initialize((1..).zip(MEMBERS)).await?; // The first time it waits until all are there.

    let listener = TcpListener::bind(format!("127.0.0.1:723{id}")).await?;
    println!("node {id} serves http://{}", listener.local_addr()?);
    let (signal, handle) = (StopSignal::listen()?, raft.clone());
    // A node can also end by itself, say because its disk fails. Then it answers nothing any more.
    let stop = async move { drop(race(signal.received(), handle.stopped()).await) };
    cyper_axum::serve(listener, queue::router(raft)).with_graceful_shutdown(stop).await?;
    node.shutdown().await?; // One that leads hands its leadership over first.
    Ok(())
}
