//! The folder of a store: that it is nobody else's, and that it is still the one that was opened.
//!
//! A new store is made only in a folder that is missing, empty, or holds what an interrupted
//! creation has left. Anything else is a wrong path: a home folder, or another program's data.
//!
//! Files are made, renamed and removed by their paths. While a node runs, an operator may remove
//! its folder, or move it away and put another one in its place: one that is empty, a copy, or that
//! of another node that runs. What has been opened is not affected, but a new segment would then be
//! made in the wrong folder, and another node's snapshots would be removed. So each opening writes
//! a random mark into the file `LOCK`, and before a file is made, renamed or removed the mark is
//! read again at the same path. A copy has the same mark, but its `LOCK` is not locked.
//!
//! Appends go to an open file and check nothing.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use quorate_core::StoreError;
use quorate_rt::{File, Files, OpenMode};

use crate::segment::{self, failed};
use crate::snapshots;

/// What is in a store's folder: the folders of the log's segments and of the snapshots, and the
/// file that is locked.
pub(crate) const WAL: &str = "wal";
pub(crate) const SNAPSHOTS: &str = "snapshots";
pub(crate) const LOCK: &str = "LOCK";

/// What the root of a file system may hold; it is nobody's data.
const LOST_AND_FOUND: &str = "lost+found";

/// How many foreign files an error names: enough to recognize the folder.
const NAMED_FILES: usize = 5;

/// Checks that this is a folder, or nothing yet.
///
/// Errors: it, or what it should be in, is a file.
pub(crate) async fn check_is_folder<R: Files>(rt: &R, dir: &Path) -> Result<(), StoreError> {
    let mut file = None;
    for path in dir.ancestors() {
        match rt.read_dir(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => file = Some(path),
            _ => break,
        }
    }
    let Some(file) = file else { return Ok(()) };
    let what = format!("{}: no folder for a node's data", dir.display());
    let reason = match file == dir {
        true => "it is a file".to_owned(),
        false => format!("{} is a file", file.display()),
    };
    let advice = format!("{reason}; choose an empty folder");
    Err(StoreError::io(what, io::Error::new(io::ErrorKind::NotADirectory, advice)))
}

/// Whether a store gives a file this name.
type IsOurs = fn(&str) -> bool;

/// Checks that a store is in this folder, or may be made there. Changes nothing.
///
/// Errors: it is no folder; or something else is in it, and no store.
pub(crate) async fn check_content<R: Files>(rt: &R, dir: &Path) -> Result<(), StoreError> {
    check_is_folder(rt, dir).await?;
    let mut foreign = Vec::new();
    let places: [(_, _, IsOurs); 3] = [
        (dir.join(WAL), WAL, segment::is_file_name),
        (dir.join(SNAPSHOTS), SNAPSHOTS, snapshots::is_file_name),
        (dir.to_owned(), "", |name| [WAL, SNAPSHOTS, LOCK, LOST_AND_FOUND].contains(&name)),
    ];
    for (path, place, is_ours) in places {
        match rt.read_dir(&path).await {
            // A store. Whoever has put other files beside it may have had reasons.
            Ok(names) if place == WAL && names.iter().any(|name| segment::is_finished(name)) => {
                return Ok(());
            }
            Ok(names) => {
                let others = names.iter().filter(|name| !is_ours(name));
                foreign
                    .extend(others.map(|name| Path::new(place).join(name).display().to_string()));
            }
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => {}
                io::ErrorKind::NotADirectory => foreign.push(place.to_owned()),
                // None of ours.
                io::ErrorKind::InvalidData => foreign.push(error.to_string()),
                _ => return Err(failed("listing", &path, error)),
            },
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    let more = foreign.len().saturating_sub(NAMED_FILES);
    foreign.truncate(NAMED_FILES);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let advice = format!("it holds {}{more}; choose an empty folder", foreign.join(", "));
    let what = format!("{}: other data are in this folder, and no store", dir.display());
    Err(StoreError::io(what, io::Error::new(io::ErrorKind::DirectoryNotEmpty, advice)))
}

/// The folder of a store that is open, whose lock is held.
pub(crate) struct Folder<R: Files> {
    rt: R,
    dir: PathBuf,
    /// What this opening has written into the lock's file.
    mark: Bytes,
    /// The folder was found to be missing, or another one. That is not forgotten: files in between
    /// may have been made elsewhere.
    gone: RefCell<Option<StoreError>>,
}

impl<R: Files> Folder<R> {
    /// Marks the folder as that of this opening. The lock must be held.
    ///
    /// The mark has always the same length, so that a full disk does not refuse it. It is of no use
    /// after a crash, so only the first one is synced: for the space that it takes.
    pub(crate) async fn mark(rt: &R, dir: &Path) -> Result<Self, StoreError> {
        let mark = Bytes::from(format!("{:016x}{:016x}\n", rt.random(), rt.random()));
        let path = dir.join(LOCK);
        let written = async {
            let file = rt.open(&path, OpenMode::Write).await?;
            let is_first = file.len().await? < mark.len() as u64;
            file.write_all_at(vec![mark.clone()], 0).await?;
            if is_first {
                file.sync_data().await?;
                rt.sync_dir(dir).await?;
            }
            Ok(())
        };
        written.await.map_err(|error| failed("marking", &path, error))?;
        Ok(Self { rt: rt.clone(), dir: dir.to_owned(), mark, gone: RefCell::default() })
    }

    /// Checks that the folder at this path is the one that was marked. To be called before a file
    /// in it is made, renamed or removed.
    ///
    /// Errors: it is not, now or at an earlier call; or that can't be told.
    pub(crate) async fn verify(&self) -> Result<(), StoreError> {
        if let Some(gone) = self.gone() {
            return Err(gone);
        }
        let path = self.dir.join(LOCK);
        let found = match self.read_mark(&path).await {
            Ok(found) => found,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return self.is_gone("its file LOCK is missing: it was removed or moved away");
            }
            Err(error) => return Err(failed("reading", &path, error)),
        };
        if found != self.mark {
            return self.is_gone("another folder was put in its place");
        }
        match self.rt.lock_file(&path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(failed("locking", &path, error)),
            // A copy: nobody holds the lock.
            Ok(_) => self.is_gone("another folder was put in its place, a copy of it"),
        }
    }

    /// Why the folder is not the store's any more, if that was found.
    pub(crate) fn gone(&self) -> Option<StoreError> {
        self.gone.borrow().clone()
    }

    async fn read_mark(&self, path: &Path) -> io::Result<Bytes> {
        let file = self.rt.open(path, OpenMode::Read).await?;
        let len = self.mark.len();
        let mut found = BytesMut::with_capacity(len);
        loop {
            let at = found.len() as u64;
            let (read, buffer) = file.read_at(found, at).await;
            found = buffer;
            if read? == 0 || found.len() >= len {
                found.truncate(len);
                return Ok(found.freeze());
            }
        }
    }

    fn is_gone(&self, why: &str) -> Result<(), StoreError> {
        let what = format!("{}: the folder was changed while it was in use", self.dir.display());
        let advice = format!(
            "{why}; nothing was written to what is there now; put the folder that the node ran on \
             back to this path and start the node again; if it is lost, start the node with an \
             empty folder while a majority of the other nodes runs"
        );
        let gone = StoreError::io(what, io::Error::new(io::ErrorKind::NotFound, advice));
        self.gone.replace(Some(gone.clone()));
        Err(gone)
    }
}
