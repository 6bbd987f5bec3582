//! An executor for backends whose own tasks don't fulfil the contract of
//! [`Executor`](crate::Executor): monoio's know no cancellation and take their thread down when
//! they panic, its timers starve while tasks are runnable, and it leaks what still waits when the
//! runtime ends; compio's wake-ups from other threads spin on a queue of 64 places.
//!
//! [`run`] is one future that a backend's own `block_on` drives. All the tasks live in it, so the
//! backend sees a single waker: a burst of wake-ups, from whichever thread, costs one wake-up of
//! the backend. The backend is left with what it is good at: completing I/O, and one timer for the
//! time that nothing is runnable.

#[cfg(test)]
mod tests;
mod timer;
mod waker;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};

pub use self::timer::Sleep;
use self::timer::Timers;
use self::waker::ExecutorWaker;
use crate::blocking_threads::BlockingThreads;
use crate::local_task::Entry;
pub use crate::local_task::LocalTask;
use crate::{Instant, TaskError};

/// How often tasks are polled before the backend gets to its I/O: enough to make a system call per
/// turn cheap, and few enough that a socket waits for microseconds.
const POLLS_PER_TURN: u32 = 128;

/// The backend's timer is set at most this far ahead; monoio's can't go beyond two years.
const LONGEST_NAP: Duration = Duration::from_secs(3600);

/// How long the backend runs on when everything is dropped. The kernel cancels what waits on a
/// socket in the very call that asks for it, so one turn is enough; after it no buffer of a dropped
/// operation is in use.
const LAST_TURN: Duration = Duration::from_millis(1);

/// How many operations in a row a task may do that need no waiting.
const OPERATIONS_PER_POLL: u32 = 64;

type BoxedEntry<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// What the tasks of a running executor reach of it.
struct Core {
    /// Started, and not yet in the set: that one is borrowed while a task of it runs.
    started: RefCell<Vec<BoxedEntry<'static>>>,
    started_vital: RefCell<Vec<BoxedEntry<'static>>>,
    timers: RefCell<Timers>,
    blocking: BlockingThreads,
    /// Of tasks, in this turn.
    polls: Cell<u32>,
    /// How many operations the task has done in this poll of it; see [`cooperate`].
    operations: Cell<u32>,
    /// The main future has ended: nothing is started any more.
    closing: Cell<bool>,
}

impl Core {
    fn begin_poll(&self) {
        self.polls.set(self.polls.get() + 1);
        self.operations.set(0);
    }
}

fn current() -> Rc<Core> {
    CURRENT
        .with_borrow(Clone::clone)
        .expect("the methods of a runtime are called on its thread, inside of run")
}

/// Whether an executor runs on this thread. A second one can't.
pub fn is_running() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

/// Starts a task; see [`Executor::spawn`](crate::Executor::spawn).
pub fn spawn<F>(future: F) -> LocalTask<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let core = current();
    let (entry, task) = Entry::new(async { Ok(future.await) });
    if !core.closing.get() {
        core.started.borrow_mut().push(counted(&core, entry));
    }
    task
}

/// Runs an operation to its end, even if this future is dropped, or the main one ends, before. For
/// operations that use a buffer or a file until they complete, and that complete by themselves. A
/// panic in it goes on here.
pub async fn complete<F>(operation: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    match start_vital(async { Ok(operation.await) }).await {
        Ok(output) => output,
        Err(error) => panic!("{error}"),
    }
}

fn start_vital<F, T>(future: F) -> LocalTask<T>
where
    F: Future<Output = Result<T, TaskError>> + 'static,
    T: 'static,
{
    let core = current();
    let (entry, mut task) = Entry::new(future);
    task.keep_alive();
    core.started_vital.borrow_mut().push(counted(&core, entry));
    task
}

/// Counts the polls of a task.
fn counted(
    core: &Rc<Core>,
    mut entry: impl Future<Output = ()> + Unpin + 'static,
) -> BoxedEntry<'static> {
    let core = Rc::clone(core);
    Box::pin(poll_fn(move |context| {
        core.begin_poll();
        Pin::new(&mut entry).poll(context)
    }))
}

/// Runs work on a blocking thread; see
/// [`Executor::spawn_blocking`](crate::Executor::spawn_blocking). [`run`] waits for it.
pub fn spawn_blocking<F, T>(work: F) -> LocalTask<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    start_vital(current().blocking.run(work))
}

