//! Memory that all connections of a node share.
//!
//! Whoever is first must not keep it for as long as a slow client may take. So where there is no
//! room, those who wait for their clients make some: the ones that have held their parts longest
//! are closed, as many as are needed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// What each connection may hold apart from a budget, in bytes. With the most clients that makes
/// 160 MiB for requests and as much for answers.
pub(crate) const FREE_BYTES: usize = 16 << 10;

/// Bytes for all connections of a node.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: Cell<usize>,
    /// Who holds something, by when that began.
    holders: RefCell<BTreeMap<u64, Rc<Holder>>>,
    next: Cell<u64>,
}

/// A part that is held.
#[derive(Debug, Default)]
struct Holder {
    bytes: Cell<usize>,
    /// Its number among the holders, while it is one.
    number: Cell<u64>,
    /// While it waits for its client.
    waits: RefCell<Option<Waker>>,
    is_to_go: Cell<bool>,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self {
            limit,
            used: Cell::default(),
            holders: RefCell::default(),
            next: Cell::default(),
        })
    }

    /// What of it is in use.
    pub(crate) fn used(&self) -> usize {
        self.used.get()
    }

    /// Whether more than half of it is in use.
    pub(crate) fn is_tight(&self) -> bool {
        self.used.get() > self.limit / 2
    }

    /// Has so much given back soon, by those who wait for their clients. False: they don't hold so
    /// much.
    fn make_room(&self, mut bytes: usize, of: &Rc<Holder>) -> bool {
        let holders = self.holders.borrow();
        let (mut left, mut going) = (Vec::new(), Vec::new());
        for holder in holders.values() {
            match holder.is_to_go.get() {
                true => bytes = bytes.saturating_sub(holder.bytes.get()),
                false => left.push(holder),
            }
        }
        for holder in left {
            if bytes == 0 {
                break;
            }
            if !Rc::ptr_eq(holder, of) && holder.waits.borrow().is_some() {
                bytes = bytes.saturating_sub(holder.bytes.get());
                going.push(Rc::clone(holder));
            }
        }
        if bytes > 0 {
            return false;
        }
        drop(holders);
        for holder in going {
            holder.is_to_go.set(true);
            if let Some(waker) = holder.waits.take() {
                waker.wake();
            }
        }
        true
    }
}

/// A connection's part of a budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Rc<Budget>,
    held: Rc<Holder>,
}

impl Share {
    pub(crate) fn of(budget: &Rc<Budget>) -> Self {
        Self { budget: Rc::clone(budget), held: Rc::default() }
    }

    /// From now on it holds this much. False: there is no room for that, and nobody who could make
    /// some; it holds what it held.
    pub(crate) fn hold(&self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(FREE_BYTES).saturating_sub(self.held.bytes.get());
        let over = (self.budget.used.get() + more).saturating_sub(self.budget.limit);
        let fits = more == 0 || over == 0 || self.budget.make_room(over, &self.held);
        if fits {
            self.take(bytes);
        }
        fits
    }

    /// The same for what is there already, whether there is room or not.
    pub(crate) fn take(&self, bytes: usize) {
        let (budget, held) = (&self.budget, &self.held);
        let wanted = bytes.saturating_sub(FREE_BYTES);
        let before = held.bytes.replace(wanted);
        budget.used.set(budget.used.get() - before + wanted);
        if before == 0 && wanted > 0 {
            held.number.set(budget.next.replace(budget.next.get() + 1));
            budget.holders.borrow_mut().insert(held.number.get(), Rc::clone(held));
        } else if before > 0 && wanted == 0 {
            budget.holders.borrow_mut().remove(&held.number.get());
            held.is_to_go.set(false);
        }
    }

    /// Waits for the client: for what `future` gives. None: others need the memory that this holds,
    /// and the connection is to be closed.
    pub(crate) async fn waiting<F: Future>(&self, future: F) -> Option<F::Output> {
        /// The wait, however it ends.
        struct Wait<'a>(&'a Holder);

        impl Drop for Wait<'_> {
            fn drop(&mut self) {
                self.0.waits.take();
            }
        }

        let wait = Wait(&self.held);
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if wait.0.is_to_go.get() => Poll::Ready(None),
            Poll::Pending => {
                // Whoever holds nothing is not asked to go.
                if wait.0.bytes.get() > 0 {
                    wait.0.waits.replace(Some(context.waker().clone()));
                }
                Poll::Pending
            }
        })
        .await
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt;
    use futures::future::LocalBoxFuture;

    use super::*;

    #[test]
    fn a_share_is_held_given_back_and_refused() {
        let budget = Budget::new(100);
        let (one, other) = (Share::of(&budget), Share::of(&budget));
        // The first bytes are free.
        assert!(one.hold(FREE_BYTES) && budget.used() == 0);
        assert!(one.hold(FREE_BYTES + 60) && other.hold(FREE_BYTES + 40) && budget.used() == 100);
        assert!(!one.hold(FREE_BYTES + 61));
        assert_eq!(budget.used(), 100);
        assert!(one.hold(FREE_BYTES + 50) && budget.is_tight());
        drop(other);
        assert_eq!(budget.used(), 50);
        drop(one);
        assert_eq!(budget.used(), 0);
    }

    /// Waits for a client that says nothing.
    fn waits(share: &Share) -> LocalBoxFuture<'_, Option<()>> {
        let mut wait = share.waiting(pending()).boxed_local();
        assert_eq!((&mut wait).now_or_never(), None);
        wait
    }

    #[test]
    fn those_who_have_waited_longest_with_their_parts_make_room() {
        let budget = Budget::new(100);
        let shares: Vec<_> = (0..5).map(|_| Share::of(&budget)).collect();
        for share in &shares[..4] {
            assert!(share.hold(FREE_BYTES + 25));
        }
        // The first one works on a request, and the second one has begun anew.
        assert!(shares[1].hold(0) && shares[1].hold(FREE_BYTES + 25));
        let mut waiting: Vec<_> = shares[1..4].iter().map(waits).collect();
        assert!(shares[4].hold(FREE_BYTES + 30));
        let ended: Vec<_> = waiting.iter_mut().map(|wait| wait.now_or_never()).collect();
        assert_eq!(ended, [None, Some(None), Some(None)], "two are needed, the oldest");
        // Nobody is closed in vain, and nobody makes room twice.
        assert!(!shares[4].hold(FREE_BYTES + 76));
        assert_eq!(waiting[0].as_mut().now_or_never(), None);
        assert!(shares[4].hold(FREE_BYTES + 75));
        assert_eq!(waiting[0].as_mut().now_or_never(), Some(None));
        drop(waiting);
        drop(shares);
        assert_eq!((budget.used(), budget.holders.borrow().len()), (0, 0));
    }

    #[test]
    fn who_has_been_answered_waits_no_more() {
        let budget = Budget::new(100);
        let (one, other) = (Share::of(&budget), Share::of(&budget));
        assert!(one.hold(FREE_BYTES + 100));
        assert_eq!(one.waiting(ready(7)).now_or_never(), Some(Some(7)));
        drop(waits(&one));
        assert!(!other.hold(FREE_BYTES + 1));
        // What is given back otherwise is not asked for.
        let wait = waits(&one);
        assert!(other.hold(FREE_BYTES + 1));
        drop(wait);
        assert!(one.hold(0) && one.hold(FREE_BYTES + 10));
        assert_eq!(waits(&one).now_or_never(), None);
    }
}
