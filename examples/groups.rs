//! Many groups on one node, here 64 shards of a counter. `cargo run --example groups`

use std::collections::BTreeMap;

use futures::future::try_join_all;
use quorate::prelude::*;

#[derive(Default, Serialize, Deserialize)]
struct Shard {
    total: i64,
}

impl StateMachine for Shard {
    type Command = i64;
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.total += add;
        self.total
    }
}

fn main() -> quorate::Result<()> {
    quorate::run(async |rt: Tokio| {
        let node = Node::builder(1)
            .log_store(FileStore::open(&rt, "data/groups").await?)
            .transport(TcpTransport::bind(&rt, "127.0.0.1:7001").await?)
            .start(&rt)
            .await?;
        let members = [(1, "127.0.0.1:7001")];
        let config = Config { max_retained_bytes: 64 << 20, ..Config::default() }; // of each group

        let mut shards = BTreeMap::new();
        for id in 1..=64 {
            let raft = node.group(id).config(config.clone()).open(Shard::default()).await?;
            shards.insert(id, raft);
        }
        // All at once: each returns when all members have formed its group, and another node may
        // open the groups in another order.
        try_join_all(shards.values().map(|raft| raft.initialize(members))).await?;

        let (log_id, total) = shards[&7].write_with_log_id(5).await?;
        println!("{} groups are open; group 7 has {total} at {log_id}", node.groups().len());

        node.remove(64).await?; // its data on this node, for good
        assert!(node.find::<Shard>(64).is_none());

        node.shutdown().await?; // dropping the node would be a crash
        Ok(())
    })
}
