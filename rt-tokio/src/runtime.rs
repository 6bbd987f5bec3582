//! The runtime itself.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use quorate_rt::blocking::{self, BlockingFile, FileLock, offload};
use quorate_rt::blocking_threads::BlockingThreads;
use quorate_rt::{
    ContinuousInstant, Driver, Executor, Files, Instant, Launch, Network, OpenMode,
    system_wall_clock,
};
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::Sleep;

use crate::{TokioListener, TokioStream, TokioTask};

/// tokio, on one thread. It has no io_uring: [`Driver::Uring`] is refused, `Auto` and `Poll` are
/// epoll.
///
/// When [`run`](Executor::run) ends it waits for the blocking work that has begun, file operations
/// among it, so that nothing is written behind the back of who opens the same files next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

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
        TokioTask::new(tokio::task::spawn_local(future))
    }

    fn spawn_blocking<F, T>(&self, work: F) -> TokioTask<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        CURRENT.with_borrow(|threads| {
            let threads = threads.as_ref();
            let threads =
                threads.expect("the methods of a runtime are called on its thread, inside of run");
            TokioTask::blocking(threads.run(work))
        })
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
        offload(self, move || blocking::lock_file(&path)).await
    }
}

thread_local! {
    static CURRENT: RefCell<Option<BlockingThreads>> = const { RefCell::new(None) };
}

/// The threads for blocking work of this thread's runtime. When it is dropped, it waits for the
/// work that is left.
struct Threads;

impl Threads {
    fn start() -> io::Result<Self> {
        if CURRENT.with_borrow(Option::is_some) {
            return Err(io::Error::other("a runtime runs on this thread already"));
        }
        CURRENT.set(Some(BlockingThreads::start()?));
        Ok(Self)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(threads) = CURRENT.take() {
            threads.join();
        }
    }
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
