//! An executor for backends whose own tasks don't fulfil the contract of
//! [`Executor`](crate::Executor): monoio's know no cancellation and take their thread down when
//! they panic, its timers starve while tasks are runnable, and it leaks what still waits when the
//! runtime ends; compio's wake-ups from other threads spin on a queue of 64 places.
//!
//! The executor is one future, which the backend drives. All the tasks live in it, so the backend
//! sees a single waker: a burst of wake-ups, from whichever thread, costs one wake-up of the
//! backend. The backend is left with what it is good at: completing I/O, and one timer for the time
//! that nothing is runnable.
//!
//! | file | what it is for |
//! | --- | --- |
//! | `run` | an executor that is the backend's main future, and ends with it |
//! | `attach` | an executor that is one task of a program that runs on the backend |
//! | `turns` | the turns of both: polling the tasks, and when it is the backend's turn |
//! | `timer`, `waker` | timers; how a runnable task wakes the executor |

mod attach;
mod run;
#[cfg(test)]
mod tests;
mod timer;
mod turns;
mod waker;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

pub use self::attach::{Attachment, attach, join};
pub use self::run::run;
pub use self::timer::Sleep;
use self::timer::Timers;
use self::waker::ExecutorWaker;
use crate::blocking_threads::BlockingThreads;
use crate::local_task::Entry;
pub use crate::local_task::LocalTask;
use crate::outstanding::Outstanding;
use crate::{Instant, TaskError};

/// How many operations in a row a task may do that need no waiting.
const OPERATIONS_PER_POLL: u32 = 64;

type BoxedEntry<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// What the tasks of an executor, and others on its thread, reach of it.
struct Core {
    waker: Arc<ExecutorWaker>,
    /// Started, and not yet in the set: that one is borrowed while a task of it runs.
    started: RefCell<Vec<BoxedEntry<'static>>>,
    started_vital: RefCell<Vec<BoxedEntry<'static>>>,
    timers: RefCell<Timers>,
    blocking: BlockingThreads,
    /// Its tasks are being polled. What others on this thread do meanwhile has to wake it.
    in_turn: Cell<bool>,
    /// Of tasks, since the backend was last known to have had its turn.
    polls: Cell<u32>,
    /// How many operations the task has done in this poll of it; see [`cooperate`].
    operations_of_poll: Cell<u32>,
    /// It is ending: nothing is started any more.
    closing: Cell<bool>,
    /// The vital operations, and what waits for their end.
    operations: RefCell<Outstanding<Box<dyn FnOnce()>>>,
    /// None under [`run`].
    attached: Option<attach::Users>,
}

impl Core {
    fn new(blocking: BlockingThreads, attached: Option<attach::Users>) -> Rc<Self> {
        Rc::new(Self {
            waker: Arc::default(),
            started: RefCell::default(),
            started_vital: RefCell::default(),
            timers: RefCell::default(),
            blocking,
            in_turn: Cell::new(false),
            polls: Cell::new(0),
            operations_of_poll: Cell::new(0),
            closing: Cell::new(false),
            operations: RefCell::default(),
            attached,
        })
    }

    fn begin_poll(&self) {
        self.polls.set(self.polls.get() + 1);
        self.operations_of_poll.set(0);
    }

    /// No operation is under way that has to be brought to its end.
    fn is_settled(&self) -> bool {
        self.operations.borrow().is_empty()
    }

    /// The executor has ended.
    fn close(&self) {
        self.waker.close();
        timer::end(&self.timers);
    }

    /// Does something when the vital operations have ended that have begun.
    fn after_operations(&self, what: impl FnOnce() + 'static) {
        let at_once = self.operations.borrow_mut().after(Box::new(what));
        if let Some(what) = at_once {
            what();
        }
    }

    /// Something is to be looked at, which the executor sees by itself in its turn.
    fn wake(&self) {
        if !self.in_turn.get() {
            self.waker.wake_by_ref();
        }
    }
}

fn current() -> Rc<Core> {
    CURRENT.with_borrow(Clone::clone).expect(
        "the methods of a runtime are called on its thread, inside of run or while it is attached",
    )
}

/// From here on the executor is that of this thread.
fn enter_thread(core: &Rc<Core>) {
    assert!(!is_running(), "one executor runs on a thread at a time");
    CURRENT.set(Some(Rc::clone(core)));
}

/// The executor has ended. Its threads for blocking work end after the work that is left.
fn leave_thread(core: &Rc<Core>) {
    core.blocking.close();
    CURRENT.with_borrow_mut(|current| current.take_if(|current| Rc::ptr_eq(current, core)));
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
        core.started.borrow_mut().push(Box::pin(counted(&core, entry)));
        core.wake();
    }
    task
}

/// Runs an operation to its end, even if this future is dropped, or the executor begins to end,
/// before. For operations that use a buffer or a file until they complete, and that complete by
/// themselves. A panic in it goes on here.
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
    let number = core.operations.borrow_mut().begin();
    let mut end = Some(End { core: Rc::clone(&core), number });
    let mut entry = counted(&core, entry);
    core.started_vital.borrow_mut().push(Box::pin(poll_fn(move |context| {
        let polled = Pin::new(&mut entry).poll(context);
        if polled.is_ready() {
            drop(end.take()); // What it held is dropped by now.
        }
        polled
    })));
    core.wake();
    task
}

/// The end of a vital operation.
struct End {
    core: Rc<Core>,
    number: u64,
}

impl Drop for End {
    fn drop(&mut self) {
        let waiting = self.core.operations.borrow_mut().end(self.number);
        for what in waiting {
            what();
        }
    }
}

/// Returns what does something when the operations and the blocking work have ended that have begun
/// by then. For what must outlive them, as the lock of a folder whose files they write.
pub fn after_operations() -> impl Fn(Box<dyn FnOnce()>) + 'static {
    let core = current();
    move |what| core.after_operations(what)
}

/// Counts the polls of a task.
fn counted<F: Future<Output = ()> + Unpin + 'static>(core: &Rc<Core>, entry: F) -> Counted<F> {
    Counted { core: Rc::clone(core), entry }
}

struct Counted<F> {
    core: Rc<Core>,
    entry: F,
}

impl<F: Future<Output = ()> + Unpin> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.core.begin_poll();
        Pin::new(&mut self.entry).poll(context)
    }
}

/// Runs work on a blocking thread; see
/// [`Executor::spawn_blocking`](crate::Executor::spawn_blocking). The executor waits for it before
/// it ends.
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
    let mut waited = false;
    poll_fn(|context| {
        let core = current();
        let operations = core.operations_of_poll.get();
        if operations < OPERATIONS_PER_POLL || mem::replace(&mut waited, true) {
            core.operations_of_poll.set(operations % OPERATIONS_PER_POLL + 1);
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A timer; see [`Executor::sleep_until`](crate::Executor::sleep_until).
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep::new(deadline, current())
}
