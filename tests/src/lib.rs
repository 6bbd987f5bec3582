//! What the tests of whole clusters share: a small state machine, and a cluster within one thread.
#![allow(missing_docs)] // Nobody but the tests beside it uses this.
#![allow(async_fn_in_trait)] // The traits that are implemented here have no `Send` bounds either.

mod faulty;
mod lossy;
pub mod simulate;
mod single;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate::rt::channel::watch;
use quorate::{
    At, Config, Executor, Launch, LocalNetwork, LocalRaft, LogStore, MemStore, Metrics, NodeId,
    PeerMetrics, StateMachine,
};
use serde::{Deserialize, Serialize};

pub use faulty::{Disk, FaultyStore};
pub use lossy::{Fate, Faults, Lossy};
pub use single::Single;

/// A cluster that finds a new leader within a moment.
pub fn quick() -> Config {
    Config {
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(150),
        request_timeout: Duration::from_millis(600),
        ..Config::default()
    }
}

/// Settings for tests that a pause of the machine must not cost an election.
pub fn calm() -> Config {
    Config {
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: Duration::from_millis(600),
        request_timeout: Duration::from_secs(3),
        ..Config::default()
    }
}

/// Makes each of these generic async functions a test on each runtime.
#[macro_export]
macro_rules! on_each_runtime {
    ($($name:ident),* $(,)?) => {
        mod on_tokio { $( #[test] fn $name() { $crate::run::<quorate::Tokio>(super::$name); } )* }
        mod on_monoio { $( #[test] fn $name() { $crate::run::<quorate::Monoio>(super::$name); } )* }
        mod on_compio { $( #[test] fn $name() { $crate::run::<quorate::Compio>(super::$name); } )* }
    };
}

pub fn run<R: Executor>(case: impl AsyncFnOnce(R)) {
    R::run(&Launch::default(), case).expect("the runtime starts");
}

/// Keeps all that was written, in order, so that what was applied twice or lost is seen.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Journal {
    pub entries: Vec<String>,
    /// How many of them this one has applied itself; the others came with a snapshot.
    #[serde(skip)]
    pub applied: usize,
}

impl StateMachine for Journal {
    type Command = String;
    type Response = usize;

    async fn apply(&mut self, line: String, _: At) -> usize {
        self.entries.push(line);
        self.applied += 1;
        self.entries.len()
    }
}

/// Nodes that share a thread, a network and nothing else.
pub struct Cluster<R, S = MemStore> {
    pub rt: R,
    pub network: LocalNetwork,
    /// What becomes of messages, by what they are.
    pub faults: Faults,
    pub config: Config,
    pub stores: BTreeMap<NodeId, S>,
    nodes: BTreeMap<NodeId, Single<Journal>>,
}

impl<R: Executor> Cluster<R> {
    /// Starts nodes `1..=size`, not yet a cluster.
    pub async fn start(rt: &R, size: u64, config: Config) -> Self {
        Self::start_on(rt, size, config).await
    }

    /// The same, formed into a cluster that has a leader.
    pub async fn formed(rt: &R, size: u64, config: Config) -> Self {
        Self::formed_on(rt, size, config).await
    }
}

impl<R: Executor, S: LogStore + Clone + Default> Cluster<R, S> {
    /// Starts nodes `1..=size` on stores of the kind `S`, not yet a cluster.
    pub async fn start_on(rt: &R, size: u64, config: Config) -> Self {
        let mut cluster = Self {
            rt: rt.clone(),
            network: LocalNetwork::new(),
            faults: Faults::default(),
            config,
            stores: (1..=size).map(|id| (id, S::default())).collect(),
            nodes: BTreeMap::new(),
        };
        for id in 1..=size {
            cluster.restart(id).await;
        }
        cluster
    }

    /// The same, formed into a cluster that has a leader.
    pub async fn formed_on(rt: &R, size: u64, config: Config) -> Self {
        let cluster = Self::start_on(rt, size, config).await;
        cluster.raft(1).initialize(cluster.members()).await.expect("forms");
        let leader = cluster.leader().await;
        // It answers when the cluster is formed, for which it takes all nodes.
        cluster.raft(leader).read(|_| ()).await.expect("reads");
        for node in cluster.nodes.values() {
            // Until it knows of the others it can't take part in an election.
            wait_for(&mut node.local().metrics(), |metrics| metrics.membership.is_some()).await;
        }
        cluster
    }

    pub fn members(&self) -> BTreeMap<NodeId, String> {
        self.stores.keys().map(|id| (*id, format!("node-{id}"))).collect()
    }

    /// Starts a node on what its store holds; one that runs crashes first.
    pub async fn restart(&mut self, id: NodeId) {
        self.crash(id);
        let node = Single::start(
            &self.rt,
            id,
            self.config.clone(),
            self.stores[&id].clone(),
            Lossy::new(self.network.transport(), self.faults.clone()),
            Journal::default(),
        )
        .await
        .expect("starts");
        self.nodes.insert(id, node);
    }

    /// Stops a node in order.
    pub async fn stop(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).expect("runs");
        node.shutdown().await.expect("stops");
    }

    pub fn crash(&mut self, id: NodeId) {
        self.nodes.remove(&id);
    }

    pub fn node(&self, id: NodeId) -> &Single<Journal> {
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

/// Times enough for all that can run now to have run.
pub async fn settle<R: Executor>(rt: &R) {
    for _ in 0..20 {
        rt.spawn(async {}).await.expect("ends");
    }
}

/// What a leader knows of a peer, by its node.
pub fn peer_of(metrics: &Metrics, id: NodeId) -> Option<&PeerMetrics> {
    metrics.peers.iter().find(|(peer, _)| peer.id == id).map(|(_, peer)| peer)
}

/// Waits until a node's metrics are as wanted.
pub async fn wait_for(
    metrics: &mut watch::Receiver<Metrics>,
    wanted: impl FnMut(&Metrics) -> bool,
) -> Metrics {
    Arc::unwrap_or_clone(metrics.wait_for(wanted).await.expect("the node runs"))
}
