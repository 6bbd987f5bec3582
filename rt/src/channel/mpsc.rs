//! Many values from several tasks to one of the same thread, bounded by their number: no atomics, no locks.
//!
//! A sender that has to wait leaves its value in the line of the waiting, from where the receiver moves it up
//! as soon as there is room. So values arrive in the order in which their senders came, and a woken sender has
//! nothing more to do.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// A channel that holds up to `capacity` values.
///
/// # Panics
/// Where `capacity` is zero.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a channel needs room for a value");
    let shared = Rc::new(RefCell::new(Shared {
        queue: VecDeque::new(),
        capacity,
        waiting: VecDeque::new(),
        next_ticket: 0,
        senders: 1,
        receiver_gone: false,
        receiver: None,
    }));
    (Sender { shared: Rc::clone(&shared) }, Receiver { shared })
}

/// Values and wakers are never dropped or woken while this is borrowed: either may run code that comes back here.
struct Shared<T> {
    queue: VecDeque<T>,
    capacity: usize,
    /// In the order of tickets. Not empty only while the queue is full or the receiver is gone.
    waiting: VecDeque<Waiting<T>>,
    next_ticket: u64,
    senders: usize,
    receiver_gone: bool,
    receiver: Option<Waker>,
}

struct Waiting<T> {
    ticket: u64,
    value: T,
    waker: Waker,
}

impl<T> Shared<T> {
    fn position(&self, ticket: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
    }

    /// The oldest value, and the sender whose value has taken the room.
    fn pop(&mut self) -> Option<(T, Option<Waker>)> {
        let value = self.queue.pop_front()?;
        let moved_up = self.waiting.pop_front().map(|next| {
            self.queue.push_back(next.value);
            next.waker
        });
        assert!(self.waiting.is_empty() || self.queue.len() == self.capacity);
        Some((value, moved_up))
    }
}

/// Why [`Sender::try_send`] gave the value back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or others wait for it already.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Closed(value) => value,
        }
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => write!(f, "the channel is full"),
            Self::Closed(_) => write!(f, "the channel's receiver is gone"),
        }
    }
}

impl<T: fmt::Debug> std::error::Error for TrySendError<T> {}

/// A sending side. The channel ends for the receiver when the last one is dropped.
pub struct Sender<T> {
    shared: Rc<RefCell<Shared<T>>>,
}

impl<T> Sender<T> {
    /// Sends without waiting.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        let receiver = {
            let shared = &mut *self.shared.borrow_mut();
            if shared.receiver_gone {
                return Err(TrySendError::Closed(value));
            }
            if shared.queue.len() >= shared.capacity {
                return Err(TrySendError::Full(value));
            }
            shared.queue.push_back(value);
            shared.receiver.take()
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
        Ok(())
    }

    /// Sends, and waits for room in the order of arrival. Gives the value back where the receiver is gone.
    ///
    /// Dropping the future while it waits takes the value back out, unless it has just been moved up.
    pub async fn send(&self, value: T) -> Result<(), T> {
        match self.try_send(value) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(value)) => Err(value),
            Err(TrySendError::Full(value)) => {
                WaitForRoom { shared: &self.shared, state: WaitState::New(value) }.await
            }
        }
    }

    /// Whether the receiver is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.borrow().receiver_gone
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.borrow_mut().senders += 1;
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let receiver = {
            let shared = &mut *self.shared.borrow_mut();
            shared.senders -= 1;
            if shared.senders == 0 { shared.receiver.take() } else { None }
        };
        if let Some(waker) = receiver {
            waker.wake();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::Sender").finish_non_exhaustive()
    }
}

struct WaitForRoom<'a, T> {
    shared: &'a RefCell<Shared<T>>,
    state: WaitState<T>,
}

enum WaitState<T> {
    New(T),
    InLine(u64),
    Done,
}

// Nothing in it is pinned: the value is moved to and from the line.
impl<T> Unpin for WaitForRoom<'_, T> {}

