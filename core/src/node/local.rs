//! The handle of a group for callers on its node's own thread.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot as shared_oneshot;
use futures::future::{Either, ready};
use quorate_rt::channel::{oneshot, watch};

use super::group::mailbox::{End, LocalReply, Mailbox, Reply, Request, WriteResult};
use super::group::quota::{LocalPermit, take_local};
use super::group::room::room;
use super::group::{Admin, Answer, answered};
use super::node_ended;
use super::raft::{
    Raft, ReadResult, encode, ended, in_force, led, list, look, planned, seen, written,
};
use super::watching::{LeaderChanges, WaitError, until};
use crate::config::Config;
use crate::error::{
    ChangeError, ChangeRefusal, ConfigureError, Fatal, InitializeError, ReadError, SnapshotError,
    WriteError,
};
use crate::leadership::{CampaignError, Leadership, StepDownError, TransferError, TransferOptions};
use crate::membership::{ChangeId, ChangeKind, ChangeOptions, Membership, Plan, Target};
use crate::message::Message;
use crate::metrics::{Metrics, Role};
use crate::state_machine::{SharedResponse, StateMachine};
use crate::types::{GroupId, Index, LogId, NodeId, Term};

/// The twin of [`Raft`](crate::Raft) for callers on the node's own thread: the same operations,
/// without atomics, locks or wake-ups of another thread.
pub struct LocalRaft<SM: StateMachine> {
    mailbox: Rc<Mailbox<SM>>,
}

impl<SM: StateMachine> Clone for LocalRaft<SM> {
    fn clone(&self) -> Self {
        Self { mailbox: Rc::clone(&self.mailbox) }
    }
}

impl<SM: StateMachine> LocalRaft<SM> {
    pub(crate) fn new(mailbox: Rc<Mailbox<SM>>) -> Self {
        Self { mailbox }
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.mailbox.known.id
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.mailbox.known.group
    }

    /// See [`Raft::write`](crate::Raft::write).
    pub fn write(
        &self,
        command: SM::Command,
    ) -> impl Future<Output = Result<SM::Response, WriteError>> + use<SM> {
        self.write_with_log_id(command).map(|written| written.map(|(_, response)| response))
    }

    /// See [`Raft::write_with_log_id`](crate::Raft::write_with_log_id).
    pub fn write_with_log_id(
        &self,
        command: SM::Command,
    ) -> impl Future<Output = Result<(LogId, SM::Response), WriteError>> + use<SM> {
        written(self.queue_write(command))
    }

    /// See [`Raft::write_when_ready`](crate::Raft::write_when_ready).
    pub fn write_when_ready(
        &self,
        command: SM::Command,
    ) -> impl Future<Output = Result<SM::Response, WriteError>> + use<SM> {
        let raft = self.clone();
        let encoded = encode::<SM>(command, self.mailbox.config().max_command_bytes);
        async move {
            let (command, bytes) = encoded?;
            let mailbox = &raft.mailbox;
            loop {
                room(&**mailbox, bytes).await.map_err(|end| WriteError::from(&end))?;
                let permit = LocalPermit::of(&mailbox.queued_bytes, bytes);
                match written(raft.send_write(command.clone(), permit)).await {
                    Err(WriteError::Busy) => {}
                    written => return written.map(|(_, response)| response),
                }
                let pause = mailbox.config().heartbeat_interval;
                if let Ok(Err(_)) = raft.alarm(pause).await {
                    return Err(WriteError::Busy);
                }
            }
        }
    }

    fn queue_write(
        &self,
        command: SM::Command,
    ) -> Result<oneshot::Receiver<WriteResult<SM>>, WriteError> {
        let mailbox = &self.mailbox;
        let (command, bytes) = encode::<SM>(command, mailbox.config().max_command_bytes)?;
        if mailbox.has_line() {
            return Err(WriteError::Busy); // The room is theirs.
        }
        let permit = take_local(&mailbox.queued_bytes, bytes, mailbox.config().max_queued_bytes)
            .ok_or(WriteError::Busy)?;
        self.send_write(command, permit)
    }

    fn send_write(
        &self,
        command: Bytes,
        permit: LocalPermit,
    ) -> Result<oneshot::Receiver<WriteResult<SM>>, WriteError> {
        let (to, result) = oneshot::channel();
        let reply = Reply::Local(LocalReply { to, permit });
        let taken = self.mailbox.request(Request::Write { command, reply });
        taken.map(|()| result).map_err(|end| WriteError::from(&end))
    }

