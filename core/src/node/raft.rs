//! The handle of a group on its node, for any thread and any executor.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{Either, ready};
use quorate_rt::channel::watch;

use super::group::mailbox::{End, Request, Status, WriteResult};
use super::group::room::room;
use super::group::shared::{Crossing, Load, Refused, SharedMailbox, SharedReply};
use super::group::{Admin, Answer, answered, too_large};
use super::watching::{LeaderChanges, WaitError, until};
use super::{node_ended, wakes};
use crate::config::Config;
use crate::error::{
    ChangeError, ChangeRefusal, ConfigureError, Fatal, InitializeError, ReadError, SnapshotError,
    WriteError,
};
use crate::leadership::{CampaignError, Leadership, StepDownError, TransferError, TransferOptions};
use crate::membership::{
    ChangeId, ChangeKind, ChangeOptions, Membership, Plan, Target, check_list,
};
use crate::message::Message;
use crate::metrics::{Metrics, Role};
use crate::state_machine::{Command, StateMachine};
use crate::types::{Entry, GroupId, Index, LogId, NodeId, Term};

/// A handle of one group on its node: cheap to clone, usable from any thread and from any executor.
/// It wakes the node at most once for all that has gathered. On the node's own thread,
/// [`LocalRaft`](crate::LocalRaft) costs less.
pub struct Raft<SM: StateMachine> {
    mailbox: Arc<SharedMailbox<SM>>,
}

impl<SM: StateMachine> Clone for Raft<SM> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<SM: StateMachine> Raft<SM> {
    pub(crate) fn new(mailbox: Arc<SharedMailbox<SM>>) -> Self {
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

    /// Replicates a command, and gives the state machine's response once it is durable on a
    /// majority and applied here.
    ///
    /// Any node takes writes: a follower passes them on to the leader. The command is queued by the
    /// call itself, not by the first poll. Dropping the future does not take it back; its outcome
    /// is then unknown. Writes of one handle that are under way at once may be refused one by one,
    /// so if their order matters, wait for the earlier one or make them one command.
    ///
    /// Errors: [`WriteError`]; after each but `Unknown` the write has had no effect and will have
    /// none.
    pub fn write(
        &self,
        command: SM::Command,
    ) -> impl Future<Output = Result<SM::Response, WriteError>> + use<SM> {
        self.write_with_log_id(command).map(|written| written.map(|(_, response)| response))
    }

    /// Writes as [`write`](Self::write) does, and gives the place of the command in the log as
    /// well, which [`StateMachine::apply`] was told.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn write_with_log_id(
        &self,
        command: SM::Command,
    ) -> impl Future<Output = Result<(LogId, SM::Response), WriteError>> + use<SM> {
        written(self.queue_write(command))
    }

