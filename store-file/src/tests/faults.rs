//! A runtime whose files count, wait and fail as a test says; everything else is the inner runtime's.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate_rt::channel::oneshot;
use quorate_rt::{AsyncRuntime, File, Instant, Launch, OpenMode};

/// What a test can ask for. It concerns all files.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) syncs: Cell<usize>,
    pub(super) writes: Cell<usize>,
    pub(super) reads: Cell<usize>,
    pub(super) fail_write: Cell<bool>,
    pub(super) fail_sync: Cell<bool>,
    pub(super) fail_allocate: Cell<bool>,
    pub(super) fail_remove: Cell<bool>,
    /// No file gets longer.
    pub(super) full: Cell<bool>,
    pub(super) hold_syncs: Gate,
    pub(super) hold_reads: Gate,
}

/// While it is closed, those who come wait.
#[derive(Default)]
pub(super) struct Gate {
    closed: Cell<bool>,
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Gate {
    pub(super) fn close(&self) {
        self.closed.set(true);
    }

    pub(super) fn open(&self) {
        self.closed.set(false);
        for waiting in self.waiting.take() {
            let _ = waiting.send(());
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    async fn pass(&self) {
        while self.closed.get() {
            let (sender, receiver) = oneshot::channel();
            self.waiting.borrow_mut().push(sender);
            let _ = receiver.await;
        }
    }
}

#[derive(Clone)]
pub(super) struct Faulty<R> {
    pub(super) inner: R,
    pub(super) faults: Rc<Faults>,
}

pub(super) struct FaultyFile<F> {
    inner: F,
    faults: Rc<Faults>,
}

fn count(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

fn fault(fails: &Cell<bool>, kind: io::ErrorKind) -> io::Result<()> {
    if fails.get() { Err(io::Error::new(kind, "the test says so")) } else { Ok(()) }
}

impl<F: File> File for FaultyFile<F> {
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        count(&self.faults.reads);
        self.faults.hold_reads.pass().await;
        self.inner.read_at(into, offset).await
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        count(&self.faults.writes);
        fault(&self.faults.fail_write, io::ErrorKind::Other)?;
        let end = offset + from.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if end > self.inner.len().await? {
            fault(&self.faults.full, io::ErrorKind::StorageFull)?;
        }
        self.inner.write_all_at(from, offset).await
    }

    async fn sync_data(&self) -> io::Result<()> {
        count(&self.faults.syncs);
        self.faults.hold_syncs.pass().await;
        fault(&self.faults.fail_sync, io::ErrorKind::Other)?;
        self.inner.sync_data().await
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        fault(&self.faults.fail_allocate, io::ErrorKind::StorageFull)?;
        fault(&self.faults.full, io::ErrorKind::StorageFull)?;
        self.inner.allocate(len).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.inner.len().await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len).await
    }
}

impl<R: AsyncRuntime> AsyncRuntime for Faulty<R> {
    type Task<T: 'static> = R::Task<T>;
    type Sleep = R::Sleep;
    type Listener = R::Listener;
    type Stream = R::Stream;
    type File = FaultyFile<R::File>;
    type FileLock = R::FileLock;

    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn spawn<F>(&self, future: F) -> R::Task<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.inner.spawn(future)
    }

    fn spawn_blocking<F, T>(&self, work: F) -> R::Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.inner.spawn_blocking(work)
    }

    fn sleep_until(&self, deadline: Instant) -> R::Sleep {
        self.inner.sleep_until(deadline)
    }

    async fn listen(&self, on: SocketAddr) -> io::Result<R::Listener> {
        self.inner.listen(on).await
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<R::Stream> {
        self.inner.connect(to).await
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File> {
        let inner = self.inner.open(path, mode).await?;
        Ok(FaultyFile { inner, faults: Rc::clone(&self.faults) })
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path).await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.read_dir(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        fault(&self.faults.fail_remove, io::ErrorKind::PermissionDenied)?;
        self.inner.remove_file(path).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path).await
    }

    async fn lock_file(&self, path: &Path) -> io::Result<R::FileLock> {
        self.inner.lock_file(path).await
    }

    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        R::run(options, async |inner| main(Self { inner, faults: Rc::default() }).await)
    }
}
