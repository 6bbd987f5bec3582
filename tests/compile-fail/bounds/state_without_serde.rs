//! A state that serde doesn't know, and that writes no snapshots itself.

use quorate::prelude::*;

#[derive(Default)]
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

fn main() {}
