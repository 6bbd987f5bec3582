//! A runtime for tests: tasks, virtual time, and files in memory that count, wait and fail as a
//! test says. There is no network. It makes thousands of recoveries of a log a matter of seconds,
//! and crashes exact.

mod disk;
mod faults;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

pub use self::disk::{Disk, Image, Lock, MemoryFile, Moment};
pub use self::faults::{Faults, Gate};
use crate::local_task::{Entry, LocalTask};
use crate::{ContinuousInstant, Executor, Instant, Launch};

/// A runtime in memory. Its clones share the tasks, the time and the disk.
///
/// Each run is like the other. Time passes only when no task can run, and then up to the next timer
/// at once, or as a test says. Blocking work is done in place. What waits for another thread waits
/// for ever.
#[derive(Clone, Default)]
pub struct Memory {
    tasks: Rc<Tasks>,
    /// What its files are on.
    pub disk: Rc<Disk>,
}

#[derive(Default)]
struct Tasks {
    running: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>>,
    woken: Arc<Woken>,
    now: Cell<Instant>,
    timers: RefCell<BTreeSet<Instant>>,
    drawn: Cell<u64>,
}

/// Whether anything was woken. There are few tasks, so all of them are polled then.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Memory {
    /// The same runtime with another disk, on which this is durable.
    pub fn with(&self, image: &Image) -> Self {
        Self { tasks: Rc::clone(&self.tasks), disk: Rc::new(Disk::with(image)) }
    }

    /// Lets time pass, as something does that takes long.
    pub fn pass(&self, time: Duration) {
        self.tasks.now.update(|now| now + time);
    }

    /// Runs a future to its end, and the tasks meanwhile.
    ///
    /// # Panics
    /// Where the future and all tasks wait for each other.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::clone(&self.tasks.woken));
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return output;
            }
            assert!(self.turn(&waker), "everything waits");
        }
    }

    /// Runs all tasks to their ends.
    ///
    /// # Panics
    /// Where they wait for each other.
    pub fn finish(&self) {
        let waker = Waker::from(Arc::clone(&self.tasks.woken));
        while !self.tasks.running.borrow().is_empty() {
            assert!(self.turn(&waker), "everything waits");
        }
    }

    /// Polls each task once, and lets time pass where none was woken. Whether there is more to do.
    fn turn(&self, waker: &Waker) -> bool {
        let tasks = &self.tasks;
        let mut running = tasks.running.take();
        running.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        running.append(&mut tasks.running.borrow_mut()); // Those that were started meanwhile.
        tasks.running.replace(running);
        if tasks.woken.0.swap(false, Ordering::Relaxed) {
            return true;
        }
        let next = tasks.timers.borrow_mut().pop_first();
        tasks.now.set(tasks.now.get().max(next.unwrap_or_default()));
        next.is_some()
    }
}

impl Executor for Memory {
    type Task<T: 'static> = LocalTask<T>;
    type Sleep = Sleep;

    fn now(&self) -> Instant {
        self.tasks.now.get()
    }

    fn continuous_now(&self) -> ContinuousInstant {
        ContinuousInstant::from_nanos(self.now().as_nanos())
    }

    fn wall_clock(&self) -> u64 {
        /// 2026-01-01 UTC.
        const BEGIN: u64 = 1_767_225_600_000;
        BEGIN + self.now().as_nanos() / 1_000_000
    }

    fn random(&self) -> u64 {
        let drawn = self.tasks.drawn.get() + 1;
        self.tasks.drawn.set(drawn);
        drawn.wrapping_mul(0x9E37_79B9_7F4A_7C15) // Odd: they repeat after 2^64.
    }

    fn spawn<F>(&self, future: F) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let (entry, task) = Entry::new(async { Ok(future.await) });
        self.tasks.running.borrow_mut().push(Box::pin(entry));
        self.tasks.woken.wake_by_ref();
        task
    }

    fn spawn_blocking<F, T>(&self, work: F) -> LocalTask<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (entry, mut task) = Entry::new(async { Ok(work()) });
        task.keep_alive();
        self.tasks.running.borrow_mut().push(Box::pin(entry));
        self.tasks.woken.wake_by_ref();
        task
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { tasks: Rc::clone(&self.tasks), deadline }
    }

    fn run<F, T>(_: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        let rt = Self::default();
        let output = rt.wait(main(rt.clone()));
        // What is dropped may start others, which are dropped, too.
        while !rt.tasks.running.borrow().is_empty() {
            drop(rt.tasks.running.take());
        }
        Ok(output)
    }
}

/// A timer of [`Memory`].
pub struct Sleep {
    tasks: Rc<Tasks>,
    deadline: Instant,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.tasks.now.get() >= self.deadline {
            return Poll::Ready(());
        }
        self.tasks.timers.borrow_mut().insert(self.deadline);
        Poll::Pending
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
