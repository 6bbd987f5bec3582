//! A runtime whose files are in memory and know what of them is synced; everything else is the
//! inner runtime's. It makes thousands of recoveries a matter of seconds, and crashes exact: a name
//! is durable when its directory is synced, or it came by a rename.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate_rt::{AsyncRuntime, File, Instant, Launch, OpenMode};

/// The content of files, by path.
pub(super) type Image = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Default)]
pub(super) struct Disk {
    files: RefCell<BTreeMap<PathBuf, Rc<Content>>>,
    /// The names that are sure to survive a crash.
    durable: RefCell<BTreeMap<PathBuf, Rc<Content>>>,
    /// What a crash could have left before each operation, if that is asked for.
    moments: RefCell<Option<Vec<Moment>>>,
    /// How far the test is, for the moments.
    pub(super) progress: Cell<(usize, usize)>,
    locked: Rc<Cell<bool>>,
    /// Whether syncs wait, for ever.
    pub(super) hold_syncs: Cell<bool>,
    /// How many do.
    pub(super) held: Cell<usize>,
}

/// What a crash could have left on the disk.
pub(super) struct Moment {
    pub(super) progress: (usize, usize),
    pub(super) image: Image,
}

#[derive(Default)]
struct Content {
    now: RefCell<Vec<u8>>,
    synced: RefCell<Vec<u8>>,
}

impl Disk {
    fn with(image: &Image) -> Self {
        let content = |bytes: &Vec<u8>| Content {
            now: RefCell::new(bytes.clone()),
            synced: RefCell::new(bytes.clone()),
        };
        let files = image.iter().map(|(path, bytes)| (path.clone(), Rc::new(content(bytes))));
        let files: BTreeMap<_, _> = files.collect();
        Self { files: RefCell::new(files.clone()), durable: RefCell::new(files), ..Self::default() }
    }

    pub(super) fn record_moments(&self) {
        self.moments.replace(Some(Vec::new()));
    }

    pub(super) fn take_moments(&self) -> Vec<Moment> {
        self.moments.take().unwrap_or_default()
    }

    /// Something is about to change. Of what has changed before and is not durable yet, all may be
    /// lost: names, contents, both, or nothing.
    fn changes(&self) {
        let mut moments = self.moments.borrow_mut();
        let Some(moments) = moments.as_mut() else { return };
        let begin = moments.len();
        for names in [&self.files, &self.durable] {
            for synced in [false, true] {
                let image = image(&names.borrow(), synced);
                if moments[begin..].iter().all(|moment| moment.image != image) {
                    moments.push(Moment { progress: self.progress.get(), image });
                }
            }
        }
    }

    /// What processes see.
    pub(super) fn now(&self) -> Image {
        image(&self.files.borrow(), false)
    }

    /// What is sure to survive a crash.
    pub(super) fn synced(&self) -> Image {
        image(&self.durable.borrow(), true)
    }
}

fn image(files: &BTreeMap<PathBuf, Rc<Content>>, synced: bool) -> Image {
    let content = |file: &Content| {
        let content = if synced { &file.synced } else { &file.now };
        content.borrow().clone()
    };
    files.iter().map(|(path, file)| (path.clone(), content(file))).collect()
}

#[derive(Clone)]
pub(super) struct Memory<R> {
    inner: R,
    pub(super) disk: Rc<Disk>,
}

impl<R: Clone> Memory<R> {
    /// The same runtime with another disk.
    pub(super) fn with(&self, image: &Image) -> Self {
        Self { inner: self.inner.clone(), disk: Rc::new(Disk::with(image)) }
    }
}

pub(super) struct MemoryFile {
    content: Rc<Content>,
    disk: Rc<Disk>,
}

impl MemoryFile {
    fn resize(&self, size: impl FnOnce(usize) -> usize) {
        let mut now = self.content.now.borrow_mut();
        let size = size(now.len());
        now.resize(size, 0);
    }
}

impl File for MemoryFile {
    async fn read_at(&self, mut into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        let now = self.content.now.borrow();
        let rest = now.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(into.capacity() - into.len());
        into.extend_from_slice(&rest[..len]);
        (Ok(len), into)
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.disk.changes();
        let (from, begin) = (from.concat(), offset as usize);
        self.resize(|len| len.max(begin + from.len()));
        self.content.now.borrow_mut()[begin..begin + from.len()].copy_from_slice(&from);
        Ok(())
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.disk.changes();
        if self.disk.hold_syncs.get() {
            self.disk.held.set(self.disk.held.get() + 1);
            pending::<()>().await;
        }
        self.content.synced.replace(self.content.now.borrow().clone());
        Ok(())
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.changes();
        self.resize(|old| old.max(len as usize));
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.content.now.borrow().len() as u64)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.changes();
        self.resize(|_| len as usize);
        Ok(())
    }
}

/// The only lock on a disk.
pub(super) struct Lock(Rc<Cell<bool>>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl<R: AsyncRuntime> AsyncRuntime for Memory<R> {
    type Task<T: 'static> = R::Task<T>;
    type Sleep = R::Sleep;
    type Listener = R::Listener;
    type Stream = R::Stream;
    type File = MemoryFile;
    type FileLock = Lock;

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

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<MemoryFile> {
        self.disk.changes();
        let mut files = self.disk.files.borrow_mut();
        match (files.contains_key(path), mode) {
            (true, OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (false, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            _ => {}
        }
        let content = Rc::clone(files.entry(path.to_owned()).or_default());
        Ok(MemoryFile { content, disk: Rc::clone(&self.disk) })
    }

    async fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let files = self.disk.files.borrow();
        let inside = files.keys().filter(|file| file.parent() == Some(path));
        let names = inside.filter_map(|file| file.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.changes();
        let file = self.disk.files.borrow_mut().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.disk.files.borrow_mut().insert(to.to_owned(), file);
        match to.parent() {
            Some(dir) => self.sync_dir(dir).await,
            None => Ok(()),
        }
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.changes();
        let removed = self.disk.files.borrow_mut().remove(path);
        removed.map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.changes();
        let mut durable = self.disk.durable.borrow_mut();
        durable.retain(|file, _| file.parent() != Some(path));
        let files = self.disk.files.borrow();
        let inside = files.iter().filter(|(file, _)| file.parent() == Some(path));
        durable.extend(inside.map(|(file, content)| (file.clone(), Rc::clone(content))));
        Ok(())
    }

    async fn lock_file(&self, path: &Path) -> io::Result<Lock> {
        if self.disk.locked.replace(true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.disk.files.borrow().contains_key(path) {
            self.disk.changes();
            self.disk.files.borrow_mut().entry(path.to_owned()).or_default();
        }
        Ok(Lock(Rc::clone(&self.disk.locked)))
    }

    fn run<F, T>(options: &Launch, main: F) -> io::Result<T>
    where
        F: AsyncFnOnce(Self) -> T,
        T: 'static,
    {
        R::run(options, async |inner| main(Self { inner, disk: Rc::default() }).await)
    }
}
