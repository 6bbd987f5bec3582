//! A replicated job queue behind axum, on multi-threaded tokio. Three nodes, each in a terminal:
//!
//! $ cargo run -p jobs 1                                           # and 2, and 3
//! $ curl -X PUT    localhost:7211/jobs/fence -d 'paint it'
//! $ curl -X POST   localhost:7212/claims/30000
//! {"name":"fence","payload":"paint it","lease":4}
//! $ curl -X DELETE localhost:7213/jobs/fence/4

mod queue;
#[cfg(test)]
mod tests;

use queue::Queue;
use quorate::prelude::*;
use tokio::net::TcpListener;

const MEMBERS: [&str; 3] = ["127.0.0.1:7221", "127.0.0.1:7222", "127.0.0.1:7223"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    let id = std::env::args().nth(1).and_then(|id| id.parse().ok());
    let Some(id @ 1..=3) = id else { anyhow::bail!("which node: 1, 2 or 3?") };
    // The node lives on a thread of its own. What comes back is a handle for any thread.
    let start = async move |rt: Tokio| -> quorate::Result<_> {
        let node = Node::builder(id)
            .log_store(FileStore::open(&rt, format!("data/jobs-{id}")).await?)
            .transport(TcpTransport::bind(&rt, MEMBERS[id as usize - 1]).await?)
            .start(&rt)
            .await?;
        let raft = node.group(0).open(Queue::default()).await?;
        Ok((node, raft))
    };
    let raft = quorate::launch(quorate::Launch::named("raft"), start).await?;
    raft.initialize((1..).zip(MEMBERS)).await?; // The first time it waits until all are there.

    let listener = TcpListener::bind(format!("127.0.0.1:721{id}")).await?;
    println!("node {id} serves http://{}", listener.local_addr()?);
    let (signal, handle) = (StopSignal::listen()?, raft.clone());
    // A node can also end by itself, say because its disk fails. Then it answers nothing any more.
    let stop = async move { drop(race(signal.received(), handle.stopped()).await) };
    axum::serve(listener, queue::router(raft.clone())).with_graceful_shutdown(stop).await?;
    raft.shutdown().await?; // One that leads hands its leadership over first.
    Ok(())
}
