//! Files in memory that know what of them is synced: a name is durable when its directory is
//! synced, or it came by a rename. A directory is there as long as a file is in it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::Memory;
use super::faults::{Faults, count, fault};
use crate::{File, Files, OpenMode};

/// The content of files, by path.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// No file is allocated more bytes.
const CAPACITY: u64 = 1 << 30;

type Names = BTreeMap<PathBuf, Rc<Content>>;

/// A disk in memory.
#[derive(Default)]
pub struct Disk {
    /// What goes wrong on it, and what was done on it.
    pub faults: Faults,
    /// How far the test is, for the moments.
    pub progress: Cell<(usize, usize)>,
    files: RefCell<Names>,
    /// The names that are sure to survive a crash.
    durable: RefCell<Names>,
    /// What a crash could have left before each operation, if that is asked for.
    moments: RefCell<Option<Vec<Moment>>>,
    locked: RefCell<BTreeSet<PathBuf>>,
}

/// What a crash could have left on the disk.
pub struct Moment {
    /// How far the test was.
    pub progress: (usize, usize),
    /// What is there after the crash.
    pub image: Image,
}

#[derive(Default)]
struct Content {
    now: RefCell<Vec<u8>>,
    synced: RefCell<Vec<u8>>,
}

impl Disk {
    pub(super) fn with(image: &Image) -> Self {
        let disk = Self::default();
        for (path, content) in image {
            disk.put(path, content.clone());
        }
        disk
    }

    /// Makes a file with this content, durably, or replaces that of one that is there.
    pub fn put(&self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        let (path, content) = (path.as_ref(), content.into());
        let file = Rc::clone(self.files.borrow_mut().entry(path.to_owned()).or_default());
        file.synced.replace(content.clone());
        file.now.replace(content);
        self.durable.borrow_mut().insert(path.to_owned(), file);
    }

    /// Removes a file, durably.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove(&self, path: impl AsRef<Path>) {
        self.durable.borrow_mut().remove(path.as_ref());
        self.files.borrow_mut().remove(path.as_ref()).expect("it is there");
    }

    /// Returns what processes see of a file, if it is there.
    pub fn get(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.files.borrow().get(path.as_ref()).map(|file| file.now.borrow().clone())
    }

    /// Whether a file is there.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.files.borrow().contains_key(path.as_ref())
    }

    /// Returns what processes see.
    pub fn now(&self) -> Image {
        image(&self.files.borrow(), false)
    }

    /// Returns what is sure to survive a crash.
    pub fn synced(&self) -> Image {
        image(&self.durable.borrow(), true)
    }

    /// From now on, notes what a crash could leave before each operation.
    pub fn record_moments(&self) {
        self.moments.replace(Some(Vec::new()));
    }

    /// Returns what was noted since then, and notes nothing more.
    pub fn take_moments(&self) -> Vec<Moment> {
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
}

fn image(files: &Names, synced: bool) -> Image {
    let content = |file: &Content| {
        let content = if synced { &file.synced } else { &file.now };
        content.borrow().clone()
    };
    files.iter().map(|(path, file)| (path.clone(), content(file))).collect()
}

/// A lock on a file of a [`Disk`], until it is dropped.
pub struct Lock {
    path: PathBuf,
    disk: Rc<Disk>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.disk.locked.borrow_mut().remove(&self.path);
    }
}

