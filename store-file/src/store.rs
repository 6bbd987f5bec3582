//! The store itself: opening, submitting and reading.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use quorate_core::{
    Appended, ClusterId, Completion, Entries, Entry, GroupId, Identity, Index, LogStore, LogWrite,
    NodeId, Recovered, SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError,
};
use quorate_rt::channel::oneshot;
use quorate_rt::planted::{Bug, planted};
use quorate_rt::{Files, Task};
use tracing::{error, warn};

use crate::batch::Batches;
use crate::check::{StoreReport, check};
use crate::config::FileConfig;
use crate::draft::Draft;
use crate::folder::{Folder, LOCK, SNAPSHOTS, WAL, check_content};
use crate::format::{EntryCrc, Position};
use crate::header::Refused;
use crate::index::{Logs, Part};
use crate::log::EntryLocation;
use crate::owner::Owner;
use crate::record::{ENTRY_OVERHEAD_BYTES, Encoder, Span, take_checked_entry};
use crate::recovery::{Examined, Found, examine, repair};
use crate::segment::{Segments, failed, remove};
use crate::snapshots::Snapshots;
use crate::trash::{Garbage, Trash};
use crate::waiting::{RESERVE_BYTES, Waiting, What, is_full};
use crate::writer::Writer;

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
/// 1 MiB that is allocated beforehand. Opening a store that exists needs no space. (A file system
/// that refuses to write or to sync what it has allocated, for lack of space, is a failed disk: it
/// can't be told what of such a write is durable. Those that copy on write may do so.)
///
/// A snapshot is a file of its own. What fails while it is written concerns nobody else. Files that
/// aren't needed any more are removed in the background: segments of the log when all groups have
/// purged what is in them, and snapshots that others have superseded.
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
    dir: PathBuf,
    folder: Rc<Folder<R>>,
    /// The store's incarnation.
    pub(crate) store: u64,
    pub(crate) config: FileConfig,
    /// None when the store is closed. Whoever changes files holds a clone meanwhile, so that no
    /// other store opens them.
    pub(crate) lock: RefCell<Option<Rc<R::FileLock>>>,
    pub(crate) state: RefCell<State>,
}

pub(crate) struct State {
    pub(crate) encoder: Encoder,
    pub(crate) batches: Batches,
    pub(crate) logs: Logs,
    /// The groups that are recovered and not released.
    open: BTreeSet<GroupId>,
    /// While the disk is full.
    pub(crate) waiting: Option<Waiting>,
    /// The length of the reserve, while that is there.
    pub(crate) reserve: Option<u64>,
    /// The end of what is durable.
    pub(crate) durable: Position,
    /// The first segment that is needed, as was told last.
    first: u32,
    pub(crate) trash: Trash,
    /// What all writes are answered with after a failure.
    pub(crate) failed: Option<StoreError>,
    /// The writer, when it has nothing to do.
    pub(crate) writer: Option<Waker>,
    /// Who waits until the last batch has its sync marker.
    pub(crate) settling: Vec<oneshot::Sender<()>>,
}

impl State {
    /// A batch up to `end` has become durable.
    pub(crate) fn wrote(&mut self, end: Position) {
        assert!(self.durable < end, "batches are written in order");
        self.durable = end;
        self.logs.shrink(end);
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub(crate) fn take_garbage(&mut self) -> Vec<Garbage> {
        self.trash.take(self.durable)
    }

    /// Notes a write, of which it takes the entries, and queues its record.
    ///
    /// Panics if it makes no sense: a bug of the caller.
    ///
    /// Gives where the record ends.
    fn submit(&mut self, group: GroupId, write: &mut LogWrite, done: Completion) -> Position {
        let replaces = self.logs.replaces(group, write);
        if self.waiting.is_some() {
            return self.submit_to_full_disk(group, mem::take(write), replaces, done);
        }
        let Self { encoder, batches, logs, durable, .. } = self;
        let (body_bytes, spans) = encoder.encode(group, write, replaces);
        let at = batches.place(body_bytes);
        if let Err(reason) = logs.note(group, write, replaces, spans, at) {
            panic!("a write that makes no sense: {reason}");
        }
        batches.add(encoder, group, at, body_bytes, done);
        logs.keep(group, mem::take(&mut write.entries));
        logs.shrink(*durable);
        batches.end()
    }

    fn submit_to_full_disk(
        &mut self,
        group: GroupId,
        write: LogWrite,
        replaces: bool,
        done: Completion,
    ) -> Position {
        let bytes = |entry: &Entry| ENTRY_OVERHEAD_BYTES + entry.bytes() - Entry::OVERHEAD_BYTES;
        let span = |entry| Span { offset: 0, len: bytes(entry) };
        let spans: Vec<Span> = write.entries.iter().map(span).collect();
        let noted = self.logs.note(group, &write, replaces, &spans, Position::nowhere(0));
        if let Err(reason) = noted {
            panic!("a write that makes no sense: {reason}");
        }
        self.logs.keep(group, write.entries.clone());
        self.sort(group, write, replaces, done)
    }

    /// Something was removed: there may be space again.
    pub(crate) fn has_freed(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.freed = true;
            self.wake_writer();
        }
    }

