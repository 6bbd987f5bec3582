//! The files of the log: how they are made, found, opened and read.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use quorate_core::StoreError;
use quorate_rt::{File, Files, OpenMode};

use crate::folder::{Folder, WAL};
use crate::format::{HEADER_BYTES, SegmentHeader};

/// A segment in the making. The name of a segment appears only when it is whole.
const UNFINISHED: &str = "next.tmp";

/// The space for what must be written while the disk is full; see [`waiting`](crate::waiting).
const RESERVE: &str = "reserve";

/// What a crash has left of one that was being made may be shorter.
const MIN_RESERVE_BYTES: u64 = 4 * HEADER_BYTES;

/// The segments open at once, for reading. Those who are behind read upwards, so the lowest is
/// closed first.
const MAX_OPEN: usize = 64;

/// The number of the segment with this name.
fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".wal").filter(|digits| digits.len() == 16)?;
    digits.parse().ok()
}

/// Whether this is the name of a segment.
pub(crate) fn is_finished(name: &str) -> bool {
    number(name).is_some()
}

/// Whether this is the name of a segment, of one in the making, or of the reserve.
pub(crate) fn is_file_name(name: &str) -> bool {
    is_finished(name) || [UNFINISHED, RESERVE].contains(&name)
}

/// The directory of a log's segments.
pub(crate) struct Segments<R: Files> {
    pub(crate) rt: R,
    dir: PathBuf,
    /// None where nothing may be changed.
    folder: Option<Rc<Folder<R>>>,
    open: RefCell<BTreeMap<u32, Rc<R::File>>>,
    /// Those before it are removed, or will be.
    first: Cell<u32>,
}

impl<R: Files> Segments<R> {
    /// Those of the store in `dir`, of which nothing is changed yet.
    pub(crate) fn new(rt: R, dir: &Path) -> Self {
        let (open, first) = (RefCell::default(), Cell::new(1));
        Self { rt, dir: dir.join(WAL), folder: None, open, first }
    }

    /// From now on they may be changed, as long as `folder` is what it was. Those that are open are
    /// opened anew.
    pub(crate) fn writable(self, folder: &Rc<Folder<R>>) -> Self {
        Self { folder: Some(Rc::clone(folder)), open: RefCell::default(), ..self }
    }

    fn mode(&self) -> OpenMode {
        if self.folder.is_some() { OpenMode::Write } else { OpenMode::Read }
    }

    /// To be called before a file is made, renamed or removed.
    async fn verify(&self) -> Result<(), StoreError> {
        let folder = self.folder.as_ref().expect("what is only read is not changed");
        folder.verify().await
    }

