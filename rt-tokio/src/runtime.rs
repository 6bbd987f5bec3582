//! The runtime itself.

use std::io;
use std::net::SocketAddr;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::Duration;

use quorate_rt::blocking::{self, BlockingFile, FileLock, offload};
use quorate_rt::{
    Attached, ContinuousInstant, Driver, Executor, Files, Instant, Launch, Network, OpenMode,
    system_wall_clock,
};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::time::Sleep;

use crate::threads::{self, Attachment, Threads};
use crate::{TokioListener, TokioStream, TokioTask};

/// tokio, on one thread. It has no io_uring: [`Driver::Uring`] is refused, `Auto` and `Poll` are
/// epoll.
///
/// When [`run`](Executor::run) ends it waits for the blocking work that has begun, file operations
/// among it, so that nothing is written behind the back of who opens the same files next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

impl Tokio {
    /// Attaches Quorate to the tokio program that runs on this thread, in a [`LocalSet`] or a
    /// [`LocalRuntime`]. Its tasks are tasks of the program, and have turns with the others; but
    /// they end when the last [`Attached`] of the thread is closed or dropped.
    ///
    /// On a multi-threaded runtime, start nodes on a thread of their own: with `quorate::launch`.
    ///
    /// ```
    /// # use quorate_rt::Executor;
    /// # use quorate_rt_tokio::Tokio;
    /// # fn main() -> std::io::Result<()> {
    /// use tokio::runtime::Builder;
    ///
    /// let local = Builder::new_current_thread().enable_all().build_local(Default::default())?;
    /// local.block_on(async {
    ///     let attached = Tokio::attach()?;
    ///     let rt = attached.rt();
    ///     // Open stores, bind transports and start nodes on `rt` here.
    ///     rt.sleep(std::time::Duration::from_millis(1)).await;
    ///     attached.close().await;
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Unsupported` where no tokio runtime runs on this thread, it runs neither a `LocalSet` nor a
    /// `LocalRuntime` here, or it was built without I/O or timers (tokio's own panic message is
    /// then on standard error, too; with `panic = "abort"`, the process ends). An error if this
    /// thread runs inside of `run`. The operating system's, if a thread for blocking work is
    /// refused.
    ///
    /// [`LocalSet`]: tokio::task::LocalSet
    /// [`LocalRuntime`]: tokio::runtime::LocalRuntime
    pub fn attach() -> io::Result<Attached<Self>> {
        check_surroundings()?;
        Ok(Attached::new(Self, Attachment::join()?))
    }
}

impl Executor for Tokio {
    type Task<T: 'static> = TokioTask<T>;
    type Sleep = Sleep;

    fn now(&self) -> Instant {
        Instant::from_system_clock()
    }

    fn coarse_now(&self) -> Instant {
        Instant::from_coarse_system_clock()
    }

    fn continuous_now(&self) -> ContinuousInstant {
        ContinuousInstant::from_system_clock()
    }

    fn wall_clock(&self) -> u64 {
        system_wall_clock()
    }

    #[expect(clippy::disallowed_methods, reason = "here it comes from")]
    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn spawn<F>(&self, future: F) -> TokioTask<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        TokioTask::new(threads::spawn(future))
    }

    fn spawn_blocking<F, T>(&self, work: F) -> TokioTask<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioTask::blocking(threads::run(work))
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        tokio::time::sleep(deadline - self.now())
    }

    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        if options.driver == Driver::Uring {
            let message = "tokio has no io_uring driver; take monoio or compio, or another driver";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        if Handle::try_current().is_ok() {
            let reason = "this thread runs in a tokio runtime already: use `quorate::launch`, or \
                          `Tokio::attach` in a `LocalSet`";
            return Err(io::Error::other(reason));
        }
        let _threads = Threads::start()?; // Dropped after the runtime, and all that starts work.
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        Ok(runtime.block_on(main(Self)))
    }
}

impl Network for Tokio {
    type Listener = TokioListener;
    type Stream = TokioStream;

    async fn listen(&self, on: SocketAddr) -> io::Result<TokioListener> {
        TokioListener::bind(on)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TokioStream> {
        TokioStream::connect(to).await
    }
}

impl Files for Tokio {
    type File = BlockingFile<Self>;
    type FileLock = FileLock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<BlockingFile<Self>> {
        BlockingFile::open(self, path, mode).await
    }

    async fn lock_file(&self, path: &Path) -> io::Result<FileLock> {
        let path = path.to_owned();
        let file = offload(self, move || blocking::lock_file(&path)).await?;
        Ok(FileLock::new(file, threads::after_work()))
    }
}

/// Whether Quorate's tasks, timers and sockets can be the program's.
fn check_surroundings() -> io::Result<()> {
    let unsupported = |reason| Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    if Handle::try_current().is_err() {
        return unsupported(
            "no tokio runtime runs on this thread: call `Tokio::attach` inside of one, or use \
             `quorate::run`",
        );
    }
    // tokio tells of what it lacks by a panic only.
    if catch_unwind(|| drop(tokio::task::spawn_local(async {}))).is_err() {
        return unsupported(
            "this task of tokio can't start tasks on its thread: run it in a `LocalSet` or on a \
             `LocalRuntime`, or start the node on a thread of its own, with `quorate::launch`",
        );
    }
    if catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_err() {
        return unsupported(
            "this tokio runtime has no timers: build it with `Builder::enable_all`",
        );
    }
    match catch_unwind(UnixStream::pair) {
        Ok(pair) => drop(pair?),
        Err(_) => {
            let reason = "this tokio runtime has no I/O: build it with `Builder::enable_all`";
            return unsupported(reason);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn io_uring_is_refused_and_polling_is_not() {
        let demanding = |driver| Launch { driver, ..Launch::default() };
        let error = Tokio::run(&demanding(Driver::Uring), async |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("io_uring"), "{error}");
        assert!(Tokio::run(&demanding(Driver::Poll), async |_| ()).is_ok());
        assert!(Tokio::run(&demanding(Driver::Auto), async |_| ()).is_ok());
    }
}
