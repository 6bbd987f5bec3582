//! What is asked of a group on its node beside writes and reads: administrative requests. Another
//! one takes:
//!
//! 1. A variant of [`Admin`] with its [`Answer`], and an arm in [`Group::administer`].
//! 2. If the engine does it, a variant of [`Input`] and an arm in `Engine::step`.
//! 3. If it is not answered at once, a list of those who wait in `Replies` (`replies.rs`, with
//!    `shrink` and `has_others`), and the answer in [`Group::answer_admins`], which each turn calls
//!    while somebody waits. A group that stops waits for those whom `Replies::is_empty` counts.
//!    Those for whom it must not wait are dropped in `begin_to_stop` (`turn.rs`).
//! 4. If its error is a new one, the variants `Shutdown` and `Fatal`, its name in
//!    `how_a_node_has_ended!`, and a variant of [`Error`](crate::Error).
//! 5. A method in each handle (`raft.rs`, `local.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::oneshot;
use quorate_rt::channel::watch;
use quorate_rt::{Executor, Instant};

use super::super::WaitError;
use super::Group;
use super::mailbox::End;
use crate::config::Config;
use crate::engine::Input;
use crate::error::{
    ChangeError, ConfigError, ConfigureError, InitializeError, ReadError, SnapshotError, WriteError,
};
use crate::identity::Standing;
use crate::leadership::{CampaignError, Leadership, StepDownError, TransferError, TransferOptions};
use crate::log_store::LogStore;
use crate::membership::{ChangeId, ChangeKind};
use crate::metrics::Metrics;
use crate::state_machine::StateMachine;
use crate::transport::Transport;
use crate::types::{LogId, NodeId, Term};

pub(crate) enum Admin {
    /// Form the group of these nodes.
    Initialize { list: BTreeMap<NodeId, String>, answer: Answer<(), InitializeError> },
    /// Take a snapshot. The answer is the entry up to which there is one.
    Snapshot(Answer<LogId, SnapshotError>),
    /// Change the membership, or cancel a change of it. The answer is the change.
    Change { change: Option<ChangeId>, kind: ChangeKind, answer: Answer<ChangeId, ChangeError> },
    /// Wait until a change of the membership has ended.
    AwaitChange(ChangeId, Answer<ChangeId, ChangeError>),
    /// Go on with other settings.
    Configure { config: Box<Config>, answer: Answer<(), ConfigureError> },
    /// Purge the log. The answer is the last entry that is purged.
    Purge(Answer<LogId, SnapshotError>),
    /// Transfer leadership. The answer is the next leader.
    Transfer { options: TransferOptions, answer: Answer<Leadership, TransferError> },
    /// Campaign. The answer is this node's leadership.
    Campaign(Answer<Leadership, CampaignError>),
    /// Lead no more. The answer is the term in which it led.
    StepDown(Answer<Term, StepDownError>),
    /// Tell that so much time has passed.
    Alarm { within: Duration, answer: Answer<(), WaitError> },
}

/// Whom to answer. To drop it is to answer how the node has ended: see [`answered`].
pub(crate) type Answer<T, E> = oneshot::Sender<Result<T, E>>;

/// Waits for the answer to a request, if it was taken. Where there is none, the node has ended, and
/// `metrics` tell how.
pub(crate) async fn answered<T, E: for<'a> From<&'a End>>(
    taken: Result<(), End>,
    answer: oneshot::Receiver<Result<T, E>>,
    metrics: watch::Receiver<Metrics>,
) -> Result<T, E> {
    taken.map_err(|end| E::from(&end))?;
    answer.await.unwrap_or_else(|_| {
        // While it stops, it runs.
        let outcome = metrics.borrow().state.outcome();
        Err(E::from(&outcome.map_or(End::Shutdown, End::from)))
    })
}

macro_rules! how_a_node_has_ended {
    ($($error:ident)*) => {$(
        impl From<&End> for $error {
            fn from(end: &End) -> Self {
                match end {
                    End::Shutdown => Self::Shutdown,
                    End::Fatal(fatal) => Self::Fatal(fatal.clone()),
                }
            }
        }
    )*};
}

how_a_node_has_ended! {
    WriteError ReadError InitializeError SnapshotError ChangeError ConfigureError TransferError
    CampaignError StepDownError WaitError
}

