//! Answers for callers on other threads, and the wakes of their tasks.
//!
//! A wake of a task on another thread takes a system call where that thread sleeps, and then mostly
//! preempts the node's own thread: the other one runs the task, finds no other to run, and sleeps
//! again, until the next answer wakes it. So a turn of the node gives all of its answers first, and
//! then wakes the first of the tasks. That task, when it takes its answer, wakes the others: on
//! their own thread, where a wake takes no system call.
//!
//! A task that was woken may not take its answer for long: its executor may be busy, or it may look
//! at something else. So the node wakes those that are left after [`PATIENCE`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quorate_rt::Instant;
use quorate_rt::channel::{Closed, Signal};

/// The node waits so long for the first task of a turn to wake the others. A thread takes some tens
/// of microseconds to begin to run.
const PATIENCE: Duration = Duration::from_millis(1);

/// The tasks that the node's answers are for, and that were not woken yet. It stays on the node's
/// thread.
pub(crate) struct Wakes {
    /// Wakes the node's loop.
    signal: Rc<Signal>,
    /// Whether the loop is in a turn, at the end of which it wakes them.
    in_turn: Cell<bool>,
    /// The node has ended: nobody comes back to those that are gathered.
    is_closed: Cell<bool>,
    first: RefCell<Option<(Waker, Arc<Batch>)>>,
    others: RefCell<Vec<Waker>>,
    /// Those that tasks which were woken are to wake, and until when.
    handed_over: RefCell<VecDeque<(Instant, Arc<Batch>)>>,
}

/// The tasks that another one is to wake: none once it has.
#[derive(Default)]
struct Batch(Mutex<BatchState>);

#[derive(Default)]
struct BatchState {
    wakers: Vec<Waker>,
    /// Nobody will look again.
    is_open: bool,
}

impl Batch {
    fn lock(&self) -> MutexGuard<'_, BatchState> {
        // Nothing under the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all that are in it, and whoever is put into it later is not its matter.
    fn open(&self) {
        let mut state = self.lock();
        state.is_open = true;
        let wakers = mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Gives them back if it is open already.
    fn fill(&self, wakers: Vec<Waker>) -> Result<(), Vec<Waker>> {
        let mut state = self.lock();
        if state.is_open {
            return Err(wakers);
        }
        state.wakers = wakers;
        Ok(())
    }
}

impl Wakes {
    pub(super) fn new(signal: Rc<Signal>) -> Self {
        Self {
            signal,
            in_turn: Cell::new(false),
            is_closed: Cell::new(false),
            first: RefCell::default(),
            others: RefCell::default(),
            handed_over: RefCell::default(),
        }
    }

    /// A turn begins: whoever was to be woken by another task by now, is.
    pub(super) fn begin_turn(&self, now: Instant) {
        self.in_turn.set(true);
        self.wake_left(now);
    }

    fn wake_left(&self, now: Instant) {
        loop {
            let batch = self.handed_over.borrow_mut().pop_front_if(|(until, _)| *until <= now);
            let Some((_, batch)) = batch else { return };
            batch.open();
        }
    }

    /// The turn is over, and all are woken that were answered. When there must be another turn, for
    /// those whom other tasks are to wake.
    pub(super) fn end_turn(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        self.in_turn.set(false);
        self.flush(|| now() + PATIENCE);
        self.handed_over.borrow().front().map(|(until, _)| *until)
    }

    fn flush(&self, until: impl FnOnce() -> Instant) {
        let Some((first, batch)) = self.first.take() else { return };
        let others = self.others.take();
        if !others.is_empty() {
            match batch.fill(others) {
                Ok(()) => self.handed_over.borrow_mut().push_back((until(), batch)),
                // The first task has come to its answer by itself.
                Err(others) => others.into_iter().for_each(Waker::wake),
            }
        }
        first.wake();
    }

    /// The node has ended: all are woken, and from now on each at once.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.flush(Instant::default);
        self.wake_left(Instant::from_nanos(u64::MAX));
    }

    /// Has a task woken that was answered, soon, or gives the waker back, to be called now. If the
    /// task is to wake others, it gets what it is to open.
    fn add(&self, waker: Waker) -> Result<Option<Arc<Batch>>, Waker> {
        if self.is_closed.get() {
            return Err(waker);
        }
        if self.first.borrow().is_some() {
            self.others.borrow_mut().push(waker);
            return Ok(None);
        }
        let batch = Arc::new(Batch::default());
        self.first.replace(Some((waker, Arc::clone(&batch))));
        if !self.in_turn.get() {
            self.signal.raise();
        }
        Ok(Some(batch))
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.close();
    }
}

/// A channel for one answer, to a task on any thread.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let slot = Arc::new(Slot(Mutex::new(State {
        value: None,
        waker: None,
        batch: None,
        is_closed: false,
    })));
    (Sender { slot: Some(Arc::clone(&slot)) }, Receiver { slot: Some(slot) })
}

struct Slot<T>(Mutex<State<T>>);

struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
    /// Those whom the receiver is to wake.
    batch: Option<Arc<Batch>>,
    /// One of the sides is gone.
    is_closed: bool,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing under the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's side. Dropping it unused gives the receiver [`Closed`].
pub(crate) struct Sender<T> {
    /// None once it has answered.
    slot: Option<Arc<Slot<T>>>,
}

impl<T> Sender<T> {
    /// Answers. Nothing happens where nobody waits any more.
    pub(crate) fn send(mut self, value: T, wakes: &Wakes) {
        let Some(slot) = self.slot.take() else { return };
        let mut state = slot.lock();
        if state.is_closed {
            drop(state); // The value may run code of the caller's when it is dropped.
            return;
        }
        state.value = Some(value);
        state.is_closed = true;
        let Some(waker) = state.waker.take() else { return };
        match wakes.add(waker) {
            Ok(batch) => state.batch = batch,
            Err(waker) => {
                drop(state); // An executor may poll the task at once.
                waker.wake();
            }
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let mut state = slot.lock();
        state.is_closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The caller's side: a future of the answer.
pub(crate) struct Receiver<T> {
    /// None once it has given its answer.
    slot: Option<Arc<Slot<T>>>,
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(slot) = &self.slot else { return Poll::Ready(Err(Closed)) };
        let mut state = slot.lock();
        if let Some(value) = state.value.take() {
            let batch = state.batch.take();
            drop(state);
            self.slot = None;
            batch.into_iter().for_each(|batch| batch.open());
            return Poll::Ready(Ok(value));
        }
        if state.is_closed {
            return Poll::Ready(Err(Closed));
        }
        let mut before = None;
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            before = state.waker.replace(context.waker().clone());
        }
        drop(state);
        drop(before); // It may run code of the executor's.
        Poll::Pending
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let Some(slot) = &self.slot else { return };
        let mut state = slot.lock();
        state.is_closed = true;
        let (value, waker) = (state.value.take(), state.waker.take());
        let batch = state.batch.take();
        drop(state);
        drop((value, waker));
        batch.into_iter().for_each(|batch| batch.open());
    }
}

#[cfg(test)]
mod tests;
