//! The groups of a node that have something to do. Whoever brings something to a group notes it
//! here, from the node's own thread or from another, and wakes the node's loop at most once for all
//! that has gathered.

use std::cell::{OnceCell, RefCell};
use std::mem;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quorate_rt::channel::Signal;

use super::wakes::Wakes;

/// The place of a group in its node's table. Another group may get it later, which then has a turn
/// in which nothing has happened.
pub(crate) type Slot = usize;

/// The part within the node's thread.
pub(crate) struct Ready {
    slots: RefCell<Vec<Slot>>,
    signal: Rc<Signal>,
    /// The tasks on other threads that were answered.
    pub(crate) wakes: Rc<Wakes>,
    /// Made with the first handle that crosses threads; without one, nothing here locks.
    shared: OnceCell<Arc<SharedReady>>,
}

/// The part that other threads reach.
#[derive(Default)]
pub(crate) struct SharedReady {
    state: Mutex<SharedState>,
}

#[derive(Default)]
struct SharedState {
    slots: Vec<Slot>,
    waker: Option<Waker>,
}

impl Default for Ready {
    fn default() -> Self {
        let signal = Rc::<Signal>::default();
        let wakes = Rc::new(Wakes::new(Rc::clone(&signal)));
        Self { slots: RefCell::default(), signal, wakes, shared: OnceCell::new() }
    }
}

impl Ready {
    /// This group has something to do.
    pub(crate) fn add(&self, slot: Slot) {
        self.slots.borrow_mut().push(slot);
        self.signal.raise();
    }

    /// The node itself has something to do.
    pub(crate) fn raise(&self) {
        self.signal.raise();
    }

    pub(crate) fn shared(&self) -> Arc<SharedReady> {
        let shared = self.shared.get_or_init(|| {
            // From now on the loop has to look at it as well.
            self.signal.raise();
            Arc::default()
        });
        Arc::clone(shared)
    }

    /// Ready when something was noted since the last time.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let own = self.signal.poll(context);
        match self.shared.get() {
            Some(shared) if shared.lock().poll(context).is_ready() => Poll::Ready(()),
            _ => own,
        }
    }

    /// Takes the groups into `slots`, which holds none so far. A group may be among them twice.
    pub(crate) fn take(&self, slots: &mut Vec<Slot>) {
        assert!(slots.is_empty(), "each group that was taken has its turn");
        mem::swap(&mut *self.slots.borrow_mut(), slots);
        if let Some(shared) = self.shared.get() {
            slots.append(&mut shared.lock().slots);
        }
    }
}

impl SharedReady {
    fn lock(&self) -> MutexGuard<'_, SharedState> {
        // Nothing under the lock can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This group has something to do.
    pub(crate) fn add(&self, slot: Slot) {
        let mut state = self.lock();
        state.slots.push(slot);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl SharedState {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.slots.is_empty() {
            return Poll::Ready(());
        }
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}
