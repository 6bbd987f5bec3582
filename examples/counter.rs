//! A replicated counter: the smallest service. `cargo run --example counter`
//!
//! To move it to io_uring, change `Tokio` to `Monoio` or `Compio` (and switch that feature on), and
//! nothing else.

use quorate::prelude::*;

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

impl StateMachine for Counter {
    type Command = i64; // anything serde knows, or raw bytes
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.total += add;
        self.total
    }
}

fn main() -> quorate::Result<()> {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    quorate::run(async |rt: Tokio| {
        let node = Node::builder(1)
            .log_store(FileStore::open(&rt, "data/1").await?)
            .transport(TcpTransport::bind(&rt, "127.0.0.1:7001").await?)
            .start(&rt)
            .await?;
        let raft = node.group(0).open(Counter::default()).await?; // Clone + Send + Sync
        raft.initialize([(1, "127.0.0.1:7001")]).await?;
        let total = raft.write(5).await?; // replicated, durable, applied
        let seen = raft.read(|counter| counter.total).await?; // linearizable
        assert_eq!(total, seen);
        node.shutdown().await?; // dropping the node would be a crash
        Ok(())
    })
}
