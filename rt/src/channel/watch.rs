//! The latest value of something, for readers on any thread: metrics, status, a flag to stop.
//!
//! The only channel here that crosses threads, hence the lock. Readers see the newest value and may
//! miss those in between. What a reader borrows is a snapshot: it may be kept for as long as the
//! reader likes, and holds up nobody. The sender changes the value in place, and copies it first
//! only if a reader has kept a snapshot of it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Closed;

/// A watch of a value.
pub fn channel<T>(initial: T) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared(Mutex::new(State {
        value: Arc::new(initial),
        version: 0,
        sender_gone: false,
        waiting: Vec::new(),
        next_ticket: 0,
    })));
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared, seen: 0 })
}

/// Wakers are woken and dropped only after the lock is released, as they may run code that comes
/// back here.
struct Shared<T>(Mutex<State<T>>);

struct State<T> {
    value: Arc<T>,
    /// Counts the changes.
    version: u64,
    sender_gone: bool,
    waiting: Vec<(u64, Waker)>,
    next_ticket: u64,
}

impl<T> Shared<T> {
    /// A panic in a caller's closure leaves the state's own fields whole, so poison means nothing
    /// here.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sending side. Dropping it tells the receivers, who keep the last value.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// Replaces the value and wakes the receivers, if there are any.
    pub fn send(&self, value: T) {
        let value = Arc::new(value);
        // The value before is dropped after the lock is released, as its destructor may come back.
        let _before = self.publish(|current| std::mem::replace(current, value));
    }

    /// Changes the value in place and wakes the receivers. Readers that have kept a snapshot keep
    /// the value as it was.
    ///
    /// `change` runs under the lock, as does `T::clone` where there is such a reader. Keep both
    /// short. If they touch this channel, the thread waits for itself for ever.
    pub fn send_modify(&self, change: impl FnOnce(&mut T))
    where
        T: Clone,
    {
        self.publish(|current| change(Arc::make_mut(current)));
    }

    fn publish<R>(&self, change: impl FnOnce(&mut Arc<T>) -> R) -> R {
        let (result, waiting) = {
            let mut state = self.shared.lock();
            let result = change(&mut state.value);
            state.version += 1;
            (result, std::mem::take(&mut state.waiting))
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
        result
    }

    /// A snapshot of the value; see [`Receiver::borrow`].
    pub fn borrow(&self) -> Arc<T> {
        Arc::clone(&self.shared.lock().value)
    }

    /// Another receiver, which has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.shared.lock().version;
        Receiver { shared: Arc::clone(&self.shared), seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.shared.lock();
            state.sender_gone = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("watch::Sender").finish_non_exhaustive()
    }
}

/// A reading side. It remembers which change it has seen; a clone goes on from there.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// A snapshot of the newest value. It does not count as seen.
    ///
    /// It holds no lock: it may be kept, also across an `await`, and taken any number of times. It
    /// doesn't change while it is kept.
    ///
    /// ```
    /// let (sender, receiver) = quorate_rt::channel::watch::channel(1);
    /// let before = receiver.borrow();
    /// sender.send(2);
    /// assert_eq!((*before, *receiver.borrow()), (1, 2));
    /// ```
    pub fn borrow(&self) -> Arc<T> {
        Arc::clone(&self.shared.lock().value)
    }

    /// Waits for a change since the last one seen, then counts the newest as seen. [`Closed`] where
    /// none can come any more. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        Changed { shared: &self.shared, seen: &mut self.seen, ticket: None }.await
    }

    /// Waits until the value satisfies `wanted`, beginning with the present one, and returns a
    /// snapshot of that very value. Dropping the future loses nothing.
    ///
    /// `wanted` looks at a snapshot, under no lock, and may use this channel. It misses values that
    /// are replaced at once.
    ///
    /// # Errors
    /// [`Closed`] if the last value doesn't satisfy it and no other can come.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Arc<T>, Closed> {
        loop {
            let value = {
                let state = self.shared.lock();
                self.seen = state.version;
                Arc::clone(&state.value)
            };
            if wanted(&value) {
                return Ok(value);
            }
            drop(value); // While it waits, the sender needs no copy.
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("watch::Receiver").finish_non_exhaustive()
    }
}

struct Changed<'a, T> {
    shared: &'a Shared<T>,
    seen: &'a mut u64,
    /// Names its entry among the waiting, once it has waited.
    ticket: Option<u64>,
}

impl<T> Future for Changed<'_, T> {
    type Output = Result<(), Closed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        // Outlives the lock, as does what it is swapped for.
        let mut waker = context.waker().clone();
        let mut state = this.shared.lock();
        if state.version != *this.seen {
            *this.seen = state.version;
            return Poll::Ready(Ok(()));
        }
        if state.sender_gone {
            return Poll::Ready(Err(Closed));
        }
        let ticket = *this.ticket.get_or_insert_with(|| {
            state.next_ticket += 1;
            state.next_ticket
        });
        match state.waiting.iter_mut().find(|(other, _)| *other == ticket) {
            Some((_, registered)) => std::mem::swap(registered, &mut waker),
            None => state.waiting.push((ticket, waker)),
        }
        Poll::Pending
    }
}

