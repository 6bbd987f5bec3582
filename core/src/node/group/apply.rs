//! Applies what is committed, answers those who wait for it, lets reads look at the state and takes
//! views of it for snapshots, and restores it from one. It begins within the group's turn. What is
//! not done at once goes on in a task, so that a slow state machine keeps no heartbeat waiting.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use quorate_rt::channel::watch;
use quorate_rt::{Executor, TaskError, yield_now};

use super::super::delays::{Delays, Work};
use super::bug;
use super::command_cache::CommandCache;
use super::mailbox::{Event, LocalRead, Mailbox};
use super::refusals::Refusals;
use super::replies::Replies;
use super::snapshots::View;
use crate::entries::Entries;
use crate::error::{Fatal, SnapshotError};
use crate::log_store::LogStore;
use crate::membership::Membership;
use crate::metrics::Metrics;
use crate::plant;
use crate::snapshot::{SnapshotMeta, SnapshotReader};
use crate::state_machine::{At, Command, StateMachine, progress};
use crate::types::{Entry, GroupId, Index, LogId, Payload};

/// So many reads are answered in a row before others have their turn. A thousand clients' may
/// become due at once.
const READS_PER_TURN: usize = 16;

/// What the group tells its state machine's side, and the other way round.
pub(crate) struct Applying<SM: StateMachine> {
    committed: Cell<Index>,
    applied: Cell<LogId>,
    /// The state is to become that of this snapshot before anything behind it is applied; and
    /// whether it has come from a leader, and is adopted when that has worked.
    restore: RefCell<Option<(SnapshotMeta, bool)>>,
    /// A view is to be taken, whatever the policy says.
    view_wanted: Cell<bool>,
    /// A view was taken and is being written: there is one at a time.
    view_taken: Cell<bool>,
    /// Reads, and from where on the state may answer them.
    reads: RefCell<VecDeque<(Index, LocalRead<SM>)>>,
    /// What this node has decoded already, as leader.
    pub(crate) command_cache: RefCell<CommandCache<SM::Command>>,
    /// Something has changed since it was looked at.
    is_raised: Cell<bool>,
    /// There is nothing to do.
    is_at_rest: Cell<bool>,
    /// Nor will there be for long: the state machine's side is to end.
    is_to_end: Cell<bool>,
}

impl<SM: StateMachine> Applying<SM> {
    pub(crate) fn new() -> Self {
        Self {
            committed: Cell::new(0),
            applied: Cell::new(LogId::ZERO),
            restore: RefCell::default(),
            view_wanted: Cell::new(false),
            view_taken: Cell::new(false),
            reads: RefCell::default(),
            command_cache: RefCell::default(),
            is_raised: Cell::new(false),
            is_at_rest: Cell::new(false),
            is_to_end: Cell::new(false),
        }
    }

