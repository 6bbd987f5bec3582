//! Bounds on what the handles of a group have under way within the node's thread. (Those of other
//! threads are part of what they share: see [`Load`](super::shared::Load).)

use std::cell::Cell;
use std::rc::Rc;

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

impl LocalPermit {
    /// Of what was taken already.
    pub(crate) fn of(used: &Rc<Cell<usize>>, amount: usize) -> Self {
        Self { used: Rc::clone(used), amount }
    }
}

impl Drop for LocalPermit {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.amount);
    }
}
