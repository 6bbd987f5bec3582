//! What a node's thread gives to others must be `Send`: handles of `open`, not of `open_local`.

use quorate::prelude::*;
use quorate::Launch;

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

impl StateMachine for Counter {
    type Command = i64;
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.total += add;
        self.total
    }
}

async fn start() -> quorate::Result<LocalRaft<Counter>> {
    quorate::launch(Launch::named("node"), async |rt: Tokio| {
        let transport = LocalNetwork::new().transport();
        let node = Node::builder(1).log_store(MemStore::new()).transport(transport).start(&rt);
        let node = node.await?;
        let raft = node.group(0).open_local(Counter::default()).await?;
        Ok((node, raft))
    })
    .await
}

fn main() {}
