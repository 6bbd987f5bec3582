//! The description of a group that is to be opened on a node.

use std::fmt;
use std::rc::Rc;

use quorate_rt::Executor;

use super::group::mailbox::Mailbox;
use super::group::{self, Lease, Parts};
use super::{LocalRaft, NodeParts, Raft};
use crate::config::Config;
use crate::engine::Local;
use crate::error::StartError;
use crate::log_store::LogStore;
use crate::state_machine::{SharedResponse, StateMachine};
use crate::transport::Transport;
use crate::types::GroupId;

/// Describes a group that is to be opened: see [`Node::group`](crate::Node::group).
#[must_use = "a group does nothing before it is opened"]
pub struct GroupBuilder<'a, R, S, T> {
    node: &'a NodeParts<R, S, T>,
    group: GroupId,
    config: Config,
}

impl<'a, R, S, T> GroupBuilder<'a, R, S, T> {
    pub(super) fn new(node: &'a NodeParts<R, S, T>, group: GroupId) -> Self {
        Self { node, group, config: Config::default() }
    }

    /// Its settings on this node; see [`Config`] for the defaults.
    pub fn config(self, config: Config) -> Self {
        Self { config, ..self }
    }
}

impl<R: Executor, S: LogStore, T: Transport> GroupBuilder<'_, R, S, T> {
    /// Opens the group, with this as its state machine. It goes on from what its log holds. Where
    /// that is empty, it waits for [`initialize`](Raft::initialize) or for a leader.
    ///
    /// Returns a handle for any thread and any executor. So responses must be [`Send`].
    ///
    /// # Errors
    /// The configuration can't work, by itself or with what the transport carries; the group is
    /// open already, here or on another node with the same store; the log can't be read; the node
    /// has ended or is stopping.
    ///
    /// # Cancellation
    /// The group is not opened.
    pub async fn open<SM: StateMachine<Response: SharedResponse>>(
        self,
        state_machine: SM,
    ) -> Result<Raft<SM>, StartError> {
        Ok(Raft::new(self.mailbox(state_machine).await?.shared()))
    }

    /// Opens the group as [`open`](Self::open) does. Returns a handle for the node's own thread,
    /// which needs no atomics and wakes no other thread.
    ///
    /// # Errors
    /// Those of `open`.
    pub async fn open_local<SM: StateMachine>(
        self,
        state_machine: SM,
    ) -> Result<LocalRaft<SM>, StartError> {
        Ok(LocalRaft::new(self.mailbox(state_machine).await?))
    }

    async fn mailbox<SM: StateMachine>(
        self,
        state_machine: SM,
    ) -> Result<Rc<Mailbox<SM>>, StartError> {
        let Self { node, group, config } = self;
        config.validate()?;
        let reservation = node.groups.reserve(group)?;
        let Some((store, transport)) = node.store_and_transport() else {
            return Err(StartError::Shutdown);
        };
        if let Some(limit) = transport.message_limit() {
            config.check_carried(limit)?;
        }
        let recovered = store.recover(group).await?;
        // Nothing is awaited from here on: the group is opened, or the lease is dropped.
        let lease = Lease::new(&store, group);
        let local = Local { replica: node.replica, boot: node.boot, cluster: store.cluster() };
        let ready = Rc::clone(&node.groups.ready);
        let delays = Rc::clone(&node.groups.delays);
        let liveness = Rc::clone(&node.liveness);
        let config = node.groups.share(config);
        let rt = node.rt.clone();
        let outcome = node.outcome.clone();
        let parts = Parts { rt, store, lease, transport, ready, liveness, delays, local, outcome };
        let opened =
            group::open(parts, (group, reservation.slot), config, recovered, state_machine);
        let mailbox = Rc::clone(&opened.mailbox);
        reservation.open(opened)?;
        Ok(mailbox)
    }
}

impl<R, S, T> fmt::Debug for GroupBuilder<'_, R, S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, config, .. } = self;
        f.debug_struct("GroupBuilder").field("group", group).field("config", config).finish()
    }
}