    /// Writes as [`write`](Self::write) does, but waits for room where `write` is refused with
    /// [`Busy`](WriteError::Busy). Those who wait get room in the order in which their futures were
    /// first polled. A command that waits is held by its future, and not by the node: bound how
    /// many there are. A future that has got room and isn't polled keeps that room. While others
    /// wait, `write` is refused with `Busy`, as room goes to them first. `Raft` and
    /// [`LocalRaft`](crate::LocalRaft) have room, and a line, of their own.
    ///
    /// Where the leader refuses it for [`Config::max_uncommitted_bytes`], it has had no effect
    /// there. It is tried again after each [`Config::heartbeat_interval`], behind those that have
    /// come meanwhile.
    ///
    /// It waits for as long as that takes. Give it a time limit by dropping the future.
    ///
    /// Unlike `write`, the call queues nothing: a poll of the future does. To have several under
    /// way, poll them at once, as by `buffered` below or `join_all`.
    ///
    /// # Errors
    /// Those of `write`. `Busy` only where it can't be tried again, as too many wait: some 16,000
    /// of a group.
    ///
    /// # Cancellation
    /// The command is queued when there is room, by a poll of the future. If it is dropped before,
    /// nothing is written. If it is dropped later, the outcome is unknown, as that of `write`.
    ///
    /// # Examples
    /// ```
    /// # use quorate_core::{Raft, StateMachine, WriteError};
    /// # async fn import<SM: StateMachine>(
    /// #     raft: Raft<SM>, commands: Vec<SM::Command>,
    /// # ) -> Result<(), WriteError> {
    /// use futures::stream::{StreamExt, TryStreamExt, iter};
    ///
    /// // A thousand at a time, however large they are.
    /// iter(commands)
    ///     .map(|command| raft.write_when_ready(command))
    ///     .buffered(1000)
    ///     .try_for_each(async |_response| Ok(()))
    ///     .await
    /// # }
    /// ```
    pub fn write_when_ready(
        &self,
        command: SM::Command,
    ) -> impl Future<Output = Result<SM::Response, WriteError>> + use<SM> {
        let raft = self.clone();
        let encoded = encode::<SM>(command, self.mailbox.max_command_bytes());
        async move {
            let (command, bytes) = encoded?;
            loop {
                room(&*raft.mailbox, bytes).await.map_err(|end| WriteError::from(&end))?;
                let (to, result) = wakes::channel();
                let (command, reply) = (command.clone(), SharedReply { to, bytes });
                let taken = raft.mailbox.request(Request::Write { command, reply });
                match written(taken.map(|()| result).map_err(|end| WriteError::from(&end))).await {
                    Err(WriteError::Busy) => {}
                    written => return written.map(|(_, response)| response),
                }
                let pause = raft.mailbox.config().heartbeat_interval;
                if let Ok(Err(_)) = raft.alarm(pause).await {
                    return Err(WriteError::Busy);
                }
            }
        }
    }

    fn queue_write(
        &self,
        command: SM::Command,
    ) -> Result<wakes::Receiver<WriteResult<SM>>, WriteError> {
        let mailbox = &self.mailbox;
        let (command, bytes) = encode::<SM>(command, mailbox.max_command_bytes())?;
        let (to, result) = wakes::channel();
        let reply = SharedReply { to, bytes };
        let load = Load { bytes, ..Load::default() };
        match mailbox.limited(Request::Write { command, reply }, load) {
            Ok(()) => Ok(result),
            Err(Refused::Busy) => Err(WriteError::Busy),
            Err(Refused::End(end)) => Err(WriteError::from(&end)),
        }
    }

    /// Lets `read` look at the state, linearizably: it sees every write that was answered, by any
    /// node, before this call. It runs on the node's thread and should be short.
    ///
    /// Any node answers reads, from its own state, after the leader has confirmed to a quorum that
    /// it still leads: no log entry, and one confirmation for all the reads that wait. The read is
    /// queued by the call itself; dropping the future makes its result go nowhere. A panic of
    /// `read` goes on in the future.
    ///
    /// Errors: [`ReadError`].
    pub fn read<T: Send + 'static, F: FnOnce(&SM) -> T + Send + 'static>(
        &self,
        read: F,
    ) -> impl Future<Output = Result<T, ReadError>> + Send + use<SM, T, F> {
        let queued = self.queue_read(read);
        async move { seen(queued?.await.unwrap_or(Err(ReadError::Shutdown))) }
    }

