//! Any number of nodes on one thread, in memory, and commands of any size.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use quorate::{At, Executor, LocalNetwork, LocalRaft, MemStore, Node, Raw, StateMachine};
use serde::{Deserialize, Serialize};

use crate::closed_loop::{self, Client};

#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) nodes: u64,
    /// How large a command is.
    pub(super) bytes: usize,
    pub(super) clients: usize,
    pub(super) duration: Duration,
}

/// A state machine that keeps nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Nothing;

impl StateMachine for Nothing {
    type Command = Raw;
    type Response = ();

    async fn apply(&mut self, _: Raw, _: At) {}
}

pub(super) async fn run<R: Executor>(rt: &R, shape: Shape) -> Result<Vec<f64>> {
    let network = LocalNetwork::new();
    let (mut nodes, mut rafts) = (Vec::new(), Vec::new());
    for id in 1..=shape.nodes {
        let node = Node::builder(id).log_store(MemStore::new()).transport(network.transport());
        nodes.push(node.start(rt).await?);
        rafts.push(nodes[nodes.len() - 1].group(0).open_local(Nothing).await?);
    }
    // The node that forms the cluster becomes its leader: the others only wait for one.
    let raft = &rafts[0];
    raft.initialize((1..=shape.nodes).map(|id| (id, id.to_string()))).await?;
    raft.write(Raw(Bytes::new())).await?;
    let leader = raft.metrics().borrow().leader;
    ensure!(leader == Some(raft.id()), "{leader:?} leads, and not {}", raft.id());
    let client = || Writer { raft: raft.clone(), content: vec![7; shape.bytes] };
    closed_loop::on_this_thread(rt, shape.clients, shape.duration, client).await
}

struct Writer {
    raft: LocalRaft<Nothing>,
    content: Vec<u8>,
}

impl Client for Writer {
    async fn request(&mut self) -> Result<u64> {
        // Each command has bytes of its own, as one that was encoded, or has come from a client.
        self.raft.write(Raw(Bytes::copy_from_slice(&self.content))).await?;
        Ok(1)
    }
}
