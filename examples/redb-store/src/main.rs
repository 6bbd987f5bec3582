//! A counter whose log is in a redb database. `cargo run -p redb-store`
//!
//! It counts until it is killed. Start it again: it goes on where it was.

use std::path::Path;

use quorate::prelude::*;
use redb_store::RedbStore;

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: u64,
}

impl StateMachine for Counter {
    type Command = u64;
    type Response = u64;

    async fn apply(&mut self, add: u64, _: At) -> u64 {
        self.total += add;
        self.total
    }
}

fn main() -> quorate::Result<()> {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    quorate::run(async |rt: Tokio| {
        rt.create_dir_all(Path::new("data")).await?;
        let node = Node::builder(1)
            .log_store(RedbStore::open(&rt, "data/counter.redb")?)
            .transport(TcpTransport::bind(&rt, "127.0.0.1:7271").await?)
            .start(&rt)
            .await?;
        // Snapshots often enough that there are some.
        let config = Config { snapshot_after_entries: 1000, ..Config::default() };
        let raft = node.group(0).config(config).open(Counter::default()).await?;
        raft.initialize([(1, "127.0.0.1:7271")]).await?;
        println!("found {}", raft.read(|counter| counter.total).await?);
        loop {
            println!("acknowledged {}", raft.write(1).await?);
        }
    })
}