    /// Lets the state machine's side go on. Ready when there is nothing to do any more.
    fn poll<S>(
        &self,
        applies: &mut Applies<SM, S>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Fatal>> {
        self.is_at_rest.set(false);
        match applies.as_mut().poll(context) {
            Poll::Ready(Err(failed)) => Poll::Ready(Err(failed)),
            Poll::Ready(Ok(_)) => unreachable!("it was not told to end"),
            Poll::Pending if self.is_at_rest.get() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// There is nothing to do until something is raised. False where it is to end instead.
    async fn rests(&self) -> bool {
        poll_fn(|_| {
            if self.is_raised.replace(false) {
                Poll::Ready(true)
            } else if self.is_to_end.replace(false) {
                Poll::Ready(false)
            } else {
                self.is_at_rest.set(true);
                Poll::Pending
            }
        })
        .await
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied.get().index
    }

    pub(crate) fn last_applied(&self) -> LogId {
        self.applied.get()
    }

    pub(crate) fn commit(&self, index: Index) {
        assert!(index > self.committed.get(), "the commit index only rises");
        self.committed.set(index);
        self.is_raised.set(true);
    }

    /// Makes the state that of a snapshot, which covers more than is known to be committed so far.
    pub(crate) fn restore(&self, snapshot: SnapshotMeta, has_come: bool) {
        plant!(S1, self.applied.set(snapshot.log_id));
        self.restore.replace(Some((snapshot, has_come)));
        self.is_raised.set(true);
    }

    pub(crate) fn want_view(&self) {
        self.view_wanted.set(true);
        self.is_raised.set(true);
    }

    /// The view that was taken is written, or given up: there may be another.
    pub(crate) fn view_is_done(&self) {
        self.view_taken.set(false);
        self.is_raised.set(true);
    }

    pub(crate) fn read(&self, index: Index, read: LocalRead<SM>) {
        self.reads.borrow_mut().push_back((index, read));
        self.is_raised.set(true);
    }

    pub(crate) fn has_reads(&self) -> bool {
        !self.reads.borrow().is_empty()
    }

    pub(crate) fn take_reads(&self) -> VecDeque<(Index, LocalRead<SM>)> {
        self.reads.take()
    }

    /// Read indexes rise, all but those that come late: these are looked at when the ones before
    /// them are answered, which is right if not soonest.
    fn next_read(&self) -> Option<LocalRead<SM>> {
        let mut reads = self.reads.borrow_mut();
        let (index, _) = reads.front()?;
        if *index > self.applied() {
            return None;
        }
        reads.pop_front().map(|(_, read)| read)
    }
}

/// Where a group's state machine is: at hand, or with the task that works with it.
pub(super) struct Applier<R: Executor, SM: StateMachine, S> {
    rt: R,
    mailbox: Rc<Mailbox<SM>>,
    applying: Rc<Applying<SM>>,
    at_hand: Rc<Cell<Option<AtHand<SM, S>>>>,
    task: Option<R::Task<()>>,
}

/// A state machine's side that is at hand.
enum AtHand<SM: StateMachine, S> {
    /// The group rests: a future takes six times as much memory.
    Rests(Apply<SM, S>),
    Applies(Applies<SM, S>),
}

/// What applies: one future until the group rests, as to allocate one for each batch would take a
/// tenth of a lone write's instructions. It is pending where there is nothing to do
/// ([`Applying::rests`]), and ends when it is told to, or by a failure.
type Applies<SM, S> = Pin<Box<dyn Future<Output = Result<Apply<SM, S>, Fatal>>>>;

impl<R: Executor, SM: StateMachine, S: LogStore> Applier<R, SM, S> {
    pub(super) fn new(rt: R, apply: Apply<SM, S>) -> Self {
        let (mailbox, applying) = (Rc::clone(&apply.mailbox), Rc::clone(&apply.applying));
        let at_hand = Rc::new(Cell::new(Some(AtHand::Rests(apply))));
        Self { rt, mailbox, applying, at_hand, task: None }
    }

    /// Does what there is to do: now, or if that takes longer, in a task.
    pub(super) fn go_on(&mut self) -> Result<(), Fatal> {
        // A task that has come to its end is heard of first, and if by its failure.
        if !self.applying.is_raised.get() || self.task.is_some() {
            return Ok(());
        }
        let mut applies = match self.at_hand.take() {
            Some(AtHand::Applies(applies)) => applies,
            Some(AtHand::Rests(apply)) => apply.applies(),
            None => return Ok(()), // The task looks before it ends.
        };
        // Whom it is to wake is known when the task polls it.
        let context = &mut Context::from_waker(Waker::noop());
        if let Poll::Ready(outcome) = self.applying.poll(&mut applies, context) {
            self.at_hand.set(Some(AtHand::Applies(applies)));
            return outcome;
        }
        let (at_hand, applying) = (Rc::clone(&self.at_hand), Rc::clone(&self.applying));
        let mailbox = Rc::clone(&self.mailbox);
        self.task = Some(self.rt.spawn(async move {
            let outcome = poll_fn(|context| applying.poll(&mut applies, context)).await;
            at_hand.set(Some(AtHand::Applies(applies)));
            mailbox.event(Event::Applied(outcome));
        }));
        Ok(())
    }

    /// Lets go of memory that is not in use.
    pub(super) fn shrink(&mut self) -> Result<(), Fatal> {
        if self.applying.is_raised.get() || self.task.is_some() {
            return Ok(());
        }
        let at_hand = match self.at_hand.take() {
            Some(AtHand::Applies(mut applies)) => {
                self.applying.is_to_end.set(true);
                match applies.as_mut().now_or_never() {
                    Some(ended) => Some(AtHand::Rests(ended?)),
                    None => Some(AtHand::Applies(applies)),
                }
            }
            at_hand => at_hand,
        };
        self.at_hand.set(at_hand);
        Ok(())
    }

    /// The task has come to its end.
    pub(super) fn rests(&mut self) {
        self.task = None;
    }
}

/// The state machine's side of a group.
pub(super) struct Apply<SM: StateMachine, S> {
    pub(super) group: GroupId,
    pub(super) delays: Rc<Delays>,
    pub(super) state_machine: SM,
    pub(super) store: Rc<S>,
    pub(super) mailbox: Rc<Mailbox<SM>>,
    pub(super) applying: Rc<Applying<SM>>,
    pub(super) replies: Rc<RefCell<Replies<SM>>>,
    pub(super) refusals: Rc<Refusals>,
    pub(super) metrics: Rc<watch::Sender<Metrics>>,
    /// In force where the state is, and the entry that brought it.
    pub(super) membership: Option<(Index, Membership)>,
    /// The largest time of an entry that was applied.
    pub(super) time: u64,
    pub(super) since_view: Applied,
}

/// How much was applied.
#[derive(Default)]
pub(super) struct Applied {
    entries: u64,
    bytes: u64,
}

impl<SM: StateMachine, S: LogStore> Apply<SM, S> {
    fn applies(mut self) -> Applies<SM, S> {
        Box::pin(async move {
            let ended = AssertUnwindSafe(self.run()).catch_unwind().await;
            let ended = ended.unwrap_or_else(|panic| Err(bug(TaskError::from_panic(panic))));
            match ended {
                Ok(()) => Ok(self),
                Err(failed) => {
                    // Its end may panic, too.
                    let _ended = catch_unwind(AssertUnwindSafe(|| drop(self)));
                    Err(failed)
                }
            }
        })
    }

    /// Does all that there is to do, whenever there is something, until that fails or it is to end.
    async fn run(&mut self) -> Result<(), Fatal> {
        while self.applying.rests().await {
            self.go_on().await?;
        }
        Ok(())
    }

    async fn go_on(&mut self) -> Result<(), Fatal> {
        loop {
            if self.mailbox.has_ended() {
                return Ok(()); // The node was dropped by what was called here.
            }
            let answered_all = self.answer_reads();
            self.mailbox.give_back();
            self.view_if_due();
            let restore = self.applying.restore.take();
            if let Some((snapshot, has_come)) = restore {
                // Boxed, as it would take two thirds of what a group at rest keeps for applying.
                Box::pin(self.restore(&snapshot)).await?;
                match has_come {
                    // Whoever looks at the metrics hears of it when the node knows that this
                    // much is committed.
                    true => self.mailbox.event(Event::Restored(snapshot)),
                    false => self.has_applied(snapshot.log_id),
                }
            } else if self.applying.applied() < self.applying.committed.get() {
                self.apply().await?;
                self.mailbox.give_back();
                if self.applying.applied() < self.applying.committed.get() {
                    // A long log must not keep the node's heartbeats waiting.
                    yield_now().await;
                }
            } else if answered_all {
                return Ok(());
            }
            if !answered_all {
                yield_now().await;
            }
        }
    }

    /// Applies the next batch.
    async fn apply(&mut self) -> Result<(), Fatal> {
        let range = self.applying.applied() + 1..self.applying.committed.get() + 1;
        let max_bytes = self.mailbox.config().max_apply_bytes;
        // No snapshot takes their place meanwhile: it would have been restored first.
        let entries = self.store.read(self.group, range.clone(), max_bytes).await?;
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(Fatal::Bug("the store answers no entry and no error".to_owned()));
        };
        assert!(first.log_id.index == range.start, "the store answers another entry");
        assert!(last.log_id.index < range.end, "the store answers more than was asked for");
        self.since_view.count(&entries);
        let commands = self.commands_of(&entries)?;
        plant!(S7, {
            self.has_applied(last.log_id);
            self.view_if_due();
        });
        let expected = commands.len();
        let responses = match commands.is_empty() {
            true => Vec::new(),
            false => {
                let (first, last) = (first.log_id.index, last.log_id.index);
                let work = Work::Apply { group: self.group, first, last };
                let applied = AssertUnwindSafe(self.state_machine.apply_batch(commands));
                let applied = self.delays.measure_polls(work, applied.catch_unwind());
                applied.await.map_err(|panic| panicked(&entries, panic))?
            }
        };
        if responses.len() != expected {
            let got = responses.len();
            return Err(Fatal::Bug(format!("{expected} commands were applied, {got} answered")));
        }
        // Only now: what is said to be applied has been (S7).
        self.has_applied(last.log_id);
        let mut responses = responses.into_iter();
        let mut replies = self.replies.borrow_mut();
        for Entry { log_id, payload, .. } in &entries {
            if !replies.awaits_entries() {
                break; // As on a follower.
            }
            let is_command = matches!(payload, Payload::Command(_));
            let response = if is_command { responses.next() } else { None };
            replies.applied(*log_id, response, || self.refusals.of_write());
        }
        Ok(())
    }

    /// The commands of a batch: those that this node has decoded as leader, and the others decoded
    /// now.
    fn commands_of(&mut self, entries: &Entries) -> Result<Vec<(SM::Command, At)>, Fatal> {
        let mut commands = Vec::with_capacity(entries.len());
        let mut cache = self.applying.command_cache.borrow_mut();
        for Entry { log_id, time, payload } in entries {
            let index = log_id.index;
            self.time = self.time.max(*time);
            match payload {
                Payload::Blank => {}
                Payload::Membership(membership) => {
                    self.membership = Some((index, membership.clone()));
                }
                Payload::Command(bytes) => {
                    let command = match cache.take(*log_id) {
                        Some(command) => command,
                        None => SM::Command::decode(bytes)
                            .map_err(|reason| Fatal::Command { index, reason })?,
                    };
                    commands.push((command, At::new(*log_id, self.time)));
                }
            }
        }
        Ok(commands)
    }

    fn has_applied(&self, last: LogId) {
        self.applying.applied.set(last);
        self.metrics.send_modify(|metrics| metrics.applied = last.index);
    }

    fn is_to_restore(&self) -> bool {
        self.applying.restore.borrow().is_some()
    }

    /// Makes the state that of a snapshot.
    async fn restore(&mut self, snapshot: &SnapshotMeta) -> Result<(), Fatal> {
        let SnapshotMeta { log_id, time, bytes, membership, membership_index, digest } = snapshot;
        assert!(log_id.index > self.applying.applied(), "a snapshot would set the state back");
        let bad = |error: SnapshotError| match error {
            SnapshotError::Store(error) => Fatal::Store(error),
            error => Fatal::Snapshot { index: log_id.index, reason: error.to_string() },
        };
        let mut reader =
            SnapshotReader::new(self.store.snapshot(self.group, snapshot).await?, *bytes);
        let work = Work::Restore { group: self.group, at: log_id.index };
        let restored = self.state_machine.restore(&mut reader);
        self.delays.measure_polls(work, restored).await.map_err(bad)?;
        reader.end_as(*digest).map_err(bad)?;
        let membership = Some((*membership_index, membership.clone()));
        plant!(M7, membership = self.membership.take());
        self.membership = membership;
        self.time = self.time.max(*time);
        self.since_view = Applied::default();
        self.applying.applied.set(*log_id);
        self.replies.borrow_mut().restored(*log_id, || self.refusals.of_write());
        Ok(())
    }

    /// Takes a view of the state, if one is wanted, and hands it to the node to be written.
    fn view_if_due(&mut self) {
        let config = self.mailbox.config();
        let is_due = self.since_view.entries > config.snapshot_after_entries
            || self.since_view.bytes > config.snapshot_after_bytes
            || self.applying.view_wanted.get();
        if !is_due || self.applying.view_taken.get() || self.is_to_restore() {
            return;
        }
        let Some((membership_index, membership)) = self.membership.clone() else {
            return; // Nothing is applied yet: the first entry of all is a membership.
        };
        self.applying.view_wanted.set(false);
        self.applying.view_taken.set(true);
        // If it can't be taken or written, there is another try when as much again has been
        // applied, and not at once.
        self.since_view = Applied::default();
        let log_id = self.applying.last_applied();
        let work = Work::View { group: self.group, at: log_id.index };
        self.mailbox.event(Event::Viewed(View {
            log_id,
            time: self.time,
            membership,
            membership_index,
            state: self.delays.measure(work, || self.state_machine.view()),
        }));
    }

    /// Answers the next reads that are due; whether these were all.
    fn answer_reads(&self) -> bool {
        if !self.applying.has_reads() {
            return true;
        }
        let work = Work::Reads { group: self.group, at: self.applying.applied() };
        self.delays.measure(work, || {
            for _ in 0..READS_PER_TURN {
                let Some(read) = self.applying.next_read() else { return true };
                read(Ok(&self.state_machine));
            }
            false
        })
    }
}

/// The state machine has panicked while it applied these entries.
fn panicked(entries: &Entries, panic: Box<dyn Any + Send>) -> Fatal {
    let commands = entries.iter().filter(|entry| matches!(entry.payload, Payload::Command(_)));
    let indexes: Vec<_> = commands.map(|entry| entry.log_id.index).collect();
    let at = match (progress::of_panic().and_then(|at| indexes.get(at)), &indexes[..]) {
        (Some(index), _) | (None, [index]) => format!("the entry at index {index}"),
        (None, [first, .., last]) => format!("the entries at the indexes {first} to {last}"),
        (None, []) => "nothing".to_owned(),
    };
    Fatal::Bug(format!("{} (the state machine, which applied {at})", TaskError::from_panic(panic)))
}

impl Applied {
    fn count(&mut self, entries: &Entries) {
        self.entries += entries.len() as u64;
        self.bytes += entries.bytes() as u64;
    }
}
