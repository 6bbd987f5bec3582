//! One value from one task to another of the same thread: no atomics, no locks.

use std::cell::Cell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Closed;

/// A channel for one value.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let shared = Rc::new(Shared {
        value: Cell::new(None),
        waker: Cell::new(None),
        sender_gone: Cell::new(false),
    });
    (Sender { shared: Rc::clone(&shared) }, Receiver { shared })
}

struct Shared<T> {
    value: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
    sender_gone: Cell<bool>,
}

/// The sending side. Dropping it unused gives the receiver [`Closed`].
pub struct Sender<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Hands over the value, or gives it back where the receiver is gone. `Ok` does not mean that
    /// the receiver will look at it.
    pub fn send(self, value: T) -> Result<(), T> {
        if self.is_closed() {
            return Err(value);
        }
        self.shared.value.set(Some(value));
        Ok(()) // The drop of `self` wakes the receiver.
    }

    /// Whether the receiver is gone, so that nobody waits for the value any more.
    pub fn is_closed(&self) -> bool {
        Rc::strong_count(&self.shared) == 1
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.sender_gone.set(true);
        if let Some(waker) = self.shared.waker.take() {
            waker.wake();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("oneshot::Sender").finish_non_exhaustive()
    }
}

/// The receiving side: a future of the value, or of [`Closed`] where the sender was dropped unused.
/// The value comes once; a later poll gives `Closed`.
#[must_use = "a receiver that is dropped closes the channel"]
pub struct Receiver<T> {
    shared: Rc<Shared<T>>,
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, Closed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(value) = self.shared.value.take() {
            return Poll::Ready(Ok(value));
        }
        if self.shared.sender_gone.get() {
            return Poll::Ready(Err(Closed));
        }
        self.shared.waker.set(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("oneshot::Receiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::task::noop_waker_ref;

    use super::*;
    use crate::channel::count_wakes;

    #[test]
    fn a_value_sent_wakes_the_receiver_and_comes_once() {
        let (sender, mut receiver) = channel();
        let (wakes, waker) = count_wakes();
        assert!(receiver.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(sender.send(7), Ok(()));
        assert_eq!(wakes.count(), 1);
        let context = &mut Context::from_waker(noop_waker_ref());
        assert_eq!(receiver.poll_unpin(context), Poll::Ready(Ok(7)));
        assert_eq!(receiver.poll_unpin(context), Poll::Ready(Err(Closed)));
    }

    #[test]
    fn a_dropped_sender_wakes_the_receiver_with_closed() {
        let (sender, mut receiver) = channel::<u8>();
        let (wakes, waker) = count_wakes();
        assert!(receiver.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        drop(sender);
        assert_eq!(wakes.count(), 1);
        assert_eq!(receiver.now_or_never(), Some(Err(Closed)));
    }

    #[test]
    fn a_value_for_a_receiver_that_is_gone_comes_back() {
        let (sender, receiver) = channel();
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(sender.send("back"), Err("back"));
    }

    #[test]
    fn a_value_that_nobody_takes_is_dropped_with_the_receiver() {
        let value = Rc::new(());
        let (sender, receiver) = channel();
        sender.send(Rc::clone(&value)).unwrap();
        assert_eq!(Rc::strong_count(&value), 2);
        drop(receiver);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}
