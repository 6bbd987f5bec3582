//! The trait that a backend implements.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::{File, Instant, Launch, Listener, OpenMode, Stream, Task};
use crate::{blocking, names};

/// A single-threaded async runtime: tasks, time, randomness, TCP and files.
///
/// The value is a token that is passed along by clone; it is zero-sized in production and holds a node's
/// context in a simulator. Operations on directories are the operating system's, on a blocking thread, unless a runtime has files of its
/// own, as a simulator has: it must then provide all of them. Its methods may be called only on the thread of the runtime, from inside
/// [`run`](AsyncRuntime::run) or [`launch`](AsyncRuntime::launch).
pub trait AsyncRuntime: Clone + 'static {
    /// The handle of a task. Dropping it cancels the task.
    type Task<T: 'static>: Task<T>;
    /// A timer, armed when it is created.
    type Sleep: Future<Output = ()> + 'static;
    /// A listening TCP socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// A TCP connection.
    type Stream: Stream;
    /// An open file.
    type File: File;
    /// An exclusive lock on a file, held until it is dropped.
    type FileLock: 'static;

    /// The runtime's clock: monotonic, and virtual in a simulator.
    fn now(&self) -> Instant;

    /// Returns the same clock as it was a few milliseconds ago at the most. It is for finding what
    /// takes long: where it costs less than [`now`](AsyncRuntime::now), it may be read often.
    fn coarse_now(&self) -> Instant {
        self.now()
    }

    /// Returns the machine's wall clock, in milliseconds since the Unix epoch (1970-01-01 UTC); 0
    /// if it is set to a time before that. It may be wrong, and goes back when the machine's clock
    /// is set back. Measure durations and deadlines with [`now`](AsyncRuntime::now).
    fn wall_clock(&self) -> u64;

    /// A random number. Not for cryptography; reproducible in a simulator.
    fn random(&self) -> u64;

    /// Starts a task on this thread.
    ///
    /// Dropping the handle cancels it: the future is dropped, at the latest when the runtime next gets to
    /// it, and is never polled again. [`Task::detach`] lets it go on instead. A panic in the task reaches whoever awaits the handle
    /// and nobody else.
    fn spawn<F>(&self, future: F) -> Self::Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static;

    /// Runs blocking work on a thread of its own kind. It can't be cancelled once it has begun: dropping
    /// the handle only forgets its result. A panic reaches whoever awaits the handle.
    ///
    /// One such thread is there from the start. Where the operating system refuses more, work waits
    /// for those there are; so don't let one piece of it wait for another.
    fn spawn_blocking<F, T>(&self, work: F) -> Self::Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static;

    /// A timer that ends at `deadline`, or at once if that has passed. It runs from its creation,
    /// not from its first poll, and never ends early.
    fn sleep_until(&self, deadline: Instant) -> Self::Sleep;

    /// A timer that ends `duration` from now; see [`sleep_until`](AsyncRuntime::sleep_until).
    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.sleep_until(self.now() + duration)
    }

    /// Listens on `on`; port 0 takes a free one. The address may be reused at once after a close
    /// (`SO_REUSEADDR`), so that a restarted process gets its port back; a port on which another
    /// socket listens gives `AddrInUse` (no `SO_REUSEPORT`). On `[::]` also connections by IPv4
    /// arrive.
    async fn listen(&self, on: SocketAddr) -> io::Result<Self::Listener>;

    /// Returns the addresses of `host:port`, at least one, each once, in the order in which they
    /// should be tried. An IP address, one of IPv6 in brackets, is returned as it is.
    ///
    /// A name is looked up by the operating system, on a few threads that are only for that, so
    /// that look-ups that hang hold up nothing else; look-ups of one name at the same time are one.
    /// It may take as long as name servers don't answer: have a time limit. A runtime with names of
    /// its own, as a simulator, overrides it.
    ///
    /// # Errors
    /// `InvalidInput` where it is not `host:port`; a name that is not known, or whose servers don't
    /// answer or refuse; `ResourceBusy` where too many look-ups hang; a thread that is refused.
    ///
    /// # Cancellation
    /// Dropping the future forgets the answer. The look-up goes on, for others that ask for it.
    async fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        names::resolve(host_and_port).await
    }

    /// Opens a connection, with `TCP_NODELAY` set, and keepalive: it breaks within
    /// [`VANISHED`](crate::sockets::VANISHED) when the other end vanishes while nothing is on its
    /// way. Without an answer it takes minutes: have a time limit.
    ///
    /// # Cancellation
    /// In a task of its own, as all I/O: when that is dropped, the attempt ends and its socket
    /// closes.
    async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream>;

    /// Opens a file.
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;

    /// Creates a directory and those above it, and syncs the directory of each new entry. No error if it exists.
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::create_dir_all(&path)).await
    }

    /// The names in a directory, sorted. A name that is not UTF-8 is an `InvalidData` error.
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::read_dir(&path)).await
    }

    /// Renames within one directory, replacing the target, and makes that durable (syncs the directory).
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        blocking::offload(self, move || blocking::rename(&from, &to)).await
    }

    /// Removes a file. Durable only after [`sync_dir`](AsyncRuntime::sync_dir) on its directory.
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::remove_file(&path)).await
    }

    /// Makes creations, renames and removals in a directory durable.
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::sync_dir(&path)).await
    }

    /// Takes an exclusive advisory lock on a file, created if it is missing, without waiting: `WouldBlock`
    /// where another process, or another handle in this one, holds it. It ends with the process, however that dies.
    async fn lock_file(&self, path: &Path) -> io::Result<Self::FileLock>;

    /// Runs `main` on this thread until it ends, then drops every task that is left.
    ///
    /// Errors: the runtime could not be built, e.g. because `options` demands a driver that the
    /// kernel refuses, or because the thread for blocking work could not be started.
    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static;

    /// Runs `main` on a new thread, named and pinned as `options` say. The future is built there.
    ///
    /// Errors: no thread could be started; or, through the handle, those of [`run`](AsyncRuntime::run) and
    /// a core that does not exist.
    fn launch<F, T>(options: Launch, main: F) -> io::Result<thread::JoinHandle<io::Result<T>>>
    where
        F: AsyncFnOnce(Self) -> T + Send + 'static,
        T: Send + 'static,
    {
        options.thread(move |options| Self::run(options, main))
    }
}
