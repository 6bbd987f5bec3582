//! The threads that run a runtime's blocking work: one from the start to the end of the runtime,
//! and more while there is more work at once.
//!
//! Every production backend has its own: those of other libraries panic when the operating system
//! refuses them a thread.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;

use crate::TaskError;
use crate::outstanding::Outstanding;

/// More work than this at once waits in line. It is file work for the most part: far fewer keep a
/// disk busy.
const MOST_THREADS: usize = 64;

/// How long a thread waits for work before it ends; the last one stays.
const PATIENCE: Duration = Duration::from_secs(10);

/// A piece of work, which tells the threads its number when it has ended, before anybody hears of
/// its result. It catches its own panics.
type Work = Box<dyn FnOnce(&Shared, u64) + Send>;

/// What runs on a thread of its own, or is done by one.
type Call = Box<dyn FnOnce() + Send>;

/// The threads for blocking work of one runtime.
///
/// The operating system may refuse a thread (`RLIMIT_NPROC`, the `pids` limit of a control group).
/// The first one is started with the runtime and stays, so that work goes on, if slower. A refused
/// thread is asked for again with the next piece of work, and when a thread takes one up while
/// others wait. Refusals are logged once, and so is their end.
pub struct BlockingThreads {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    ended: Condvar,
    start_thread: Box<dyn Fn(Call) -> io::Result<()> + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// Not bounded here: each piece has a task that waits for it, and whoever starts that bounds
    /// it.
    line: VecDeque<(u64, Work)>,
    outstanding: Outstanding<Call>,
    threads: usize,
    idle: usize,
    closed: bool,
    /// The last thread that was asked for.
    is_refused: bool,
}

/// The result of a piece of blocking work. Dropping it forgets the result; the work goes on.
#[derive(Debug)]
pub struct Blocking<T> {
    outcome: oneshot::Receiver<Result<T, TaskError>>,
}

impl<T> Future for Blocking<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(context));
        Poll::Ready(outcome.unwrap_or(Err(TaskError::Cancelled)))
    }
}

impl BlockingThreads {
    /// Starts the first thread.
    ///
    /// # Errors
    /// The operating system refuses it.
    #[expect(clippy::disallowed_methods, reason = "for production backends")]
    pub fn start() -> io::Result<Self> {
        Self::start_by(|body| {
            thread::Builder::new().name("quorate-blocking".to_owned()).spawn(body).map(drop)
        })
    }

