//! The memory for frames under way, which all connections of a node share. No I/O.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use quorate_rt::channel::Signal;

/// So many bytes, of which each connection takes what its frame needs.
///
/// A connection takes all of a frame before it reads on, and gives it back when the frame is whole.
/// So who has got some needs nothing from others to finish, and no two can wait for each other.
pub(crate) struct Budget {
    free: Cell<usize>,
    total: usize,
    /// Those for whom there was not enough, in order.
    waiting: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    bytes: usize,
    granted: Cell<bool>,
    changed: Signal,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Rc<Self> {
        Rc::new(Self { free: Cell::new(total), total, waiting: RefCell::default() })
    }

    /// Takes so many bytes if they are free and nobody waits. More than there are in total are
    /// counted as all.
    pub(crate) fn try_take(self: &Rc<Self>, bytes: usize) -> Option<Share> {
        let bytes = bytes.min(self.total);
        if !self.waiting.borrow().is_empty() || self.free.get() < bytes {
            return None;
        }
        self.free.set(self.free.get() - bytes);
        Some(Share { budget: Rc::clone(self), bytes })
    }

    /// Waits until so many bytes are free, after those who have waited before.
    ///
    /// # Cancellation
    /// Nothing is taken.
    pub(crate) async fn take(self: &Rc<Self>, bytes: usize) -> Share {
        if let Some(share) = self.try_take(bytes) {
            return share;
        }
        let bytes = bytes.min(self.total);
        let waiter =
            Rc::new(Waiter { bytes, granted: Cell::new(false), changed: Signal::default() });
        self.waiting.borrow_mut().push_back(Rc::clone(&waiter));
        let wait = Wait { budget: self, waiter };
        while !wait.waiter.granted.get() {
            wait.waiter.changed.wait().await;
        }
        wait.waiter.granted.set(false); // It is the share's from here on.
        Share { budget: Rc::clone(self), bytes }
    }

    fn give(&self, bytes: usize) {
        self.free.set(self.free.get() + bytes);
        let mut waiting = self.waiting.borrow_mut();
        while let Some(first) = waiting.pop_front_if(|first| first.bytes <= self.free.get()) {
            self.free.set(self.free.get() - first.bytes);
            first.granted.set(true);
            first.changed.raise();
        }
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.get()
    }
}

/// Somebody who waits, or has been given what he has not yet seen.
struct Wait<'a> {
    budget: &'a Budget,
    waiter: Rc<Waiter>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Waiter { bytes, granted, .. } = &*self.waiter;
        self.budget.waiting.borrow_mut().retain(|other| !Rc::ptr_eq(other, &self.waiter));
        // The next in order may have waited only behind this one.
        self.budget.give(if granted.get() { *bytes } else { 0 });
    }
}

/// What a connection has taken. Dropping it gives it back.
pub(crate) struct Share {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_finds_too_little_waits_in_order_and_is_given_all_at_once() {
        let budget = Budget::new(100);
        let first = budget.try_take(70).unwrap();
        let mut large = Box::pin(budget.take(60));
        let mut small = Box::pin(budget.take(10));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(small.as_mut().now_or_never().is_none(), "after the one before");
        assert!(budget.try_take(1).is_none(), "nor may anybody overtake them");
        drop(first);
        let large = large.now_or_never().unwrap();
        let _small = small.now_or_never().unwrap();
        assert_eq!(budget.free(), 30);
        drop(large);
        assert_eq!(budget.free(), 90);
    }

    #[test]
    fn who_stops_waiting_leaves_nothing_taken_and_holds_up_nobody() {
        let budget = Budget::new(100);
        let first = budget.try_take(70).unwrap();
        let mut gone = Box::pin(budget.take(100));
        let mut next = Box::pin(budget.take(30));
        assert!(gone.as_mut().now_or_never().is_none());
        assert!(next.as_mut().now_or_never().is_none());
        drop(gone);
        let next = next.now_or_never().expect("it waited only for its turn");
        let mut granted = Box::pin(budget.take(50));
        assert!(granted.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(budget.free(), 20, "granted");
        drop(granted); // It has not looked at it.
        drop(next);
        assert_eq!(budget.free(), 100);
    }

    #[test]
    fn nobody_waits_for_more_than_there_is() {
        let budget = Budget::new(100);
        let share = budget.take(1000).now_or_never().unwrap();
        assert_eq!(budget.free(), 0);
        drop(share);
        assert_eq!(budget.free(), 100);
    }
}
