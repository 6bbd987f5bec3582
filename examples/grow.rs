//! A counter that grows from one node to three while it serves.
//! `cargo run --example grow`, and in other terminals `… grow 2` and `… grow 3`, in any order.

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

#[expect(clippy::disallowed_methods, reason = "which node this is, is said on the command line")]
fn main() -> quorate::Result<()> {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    let id: u64 = std::env::args().nth(1).and_then(|id| id.parse().ok()).unwrap_or(1);
    quorate::run(async move |rt: Tokio| {
        let node = Node::builder(id)
            .log_store(FileStore::open(&rt, format!("data/grow-{id}")).await?)
            .transport(TcpTransport::bind(&rt, &format!("127.0.0.1:710{id}")).await?)
            .start(&rt)
            .await?;
        let raft = node.group(0).open(Counter::default()).await?;
        if id == 1 {
            // Founders call this on every start, with the founders' list, and nobody else does.
            raft.initialize([(1, "127.0.0.1:7101")]).await?;
            let membership = raft.metrics().borrow().membership.clone().expect("it is formed");
            let mut target = membership.target();
            for id in [2, 3].into_iter().filter(|id| !membership.nodes().contains_key(id)) {
                target = target.with_voter(id, format!("127.0.0.1:710{id}"))?;
            }
            for step in raft.plan(&target)?.steps {
                println!("{step}");
            }
            // It waits until nodes 2 and 3 run and have caught up, for ten minutes at most.
            raft.change_membership(target, ChangeOptions::default()).await?;
        } else {
            // A node that is added is told no list. It waits until it is let in.
            let is_member = |metrics: &Metrics| {
                let membership = metrics.membership.as_ref();
                membership.is_some_and(|membership| membership.is_member(metrics.replica))
            };
            let _the_group_may_end = raft.metrics().wait_for(is_member).await;
        }
        println!("the total is {}", raft.write(1).await?);
        Ok(raft.stopped().await?) // It serves until the process is killed.
    })
}