    /// Takes out all that wait, for a store that has failed or is closed.
    pub(crate) fn take_all(&mut self) -> Vec<Completion> {
        let mut all = Vec::new();
        while let Some(batch) = self.batches.take() {
            all.extend(batch.done);
        }
        all.extend(self.waiting.iter_mut().flat_map(Waiting::take_all));
        all
    }

    /// Forgets a group, and queues the record that says so. Gives where that ends.
    fn remove(&mut self, group: GroupId, done: Completion) -> Position {
        self.logs.remove(group);
        self.put(group, What::Remove, done)
    }

    /// Queues a record of which everything is noted. Gives where it ends.
    fn put(&mut self, group: GroupId, what: What, done: Completion) -> Position {
        if self.waiting.is_some() {
            return self.queue(group, what, done);
        }
        let Self { encoder, batches, logs, .. } = self;
        let body_bytes = match &what {
            What::Owner(owner) => encoder.encode_owner(owner),
            What::Begin(first) => encoder.encode_begin(*first),
            What::Remove => encoder.encode_remove(),
            What::Write(write, replaces) => encoder.encode(group, write, *replaces).0,
        };
        let at = batches.place(body_bytes);
        if matches!(what, What::Owner(_)) {
            logs.placed_owner(at);
        }
        batches.add(encoder, group, at, body_bytes, done);
        batches.end()
    }

    /// Notes whose store it is from now on, and queues its record.
    fn tell_owner(&mut self, owner: Owner, done: Completion) {
        let noted = self.logs.note_owner(owner, Position::nowhere(0));
        noted.expect("it is the owner that was, and what has come of it");
        self.put(0, What::Owner(owner), done);
    }

    /// Where the first segments hold no entry any more, queues what must be durable before they
    /// go: all that was last told in them, once more, and the new begin. See the format.
    ///
    /// Gives the new begin.
    fn move_begin(&mut self) -> Option<u32> {
        let end = self.batches.end().segment;
        // The first of entries that wait for space has none.
        let first = self.logs.first_segment().unwrap_or(end).min(end);
        if first == self.first {
            return None;
        }
        let recorded_before = if planted(Bug::X9) { 0 } else { first };
        if let Some(owner) = self.logs.owner_before(recorded_before) {
            self.tell_owner(owner, unobserved());
        }
        for (group, mut state) in self.logs.states_before(recorded_before) {
            self.submit(group, &mut state, unobserved());
        }
        let recorded = self.put(0, What::Begin(first), unobserved());
        for segment in self.first..first {
            self.trash.put(recorded, Garbage::Segment(segment));
        }
        self.first = first;
        Some(first)
    }
}

/// The completion of a write that nobody waits for. If it fails, the store has failed, and others
/// are told.
pub(crate) fn unobserved() -> Completion {
    Completion::new(|_| ())
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
        config.validate().map_err(|error| {
            StoreError::io("the settings", io::Error::new(io::ErrorKind::InvalidInput, error))
        })?;
        let dir = dir.as_ref();
        check_content(rt, dir).await?;
        for inside in [WAL, SNAPSHOTS] {
            let path = dir.join(inside);
            let made = rt.create_dir_all(&path).await;
            made.map_err(|error| failed("making", &path, error))?;
        }
        // Their names may have been visible, and not durable, when the last process died.
        rt.sync_dir(dir).await.map_err(|error| failed("syncing", dir, error))?;
        let lock = lock(rt, dir.join(LOCK)).await?;

        let segments = Segments::new(rt.clone(), dir);
        let snapshots = Snapshots::new(rt.clone(), dir.join(SNAPSHOTS));
        let mut logs = Logs::new(config.cache_bytes);
        let Examination { numbers, found, leftovers } =
            look_through(&segments, &snapshots, &mut logs).await?;
        let folder = Rc::new(Folder::mark(rt, dir).await?);
        let segments = segments.writable(&folder);
        segments.remove_unfinished().await?;
        let found = match found {
            Some(examined) => repair(&segments, &numbers, examined).await?,
            None => {
                // Not 0, which stands for whichever store a node has.
                let (store, first, room) = (rt.random().max(1), 1, config.segment_bytes);
                let file = segments.create(store, first, room).await?;
                Found {
                    store,
                    first,
                    end: Position::first_in(first),
                    file,
                    room,
                    sync_marker: false,
                }
            }
        };
        // Only now: what names the others is durable.
        for path in leftovers {
            folder.verify().await?;
            remove(rt, &path).await?;
        }
        let Found { store, first, end, room, .. } = found;
        let reserve = match segments.find_reserve().await? {
            None => make_reserve(&segments, &config).await?,
            found => found,
        };
        let mut state = State {
            encoder: Encoder::new(store),
            batches: Batches::new(end, room, &config),
            logs,
            open: BTreeSet::new(),
            // Without the reserve, what is left in the last segment is kept for small writes.
            waiting: reserve.is_none().then(Waiting::default),
            reserve,
            durable: end,
            first,
            trash: Trash::default(),
            failed: None,
            writer: None,
            settling: Vec::new(),
        };
        // Entries that a snapshot covers may have waited for space, and be lost. It stands for
        // them.
        for (group, covered) in state.logs.unreached_snapshots() {
            let mut purge = LogWrite { purge: Some(covered), ..LogWrite::default() };
            state.submit(group, &mut purge, unobserved());
        }
        // A crash may have let a purge survive and not the begin that followed on it, and the next
        // purge may be far.
        segments.forget_before(state.move_begin().unwrap_or(first));
        let lock = RefCell::new(Some(Rc::new(lock)));
        let state = RefCell::new(state);
        let dir = dir.to_owned();
        let shared = Shared { segments, snapshots, dir, folder, store, config, lock, state };
        let shared = Rc::new(shared);
        Writer::start(Rc::clone(&shared), found);
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

    /// Reads all parts of a plan.
    async fn fetch_all(
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
    async fn fetch(
        &self,
        group: GroupId,
        first: Index,
        locations: &[EntryLocation],
    ) -> Result<Entries, StoreError> {
        let shared = &self.handle.0;
        let (Some(begin), Some(end)) = (locations.first(), locations.last()) else {
            return Ok(Entries::default());
        };
        let segment = begin.segment;
        let len = (end.offset - begin.offset) as usize + end.len as usize;
        let stretch = shared.segments.read(segment, begin.offset, len).await?;
        let crc = EntryCrc::new(shared.store, group);
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
            Err(refused.at(shared.segments.path(segment), location.offset))
        };
        (first..).zip(locations).map(decode).collect()
    }
}

