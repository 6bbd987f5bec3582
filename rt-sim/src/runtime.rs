//! The runtime of one process on one host.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use quorate_rt::local_task::LocalTask;
use quorate_rt::{
    ContinuousInstant, Executor, Files, Instant, Launch, Network, OpenMode, TaskError,
};

use crate::blocking;
use crate::disk::{SimFile, SimFileLock};
use crate::host::{Host, HostState};
use crate::names;
use crate::net::{SimListener, SimStream};
use crate::simulation::Simulation;
use crate::timers::SimSleep;
use crate::world::World;

/// The runtime of one process on a host of a [`Simulation`].
///
/// [`Executor::run`] makes a simulation with a single host, the same one each time; that is for
/// code that is written for any runtime. To simulate more than that, begin with a [`Simulation`].
#[derive(Clone)]
pub struct Sim {
    world: Rc<World>,
    host: Rc<HostState>,
    incarnation: u32,
}

impl Sim {
    pub(crate) fn new(world: Rc<World>, host: Rc<HostState>, incarnation: u32) -> Self {
        Self { world, host, incarnation }
    }

    /// Outside of any process.
    pub(crate) fn of_host(host: &Host) -> Self {
        let incarnation = host.state.incarnation();
        Self::new(Rc::clone(&host.world), Rc::clone(&host.state), incarnation)
    }

    /// The host that this is on.
    pub fn host(&self) -> Host {
        Host { world: Rc::clone(&self.world), state: Rc::clone(&self.host) }
    }
}

impl Executor for Sim {
    type Task<T: 'static> = LocalTask<T>;
    type Sleep = SimSleep;

    fn now(&self) -> Instant {
        self.host.now(&self.world)
    }

    fn continuous_now(&self) -> ContinuousInstant {
        self.host.continuous_now(&self.world)
    }

    fn wall_clock(&self) -> u64 {
        self.host.wall_clock(&self.world)
    }

    fn random(&self) -> u64 {
        self.world.processes.number()
    }

    fn spawn<F>(&self, future: F) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.host.spawn(&self.world, self.incarnation, future)
    }

    fn spawn_blocking<F, T>(&self, work: F) -> LocalTask<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let ended = blocking::start(&self.world, work);
        let outcome = async { ended.await.unwrap_or(Err(TaskError::Cancelled)) };
        self.host.spawn_outcome(&self.world, self.incarnation, outcome)
    }

    fn sleep_until(&self, deadline: Instant) -> SimSleep {
        SimSleep::new(Rc::clone(&self.world), Rc::clone(&self.host), deadline)
    }

    fn run<F, T>(_: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        let simulation = Simulation::new(0);
        let host = simulation.host("localhost");
        // A process, so that there are tasks; `main` may borrow, and so can't be one of them.
        host.start(async |_| std::future::pending().await);
        let woken = std::sync::Arc::clone(&simulation.world().woken);
        let ended = simulation.drive(&host, main, || {
            woken.wait_until(|| false);
            true
        });
        ended.map_err(io::Error::other)
    }
}

impl Network for Sim {
    type Listener = SimListener;
    type Stream = SimStream;

    async fn listen(&self, on: SocketAddr) -> io::Result<SimListener> {
        SimListener::bind(&self.world, &self.host, on)
    }

    async fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        names::resolve(&self.world, &self.host, host_and_port).await
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        SimStream::connect(&self.world, &self.host, to).await
    }
}

impl Files for Sim {
    type File = SimFile;
    type FileLock = SimFileLock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        self.host.disk.open(&self.world, path, mode).await
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.host.disk.create_dir_all(&self.world, path).await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.host.disk.read_dir(&self.world, path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.host.disk.rename(&self.world, from, to).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.host.disk.remove_file(&self.world, path).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.host.disk.sync_dir(&self.world, path).await
    }

    async fn lock_file(&self, path: &Path) -> io::Result<SimFileLock> {
        self.host.disk.lock_file(&self.world, path).await
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sim").field(&self.host.name).finish()
    }
}
