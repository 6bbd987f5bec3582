//! What a leader does before commands get their place in the log: it decodes them, from the bytes
//! that will be replicated.
//!
//! What nobody can read must not get a log id: once it is committed, it stops every node at every
//! start (D10). It makes no difference whether a command comes from a handle of this node or is
//! passed on by a peer, whose program may be another one.

use bytes::Bytes;
use quorate_rt::{Executor, Instant};

use super::Group;
use super::mailbox::KEPT_CAPACITY;
use crate::engine::Input;
use crate::error::WriteError;
use crate::log_store::LogStore;
use crate::message::{Body, Message, Refusal};
use crate::metrics::Role;
use crate::plant;
use crate::state_machine::{Command, StateMachine};
use crate::transport::Transport;
use crate::types::{Index, LogId};

/// So many commands of a forward are refused with the reason. An answer stays small, however many
/// there are.
const TOLD_REASONS: usize = 16;

/// What is told of the reason for which a command is refused, after so many others.
fn told(reason: String, others: usize) -> String {
    if others < TOLD_REASONS { reason } else { "the leader can't read it".to_owned() }
}

/// Why a command of so many bytes is refused, if it is.
pub(in crate::node) fn too_large(bytes: usize, max: usize) -> Option<String> {
    (bytes > max).then(|| format!("it has {bytes} bytes, {max} are allowed"))
}

/// What has become of looking at commands that are about to be appended.
struct Decoded {
    /// Those that can't be read, by their place, and why.
    unreadable: Vec<(usize, String)>,
    /// The end of the log before they are appended.
    before: Index,
    /// … and after.
    after: LogId,
}

impl<R: Executor, SM: StateMachine, S: LogStore, T: Transport> Group<R, SM, S, T> {
    /// Gives the engine the writes that this turn has brought.
    pub(super) fn propose(&mut self, now: Instant) {
        if self.proposing.is_empty() {
            return;
        }
        let first = self.replies.borrow().proposed.next() - self.proposing.len() as u64;
        let decoded = match self.engine.role() {
            Role::Leader => Some(self.decode(&self.proposing)),
            _ => None, // The leader will look at them.
        };
        let unreadable = decoded.as_ref().map_or(&[][..], |decoded| &decoded.unreadable);
        let (mut commands, mut unreadable) = (self.proposing.drain(..), unreadable.iter());
        let mut next = 0;
        loop {
            let refused = unreadable.next();
            let readable = refused.map_or(usize::MAX, |(place, _)| place - next);
            let ticket = first + next as u64;
            self.engine.propose(now, ticket, commands.by_ref().take(readable));
            let Some((place, reason)) = refused else { break };
            commands.next();
            next = place + 1;
            let reply = self.replies.borrow_mut().proposed.take(first + *place as u64);
            reply.answer(Err(WriteError::Command(reason.clone())));
        }
        drop(commands);
        self.proposing.shrink_to(KEPT_CAPACITY);
        if let Some(decoded) = decoded {
            self.keep(&decoded);
        }
    }

    /// Gives the engine a message. A leader first looks at the commands in it, as at its own
    /// clients'.
    #[inline]
    pub(super) fn hear(&mut self, now: Instant, message: Message) {
        match message.body {
            Body::Forward { .. } if self.leads_in(message.term) => self.hear_forward(now, message),
            _ => self.engine.step(now, Input::Message(message)),
        }
    }

    fn hear_forward(&mut self, now: Instant, mut message: Message) {
        let Body::Forward { commands, .. } = &mut message.body else { return };
        let mut decoded = self.decode(commands);
        let (mut place, mut places) = (0, decoded.unreadable.iter().map(|(place, _)| *place));
        let mut next = places.next();
        commands.retain(|_| {
            let is_readable = next != Some(place);
            if !is_readable {
                next = places.next();
            }
            place += 1;
            is_readable
        });
        let refused = decoded.unreadable.drain(..).enumerate();
        let refusal = |(others, (place, reason))| Refusal::new(place as u32, told(reason, others));
        self.engine.refuse(refused.map(refusal).collect());
        self.engine.step(now, Input::Message(message));
        self.keep(&decoded);
    }

    /// Decodes commands that are about to be appended, and keeps them under the log ids that they
    /// get if the engine takes all that can be read.
    fn decode(&self, commands: &[Bytes]) -> Decoded {
        let before = self.engine.last_log_id().index;
        let term = self.engine.hard_state().term;
        let mut after = LogId { term, leader: self.engine.replica().id, index: before };
        let mut unreadable = Vec::new();
        let mut cache = self.applying.command_cache.borrow_mut();
        for (place, bytes) in commands.iter().enumerate() {
            // One that a peer passes on was held against the peer's limit.
            if let Some(reason) = too_large(bytes.len(), self.engine.config().max_command_bytes) {
                unreadable.push((place, reason));
                continue;
            }
            match SM::Command::decode(bytes) {
                Ok(command) => {
                    after.index += 1;
                    cache.insert(after, bytes.len(), command);
                }
                Err(reason) => {
                    plant!(D10, {
                        after.index += 1;
                        continue;
                    });
                    unreadable.push((place, reason));
                }
            }
        }
        Decoded { unreadable, before, after }
    }

    /// The engine has had them. Where it was too busy to take all of them, or wants to lead no
    /// more, they are not kept: those that it has taken are decoded again when they are applied.
    fn keep(&self, Decoded { before, after, .. }: &Decoded) {
        if self.engine.last_log_id() != *after {
            self.applying.command_cache.borrow_mut().lose_beyond(*before);
        }
    }
}
