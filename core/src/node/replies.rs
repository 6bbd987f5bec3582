//! Who waits for what: writes until their entry is applied, reads until the leader's word.

use std::collections::VecDeque;

use super::mailbox::{LocalRead, Reply, WriteResult};
use crate::engine::Ticket;
use crate::error::{Leader, WriteError};
use crate::state_machine::StateMachine;
use crate::types::{Index, LogId};

/// All who wait for an answer of this node. Each is answered once: an answer takes it out of here (R16).
pub(crate) struct Replies<SM: StateMachine> {
    /// Writes that the engine has, by ticket.
    pub(crate) proposed: Waiting<Reply<SM>>,
    /// Reads that the engine has, by ticket.
    pub(crate) reads: Waiting<LocalRead<SM>>,
    /// Writes that have their place in the log, by index.
    placed: VecDeque<(LogId, Reply<SM>)>,
}

impl<SM: StateMachine> Default for Replies<SM> {
    fn default() -> Self {
        Self { proposed: Waiting::default(), reads: Waiting::default(), placed: VecDeque::new() }
    }
}

impl<SM: StateMachine> Replies<SM> {
    /// A write has got its place; what is applied already can't answer it any more.
    pub(crate) fn place(&mut self, log_id: LogId, reply: Reply<SM>, applied: Index) {
        if log_id.index <= applied {
            return reply.answer(Err(WriteError::Unknown));
        }
        // Mostly they come in order.
        let position = match self.placed.back() {
            Some((last, _)) if last.index >= log_id.index => {
                self.placed.partition_point(|(placed, _)| placed.index < log_id.index)
            }
            _ => self.placed.len(),
        };
        self.placed.insert(position, (log_id, reply));
    }

    /// The leader that placed them may be unable to commit what lies beyond.
    pub(crate) fn lose_beyond(&mut self, committed: Index) {
        let keep = self.placed.partition_point(|(placed, _)| placed.index <= committed);
        for (_, reply) in self.placed.drain(keep..) {
            reply.answer(Err(WriteError::Unknown));
        }
    }

    /// The entry `log_id` has been applied, with this response if it was a command.
    pub(crate) fn applied(
        &mut self,
        log_id: LogId,
        response: Option<SM::Response>,
        leader: impl Fn() -> Option<Leader>,
    ) {
        let mut response = response;
        while let Some((placed, _)) = self.placed.front()
            && placed.index <= log_id.index
            && let Some((placed, reply)) = self.placed.pop_front()
        {
            reply.answer(if placed == log_id {
                response.take().ok_or(WriteError::Unknown)
            } else {
                // Another entry was committed in its place, so it never will be.
                Err(WriteError::NotLeader { leader: leader() })
            });
        }
    }

    /// The node has ended: nobody can tell what becomes of what the engine had.
    pub(crate) fn abandon(&mut self, read_error: impl Fn(LocalRead<SM>)) {
        let unknown = || -> WriteResult<SM> { Err(WriteError::Unknown) };
        self.placed.drain(..).for_each(|(_, reply)| reply.answer(unknown()));
        self.proposed.drain().for_each(|reply| reply.answer(unknown()));
        self.reads.drain().for_each(read_error);
    }
}

/// Waiters by ticket. Tickets are given out in order, and mostly answered in order.
pub(crate) struct Waiting<T> {
    first: Ticket,
    waiters: VecDeque<Option<T>>,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { first: 0, waiters: VecDeque::new() }
    }
}

impl<T> Waiting<T> {
    pub(crate) fn push(&mut self, waiter: T) -> Ticket {
        self.waiters.push_back(Some(waiter));
        self.first + self.waiters.len() as u64 - 1
    }

    pub(crate) fn take(&mut self, ticket: Ticket) -> T {
        let position = ticket.checked_sub(self.first).and_then(|p| usize::try_from(p).ok());
        let waiter = position.and_then(|position| self.waiters.get_mut(position)?.take());
        while let Some(None) = self.waiters.front() {
            self.waiters.pop_front();
            self.first += 1;
        }
        waiter.expect("the engine answers each ticket once")
    }

    fn drain(&mut self) -> impl Iterator<Item = T> {
        self.first += self.waiters.len() as u64;
        self.waiters.drain(..).flatten()
    }
}
