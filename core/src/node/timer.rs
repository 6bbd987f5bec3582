//! The one timer of a node.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use quorate_rt::{AsyncRuntime, Instant};

/// Wakes a task at a time that moves. Elections are put off by every append; so as not to arm a timer each time, one that
/// ends too early is left to end, and only then armed anew.
pub(super) struct Timer<R: AsyncRuntime> {
    rt: R,
    at: Option<Instant>,
    armed: Option<(Instant, Pin<Box<R::Sleep>>)>,
}

impl<R: AsyncRuntime> Timer<R> {
    pub(super) fn new(rt: R) -> Self {
        Self { rt, at: None, armed: None }
    }

    pub(super) fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    /// For how long it has been due, if it is.
    pub(super) fn due_for(&self, now: Instant) -> Duration {
        self.at.map_or(Duration::ZERO, |at| now - at)
    }

    /// Ready when the time has come.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
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
