//! Builders, timers, tasks and requests that nobody waits for.
#![deny(unused_must_use)]

use std::time::Duration;

use quorate::prelude::*;

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

async fn mistakes(rt: Tokio, node: Node<Tokio, MemStore, LocalTransport>, raft: Raft<Counter>) {
    Node::builder(2);
    node.group(1);
    node.group(1).open(Counter::default());
    rt.spawn(async {});
    rt.sleep(Duration::ZERO);
    rt.timeout(Duration::ZERO, async {});
    race(async {}, async {});
    raft.write(5);
    raft.read(|counter| counter.total);
    raft.snapshot();
}

fn main() {}
