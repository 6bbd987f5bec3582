//! A runtime with files in memory, on which everything happens at once: thousands of openings a
//! second.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use quorate_rt::{
    AsyncRuntime, File, Instant, Launch, Listener, OpenMode, ReadHalf, Stream, Task, TaskError,
    WriteHalf,
};

/// How often tasks are polled before it is clear that they wait for each other.
const ROUNDS: usize = 1000;

/// An open file, or one in the folder.
#[derive(Clone, Default)]
pub(super) struct Content(Rc<RefCell<Vec<u8>>>);

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// A token; its clones share the files and the tasks.
#[derive(Clone, Default)]
pub(super) struct Memory {
    files: Rc<RefCell<BTreeMap<PathBuf, Content>>>,
    tasks: Rc<RefCell<Vec<Running>>>,
    locked: Rc<RefCell<BTreeSet<PathBuf>>>,
}

/// A lock, until it is dropped.
pub(super) struct Lock {
    path: PathBuf,
    locked: Rc<RefCell<BTreeSet<PathBuf>>>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.locked.borrow_mut().remove(&self.path);
    }
}

impl Memory {
    pub(super) fn put(&self, path: &Path, content: Vec<u8>) {
        self.files.borrow_mut().insert(path.to_owned(), Content(Rc::new(RefCell::new(content))));
    }

    /// All files, as they are now.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = self.files.borrow();
        files.iter().map(|(path, content)| (path.clone(), content.0.borrow().clone())).collect()
    }

    /// Runs a future to its end.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..ROUNDS {
            if let Poll::Ready(output) =
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                return output;
            }
            self.poll_tasks();
        }
        panic!("everything waits");
    }

    /// Runs all tasks to their ends.
    pub(super) fn finish(&self) {
        for _ in 0..ROUNDS {
            if self.tasks.borrow().is_empty() {
                return;
            }
            self.poll_tasks();
        }
        panic!("a task does not end");
    }

    fn poll_tasks(&self) {
        let mut tasks = self.tasks.take();
        tasks.retain_mut(|task| {
            task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        });
        // Those that were started meanwhile stand there already.
        self.tasks.borrow_mut().append(&mut tasks);
    }

    fn content(&self, path: &Path) -> io::Result<Content> {
        self.files.borrow().get(path).cloned().ok_or(io::ErrorKind::NotFound.into())
    }
}

impl AsyncRuntime for Memory {
    type Task<T: 'static> = Detached<T>;
    type Sleep = std::future::Pending<()>;
    type Listener = Never;
    type Stream = Never;
    type File = Content;
    type FileLock = Lock;

    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }

    fn wall_clock(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        1
    }

    fn spawn<F>(&self, future: F) -> Detached<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.tasks.borrow_mut().push(Box::pin(async move { drop(future.await) }));
        Detached(PhantomData)
    }

    fn spawn_blocking<F, T>(&self, _: F) -> Detached<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        unreachable!("no threads here")
    }

    fn sleep_until(&self, _: Instant) -> Self::Sleep {
        std::future::pending()
    }

    async fn listen(&self, _: SocketAddr) -> io::Result<Never> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn connect(&self, _: SocketAddr) -> io::Result<Never> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Content> {
        if mode != OpenMode::CreateNew {
            return self.content(path);
        }
        if self.files.borrow().contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.put(path, Vec::new());
        self.content(path)
    }

    async fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let files = self.files.borrow();
        let inside = files.keys().filter_map(|file| file.strip_prefix(path).ok());
        let names = inside.filter_map(|name| Some(name.iter().next()?.to_str()?.to_owned()));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let content = self.files.borrow_mut().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.borrow_mut().insert(to.to_owned(), content);
        Ok(())
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.files.borrow_mut().remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn lock_file(&self, path: &Path) -> io::Result<Lock> {
        if !self.locked.borrow_mut().insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lock = Lock { path: path.to_owned(), locked: Rc::clone(&self.locked) };
        if !self.files.borrow().contains_key(path) {
            self.put(path, Vec::new());
        }
        Ok(lock)
    }

    fn run<F, T>(_: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        let rt = Self::default();
        Ok(rt.wait(main(rt.clone())))
    }
}

impl File for Content {
    async fn read_at(&self, mut into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        let content = self.0.borrow();
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(into.capacity() - into.len());
        into.extend_from_slice(&rest[..count]);
        (Ok(count), into)
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let (mut content, from, at) = (self.0.borrow_mut(), from.concat(), offset as usize);
        let end = at + from.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[at..end].copy_from_slice(&from);
        Ok(())
    }

    async fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        let mut content = self.0.borrow_mut();
        let len = content.len().max(len as usize);
        content.resize(len, 0);
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.0.borrow().len() as u64)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.borrow_mut().resize(len as usize, 0);
        Ok(())
    }
}

/// The handle of a task that nobody awaits.
pub(super) struct Detached<T>(PhantomData<fn() -> T>);

impl<T> Future for Detached<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        unreachable!("a store awaits no task")
    }
}

impl<T: 'static> Task<T> for Detached<T> {
    fn detach(self) {}
}

/// There is no network.
pub(super) enum Never {}

impl Listener for Never {
    type Stream = Self;

    async fn accept(&mut self) -> io::Result<(Self, SocketAddr)> {
        match *self {}
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }
}

impl Stream for Never {
    type ReadHalf = Self;
    type WriteHalf = Self;

    fn split(self) -> (Self, Self) {
        match self {}
    }
}

impl ReadHalf for Never {
    async fn read(&mut self, _: BytesMut) -> (io::Result<usize>, BytesMut) {
        match *self {}
    }
}

impl WriteHalf for Never {
    async fn write_all(&mut self, _: Vec<Bytes>) -> io::Result<()> {
        match *self {}
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match *self {}
    }
}
