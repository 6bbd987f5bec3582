//! The store itself: submitting and reading.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use quorate_core::plant;
use quorate_core::{
    Appended, ClusterId, Completion, Entries, GroupId, Identity, Index, LogStore, LogWrite, NodeId,
    Recovered, SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError,
};
use quorate_rt::channel::oneshot;
use quorate_rt::{Files, Task};
use tracing::error;

use crate::check::{StoreReport, check};
use crate::config::FileConfig;
use crate::draft::Draft;
use crate::folder::Folder;
use crate::format::EntryCrc;
use crate::header::Refused;
use crate::index::Part;
use crate::locations::EntryLocation;
use crate::opening::open;
use crate::record::take_checked_entry;
use crate::segment::Segments;
use crate::snapshots::Snapshots;
use crate::state::State;
use crate::trash::Garbage;

/// A write-ahead log and snapshots in a directory, for all the groups of a core. A clone is the
/// same store.
///
/// One write and one sync make everything durable that was submitted while the ones before were
/// under way. A write or sync that fails is never tried again: it fails with its cause, all later
/// writes fail with [`StoreError::Poisoned`], and reads may go on.
///
/// A full disk is no failure. Space is allocated a segment at a time, before anything is written
/// there. If there is none, entries wait, and the store tries again once a second and whenever it
/// has removed a file. What a node needs besides, such as votes and purges, goes into a reserve of
/// 1 MiB that is allocated beforehand. Opening a store that exists needs no space.
///
/// A file system that copies on write, or allocates late, may refuse to write or to sync for lack
/// of space what it has allocated. That is a failure like any other. A batch is written and synced
/// in one operation, of which the error does not say how far it got; and even where nothing was
/// synced, a part may have been written, so that no vote or purge could take its place before the
/// whole batch has been written once more. A node that can't vote and can't free space is better
/// stopped, with the reason. When there is space again, it can be started: an opening writes the
/// last batch anew, as after each crash.
///
/// A snapshot is a file of its own. What fails while it is written concerns nobody else. Files that
/// aren't needed any more are removed in the background: segments of the log of which nothing is
/// needed any more, and snapshots that others have superseded.
///
/// # Cleaning
///
/// All groups write to the same segments, and one entry that is still needed keeps a whole segment.
/// When the segments hold more than twice the bytes that the groups need (their entries, and 4 KiB
/// for each group), and four segments more, the store copies the needed entries of the oldest
/// segment to the end of the log and removes it. So a group that never purges costs others no disk
/// beyond that, and at most as much is copied as is written. It is copied in pieces of 256 KiB, so
/// that a vote waits for no more than one piece, or for as much as others write.
///
/// An entry that can't be read can't be copied. That is logged as an error, its segment stays, and
/// the store goes on. A read of the entry fails as always.
///
/// When the last clone is dropped, what is being written is written to its end, and only then is
/// the lock free; what waits behind it is dropped, and its completions tell so. Nothing that was
/// reported as durable is lost.
pub struct FileStore<R: Files> {
    handle: Rc<Handle<R>>,
}

/// Exists once; dropping it closes the store.
struct Handle<R: Files>(Rc<Shared<R>>);

/// What the store and its tasks share.
pub(crate) struct Shared<R: Files> {
    pub(crate) segments: Segments<R>,
    pub(crate) snapshots: Snapshots<R>,
    pub(crate) dir: PathBuf,
    pub(crate) folder: Rc<Folder<R>>,
    /// The store's incarnation.
    pub(crate) store: u64,
    pub(crate) config: FileConfig,
    /// None when the store is closed. Whoever changes files holds a clone meanwhile, so that no
    /// other store opens them.
    pub(crate) lock: RefCell<Option<Rc<R::FileLock>>>,
    pub(crate) state: RefCell<State>,
}

impl<R: Files> Shared<R> {
    /// What must be held while files are changed.
    ///
    /// Errors: the store is closed.
    pub(crate) fn lock(&self) -> Result<Rc<R::FileLock>, StoreError> {
        self.lock.borrow().clone().ok_or(StoreError::Abandoned)
    }

    /// Checks that the folder is still the store's, to be called before a file in it is made,
    /// renamed or removed. If it is not, the store fails.
    pub(crate) async fn verify_folder(&self) -> Result<(), StoreError> {
        let verified = self.folder.verify().await;
        self.fail_without_folder();
        verified
    }

    /// Fails the store if its folder was found to be gone. Gives whether it was.
    pub(crate) fn fail_without_folder(&self) -> bool {
        let gone = self.folder.gone();
        if let Some(gone) = &gone {
            self.fail(gone);
        }
        gone.is_some()
    }

