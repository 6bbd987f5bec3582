//! Turns for the long reads of a node's clients.
//!
//! A long read is answered in parts, and between two of them the node has its turn. That is no help
//! if each of two hundred clients has such a read: then there are two hundred parts from one turn
//! of the node to the next. So one is answered at a time, in the order in which they came,
//! whichever connections they are from. It is also what bounds the views of the state that are
//! held.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use quorate::rt::channel::oneshot;

/// Who walks over the keys, and who waits for that.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    walking: Cell<bool>,
    waiting: RefCell<VecDeque<oneshot::Sender<Turn>>>,
}

impl Walks {
    /// Waits for the turn of whoever asks. Dropped before, it is taken from the queue.
    pub(crate) async fn turn(self: &Rc<Self>) -> Turn {
        if !self.walking.replace(true) {
            return Turn(Rc::clone(self));
        }
        let (to, turn) = oneshot::channel();
        self.waiting.borrow_mut().push_back(to);
        turn.await.expect("whoever has the turn passes it on")
    }

    /// The next one in the queue that still waits.
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

/// The right to walk over the keys, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Rc<Walks>);

impl Drop for Turn {
    fn drop(&mut self) {
        match self.0.next() {
            // Whoever drops that unseen passes the turn on.
            Some(to) => drop(to.send(Self(Rc::clone(&self.0)))),
            None => self.0.walking.set(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn one_walks_at_a_time_and_in_order() {
        let walks = Rc::new(Walks::default());
        let first = walks.turn().now_or_never().expect("nobody walks");
        let mut second = pin!(walks.turn());
        let mut third = Box::pin(walks.turn());
        let mut fourth = pin!(walks.turn());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        assert!(fourth.as_mut().now_or_never().is_none());
        drop(third); // It gives up.
        drop(first);
        assert!(fourth.as_mut().now_or_never().is_none());
        let second = second.now_or_never().expect("its turn");
        drop(second);
        drop(fourth.now_or_never().expect("its turn"));
        drop(walks.turn().now_or_never().expect("nobody walks"));
    }

    #[test]
    fn a_turn_that_nobody_takes_is_passed_on() {
        let walks = Rc::new(Walks::default());
        let first = walks.turn().now_or_never().expect("nobody walks");
        let mut second = Box::pin(walks.turn());
        let mut third = pin!(walks.turn());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        drop(second); // It is its turn, and it has not looked.
        assert!(third.now_or_never().is_some());
    }
}
