//! A node with one group, as most tests need it, whatever its store and its transport.

use std::future::Future;
use std::pin::Pin;

use quorate::{
    Config, Executor, Fatal, LocalRaft, LogStore, Node, NodeId, Raft, StartError, StateMachine,
    Transport,
};

/// The node, with group 0. Dropping it is a crash.
pub struct Single<SM: StateMachine> {
    raft: LocalRaft<SM>,
    /// Shuts the node down. Dropping it drops the node.
    shutdown: Shutdown,
}

type Shutdown = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), Fatal>>>>>;

impl<SM: StateMachine> Single<SM> {
    /// Starts the node and opens its group.
    pub async fn start<R: Executor>(
        rt: &R,
        id: NodeId,
        config: Config,
        log_store: impl LogStore,
        transport: impl Transport,
        state_machine: SM,
    ) -> Result<Self, StartError> {
        let node = Node::builder(id).log_store(log_store).transport(transport).start(rt).await?;
        let raft = node.group(0).config(config).open_local(state_machine).await?;
        Ok(Self { raft, shutdown: Box::new(move || Box::pin(node.shutdown())) })
    }

    pub fn local(&self) -> LocalRaft<SM> {
        self.raft.clone()
    }

    pub fn raft(&self) -> Raft<SM>
    where
        SM: StateMachine<Response: Send>,
    {
        self.raft.shared()
    }

    /// Waits until the group has ended.
    pub fn stopped(&self) -> impl Future<Output = Result<(), Fatal>> + use<SM> {
        self.raft.stopped()
    }

    /// Shuts the node down. Gives what the group has come to, and if that is well, the node.
    pub async fn shutdown(self) -> Result<(), Fatal> {
        let stopped = self.stopped();
        let outcome = (self.shutdown)().await;
        stopped.await.and(outcome)
    }
}

impl<SM: StateMachine> std::fmt::Debug for Single<SM> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Single").field("raft", &self.raft).finish_non_exhaustive()
    }
}
