//! The timers of a node's groups: one time for each group, and one timer of the runtime for all.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};

use quorate_rt::{Executor, Instant};

use super::ready::Slot;

/// When groups are to be woken. Elections are put off by every append: so as not to change the
/// order each time, a time that turns out to be too early is left to come, and the group is asked
/// then.
pub(super) struct Timers<R: Executor> {
    rt: R,
    order: BTreeSet<(Instant, Slot)>,
    /// The time of each group in `order`.
    of: Vec<Option<Instant>>,
    armed: Option<(Instant, Pin<Box<R::Sleep>>)>,
}

impl<R: Executor> Timers<R> {
    pub(super) fn new(rt: R) -> Self {
        Self { rt, order: BTreeSet::new(), of: Vec::new(), armed: None }
    }

    /// The group is to be woken then, or not at all.
    pub(super) fn set(&mut self, slot: Slot, at: Option<Instant>) {
        if self.of.len() <= slot {
            self.of.resize(slot + 1, None);
        }
        let of = &mut self.of[slot];
        match (*of, at) {
            (Some(before), Some(at)) if before <= at => {} // Too early, and so left to come.
            (before, Some(at)) => {
                if let Some(before) = before {
                    self.order.remove(&(before, slot));
                }
                *of = Some(at);
                self.order.insert((at, slot));
            }
            (_, None) => {} // Left to come as well.
        }
    }

    /// Forgets a group.
    pub(super) fn forget(&mut self, slot: Slot) {
        if let Some(at) = self.of.get_mut(slot).and_then(Option::take) {
            self.order.remove(&(at, slot));
        }
    }

    /// The next group whose time has come.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Slot> {
        let (_, slot) = *self.order.first().filter(|(at, _)| *at <= now)?;
        self.order.pop_first();
        self.of[slot] = None;
        Some(slot)
    }

    /// Ready when the time of a group has come.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(&(at, _)) = self.order.first() else { return Poll::Pending };
        loop {
            let (ends, sleep) = match &mut self.armed {
                Some((ends, sleep)) if *ends <= at => (*ends, sleep),
                _ => {
                    let sleep = Box::pin(self.rt.sleep_until(at));
                    let (ends, sleep) = self.armed.insert((at, sleep));
                    (*ends, sleep)
                }
            };
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.armed = None;
            if ends == at {
                return Poll::Ready(());
            }
        }
    }
}
