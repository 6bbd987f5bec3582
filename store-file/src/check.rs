//! Verifies a store offline, without changing anything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use quorate_core::{
    ClusterId, GroupId, HardState, Index, LogId, Marks, Membership, NodeId, SnapshotError,
    SnapshotMeta, SnapshotReader, Standing, StoreError,
};
use quorate_rt::{File, Files, OpenMode};

use crate::folder::{LOCK, SNAPSHOTS, check_is_folder};
use crate::index::Logs;
use crate::opening::{Examination, lock, look_through};
use crate::owner::Owner;
use crate::segment::{Segments, failed};
use crate::snapshots::Snapshots;

/// What a store holds; see [`FileStore::check`](crate::FileStore::check).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreReport {
    /// Whether the store was locked meanwhile. If not, since it has no lock file or that may not be
    /// written to, another process may have it open, and what was seen of it may have been
    /// changing.
    pub locked: bool,
    /// The files of the log, in order, and their sizes in bytes.
    pub segments: Vec<(PathBuf, u64)>,
    /// Whose store it is, as far as the log could be read. None if its first segment can't be read,
    /// or there is none.
    pub identity: Option<IdentityReport>,
    /// The groups, as far as the log could be read.
    pub groups: BTreeMap<GroupId, GroupReport>,
    /// What is not needed any more, and is removed by the next opening: segments before the begin
    /// of the log, snapshots that were not finished, or that the log does not name. They are sound,
    /// and have no damage.
    pub leftovers: Vec<PathBuf>,
    /// The end of the log. None if it is damaged, or empty and without a segment.
    pub end: Option<LogEnd>,
    /// The first damage: [`StoreError::Damaged`]. The store is sound without.
    pub damage: Option<StoreError>,
}

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityReport {
    /// Drawn when the store was made.
    pub incarnation: u64,
    /// The node that it is bound to; none if no node has started on it.
    pub node: Option<NodeId>,
    /// How many times a node has started on it.
    pub boots: u64,
    /// The cluster that it belongs to; none before it has joined one.
    pub cluster: Option<ClusterId>,
}

/// What a store holds of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupReport {
    /// The last one that was stored.
    pub hard_state: HardState,
    /// What the group has promised.
    pub standing: Standing,
    /// Up to where the log was known to be committed, and what is remembered of other replicas.
    pub marks: Marks,
    /// The configuration in force: the last one in the log, committed or not, or the snapshot's;
    /// and the index of the entry that brought it. None before the cluster is formed.
    pub membership: Option<(Index, Membership)>,
    /// The snapshot that stands for what is purged, and maybe for more.
    pub snapshot: Option<SnapshotReport>,
    /// The entry before the first one of its log; [`LogId::ZERO`] if nothing was purged.
    pub purged: LogId,
    /// The first entry and the last one of its log, if that is not empty.
    pub entries: Option<(LogId, LogId)>,
}

/// A group's snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotReport {
    /// The last entry that it covers.
    pub log_id: LogId,
    /// The length of its content.
    pub bytes: u64,
    /// Its file.
    pub file: PathBuf,
}

/// Where a sound log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEnd {
    /// The file.
    pub file: PathBuf,
    /// Behind the last record, in bytes.
    pub offset: u64,
    /// Whether the store's sync marker stands there: it was closed, or had nothing to do, when the
    /// log ended here. Without it the process was killed or the power failed in the middle of
    /// writing; or the disk has lost the end of the log.
    pub has_sync_marker: bool,
    /// From there to the last byte that is not zero; usually 0. A write that was cut short by a
    /// crash has left them, and the next opening removes them.
    pub torn_bytes: u64,
}

pub(crate) async fn check<R: Files>(rt: &R, dir: &Path) -> Result<StoreReport, StoreError> {
    check_is_folder(rt, dir).await?;
    let held = lock_if_possible(rt, &dir.join(LOCK)).await?;
    let segments = Segments::new(rt.clone(), dir);
    let snapshots = Snapshots::new(rt.clone(), dir.join(SNAPSHOTS));
    let mut files = Vec::new();
    for number in segments.list().await? {
        let path = segments.path(number);
        let len = segments.file(number).await?.len().await;
        files.push((path.clone(), len.map_err(|error| failed("measuring", &path, error))?));
    }
    let mut logs = Logs::new(0);
    let (mut leftovers, mut end) = (Vec::new(), None);
    let looked = async {
        let Examination { numbers, found, leftovers: others } =
            look_through(&segments, &snapshots, &mut logs).await?;
        let Some(found) = found else { return Ok(()) };
        let before = numbers.into_iter().filter(|number| *number < found.first);
        leftovers = before.map(|number| segments.path(number)).chain(others).collect();
        end = Some(LogEnd {
            file: segments.path(found.tail.end.segment),
            offset: found.tail.end.offset,
            has_sync_marker: found.tail.sync_marker,
            torn_bytes: found.torn.bytes,
        });
        for (group, log) in logs.groups() {
            if let Some(meta) = &log.snapshot {
                verify(&snapshots, found.store, group, meta).await?;
            }
        }
        Ok(())
    };
    let damage = match looked.await {
        Ok(()) => None,
        Err(error @ StoreError::Damaged { .. }) => Some(error),
        Err(error) => return Err(error),
    };
    let groups = logs.groups().map(|(group, log)| {
        let purged = log.log_meta.purged();
        let first = log.log_meta.log_id(purged.index + 1);
        let snapshot = log.snapshot.as_ref().map(|meta| SnapshotReport {
            log_id: meta.log_id,
            bytes: meta.bytes,
            file: snapshots.path(group, meta),
        });
        let entries = first.map(|first| (first, log.log_meta.last()));
        let (hard_state, standing) = (log.hard_state, log.standing.clone());
        let marks = log.marks.clone();
        let membership = log.log_meta.membership();
        let membership = membership.map(|(index, membership)| (index, membership.clone()));
        (group, GroupReport { hard_state, standing, marks, membership, snapshot, purged, entries })
    });
    let groups = groups.collect();
    let Owner { node, boot: boots, cluster } = logs.owner;
    let identity = logs.incarnation;
    let identity = identity.map(|incarnation| IdentityReport { incarnation, node, boots, cluster });
    let locked = held.is_some();
    Ok(StoreReport { locked, segments: files, identity, groups, leftovers, end, damage })
}

/// Reads a snapshot once through.
///
/// Errors: it is damaged, in a block or as a whole; or can't be read.
async fn verify<R: Files>(
    snapshots: &Snapshots<R>,
    store: u64,
    group: GroupId,
    meta: &SnapshotMeta,
) -> Result<(), StoreError> {
    /// Enough that the fixed cost of a read vanishes.
    const PART_BYTES: u64 = 256 << 10;
    let content = snapshots.open(store, group, meta).await?;
    let file = content.path.clone();
    let mut reader = SnapshotReader::new(Box::new(content), meta.bytes);
    let damaged = |reason: String| StoreError::Damaged {
        file: file.clone(),
        offset: 0,
        reason: reason.into(),
    };
    let of_store = |error| match error {
        SnapshotError::Store(error) => error,
        other => damaged(other.to_string()),
    };
    while reader.remaining() > 0 {
        let part = reader.remaining().min(PART_BYTES);
        reader.read(part).await.map_err(of_store)?;
    }
    let digest = reader.end().map_err(of_store)?;
    if digest != meta.digest {
        return Err(damaged(format!("the content's digest is {digest}, not {}", meta.digest)));
    }
    Ok(())
}

/// The lock, if there is a file for it that may be locked: making one would be a change.
async fn lock_if_possible<R: Files>(
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
