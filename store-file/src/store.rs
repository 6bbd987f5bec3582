//! The store itself: opening, submitting and reading.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use quorate_core::{
    Completion, Entry, GroupId, Index, LogStore, LogWrite, Recovered, SnapshotContent,
    SnapshotDraft, SnapshotMeta, StoreError,
};
use quorate_rt::{AsyncRuntime, OpenMode};

use crate::batch::Batches;
use crate::check::{StoreReport, check};
use crate::config::FileConfig;
use crate::format::{Encoder, Position, entry_seed, take_checked_entry};
use crate::index::{Logs, Part, Place};
use crate::recovery::{Found, recover};
use crate::segment::{Segments, failed};
use crate::writer::Writer;

/// What is in a store's directory: the directory of the log's segments, and the file that is locked.
pub(crate) const WAL: &str = "wal";
pub(crate) const LOCK: &str = "LOCK";

/// A write-ahead log in a directory, for all the groups of a core. A clone is the same store.
///
/// One write and one sync make everything durable that was submitted while the ones before were under way. A write or sync that fails is never
/// tried again: it fails with its cause, all later writes fail with [`StoreError::Poisoned`], and reads may go on.
///
/// When the last clone is dropped, what is being written is written to its end, and only then is the lock free; what waits behind it is
/// dropped, and its completions tell so. Nothing that was reported as durable is lost.
pub struct FileStore<R: AsyncRuntime> {
    handle: Rc<Handle<R>>,
}

/// Exists once; dropping it closes the store.
struct Handle<R: AsyncRuntime>(Rc<Shared<R>>);

/// What the store and its tasks share.
pub(crate) struct Shared<R: AsyncRuntime> {
    pub(crate) segments: Segments<R>,
    pub(crate) store: u64,
    pub(crate) config: FileConfig,
    /// None when the store is closed. Whoever changes files holds a clone meanwhile, so that no other store opens them.
    pub(crate) lock: RefCell<Option<Rc<R::FileLock>>>,
    pub(crate) state: RefCell<State>,
}

pub(crate) struct State {
    encoder: Encoder,
    pub(crate) batches: Batches,
    logs: Logs,
    /// The end of what is durable.
    durable: Position,
    /// What all writes are answered with after a failure.
    pub(crate) failed: Option<StoreError>,
    /// The writer, when it has nothing to do.
    pub(crate) writer: Option<Waker>,
}

impl State {
    /// A batch up to `end` has become durable.
    pub(crate) fn wrote(&mut self, end: Position) {
        assert!(self.durable < end, "batches are written in order");
        self.durable = end;
        self.logs.shrink(end);
    }
}

impl<R: AsyncRuntime> FileStore<R> {
    /// Opens the store in `dir`, with the default settings. See [`open_with`](Self::open_with).
    pub async fn open(rt: &R, dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(rt, dir, FileConfig::default()).await
    }

    /// Opens the store in `dir`, which is made where it is missing. It reads the log once through; a torn tail is cut off and logged.
    ///
    /// Errors: [`Damaged`](StoreError::Damaged), with file and offset, where something is missing or changed that was
    /// durable once; nothing is changed then. [`Locked`](StoreError::Locked) where another process, or another store in
    /// this one, has it open; a second is waited for one that was dropped to end its last write. [`Io`](StoreError::Io) where the operating system refuses
    /// something, or (`InvalidInput`) the settings can't work.
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
        let wal = dir.join(WAL);
        rt.create_dir_all(&wal).await.map_err(|error| failed("making", &wal, error))?;
        // Its name may have been visible, and not durable, when the last process died.
        rt.sync_dir(dir).await.map_err(|error| failed("syncing", dir, error))?;
        let lock = lock(rt, dir.join(LOCK)).await?;

