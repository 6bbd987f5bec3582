//! Changes of the membership that somebody waits for on this node, whoever leads.
//!
//! A request is repeated until the leader has said something to it. Then the ending of the change
//! is awaited: it stands in a configuration that this node knows to be committed.

use quorate_rt::{Executor, Instant};

use super::Group;
use super::admin::Answer;
use crate::engine::Input;
use crate::error::ChangeError;
use crate::identity::Standing;
use crate::log_store::LogStore;
use crate::membership::{ChangeId, ChangeKind, ChangeReply, ChangeRequest, Ending};
use crate::plant;
use crate::state_machine::StateMachine;
use crate::transport::Transport;

/// Those who wait for changes.
#[derive(Default)]
pub(super) struct Changes {
    waiting: Vec<Waiting>,
}

struct Waiting {
    /// The change whose ending is awaited.
    change: ChangeId,
    /// It is to be cancelled.
    cancels: bool,
    phase: Phase,
    answer: Answer<ChangeId, ChangeError>,
}

enum Phase {
    /// The leader is asked, again and again.
    Asking {
        request: ChangeRequest,
        again_at: Instant,
        until: Instant,
        /// A leader on another node was asked, or one has noted the request: it may be taken.
        is_open: bool,
    },
    /// The leader knows of it. If it is not to be seen here by then, its fate is unknown.
    Awaiting { until: Instant },
}

impl Changes {
    /// When something is due.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.waiting.is_empty() {
            return None;
        }
        let at = |waiting: &Waiting| match waiting.phase {
            Phase::Asking { again_at, until, .. } => again_at.min(until),
            Phase::Awaiting { until } => until,
        };
        self.waiting.iter().map(at).min()
    }

    /// Nobody is waited for any more: those who have asked learn how the group has ended.
    pub(super) fn clear(&mut self) {
        self.waiting = Vec::new();
    }
}

impl<R: Executor, SM: StateMachine, S: LogStore, T: Transport> Group<R, SM, S, T> {
    /// A change is wanted by somebody on this node.
    pub(super) fn request_change(
        &mut self,
        now: Instant,
        change: Option<ChangeId>,
        kind: ChangeKind,
        answer: Answer<ChangeId, ChangeError>,
    ) {
        let drawn = || ChangeId(u128::from(self.rt.random()) << 64 | u128::from(self.rt.random()));
        let id = change.unwrap_or_else(drawn);
        let cancels = kind == ChangeKind::Cancel;
        let until = now + self.engine.config().request_timeout;
        let request = ChangeRequest { id, kind };
        let phase = Phase::Asking { request, again_at: now, until, is_open: false };
        self.changes.waiting.push(Waiting { change: id, cancels, phase, answer });
    }

    /// Somebody on this node waits for a change.
    pub(super) fn await_change(
        &mut self,
        now: Instant,
        change: ChangeId,
        answer: Answer<ChangeId, ChangeError>,
    ) {
        let phase = Phase::Awaiting { until: now + self.engine.config().request_timeout };
        self.changes.waiting.push(Waiting { change, cancels: false, phase, answer });
    }

    /// Asks the leader, where that is due.
    pub(super) fn ask_for_changes(&mut self, now: Instant) {
        if self.changes.waiting.is_empty() {
            return;
        }
        let pause = self.engine.config().heartbeat_interval;
        self.changes.waiting.retain(|waiting| !waiting.answer.is_canceled());
        for waiting in &mut self.changes.waiting {
            if let Phase::Asking { request, again_at, is_open, .. } = &mut waiting.phase
                && *again_at <= now
            {
                *again_at = now + pause;
                *is_open |=
                    self.engine.leader().is_some_and(|leader| leader != self.engine.replica());
                self.engine.step(now, Input::Change(Box::new(request.clone())));
            }
        }
    }

