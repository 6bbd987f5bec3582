//! The way of requests to the leader, on a node that does not lead. Writes that the leader or the
//! way to it has no room for are kept here: they were sent to nobody, so that their outcome is
//! certain, and they can be sent to the next leader just as well (R20). Reads whose leader has gone
//! are kept for the next one, too.

use quorate_rt::{Executor, Instant};

use super::Group;
use super::mailbox::{LocalRead, LocalRequest, Request};
use crate::engine::Ticket;
use crate::error::WriteError;
use crate::log_store::LogStore;
use crate::message::{Body, Message};
use crate::metrics::Role;
use crate::plant;
use crate::state_machine::StateMachine;
use crate::transport::Transport;

impl<R: Executor, SM: StateMachine, S: LogStore, T: Transport> Group<R, SM, S, T> {
    /// Whether no leader is known that takes requests: one that has told another voter to take over
    /// takes none, nor does one that has just refused a read, as it leads no more.
    fn awaits_leader(&self, now: Instant) -> bool {
        self.engine.leader().is_none()
            || self.engine.hands_over()
            || self
                .refused
                .is_some_and(|(term, at)| term == self.engine.hard_state().term && now < at)
    }

    /// When the leader that has refused a read is to be asked again.
    pub(super) fn asks_again_at(&self, now: Instant) -> Option<Instant> {
        let (_, at) = self.refused?;
        // Once that has come, the read waits for nothing but a leader.
        (now < at && !self.replies.borrow().leaderless.is_empty()).then_some(at)
    }

    /// Keeps a read whose leader is gone, or was none, for the next leader. The present one is
    /// asked again after a heartbeat interval, as the next may be elected by then.
    pub(super) fn ask_again(&mut self, now: Instant, until: Instant, read: LocalRead<SM>) {
        let at = now + self.engine.config().heartbeat_interval;
        self.refused = Some((self.engine.hard_state().term, at));
        self.replies.borrow_mut().leaderless.push(until, Request::Read(read));
    }

    /// Takes a request, or keeps it until then, at the latest: until a leader is known, and until
    /// there is room on the way to it.
    pub(super) fn pass_on(&mut self, now: Instant, until: Instant, request: LocalRequest<SM>) {
        if self.awaits_leader(now) {
            self.replies.borrow_mut().leaderless.push(until, request);
            return;
        }
        match &request {
            // Those that came before go first.
            Request::Write { command, .. }
                if !self.replies.borrow().unsent.is_empty() || !self.has_way(command.len()) =>
            {
                self.replies.borrow_mut().unsent.push(until, request);
            }
            _ => self.take_at_once(now, until, request),
        }
    }

    /// Gives the engine a request. What a write takes of the room on the way to the leader counts
    /// for the next one.
    fn take_at_once(&mut self, now: Instant, until: Instant, request: LocalRequest<SM>) {
        self.take(now, until, request);
        if self.engine.role() != Role::Leader {
            self.propose(now);
        }
    }

    /// Whether a command of so many bytes can be placed here, or be passed on to the leader now.
    fn has_way(&self, bytes: usize) -> bool {
        self.engine.takes(bytes) && (self.engine.role() == Role::Leader || self.leader_is_ready())
    }

    fn leader_is_ready(&self) -> bool {
        self.engine.leader().is_some_and(|leader| self.transport.is_ready(leader))
    }

    /// Lets those go that have waited, as far as they can now, and refuses those that have waited
    /// for too long.
    pub(super) fn release(&mut self, now: Instant) {
        if !self.awaits_leader(now) {
            self.refused = None;
            self.release_unsent(now);
            let leaderless = self.replies.borrow_mut().leaderless.drain();
            for (until, request) in leaderless {
                self.pass_on(now, until, request);
            }
        }
        loop {
            let expired = self.replies.borrow_mut().unsent.pop_expired(now);
            let Some(request) = expired else { break };
            self.refuse_unsent(request);
        }
    }

    fn release_unsent(&mut self, now: Instant) {
        loop {
            let first = self.replies.borrow_mut().unsent.pop_if(|request| match request {
                Request::Write { command, .. } => self.has_way(command.len()),
                _ => true,
            });
            let Some(request) = first else { return };
            // It is a write, which waits for as long as the leader's answer takes.
            self.take_at_once(now, now, request);
        }
    }

    fn refuse_unsent(&self, request: LocalRequest<SM>) {
        let Request::Write { reply, .. } = request else { return };
        reply.answer(Err(match self.leader_is_ready() {
            true => WriteError::Busy, // The leader is there, and too much is on its way to it.
            false => self.refusals.of_write(),
        }));
    }

    /// Sends what the engine has for others.
    pub(super) fn send(&mut self, messages: &mut Vec<Message>) {
        for message in messages.drain(..) {
            let forward = match &message.body {
                Body::Forward { sequence, .. } => Some(*sequence),
                _ => None,
            };
            plant!(R20, forward = None);
            if !self.transport.send(message)
                && let Some(sequence) = forward
            {
                // It never arrives, so that nothing has to be unknown.
                let tickets = self.engine.forward_not_taken(sequence);
                tickets.into_iter().for_each(|ticket| self.refuse_not_taken(ticket));
            }
        }
    }

    fn refuse_not_taken(&self, ticket: Ticket) {
        let reply = self.replies.borrow_mut().proposed.take(ticket);
        reply.answer(Err(self.refusals.of_write()));
    }

    /// When the way to the leader is to be looked at again, and when somebody has waited for it for
    /// too long.
    pub(super) fn forwarding_at(&self, now: Instant) -> Option<Instant> {
        let expires_at = self.replies.borrow().unsent.expires_at()?;
        let look_at = match self.engine.leader() {
            Some(_) => now + self.engine.config().heartbeat_interval,
            None => expires_at,
        };
        Some(expires_at.min(look_at))
    }
}