    fn queue_read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&SM) -> T + Send + 'static,
    ) -> Result<wakes::Receiver<ReadResult<T>>, ReadError> {
        let (to, result) = wakes::channel();
        let read = move |state: Result<&SM, ReadError>, crossing: &Crossing| {
            crossing.answer_read(to, state.map(|state| look(state, read)));
        };
        let load = Load { reads: 1, ..Load::default() };
        match self.mailbox.limited(Request::Read(Box::new(read)), load) {
            Ok(()) => Ok(result),
            Err(Refused::Busy) => Err(ReadError::Busy),
            Err(Refused::End(end)) => Err(ReadError::from(&end)),
        }
    }

    /// Forms a group of these nodes, each with the address at which the others reach it, and
    /// returns once that is committed and this node is a part of it. Call it on the node with the
    /// lowest id, which founds the group, or with the same list on each of them, and again on every
    /// start. A node that is [added](Self::change_membership) later never calls it: it is told no
    /// list, and waits until it is let in. Never start nodes that were all replaced with their old
    /// list on empty stores: they would form a second group.
    ///
    /// It takes all nodes of the list to form the group; from then on a majority is
    /// enough. With many groups, open all of them first and then wait for all at once: nodes that
    /// wait for one group before they open the next, in different orders, wait for each other.
    ///
    /// It is `Ok` where the group was founded with the same ids, whatever has changed since. On a
    /// node whose disk was lost it returns when the new disk has taken the place of the old one:
    /// not before that may another node lose its disk. While it waits, [`Metrics::waits_for`] and
    /// the log say for whom. It goes by this node's own log: that no other disk has taken this
    /// one's place meanwhile is shown by a [`read`](Self::read), which the leader confirms to
    /// members only. Nothing begins before the future is polled. Dropping it later does not end
    /// the attempt.
    ///
    /// # Errors
    /// [`InitializeError`]: the list can't be one (an id or an address twice, an address that can't
    /// be one, this node not in it); the group was founded with another list, another node was told
    /// another one, or this node has promised another founder to be part of the group. If the group
    /// or the node ends meanwhile (`Shutdown`, `Fatal`), it is open whether the group was formed.
    pub async fn initialize(
        &self,
        members: impl IntoIterator<Item = (NodeId, impl Into<String>)>,
    ) -> Result<(), InitializeError> {
        let list = list(members)?;
        self.ask(|answer| Admin::Initialize { list, answer }).await
    }

    /// Makes the members of the group those of `target`, while it serves, and returns once that is
    /// committed. Any node takes it: one that does not lead passes it on. Make a target from
    /// [`Membership::target`](crate::Membership::target), and see by [`plan`](Self::plan) what it
    /// takes.
    ///
    /// ```
    /// # use quorate_core::{ChangeOptions, Command, Error, Raft, StateMachine};
    /// # async fn replace<SM: StateMachine>(raft: Raft<SM>) -> Result<(), Error> {
    /// let membership = raft.metrics().borrow().membership.clone().expect("the group is formed");
    /// let target = membership.target().replaced(2, 4, "10.0.0.4:7101")?;
    /// // Refused with `Conflict` if somebody else has changed the membership since.
    /// let follows = Some(membership.last_change());
    /// let options = ChangeOptions { follows, ..ChangeOptions::default() };
    /// raft.change_membership(target, options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// New nodes must be running with this group open; they are not told a list
    /// ([`initialize`](Self::initialize) is for forming only). They become learners. Those that are
    /// to vote get their votes together, when they have caught up and have kept up for an
    /// election timeout. Whoever leads by then goes on with it, so it goes on when this node or the
    /// leader fails. A leader that has no vote in the target transfers leadership first. Whoever is
    /// not in the target leaves the group: its data stays until it is
    /// [removed](crate::Node::remove), and a voter that has left can come back with an empty store
    /// only.
    ///
    /// A node that is slow or dead keeps only this change waiting: the group serves as before. The
    /// other parts of the target wait with it, as all votes are given and taken together.
    /// [`Metrics::change`] names the node, on the leader. If it hasn't caught up within
    /// [`ChangeOptions::catch_up`], the membership is again what it was before. From when all have
    /// caught up the change has no time limit: it takes a majority of the voters of before and one
    /// of the new ones.
    ///
    /// It is queued by the call itself. Dropping the future does not take the change back:
    /// [`cancel_change`](Self::cancel_change) does. It can be called again with the same target:
    /// then it waits for the change that is under way, or has nothing to do. (What it returns then
    /// is the id of no change that can be [awaited](Self::await_change).) The id of a change that
    /// is under way is in [`Membership::change`](crate::Membership::change).
    ///
    /// # Errors
    /// [`ChangeError`]: it was refused (`Refused`), no leader took it (`NotLeader`), or it was
    /// taken back or replaced (`Late`, `Cancelled`, `Superseded`). After these the membership is
    /// not that of the target by this change. What becomes of it is open after `Unknown`,
    /// `Shutdown` and `Fatal`.
    pub fn change_membership(
        &self,
        target: Target,
        options: ChangeOptions,
    ) -> impl Future<Output = Result<ChangeId, ChangeError>> + Send + use<SM> {
        let kind = ChangeKind::Begin { target, options };
        self.ask(move |answer| Admin::Change { change: None, kind, answer })
    }

    /// Takes back a change that is under way, and returns once the membership of before is
    /// committed. Until the target is in force that is possible, also while the votes of both are
    /// counted. Nodes that had got a vote by then have left the group, and need an empty store to
    /// be added again. Where the change has taken the place of another one, both are taken back.
    ///
    /// It is queued by the call itself; dropping the future does not take it back.
    ///
    /// # Errors
    /// [`ChangeError`]: the change has ended before (`TooLate`), is not known (`Refused`), or no
    /// leader took the request (`NotLeader`). It is open whether the change is cancelled after
    /// `Unknown`, `Shutdown` and `Fatal`.
    pub fn cancel_change(
        &self,
        change: ChangeId,
    ) -> impl Future<Output = Result<ChangeId, ChangeError>> + Send + use<SM> {
        let kind = ChangeKind::Cancel;
        self.ask(move |answer| Admin::Change { change: Some(change), kind, answer })
    }

    /// Waits until a change has ended that was begun anywhere, as far as this node knows.
    ///
    /// # Errors
    /// Those of [`change_membership`](Self::change_membership) that tell of an ending; `Unknown` if
    /// nothing is heard of the change for a
    /// [`Config::request_timeout`], or its ending is not among the
    /// last [`MAX_ENDED`](crate::MAX_ENDED) any more.
    pub fn await_change(
        &self,
        change: ChangeId,
    ) -> impl Future<Output = Result<ChangeId, ChangeError>> + Send + use<SM> {
        self.ask(move |answer| Admin::AwaitChange(change, answer))
    }

    /// The steps to a target from the membership that this node knows, what each waits for, and how
    /// many failures are tolerated on the way. Nothing is changed.
    ///
    /// # Errors
    /// [`ChangeRefusal::Target`]: the target can't be one, or the group is not formed.
    pub fn plan(&self, target: &Target) -> Result<Plan, ChangeRefusal> {
        planned(&self.mailbox.known.metrics, target)
    }

    /// The settings of the group on this node.
    pub fn config(&self) -> Config {
        Config::clone(&self.mailbox.config())
    }

    /// Gives the group other settings on this node, all at once, while it runs. They count from
    /// when this returns, until the group is opened anew with those of its
    /// [builder](crate::GroupBuilder::config). What waits already keeps the deadline that it was
    /// given, or gets an earlier one. Whether a snapshot is to be taken is looked at when the next
    /// entry is applied. Of two callers at once the later one's settings count, as a whole. See
    /// [`Config`] for what to watch out for. It is queued by the call itself; dropping the future
    /// does not take it back.
    ///
    /// ```
    /// # use quorate_core::{Config, ConfigureError, Raft, StateMachine};
    /// # async fn only_follow<SM: StateMachine>(raft: Raft<SM>) -> Result<(), ConfigureError> {
    /// raft.configure(Config { elections: false, ..raft.config() }).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConfigureError`]: the settings can't work, by themselves or with what the transport
    /// carries, and nothing has changed (`Invalid`); or the group has ended (`Shutdown`, `Fatal`).
    pub fn configure(
        &self,
        config: Config,
    ) -> impl Future<Output = Result<(), ConfigureError>> + Send + use<SM> {
        let config = Box::new(config);
        self.ask(move |answer| Admin::Configure { config, answer })
    }

    /// Takes a snapshot of this node's state as it is now, and gives the last entry that it covers
    /// once a restart would find it; at once if there is one that covers all that is applied here.
    /// The log behind it is purged but for [`Config::retained_bytes`]. It is this node's matter:
    /// the others are not asked, and no leader is needed.
    ///
    /// One snapshot is written at a time, so it may wait for another to be written first; all who
    /// wait share the next one. Writes, reads and heartbeats go on meanwhile. It is queued by the
    /// call itself; dropping the future does not take it back.
    ///
    /// Errors: [`SnapshotError`]: nothing was ever applied (`Nothing`), or it can't be taken
    /// (`StateMachine`) or written (`Store`); the group goes on then, and its snapshot is
    /// the one before. Where it ends meanwhile (`Shutdown`, `Fatal`) it is open whether there
    /// is a new one.
    pub fn snapshot(&self) -> impl Future<Output = Result<LogId, SnapshotError>> + Send + use<SM> {
        self.ask(Admin::Snapshot)
    }

    /// Purges from this node's log all that its snapshot covers, [`Config::retained_bytes`] as
    /// well, and gives the last entry that is purged, once a restart would find it so;
    /// [`LogId::ZERO`] where there is no snapshot. Peers that need older entries get the snapshot;
    /// where one is being sent, what follows on it stays, up to [`Config::max_retained_bytes`]. It
    /// takes no snapshot: for the smallest log, take one before.
    ///
    /// It is queued by the call itself; dropping the future does not take it back.
    ///
    /// Errors: the group ends meanwhile (`Shutdown`, `Fatal`); it is open then whether anything was
    /// purged.
    pub fn purge(&self) -> impl Future<Output = Result<LogId, SnapshotError>> + Send + use<SM> {
        self.ask(Admin::Purge)
    }

    /// Transfers leadership to another voter: to a node by its id, or with `None` to the one that
    /// has caught up and was heard from last. [`TransferOptions`] takes a deadline as well. Gives
    /// who leads then, and in which term. It is asked of the leader; one that is told to transfer
    /// leadership to itself has done so.
    ///
    /// The leader serves as usual until the other has caught up. Then it takes no more writes until
    /// the other is elected, for two round trips and one or two writes to the disks. Writes of this
    /// node's handles wait meanwhile, and go to the next leader. Writes that a follower has passed
    /// on meanwhile are refused with certainty ([`WriteError::NotLeader`]), and so are reads for
    /// which the former leader's word did not come in time.
    ///
    /// A transfer that nobody takes up within its deadline is given up, and the leader serves again
    /// at once. If a transfer to the same node is under way, this waits for that, with its
    /// deadline. It is queued by the call itself; dropping the future does not take it back.
    ///
    /// # Errors
    /// [`TransferError`]: this node does not lead, and who does (`NotLeader`); the node is no voter
    /// (`NoSuchVoter`), or there is no other (`NoOtherVoter`); another transfer is under way
    /// (`UnderWay`); nobody took over in time or somebody else did, and why (`Failed`). Where the
    /// group ends meanwhile (`Shutdown`, `Fatal`), it is open who leads.
    pub fn transfer_leadership<O: Into<TransferOptions>>(
        &self,
        to: O,
    ) -> impl Future<Output = Result<Leadership, TransferError>> + Send + use<SM, O> {
        let options = to.into();
        self.ask(move |answer| Admin::Transfer { options, answer })
    }

    /// Lets this node campaign now, without waiting for an election timeout, and gives its
    /// leadership once it is elected; at once if it leads. It asks for pre-votes first, so it
    /// unseats no leader that is alive. It is queued by the call itself; dropping the future does
    /// not take it back.
    ///
    /// # Errors
    /// [`CampaignError`]: this node is no voter, or its group is not formed yet (`NotVoter`); a
    /// leader is alive, or another node was elected meanwhile (`LeaderIsAlive`); it was not elected
    /// within an election timeout (`NotElected`), and goes on campaigning as after any lost
    /// election. Where the group ends meanwhile (`Shutdown`, `Fatal`), it is open who leads.
    pub fn campaign(
        &self,
    ) -> impl Future<Output = Result<Leadership, CampaignError>> + Send + use<SM> {
        self.ask(Admin::Campaign)
    }

    /// Lets this node lead no more, at once, and gives the term in which it led. No successor is
    /// chosen: the others hold an election, and this node waits for its outcome as any follower
    /// does, and may be elected again later. Writes wait for the next leader, for up to an election
    /// timeout. To hold them up less, [transfer](Self::transfer_leadership) leadership. It is
    /// queued by the call itself; dropping the future does not take it back.
    ///
    /// # Errors
    /// [`StepDownError`]: this node does not lead, and who does (`NotLeader`); there is no other
    /// voter (`NoOtherVoter`); the group ends (`Shutdown`, `Fatal`).
    pub fn step_down(&self) -> impl Future<Output = Result<Term, StepDownError>> + Send + use<SM> {
        self.ask(Admin::StepDown)
    }

    fn ask<T: Send, E: Send + for<'a> From<&'a End>, F: FnOnce(Answer<T, E>) -> Admin>(
        &self,
        request: F,
    ) -> impl Future<Output = Result<T, E>> + Send + use<SM, T, E, F> {
        let (answer, receiver) = oneshot::channel();
        let taken = self.mailbox.request(Request::Admin(Box::new(request(answer))));
        answered(taken, receiver, self.metrics())
    }

    /// Stops the node of this group, with all its groups, and waits until it has ended, as
    /// [`Node::shutdown`](crate::Node::shutdown) does. It is for services whose node lives on
    /// another thread, and that have only this handle. The node stops also if this group has ended
    /// before. Where the node has ended already, this returns what it has come to.
    ///
    /// It is told to stop by the call itself; dropping the future does not take that back. The
    /// [`Node`](crate::Node) is to be kept until then: dropping it while it stops is a crash.
    ///
    /// # Errors
    /// The node has failed, before or meanwhile, or one of its groups has on the way: the cause.
    /// [`Fatal::Dropped`] if the node was dropped.
    ///
    /// # Examples
    /// ```
    /// # use quorate_core::{Fatal, Raft, StateMachine};
    /// # async fn on_a_signal<SM: StateMachine>(raft: Raft<SM>) -> Result<(), Fatal> {
    /// raft.shutdown().await // From any thread.
    /// # }
    /// ```
    pub fn shutdown(&self) -> impl Future<Output = Result<(), Fatal>> + Send + use<SM> {
        self.mailbox.shut_down();
        node_ended(self.mailbox.known.node.clone())
    }

    /// Waits until the group has ended on this node: it was stopped, it has failed, or the node has
    /// ended.
    ///
    /// # Errors
    /// The cause, if it or the node has failed; [`Fatal::Dropped`] if the node was dropped.
    pub fn stopped(&self) -> impl Future<Output = Result<(), Fatal>> + Send + use<SM> {
        ended(self.mailbox.known.status.clone())
    }

    /// What the group tells of itself on this node, now and whenever it changes.
    ///
    /// What is borrowed from it is a snapshot, which may be kept: it holds up nobody, and is of the
    /// time when it was borrowed. While one is kept, the node's next publication copies the metrics
    /// instead of changing them in place.
    pub fn metrics(&self) -> watch::Receiver<Metrics> {
        self.mailbox.known.metrics.clone()
    }

    /// Whether this node leads the group, as far as it knows. Another one may have been elected
    /// meanwhile: an answer that must not be out of date takes a [`read`](Self::read).
    pub fn is_leader(&self) -> bool {
        self.mailbox.known.metrics.borrow().role == Role::Leader
    }

    /// Waits until the metrics of this node are as `wanted`, for so long at the most, and returns
    /// those. `wanted` is called with the present ones, and then with newer ones. It runs on the
    /// caller's thread, under no lock, and may miss some that are replaced at once.
    ///
    /// The time is measured by the node, in turns of the group, so this works on any executor.
    /// A node whose thread is blocked does not notice that the time is up. More than a year
    /// counts as a year. It begins with the call itself; dropping the future ends it.
    ///
    /// # Errors
    /// [`WaitError`]: the time is up (`TimedOut`), too many wait already (`Busy`), or the group has
    /// ended before the metrics were as wanted (`Shutdown`, `Fatal`).
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// # use quorate_core::{Raft, StateMachine, WaitError};
    /// # async fn example<SM: StateMachine>(raft: Raft<SM>) -> Result<(), WaitError> {
    /// let within = Duration::from_secs(10);
    /// let metrics = raft.wait_until(within, |metrics| metrics.snapshot.index > 0).await?;
    /// println!("the snapshot covers the log up to {}", metrics.snapshot);
    /// # Ok(()) }
    /// ```
    pub fn wait_until<F: FnMut(&Metrics) -> bool + Send>(
        &self,
        within: Duration,
        wanted: F,
    ) -> impl Future<Output = Result<Arc<Metrics>, WaitError>> + Send + use<SM, F> {
        let (metrics, mut wanted) = (self.metrics(), wanted);
        let now = metrics.borrow();
        match wanted(&now) {
            true => Either::Left(ready(Ok(now))),
            false => Either::Right(until(metrics, self.alarm(within), wanted)),
        }
    }

    /// Waits until this node knows of a leader, for so long at the most, and returns who leads. It
    /// may be this node.
    ///
    /// # Errors
    /// Those of [`wait_until`](Self::wait_until).
    pub fn wait_for_leader(
        &self,
        within: Duration,
    ) -> impl Future<Output = Result<Leadership, WaitError>> + Send + use<SM> {
        self.wait_until(within, |metrics| metrics.leader.is_some()).map(led)
    }

    /// Waits until this node has applied the log up to `index`, for so long at the most. After a
    /// [write on another node](Self::write_with_log_id), this node's state has it then.
    ///
    /// # Errors
    /// Those of [`wait_until`](Self::wait_until).
    pub fn wait_for_applied(
        &self,
        index: Index,
        within: Duration,
    ) -> impl Future<Output = Result<(), WaitError>> + Send + use<SM> {
        self.wait_until(within, move |metrics| metrics.applied >= index).map(|seen| seen.map(drop))
    }

    /// Waits until the membership that is in force on this node is as `wanted`, for so long at the
    /// most, and returns it. A membership is in force when it is in the log, which may be before
    /// it is committed. A group that is not formed has none.
    ///
    /// # Errors
    /// Those of [`wait_until`](Self::wait_until).
    pub fn wait_for_membership<F: FnMut(&Membership) -> bool + Send>(
        &self,
        within: Duration,
        mut wanted: F,
    ) -> impl Future<Output = Result<Membership, WaitError>> + Send + use<SM, F> {
        self.wait_until(within, move |metrics| metrics.membership.as_ref().is_some_and(&mut wanted))
            .map(in_force)
    }

    fn alarm(&self, within: Duration) -> oneshot::Receiver<Result<(), WaitError>> {
        let (answer, late) = oneshot::channel();
        let alarm = Admin::Alarm { within, answer };
        // Where the group has ended, the metrics tell.
        let _ = self.mailbox.request(Request::Admin(Box::new(alarm)));
        late
    }

    /// Returns a stream of who leads, as this node knows: first who does now, then each change of
    /// the leader or the term. A reader that is slow gets the newest only. It ends when the group
    /// has ended on this node.
    ///
    /// A group without a leader tells of none. Many terms may pass before one is elected.
    ///
    /// # Examples
    /// ```
    /// # use quorate_core::{Raft, StateMachine};
    /// # async fn example<SM: StateMachine>(raft: Raft<SM>) {
    /// let mut changes = raft.leader_changes();
    /// while let Some(now) = changes.next().await {
    ///     match now.leader {
    ///         Some(leader) => println!("node {leader} leads in term {}", now.term),
    ///         None => println!("nobody is known to lead in term {}", now.term),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn leader_changes(&self) -> LeaderChanges {
        LeaderChanges::new(self.mailbox.known.status.clone())
    }

    /// Hands the group a message from a peer: the receiving end of a transport of one's own.
    /// Messages beyond the inbox limit are dropped.
    pub fn deliver(&self, message: Message) {
        self.mailbox.deliver(message);
    }
}

