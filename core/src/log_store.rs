//! The trait of a durable log and its snapshots, which a user may implement.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::entries::Entries;
use crate::error::StoreError;
use crate::identity::{ClusterId, Identity, Marks, Standing};
use crate::outline::Outline;
use crate::snapshot::SnapshotMeta;
use crate::types::{GroupId, HardState, Index, LogId, NodeId};

/// A durable log, shared by all the groups of a core, and the snapshots that stand for what has been purged from it.
///
/// What is submitted by [`append`](LogStore::append) is readable at once and durable when its completion says so. Writes of one
/// group take effect in the order of their submission, on disk as well: after a crash a log holds everything up to some
/// write and nothing of those after it, and whatever was reported as durable is among it.
///
/// A store that has failed once stays failed: it never retries a write or a sync and reports success.
pub trait LogStore: 'static {
    /// A node starts on this store: the store's identity, in which this start is counted. It is
    /// called once for each group that starts, before the other methods are called for that group;
    /// each call counts.
    ///
    /// A store is bound to the first node id that starts on it. That id and the count of starts are
    /// durable before this returns. The incarnation is drawn when the store is created,
    /// and the cluster is that of [`LogWrite::cluster`].
    ///
    /// Errors: [`OtherNode`](StoreError::OtherNode) where the store is another node's; or it can't
    /// be written.
    async fn identify(&self, node: NodeId) -> Result<Identity, StoreError>;

    /// The cluster that the store belongs to by what has been submitted, durable or not. Its groups
    /// may have joined it one after the other.
    fn cluster(&self) -> Option<ClusterId>;

    /// What the store holds of a group; called once, before the other methods, for each group.
    ///
    /// Errors: the log is damaged, or can't be read. An unknown group is an empty one.
    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError>;

    /// A node has ended in order, and the process may end next. Completes when nothing is left to
    /// do for what was written; a node waits a second for it at the most.
    ///
    /// The default has nothing to do.
    async fn settle(&self) {}

    /// Submits a write, without waiting. `done` is completed when it is durable, in the order of submission,
    /// possibly before this returns. One sync may cover many writes, of many groups.
    fn append(&self, group: GroupId, write: LogWrite, done: Completion);

    /// Entries from `range.start` on, in order and without a gap: as many as fit into `max_bytes` (see [`Entries::bytes`]), at least
    /// one, and none at or beyond `range.end`. What has been submitted counts as stored.
    ///
    /// Errors: [`Missing`](StoreError::Missing) where an entry of the range is not there, because it was purged or never written; or it can't be
    /// read. Never fewer entries in place of an error.
    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Entries, StoreError>;

    /// Begins to write a snapshot of a group. Several may be in the making at once.
    ///
    /// Errors: there is no space, or the like. The log goes on.
    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError>;

    /// Opens a snapshot that was [finished](SnapshotDraft::finish) and is the group's, or will be. What is open stays readable even after
    /// another has taken its place.
    ///
    /// Errors: [`Missing`](StoreError::Missing) with its index where it is not there, or no more, because another has taken its place; it is another
    /// one than `meta` says, or can't be read, which stops the node.
    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError>;
}

/// A snapshot in the making. Dropping it discards it, and so does a crash.
#[async_trait(?Send)]
pub trait SnapshotDraft: 'static {
    /// Appends to its content. It returns when the store has taken the bytes, and not more than it can hold.
    ///
    /// Errors: the disk is full or fails; then the draft is of no use any more, but the log goes on.
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError>;

    /// Makes it durable under `meta`, which tells its length and digest: from now on a [`LogWrite`] may make it the group's snapshot. One that
    /// no durable write has named is forgotten when the store is opened, or when a later one is named.
    ///
    /// Errors: the disk is full or fails; then it is discarded.
    async fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError>;
}

/// The content of a finished snapshot.
#[async_trait(?Send)]
pub trait SnapshotContent: 'static {
    /// Bytes from `offset` on: at most `max_bytes`, and fewer only at its end.
    ///
    /// Errors: it is damaged there, or can't be read. Never other bytes than were written, as far as the store can tell.
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError>;
}

/// One write to a group's log: all of its parts, or none, survive a crash. They take effect in the order of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// The store belongs to this cluster from now on. It never belongs to another.
    pub cluster: Option<ClusterId>,
    /// Replaces what the group has promised.
    pub standing: Option<Box<Standing>>,
    /// Replaces the marks.
    pub marks: Option<Box<Marks>>,
    /// The group's snapshot from now on; it is finished. Those before it may be removed.
    pub snapshot: Option<Box<SnapshotMeta>>,
    /// The log begins after this entry from now on; it is not beyond the snapshot. If the log does not hold this very entry, nothing of it
    /// is left: a snapshot has taken its place. One that is purged already changes nothing.
    pub purge: Option<LogId>,
    /// Appended to the log. Where the first one's index is not above the log's last, it and all that follows is replaced.
    pub entries: Entries,
}

/// What a store holds of a group when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last hard state; all zero for a group that has none.
    pub hard_state: HardState,
    /// What it has promised.
    pub standing: Standing,
    /// The last marks.
    pub marks: Marks,
    /// The group's snapshot, if it has one.
    pub snapshot: Option<SnapshotMeta>,
    /// The shape of the log.
    pub outline: Outline,
}

/// Tells the node what became of a write. Dropping it unused tells of a failure.
pub struct Completion(Option<Then>);

type Then = Box<dyn FnOnce(Result<(), StoreError>)>;

impl Completion {
    /// Calls `then` with the outcome. (The node makes these; a test of a store may, too.)
    pub fn new(then: impl FnOnce(Result<(), StoreError>) + 'static) -> Self {
        Self(Some(Box::new(then)))
    }

    /// The write is durable, or has failed; after a failure, all later ones fail.
    pub fn complete(mut self, outcome: Result<(), StoreError>) {
        if let Some(then) = self.0.take() {
            then(outcome);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(then) = self.0.take() {
            then(Err(StoreError::Abandoned));
        }
    }
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Completion")
    }
}
