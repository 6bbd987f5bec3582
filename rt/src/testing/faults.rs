//! What a test can ask of a disk's files, and what it can ask about them.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::channel::oneshot;

/// Faults of a disk, and counts of what is done on it.
#[derive(Default)]
pub struct Faults {
    /// What has this at the end of its path is neither counted nor held up. It only fails.
    pub spared: Cell<Option<&'static str>>,
    /// How many syncs of files there were.
    pub syncs: Cell<usize>,
    /// How many writes.
    pub writes: Cell<usize>,
    /// Which bytes of which file each write was of.
    pub written: RefCell<Vec<(PathBuf, Range<u64>)>>,
    /// How many reads.
    pub reads: Cell<usize>,
    /// Reads fail.
    pub fail_read: Cell<bool>,
    /// Writes fail, and write nothing.
    pub fail_write: Cell<bool>,
    /// The next write fails, and writes nothing.
    pub fail_next_write: Cell<bool>,
    /// Syncs fail, and make nothing durable.
    pub fail_sync: Cell<bool>,
    /// The next sync of a file fails, and makes nothing durable.
    pub fail_next_sync: Cell<bool>,
    /// Syncs fail for lack of space (`StorageFull`), and make nothing durable.
    pub fail_sync_for_space: Cell<bool>,
    /// What is to be durable when it is written is only written.
    pub forget_durable_writes: Cell<bool>,
    /// No file is removed (`PermissionDenied`).
    pub fail_remove: Cell<bool>,
    /// No file gets longer (`StorageFull`).
    pub full: Cell<bool>,
    /// What has this at the end of its path is not opened, nor listed (`PermissionDenied`).
    pub refuse: Cell<Option<&'static str>>,
    /// No file is locked.
    pub refuse_lock: Cell<Option<io::ErrorKind>>,
    /// Syncs wait here.
    pub hold_syncs: Gate,
    /// Reads wait here.
    pub hold_reads: Gate,
    /// Files that are to be opened wait here.
    pub hold_opens: Gate,
    /// Files that have been opened wait here.
    pub hold_opened: Gate,
    /// What was removed, or was to be.
    pub removes: RefCell<Vec<PathBuf>>,
    /// The files that are open, by the paths at which they were opened.
    pub open: RefCell<Vec<PathBuf>>,
}

impl Faults {
    pub(super) fn spares(&self, path: &Path) -> bool {
        ends(path, &self.spared)
    }

    pub(super) fn refused(&self, path: &Path) -> io::Result<()> {
        fault(ends(path, &self.refuse), io::ErrorKind::PermissionDenied)
    }
}

fn ends(path: &Path, with: &Cell<Option<&'static str>>) -> bool {
    with.get().is_some_and(|end| path.to_str().is_some_and(|path| path.ends_with(end)))
}

pub(super) fn count(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

pub(super) fn fault(fails: bool, kind: io::ErrorKind) -> io::Result<()> {
    if fails { Err(io::Error::new(kind, "the test says so")) } else { Ok(()) }
}

/// While it is closed, those who come wait.
#[derive(Default)]
pub struct Gate {
    closed: Cell<bool>,
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
}

impl Gate {
    /// Lets nobody through any more.
    pub fn close(&self) {
        self.closed.set(true);
    }

    /// Lets through those who wait, and those who come.
    pub fn open(&self) {
        self.closed.set(false);
        for waiting in self.waiting.take() {
            let _ = waiting.send(());
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    pub(super) async fn pass(&self) {
        while self.closed.get() {
            let (sender, receiver) = oneshot::channel();
            self.waiting.borrow_mut().push(sender);
            let _ = receiver.await;
        }
    }
}
