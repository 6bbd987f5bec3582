//! Transfers of leadership, campaigns and stepping down by hand: who asks, and what they are told.

use quorate_rt::{Executor, Instant};

use super::Group;
use super::admin::Answer;
use crate::leadership::{
    CampaignError, Leadership, StepDownError, TransferError, TransferFailure, TransferOptions,
};
use crate::log_store::LogStore;
use crate::metrics::Role;
use crate::plant;
use crate::state_machine::StateMachine;
use crate::transport::Transport;
use crate::types::{NodeId, Term};

/// Those who wait for a change of leadership.
#[derive(Default)]
pub(crate) struct LeadershipWaits {
    transfers: Vec<Transferring>,
    campaigns: Vec<Campaigning>,
}

struct Transferring {
    to: Option<NodeId>,
    /// The term of the leader that was to transfer its leadership.
    term: Term,
    /// Until then it waits for a successor to be known, at the latest.
    until: Instant,
    answer: Answer<Leadership, TransferError>,
}

struct Campaigning {
    until: Instant,
    answer: Answer<Leadership, CampaignError>,
}

impl LeadershipWaits {
    pub(super) fn is_empty(&self) -> bool {
        self.transfers.is_empty() && self.campaigns.is_empty()
    }

    /// When the first of them will have waited long enough. Who has, and still waits, has joined a
    /// transfer that has more time: its end is another turn.
    pub(crate) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let transfers = self.transfers.iter().map(|waiting| waiting.until);
        let all = transfers.chain(self.campaigns.iter().map(|waiting| waiting.until));
        all.filter(|until| *until > now).min()
    }

    /// Lets go of memory that is not in use.
    pub(crate) fn shrink(&mut self) {
        self.transfers.shrink_to_fit();
        self.campaigns.shrink_to_fit();
    }
}

/// Answers those whose outcome is known.
fn answer_known<W, T>(
    waiting: &mut Vec<W>,
    outcome: impl Fn(&W) -> Option<T>,
    answer: impl Fn(W, T),
) {
    let mut next = 0;
    while let Some(waits) = waiting.get(next) {
        match outcome(waits) {
            Some(outcome) => answer(waiting.swap_remove(next), outcome),
            None => next += 1,
        }
    }
}

impl<R: Executor, SM: StateMachine, S: LogStore, T: Transport> Group<R, SM, S, T> {
    pub(super) fn transfer_leadership(
        &mut self,
        now: Instant,
        options: TransferOptions,
        answer: Answer<Leadership, TransferError>,
    ) {
        let (own, term) = (self.engine.replica().id, self.engine.hard_state().term);
        if self.engine.role() == Role::Leader && options.to == Some(own) {
            let _ = answer.send(Ok(Leadership { leader: own, term }));
            return;
        }
        match self.engine.transfer_leadership(now, options) {
            Ok(()) => {
                let config = self.engine.config();
                let within = options.within.unwrap_or(config.election_timeout);
                let until = now + within.min(TransferOptions::LONGEST) + config.request_timeout;
                let waiting = Transferring { to: options.to, term, until, answer };
                self.replies.borrow_mut().leadership.transfers.push(waiting);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    pub(super) fn campaign(&mut self, now: Instant, answer: Answer<Leadership, CampaignError>) {
        match self.engine.campaign_by_hand(now) {
            Ok(()) => {
                let until = now + self.engine.config().election_timeout;
                let waiting = Campaigning { until, answer };
                self.replies.borrow_mut().leadership.campaigns.push(waiting);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        }
    }

    pub(super) fn step_down(&mut self, now: Instant, answer: Answer<Term, StepDownError>) {
        let term = self.engine.hard_state().term;
        let _ = answer.send(self.engine.step_down(now).map(|()| term));
    }

    pub(super) fn answer_leadership(&self, now: Instant) {
        let waits = &mut self.replies.borrow_mut().leadership;
        if waits.is_empty() {
            return;
        }
        let outcome = |waiting: &Transferring| self.outcome_of_transfer(now, waiting);
        answer_known(&mut waits.transfers, outcome, |waiting, outcome| {
            let _ = waiting.answer.send(outcome);
        });
        let outcome = |waiting: &Campaigning| self.outcome_of_campaign(now, waiting);
        answer_known(&mut waits.campaigns, outcome, |waiting, outcome| {
            let _ = waiting.answer.send(outcome);
        });
    }

    /// Who leads, as far as is known here.
    fn leadership(&self) -> Option<Leadership> {
        let term = self.engine.hard_state().term;
        self.engine.leader().map(|leader| Leadership { leader: leader.id, term })
    }

    fn outcome_of_transfer(
        &self,
        now: Instant,
        waiting: &Transferring,
    ) -> Option<Result<Leadership, TransferError>> {
        let to = waiting.to;
        let failed = |why| Some(Err(TransferError::Failed { to, why }));
        plant!(
            X17,
            if let Some(to) = to.filter(|_| self.engine.hands_over()) {
                let term = waiting.term.next().unwrap_or(waiting.term);
                return Some(Ok(Leadership { leader: to, term }));
            }
        );
        if self.leads_in(waiting.term) {
            let why = self.engine.transfer_failure().unwrap_or(TransferFailure::NotElected);
            return if self.engine.is_resigning() { None } else { failed(why) };
        }
        let own = self.engine.replica().id;
        match self.leadership().filter(|led| led.term > waiting.term) {
            Some(led) if to.map_or(led.leader != own, |to| led.leader == to) => Some(Ok(led)),
            Some(led) => failed(TransferFailure::OtherLeader(led)),
            None if now >= waiting.until => failed(TransferFailure::NoLeader),
            None => None,
        }
    }

    fn outcome_of_campaign(
        &self,
        now: Instant,
        waiting: &Campaigning,
    ) -> Option<Result<Leadership, CampaignError>> {
        match self.leadership() {
            Some(led) if led.leader == self.engine.replica().id => Some(Ok(led)),
            Some(led) => Some(Err(CampaignError::LeaderIsAlive(led))),
            None if self.engine.has_lost() || now >= waiting.until => {
                Some(Err(CampaignError::NotElected))
            }
            None => None,
        }
    }
}
