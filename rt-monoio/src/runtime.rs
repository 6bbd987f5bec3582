//! The runtime itself, and the choice of its driver.

use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Once;
use std::time::Duration;

use futures::future::try_join;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::UnixStream;
use monoio::time::TimeDriver;
use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use quorate_rt::blocking::{self, FileLock, offload};
use quorate_rt::blocking_threads::BlockingThreads;
use quorate_rt::local_executor::{self, LocalTask, Sleep};
use quorate_rt::{
    Attached, ContinuousInstant, Driver, Executor, Files, Instant, Launch, Network, OpenMode,
    system_wall_clock,
};

use crate::{MonoioFile, MonoioListener, MonoioStream};

type Runtime = FusionRuntime<TimeDriver<IoUringDriver>, TimeDriver<LegacyDriver>>;

/// monoio, on one thread.
///
/// When [`run`](Executor::run) ends it waits for the file operations and the blocking work that
/// have begun, so that nothing is written behind the back of who opens the same files next.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monoio;

impl Monoio {
    /// Attaches Quorate to the monoio program that runs on this thread, on its ring. Its tasks run
    /// beside the program's own, within one task of monoio; while they are busy, the program's
    /// tasks have their turn after each 128 polls of them.
    ///
    /// ```
    /// # use quorate_rt::Executor;
    /// # use quorate_rt_monoio::Monoio;
    /// #[monoio::main(timer_enabled = true)]
    /// async fn main() -> std::io::Result<()> {
    ///     let attached = Monoio::attach()?;
    ///     let rt = attached.rt();
    ///     // Open stores, bind transports and start nodes on `rt` here.
    ///     rt.sleep(std::time::Duration::from_millis(1)).await;
    ///     attached.close().await;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// A service whose own tasks never wait starves Quorate's: monoio runs what is runnable before
    /// it looks at timers, and where it polls (epoll) before it looks at sockets.
    ///
    /// # Errors
    /// `Unsupported` where no monoio runtime runs on this thread, or it has no timers (monoio's own
    /// panic message is then on standard error, too; with `panic = "abort"`, the process ends). An
    /// error that says why if another runtime of Quorate runs on this thread, or one that is still
    /// ending. The operating system's, if a thread for blocking work, or a pair of sockets, is
    /// refused.
    ///
    /// monoio forgets what still waits when a runtime ends. If one ends while an `Attached` lives,
    /// or before what had begun to be written is written, no other program can attach on its
    /// thread.
    pub fn attach() -> io::Result<Attached<Self>> {
        if let Some(attachment) = local_executor::join("monoio")? {
            return Ok(Attached::new(Self, attachment));
        }
        // monoio tells of what it lacks by a panic only.
        if catch_unwind(|| monoio::time::sleep(Duration::ZERO)).is_err() {
            let reason = match catch_unwind(monoio::utils::is_legacy) {
                Ok(_) => {
                    "this monoio runtime has no timers: build it with \
                     `RuntimeBuilder::enable_timer`, or `#[monoio::main(timer_enabled = true)]`"
                }
                Err(_) => {
                    "no monoio runtime runs on this thread: call `Monoio::attach` inside of one, \
                     or use `quorate::run`"
                }
            };
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        let mut driver = DriverPass::new()?;
        let (attachment, tasks) = local_executor::attach(
            "monoio",
            BlockingThreads::start()?,
            monoio::time::sleep,
            async move || driver.pass().await,
        );
        drop(monoio::spawn(tasks)); // It goes on without its handle.
        Ok(Attached::new(Self, attachment))
    }
}

/// Waits until monoio has looked at its I/O and its timers. A task that only yields is run again
/// before that, for as long as it yields.
struct DriverPass {
    read: UnixStream,
    write: UnixStream,
}

impl DriverPass {
    fn new() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        Ok(Self { read, write })
    }

    async fn pass(&mut self) {
        // Twice: if a task of the program was runnable the first time, as ours has woken it, monoio
        // has looked at completions only. By the second time that one has had its turn.
        for _ in 0..2 {
            // The read first: where monoio polls, a read that has its byte waits for nothing.
            let read = async { self.read.read(vec![0]).await.0 };
            let _ = try_join(read, async { self.write.write(vec![0]).await.0 }).await;
        }
    }
}

impl Executor for Monoio {
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
        let threads = BlockingThreads::start()?;
        let mut runtime = match options.driver {
            Driver::Uring => uring()?,
            Driver::Poll => poll()?,
            Driver::Auto => uring().or_else(|refused| {
                static WARNED: Once = Once::new();
                WARNED.call_once(|| {
                    tracing::warn!(%refused, "no io_uring for monoio; falling back to epoll");
                });
                poll()
            })?,
        };
        let main = async { main(Self).await };
        let run = local_executor::run(threads, main, monoio::time::sleep);
        // It catches what `main` panics with: a panic of monoio's comes before it.
        let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run)));
        drop(runtime);
        let Ok(outcome) = outcome else {
            let reason = "this thread runs in a monoio runtime already: use `Monoio::attach`";
            return Err(io::Error::other(reason));
        };
        outcome.map_err(|panic| resume_unwind(panic))
    }
}

impl Network for Monoio {
    type Listener = MonoioListener;
    type Stream = MonoioStream;

    async fn listen(&self, on: SocketAddr) -> io::Result<MonoioListener> {
        MonoioListener::bind(on)
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<MonoioStream> {
        MonoioStream::connect(to).await
    }
}

impl Files for Monoio {
    type File = MonoioFile;
    type FileLock = FileLock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<MonoioFile> {
        MonoioFile::open(path, mode).await
    }

    async fn lock_file(&self, path: &Path) -> io::Result<FileLock> {
        let path = path.to_owned();
        let file = offload(self, move || blocking::lock_file(&path)).await?;
        let after_operations = local_executor::after_operations();
        Ok(FileLock::new(file, move |what| after_operations(what)))
    }
}

fn uring() -> io::Result<Runtime> {
    // First the attempt: it has a reason to give when it fails, and the probe has none.
    let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer().build()?;
    if !monoio::utils::detect_uring() {
        let message =
            "the kernel's io_uring lacks operations, or MONOIO_FORCE_LEGACY_DRIVER is set";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok(runtime.into())
}

fn poll() -> io::Result<Runtime> {
    Ok(RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.into())
}
