//! Tells a task of the same thread that there is something to do.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A flag, raised by anyone on this thread, and the one task that waits for it. That task is woken
/// once, however often the flag is raised before it looks.
#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Signal {
    /// Raises the flag and wakes the task that waits for it.
    pub fn raise(&self) {
        if !self.raised.replace(true)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Ready, and lowered, if it was raised since the last time. Of several tasks that poll, the
    /// last one is woken.
    pub fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
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

    /// Waits until it is raised, and lowers it. Dropping the future loses nothing.
    pub async fn wait(&self) {
        poll_fn(|context| self.poll(context)).await;
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").field("raised", &self.raised.get()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::count_wakes;

    #[test]
    fn many_raises_are_one_wake_up() {
        let signal = Signal::default();
        let (wakes, waker) = count_wakes();
        let mut context = Context::from_waker(&waker);
        assert!(signal.poll(&mut context).is_pending());
        signal.raise();
        signal.raise();
        assert_eq!(wakes.count(), 1);
        assert!(signal.poll(&mut context).is_ready());
        assert!(signal.poll(&mut context).is_pending(), "it is lowered");
    }

    #[test]
    fn a_raise_before_the_wait_is_not_lost() {
        let signal = Signal::default();
        signal.raise();
        let (_, waker) = count_wakes();
        assert!(signal.poll(&mut Context::from_waker(&waker)).is_ready());
    }
}