    /// Fails what waits, and what comes. What a completion submits meanwhile fails in its turn.
    pub(crate) fn fail(&self, cause: &StoreError) {
        if self.state.borrow().failed.is_some() {
            return;
        }
        error!(%cause, "the log has failed and does nothing any more");
        let poisoned = StoreError::Poisoned(Arc::new(cause.clone()));
        loop {
            let mut state = self.state.borrow_mut();
            let all = state.take_all();
            if all.is_empty() {
                state.failed = Some(poisoned);
                state.settling.clear();
                return;
            }
            drop(state);
            for done in all {
                done.complete(Err(poisoned.clone()));
            }
        }
    }

    /// Has a file removed soon, that nothing depends on. If the store is closed, the next opening
    /// does it.
    pub(crate) fn throw_away(&self, what: Garbage) {
        let mut state = self.state.borrow_mut();
        let durable = state.durable;
        state.trash.put(durable, what);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Reads all parts of a plan.
    pub(crate) async fn fetch_all(
        &self,
        group: GroupId,
        parts: Vec<Part>,
        max_bytes: usize,
    ) -> Result<Entries, StoreError> {
        let mut runs = Vec::new();
        for part in parts {
            runs.push(match part {
                Part::Recent(entries) => entries,
                Part::Stored { first, locations } => self.fetch(group, first, &locations).await?,
            });
        }
        // The plan has only an estimate for a membership on disk.
        Ok(Entries::joined(&runs).first_bytes(max_bytes))
    }

    /// Reads entries that stand near each other.
    pub(crate) async fn fetch(
        &self,
        group: GroupId,
        first: Index,
        locations: &[EntryLocation],
    ) -> Result<Entries, StoreError> {
        let (Some(begin), Some(end)) = (locations.first(), locations.last()) else {
            return Ok(Entries::default());
        };
        let segment = begin.segment;
        let len = (end.offset - begin.offset) as usize + end.len as usize;
        let stretch = self.segments.read(segment, begin.offset, len).await?;
        let crc = EntryCrc::new(self.store, group);
        let decode = |(index, location): (Index, &EntryLocation)| {
            let at = (location.offset - begin.offset) as usize;
            let mut encoded = stretch.slice(at..at + location.len as usize);
            let refused = match take_checked_entry(&mut encoded, &crc) {
                Ok(entry) if entry.log_id.index == index && encoded.is_empty() => return Ok(entry),
                Ok(entry) => {
                    Refused::Damaged(format!("entry {} where {index} was written", entry.log_id))
                }
                Err(error) => error.into(),
            };
            Err(refused.at(self.segments.path(segment), location.offset))
        };
        (first..).zip(locations).map(decode).collect()
    }
}

impl<R: Files> FileStore<R> {
    /// Opens the store in `dir`, with the default settings. See [`open_with`](Self::open_with).
    pub async fn open(rt: &R, dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(rt, dir, FileConfig::default()).await
    }

    /// Opens the store in `dir`, which is made where it is missing. It reads the log once through;
    /// a torn tail is cut off and logged.
    ///
    /// Errors: [`Damaged`](StoreError::Damaged), with file and offset, where something is missing
    /// or changed that was durable once, and [`Unsupported`](StoreError::Unsupported) where another
    /// version has written it, with what to do; nothing is changed then.
    /// [`Locked`](StoreError::Locked) where another process, or another store in this one, has it
    /// open; a second is waited for one that was dropped to end its last write.
    /// [`Io`](StoreError::Io) where the operating system refuses something; where `dir` is a file
    /// (`NotADirectory`), or holds other data and no store (`DirectoryNotEmpty`), and nothing is
    /// changed; or where the settings can't work (`InvalidInput`).
    ///
    /// Dropping the future gives up; an operation that has begun may still take effect.
    pub async fn open_with(
        rt: &R,
        dir: impl AsRef<Path>,
        config: FileConfig,
    ) -> Result<Self, StoreError> {
        let shared = open(rt, dir.as_ref(), config).await?;
        Ok(Self { handle: Rc::new(Handle(shared)) })
    }

    /// Verifies the store in `dir` and tells what it holds, as an opening would find it, but
    /// changes nothing. It reads the log once through, with the store locked, so that nobody opens
    /// it meanwhile. A torn tail is sound: nobody was told that it is stored.
    ///
    /// Errors: [`Locked`](StoreError::Locked) where a process has it open; [`Io`](StoreError::Io)
    /// where the operating system refuses something, or there is no store;
    /// [`Unsupported`](StoreError::Unsupported) where another version has written it. Damage is no
    /// error here, but part of the report.
    ///
    /// Dropping the future gives up.
    pub async fn check(rt: &R, dir: impl AsRef<Path>) -> Result<StoreReport, StoreError> {
        check(rt, dir.as_ref()).await
    }

