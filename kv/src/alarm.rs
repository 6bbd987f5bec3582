//! Time limits that cost little where they are hardly ever reached.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures::future::{Either, select};
use quorate::Executor;
use quorate::rt::Instant;

/// Limits the time of one wait after the other. A timer that an earlier wait has left is used
/// again, so a busy connection arms one now and then and not one for each wait.
pub(crate) struct Alarm<R: Executor> {
    rt: R,
    /// With the time at which it ends.
    timer: Option<(Instant, Pin<Box<R::Sleep>>)>,
}

impl<R: Executor> Alarm<R> {
    pub(crate) fn new(rt: R) -> Self {
        Self { rt, timer: None }
    }

    /// The future's result; none, and the future dropped, if it has none after this time.
    pub(crate) async fn within<F: Future>(
        &mut self,
        limit: Duration,
        future: F,
    ) -> Option<F::Output> {
        let deadline = self.rt.now() + limit;
        self.until(deadline, future).await
    }

    /// The same with a deadline.
    pub(crate) async fn until<F: Future>(
        &mut self,
        deadline: Instant,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        loop {
            // One that ends too early is waited for, and one that ends too late is of no use.
            let timer = match self.timer.take().filter(|(ends, _)| *ends <= deadline) {
                Some(timer) => self.timer.insert(timer),
                None => self.timer.insert((deadline, Box::pin(self.rt.sleep_until(deadline)))),
            };
            match select(future.as_mut(), timer.1.as_mut()).await {
                Either::Left((output, _)) => return Some(output),
                Either::Right(_) => self.timer = None,
            }
            if self.rt.now() >= deadline {
                return None;
            }
        }
    }
}