impl<T> Future for WaitForRoom<'_, T> {
    type Output = Result<(), T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waker = context.waker().clone(); // Outlives the borrow, as does what it is swapped for.
        let cell = self.shared;
        let shared = &mut *cell.borrow_mut();
        match std::mem::replace(&mut self.state, WaitState::Done) {
            // Polled right after a `try_send` that found the channel full and open.
            WaitState::New(value) => {
                let ticket = shared.next_ticket;
                shared.next_ticket += 1;
                shared.waiting.push_back(Waiting { ticket, value, waker });
                self.state = WaitState::InLine(ticket);
                Poll::Pending
            }
            WaitState::InLine(ticket) => match shared.position(ticket) {
                None => Poll::Ready(Ok(())),
                Some(at) => {
                    std::mem::swap(&mut shared.waiting[at].waker, &mut waker);
                    if shared.receiver_gone {
                        let taken = shared.waiting.remove(at).expect("found just now");
                        return Poll::Ready(Err(taken.value));
                    }
                    self.state = WaitState::InLine(ticket);
                    Poll::Pending
                }
            },
            WaitState::Done => unreachable!("polled after its end"),
        }
    }
}

impl<T> Drop for WaitForRoom<'_, T> {
    fn drop(&mut self) {
        if let WaitState::InLine(ticket) = self.state {
            let taken = {
                let shared = &mut *self.shared.borrow_mut();
                shared.position(ticket).and_then(|at| shared.waiting.remove(at))
            };
            drop(taken);
        }
    }
}

/// The receiving side. Dropping it drops the values in the channel and closes it for the senders.
pub struct Receiver<T> {
    shared: Rc<RefCell<Shared<T>>>,
}

