use quorate::prelude::*;
use quorate::AsyncRuntime;

#[derive(Default, Serialize, Deserialize)]
pub struct Counter {
    pub total: i64,
}

impl StateMachine for Counter {
    type Command = i64;
    type Response = i64;

    async fn apply(&mut self, add: i64, _: At) -> i64 {
        self.total += add;
        self.total
    }
}

type FileNode<R> = Node<R, FileStore<R>, TcpTransport<R>>;

pub async fn start<R: AsyncRuntime>(rt: R) -> quorate::Result<(FileNode<R>, Raft<Counter>)> {
    let node = Node::builder(1)
        .log_store(FileStore::open(&rt, "data/1").await?)
        .transport(TcpTransport::bind(&rt, "127.0.0.1:7001").await?)
        .start(&rt)
        .await?;
    let raft = node.group(0).open(Counter::default()).await?;
    Ok((node, raft))
}
