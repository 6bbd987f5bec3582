//! What a leader does before commands get their place in the log: it decodes them, from the bytes
//! that will be replicated.
//!
//! What nobody can read must not get a log id: once it is committed, it stops every node at every
//! start (D10). It makes no difference whether a command comes from a handle of this node or is
//! passed on by a peer, whose program may be another one.

use quorate_rt::planted::{Bug, planted};
use quorate_rt::{AsyncRuntime, Instant};

use super::mailbox::KEPT_PLACES;
use super::turn::Turns;
use crate::engine::{Input, Ticket};
use crate::error::WriteError;
use crate::log_store::LogStore;
use crate::message::{Body, Message, Refusal};
use crate::metrics::Role;
use crate::state_machine::{Command, StateMachine};
use crate::transport::Transport;
use crate::types::LogId;

/// So many commands of a forward are refused with the reason. An answer stays small, however many
/// there are.
const TOLD_REASONS: usize = 16;

/// What is told of the reason for which a command is refused, after so many others.
fn told(reason: String, others: usize) -> String {
    if others < TOLD_REASONS { reason } else { "the leader can't read it".to_owned() }
}

impl<R: AsyncRuntime, SM: StateMachine, S: LogStore, T: Transport> Turns<R, SM, S, T> {
    /// Gives the engine the writes that this turn has brought.
    pub(super) fn propose(&mut self, now: Instant) {
        if self.proposing.is_empty() {
            return;
        }
        let mut next = self.replies.borrow().proposed.next() - self.proposing.len() as u64;
        let unreadable = match self.engine.role() {
            Role::Leader => self.look_at(next),
            _ => Vec::new(), // The leader will look at them.
        };
        let mut commands = self.proposing.drain(..);
        for (ticket, reason) in unreadable {
            let before = commands.by_ref().take((ticket - next) as usize);
            self.engine.propose(now, next, before);
            commands.next();
            next = ticket + 1;
            let reply = self.replies.borrow_mut().proposed.take(ticket);
            reply.answer(Err(WriteError::Command(reason)));
        }
        self.engine.propose(now, next, commands);
        self.proposing.shrink_to(KEPT_PLACES);
    }

    /// Decodes what is to be proposed, from this ticket on. Returns what can't be read, and why.
    fn look_at(&self, first: Ticket) -> Vec<(Ticket, String)> {
        let mut unreadable = Vec::new();
        let mut kept = self.applying.kept.borrow_mut();
        for (ticket, bytes) in (first..).zip(&self.proposing) {
            match SM::Command::decode(bytes) {
                Ok(command) => kept.propose(ticket, bytes.len(), command),
                Err(_) if planted(Bug::D10) => {}
                Err(reason) => unreadable.push((ticket, reason)),
            }
        }
        unreadable
    }

    /// Gives the engine a message. A leader first looks at the commands in it, as at its own
    /// clients'.
    pub(super) fn hear(&mut self, now: Instant, mut message: Message) {
        let leads = self.leads_in(message.term);
        let commands = match &mut message.body {
            Body::Forward { commands, .. } if leads => commands,
            _ => return self.engine.step(now, Input::Message(message)),
        };
        let (mut readable, mut refused, mut place) =
            (Vec::with_capacity(commands.len()), Vec::new(), 0);
        commands.retain(|bytes| {
            let outcome = SM::Command::decode(bytes);
            place += 1;
            match outcome {
                Ok(command) => readable.push((bytes.len(), command)),
                Err(_) if planted(Bug::D10) => return true,
                Err(reason) => {
                    refused.push(Refusal::new(place - 1, told(reason, refused.len())));
                    return false;
                }
            }
            true
        });
        let appended = commands.len() as u64;
        let before = self.engine.last_log_id().index;
        self.engine.step(now, Input::Forward { message, refused });
        let last = self.engine.last_log_id();
        // It takes all of them, or none.
        if last.index == before + appended && readable.len() as u64 == appended {
            let mut kept = self.applying.kept.borrow_mut();
            for (index, (len, command)) in (before + 1..).zip(readable) {
                kept.keep(LogId { index, ..last }, len, command);
            }
        }
    }
}
