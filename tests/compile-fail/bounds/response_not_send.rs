//! A response that can't leave its thread.

use std::rc::Rc;

use quorate::prelude::*;

#[derive(Default, Serialize, Deserialize)]
struct Words(Vec<String>);

impl StateMachine for Words {
    type Command = String;
    type Response = Rc<str>;

    async fn apply(&mut self, word: String, _: At) -> Rc<str> {
        self.0.push(word.clone());
        word.into()
    }
}

async fn open(node: Node<Tokio, MemStore, LocalTransport>) -> quorate::Result<()> {
    let raft = node.group(0).open(Words::default()).await?;
    let local = node.group(1).open_local(Words::default()).await?;
    let shared = local.shared();
    Ok(())
}

fn main() {}
