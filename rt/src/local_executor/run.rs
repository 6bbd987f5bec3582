//! An executor that is the main future of its backend.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::turns::Turns;
use super::{Core, Current};
use crate::blocking_threads::BlockingThreads;
use crate::yield_now;

/// Runs `main` and the tasks that it starts, until `main` ends. Then drops the tasks, waits for the
/// vital ones and the blocking work, and gives the backend a last turn. `nap` makes a timer of the
/// backend: it may be late, and should not be early.
///
/// The error is what `main` panicked with.
pub async fn run<M, S>(
    blocking: BlockingThreads,
    main: M,
    nap: impl Fn(Duration) -> S,
) -> Result<M::Output, Box<dyn Any + Send>>
where
    M: Future,
    S: Future,
{
    let core = Core::new(blocking, None);
    // Also if this future is dropped before its end.
    let _current = Current::enter(&core);

    let outcome = RefCell::new(None);
    let mut turns = Turns::new(core.clone(), nap);
    turns.tasks.push(Box::pin(async {
        let mut main = pin!(main);
        let result = poll_fn(|context| {
            core.begin_poll();
            match catch_unwind(AssertUnwindSafe(|| main.as_mut().poll(context))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        })
        .await;
        *outcome.borrow_mut() = Some(result);
    }));

    turns.run_until(|_| outcome.borrow().is_some(), &mut async || yield_now().await).await;
    turns.close(&mut async || yield_now().await).await;
    drop(turns);
    outcome.into_inner().expect("the main future has ended")
}
