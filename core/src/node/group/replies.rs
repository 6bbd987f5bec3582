//! Who waits for what: requests for a leader, writes until their entry is applied, reads until the
//! leader's word.

use std::collections::{BTreeMap, VecDeque};
use std::mem;

use quorate_rt::Instant;

use super::admin::Answer;
use super::alarms::Alarms;
use super::deadline_queue::DeadlineQueue;
use super::leadership::LeadershipWaits;
use super::mailbox::{End, LocalRead, Reply, refuse};
use crate::engine::Ticket;
use crate::error::{InitializeError, SnapshotError, WriteError};
use crate::state_machine::StateMachine;
use crate::types::{Index, LogId};

/// All who wait for an answer of this node. Each is answered once: an answer takes it out of here
/// (R16).
pub(crate) struct Replies<SM: StateMachine> {
    /// Writes that the engine has, by ticket.
    pub(crate) proposed: Waiting<Reply<SM>>,
    /// Reads that the engine has, by ticket, and until when each may wait for a leader's word.
    pub(crate) reads: Waiting<(Instant, LocalRead<SM>)>,
    /// Writes that have their place in the log, by index: those of each leadership, of which there
    /// is mostly one. One stays without writes, to be used again, until the group rests.
    placed: Vec<VecDeque<(LogId, Reply<SM>)>>,
    /// Reads that the leader has confirmed at an index that is not yet known to be committed here.
    ahead: BTreeMap<Index, Vec<LocalRead<SM>>>,
    /// Requests that wait for a leader.
    pub(crate) leaderless: DeadlineQueue<SM>,
    /// Writes that wait for room on the way to the leader, and were sent to nobody.
    pub(crate) unsent: DeadlineQueue<SM>,
    /// Those who have formed the cluster and wait until that is durable.
    pub(crate) initializing: Vec<Answer<(), InitializeError>>,
    /// Those who want a snapshot, and of how much at least.
    snapshots: Vec<(Index, Answer<LogId, SnapshotError>)>,
    /// Those who have purged the log and wait until that is durable.
    pub(crate) purging: Vec<Answer<LogId, SnapshotError>>,
    /// Those who wait for a change of leadership.
    pub(crate) leadership: LeadershipWaits,
    /// Those who are to be told that their time is up.
    pub(crate) alarms: Alarms,
}

impl<SM: StateMachine> Default for Replies<SM> {
    fn default() -> Self {
        Self {
            proposed: Waiting::default(),
            reads: Waiting::default(),
            placed: Vec::new(),
            ahead: BTreeMap::new(),
            leaderless: DeadlineQueue::new(),
            unsent: DeadlineQueue::new(),
            initializing: Vec::new(),
            snapshots: Vec::new(),
            purging: Vec::new(),
            leadership: LeadershipWaits::default(),
            alarms: Alarms::default(),
        }
    }
}

impl<SM: StateMachine> Replies<SM> {
    /// A write has got its place; what is applied already can't answer it any more. `refusal` is
    /// for one that can't be committed any more.
    pub(crate) fn place(
        &mut self,
        log_id: LogId,
        reply: Reply<SM>,
        applied: LogId,
        refusal: impl Fn() -> WriteError,
    ) {
        if is_decided(log_id, applied) {
            let is_covered = log_id.index <= applied.index;
            return reply.answer(Err(if is_covered { WriteError::Unknown } else { refusal() }));
        }
        let may_take = |run: &VecDeque<(LogId, _)>| {
            run.back().is_none_or(|(last, _)| is_of_one_leader(*last, log_id))
        };
        let run = match self.placed.iter().position(may_take) {
            Some(at) => &mut self.placed[at],
            None => self.placed.push_mut(VecDeque::new()),
        };
        // Mostly they come in order.
        if run.back().is_none_or(|(last, _)| last.index < log_id.index) {
            return run.push_back((log_id, reply));
        }
        let position = run.partition_point(|(placed, _)| placed.index < log_id.index);
        run.insert(position, (log_id, reply));
    }

    /// Lets go of memory that is not in use.
    pub(crate) fn shrink(&mut self) {
        self.proposed.waiters.shrink_to_fit();
        self.reads.waiters.shrink_to_fit();
        self.placed.retain(|run| !run.is_empty());
        self.placed.shrink_to_fit();
        self.initializing.shrink_to_fit();
        self.snapshots.shrink_to_fit();
        self.purging.shrink_to_fit();
        self.leadership.shrink();
        self.alarms.shrink();
    }

    /// Whether anybody waits for something else than an entry, or the leader's word on a read. Few
    /// turns are about that.
    pub(crate) fn has_others(&self) -> bool {
        let Self {
            proposed: _,
            reads: _,
            placed: _,
            ahead: _,
            leaderless,
            unsent,
            initializing,
            snapshots,
            purging,
            leadership,
            alarms,
        } = self;
        !(leaderless.is_empty()
            && unsent.is_empty()
            && initializing.is_empty()
            && snapshots.is_empty()
            && purging.is_empty()
            && leadership.is_empty()
            && alarms.is_empty())
    }

