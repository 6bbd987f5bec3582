//! Tells a task of the same thread that there is something to do.

use std::cell::Cell;
use std::task::{Context, Poll, Waker};

/// A flag and the task that waits for it. The task is woken once, however often the flag is raised before it runs.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Signal {
    pub(crate) fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Ready, and lowered, if it was raised since the last time.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        let waker = match self.waker.take() {
            Some(waker) if waker.will_wake(context.waker()) => waker,
            _ => context.waker().clone(),
        };
        self.waker.set(Some(waker));
        Poll::Pending
    }
}
