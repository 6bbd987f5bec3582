//! The turns of an executor: tasks are polled until none is runnable, or it is the backend's turn.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};

use super::{BoxedEntry, Core, timer};
use crate::Instant;

/// How often tasks are polled in a turn before the backend gets to its I/O: enough to make a system
/// call per turn cheap, and few enough that a socket waits for microseconds.
const POLLS_PER_TURN: u32 = 128;

/// How often tasks are polled before the backend gets to its I/O for certain. A turn that ends as
/// nothing is runnable leaves that to the backend, whose other tasks may be runnable all the time:
/// they and ours could wake each other for ever. It takes less than a millisecond.
const POLLS_PER_PASS: u32 = 1024;

/// The backend's timer is set at most this far ahead; monoio's can't go beyond two years.
const LONGEST_NAP: Duration = Duration::from_secs(3600);

/// How long the backend runs on when everything is dropped. The kernel cancels what waits on a
/// socket in the very call that asks for it, so one turn is enough; after it no buffer of a dropped
/// operation is in use.
const LAST_TURN: Duration = Duration::from_millis(1);

/// How a turn ends that does not end by waiting.
pub(super) enum Turn {
    /// What was waited for has come.
    Done,
    /// It is the backend's turn, and then the next one of the executor.
    Over,
}

type Nap = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of an executor, and its turns.
pub(super) struct Turns<'a> {
    core: Rc<Core>,
    waker: Waker,
    pub(super) tasks: FuturesUnordered<BoxedEntry<'a>>,
    vital: FuturesUnordered<BoxedEntry<'static>>,
    nap: Option<(Instant, Nap)>,
    make_nap: Box<dyn Fn(Duration) -> Nap>,
}

impl Turns<'_> {
    /// `nap` makes a timer of the backend: it may be late, and should not be early.
    pub(super) fn new<S: Future<Output = ()> + 'static>(
        core: Rc<Core>,
        nap: impl Fn(Duration) -> S + 'static,
    ) -> Self {
        let waker = Waker::from(core.waker.clone());
        let (tasks, vital) = <(FuturesUnordered<_>, FuturesUnordered<_>)>::default();
        let make_nap = Box::new(move |length| Box::pin(nap(length)) as Nap);
        Self { core, waker, tasks, vital, nap: None, make_nap }
    }

    /// Drops the tasks. From here on no other is started.
    pub(super) fn drop_tasks(&mut self) {
        self.core.closing.set(true);
        self.tasks = FuturesUnordered::new();
        drop(self.core.started.take());
    }

    /// The backend's timer for the time in which it runs on when everything is dropped.
    pub(super) fn last_turn(&self) -> Nap {
        (self.make_nap)(LAST_TURN)
    }

    /// Polls what is runnable, until `done`, until nothing is runnable, or until it is the
    /// backend's turn.
    pub(super) fn poll_until(
        &mut self,
        backend: &mut Context<'_>,
        done: impl Fn(&Self) -> bool,
    ) -> Poll<Turn> {
        let core = Rc::clone(&self.core);
        core.waker.enter(backend.waker());
        core.in_turn.set(true);
        let _in_turn = InTurn(&core);
        let last = core.polls.get().saturating_add(POLLS_PER_TURN).min(POLLS_PER_PASS);
        loop {
            // Here and not only in the backend's timer, which it may not look at while we are
            // runnable.
            timer::fire(&core.timers);
            self.poll_tasks(last);
            if done(self) {
                return Poll::Ready(Turn::Done);
            }
            if core.polls.get() >= last {
                core.polls.set(0);
                return Poll::Ready(Turn::Over);
            }
            if self.nap_is_over() {
                continue;
            }
            if core.waker.leave() {
                return Poll::Pending;
            }
        }
    }

    fn poll_tasks(&mut self, last: u32) {
        let context = &mut Context::from_waker(&self.waker);
        let core = &self.core;
        loop {
            self.tasks.extend(core.started.borrow_mut().drain(..));
            self.vital.extend(core.started_vital.borrow_mut().drain(..));
            // Both are polled, so that both are registered with the signal.
            let ended = [self.tasks.poll_next_unpin(context), self.vital.poll_next_unpin(context)]
                .iter()
                .any(|ended| matches!(ended, Poll::Ready(Some(()))));
            let started =
                !core.started.borrow().is_empty() || !core.started_vital.borrow().is_empty();
            // A set that has given something back has not looked at the rest.
            if !(ended || started) {
                return;
            }
            if core.polls.get() >= last {
                return;
            }
        }
    }

    /// Sets the backend's timer to the next deadline, and polls it.
    fn nap_is_over(&mut self) -> bool {
        let Some(deadline) = self.core.timers.borrow().next() else {
            self.nap = None;
            return false;
        };
        // A nap that ends before the deadline is kept: waking once too often is cheaper than
        // setting it anew whenever a timer moves on, and timers that are pushed back over and over
        // are the rule here.
        let (_, nap) = match self.nap.take() {
            Some(nap) if nap.0 <= deadline => self.nap.insert(nap),
            _ => {
                let now = Instant::from_system_clock();
                let length = (deadline - now).min(LONGEST_NAP);
                self.nap.insert((now + length, (self.make_nap)(length)))
            }
        };
        // With our waker: one of the backend's own, kept in here, would keep the backend's task
        // alive that this is part of.
        let over = nap.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready();
        if over {
            self.nap = None;
        }
        over
    }
}

struct InTurn<'a>(&'a Core);

impl Drop for InTurn<'_> {
    fn drop(&mut self) {
        self.0.in_turn.set(false);
    }
}
