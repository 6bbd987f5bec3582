//! Tasks, time and randomness: what every runtime has.

use std::io;
use std::thread;
use std::time::Duration;

use crate::{ContinuousInstant, Either, Elapsed, Instant, Launch, Task, race};

/// Runs tasks on one thread, tells the time, and draws random numbers.
///
/// The value is a token that is passed along by clone; it is zero-sized in production and holds a
/// node's context in a simulator. Its methods may be called only on the thread of the runtime, from
/// inside [`run`](Executor::run) or [`launch`](Executor::launch).
///
/// # Clocks
/// | method | counts | goes back | is for |
/// | --- | --- | --- | --- |
/// | [`now`](Executor::now) | time awake | never | timers, durations |
/// | [`coarse_now`](Executor::coarse_now) | the same, some ms late | never | finding what is slow |
/// | [`continuous_now`](Executor::continuous_now) | time in suspend, too | never | leases |
/// | [`wall_clock`](Executor::wall_clock) | time since 1970 | when set back | what people read |
pub trait Executor: Clone + 'static {
    /// The handle of a task. Dropping it cancels the task.
    type Task<T: 'static>: Task<T>;
    /// A timer, armed when it is created.
    type Sleep: Future<Output = ()> + 'static;

    /// Returns the time of the runtime's clock, in nanoseconds. It is monotonic, stands still while
    /// the machine is suspended, and is virtual in a simulator. Timers go by it.
    fn now(&self) -> Instant;

    /// Returns the same clock as it was a few milliseconds ago at the most. It is for finding what
    /// takes long: where it costs less than [`now`](Executor::now), it may be read often.
    fn coarse_now(&self) -> Instant {
        self.now()
    }

    /// Returns a clock that also counts the time in which the machine is suspended. It never goes
    /// back. While the machine is awake it advances as [`now`](Executor::now) does, in nanoseconds,
    /// and costs about the same.
    ///
    /// It is for what must end although this machine sleeps, as a lease that others count on: by
    /// `now`, a machine that was suspended for an hour takes its lease for one that still holds.
    /// No timer goes by this clock, so read it when you are woken and before you act.
    ///
    /// Production backends read `CLOCK_BOOTTIME`. Where the system has no such clock this is the
    /// clock of `now`, and time in suspend is not counted. A process that is stopped (`SIGSTOP`) is
    /// not suspended: both clocks go on.
    fn continuous_now(&self) -> ContinuousInstant;

    /// Returns the machine's wall clock, in milliseconds since the Unix epoch (1970-01-01 UTC); 0
    /// if it is set to a time before that. It may be wrong, and goes back when the machine's clock
    /// is set back. Measure durations and deadlines with [`now`](Executor::now).
    fn wall_clock(&self) -> u64;

    /// Returns a random number, any of the 2^64. It is not for cryptography, and is reproducible in
    /// a simulator.
    fn random(&self) -> u64;

    /// Starts a task on this thread.
    ///
    /// A panic in it reaches whoever awaits the handle, as [`TaskError::Panicked`], and nobody
    /// else.
    ///
    /// # Cancellation
    /// Dropping the handle cancels the task: its future is dropped, at the latest when the runtime
    /// next gets to it, and is never polled again. [`Task::detach`] lets the task go on instead.
    ///
    /// [`TaskError::Panicked`]: crate::TaskError::Panicked
    #[must_use = "dropping the handle cancels the task: await it, keep it, or detach it"]
    fn spawn<F>(&self, future: F) -> Self::Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static;

    /// Runs blocking work on another thread. A panic reaches whoever awaits the handle.
    ///
    /// One such thread is there from the start, and up to 64 while there is more work. Where the
    /// operating system refuses more, work waits for those there are. So don't let one piece of
    /// work wait for another.
    ///
    /// # Cancellation
    /// Work can't be cancelled. Dropping the handle forgets its result.
    fn spawn_blocking<F, T>(&self, work: F) -> Self::Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static;

    /// Returns a timer that ends at `deadline`, or at once if that has passed. It runs from its
    /// creation, not from its first poll, and never ends early.
    ///
    /// # Cancellation
    /// Dropping the timer disarms it.
    #[must_use = "a timer does nothing unless it is awaited"]
    fn sleep_until(&self, deadline: Instant) -> Self::Sleep;

    /// Returns a timer that ends `duration` from now; see [`sleep_until`](Executor::sleep_until).
    #[must_use = "a timer does nothing unless it is awaited"]
    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Waits for `future`, at most for `duration` from now on, and returns its result.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use quorate_rt::{Elapsed, Executor};
    /// # async fn example<R: Executor>(rt: R) {
    /// let limit = Duration::from_millis(1);
    /// assert_eq!(rt.timeout(limit, async { 5 }).await, Ok(5));
    /// assert_eq!(rt.timeout(limit, std::future::pending::<()>()).await, Err(Elapsed));
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Elapsed`]: the time has passed. A future that is ready by then gives its result.
    ///
    /// # Cancellation
    /// When the time has passed, the future is dropped, so it must not be I/O, as with
    /// [`race`](crate::race()). To limit the time of I/O, limit that of a task that does it:
    /// `rt.timeout(limit, rt.spawn(io))`.
    fn timeout<F: Future>(
        &self,
        duration: Duration,
        future: F,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> + use<Self, F> {
        let timer = self.sleep(duration);
        async move {
            match race(future, timer).await {
                Either::Left(output) => Ok(output),
                Either::Right(()) => Err(Elapsed),
            }
        }
    }

    /// Runs `main` on this thread until it ends, then drops every task that is left and waits for
    /// the blocking work that has begun. A panic in `main` goes on here.
    ///
    /// # Errors
    /// The runtime could not be built: `options` demand a driver that the backend does not have or
    /// the kernel refuses, the thread for blocking work could not be started, or a runtime runs on
    /// this thread already.
    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static;

    /// Runs `main` on a new thread, named and pinned as `options` say. The future is built there.
    ///
    /// # Errors
    /// No thread could be started. Through the handle: those of [`run`](Executor::run), and
    /// `InvalidInput` or the kernel's error for a core that does not exist.
    fn launch<F, T>(options: Launch, main: F) -> io::Result<thread::JoinHandle<io::Result<T>>>
    where
        F: AsyncFnOnce(Self) -> T + Send + 'static,
        T: Send + 'static,
    {
        options.thread(move |options| Self::run(options, main))
    }
}
