//! Writes of three nodes of one thread, and what callgrind counts.

use std::hint::black_box;

use anyhow::Result;
use futures::future::try_join_all;
use quorate::{At, Driver, Executor, Launch, LocalNetwork, MemStore, Node, StateMachine};
use serde::{Deserialize, Serialize};

/// Callgrind counts what happens in here, and nothing else.
#[inline(never)]
pub(crate) fn counted<T>(what: impl FnOnce() -> T) -> T {
    black_box(what())
}

/// So many writes are counted, so that the start of the nodes hardly matters.
const WRITES: usize = 2048;

/// Writes on the leader of three nodes of one thread, with logs in memory, so many at once. What
/// the nodes do by time is counted as well, and is little.
pub(crate) async fn writes<R: Executor>(rt: R, at_once: usize) -> Result<()> {
    let network = LocalNetwork::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = Node::builder(id).log_store(MemStore::new());
        let node = builder.transport(network.transport()).start(&rt).await?;
        let raft = node.group(0).open_local(Nothing).await?;
        nodes.push((node, raft));
    }
    let raft = &nodes[0].1;
    raft.initialize([1, 2, 3].map(|id| (id, id.to_string()))).await?;
    for _ in 0..WRITES / at_once {
        try_join_all((0..at_once).map(|_| raft.write(()))).await?;
    }
    Ok(())
}

/// Writes on a runtime that Quorate has started.
pub(crate) fn write<R: Executor>(at_once: usize) -> Result<()> {
    // valgrind knows no ring.
    let launch = Launch { driver: Driver::Poll, ..Launch::default() };
    counted(|| R::run(&launch, async |rt: R| writes(rt, at_once).await))?
}

/// A state machine without state.
#[derive(Serialize, Deserialize)]
struct Nothing;

impl StateMachine for Nothing {
    type Command = ();
    type Response = ();

    async fn apply(&mut self, (): (), _: At) {}
}
