//! The executor's timers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Core;
use crate::Instant;

/// The timers that someone waits for.
#[derive(Default)]
pub(super) struct Timers {
    /// By deadline; the number tells apart those with the same one, and keeps the order of their
    /// creation.
    waiting: BTreeMap<(Instant, u64), Waker>,
    created: u64,
    /// Their executor has ended, so that none ends any more.
    have_ended: bool,
}

impl Timers {
    /// Someone whose deadline has passed, to be woken once this is no longer borrowed.
    fn take_due(&mut self, now: Instant) -> Option<Waker> {
        let first = self.waiting.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((deadline, _), _)| *deadline)
    }
}

/// The executor has ended: whoever waits for a timer is to notice it.
pub(super) fn end(timers: &RefCell<Timers>) {
    let waiting = {
        let mut timers = timers.borrow_mut();
        timers.have_ended = true;
        std::mem::take(&mut timers.waiting)
    };
    waiting.into_values().for_each(Waker::wake);
}

/// Wakes everyone whose deadline has passed.
pub(super) fn fire(timers: &RefCell<Timers>) {
    if timers.borrow().waiting.is_empty() {
        return;
    }
    let now = Instant::from_system_clock();
    loop {
        let due = timers.borrow_mut().take_due(now);
        match due {
            Some(waker) => waker.wake(),
            None => return,
        }
    }
}

/// A timer; see [`Executor::Sleep`](crate::Executor::Sleep).
pub struct Sleep {
    key: (Instant, u64),
    core: Rc<Core>,
}

impl Sleep {
    pub(super) fn new(deadline: Instant, core: Rc<Core>) -> Self {
        let mut timers = core.timers.borrow_mut();
        timers.created += 1;
        let key = (deadline, timers.created);
        drop(timers);
        Self { key, core }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let timers = &self.core.timers;
        let (replaced, state) = if self.key.0 <= Instant::from_system_clock() {
            (timers.borrow_mut().waiting.remove(&self.key), Poll::Ready(()))
        } else {
            assert!(!timers.borrow().have_ended, "the runtime of this timer has ended before it");
            let waker = context.waker().clone();
            let replaced = timers.borrow_mut().waiting.insert(self.key, waker);
            self.core.wake(); // It sets the backend's timer.
            (replaced, Poll::Pending)
        };
        drop(replaced);
        state
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.core.timers.borrow_mut().waiting.remove(&self.key);
    }
}

impl std::fmt::Debug for Sleep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.key.0).finish()
    }
}
