//! Applies what is committed, answers those who wait for it, and lets reads look at the state. It is a task of its own, so that a slow
//! state machine keeps no heartbeat waiting.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use quorate_rt::channel::{Signal, watch};
use quorate_rt::yield_now;

use super::mailbox::LocalRead;
use super::replies::Replies;
use crate::error::{Fatal, Leader};
use crate::log_store::LogStore;
use crate::metrics::Metrics;
use crate::state_machine::{Command, StateMachine};
use crate::types::{GroupId, Index, Payload};

/// What the node tells the applying task, and the other way round.
pub(crate) struct Applying<SM: StateMachine> {
    committed: Cell<Index>,
    applied: Cell<Index>,
    /// Reads, and from where on the state may answer them.
    reads: RefCell<VecDeque<(Index, LocalRead<SM>)>>,
    signal: Signal,
}

impl<SM: StateMachine> Applying<SM> {
    pub(crate) fn new() -> Self {
        Self {
            committed: Cell::new(0),
            applied: Cell::new(0),
            reads: RefCell::default(),
            signal: Signal::default(),
        }
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied.get()
    }

    pub(crate) fn commit(&self, index: Index) {
        assert!(index > self.committed.get(), "the commit index only rises");
        self.committed.set(index);
        self.signal.raise();
    }

    pub(crate) fn read(&self, index: Index, read: LocalRead<SM>) {
        self.reads.borrow_mut().push_back((index, read));
        self.signal.raise();
    }

    pub(crate) fn has_reads(&self) -> bool {
        !self.reads.borrow().is_empty()
    }

    pub(crate) fn take_reads(&self) -> VecDeque<(Index, LocalRead<SM>)> {
        self.reads.take()
    }

    /// Read indexes rise, all but those that come late: these are looked at when the ones before them are answered, which
    /// is right if not soonest.
    fn next_read(&self) -> Option<LocalRead<SM>> {
        let mut reads = self.reads.borrow_mut();
        let (index, _) = reads.front()?;
        if *index > self.applied.get() {
            return None;
        }
        reads.pop_front().map(|(_, read)| read)
    }
}

/// The task. It ends only by failing.
pub(crate) async fn run<SM: StateMachine, S: LogStore>(
    group: GroupId,
    mut state_machine: SM,
    store: Rc<S>,
    applying: Rc<Applying<SM>>,
    replies: Rc<RefCell<Replies<SM>>>,
    metrics: Rc<watch::Sender<Metrics>>,
    max_bytes: usize,
) -> Fatal {
    loop {
        applying.signal.wait().await;
        while applying.applied.get() < applying.committed.get() {
            answer_reads(&applying, &state_machine);
            let range = applying.applied.get() + 1..applying.committed.get() + 1;
            let entries = match store.read(group, range.clone(), max_bytes).await {
                Ok(entries) => entries,
                Err(error) => return Fatal::Store(error),
            };
            let mut indexes = range;
            let mut commands = Vec::with_capacity(entries.len());
            let mut applied = Vec::with_capacity(entries.len());
            for entry in entries {
                let log_id = entry.log_id;
                assert!(indexes.next() == Some(log_id.index), "the store answers another entry");
                let is_command = match entry.payload {
                    Payload::Blank | Payload::Membership(_) => false,
                    Payload::Command(bytes) => match SM::Command::decode(bytes) {
                        Ok(command) => {
                            commands.push(command);
                            true
                        }
                        Err(reason) => return Fatal::Command { index: log_id.index, reason },
                    },
                };
                applied.push((log_id, is_command));
            }
            let Some((last, _)) = applied.last().copied() else {
                return Fatal::Bug("the store answers no entry and no error".to_owned());
            };
            let expected = commands.len();
            let responses = match commands.is_empty() {
                true => Vec::new(),
                false => state_machine.apply_batch(commands).await,
            };
            if responses.len() != expected {
                let got = responses.len();
                return Fatal::Bug(format!("{expected} commands were applied, {got} answered"));
            }
            // Only now: what is said to be applied has been (S7).
            applying.applied.set(last.index);
            metrics.send_modify(|metrics| metrics.applied = last.index);
            let mut responses = responses.into_iter();
            {
                let mut replies = replies.borrow_mut();
                for (log_id, is_command) in applied {
                    let response = if is_command { responses.next() } else { None };
                    replies.applied(log_id, response, || leader(&metrics));
                }
            }
            // A long log must not keep the node's heartbeats waiting.
            yield_now().await;
        }
        answer_reads(&applying, &state_machine);
    }
}

fn answer_reads<SM: StateMachine>(applying: &Applying<SM>, state_machine: &SM) {
    while let Some(read) = applying.next_read() {
        read(Ok(state_machine));
    }
}

/// The leader and its address, as last published.
pub(crate) fn leader(metrics: &watch::Sender<Metrics>) -> Option<Leader> {
    let metrics = metrics.borrow();
    let id = metrics.leader?;
    let address = metrics.membership.as_ref()?.address(id)?.to_owned();
    Some(Leader { id, address })
}
