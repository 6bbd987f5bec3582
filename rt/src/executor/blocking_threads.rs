//! The threads that run an executor's blocking work: as many as there is work at once, ending when they have had none for
//! a while.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// More work than this at once waits in line. It is file work for the most part: far fewer keep a disk busy.
const MOST_THREADS: usize = 64;

/// How long a thread waits for work before it ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// It catches its own panics.
type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
pub(super) struct BlockingThreads {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    /// Not bounded here: each piece has a task that waits for it, and whoever starts that bounds it.
    line: VecDeque<Work>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            while let Some(work) = state.line.pop_front() {
                drop(state);
                work();
                state = self.state();
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let waited = self.arrived.wait_timeout(state, PATIENCE);
            let timed_out;
            (state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            if timed_out.timed_out() && state.line.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl BlockingThreads {
    /// Runs `work`, or drops it if it is the first and no thread can be started.
    #[expect(clippy::disallowed_methods, reason = "for production backends")]
    pub(super) fn submit(&self, work: Work) {
        let mut state = self.shared.state();
        state.line.push_back(work);
        if state.idle >= state.line.len() {
            self.shared.arrived.notify_one();
            return;
        }
        if state.threads == MOST_THREADS {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let started =
            thread::Builder::new().name("quorate-blocking".to_owned()).spawn(move || shared.work());
        match started {
            Ok(_) => state.threads += 1,
            Err(error) => {
                tracing::warn!(%error, threads = state.threads, "no thread for blocking work");
                if state.threads == 0 {
                    state.line.clear();
                }
            }
        }
    }

    /// Ends the threads, after the work that is left.
    pub(super) fn close(&self) {
        self.shared.state().closed = true;
        self.shared.arrived.notify_all();
    }
}