impl<SM: StateMachine> std::fmt::Debug for Raft<SM> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The steps to a target, as far as a node knows.
pub(super) fn planned(
    metrics: &watch::Receiver<Metrics>,
    target: &Target,
) -> Result<Plan, ChangeRefusal> {
    let metrics = metrics.borrow();
    let missing = || ChangeRefusal::Target("the group is not formed yet".to_owned());
    let membership = metrics.membership.as_ref().ok_or_else(missing)?;
    membership.plan(target, metrics.leader)
}

/// Who leads, by metrics that have a leader.
pub(super) fn led(seen: Result<Arc<Metrics>, WaitError>) -> Result<Leadership, WaitError> {
    let seen = seen?;
    let leader = seen.leader.expect("it was waited for");
    Ok(Leadership { leader, term: seen.term })
}

/// The membership, by metrics that have one.
pub(super) fn in_force(seen: Result<Arc<Metrics>, WaitError>) -> Result<Membership, WaitError> {
    Ok(seen?.membership.clone().expect("it was waited for"))
}

/// Waits for what a group comes to.
pub(super) async fn ended(status: watch::Receiver<Status>) -> Result<(), Fatal> {
    let mut status = status;
    let ended = status.wait_for(|status| !status.state.is_running()).await;
    ended.ok().and_then(|status| status.state.outcome()).unwrap_or(Err(Fatal::Dropped))
}