    pub(crate) fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(format!("{segment:016}.wal"))
    }

    /// Removes the segment that a crash has left unfinished, if there is one.
    pub(crate) async fn remove_unfinished(&self) -> Result<(), StoreError> {
        self.verify().await?;
        remove(&self.rt, &self.dir.join(UNFINISHED)).await
    }

    /// The numbers of the segments there are, in order.
    pub(crate) async fn list(&self) -> Result<Vec<u32>, StoreError> {
        let names = self.rt.read_dir(&self.dir).await;
        let names = names.map_err(|error| failed("listing", &self.dir, error))?;
        Ok(names.iter().filter_map(|name| number(name)).collect()) // Sorted, as the names are.
    }

    /// Makes a segment of this length, in the place of the one with its number, if there is one. It
    /// is whole and durable, or not there.
    pub(crate) async fn create(
        &self,
        store: u64,
        segment: u32,
        bytes: u64,
    ) -> Result<Rc<R::File>, StoreError> {
        let (unfinished, path) = (self.dir.join(UNFINISHED), self.path(segment));
        self.verify().await?;
        let made = async {
            let file = self.rt.open(&unfinished, OpenMode::CreateNew).await?;
            file.allocate(bytes).await?;
            let header = SegmentHeader { store, bytes }.encode(segment);
            file.write_all_at(vec![header], 0).await?;
            file.sync_data().await?;
            Ok(file)
        };
        let made = made.await.map_err(|error| failed("making", &path, error));
        // All this has taken a while.
        self.verify().await?;
        let renamed = match made {
            Ok(file) => match self.rt.rename(&unfinished, &path).await {
                Ok(()) => Ok(Rc::new(file)),
                Err(error) => Err(failed("making", &path, error)),
            },
            Err(error) => Err(error),
        };
        match &renamed {
            Ok(file) => self.keep_open(segment, file),
            // Its space may be what the log lacks. If it can't be removed, the next opening does
            // it.
            Err(_) => drop(self.rt.remove_file(&unfinished).await),
        }
        renamed
    }

    /// The length of the reserve, if that is there and not too short for a segment.
    pub(crate) async fn find_reserve(&self) -> Result<Option<u64>, StoreError> {
        let path = self.dir.join(RESERVE);
        let len = match self.rt.open(&path, OpenMode::Read).await {
            Ok(file) => file.len().await,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        let len = len.map_err(|error| failed("measuring", &path, error))?;
        Ok(Some(len).filter(|len| *len >= MIN_RESERVE_BYTES))
    }

    /// Makes the reserve with this length, in the place of one that is too short.
    pub(crate) async fn make_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let path = self.dir.join(RESERVE);
        self.verify().await?;
        remove(&self.rt, &path).await?;
        let made = async {
            let file = self.rt.open(&path, OpenMode::CreateNew).await?;
            file.allocate(bytes).await?;
            file.sync_data().await
        };
        let made = made.await.map_err(|error| failed("making", &path, error));
        match made {
            Ok(()) => self.sync().await,
            Err(error) => {
                // What of it is there is of no use; the next opening tries again.
                drop(self.rt.remove_file(&path).await);
                Err(error)
            }
        }
    }

    /// Makes a segment of the reserve, which takes no space. Gives its length, too.
    pub(crate) async fn use_reserve(
        &self,
        store: u64,
        segment: u32,
    ) -> Result<(Rc<R::File>, u64), StoreError> {
        let (reserve, path) = (self.dir.join(RESERVE), self.path(segment));
        self.verify().await?;
        let made = async {
            let file = self.rt.open(&reserve, OpenMode::Write).await?;
            let bytes = file.len().await?;
            let header = SegmentHeader { store, bytes }.encode(segment);
            file.write_all_at(vec![header], 0).await?;
            file.sync_data().await?;
            self.rt.rename(&reserve, &path).await?;
            Ok((Rc::new(file), bytes))
        };
        let (file, bytes) = made.await.map_err(|error| failed("making", &path, error))?;
        self.keep_open(segment, &file);
        Ok((file, bytes))
    }

    /// Makes the reserve of a segment that is not needed, if that is no longer than `max_bytes`.
    /// Gives whether it was. Takes no space.
    pub(crate) async fn restore_reserve(
        &self,
        segment: u32,
        max_bytes: u64,
    ) -> Result<bool, StoreError> {
        let (path, file) = (self.path(segment), self.file(segment).await?);
        let len = file.len().await.map_err(|error| failed("measuring", &path, error))?;
        if len > max_bytes {
            return Ok(false);
        }
        self.verify().await?;
        // What was torn in it must not be read as a record when it is a segment again.
        let restored = async {
            let zeros = Bytes::from(vec![0; len.saturating_sub(HEADER_BYTES) as usize]);
            file.write_all_at(vec![zeros], HEADER_BYTES).await?;
            file.sync_data().await?;
            self.rt.rename(&path, &self.dir.join(RESERVE)).await
        };
        restored.await.map_err(|error| failed("making the reserve of", &path, error))?;
        self.open.borrow_mut().remove(&segment);
        Ok(true)
    }

    /// A segment.
    pub(crate) async fn file(&self, segment: u32) -> Result<Rc<R::File>, StoreError> {
        if let Some(file) = self.open.borrow().get(&segment) {
            return Ok(Rc::clone(file));
        }
        let path = self.path(segment);
        let opened = self.rt.open(&path, self.mode()).await;
        let file = Rc::new(opened.map_err(|error| failed("opening", &path, error))?);
        self.keep_open(segment, &file);
        Ok(file)
    }

    fn keep_open(&self, segment: u32, file: &Rc<R::File>) {
        if segment < self.first.get() {
            return; // A removed file takes its space as long as it is open.
        }
        let mut open = self.open.borrow_mut();
        if open.len() >= MAX_OPEN {
            open.pop_first();
        }
        open.insert(segment, Rc::clone(file));
    }

    /// Removes a segment, durably.
    pub(crate) async fn remove(&self, segment: u32) -> Result<(), StoreError> {
        self.open.borrow_mut().remove(&segment);
        self.verify().await?;
        remove(&self.rt, &self.path(segment)).await?;
        self.sync().await
    }

    /// Nobody reads the segments before this one any more.
    pub(crate) fn forget_before(&self, first: u32) {
        self.first.set(first);
        let mut open = self.open.borrow_mut();
        *open = open.split_off(&first);
    }

    /// Makes the names durable.
    pub(crate) async fn sync(&self) -> Result<(), StoreError> {
        let synced = self.rt.sync_dir(&self.dir).await;
        synced.map_err(|error| failed("syncing", &self.dir, error))
    }

    /// Reads that many bytes.
    ///
    /// Errors: the file ends before, which is damage; or the read failed.
    pub(crate) async fn read(
        &self,
        segment: u32,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let file = self.file(segment).await?;
        read_exact(&*file, &self.path(segment), offset, len).await
    }

    pub(crate) fn damaged(&self, segment: u32, offset: u64, reason: String) -> StoreError {
        StoreError::Damaged { file: self.path(segment), offset, reason: reason.into() }
    }
}

/// Reads that many bytes.
///
/// Errors: the file ends before, which is damage; or the read failed.
pub(crate) async fn read_exact<F: File>(
    file: &F,
    path: &Path,
    offset: u64,
    len: usize,
) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::with_capacity(len);
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        let (read, buffer) = file.read_at(bytes, at).await;
        bytes = buffer;
        match read {
            Ok(0) => {
                let (file, reason) = (path.to_owned(), "the file ends here".to_owned());
                return Err(StoreError::Damaged { file, offset: at, reason: reason.into() });
            }
            Ok(_) => {}
            Err(error) => return Err(failed("reading", path, error)),
        }
    }
    bytes.truncate(len);
    Ok(bytes.freeze())
}

/// Removes a file, if it is there.
pub(crate) async fn remove<R: Files>(rt: &R, path: &Path) -> Result<(), StoreError> {
    match rt.remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("removing", path, error))
        }
        _ => Ok(()),
    }
}

/// An operation on a file that did not work.
pub(crate) fn failed(what: &str, path: &Path, error: io::Error) -> StoreError {
    StoreError::io(format!("{what} {}", path.display()), error)
}
