//! A queue in which one has the turn at a time, in the order of coming.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use quorate::rt::channel::oneshot;

/// Who has the turn, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    is_taken: Cell<bool>,
    waiting: RefCell<VecDeque<oneshot::Sender<Turn>>>,
}

impl Queue {
    /// Whether nobody has the turn.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_taken.get()
    }

    /// Waits for the turn of whoever asks. Dropped before, it is taken from the queue.
    pub(crate) async fn turn(self: &Rc<Self>) -> Turn {
        if !self.is_taken.replace(true) {
            return Turn(Rc::clone(self));
        }
        let (to, turn) = oneshot::channel();
        self.waiting.borrow_mut().push_back(to);
        turn.await.expect("whoever has the turn passes it on")
    }

    /// The next one that still waits.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(to) = waiting.pop_front() {
            if !to.is_closed() {
                return Some(to);
            }
        }
        None
    }
}

/// The turn, until this is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Rc<Queue>);

impl Drop for Turn {
    fn drop(&mut self) {
        match self.0.next() {
            // Whoever drops that unseen passes the turn on.
            Some(to) => drop(to.send(Self(Rc::clone(&self.0)))),
            None => self.0.is_taken.set(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_has_the_turn_at_a_time_and_in_order() {
        let queue = Rc::new(Queue::default());
        let first = queue.turn().now_or_never().expect("nobody has it");
        let mut second = pin!(queue.turn());
        let mut third = Box::pin(queue.turn());
        let mut fourth = pin!(queue.turn());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(third); // It gives up.
        drop(first);
        assert!(fourth.as_mut().now_or_never().is_none());
        let second = second.now_or_never().expect("its turn");
        drop(second);
        drop(fourth.now_or_never().expect("its turn"));
        drop(queue.turn().now_or_never().expect("nobody has it"));
    }

    #[test]
    fn a_turn_that_nobody_takes_is_passed_on() {
        let queue = Rc::new(Queue::default());
        let first = queue.turn().now_or_never().expect("nobody has it");
        let mut second = Box::pin(queue.turn());
        let mut third = pin!(queue.turn());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second); // It is its turn, and it has not looked.
        assert!(third.now_or_never().is_some());
    }
}
