//! The runtime itself, and the choice of its driver.

use std::io;
use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Once;

use compio::driver::op::OpCodeFlag;
use compio::driver::{DriverType, ProactorBuilder};
use compio::runtime::{Runtime, RuntimeBuilder};
use quorate_rt::blocking::{self, FileLock, offload};
use quorate_rt::blocking_threads::BlockingThreads;
use quorate_rt::local_executor::{self, LocalTask, Sleep};
use quorate_rt::{
    Attached, ContinuousInstant, Driver, Executor, Files, Instant, Launch, Network, OpenMode,
    system_wall_clock, yield_now,
};

use crate::{CompioFile, CompioListener, CompioStream};

/// compio, on one thread.
///
/// When [`run`](Executor::run) ends it waits for the file operations and the blocking work that
/// have begun, so that nothing is written behind the back of who opens the same files next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compio;

impl Compio {
    /// Attaches Quorate to the compio program that runs on this thread, on its ring. Its tasks run
    /// beside the program's own, within one task of compio, and have turns with them.
    ///
    /// ```
    /// # use quorate_rt::Executor;
    /// # use quorate_rt_compio::Compio;
    /// # fn main() -> std::io::Result<()> {
    /// compio::runtime::Runtime::new()?.block_on(async {
    ///     let attached = Compio::attach()?;
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
    /// `Unsupported` where no compio runtime runs on this thread. An error that says why if another
    /// runtime of Quorate runs on this thread, or one that is still ending. The operating system's,
    /// if a thread for blocking work is refused.
    pub fn attach() -> io::Result<Attached<Self>> {
        if let Some(attachment) = local_executor::join("compio")? {
            return Ok(Attached::new(Self, attachment));
        }
        let Some(runtime) = Runtime::try_current() else {
            let reason = "no compio runtime runs on this thread: call `Compio::attach` inside of \
                          one, or use `quorate::run`";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        };
        let (attachment, tasks) = local_executor::attach(
            "compio",
            BlockingThreads::start()?,
            compio::runtime::time::sleep,
            async || yield_now().await, // compio looks at its I/O between any two polls of a task.
        );
        runtime.spawn(tasks).detach();
        Ok(Attached::new(Self, attachment))
    }
}

impl Executor for Compio {
    type Task<T: 'static> = LocalTask<T>;
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

    fn spawn<F>(&self, future: F) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        local_executor::spawn(future)
    }

    fn spawn_blocking<F, T>(&self, work: F) -> LocalTask<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        local_executor::spawn_blocking(work)
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        local_executor::sleep_until(deadline)
    }

    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        if local_executor::is_running() {
            return Err(io::Error::other("a runtime runs on this thread already"));
        }
        if Runtime::try_current().is_some() {
            let reason = "this thread runs in a compio runtime already: use `Compio::attach`";
            return Err(io::Error::other(reason));
        }
        let threads = BlockingThreads::start()?;
        let runtime = match options.driver {
            Driver::Uring => start(DriverType::IoUring)?,
            Driver::Poll => start(DriverType::Poll)?,
            Driver::Auto => start(DriverType::IoUring).or_else(|refused| {
                static WARNED: Once = Once::new();
                WARNED.call_once(|| {
                    tracing::warn!(%refused, "no io_uring for compio; falling back to epoll");
                });
                start(DriverType::Poll)
            })?,
        };
        let main = async { main(Self).await };
        let outcome =
            runtime.block_on(local_executor::run(threads, main, compio::runtime::time::sleep));
        drop(runtime);
        outcome.map_err(|panic| resume_unwind(panic))
    }
}

impl Network for Compio {
    type Listener = CompioListener;
    type Stream = CompioStream;

    async fn listen(&self, on: SocketAddr) -> io::Result<CompioListener> {
        CompioListener::bind(on)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<CompioStream> {
        CompioStream::connect(to).await
    }
}

impl Files for Compio {
    type File = CompioFile;
    type FileLock = FileLock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<CompioFile> {
        CompioFile::open(path, mode).await
    }

    async fn lock_file(&self, path: &Path) -> io::Result<FileLock> {
        let path = path.to_owned();
        let file = offload(self, move || blocking::lock_file(&path)).await?;
        let after_operations = local_executor::after_operations();
        Ok(FileLock::new(file, move |what| after_operations(what)))
    }
}

fn start(driver: DriverType) -> io::Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    // Named, so that the choice is ours: compio's own fallback tells nobody why.
    proactor.driver_type(driver);
    // First without a look at the operations: a ring that is refused has a reason, and their probe
    // has none.
    let runtime = RuntimeBuilder::new().with_proactor(proactor.clone()).build()?;
    if driver.is_iouring() {
        proactor.detect_opcode_support(OpCodeFlag::basic());
        return RuntimeBuilder::new().with_proactor(proactor).build();
    }
    Ok(runtime)
}