/// Waits for the outcome of a write, unless it was refused at once. (Not an `async` block, which
/// would hold what it waits for twice: a client's task is copied with it.)
pub(crate) fn written<T, E>(
    queued: Result<impl Future<Output = Result<Result<T, WriteError>, E>>, WriteError>,
) -> impl Future<Output = Result<T, WriteError>> {
    match queued {
        Ok(queued) => {
            Either::Left(queued.map(|written| written.unwrap_or(Err(WriteError::Unknown))))
        }
        Err(refusal) => Either::Right(ready(Err(refusal))),
    }
}

/// What a read gives, or its panic.
pub(crate) type ReadResult<T> = Result<thread::Result<T>, ReadError>;

/// Reads. The state can't have been changed by it, so its panic is the reader's and not the node's.
pub(crate) fn look<SM, T>(state: &SM, read: impl FnOnce(&SM) -> T) -> thread::Result<T> {
    catch_unwind(AssertUnwindSafe(|| read(state)))
}

/// What was seen. A panic of the read goes on here.
pub(crate) fn seen<T>(result: ReadResult<T>) -> Result<T, ReadError> {
    result.map(|seen| seen.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// The bytes of a command, and what it is counted as.
#[inline]
pub(crate) fn encode<SM: StateMachine>(
    command: SM::Command,
    max: usize,
) -> Result<(Bytes, usize), WriteError> {
    let command = command.encode().map_err(WriteError::Command)?;
    let bytes = command.len();
    if let Some(reason) = too_large(bytes, max) {
        return Err(WriteError::Command(reason));
    }
    Ok((command, bytes + Entry::OVERHEAD_BYTES))
}

/// The list that a group is to be formed of.
pub(crate) fn list(
    members: impl IntoIterator<Item = (NodeId, impl Into<String>)>,
) -> Result<BTreeMap<NodeId, String>, InitializeError> {
    let mut list = BTreeMap::new();
    for (id, address) in members {
        if list.insert(id, address.into()).is_some() {
            return Err(InitializeError::Membership(format!("node {id} is listed twice")));
        }
    }
    check_list(&list).map_err(InitializeError::Membership)?;
    Ok(list)
}
