//! How a store is opened.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use quorate_core::{LogWrite, StoreError};
use quorate_rt::Files;
use tracing::warn;

use crate::batch::Batches;
use crate::cleaning::Cleaning;
use crate::config::FileConfig;
use crate::folder::{Folder, LOCK, SNAPSHOTS, WAL, check_content};
use crate::format::Position;
use crate::index::Logs;
use crate::pins::Pins;
use crate::record::Encoder;
use crate::recovery::{Examined, Found, examine, repair};
use crate::segment::{Segments, failed, remove};
use crate::snapshots::Snapshots;
use crate::state::{State, unobserved};
use crate::store::Shared;
use crate::trash::Trash;
use crate::waiting::{RESERVE_BYTES, Waiting, is_full};
use crate::writer::Writer;

/// Opens the store in `dir`, and starts its writer.
pub(crate) async fn open<R: Files>(
    rt: &R,
    dir: &Path,
    config: FileConfig,
) -> Result<Rc<Shared<R>>, StoreError> {
    config.validate().map_err(|error| {
        StoreError::io("the settings", io::Error::new(io::ErrorKind::InvalidInput, error))
    })?;
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
            let (store, first, bytes) = (rt.random().max(1), 1, config.segment_bytes);
            let file = segments.create(store, first, bytes).await?;
            let (end, lengths) = (Position::first_in(first), [(first, bytes)].into());
            Found { store, first, end, file, lengths, sync_marker: false }
        }
    };
    // Only now: what names the others is durable.
    for path in leftovers {
        folder.verify().await?;
        remove(rt, &path).await?;
    }
    let (store, first, end, room) = (found.store, found.first, found.end, found.room());
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
        pins: Pins::default(),
        cleaning: Cleaning::new(found.lengths.clone(), &config),
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
    state.look_for_waste();
    let lock = RefCell::new(Some(Rc::new(lock)));
    let state = RefCell::new(state);
    let dir = dir.to_owned();
    let shared = Shared { segments, snapshots, dir, folder, store, config, lock, state };
    let shared = Rc::new(shared);
    Writer::start(Rc::clone(&shared), found);
    Ok(shared)
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
