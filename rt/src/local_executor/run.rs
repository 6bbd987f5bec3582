//! An executor that is the main future of its backend.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::turns::{Turn, Turns};
use super::{Core, enter_thread, leave_thread};
use crate::blocking_threads::BlockingThreads;
use crate::yield_now;

async fn run_until<'a>(turns: &mut Turns<'a>, done: impl Fn(&Turns<'a>) -> bool) {
    while let Turn::Over = poll_fn(|context| turns.poll_until(context, &done)).await {
        yield_now().await;
    }
}

/// Runs `main` and the tasks that it starts, until `main` ends. Then drops the tasks, waits for the
/// vital ones and the blocking work, and gives the backend a last turn. `nap` makes a timer of the
/// backend: it may be late, and should not be early.
///
/// The error is what `main` panicked with.
pub async fn run<M, S>(
    blocking: BlockingThreads,
    main: M,
    nap: impl Fn(Duration) -> S + 'static,
) -> Result<M::Output, Box<dyn Any + Send>>
where
    M: Future,
    S: Future<Output = ()> + 'static,
{
    let core = Core::new(blocking, None);
    enter_thread(&core);
    let _leave = Leave(&core);

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

    run_until(&mut turns, |_| outcome.borrow().is_some()).await;
    turns.drop_tasks();
    run_until(&mut turns, |_| core.is_settled()).await;
    turns.last_turn().await;
    core.close();
    drop(turns);
    outcome.into_inner().expect("the main future has ended")
}

/// Leaves the thread, also if the future is dropped before its end.
struct Leave<'a>(&'a Rc<Core>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        leave_thread(self.0);
    }
}
