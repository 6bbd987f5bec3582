//! A host's disk: files, their names, what of both is durable, and what can go wrong.
//!
//! What is written, made, renamed or removed is visible at once and durable when it is synced: a
//! file's content and length by [`File::sync_data`](quorate_rt::File::sync_data), a name by a sync
//! of its directory. When the machine loses its power, any part of what was not synced survives:
//! see `power.rs`. A process that is killed loses nothing that it has written, and an operation
//! under way may or may not be done.

mod files;
mod inode;
mod names;
mod operation;
mod power;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

pub use self::files::{SimFile, SimFileLock};
use self::inode::Inode;
use self::names::{Names, plain};
use self::operation::UnderWay;
use crate::events::{Action, Event};
use crate::generator::{Generator, nanos};
use crate::host::HostId;
use crate::world::World;

/// How a disk is.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskConfig {
    /// How long a read, a write or an operation on names takes.
    pub latency: Range<Duration>,
    /// How long a sync takes.
    pub sync_latency: Range<Duration>,
    /// How many bytes all files may have together; then `StorageFull`.
    pub capacity: u64,
    /// How likely a read fails (`EIO`).
    pub read_errors: f64,
    /// How likely a write fails; some of it may have been done.
    pub write_errors: f64,
    /// How likely a sync fails. What was written before it then looks as if it were synced, and a
    /// part of it never will be (Rebello et al., ATC 2020).
    pub sync_errors: f64,
    /// How likely a read gives less than it could.
    pub short_reads: f64,
    /// Whether a rename syncs its directory, as [`Files::rename`](quorate_rt::Files::rename) has
    /// to. False simulates a runtime that forgets it.
    pub durable_renames: bool,
}

impl Default for DiskConfig {
    /// A good one.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(2)..Duration::from_micros(50),
            sync_latency: Duration::from_micros(50)..Duration::from_millis(2),
            capacity: 1 << 40,
            read_errors: 0.0,
            write_errors: 0.0,
            sync_errors: 0.0,
            short_reads: 0.05,
            durable_renames: true,
        }
    }
}

/// What a disk holds: its directories, and the content of its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskImage {
    /// By path.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Without those that every disk has.
    pub directories: Vec<PathBuf>,
}

pub(crate) struct DiskState {
    host: HostId,
    config: RefCell<DiskConfig>,
    names: RefCell<Names>,
    /// All files that have a name or are open, and those that are removed and not durably so.
    inodes: RefCell<Vec<Weak<Inode>>>,
    locks: RefCell<BTreeMap<PathBuf, u64>>,
    locked: Cell<u64>,
    /// Nothing ends before that time, …
    stalled_until: Cell<u64>,
    /// … and this waits for it.
    stalled: RefCell<Vec<Action>>,
    under_way: RefCell<UnderWay>,
    fail_next_write: Cell<bool>,
    fail_next_sync: Cell<bool>,
}

impl DiskState {
    pub(crate) fn new(host: HostId) -> Self {
        Self {
            host,
            config: RefCell::default(),
            names: RefCell::default(),
            inodes: RefCell::default(),
            locks: RefCell::default(),
            locked: Cell::new(0),
            stalled_until: Cell::new(0),
            stalled: RefCell::default(),
            under_way: RefCell::default(),
            fail_next_write: Cell::new(false),
            fail_next_sync: Cell::new(false),
        }
    }

    fn make_inode(&self) -> Rc<Inode> {
        let inode = Rc::new(Inode::default());
        let mut inodes = self.inodes.borrow_mut();
        inodes.retain(|inode| inode.strong_count() > 0);
        inodes.push(Rc::downgrade(&inode));
        inode
    }

    fn inodes(&self) -> Vec<Rc<Inode>> {
        self.inodes.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether there is room for a file that grows by so much.
    fn has_room(&self, more: u64) -> bool {
        if more == 0 {
            return true; // Also on a disk that has more on it than it should.
        }
        let capacity = self.config.borrow().capacity;
        // Those that are removed and may come back with the next power loss are rarely what
        // matters.
        let at_most: u64 = self.inodes().iter().map(|inode| inode.len()).sum();
        at_most.saturating_add(more) <= capacity || self.used().saturating_add(more) <= capacity
    }

    /// How many bytes there are in files that have a name or are open.
    fn used(&self) -> u64 {
        let names = self.names.borrow();
        let has_name = |inode: &Rc<Inode>| names.visible().any(|(_, one)| Rc::ptr_eq(one, inode));
        let inodes = self.inodes();
        let present = inodes.iter().filter(|inode| inode.is_open() || has_name(inode));
        present.map(|inode| inode.len()).sum()
    }

    /// What a stall has held up ends now.
    fn release(&self, world: &World) {
        for action in self.stalled.take() {
            world.plan(world.now(), Event::Action(action));
        }
    }

    pub(crate) fn unlock_all(&self) {
        self.locks.borrow_mut().clear();
    }

    pub(crate) fn clear(&self) {
        self.names.take();
        self.under_way.take();
        drop(self.stalled.take());
    }
}

/// The disk of a host. A clone is the same disk. Its methods may be called from anywhere in the
/// simulation.
#[derive(Clone)]
pub struct Disk {
    pub(crate) world: Rc<World>,
    pub(crate) state: Rc<DiskState>,
}

impl Disk {
    /// How it is from now on.
    pub fn configure(&self, config: DiskConfig) {
        self.state.config.replace(config);
    }