    #[cfg(test)]
    pub(crate) fn cached(&self) -> usize {
        self.handle.0.state.borrow().logs.cached()
    }
}

impl<R: Files> LogStore for FileStore<R> {
    /// Dropping the future gives up; the start may still be counted.
    async fn identify(&self, node: NodeId) -> Result<Identity, StoreError> {
        assert!(node != 0, "a node id must not be 0");
        let Shared { state, dir, store, .. } = &*self.handle.0;
        let (sender, receiver) = oneshot::channel();
        let owner = {
            let mut state = state.borrow_mut();
            if let Some(failed) = state.failed.clone() {
                return Err(failed);
            }
            let owner = state.logs.owner.started(node).map_err(|holds| {
                let place = dir.display().to_string();
                StoreError::OtherNode { place, holds, wanted: node }
            })?;
            let done = Completion::new(move |outcome| drop(sender.send(outcome)));
            state.tell_owner(owner, done);
            state.wake_writer();
            owner
        };
        receiver.await.unwrap_or(Err(StoreError::Abandoned))?;
        Ok(Identity { incarnation: *store, cluster: owner.cluster, boot: owner.boot })
    }

    /// Ends when the log has a sync marker behind its end: where a clean stop has left one, a
    /// shorter log is damaged.
    async fn settle(&self) {
        let (sender, settled) = oneshot::channel();
        {
            let mut state = self.handle.0.state.borrow_mut();
            if state.failed.is_some() {
                return;
            }
            state.settling.push(sender);
            state.wake_writer();
        }
        let _it_may_have_failed = settled.await;
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.handle.0.state.borrow().logs.owner.cluster
    }

    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        let mut state = self.handle.0.state.borrow_mut();
        if !state.open.insert(group) {
            return Err(StoreError::GroupInUse(group));
        }
        Ok(state.logs.recovered(group))
    }

    fn release(&self, group: GroupId) {
        self.handle.0.state.borrow_mut().open.remove(&group);
    }

    async fn remove(&self, group: GroupId) -> Result<(), StoreError> {
        let Shared { state, snapshots, segments, .. } = &*self.handle.0;
        let (sender, removed) = oneshot::channel();
        let dropped;
        {
            let mut state = state.borrow_mut();
            if let Some(failed) = state.failed.clone() {
                return Err(failed);
            }
            if state.open.contains(&group) || snapshots.is_drafting(group) {
                return Err(StoreError::GroupInUse(group));
            }
            let done = Completion::new(move |outcome| drop(sender.send(outcome)));
            let end;
            (end, dropped) = state.remove(group, done);
            for path in snapshots.forget(group) {
                state.trash.put(end, Garbage::Snapshot(path));
            }
            state.forget_needless(segments);
            state.wake_writer();
        }
        drop(dropped); // Their completions tell; not while something is borrowed.
        removed.await.unwrap_or(Err(StoreError::Abandoned))
    }

    /// Panics where the entries don't follow each other or the log, the hard state or the snapshot
    /// goes back, the snapshot isn't finished, what is purged is beyond it, the store changes its
    /// cluster, or something could not be read again: bugs of the caller.
    fn append(&self, group: GroupId, mut write: LogWrite, done: Completion) -> Appended {
        let Shared { state, snapshots, segments, .. } = &*self.handle.0;
        let mut state = state.borrow_mut();
        if let Some(failed) = state.failed.clone() {
            // Not before this returns.
            segments.rt.spawn(async move { done.complete(Err(failed)) }).detach();
            return Appended::Pending;
        }
        let snapshot = write.snapshot.as_ref();
        let superseded = snapshot.map_or(vec![], |meta| snapshots.supersede(group, meta));
        let purges = write.purge.is_some();
        let end = state.submit(group, &mut write, done);
        plant!(S8, end = state.durable);
        for path in superseded {
            state.trash.put(end, Garbage::Snapshot(path));
        }
        if purges {
            state.forget_needless(segments);
        }
        state.wake_writer();
        Appended::Pending
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Entries, StoreError> {
        let state = &self.handle.0.state;
        loop {
            let changes = state.borrow().logs.changes(group);
            let parts = state.borrow().logs.plan(group, range.clone(), max_bytes)?;
            let entries = self.handle.0.fetch_all(group, parts, max_bytes).await;
            // The answer is the log as it is now, not as it was before the disk was asked; where it
            // went wrong, the segment may be gone.
            if state.borrow().logs.changes(group) == changes {
                return entries;
            }
        }
    }

    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        let shared = &self.handle.0;
        if let Some(failed) = shared.state.borrow().failed.clone() {
            return Err(failed);
        }
        Ok(Box::new(Draft::create(shared, group).await?))
    }

    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        let Shared { snapshots, store, .. } = &*self.handle.0;
        Ok(Box::new(snapshots.open(*store, group, meta).await?))
    }
}

impl<R: Files> Clone for FileStore<R> {
    fn clone(&self) -> Self {
        Self { handle: Rc::clone(&self.handle) }
    }
}

impl<R: Files> fmt::Debug for FileStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").finish_non_exhaustive()
    }
}

impl<R: Files> Drop for Handle<R> {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.lock.take();
        let mut state = shared.state.borrow_mut();
        let waiting = state.take_all();
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        drop(waiting); // Their completions tell; not while something is borrowed.
    }
}
