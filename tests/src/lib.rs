//! What the tests of whole clusters share: a small state machine, and a cluster within one thread.
#![allow(missing_docs)] // Nobody but the tests beside it uses this.

use std::collections::BTreeMap;

use quorate::rt::channel::watch;
use quorate::{
    AsyncRuntime, Config, LocalNetwork, LocalRaft, MemStore, Metrics, Node, NodeId, StateMachine,
};

/// Keeps all that was written, in order, so that what was applied twice or lost is seen.
#[derive(Debug, Default)]
pub struct Journal {
    pub entries: Vec<String>,
}

impl StateMachine for Journal {
    type Command = String;
    type Response = usize;

    async fn apply(&mut self, line: String) -> usize {
        self.entries.push(line);
        self.entries.len()
    }
}

/// Nodes that share a thread, a network and nothing else.
pub struct Cluster<R> {
    pub rt: R,
    pub network: LocalNetwork,
    pub config: Config,
    stores: BTreeMap<NodeId, MemStore>,
    nodes: BTreeMap<NodeId, Node<Journal>>,
}

impl<R: AsyncRuntime> Cluster<R> {
    /// Starts nodes `1..=size`, not yet a cluster.
    pub async fn start(rt: &R, size: u64, config: Config) -> Self {
        let mut cluster = Self {
            rt: rt.clone(),
            network: LocalNetwork::new(),
            config,
            stores: (1..=size).map(|id| (id, MemStore::new())).collect(),
            nodes: BTreeMap::new(),
        };
        for id in 1..=size {
            cluster.restart(id).await;
        }
        cluster
    }

    /// The same, formed into a cluster that has a leader.
    pub async fn formed(rt: &R, size: u64, config: Config) -> Self {
        let cluster = Self::start(rt, size, config).await;
        cluster.raft(1).initialize(cluster.members()).await.expect("forms");
        cluster.leader().await;
        cluster
    }

    pub fn members(&self) -> BTreeMap<NodeId, String> {
        self.stores.keys().map(|id| (*id, format!("node-{id}"))).collect()
    }

    /// Starts a node on what its store holds; one that runs crashes first.
    pub async fn restart(&mut self, id: NodeId) {
        self.crash(id);
        let node = Node::builder(id)
            .config(self.config.clone())
            .log_store(self.stores[&id].clone())
            .transport(self.network.transport())
            .state_machine(Journal::default())
            .start(&self.rt)
            .await
            .expect("starts");
        self.nodes.insert(id, node);
    }

    pub fn crash(&mut self, id: NodeId) {
        self.nodes.remove(&id);
    }

    pub fn node(&self, id: NodeId) -> &Node<Journal> {
        &self.nodes[&id]
    }

    pub fn raft(&self, id: NodeId) -> LocalRaft<Journal> {
        self.nodes[&id].local()
    }

    /// Waits until the nodes that run agree on a leader among them.
    pub async fn leader(&self) -> NodeId {
        loop {
            let mut agreed = None;
            for node in self.nodes.values() {
                let running = |m: &Metrics| m.leader.is_some_and(|l| self.nodes.contains_key(&l));
                let metrics = wait_for(&mut node.local().metrics(), running).await;
                agreed = match agreed {
                    None => Some((metrics.term, metrics.leader)),
                    Some(other) if other == (metrics.term, metrics.leader) => agreed,
                    Some(_) => break,
                };
            }
            match agreed {
                Some((_, Some(leader))) if self.agree_on(leader) => return leader,
                _ => self.rt.sleep(self.config.heartbeat_interval).await,
            }
        }
    }

    fn agree_on(&self, leader: NodeId) -> bool {
        self.nodes.values().all(|node| node.local().metrics().borrow().leader == Some(leader))
    }

    /// What a node has applied.
    pub async fn journal(&self, id: NodeId) -> Vec<String> {
        self.raft(id).read(|journal| journal.entries.clone()).await.expect("reads")
    }
}

/// Waits until a node's metrics are as wanted.
pub async fn wait_for(
    metrics: &mut watch::Receiver<Metrics>,
    wanted: impl FnMut(&Metrics) -> bool,
) -> Metrics {
    metrics.wait_for(wanted).await.expect("the node runs")
}