/// What is there before an opening changes anything.
pub(crate) struct Examination {
    /// Of the segments.
    pub(crate) numbers: Vec<u32>,
    /// The log; none where there is no segment.
    pub(crate) found: Option<Examined>,
    /// Files of snapshots that are not needed any more.
    pub(crate) leftovers: Vec<PathBuf>,
}

/// Looks through the whole store, and changes nothing.
///
/// Errors: something is damaged that was durable once; `logs` holds what stands before that.
pub(crate) async fn look_through<R: Files>(
    segments: &Segments<R>,
    snapshots: &Snapshots<R>,
    logs: &mut Logs,
) -> Result<Examination, StoreError> {
    let numbers = segments.list().await?;
    if numbers.is_empty() {
        if let Some(snapshot) = snapshots.any().await? {
            let reason = format!("the file is missing, and {} is there", snapshot.display());
            return Err(segments.damaged(1, 0, reason));
        }
        return Ok(Examination { numbers, found: None, leftovers: Vec::new() });
    }
    let examined = examine(segments, &numbers, logs).await?;
    let named = logs.groups().filter_map(|(group, log)| Some((group, log.snapshot.as_ref()?)));
    let leftovers = snapshots.examine(examined.store, named).await?;
    Ok(Examination { numbers, found: Some(examined), leftovers })
}

/// Makes the reserve, and gives its length; none if the disk is full.
pub(crate) async fn make_reserve<R: Files>(
    segments: &Segments<R>,
    config: &FileConfig,
) -> Result<Option<u64>, StoreError> {
    let bytes = RESERVE_BYTES.min(config.segment_bytes);
    match segments.make_reserve(bytes).await {
        Ok(()) => Ok(Some(bytes)),
        Err(cause) if is_full(&cause) => {
            warn!(%cause, "the disk is full: entries of the log wait until there is space");
            Ok(None)
        }
        Err(cause) => Err(cause),
    }
}

/// How long an opening waits for the lock, and how often it tries: a store that was dropped, or a
/// process that was killed, may be in the middle of its last write.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

pub(crate) async fn lock<R: Files>(rt: &R, path: PathBuf) -> Result<R::FileLock, StoreError> {
    let deadline = rt.now() + LOCK_PATIENCE;
    loop {
        match rt.lock_file(&path).await {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(failed("locking", &path, error));
            }
            Err(_) if rt.now() >= deadline => return Err(StoreError::Locked(path)),
            Err(_) => rt.sleep(LOCK_PAUSE).await,
        }
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
        {
            let mut state = state.borrow_mut();
            if let Some(failed) = state.failed.clone() {
                return Err(failed);
            }
            let waits = state.waiting.as_ref().is_some_and(|waiting| waiting.is_of(group));
            if state.open.contains(&group) || waits || snapshots.is_drafting(group) {
                return Err(StoreError::GroupInUse(group));
            }
            let done = Completion::new(move |outcome| drop(sender.send(outcome)));
            let end = state.remove(group, done);
            for path in snapshots.forget(group) {
                state.trash.put(end, Garbage::Snapshot(path));
            }
            if let Some(first) = state.move_begin() {
                segments.forget_before(first);
            }
            state.wake_writer();
        }
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
        let end = if planted(Bug::S8) { state.durable } else { end };
        for path in superseded {
            state.trash.put(end, Garbage::Snapshot(path));
        }
        if purges && let Some(first) = state.move_begin() {
            segments.forget_before(first);
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
            let entries = self.fetch_all(group, parts, max_bytes).await;
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