        let segments = Segments::new(rt.clone(), wal, OpenMode::Write);
        let mut logs = Logs::new(config.cache_bytes);
        segments.remove_unfinished().await?;
        let found = match segments.last_of(&segments.list().await?)? {
            Some(last) => recover(&segments, last, &mut logs).await?,
            None => {
                let store = rt.random();
                let file = segments.create(store, 1, config.segment_bytes).await?;
                Found { store, end: Position::first_in(1), file, witness: false }
            }
        };
        let Found { store, end, .. } = found;
        let state = State {
            encoder: Encoder::new(store),
            batches: Batches::new(end, &config),
            logs,
            durable: end,
            failed: None,
            writer: None,
        };
        let lock = RefCell::new(Some(Rc::new(lock)));
        let shared = Rc::new(Shared { segments, store, config, lock, state: RefCell::new(state) });
        Writer::start(Rc::clone(&shared), found);
        Ok(Self { handle: Rc::new(Handle(shared)) })
    }

    /// Verifies the store in `dir` and tells what it holds, as an opening would find it, but changes nothing. It reads the log once through, with
    /// the store locked, so that nobody opens it meanwhile. A torn tail is sound: nobody was told that it is stored.
    ///
    /// Errors: [`Locked`](StoreError::Locked) where a process has it open; [`Io`](StoreError::Io) where the operating system refuses something,
    /// or there is no store. Damage is no error here, but part of the report.
    ///
    /// Dropping the future gives up.
    pub async fn check(rt: &R, dir: impl AsRef<Path>) -> Result<StoreReport, StoreError> {
        check(rt, dir.as_ref()).await
    }

    #[cfg(test)]
    pub(crate) fn cached(&self) -> usize {
        self.handle.0.state.borrow().logs.cached()
    }

    /// Reads entries that stand near each other.
    async fn fetch(
        &self,
        group: GroupId,
        first: Index,
        places: &[Place],
    ) -> Result<Vec<Entry>, StoreError> {
        let shared = &self.handle.0;
        let (Some(begin), Some(end)) = (places.first(), places.last()) else {
            return Ok(Vec::new());
        };
        let segment = begin.segment;
        let len = (end.offset - begin.offset) as usize + end.len as usize;
        let stretch = shared.segments.read(segment, begin.offset, len).await?;
        let seed = entry_seed(shared.store, group);
        let decode = |(index, place): (Index, &Place)| {
            let at = (place.offset - begin.offset) as usize;
            let mut encoded = stretch.slice(at..at + place.len as usize);
            let reason = match take_checked_entry(&mut encoded, seed) {
                Ok(entry) if entry.log_id.index == index && encoded.is_empty() => return Ok(entry),
                Ok(entry) => format!("entry {} where {index} was written", entry.log_id),
                Err(error) => error.to_string(),
            };
            Err(shared.segments.damaged(segment, place.offset, reason))
        };
        (first..).zip(places).map(decode).collect()
    }
}

/// How long an opening waits for the lock, and how often it tries: a store that was dropped, or a process that was
/// killed, may be in the middle of its last write.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

pub(crate) async fn lock<R: AsyncRuntime>(
    rt: &R,
    path: PathBuf,
) -> Result<R::FileLock, StoreError> {
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

impl<R: AsyncRuntime> LogStore for FileStore<R> {
    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        Ok(self.handle.0.state.borrow().logs.recovered(group))
    }

    /// Panics where the entries don't follow each other or the log, or the hard state goes back: bugs of the caller.
    fn append(&self, group: GroupId, write: LogWrite, done: Completion) {
        let mut state = self.handle.0.state.borrow_mut();
        if let Some(failed) = state.failed.clone() {
            drop(state); // What is told may call back.
            done.complete(Err(failed));
            return;
        }
        let State { encoder, batches, logs, durable, writer, .. } = &mut *state;
        let (body_bytes, spans) = encoder.encode(group, &write);
        let at = batches.place(body_bytes);
        if let Err(reason) = logs.note(group, &write, at, spans) {
            panic!("a write that makes no sense: {reason}");
        }
        batches.add(encoder, group, at, body_bytes, done);
        logs.keep(group, write.entries);
        logs.shrink(*durable);
        if let Some(writer) = writer.take() {
            writer.wake();
        }
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let state = &self.handle.0.state;
        loop {
            let truncations = state.borrow().logs.truncations(group);
            let parts = state.borrow().logs.plan(group, range.clone(), max_bytes)?;
            let mut entries = Vec::new();
            for part in parts {
                match part {
                    Part::Recent(entry) => entries.push(entry),
                    Part::Stored { first, places } => {
                        entries.extend(self.fetch(group, first, &places).await?);
                    }
                }
            }
            // The plan has only an estimate for a membership on disk.
            let sizes = entries.iter().scan(0usize, |sum, entry: &Entry| {
                *sum = sum.saturating_add(entry.bytes());
                Some(*sum)
            });
            let fit = sizes.take_while(|sum| *sum <= max_bytes).count();
            entries.truncate(fit.max(1));
            // The answer is the log as it is now, not as it was before the disk was asked.
            if state.borrow().logs.truncations(group) == truncations {
                return Ok(entries);
            }
        }
    }

    async fn draft(&self, _group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        Err(StoreError::Abandoned)
    }

    async fn snapshot(
        &self,
        _group: GroupId,
        _meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        Err(StoreError::Abandoned)
    }
}

impl<R: AsyncRuntime> Clone for FileStore<R> {
    fn clone(&self) -> Self {
        Self { handle: Rc::clone(&self.handle) }
    }
}

impl<R: AsyncRuntime> fmt::Debug for FileStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").finish_non_exhaustive()
    }
}

impl<R: AsyncRuntime> Drop for Handle<R> {
    fn drop(&mut self) {
        let shared = &self.0;
        shared.lock.take();
        let mut waiting = Vec::new();
        let mut state = shared.state.borrow_mut();
        while let Some(batch) = state.batches.take() {
            waiting.push(batch);
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        drop(waiting); // Their completions tell; not while something is borrowed.
    }
}
