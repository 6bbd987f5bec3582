//! A task for an executor that has nothing of the kind: its future, and its handle, as the contract
//! of [`Task`] wants them. The executors of monoio and compio, and the simulator's, run these.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::{Task, TaskError};

/// What a task and its handle share.
struct State<T> {
    outcome: Cell<Option<Result<T, TaskError>>>,
    joiner: Cell<Option<Waker>>,
    /// The task's own, while it waits; so that a cancelled task is looked at.
    waker: RefCell<Option<Waker>>,
    cancelled: Cell<bool>,
}

/// The handle of a task; see [`Task`].
pub struct LocalTask<T> {
    state: Rc<State<T>>,
    cancels: bool,
}

impl<T> LocalTask<T> {
    /// The task goes on without its handle, and can still be awaited.
    pub fn keep_alive(&mut self) {
        self.cancels = false;
    }
}

impl<T: 'static> Task<T> for LocalTask<T> {
    fn detach(mut self) {
        self.cancels = false;
    }
}

impl<T> Future for LocalTask<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                self.state.joiner.set(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for LocalTask<T> {
    fn drop(&mut self) {
        if self.cancels {
            self.state.cancelled.set(true);
            // None if it has ended, or has never been polled; it is about to be, then.
            if let Some(waker) = self.state.waker.take() {
                waker.wake();
            }
        }
    }
}

impl<T> std::fmt::Debug for LocalTask<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalTask").finish_non_exhaustive()
    }
}

/// The task in its executor, which polls it until it is ready, each time with wakers that wake the
/// same. It never panics: what panics in it, its destructors too, ends up in the outcome or
/// nowhere. Dropping it ends it.
pub struct Entry<F, T> {
    /// None when it has ended.
    future: Option<Pin<Box<F>>>,
    state: Rc<State<T>>,
}

impl<F, T> Entry<F, T> {
    /// A task and its handle.
    pub fn new(future: F) -> (Self, LocalTask<T>) {
        let state = Rc::new(State {
            outcome: Cell::new(None),
            joiner: Cell::new(None),
            waker: RefCell::new(None),
            cancelled: Cell::new(false),
        });
        let task = LocalTask { state: Rc::clone(&state), cancels: true };
        (Self { future: Some(Box::pin(future)), state }, task)
    }

    fn end(&mut self, outcome: Result<T, TaskError>) {
        let future = self.future.take();
        // First the future, then the news: who waits for the task may count on what it held being
        // free.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(future)));
        self.state.waker.take();
        if Rc::strong_count(&self.state) == 1 {
            // Nobody has a handle of it any more.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(outcome)));
            return;
        }
        self.state.outcome.set(Some(outcome));
        if let Some(joiner) = self.state.joiner.take() {
            joiner.wake();
        }
    }
}

impl<F, T> Future for Entry<F, T>
where
    F: Future<Output = Result<T, TaskError>>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let entry = self.get_mut();
        let Some(future) = entry.future.as_mut() else { return Poll::Ready(()) };
        let mut outcome = Err(TaskError::Cancelled);
        if !entry.state.cancelled.get() {
            entry.state.waker.borrow_mut().get_or_insert_with(|| context.waker().clone());
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
                // It may have dropped its own handle.
                Ok(Poll::Pending) if !entry.state.cancelled.get() => return Poll::Pending,
                Ok(Poll::Pending) => {}
                Ok(Poll::Ready(output)) => outcome = output,
                Err(panic) => outcome = Err(TaskError::from_panic(panic)),
            }
        }
        entry.end(outcome);
        Poll::Ready(())
    }
}

impl<F, T> std::fmt::Debug for Entry<F, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("ended", &self.future.is_none()).finish_non_exhaustive()
    }
}

impl<F, T> Drop for Entry<F, T> {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.end(Err(TaskError::Cancelled));
        }
    }
}