    fn start_by(
        start_thread: impl Fn(Call) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            arrived: Condvar::new(),
            ended: Condvar::new(),
            start_thread: Box::new(start_thread),
        });
        shared.start_another(&mut shared.state()).map_err(|error| {
            let reason = "no thread for blocking work can be started; the limit on processes \
                          (RLIMIT_NPROC, or pids of the control group) may be reached";
            io::Error::new(error.kind(), format!("{reason}: {error}"))
        })?;
        Ok(Self { shared })
    }

    /// Runs `work` on one of the threads, as soon as one is free.
    pub fn run<F, T>(&self, work: F) -> Blocking<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (sender, outcome) = oneshot::channel();
        self.submit(Box::new(move |shared, number| {
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(TaskError::from_panic);
            shared.has_ended(number);
            // Where nobody waits for it any more it is dropped here, which may panic.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(sender.send(outcome))));
        }));
        Blocking { outcome }
    }

    fn submit(&self, work: Work) {
        let shared = &self.shared;
        let mut state = shared.state();
        let number = state.outstanding.begin();
        state.line.push_back((number, work));
        if state.idle >= state.line.len() {
            shared.arrived.notify_one();
            return;
        }
        shared.try_another(state);
    }

    /// Waits until the work has ended that was submitted before this call.
    pub fn until_done(&self) -> impl Future<Output = ()> + use<> {
        let (sender, done) = oneshot::channel();
        self.after_work(move || {
            let _ = sender.send(());
        });
        done.map(|_| ())
    }

    /// Does something short when the work has ended that was submitted before this call: at once,
    /// or on the thread that ends the last of it.
    pub fn after_work(&self, what: impl FnOnce() + Send + 'static) {
        let at_once = self.shared.state().outstanding.after(Box::new(what));
        if let Some(what) = at_once {
            what();
        }
    }

    /// Ends the threads, after the work that is left.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.arrived.notify_all();
    }

    /// The same, and waits for their end.
    pub fn join(&self) {
        self.close();
        let state = self.shared.state();
        let all_ended = self.shared.ended.wait_while(state, |state| state.threads > 0);
        drop(all_ended.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_ended(&self, number: u64) {
        let waiting = self.state().outstanding.end(number);
        for what in waiting {
            let _ = catch_unwind(AssertUnwindSafe(what));
        }
    }

    /// Starts a thread more, unless there are enough.
    fn start_another(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.threads == MOST_THREADS {
            return Ok(());
        }
        let shared = Arc::clone(self);
        (self.start_thread)(Box::new(move || shared.work()))?;
        state.threads += 1;
        Ok(())
    }

    /// The same; a refusal is logged, unless the last thread was refused, too.
    fn try_another(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let started = self.start_another(&mut state);
        let was_refused = std::mem::replace(&mut state.is_refused, started.is_err());
        let threads = state.threads;
        drop(state);
        match started {
            Err(error) if !was_refused => {
                tracing::warn!(
                    %error,
                    threads,
                    "a thread for blocking work is refused (see RLIMIT_NPROC, and pids of the \
                     control group); work waits for the threads there are, and others are tried for"
                );
            }
            Ok(()) if was_refused => {
                tracing::info!(threads, "threads for blocking work can be started again");
            }
            _ => {}
        }
    }

    fn work(self: Arc<Self>) {
        let mut state = self.state();
        loop {
            while let Some((number, work)) = state.line.pop_front() {
                if state.is_refused && state.idle == 0 && !state.line.is_empty() {
                    self.try_another(state);
                } else {
                    drop(state);
                }
                work(&self, number);
                state = self.state();
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let timed_out;
            (state, timed_out) = self.wait(state);
            state.idle -= 1;
            if timed_out && state.line.is_empty() && state.threads > 1 {
                break;
            }
        }
        state.threads -= 1;
        self.ended.notify_all();
    }

    /// Waits for work, and tells whether that took too long. The last thread has no hurry.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
        if state.threads == 1 {
            let state = self.arrived.wait(state);
            return (state.unwrap_or_else(PoisonError::into_inner), false);
        }
        let waited = self.arrived.wait_timeout(state, PATIENCE);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (state, waited.timed_out())
    }
}

impl std::fmt::Debug for BlockingThreads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = self.shared.state().threads;
        f.debug_struct("BlockingThreads").field("threads", &threads).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "threads are what is tested")]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures::executor::block_on;

    use super::*;

    /// Threads of which as many may be started as `left` says.
    fn limited(left: &Arc<AtomicUsize>) -> io::Result<BlockingThreads> {
        let left = Arc::clone(left);
        BlockingThreads::start_by(move |body| {
            let take = |left: usize| left.checked_sub(1);
            match left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take) {
                Ok(_) => thread::Builder::new().spawn(body).map(drop),
                Err(_) => Err(io::ErrorKind::WouldBlock.into()),
            }
        })
    }

    #[test]
    fn work_is_done_by_the_thread_that_stays_while_others_are_refused() {
        let threads = limited(&Arc::new(AtomicUsize::new(1))).unwrap();
        let work: Vec<_> = (0..100).map(|number| threads.run(move || number)).collect();
        for (number, work) in work.into_iter().enumerate() {
            assert_eq!(block_on(work), Ok(number));
        }
        threads.join();
    }

    #[test]
    fn a_refused_thread_is_asked_for_again_with_the_next_work() {
        let left = Arc::new(AtomicUsize::new(1));
        let threads = limited(&left).unwrap();
        let (go, gone) = mpsc::channel();
        let waits = threads.run(move || gone.recv());
        let refused = threads.run(|| 1); // Waits for the only thread, which waits.
        left.store(1, Ordering::Release);
        let sends = threads.run(move || go.send(7));
        assert_eq!(block_on(sends), Ok(Ok(())), "on a second thread");
        assert_eq!(block_on(waits), Ok(Ok(7)));
        assert_eq!(block_on(refused), Ok(1));
        threads.join();
    }

    #[test]
    fn a_refused_thread_is_asked_for_again_when_work_is_taken_up() {
        let left = Arc::new(AtomicUsize::new(1));
        let threads = limited(&left).unwrap();
        let (begin, begun) = mpsc::channel::<()>();
        let first = threads.run(move || begun.recv());
        let (go, gone) = mpsc::channel();
        let waits = threads.run(move || gone.recv());
        let sends = threads.run(move || go.send(7));
        left.store(1, Ordering::Release);
        begin.send(()).unwrap(); // The only thread ends its work and takes up the next.
        assert_eq!(block_on(sends), Ok(Ok(())), "on a second thread");
        assert_eq!(block_on(waits), Ok(Ok(7)));
        assert_eq!(block_on(first), Ok(Ok(())));
        threads.join();
    }

    #[test]
    fn who_waits_for_work_does_not_wait_for_later_work() {
        let threads = BlockingThreads::start().unwrap();
        block_on(threads.until_done());
        let (go, gone) = mpsc::channel::<()>();
        let first = threads.run(move || gone.recv());
        let mut done = pin!(threads.until_done());
        let (end, ended) = mpsc::channel::<()>();
        let later = threads.run(move || ended.recv());
        assert_eq!(done.as_mut().now_or_never(), None);
        go.send(()).unwrap();
        block_on(done);
        end.send(()).unwrap();
        block_on(threads.until_done());
        assert_eq!((block_on(first), block_on(later)), (Ok(Ok(())), Ok(Ok(()))));
        threads.join();
    }

    #[test]
    fn a_result_that_panics_when_it_is_dropped_ends_no_thread() {
        struct PanicsOnDrop;
        impl Drop for PanicsOnDrop {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let threads = BlockingThreads::start().unwrap();
        drop(threads.run(|| PanicsOnDrop));
        assert_eq!(block_on(threads.run(|| 7)), Ok(7));
        threads.join();
    }

    #[test]
    fn the_first_thread_is_needed() {
        let error = limited(&Arc::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("RLIMIT_NPROC"), "{error}");
    }

    #[test]
    fn all_work_is_done_before_the_threads_end() {
        let threads = BlockingThreads::start().unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..200 {
            let done = Arc::clone(&done);
            drop(threads.run(move || done.fetch_add(1, Ordering::AcqRel)));
        }
        threads.join();
        assert_eq!(done.load(Ordering::Acquire), 200);
    }
}
