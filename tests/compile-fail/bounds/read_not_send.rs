//! A read that can't be sent to the node's thread.

use std::rc::Rc;

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

async fn read(raft: Raft<Counter>) -> quorate::Result<i64> {
    let factor = Rc::new(2);
    Ok(raft.read(move |counter| counter.total * *factor).await?)
}

fn main() {}
