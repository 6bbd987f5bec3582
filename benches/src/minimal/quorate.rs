//! Quorate: three nodes on one thread, or the leader on one and its followers on another.

use std::sync::mpsc;

use anyhow::{Result, bail};
use futures::channel::oneshot;
use quorate::{
    At, Executor, Launch, LocalNetwork, LocalRaft, MemStore, Node, NodeId, Raft, SharedNetwork,
    StateMachine, Transport,
};
use serde::{Deserialize, Serialize};

use super::Work;
use super::clients::{self, joined};
use crate::closed_loop::{Client, on_this_thread};

/// A state machine without state, and commands without content.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Nothing;

impl StateMachine for Nothing {
    type Command = ();
    type Response = ();

    async fn apply(&mut self, (): (), _: At) {}

    async fn apply_batch(&mut self, commands: Vec<((), At)>) -> Vec<()> {
        vec![(); commands.len()]
    }
}

const NODES: [NodeId; 3] = [1, 2, 3];

async fn start<R: Executor>(
    rt: &R,
    id: NodeId,
    transport: impl Transport,
) -> Result<(impl Sized, LocalRaft<Nothing>)> {
    let node = Node::builder(id).log_store(MemStore::new()).transport(transport).start(rt).await?;
    let raft = node.group(0).open_local(Nothing).await?;
    Ok((node, raft))
}

/// Forms the cluster on this node, which becomes its leader: the others only wait for one.
async fn lead(raft: &LocalRaft<Nothing>) -> Result<()> {
    raft.initialize(NODES.map(|id| (id, id.to_string()))).await?;
    raft.write(()).await?;
    match raft.metrics().borrow().leader {
        Some(leader) if leader == raft.id() => Ok(()),
        leader => bail!("{leader:?} leads, and not {}", raft.id()),
    }
}

/// All three nodes and the clients on one thread.
pub(super) fn local<R: Executor>(launch: Launch, work: Work) -> Result<Vec<f64>> {
    joined(R::launch(launch, async move |rt: R| {
        let network = LocalNetwork::new();
        let mut nodes = Vec::new();
        for id in NODES {
            nodes.push(start(&rt, id, network.transport()).await?);
        }
        let raft = &nodes[0].1;
        lead(raft).await?;
        let client = || Local { raft: raft.clone(), batch: work.batch };
        on_this_thread(&rt, work.clients, work.duration, client).await
    })?)
}

/// The leader and the clients on one thread, the followers on another.
pub(super) fn spread<R: Executor>(launch: Launch, work: Work) -> Result<Vec<f64>> {
    let network = SharedNetwork::new();
    let (stop, stopped) = oneshot::channel::<()>();
    let (started, all_started) = mpsc::channel();
    let followers = R::launch(launch.clone(), {
        let network = network.clone();
        async move |rt: R| {
            let mut nodes = Vec::new();
            for id in &NODES[1..] {
                nodes.push(start(&rt, *id, network.transport(&rt)).await?);
            }
            let _ = started.send(());
            let _ = stopped.await;
            Ok(())
        }
    })?;
    let _ = all_started.recv();
    let figures = joined(R::launch(launch, async move |rt: R| {
        let (_node, raft) = start(&rt, NODES[0], network.transport(&rt)).await?;
        lead(&raft).await?;
        let client = || Local { raft: raft.clone(), batch: work.batch };
        on_this_thread(&rt, work.clients, work.duration, client).await
    })?);
    drop(stop);
    joined(followers)?;
    figures
}

/// All three nodes on one thread, the clients on another.
pub(super) fn shared<R: Executor>(launch: Launch, work: Work) -> Result<Vec<f64>> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (started, leader) = mpsc::channel();
    let servers = R::launch(launch, async move |rt: R| {
        let network = LocalNetwork::new();
        let mut nodes = Vec::new();
        for id in NODES {
            nodes.push(start(&rt, id, network.transport()).await?);
        }
        let raft = &nodes[0].1;
        lead(raft).await?;
        let _ = started.send(raft.shared());
        let _ = stopped.await;
        Ok(())
    })?;
    let figures = leader.recv().map(|raft| {
        clients::shared(work, |runtime, load, number| {
            let client = Shared { raft: raft.clone(), batch: work.batch };
            runtime.spawn(load.client(number, client))
        })
    });
    drop(stop);
    joined(servers)?;
    figures?
}

struct Local {
    raft: LocalRaft<Nothing>,
    batch: usize,
}

impl Client for Local {
    async fn request(&mut self) -> Result<u64> {
        clients::batch(self.batch, || self.raft.write(())).await
    }
}

struct Shared {
    raft: Raft<Nothing>,
    batch: usize,
}

impl Client for Shared {
    async fn request(&mut self) -> Result<u64> {
        clients::batch(self.batch, || self.raft.write(())).await
    }
}