impl<R: Executor, SM: StateMachine, S: LogStore, T: Transport> Group<R, SM, S, T> {
    pub(super) fn administer(&mut self, now: Instant, admin: Admin) {
        match admin {
            Admin::Initialize { list, answer } => self.initialize(now, list, answer),
            Admin::Snapshot(answer) => self.snapshot(answer),
            Admin::Change { change, kind, answer } => {
                self.request_change(now, change, kind, answer);
            }
            Admin::AwaitChange(change, answer) => self.await_change(now, change, answer),
            Admin::Configure { config, answer } => {
                let _ = answer.send(self.configure(now, *config).map_err(ConfigureError::Invalid));
            }
            Admin::Purge(answer) => {
                self.engine.step(now, Input::Purge);
                self.replies.borrow_mut().purging.push(answer);
            }
            Admin::Transfer { options, answer } => self.transfer_leadership(now, options, answer),
            Admin::Campaign(answer) => self.campaign(now, answer),
            Admin::StepDown(answer) => self.step_down(now, answer),
            Admin::Alarm { within, answer } => {
                self.replies.borrow_mut().alarms.set(now, within, answer);
            }
        }
    }

    /// Answers those whose requests are done.
    pub(super) fn answer_admins(&self, now: Instant) {
        self.answer_initialize();
        self.answer_snapshots();
        self.answer_leadership(now);
    }

    fn initialize(
        &mut self,
        now: Instant,
        list: BTreeMap<NodeId, String>,
        answer: Answer<(), InitializeError>,
    ) {
        let id = self.engine.replica().id;
        // Of a group that is formed only the ids of its founders are compared: nodes may have
        // moved, and this one may have been added later.
        let checked = match list.contains_key(&id) {
            _ if self.engine.membership().is_some() => {
                self.warn_of_other_addresses(&list);
                Ok(())
            }
            true => self.transport.check_list(id, &list),
            false => Err(format!("this node, {id}, is not in it")),
        };
        let begun = checked
            .map_err(InitializeError::Membership)
            .and_then(|()| self.engine.initialize(now, list));
        match begun {
            Ok(()) => self.replies.borrow_mut().initializing.push(answer),
            Err(refusal) => {
                let _ = answer.send(Err(refusal));
            }
        }
    }

    /// Whoever edits the list to move a node is told that it does nothing.
    fn warn_of_other_addresses(&self, list: &BTreeMap<NodeId, String>) {
        let Some(membership) = self.engine.membership() else { return };
        for (node, listed) in list {
            if let Some(address) = membership.address(*node).filter(|address| address != listed) {
                let (group, node) = (self.group, *node);
                tracing::warn!(
                    group,
                    node,
                    listed,
                    address,
                    "the list gives a node another address than the group's configuration, which \
                     counts: move a node by a change of the membership"
                );
            }
        }
    }

    fn configure(&mut self, now: Instant, config: Config) -> Result<(), ConfigError> {
        config.validate()?;
        if let Some(limit) = self.transport.message_limit() {
            config.check_carried(limit)?;
        }
        let config = Arc::new(config);
        self.engine.configure(now, Arc::clone(&config));
        self.liveness.set_times(self.group, &config);
        self.mailbox.configure(config);
        tracing::info!(group = self.group, config = ?self.engine.config(), "has other settings");
        Ok(())
    }

    fn snapshot(&mut self, answer: Answer<LogId, SnapshotError>) {
        let wanted = self.applying.applied().max(self.covered());
        if wanted == 0 {
            let _ = answer.send(Err(SnapshotError::Nothing));
        } else {
            self.replies.borrow_mut().await_snapshot(wanted, answer);
        }
    }

    fn answer_initialize(&self) {
        let initializing = &mut self.replies.borrow_mut().initializing;
        if initializing.is_empty() {
            return;
        }
        let outcome = match self.engine.is_part() {
            true => Ok(()),
            false if *self.engine.standing() == Standing::Spent => Err(InitializeError::Spent),
            false => return,
        };
        for answer in initializing.drain(..) {
            let _ = answer.send(outcome.clone());
        }
    }

    fn answer_snapshots(&self) {
        let mut replies = self.replies.borrow_mut();
        if self.engine.compaction_is_durable() {
            if let Some(snapshot) = self.engine.snapshot() {
                replies.answer_snapshots(snapshot.log_id, &Ok(()));
            }
            for answer in replies.purging.drain(..) {
                let _ = answer.send(Ok(self.engine.purged()));
            }
        }
        if replies.awaits_snapshot_beyond(self.covered()) && !self.snapshots.is_building() {
            self.applying.want_view();
        }
    }
}