/// Awaited before an operation that may be complete at once, as on a socket that is polled and
/// always ready: lets the others have their turn once in a while, which no peer may prevent by
/// sending without end.
pub async fn cooperate() {
    poll_fn(|context| {
        let core = current();
        let operations = core.operations.get();
        if operations < OPERATIONS_PER_POLL {
            core.operations.set(operations + 1);
            return Poll::Ready(());
        }
        // The next poll counts from 0.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A timer; see [`Executor::sleep_until`](crate::Executor::sleep_until).
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep::new(deadline, current())
}

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
    assert!(!is_running(), "one runtime runs on a thread at a time");
    let core = Rc::new(Core {
        started: RefCell::default(),
        started_vital: RefCell::default(),
        timers: RefCell::default(),
        blocking,
        polls: Cell::new(0),
        operations: Cell::new(0),
        closing: Cell::new(false),
    });
    CURRENT.set(Some(Rc::clone(&core)));
    // Also if this future is dropped before its end.
    let _leave = Leave;

    let outcome = RefCell::new(None);
    let tasks = FuturesUnordered::<BoxedEntry<'_>>::new();
    tasks.push(Box::pin(async {
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

    let executor_waker = Arc::new(ExecutorWaker::default());
    let waker = Waker::from(Arc::clone(&executor_waker));
    let vital = FuturesUnordered::new();
    let mut turns =
        Turns { core: &core, executor_waker, waker, tasks, vital, nap: None, make_nap: nap };

    poll_fn(|context| turns.poll_until(context, |_| outcome.borrow().is_some())).await;

    core.closing.set(true);
    turns.tasks = FuturesUnordered::new();
    drop(core.started.take());
    poll_fn(|context| {
        turns.poll_until(context, |turns| {
            turns.vital.is_empty() && core.started_vital.borrow().is_empty()
        })
    })
    .await;
    (turns.make_nap)(LAST_TURN).await;
    turns.executor_waker.close();
    drop(turns);
    outcome.into_inner().expect("the main future has ended")
}

struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(core) = CURRENT.take() {
            core.blocking.close();
        }
    }
}

struct Turns<'a, 'core, N, S> {
    core: &'core Rc<Core>,
    executor_waker: Arc<ExecutorWaker>,
    waker: Waker,
    tasks: FuturesUnordered<BoxedEntry<'a>>,
    vital: FuturesUnordered<BoxedEntry<'static>>,
    nap: Option<(Instant, Pin<Box<S>>)>,
    make_nap: N,
}

impl<N, S> Turns<'_, '_, N, S>
where
    N: Fn(Duration) -> S,
    S: Future,
{
    /// Polls what is runnable, until `done`, until nothing is runnable, or until it is the
    /// backend's turn.
    fn poll_until(&mut self, backend: &mut Context<'_>, done: impl Fn(&Self) -> bool) -> Poll<()> {
        self.executor_waker.enter(backend.waker());
        self.core.polls.set(0);
        loop {
            // Here and not only in the backend's timer, which it may not look at while we are
            // runnable.
            timer::fire(&self.core.timers);
            self.poll_tasks();
            if done(self) {
                return Poll::Ready(());
            }
            if self.core.polls.get() >= POLLS_PER_TURN {
                backend.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.nap_is_over(backend) {
                continue;
            }
            if self.executor_waker.leave() {
                return Poll::Pending;
            }
        }
    }

    fn poll_tasks(&mut self) {
        let context = &mut Context::from_waker(&self.waker);
        loop {
            self.tasks.extend(self.core.started.borrow_mut().drain(..));
            self.vital.extend(self.core.started_vital.borrow_mut().drain(..));
            // Both are polled, so that both are registered with the signal.
            let ended = [self.tasks.poll_next_unpin(context), self.vital.poll_next_unpin(context)]
                .iter()
                .any(|ended| matches!(ended, Poll::Ready(Some(()))));
            let started = !self.core.started.borrow().is_empty()
                || !self.core.started_vital.borrow().is_empty();
            // A set that has given something back has not looked at the rest.
            if !(ended || started) {
                return;
            }
            if self.core.polls.get() >= POLLS_PER_TURN {
                return;
            }
        }
    }

    /// Sets the backend's timer to the next deadline, and polls it.
    fn nap_is_over(&mut self, backend: &mut Context<'_>) -> bool {
        let Some(deadline) = self.core.timers.borrow().next() else {
            self.nap = None;
            return false;
        };
        // A nap that ends before the deadline is kept: waking once too often is cheaper than
        // setting it anew whenever a timer moves on, and timers that are pushed back over and over
        // are the rule here.
        let (_, nap) = match self.nap.take() {
            Some(nap) if nap.0 <= deadline => self.nap.insert(nap),
            _ => {
                let now = Instant::from_system_clock();
                let length = (deadline - now).min(LONGEST_NAP);
                self.nap.insert((now + length, Box::pin((self.make_nap)(length))))
            }
        };
        let over = nap.as_mut().poll(backend).is_ready();
        if over {
            self.nap = None;
        }
        over
    }
}