    /// See [`Raft::read`](crate::Raft::read).
    pub fn read<T: 'static, F: FnOnce(&SM) -> T + 'static>(
        &self,
        read: F,
    ) -> impl Future<Output = Result<T, ReadError>> + use<SM, T, F> {
        let queued = self.queue_read(read);
        async move { seen(queued?.await.unwrap_or(Err(ReadError::Shutdown))) }
    }

    fn queue_read<T: 'static>(
        &self,
        read: impl FnOnce(&SM) -> T + 'static,
    ) -> Result<oneshot::Receiver<ReadResult<T>>, ReadError> {
        let mailbox = &self.mailbox;
        let permit = take_local(&mailbox.pending_reads, 1, mailbox.config().max_pending_reads)
            .ok_or(ReadError::Busy)?;
        let (to, result) = oneshot::channel();
        let read = move |state: Result<&SM, ReadError>| {
            drop(permit);
            let _ = to.send(state.map(|state| look(state, read)));
        };
        mailbox.request(Request::Read(Box::new(read))).map_err(|end| ReadError::from(&end))?;
        Ok(result)
    }

    /// See [`Raft::initialize`](crate::Raft::initialize).
    pub async fn initialize(
        &self,
        members: impl IntoIterator<Item = (NodeId, impl Into<String>)>,
    ) -> Result<(), InitializeError> {
        let list = list(members)?;
        self.ask(|answer| Admin::Initialize { list, answer }).await
    }

    /// See [`Raft::change_membership`](crate::Raft::change_membership).
    pub fn change_membership(
        &self,
        target: Target,
        options: ChangeOptions,
    ) -> impl Future<Output = Result<ChangeId, ChangeError>> + use<SM> {
        let kind = ChangeKind::Begin { target, options };
        self.ask(move |answer| Admin::Change { change: None, kind, answer })
    }

    /// See [`Raft::cancel_change`](crate::Raft::cancel_change).
    pub fn cancel_change(
        &self,
        change: ChangeId,
    ) -> impl Future<Output = Result<ChangeId, ChangeError>> + use<SM> {
        let kind = ChangeKind::Cancel;
        self.ask(move |answer| Admin::Change { change: Some(change), kind, answer })
    }

    /// See [`Raft::await_change`](crate::Raft::await_change).
    pub fn await_change(
        &self,
        change: ChangeId,
    ) -> impl Future<Output = Result<ChangeId, ChangeError>> + use<SM> {
        self.ask(move |answer| Admin::AwaitChange(change, answer))
    }

    /// See [`Raft::plan`](crate::Raft::plan).
    pub fn plan(&self, target: &Target) -> Result<Plan, ChangeRefusal> {
        planned(&self.mailbox.known.metrics, target)
    }

    /// See [`Raft::config`](crate::Raft::config).
    pub fn config(&self) -> Config {
        Config::clone(&self.mailbox.config())
    }

    /// See [`Raft::configure`](crate::Raft::configure).
    pub fn configure(
        &self,
        config: Config,
    ) -> impl Future<Output = Result<(), ConfigureError>> + use<SM> {
        let config = Box::new(config);
        self.ask(move |answer| Admin::Configure { config, answer })
    }

    /// See [`Raft::snapshot`](crate::Raft::snapshot).
    pub fn snapshot(&self) -> impl Future<Output = Result<LogId, SnapshotError>> + use<SM> {
        self.ask(Admin::Snapshot)
    }

    /// See [`Raft::purge`](crate::Raft::purge).
    pub fn purge(&self) -> impl Future<Output = Result<LogId, SnapshotError>> + use<SM> {
        self.ask(Admin::Purge)
    }

    /// See [`Raft::transfer_leadership`](crate::Raft::transfer_leadership).
    pub fn transfer_leadership<O: Into<TransferOptions>>(
        &self,
        to: O,
    ) -> impl Future<Output = Result<Leadership, TransferError>> + use<SM, O> {
        let options = to.into();
        self.ask(move |answer| Admin::Transfer { options, answer })
    }

    /// See [`Raft::campaign`](crate::Raft::campaign).
    pub fn campaign(&self) -> impl Future<Output = Result<Leadership, CampaignError>> + use<SM> {
        self.ask(Admin::Campaign)
    }

    /// See [`Raft::step_down`](crate::Raft::step_down).
    pub fn step_down(&self) -> impl Future<Output = Result<Term, StepDownError>> + use<SM> {
        self.ask(Admin::StepDown)
    }

    fn ask<T, E: for<'a> From<&'a End>, F: FnOnce(Answer<T, E>) -> Admin>(
        &self,
        request: F,
    ) -> impl Future<Output = Result<T, E>> + use<SM, T, E, F> {
        let (answer, receiver) = shared_oneshot::channel();
        let taken = self.mailbox.request(Request::Admin(Box::new(request(answer))));
        answered(taken, receiver, self.metrics())
    }

    /// See [`Raft::shutdown`](crate::Raft::shutdown).
    pub fn shutdown(&self) -> impl Future<Output = Result<(), Fatal>> + use<SM> {
        self.mailbox.shut_down();
        node_ended(self.mailbox.known.node.clone())
    }

    /// See [`Raft::stopped`](crate::Raft::stopped).
    pub fn stopped(&self) -> impl Future<Output = Result<(), Fatal>> + use<SM> {
        ended(self.mailbox.known.status.clone())
    }

    /// A handle of the same group for any thread and any executor.
    pub fn shared(&self) -> Raft<SM>
    where
        SM: StateMachine<Response: SharedResponse>,
    {
        Raft::new(self.mailbox.shared())
    }

    /// See [`Raft::metrics`](crate::Raft::metrics).
    pub fn metrics(&self) -> watch::Receiver<Metrics> {
        self.mailbox.known.metrics.clone()
    }

    /// See [`Raft::is_leader`](crate::Raft::is_leader).
    pub fn is_leader(&self) -> bool {
        self.mailbox.known.metrics.borrow().role == Role::Leader
    }

    /// See [`Raft::wait_until`](crate::Raft::wait_until).
    pub fn wait_until<F: FnMut(&Metrics) -> bool>(
        &self,
        within: Duration,
        wanted: F,
    ) -> impl Future<Output = Result<Arc<Metrics>, WaitError>> + use<SM, F> {
        let (metrics, mut wanted) = (self.metrics(), wanted);
        let now = metrics.borrow();
        match wanted(&now) {
            true => Either::Left(ready(Ok(now))),
            false => Either::Right(until(metrics, self.alarm(within), wanted)),
        }
    }

    /// See [`Raft::wait_for_leader`](crate::Raft::wait_for_leader).
    pub fn wait_for_leader(
        &self,
        within: Duration,
    ) -> impl Future<Output = Result<Leadership, WaitError>> + use<SM> {
        self.wait_until(within, |metrics| metrics.leader.is_some()).map(led)
    }

    /// See [`Raft::wait_for_applied`](crate::Raft::wait_for_applied).
    pub fn wait_for_applied(
        &self,
        index: Index,
        within: Duration,
    ) -> impl Future<Output = Result<(), WaitError>> + use<SM> {
        self.wait_until(within, move |metrics| metrics.applied >= index).map(|seen| seen.map(drop))
    }

    /// See [`Raft::wait_for_membership`](crate::Raft::wait_for_membership).
    pub fn wait_for_membership<F: FnMut(&Membership) -> bool>(
        &self,
        within: Duration,
        mut wanted: F,
    ) -> impl Future<Output = Result<Membership, WaitError>> + use<SM, F> {
        self.wait_until(within, move |metrics| metrics.membership.as_ref().is_some_and(&mut wanted))
            .map(in_force)
    }

    fn alarm(&self, within: Duration) -> shared_oneshot::Receiver<Result<(), WaitError>> {
        let (answer, late) = shared_oneshot::channel();
        let alarm = Admin::Alarm { within, answer };
        // Where the group has ended, the metrics tell.
        let _ = self.mailbox.request(Request::Admin(Box::new(alarm)));
        late
    }

    /// See [`Raft::leader_changes`](crate::Raft::leader_changes).
    pub fn leader_changes(&self) -> LeaderChanges {
        LeaderChanges::new(self.mailbox.known.status.clone())
    }

    /// See [`Raft::deliver`](crate::Raft::deliver).
    pub fn deliver(&self, message: Message) {
        self.mailbox.deliver(message);
    }
}

impl<SM: StateMachine> std::fmt::Debug for LocalRaft<SM> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalRaft").field("id", &self.id()).finish_non_exhaustive()
    }
}
