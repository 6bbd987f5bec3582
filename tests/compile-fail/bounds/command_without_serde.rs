//! A command that serde doesn't know.

use quorate::prelude::*;

enum Command {
    Add(i64),
}

#[derive(Default, Serialize, Deserialize)]
struct Counter {
    total: i64,
}

impl StateMachine for Counter {
    type Command = Command;
    type Response = i64;

    async fn apply(&mut self, Command::Add(add): Command, _: At) -> i64 {
        self.total += add;
        self.total
    }
}

fn main() {}
