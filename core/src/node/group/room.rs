//! Waiting for room among the commands that the handles of a group have queued, first come, first
//! served.
//!
//! Whoever waits keeps its command: what is queued stays within
//! [`Config::max_queued_bytes`](crate::Config::max_queued_bytes), and here each takes some 40
//! bytes. Room that becomes free is taken in the name of those who wait, whether or not their tasks
//! are polled: a task that isn't polled for long holds up no other.

use std::collections::VecDeque;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::mailbox::End;

/// Those who wait for room.
#[derive(Default)]
pub(crate) struct Line {
    /// Their tickets rise. Who has got room is in it no more.
    waiting: VecDeque<Waiter>,
    next: u64,
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    waker: Waker,
}

/// Commands that are queued.
pub(crate) struct Queued<'a> {
    pub(crate) line: &'a mut Line,
    /// What they take, in bytes.
    pub(crate) used: &'a mut usize,
    /// What they may take.
    pub(crate) max: usize,
}

/// Where commands are queued.
pub(crate) trait Queue {
    /// Looks at it. Nothing is called within that is not ours.
    ///
    /// # Errors
    /// The group has ended.
    fn look<T>(&self, look: impl FnOnce(Queued<'_>) -> T) -> Result<T, End>;
}

impl Line {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes those out who wait, to be woken.
    pub(crate) fn end(&mut self) -> Vec<Waker> {
        self.waiting.drain(..).map(|waiter| waiter.waker).collect()
    }
}

impl Queued<'_> {
    fn fits(&self, bytes: usize) -> bool {
        // One may always go: the settings may have changed since it was let in.
        *self.used == 0 || self.used.saturating_add(bytes) <= self.max
    }

    /// Takes room for those who have waited longest, as far as there is some. Returns their wakers.
    pub(crate) fn admit(self) -> Vec<Waker> {
        let mut admitted = Vec::new();
        while let Some(first) = self.line.waiting.front()
            && self.fits(first.bytes)
            && let Some(first) = self.line.waiting.pop_front()
        {
            *self.used += first.bytes;
            admitted.push(first.waker);
        }
        if self.line.is_empty() {
            self.line.waiting = VecDeque::new();
        }
        admitted
    }

    /// Whether there is room now, which is taken. Otherwise the line has `waker` from now on; if
    /// that takes the place of another one, that one comes back.
    fn poll(self, ticket: &mut Option<u64>, bytes: usize, waker: &mut Option<Waker>) -> bool {
        let Some(own) = *ticket else {
            if self.line.is_empty() && self.fits(bytes) {
                *self.used += bytes;
                return true;
            }
            if let Some(waker) = waker.take() {
                *ticket = Some(self.line.next);
                self.line.waiting.push_back(Waiter { ticket: self.line.next, bytes, waker });
                self.line.next += 1;
            }
            return false;
        };
        match self.line.waiting.binary_search_by_key(&own, |waiter| waiter.ticket) {
            Ok(at) => {
                if let Some(waker) = waker {
                    mem::swap(&mut self.line.waiting[at].waker, waker);
                }
                false
            }
            Err(_) => true,
        }
    }

    /// Gives up the place in the line, or the room that it has led to. Returns its own waker, to be
    /// dropped, and those who are to be woken.
    fn leave(self, ticket: u64, bytes: usize) -> (Option<Waiter>, Vec<Waker>) {
        match self.line.waiting.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            Ok(at) => {
                let left = self.line.waiting.remove(at);
                (left, self.admit()) // It may have been too large for what is free.
            }
            Err(_) => {
                *self.used -= bytes;
                (None, self.admit())
            }
        }
    }
}

/// Waits for room for so many bytes. When it is ready, the room is taken.
pub(crate) fn room<Q: Queue>(queue: &Q, bytes: usize) -> Room<'_, Q> {
    Room { queue, bytes, ticket: None }
}

/// See [`room`]. Dropping it leaves the line.
pub(crate) struct Room<'a, Q: Queue> {
    queue: &'a Q,
    bytes: usize,
    /// While it is in the line, or has got room that it doesn't know of.
    ticket: Option<u64>,
}

impl<Q: Queue> Future for Room<'_, Q> {
    type Output = Result<(), End>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let this = &mut *self;
        // It outlives the look, as does what it is swapped for.
        let mut waker = Some(context.waker().clone());
        let has_room =
            this.queue.look(|queued| queued.poll(&mut this.ticket, this.bytes, &mut waker))?;
        if !has_room {
            return Poll::Pending;
        }
        this.ticket = None;
        Poll::Ready(Ok(()))
    }
}

impl<Q: Queue> Drop for Room<'_, Q> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket
            && let Ok((_own, woken)) = self.queue.look(|queued| queued.leave(ticket, self.bytes))
        {
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures::FutureExt;
    use futures::task::noop_waker_ref;

    use super::*;

    #[derive(Default)]
    struct Ten(RefCell<Line>, Cell<usize>);

    impl Queue for Ten {
        fn look<T>(&self, look: impl FnOnce(Queued<'_>) -> T) -> Result<T, End> {
            let mut used = self.1.get();
            let seen = look(Queued { line: &mut self.0.borrow_mut(), used: &mut used, max: 10 });
            self.1.set(used);
            Ok(seen)
        }
    }

    impl Ten {
        fn give_back(&self, bytes: usize) {
            self.1.update(|used| used - bytes);
            self.look(|queued| queued.admit()).unwrap().into_iter().for_each(Waker::wake);
        }
    }

    fn is_ready(room: &mut Room<'_, Ten>) -> bool {
        room.poll_unpin(&mut Context::from_waker(noop_waker_ref())).is_ready()
    }

    #[test]
    fn room_goes_to_those_who_have_waited_longest() {
        let queue = Ten::default();
        assert!(is_ready(&mut room(&queue, 10)));
        let [mut large, mut small] = [8, 2].map(|bytes| room(&queue, bytes));
        assert!(!is_ready(&mut large) && !is_ready(&mut small));
        queue.give_back(4);
        assert!(!is_ready(&mut small), "it would fit, and is not the first");
        assert!(!is_ready(&mut room(&queue, 2)), "nor does who comes late overtake them");
        queue.give_back(6);
        assert_eq!(queue.1.get(), 10, "both have it before they are polled");
        assert!(is_ready(&mut small) && is_ready(&mut large));
        assert!(!is_ready(&mut room(&queue, 1)));
    }

    #[test]
    fn who_leaves_the_line_holds_up_nobody() {
        let queue = Ten::default();
        assert!(is_ready(&mut room(&queue, 8)));
        let [mut large, mut small] = [8, 2].map(|bytes| room(&queue, bytes));
        assert!(!is_ready(&mut large) && !is_ready(&mut small));
        drop(large);
        assert!(is_ready(&mut small));

        let [mut first, mut second] = [5, 5].map(|bytes| room(&queue, bytes));
        assert!(!is_ready(&mut first) && !is_ready(&mut second));
        queue.give_back(5);
        drop(first); // It has got room, and doesn't know.
        assert!(is_ready(&mut second));
        assert_eq!(queue.1.get(), 10);
    }

    #[test]
    fn what_is_larger_than_the_limit_goes_alone() {
        let queue = Ten::default();
        assert!(is_ready(&mut room(&queue, 1)));
        let mut large = room(&queue, 11);
        assert!(!is_ready(&mut large));
        queue.give_back(1);
        assert!(is_ready(&mut large));
    }
}