    /// How it is.
    pub fn config(&self) -> DiskConfig {
        self.state.config.borrow().clone()
    }

    /// Sets how many bytes all files may have together from now on. Files that take more stay as
    /// they are and can be written within their length, but nothing gets longer.
    pub fn set_capacity(&self, capacity: u64) {
        self.state.config.borrow_mut().capacity = capacity;
        self.world.note(self.state.host, "disk has room for", capacity, 0);
    }

    /// Fills the disk: no file gets longer until something is removed or cut, or the disk
    /// [gets room](Self::set_capacity). As when another program takes all that is left.
    pub fn fill(&self) {
        self.set_capacity(self.used());
    }

    /// The next write to any file fails (`EIO`); some of it may have been done.
    pub fn fail_next_write(&self) {
        self.state.fail_next_write.set(true);
        self.world.note(self.state.host, "disk fails the next write", 0, 0);
    }

    /// The next sync of any file fails, as by [`DiskConfig::sync_errors`].
    pub fn fail_next_sync(&self) {
        self.state.fail_next_sync.set(true);
        self.world.note(self.state.host, "disk fails the next sync", 0, 0);
    }

    /// Nothing that is under way, or begins, ends before so much time has passed.
    pub fn stall(&self, duration: Duration) {
        let until = self.world.now().saturating_add(nanos(duration));
        self.state.stalled_until.update(|before| before.max(until));
        let state = Rc::clone(&self.state);
        self.world.at(until, move |world| {
            if state.stalled_until.get() <= world.now() {
                state.release(world);
            }
        });
        self.world.note(self.state.host, "disk stalls", nanos(duration), 0);
    }

    /// It works again.
    pub fn resume(&self) {
        self.state.stalled_until.set(0);
        self.state.release(&self.world);
    }

    /// How many bytes its files have.
    pub fn used(&self) -> u64 {
        self.state.used()
    }

    /// Its files, as a process sees them.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state.names.borrow().visible().map(|(path, _)| path.clone()).collect()
    }

    /// What of a file was written and not synced, and is not known to be lost: the begin and the
    /// end of each write, in bytes, oldest first. None where there is no such file.
    pub fn unsynced(&self, path: &Path) -> Option<Vec<Range<u64>>> {
        Some(self.state.names.borrow().get(&plain(path))?.unsynced())
    }

    /// How many writes a file has got so far; none where there is no such file.
    pub fn writes(&self, path: &Path) -> Option<u64> {
        Some(self.state.names.borrow().get(&plain(path))?.writes())
    }

    /// What will be there for sure if the power goes now.
    pub fn durable(&self) -> DiskImage {
        self.state.names.borrow().image(Inode::durable)
    }

    /// What may be there if the power goes now: of what is written and not synced, any sectors.
    pub fn torn(&self, draw: &Generator) -> DiskImage {
        self.state.names.borrow().image(|inode| inode.torn(|| draw.chance(0.5)))
    }

    /// The content of a new disk. No process may have files of the old one open.
    pub fn replace(&self, image: &DiskImage) {
        let mut names = Names::default();
        for directory in &image.directories {
            names.make_durable_dir(directory);
        }
        for (path, content) in &image.files {
            let inode = self.state.make_inode();
            inode.set(content);
            names.add_durable(path, inode);
        }
        self.state.names.replace(names);
        self.world.note(self.state.host, "disk replaced", image.files.len() as u64, 0);
    }

    /// A bit of a file changes by itself, on the disk and in what is kept of that in memory. An
    /// offset beyond the end changes nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let names = self.state.names.borrow();
        let inode = names.get(&plain(path)).ok_or(io::ErrorKind::NotFound)?;
        self.world.trace.count("bit flipped");
        self.world.note(self.state.host, "bit flips", offset, u64::from(bit));
        inode.flip_bit(offset, bit % 8);
        Ok(())
    }

    /// The next write to a file goes to another place of it, so much further ahead.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn misdirect(&self, path: &Path, ahead: u64) -> io::Result<()> {
        let names = self.state.names.borrow();
        let inode = names.get(&plain(path)).ok_or(io::ErrorKind::NotFound)?;
        self.world.note(self.state.host, "misdirects the next write", ahead, 0);
        inode.misdirect(ahead);
        Ok(())
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("host", &self.state.host).finish_non_exhaustive()
    }
}
