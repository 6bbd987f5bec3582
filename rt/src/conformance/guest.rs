//! A runtime that is attached to a program, as one to run the suite on: its `run` is the program.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;

use crate::{
    AsyncRuntime, Attached, ContinuousInstant, Executor, Files, Instant, Launch, Network, OpenMode,
};

/// A program that runs on a runtime of its own.
pub trait Program: Clone + 'static {
    /// The runtime that it attaches.
    type Guest: AsyncRuntime;

    /// Runs `main` on the program's own runtime, and in none of Quorate's.
    ///
    /// # Errors
    /// The runtime could not be built.
    fn run<T>(options: &Launch, main: impl AsyncFnOnce() -> T) -> io::Result<T>;

    /// Attaches the runtime.
    ///
    /// # Errors
    /// Those of the backend.
    fn attach() -> io::Result<Attached<Self::Guest>>;

    /// Starts a task of the program, by the means of its own runtime.
    fn spawn(task: impl Future<Output = ()> + 'static);

    /// Waits, by the means of the program's own runtime.
    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static;
}

/// A runtime that is attached to a program.
#[derive(Clone, Debug)]
pub struct Guest<P: Program> {
    rt: P::Guest,
}

impl<P: Program> Executor for Guest<P> {
    type Task<T: 'static> = <P::Guest as Executor>::Task<T>;
    type Sleep = <P::Guest as Executor>::Sleep;

    fn now(&self) -> Instant {
        self.rt.now()
    }

    fn coarse_now(&self) -> Instant {
        self.rt.coarse_now()
    }

    fn continuous_now(&self) -> ContinuousInstant {
        self.rt.continuous_now()
    }

    fn wall_clock(&self) -> u64 {
        self.rt.wall_clock()
    }

    fn random(&self) -> u64 {
        self.rt.random()
    }

    fn spawn<F>(&self, future: F) -> Self::Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.rt.spawn(future)
    }

    fn spawn_blocking<F, T>(&self, work: F) -> Self::Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.rt.spawn_blocking(work)
    }

    fn sleep_until(&self, deadline: Instant) -> Self::Sleep {
        self.rt.sleep_until(deadline)
    }

    /// The case is a task of the program, outside of the executor's turns.
    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        let outcome = P::run(options, async || {
            let attached = P::attach().expect("it attaches");
            let main = main(Self { rt: attached.rt() });
            let outcome = AssertUnwindSafe(main).catch_unwind().await;
            attached.close().await;
            outcome
        })?;
        Ok(outcome.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl<P: Program> Network for Guest<P> {
    type Listener = <P::Guest as Network>::Listener;
    type Stream = <P::Guest as Network>::Stream;

    async fn listen(&self, on: SocketAddr) -> io::Result<Self::Listener> {
        self.rt.listen(on).await
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream> {
        self.rt.connect(to).await
    }
}

impl<P: Program> Files for Guest<P> {
    type File = <P::Guest as Files>::File;
    type FileLock = <P::Guest as Files>::FileLock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File> {
        self.rt.open(path, mode).await
    }

    async fn lock_file(&self, path: &Path) -> io::Result<Self::FileLock> {
        self.rt.lock_file(path).await
    }
}
