//! Verifies a store offline, without changing anything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use quorate_core::{GroupId, HardState, LogId, StoreError};
use quorate_rt::{AsyncRuntime, File, OpenMode};

use crate::index::Logs;
use crate::recovery::examine;
use crate::segment::{Segments, failed};
use crate::store::{LOCK, WAL, lock};

/// What a store holds; see [`FileStore::check`](crate::FileStore::check).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreReport {
    /// Whether the store was locked meanwhile. If not, since it has no lock file or that may not be written to, another process may have
    /// it open, and what was seen of it may have been changing.
    pub locked: bool,
    /// The files of the log, in order, and their sizes in bytes.
    pub segments: Vec<(PathBuf, u64)>,
    /// The groups, as far as the log could be read.
    pub groups: BTreeMap<GroupId, GroupReport>,
    /// The end of the log. None if it is damaged, or empty and without a segment.
    pub end: Option<LogEnd>,
    /// The first damage: [`StoreError::Damaged`]. The store is sound without.
    pub damage: Option<StoreError>,
}

/// What a store holds of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupReport {
    /// The last one that was stored.
    pub hard_state: HardState,
    /// The first entry and the last one of its log, if that is not empty.
    pub entries: Option<(LogId, LogId)>,
}

/// Where a sound log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEnd {
    /// The file.
    pub file: PathBuf,
    /// Behind the last record, in bytes.
    pub offset: u64,
    /// What a write that was cut short by a crash has left behind that, in bytes; usually 0. The next opening removes it.
    pub torn_bytes: u64,
}

pub(crate) async fn check<R: AsyncRuntime>(rt: &R, dir: &Path) -> Result<StoreReport, StoreError> {
    let held = lock_if_possible(rt, &dir.join(LOCK)).await?;
    let segments = Segments::new(rt.clone(), dir.join(WAL), OpenMode::Read);
    let numbers = segments.list().await?;
    let mut files = Vec::new();
    for number in &numbers {
        let path = segments.path(*number);
        let len = segments.file(*number).await?.len().await;
        files.push((path.clone(), len.map_err(|error| failed("measuring", &path, error))?));
    }
    let mut logs = Logs::new(0);
    let examined = async {
        Ok(match segments.last_of(&numbers)? {
            Some(last) => Some(examine(&segments, last, &mut logs).await?),
            None => None,
        })
    };
    let (end, damage) = match examined.await {
        Ok(examined) => (examined, None),
        Err(error @ StoreError::Damaged { .. }) => (None, Some(error)),
        Err(error) => return Err(error),
    };
    let end = end.map(|examined| LogEnd {
        file: segments.path(examined.tail.end.segment),
        offset: examined.tail.end.offset,
        torn_bytes: examined.torn.bytes,
    });
    let groups = logs.groups().map(|(group, hard_state, outline)| {
        let entries = outline.log_id(1).map(|first| (first, outline.last()));
        (group, GroupReport { hard_state, entries })
    });
    let groups = groups.collect();
    Ok(StoreReport { locked: held.is_some(), segments: files, groups, end, damage })
}

/// The lock, if there is a file for it that may be locked: making one would be a change.
async fn lock_if_possible<R: AsyncRuntime>(
    rt: &R,
    path: &Path,
) -> Result<Option<R::FileLock>, StoreError> {
    match rt.open(path, OpenMode::Read).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => drop(opened.map_err(|error| failed("opening", path, error))?),
    }
    match lock(rt, path.to_owned()).await {
        Ok(lock) => Ok(Some(lock)),
        Err(StoreError::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
