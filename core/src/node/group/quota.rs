//! Bounds on what the handles of a node have under way: one kind within a thread, one across
//! threads.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A part of a quota, given back when it is dropped.
pub(crate) struct LocalPermit {
    used: Rc<Cell<usize>>,
    amount: usize,
}

pub(crate) fn take_local(used: &Rc<Cell<usize>>, amount: usize, max: usize) -> Option<LocalPermit> {
    let sum = used.get().checked_add(amount).filter(|sum| *sum <= max)?;
    used.set(sum);
    Some(LocalPermit { used: Rc::clone(used), amount })
}

impl Drop for LocalPermit {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.amount);
    }
}

/// A part of a quota, given back when it is dropped.
pub(crate) struct SharedPermit {
    used: Arc<AtomicUsize>,
    amount: usize,
}

pub(crate) fn take_shared(
    used: &Arc<AtomicUsize>,
    amount: usize,
    max: usize,
) -> Option<SharedPermit> {
    // A counter that guards no other memory needs no ordering.
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
        used.checked_add(amount).filter(|sum| *sum <= max)
    })
    .ok()?;
    Some(SharedPermit { used: Arc::clone(used), amount })
}

impl Drop for SharedPermit {
    fn drop(&mut self) {
        self.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}