    /// The leader has said this to a request.
    pub(super) fn on_change_reply(&mut self, now: Instant, id: ChangeId, reply: ChangeReply) {
        let deadline = now + self.engine.config().request_timeout;
        let is_meant = |waiting: &mut Waiting| match &mut waiting.phase {
            Phase::Asking { is_open, .. } if waiting.change == id => {
                // What was asked before may be taken still, whoever says "again" now.
                *is_open |= reply == ChangeReply::Noted;
                match &reply {
                    ChangeReply::Again | ChangeReply::Noted => false,
                    ChangeReply::Await(change) => {
                        waiting.change = *change;
                        waiting.phase = Phase::Awaiting { until: deadline };
                        false
                    }
                    ChangeReply::Nothing | ChangeReply::Refused(_) => true,
                }
            }
            _ => false,
        };
        let answered: Vec<_> = self.changes.waiting.extract_if(.., is_meant).collect();
        for waiting in answered {
            let _ = waiting.answer.send(match &reply {
                ChangeReply::Refused(refusal) => Err(refusal.clone().into()),
                _ => Ok(id),
            });
        }
    }

    /// Answers those whose change has ended, or of which nothing is to be heard.
    pub(super) fn answer_changes(&mut self, now: Instant) {
        if self.changes.waiting.is_empty() {
            return;
        }
        let membership = self.engine.committed_membership();
        plant!(X15, membership = self.engine.membership());
        let is_spent = *self.engine.standing() == Standing::Spent;
        let outcome = |waiting: &Waiting| {
            let Waiting { change, cancels, .. } = waiting;
            let ending = membership.and_then(|membership| membership.ending_of(*change));
            let unknown = Err(ChangeError::Unknown { change: *change });
            match (&waiting.phase, ending) {
                (Phase::Asking { until, is_open, .. }, _) if *until <= now => Some(match is_open {
                    true => unknown,
                    false => Err(self.refusals.of_change()),
                }),
                (Phase::Asking { .. }, _) => None,
                (Phase::Awaiting { .. }, Some(ending)) => Some(ended(*change, ending, *cancels)),
                (Phase::Awaiting { .. }, None) if is_spent => Some(unknown),
                (Phase::Awaiting { until }, None) => {
                    let under_way = self.engine.membership().and_then(|m| m.change());
                    let is_under_way = under_way.is_some_and(|known| known.id == *change);
                    // Without a leader, this node may be cut off from all that happens.
                    let goes_on = is_under_way && self.engine.leader().is_some();
                    (*until <= now && !goes_on).then_some(unknown)
                }
            }
        };
        let mut outcomes = Vec::new();
        for (at, waiting) in self.changes.waiting.iter().enumerate().rev() {
            if let Some(outcome) = outcome(waiting) {
                outcomes.push((at, outcome));
            }
        }
        for (at, outcome) in outcomes {
            let _ = self.changes.waiting.remove(at).answer.send(outcome);
        }
        // One that is under way takes as long as it takes. But that it is to be cancelled may be
        // lost with a leader, and is said again.
        let until = now + self.engine.config().request_timeout;
        for Waiting { change, cancels, phase, .. } in &mut self.changes.waiting {
            if matches!(phase, Phase::Awaiting { until } if *until <= now) {
                *phase = match cancels {
                    true => {
                        let request = ChangeRequest { id: *change, kind: ChangeKind::Cancel };
                        Phase::Asking { request, again_at: now, until, is_open: true }
                    }
                    false => Phase::Awaiting { until },
                };
            }
        }
    }
}

/// What somebody is told who waited for a change that has ended.
fn ended(change: ChangeId, ending: &Ending, cancels: bool) -> Result<ChangeId, ChangeError> {
    match ending {
        Ending::Cancelled if cancels => Ok(change),
        _ if cancels => Err(ChangeError::TooLate),
        Ending::Done => Ok(change),
        Ending::Cancelled => Err(ChangeError::Cancelled),
        Ending::Late { waits_for } => Err(ChangeError::Late { waits_for: waits_for.clone() }),
        Ending::Superseded { by } => Err(ChangeError::Superseded { by: *by }),
    }
}
