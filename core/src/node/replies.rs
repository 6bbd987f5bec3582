//! Who waits for what: requests for a leader, writes until their entry is applied, reads until the leader's word.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use super::mailbox::{End, InitializeReply, LocalRead, Reply, SnapshotReply, refuse};
use super::parked::Parked;
use crate::engine::Ticket;
use crate::error::{ReadError, SnapshotError, WriteError};
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
    /// Reads that the leader has confirmed at an index that is not yet known to be committed here.
    ahead: BTreeMap<Index, Vec<LocalRead<SM>>>,
    /// Requests that wait for a leader.
    pub(crate) parked: Parked<SM>,
    /// Writes that wait for room on the way to the leader, and were sent to nobody.
    pub(crate) unsent: Parked<SM>,
    /// Those who have formed the cluster and wait until that is durable.
    pub(crate) initializing: Vec<InitializeReply>,
    /// Those who want a snapshot, and of how much at least.
    snapshots: Vec<(Index, SnapshotReply)>,
    /// Those who have purged the log and wait until that is durable.
    pub(crate) purging: Vec<SnapshotReply>,
}

impl<SM: StateMachine> Default for Replies<SM> {
    fn default() -> Self {
        Self {
            proposed: Waiting::default(),
            reads: Waiting::default(),
            placed: VecDeque::new(),
            ahead: BTreeMap::new(),
            parked: Parked::new(),
            unsent: Parked::new(),
            initializing: Vec::new(),
            snapshots: Vec::new(),
            purging: Vec::new(),
        }
    }
}

impl<SM: StateMachine> Replies<SM> {
    /// A write has got its place; what is applied already can't answer it any more.
    pub(crate) fn place(&mut self, log_id: LogId, reply: Reply<SM>, applied: Index) {
        if log_id.index <= applied {
            return reply.answer(Err(WriteError::Unknown));
        }
        // Mostly they come in order.
        if self.placed.back().is_none_or(|(last, _)| last.index < log_id.index) {
            return self.placed.push_back((log_id, reply));
        }
        let position = self.placed.partition_point(|(placed, _)| placed.index < log_id.index);
        self.placed.insert(position, (log_id, reply));
    }

    /// The leader that placed them may be unable to commit what lies beyond.
    pub(crate) fn lose_beyond(&mut self, committed: Index) {
        let keep = self.placed.partition_point(|(placed, _)| placed.index <= committed);
        for (_, reply) in self.placed.drain(keep..) {
            reply.answer(Err(WriteError::Unknown));
        }
    }

    /// Whether requests are kept that were sent to nobody.
    pub(crate) fn keeps_requests(&self) -> bool {
        !self.parked.is_empty() || !self.unsent.is_empty()
    }

    /// Whether anybody waits for an entry to be applied.
    pub(crate) fn awaits_entries(&self) -> bool {
        !self.placed.is_empty()
    }

    /// The entry `log_id` has been applied, with this response if it was a command. `refusal` is
    /// for writes whose place another entry has taken.
    pub(crate) fn applied(
        &mut self,
        log_id: LogId,
        response: Option<SM::Response>,
        refusal: impl Fn() -> WriteError,
    ) {
        let mut response = response;
        while let Some((placed, _)) = self.placed.front()
            && placed.index <= log_id.index
            && let Some((placed, reply)) = self.placed.pop_front()
        {
            reply.answer(if placed == log_id {
                response.take().map(|response| (log_id, response)).ok_or(WriteError::Unknown)
            } else {
                // Another entry was committed in its place, so it never will be.
                Err(refusal())
            });
        }
    }

    /// The state is that of a snapshot now, which tells of no single write up to `index` what became of it.
    pub(crate) fn restored(&mut self, index: Index) {
        let covered = self.placed.partition_point(|(placed, _)| placed.index <= index);
        for (_, reply) in self.placed.drain(..covered) {
            reply.answer(Err(WriteError::Unknown));
        }
    }

    /// Somebody wants a snapshot that covers `index`.
    pub(crate) fn await_snapshot(&mut self, index: Index, reply: SnapshotReply) {
        self.snapshots.push((index, reply));
    }

    /// Whether anybody waits for a snapshot that covers more than this.
    pub(crate) fn awaits_snapshot_beyond(&self, index: Index) -> bool {
        self.snapshots.iter().any(|(wanted, _)| *wanted > index)
    }

    /// The snapshot at `log_id` is durable, or has failed.
    pub(crate) fn answer_snapshots(&mut self, log_id: LogId, outcome: &Result<(), SnapshotError>) {
        for (_, reply) in self.snapshots.extract_if(.., |(wanted, _)| *wanted <= log_id.index) {
            let _ = reply.send(outcome.clone().map(|()| log_id));
        }
    }

    /// A read waits until `index` is known to be committed.
    pub(crate) fn await_commit(&mut self, index: Index, read: LocalRead<SM>) {
        self.ahead.entry(index).or_default().push(read);
    }

    /// The reads that have waited for what is committed now.
    pub(crate) fn take_committed(&mut self, committed: Index) -> Vec<(Index, LocalRead<SM>)> {
        let mut taken = Vec::new();
        while let Some(reads) = self.ahead.first_entry()
            && *reads.key() <= committed
        {
            let (index, reads) = reads.remove_entry();
            taken.extend(reads.into_iter().map(|read| (index, read)));
        }
        taken
    }

    /// Whether nobody waits for anything but a snapshot, for which a node that stops does not wait.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { proposed, reads, placed, ahead, parked, unsent, initializing, .. } = self;
        proposed.is_empty()
            && reads.is_empty()
            && placed.is_empty()
            && ahead.is_empty()
            && parked.is_empty()
            && unsent.is_empty()
            && initializing.is_empty()
    }

    /// Whether anybody waits for more than this to be committed.
    pub(crate) fn awaits_beyond(&self, committed: Index) -> bool {
        !self.ahead.is_empty()
            || self.placed.back().is_some_and(|(placed, _)| placed.index > committed)
    }

    /// The commit index has stood still for too long for those who wait for it.
    pub(crate) fn give_up_beyond(&mut self, committed: Index) -> Vec<LocalRead<SM>> {
        self.lose_beyond(committed);
        mem::take(&mut self.ahead).into_values().flatten().collect()
    }

    /// The node has ended: nobody can tell what becomes of what the engine had.
    pub(crate) fn abandon(self, end: &End) {
        let Self {
            mut proposed,
            mut reads,
            placed,
            ahead,
            mut parked,
            mut unsent,
            initializing,
            snapshots,
            purging,
        } = self;
        let placed = placed.into_iter().map(|(_, reply)| reply);
        placed.chain(proposed.drain()).for_each(|reply| reply.answer(Err(WriteError::Unknown)));
        let reads = reads.drain().chain(ahead.into_values().flatten());
        reads.for_each(|read| read(Err::<&SM, ReadError>(end.read_error())));
        unsent.drain().chain(parked.drain()).for_each(|(_, request)| refuse(request, end));
        for reply in initializing {
            let _ = reply.send(Err(end.initialize_error()));
        }
        for reply in snapshots.into_iter().map(|(_, reply)| reply).chain(purging) {
            let _ = reply.send(Err(end.snapshot_error()));
        }
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
        let ticket = self.next();
        self.waiters.push_back(Some(waiter));
        ticket
    }

    /// The ticket of the next one.
    pub(crate) fn next(&self) -> Ticket {
        self.first + self.waiters.len() as u64
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

    fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    fn drain(&mut self) -> impl Iterator<Item = T> {
        self.first += self.waiters.len() as u64;
        self.waiters.drain(..).flatten()
    }
}