impl<T> Drop for Changed<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let registered = {
                let mut state = self.shared.lock();
                let at = state.waiting.iter().position(|(other, _)| *other == ticket);
                at.map(|at| state.waiting.swap_remove(at))
            };
            drop(registered);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;
    use std::task::Wake;
    use std::thread;

    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;
    use crate::channel::count_wakes;

    #[test]
    fn a_change_is_seen_once_and_only_the_newest() {
        let (sender, mut receiver) = channel(0);
        assert_eq!(receiver.changed().now_or_never(), None, "the initial value is no change");
        sender.send(1);
        sender.send_modify(|value| *value += 1);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(*receiver.borrow(), 2);
        assert_eq!(*sender.borrow(), 2);
        assert_eq!(receiver.changed().now_or_never(), None);
        assert_eq!(sender.subscribe().changed().now_or_never(), None);
    }

    #[test]
    fn the_last_value_is_seen_before_the_end() {
        let (sender, mut receiver) = channel(0);
        sender.send(1);
        drop(sender);
        assert_eq!(receiver.clone().changed().now_or_never(), Some(Ok(())));
        assert_eq!(receiver.wait_for(|value| *value == 1).now_or_never(), Some(Ok(1.into())));
        assert_eq!(receiver.wait_for(|value| *value == 2).now_or_never(), Some(Err(Closed)));
        assert_eq!(receiver.changed().now_or_never(), Some(Err(Closed)));
        assert_eq!(*receiver.borrow(), 1);
    }

    #[test]
    fn all_who_wait_are_woken_once() {
        let (sender, mut first) = channel(0);
        let mut second = first.clone();
        let (wakes, waker) = count_wakes();
        let context = &mut Context::from_waker(&waker);
        let mut one = Box::pin(first.changed());
        let mut two = Box::pin(second.wait_for(|value| *value > 0));
        for _ in 0..2 {
            assert!(one.poll_unpin(context).is_pending());
            assert!(two.poll_unpin(context).is_pending());
        }
        sender.send(1);
        assert_eq!(wakes.count(), 2);
        assert_eq!(one.poll_unpin(context), Poll::Ready(Ok(())));
        assert_eq!(two.poll_unpin(context), Poll::Ready(Ok(1.into())));
    }

    #[test]
    fn who_gives_up_is_not_woken() {
        let (sender, mut receiver) = channel(0);
        let (wakes, waker) = count_wakes();
        let mut waiting = Box::pin(receiver.changed());
        assert!(waiting.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        drop(waiting);
        assert_eq!(Arc::strong_count(&wakes), 2, "ours and our waker's: none is left behind");
        sender.send(1);
        assert_eq!(wakes.count(), 0);
    }

    #[test]
    fn a_waker_may_come_back_to_the_channel() {
        struct Look(Weak<Shared<u8>>, Mutex<Option<u8>>);
        impl Wake for Look {
            fn wake(self: Arc<Self>) {
                let shared = self.0.upgrade().unwrap();
                *self.1.lock().unwrap() = shared.0.try_lock().ok().map(|state| *state.value);
            }
        }
        let (sender, mut receiver) = channel(0);
        let look = Arc::new(Look(Arc::downgrade(&receiver.shared), Mutex::new(None)));
        let waker = Waker::from(Arc::clone(&look));
        let mut waiting = Box::pin(receiver.changed());
        assert!(waiting.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        sender.send(5);
        assert_eq!(*look.1.lock().unwrap(), Some(5));
    }

    #[test]
    fn a_snapshot_that_is_kept_holds_up_nobody_and_stays_as_it_is() {
        let (sender, receiver) = channel(vec![0]);
        let mut kept = Vec::new();
        for next in 1..100 {
            kept.push(receiver.borrow());
            sender.send_modify(|value| value[0] = next);
        }
        kept.push(sender.borrow());
        sender.send(vec![100]);
        let seen: Vec<i32> = kept.iter().map(|snapshot| snapshot[0]).collect();
        assert_eq!(seen, Vec::from_iter(0..100));
        assert_eq!(receiver.borrow()[0] + receiver.borrow()[0], 200, "two in one expression");
    }

    #[test]
    fn a_value_that_nobody_has_kept_is_changed_in_place() {
        let (sender, receiver) = channel(vec![0]);
        let place = Arc::as_ptr(&receiver.borrow());
        sender.send_modify(|value| value[0] = 1);
        assert_eq!(Arc::as_ptr(&receiver.borrow()), place);
    }

    #[test]
    fn a_predicate_may_come_back_to_the_channel() {
        let (sender, mut receiver) = channel(0);
        let other = receiver.clone();
        let comes_back = |value: &i32| {
            if *value < 3 {
                sender.send_modify(|value| *value += 1);
            }
            *other.borrow() == *value
        };
        assert_eq!(receiver.wait_for(comes_back).now_or_never(), Some(Ok(3.into())));
    }

    #[test]
    fn a_value_that_is_replaced_may_come_back_to_the_channel_when_it_is_dropped() {
        #[derive(Default)]
        struct Last(Option<Receiver<Last>>);
        impl Drop for Last {
            fn drop(&mut self) {
                if let Some(receiver) = &self.0 {
                    assert!(receiver.borrow().0.is_none());
                }
            }
        }
        let (sender, receiver) = channel(Last::default());
        sender.send(Last(Some(receiver.clone())));
        sender.send(Last::default());
        assert!(receiver.borrow().0.is_none());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "it takes real threads")]
    fn it_crosses_threads() {
        let (sender, receiver) = channel(0_u32);
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let mut receiver = receiver.clone();
                thread::spawn(move || block_on(receiver.wait_for(|value| *value == 10_000)))
            })
            .collect();
        for _ in 0..10_000 {
            sender.send_modify(|value| *value += 1);
        }
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Ok(10_000.into()));
        }
    }
}
