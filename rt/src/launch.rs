//! How a runtime is started: its thread, its core and its driver.

use std::io;
use std::thread;

use rustix::thread::{CpuSet, sched_setaffinity};

/// How a runtime talks to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the backend and the kernel have it, otherwise polling. A fallback is logged
    /// once, as a warning.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Readiness polling (epoll). File work then runs on threads of its own.
    Poll,
}

/// How to start a runtime.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The name of the thread that [`Executor::launch`](crate::Executor::launch) starts.
    pub name: String,
    /// The core to which that thread is pinned; none leaves it to the kernel's scheduler.
    pub core: Option<usize>,
    /// How the runtime talks to the kernel.
    pub driver: Driver,
}

impl Launch {
    /// An unpinned thread of that name, with the best driver there is.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Runs `body` on a new thread with this name, on this core.
    #[expect(clippy::disallowed_methods, reason = "a runtime is being launched")]
    pub(crate) fn thread<F, T>(self, body: F) -> io::Result<thread::JoinHandle<io::Result<T>>>
    where
        F: FnOnce(&Self) -> io::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        thread::Builder::new().name(self.name.clone()).spawn(move || {
            if let Some(core) = self.core {
                let mut cores = CpuSet::new();
                if core >= CpuSet::MAX_CPU {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidInput,
                        format!("core {core} is beyond the largest that can be named"),
                    ));
                }
                cores.set(core);
                sched_setaffinity(None, &cores)?;
            }
            body(&self)
        })
    }
}
