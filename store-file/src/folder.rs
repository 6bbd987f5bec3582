//! The folder of a store, and that it is still the one that was opened.
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
use quorate_rt::{AsyncRuntime, File, OpenMode};

use crate::segment::failed;

/// What is in a store's folder: the folders of the log's segments and of the snapshots, and the
/// file that is locked.
pub(crate) const WAL: &str = "wal";
pub(crate) const SNAPSHOTS: &str = "snapshots";
pub(crate) const LOCK: &str = "LOCK";

/// The folder of a store that is open, whose lock is held.
pub(crate) struct Folder<R: AsyncRuntime> {
    rt: R,
    dir: PathBuf,
    /// What this opening has written into the lock's file.
    mark: Bytes,
    /// The folder was found to be missing, or another one. That is not forgotten: files in between
    /// may have been made elsewhere.
    gone: RefCell<Option<StoreError>>,
}

impl<R: AsyncRuntime> Folder<R> {
    /// Marks the folder as that of this opening. The lock must be held.
    ///
    /// The mark has always the same length, so that a full disk does not refuse it, and is not
    /// synced: it is of no use after a crash.
    pub(crate) async fn mark(rt: &R, dir: &Path) -> Result<Self, StoreError> {
        let mark = Bytes::from(format!("{:016x}{:016x}\n", rt.random(), rt.random()));
        let path = dir.join(LOCK);
        let written = async {
            let file = rt.open(&path, OpenMode::Write).await?;
            file.write_all_at(vec![mark.clone()], 0).await
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
