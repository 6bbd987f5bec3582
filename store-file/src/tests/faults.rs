//! A runtime whose files count, wait and fail as a test says; everything else is the inner
//! runtime's.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate_rt::channel::oneshot;
use quorate_rt::{AsyncRuntime, File, Instant, Launch, OpenMode};

/// What a test can ask for. It concerns all files but `LOCK`, which a store reads beside whatever
/// it does: that one only fails.
#[derive(Default)]
pub(super) struct Faults {
    pub(super) syncs: Cell<usize>,
    pub(super) writes: Cell<usize>,
    /// Which bytes of which file each write was of.
    pub(super) written: RefCell<Vec<(PathBuf, Range<u64>)>>,
    pub(super) reads: Cell<usize>,
    pub(super) fail_read: Cell<bool>,
    pub(super) fail_write: Cell<bool>,
    pub(super) fail_sync: Cell<bool>,
    pub(super) fail_allocate: Cell<bool>,
    pub(super) fail_remove: Cell<bool>,
    /// No file gets longer.
    pub(super) full: Cell<bool>,
    /// What has this at the end of its path is not opened, nor listed.
    pub(super) refuse: Cell<Option<&'static str>>,
    pub(super) refuse_lock: Cell<Option<io::ErrorKind>>,
    pub(super) hold_syncs: Gate,
    pub(super) hold_reads: Gate,
    /// Before a file is opened.
    pub(super) hold_opens: Gate,
    /// When it has been opened.
    pub(super) hold_opened: Gate,
    /// What was removed, or was to be.
    pub(super) removes: RefCell<Vec<PathBuf>>,
    /// The files that are open, by the paths at which they were opened.
    pub(super) open: RefCell<Vec<PathBuf>>,
}

impl Faults {
    fn refused(&self, path: &Path) -> io::Result<()> {
        match self.refuse.get() {
            Some(end) if path.to_str().is_some_and(|path| path.ends_with(end)) => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, "the test says so"))
            }
            _ => Ok(()),
        }
    }
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
    path: PathBuf,
    faults: Rc<Faults>,
}

impl<F> Drop for FaultyFile<F> {
    fn drop(&mut self) {
        let mut open = self.faults.open.borrow_mut();
        let position = open.iter().position(|path| *path == self.path);
        open.swap_remove(position.expect("was opened"));
    }
}

fn is_lock(path: &Path) -> bool {
    path.ends_with("LOCK")
}

fn count(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

fn fault(fails: &Cell<bool>, kind: io::ErrorKind) -> io::Result<()> {
    if fails.get() { Err(io::Error::new(kind, "the test says so")) } else { Ok(()) }
}

impl<F: File> File for FaultyFile<F> {
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        if !is_lock(&self.path) {
            count(&self.faults.reads);
            self.faults.hold_reads.pass().await;
        }
        if let Err(error) = fault(&self.faults.fail_read, io::ErrorKind::Other) {
            return (Err(error), into);
        }
        self.inner.read_at(into, offset).await
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        if !is_lock(&self.path) {
            count(&self.faults.writes);
        }
        fault(&self.faults.fail_write, io::ErrorKind::Other)?;
        let end = offset + from.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        self.faults.written.borrow_mut().push((self.path.clone(), offset..end));
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

    fn wall_clock(&self) -> u64 {
        self.inner.wall_clock()
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
        self.faults.refused(path)?;
        if !is_lock(path) {
            self.faults.hold_opens.pass().await;
        }
        let inner = self.inner.open(path, mode).await?;
        self.faults.open.borrow_mut().push(path.to_owned());
        let file = FaultyFile { inner, path: path.to_owned(), faults: Rc::clone(&self.faults) };
        if !is_lock(path) {
            self.faults.hold_opened.pass().await;
        }
        Ok(file)
    }

    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir_all(path).await
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.faults.refused(path)?;
        self.inner.read_dir(path).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.faults.removes.borrow_mut().push(path.to_owned());
        fault(&self.faults.fail_remove, io::ErrorKind::PermissionDenied)?;
        self.inner.remove_file(path).await
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path).await
    }

    async fn lock_file(&self, path: &Path) -> io::Result<R::FileLock> {
        match self.faults.refuse_lock.get() {
            Some(kind) => Err(io::Error::new(kind, "the test says so")),
            None => self.inner.lock_file(path).await,
        }
    }

    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        R::run(options, async |inner| main(Self { inner, faults: Rc::default() }).await)
    }
}