    /// Whether requests are kept that were sent to nobody.
    pub(crate) fn keeps_requests(&self) -> bool {
        !self.leaderless.is_empty() || !self.unsent.is_empty()
    }

    /// Whether anybody waits for an entry to be applied.
    pub(crate) fn awaits_entries(&self) -> bool {
        self.placed.iter().any(|run| !run.is_empty())
    }

    /// The entry `log_id` has been applied, with this response if it was a command. `refusal` is
    /// for writes that can't be committed any more.
    pub(crate) fn applied(
        &mut self,
        log_id: LogId,
        response: Option<SM::Response>,
        refusal: impl Fn() -> WriteError,
    ) {
        let mut response = response;
        let answer = |placed, reply: Reply<SM>| {
            reply.answer(if placed == log_id {
                response.take().map(|response| (log_id, response)).ok_or(WriteError::Unknown)
            } else {
                Err(refusal())
            });
        };
        self.decide(log_id, answer);
    }

    /// Takes those out of which it is known what became of them, now that `committed` is.
    #[inline]
    fn decide(&mut self, committed: LogId, mut decided: impl FnMut(LogId, Reply<SM>)) {
        for run in &mut self.placed {
            while let Some((placed, reply)) =
                run.pop_front_if(|(placed, _)| is_decided(*placed, committed))
            {
                decided(placed, reply);
            }
        }
        self.tidy();
    }

    #[inline]
    fn tidy(&mut self) {
        if self.placed.len() > 1 {
            self.placed.retain(|run| !run.is_empty());
        }
    }

    /// The state is that of a snapshot up to `log_id` now, which tells of no single write up to
    /// there what became of it. `refusal` is for writes that can't be committed any more.
    pub(crate) fn restored(&mut self, log_id: LogId, refusal: impl Fn() -> WriteError) {
        self.decide(log_id, |placed, reply| {
            let is_covered = placed.index <= log_id.index;
            reply.answer(Err(if is_covered { WriteError::Unknown } else { refusal() }));
        });
    }

    /// Somebody wants a snapshot that covers `index`.
    pub(crate) fn await_snapshot(&mut self, index: Index, reply: Answer<LogId, SnapshotError>) {
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

    /// Whether nobody waits for anything but a snapshot, a change of leadership or a deadline, for
    /// which a node that stops does not wait.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { proposed, reads, placed, ahead, leaderless, unsent, initializing, .. } = self;
        proposed.is_empty()
            && reads.is_empty()
            && placed.iter().all(VecDeque::is_empty)
            && ahead.is_empty()
            && leaderless.is_empty()
            && unsent.is_empty()
            && initializing.is_empty()
    }

    /// Whether anybody waits for more than this to be committed.
    pub(crate) fn awaits_beyond(&self, committed: Index) -> bool {
        !self.ahead.is_empty()
            || self
                .placed
                .iter()
                .any(|run| run.back().is_some_and(|(placed, _)| placed.index > committed))
    }

    /// The commit index has stood still for too long for those who wait for it.
    pub(crate) fn give_up_beyond(&mut self, committed: Index) -> Vec<LocalRead<SM>> {
        for run in &mut self.placed {
            let keep = run.partition_point(|(placed, _)| placed.index <= committed);
            for (_, reply) in run.drain(keep..) {
                reply.answer(Err(WriteError::Unknown));
            }
        }
        self.tidy();
        mem::take(&mut self.ahead).into_values().flatten().collect()
    }

    /// The node has ended: nobody can tell what becomes of what the engine had.
    pub(crate) fn abandon(self, end: &End) {
        let Self { mut proposed, mut reads, placed, ahead, mut leaderless, mut unsent, .. } = self;
        let placed = placed.into_iter().flatten().map(|(_, reply)| reply);
        placed.chain(proposed.drain()).for_each(|reply| reply.answer(Err(WriteError::Unknown)));
        let reads = reads.drain().map(|(_, read)| read).chain(ahead.into_values().flatten());
        reads.for_each(|read| read(Err(end.into())));
        unsent.drain().chain(leaderless.drain()).for_each(|(_, request)| refuse(request, end));
    }
}

fn is_of_one_leader(one: LogId, other: LogId) -> bool {
    (one.term, one.leader) == (other.term, other.leader)
}

/// Whether it is known what became of an entry once another, or it itself, is committed. In a log
/// terms never fall, so nothing of an earlier term can follow on what is committed.
fn is_decided(placed: LogId, committed: LogId) -> bool {
    placed.index <= committed.index || placed.term < committed.term
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