impl Files for Memory {
    type File = MemoryFile;
    type FileLock = Lock;

    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<MemoryFile> {
        let faults = &self.disk.faults;
        faults.refused(path)?;
        if !faults.spares(path) {
            faults.hold_opens.pass().await;
        }
        match (self.disk.has(path), mode) {
            (true, OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (false, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (false, OpenMode::CreateNew) => self.disk.changes(),
            (true, _) => {}
        }
        let content = Rc::clone(self.disk.files.borrow_mut().entry(path.to_owned()).or_default());
        faults.open.borrow_mut().push(path.to_owned());
        let file = MemoryFile { content, mode, path: path.to_owned(), disk: Rc::clone(&self.disk) };
        if !faults.spares(path) {
            faults.hold_opened.pass().await;
        }
        Ok(file)
    }

    async fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.faults.refused(path)?;
        let files = self.disk.files.borrow();
        let inside = files.keys().filter_map(|file| file.strip_prefix(path).ok());
        let names = inside.filter_map(|name| Some(name.iter().next()?.to_str()?.to_owned()));
        Ok(names.collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.changes();
        let file = self.disk.files.borrow_mut().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.disk.files.borrow_mut().insert(to.to_owned(), file);
        self.sync_dir(to.parent().unwrap_or(to)).await
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let faults = &self.disk.faults;
        faults.removes.borrow_mut().push(path.to_owned());
        fault(faults.fail_remove.get(), io::ErrorKind::PermissionDenied)?;
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
        if let Some(kind) = self.disk.faults.refuse_lock.get() {
            fault(true, kind)?;
        }
        if !self.disk.locked.borrow_mut().insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lock = Lock { path: path.to_owned(), disk: Rc::clone(&self.disk) };
        if !self.disk.has(path) {
            self.disk.changes();
            self.disk.files.borrow_mut().entry(path.to_owned()).or_default();
        }
        Ok(lock)
    }
}

/// An open file of a [`Disk`].
pub struct MemoryFile {
    content: Rc<Content>,
    mode: OpenMode,
    path: PathBuf,
    disk: Rc<Disk>,
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        let mut open = self.disk.faults.open.borrow_mut();
        let position = open.iter().position(|path| *path == self.path);
        open.swap_remove(position.expect("was opened"));
    }
}

impl MemoryFile {
    fn resize(&self, size: impl FnOnce(usize) -> usize) {
        self.disk.changes();
        let mut now = self.content.now.borrow_mut();
        let size = size(now.len());
        now.resize(size, 0);
    }
}

impl File for MemoryFile {
    async fn read_at(&self, mut into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        let faults = &self.disk.faults;
        if !faults.spares(&self.path) {
            count(&faults.reads);
            faults.hold_reads.pass().await;
        }
        if let Err(error) = fault(faults.fail_read.get(), io::ErrorKind::Other) {
            return (Err(error), into);
        }
        let now = self.content.now.borrow();
        let rest = now.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(into.capacity() - into.len());
        into.extend_from_slice(&rest[..len]);
        (Ok(len), into)
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let faults = &self.disk.faults;
        if !faults.spares(&self.path) {
            count(&faults.writes);
        }
        fault(self.mode == OpenMode::Read, io::ErrorKind::PermissionDenied)?;
        fault(faults.fail_write.get(), io::ErrorKind::Other)?;
        fault(faults.fail_next_write.take(), io::ErrorKind::Other)?;
        let (from, begin) = (from.concat(), offset as usize);
        if from.is_empty() {
            return Ok(());
        }
        let end = begin + from.len();
        faults.written.borrow_mut().push((self.path.clone(), offset..end as u64));
        let grows = end > self.content.now.borrow().len();
        fault(grows && faults.full.get(), io::ErrorKind::StorageFull)?;
        self.resize(|len| len.max(end));
        self.content.now.borrow_mut()[begin..end].copy_from_slice(&from);
        Ok(())
    }

    async fn write_durably_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.write_all_at(from, offset).await?;
        match self.disk.faults.forget_durable_writes.get() {
            true => Ok(()),
            false => self.sync_data().await,
        }
    }

    async fn sync_data(&self) -> io::Result<()> {
        let faults = &self.disk.faults;
        count(&faults.syncs);
        faults.hold_syncs.pass().await;
        fault(faults.fail_sync.get(), io::ErrorKind::Other)?;
        fault(faults.fail_next_sync.take(), io::ErrorKind::Other)?;
        fault(faults.fail_sync_for_space.get(), io::ErrorKind::StorageFull)?;
        self.disk.changes();
        self.content.synced.replace(self.content.now.borrow().clone());
        Ok(())
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        let faults = &self.disk.faults;
        fault(faults.full.get() || len > CAPACITY, io::ErrorKind::StorageFull)?;
        self.resize(|old| old.max(len as usize));
        Ok(())
    }

    async fn len(&self) -> io::Result<u64> {
        Ok(self.content.now.borrow().len() as u64)
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        let grows = len > self.content.now.borrow().len() as u64;
        fault(grows && self.disk.faults.full.get(), io::ErrorKind::StorageFull)?;
        self.resize(|_| len as usize);
        Ok(())
    }
}