impl<T> Receiver<T> {
    /// The next value; none when the channel is empty and all senders are gone. Dropping the future loses
    /// nothing.
    pub async fn recv(&mut self) -> Option<T> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// [`recv`](Self::recv) for a hand-written future.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(value) = self.try_recv() {
            return Poll::Ready(Some(value));
        }
        let waker = context.waker().clone();
        let _replaced = {
            let shared = &mut *self.shared.borrow_mut();
            if shared.senders == 0 {
                return Poll::Ready(None);
            }
            shared.receiver.replace(waker)
        };
        Poll::Pending
    }

    /// The next value, if there is one now.
    pub fn try_recv(&mut self) -> Option<T> {
        let (value, moved_up) = self.shared.borrow_mut().pop()?;
        if let Some(waker) = moved_up {
            waker.wake();
        }
        Some(value)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let (_values, _waker, waiting) = {
            let shared = &mut *self.shared.borrow_mut();
            shared.receiver_gone = true;
            let waiting: Vec<Waker> = shared.waiting.iter().map(|w| w.waker.clone()).collect();
            (std::mem::take(&mut shared.queue), shared.receiver.take(), waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("mpsc::Receiver").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::executor::block_on;
    use futures::future::join;

    use super::*;
    use crate::channel::count_wakes;

    #[test]
    fn values_arrive_in_order_and_the_end_follows_the_last_sender() {
        let (sender, mut receiver) = channel(2);
        let second = sender.clone();
        sender.try_send(1).unwrap();
        second.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        drop(sender);
        drop(second);
        assert_eq!(receiver.recv().now_or_never(), Some(Some(1)));
        assert_eq!(receiver.recv().now_or_never(), Some(Some(2)));
        assert_eq!(receiver.recv().now_or_never(), Some(None));
    }

    #[test]
    fn a_waiting_receiver_is_woken_by_a_value_and_by_the_end() {
        let (sender, mut receiver) = channel(1);
        let (wakes, waker) = count_wakes();
        let context = &mut Context::from_waker(&waker);
        assert!(receiver.poll_recv(context).is_pending());
        sender.try_send(1).unwrap();
        assert_eq!(wakes.count(), 1);
        assert_eq!(receiver.poll_recv(context), Poll::Ready(Some(1)));
        assert!(receiver.poll_recv(context).is_pending());
        drop(sender);
        assert_eq!(wakes.count(), 2);
        assert_eq!(receiver.poll_recv(context), Poll::Ready(None));
    }

    #[test]
    fn waiting_senders_go_in_the_order_of_their_arrival() {
        let (sender, mut receiver) = channel(1);
        let (wakes, waker) = count_wakes();
        let context = &mut Context::from_waker(&waker);
        sender.try_send(0).unwrap();
        let mut first = Box::pin(sender.send(1));
        let mut second = Box::pin(sender.send(2));
        assert!(first.poll_unpin(context).is_pending());
        assert!(second.poll_unpin(context).is_pending());

        assert_eq!(receiver.try_recv(), Some(0));
        assert_eq!(wakes.count(), 1);
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)), "nobody overtakes the waiting");
        assert!(second.poll_unpin(context).is_pending());
        assert_eq!(first.poll_unpin(context), Poll::Ready(Ok(())));
        assert_eq!(receiver.try_recv(), Some(1));
        assert_eq!(second.poll_unpin(context), Poll::Ready(Ok(())));
        assert_eq!(receiver.try_recv(), Some(2));
        assert_eq!(receiver.try_recv(), None);
    }

    #[test]
    fn a_sender_that_gives_up_leaves_the_line() {
        let (sender, mut receiver) = channel(1);
        sender.try_send(0).unwrap();
        let (_, waker) = count_wakes();
        let context = &mut Context::from_waker(&waker);
        let mut first = Box::pin(sender.send(1));
        let mut second = Box::pin(sender.send(2));
        assert!(first.poll_unpin(context).is_pending());
        assert!(second.poll_unpin(context).is_pending());
        drop(first);
        assert_eq!(receiver.try_recv(), Some(0));
        assert_eq!(second.poll_unpin(context), Poll::Ready(Ok(())));
        assert_eq!(receiver.try_recv(), Some(2));
        assert_eq!(receiver.try_recv(), None);
    }

    #[test]
    fn a_dropped_receiver_wakes_the_waiting_and_gives_their_values_back() {
        let queued = Rc::new(0);
        let (sender, receiver) = channel(1);
        sender.try_send(Rc::clone(&queued)).unwrap();
        let (wakes, waker) = count_wakes();
        let context = &mut Context::from_waker(&waker);
        let mut waiting = Box::pin(sender.send(Rc::new(1)));
        assert!(waiting.poll_unpin(context).is_pending());
        assert!(!sender.is_closed());
        drop(receiver);
        assert!(sender.is_closed());
        assert_eq!(wakes.count(), 1);
        assert_eq!(Rc::strong_count(&queued), 1, "what nobody can take any more is dropped");
        assert_eq!(waiting.poll_unpin(context), Poll::Ready(Err(Rc::new(1))));
        assert_eq!(sender.try_send(Rc::new(2)), Err(TrySendError::Closed(Rc::new(2))));
    }

    #[test]
    fn a_recv_that_is_dropped_loses_nothing() {
        let (sender, mut receiver) = channel(1);
        assert_eq!(receiver.recv().now_or_never(), None);
        sender.try_send(1).unwrap();
        drop(receiver.recv());
        assert_eq!(receiver.recv().now_or_never(), Some(Some(1)));
    }

    #[test]
    fn a_value_may_own_a_sender_of_its_own_channel() {
        let (sender, receiver) = channel(2);
        sender.try_send(Box::new(sender.clone()) as Box<dyn std::any::Any>).unwrap();
        drop(receiver); // Drops the value, whose destructor comes back to the channel.
        assert!(sender.is_closed());
    }

    #[test]
    fn many_values_through_a_narrow_channel() {
        let (sender, mut receiver) = channel(3);
        let sending = async move {
            for value in 0..10_000 {
                sender.send(value).await.unwrap();
            }
        };
        let receiving = async {
            for value in 0..10_000 {
                assert_eq!(receiver.recv().await, Some(value));
            }
            receiver.recv().await
        };
        assert_eq!(block_on(join(sending, receiving)).1, None);
    }
}
