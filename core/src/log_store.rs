//! The trait of a durable log and its snapshots, which a user may implement.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::entries::Entries;
use crate::error::StoreError;
use crate::identity::{ClusterId, Identity, Marks, Standing};
use crate::log_meta::LogMeta;
use crate::snapshot::SnapshotMeta;
use crate::types::{GroupId, HardState, Index, LogId, NodeId};

/// A durable log, shared by all the groups of a core, and the snapshots that stand for what has
/// been purged from it.
///
/// What is submitted by [`append`](LogStore::append) is readable at once. It is durable when
/// `append` or its completion says so. Writes of one group take effect in the order of their
/// submission, on disk as well: after a crash a log holds everything up to some write and nothing
/// of those after it, and whatever was reported as durable is among it.
///
/// A store that has failed once stays failed: it never retries a write or a sync and reports
/// success. From then on every write and every removal fails, also when the disk works again.
///
/// # Damage
///
/// A crash may leave the last writes half written. They were never reported as durable, and the
/// store cuts them off when it is opened. A change in anything before them, such as a flipped bit,
/// is damage: the store returns an error when it is opened, or when the group is
/// [recovered](LogStore::recover), or when what has changed is [read](LogStore::read). It never
/// returns other content than was written, nor a log that is shorter, and an opening that fails
/// cuts nothing off.
///
/// There is one exception: the writes of the last sync, as long as nothing else on the disk shows
/// that this sync has ended. Damage in them looks like a crash in the middle of it, so the store
/// may cut them off, although they were reported as durable. They may be many, and of many groups.
/// Once [`settle`](LogStore::settle) has completed, the exception holds only after a loss of power.
///
/// # A full disk
///
/// A full disk is not a failed one. Entries for which there is no space wait, and the store says so
/// by [`Completion::delayed`]. It never reports them as durable before they are. When there is
/// space again, they are written in their order. (A store that can't wait may fail instead, which
/// ends its node.)
///
/// The store keeps a reserve for everything but entries: hard states, standings, marks, the record
/// of a snapshot, purges. So a node still votes, and still frees space, while its disk is full.
/// For this the order of a group's writes has one exception: while entries of the group wait, what
/// else is submitted goes ahead of them, and a later write without entries may be completed before
/// an earlier one with entries. After a crash the log may then end before the waiting entries and
/// the rest be of a later write.
///
/// This is safe for Raft because nobody was told that the waiting entries are durable:
///
/// - A hard state ahead of the entries is the state of a node that voted and never got them. Its
///   vote was decided by the longer log in memory, so it went to a candidate that has at least
///   what the disk has.
/// - A snapshot ahead of the entries that it covers holds only what is committed, and stands for
///   them. If the disk's log does not reach it, [`recover`](LogStore::recover) gives a log that
///   begins after the snapshot.
/// - A purge is not beyond the snapshot. Of the waiting entries, those that are purged are never
///   written.
///
/// A standing or a cluster that is written together with the first entry of a log waits with it: it
/// says what the group has become by that. Where the group is [removed](LogStore::remove)
/// meanwhile, that it is spent goes ahead of the removal. Any other standing follows from what is
/// committed, and must not wait while marks and snapshots go ahead that rely on it.
///
/// When the reserve is used up, too, all writes wait in their order.
pub trait LogStore: 'static {
    /// Begins a run of a node on this store and returns the store's identity, in which this start
    /// is counted. Called once for each start of a node, before the other methods, however many
    /// groups the node then opens. Each call counts.
    ///
    /// A store is bound to the first node id that starts on it. That id and the count of starts are
    /// durable before this returns. The incarnation is drawn when the store is created,
    /// and the cluster is that of [`LogWrite::cluster`].
    ///
    /// # Errors
    ///
    /// [`OtherNode`](StoreError::OtherNode) if the store is another node's; or it can't be written.
    async fn identify(&self, node: NodeId) -> Result<Identity, StoreError>;

    /// The cluster that the store belongs to by what has been submitted, durable or not. Its groups
    /// may have joined it one after the other.
    fn cluster(&self) -> Option<ClusterId>;

    /// Opens a group and returns what the store holds of it. An unknown group is an empty one.
    /// Called before the other methods that name the group. The group stays open until it is
    /// [released](LogStore::release) or the store is closed.
    ///
    /// What it returns must be durable: the node tells others that it has it. A killed process may
    /// have left writes that were never synced. They can be read, and a power loss still takes
    /// them away. So a store writes them again and syncs them, when it is opened or here. A sync
    /// alone may not be enough: after one has failed, the kernel may take the pages for written.
    ///
    /// # Errors
    ///
    /// [`GroupInUse`](StoreError::GroupInUse) if the group is open already: two nodes must not
    /// write one log. Otherwise the log is damaged, or can't be read.
    ///
    /// # Cancellation
    ///
    /// The group is not open.
    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError>;

    /// Closes a group: its node appends nothing more to it. Writes that are under way are still
    /// completed. The group may be [recovered](LogStore::recover) again. Does nothing if the group
    /// is not open.
    fn release(&self, group: GroupId);

    /// Removes a group with its log, hard state and snapshots, and with its standing unless that is
    /// [`Spent`](crate::Standing::Spent): a replica that is out of use stays so. Durable when it
    /// returns: from then on the group is otherwise empty, also after a crash. Other groups are not
    /// affected. The space is free as soon as no other group needs the files.
    ///
    /// The group must be [released](LogStore::release), and its drafts finished or dropped. Writes
    /// of it that wait for space are dropped, and their completions tell
    /// [`Abandoned`](StoreError::Abandoned). The removal itself goes ahead of what waits, like a
    /// vote. Removing a group that does not exist is no error.
    ///
    /// # Errors
    ///
    /// [`GroupInUse`](StoreError::GroupInUse) if the group is open or a snapshot of it is being
    /// written; nothing is removed then. Otherwise the store can't be written.
    ///
    /// # Cancellation
    ///
    /// The group may still be removed.
    async fn remove(&self, group: GroupId) -> Result<(), StoreError>;

    /// A node has ended in order, and the process may end next. Completes when nothing is left to
    /// do for what was written; a node waits a second for it at the most.
    ///
    /// From then on, [damage](LogStore#damage) in the last writes is an error as well, unless the
    /// power is lost. For that a log needs a mark behind its end, which need not be synced.
    ///
    /// The default has nothing to do.
    async fn settle(&self) {}

    /// Submits a write, without waiting. One sync may cover many writes, of many groups.
    ///
    /// A store that has made the write durable already answers [`Completion::durable`], and the
    /// completion tells nothing. That says the same of all earlier writes of the group, so it is no
    /// answer while one of them is under way or waits for space. Otherwise it answers
    /// [`Appended::Pending`] and completes `done` later, never before this returns. The completions
    /// of a group come in the order of submission; for the one exception see [a full
    /// disk](LogStore#a-full-disk).
    fn append(&self, group: GroupId, write: LogWrite, done: Completion) -> Appended;

    /// Entries from `range.start` on, in order and without a gap: as many as fit into `max_bytes`
    /// (see [`Entries::bytes`]), at least one, and none at or beyond `range.end`. What has been
    /// submitted counts as stored.
    ///
    /// Errors: [`Missing`](StoreError::Missing) where an entry of the range is not there, because
    /// it was purged or never written, also if it lies beyond what fits; or one can't be read.
    /// Never fewer entries in place of an error.
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

    /// Opens a snapshot that was [finished](SnapshotDraft::finish) and is the group's, or will be.
    /// What is open stays readable even after another has taken its place.
    ///
    /// Errors: [`Missing`](StoreError::Missing) with its index where there is none that `meta`
    /// describes: it is not there, or not any more, or another has taken its place. Any other error
    /// says that it can't be read, and stops the node.
    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError>;
}

/// A snapshot in the making. Dropping it discards it, and so does a crash.
#[async_trait(?Send)]
pub trait SnapshotDraft: 'static {
    /// Appends to its content. It returns when the store has taken the bytes, and not more than it
    /// can hold.
    ///
    /// Errors: the disk is full or fails; then the draft is of no use any more, but the log goes
    /// on.
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError>;

    /// Makes it durable under `meta`, which tells its length and digest: from now on a [`LogWrite`]
    /// may make it the group's snapshot. One that no durable write has named is forgotten when the
    /// store is opened, or when a later one is named. If one was finished under this `meta` before,
    /// both have the same content, and either may stay.
    ///
    /// Errors: the disk is full or fails; then it is discarded.
    async fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError>;
}

/// The content of a finished snapshot.
#[async_trait(?Send)]
pub trait SnapshotContent: 'static {
    /// Bytes from `offset` on: at most `max_bytes`, and fewer only at its end.
    ///
    /// Errors: it is damaged there, or can't be read. Never other bytes than were written, as far
    /// as the store can tell.
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError>;
}

/// One write to a group's log: all of its parts, or none, survive a crash. They take effect in the
/// order of the fields.
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
    /// The log begins after this entry from now on; it is not beyond the snapshot. If the log does
    /// not hold this very entry, nothing of it is left: a snapshot has taken its place. One that is
    /// purged already changes nothing.
    pub purge: Option<LogId>,
    /// Appended to the log. Where the first one's index is not above the log's last, it and all
    /// that follows is replaced.
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
    pub log_meta: LogMeta,
}

/// Whether a write is durable when [`append`](LogStore::append) returns.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, and its completion tells nothing. Only [`Completion::durable`] makes this, so
    /// a store can't answer it and have the completion tell of a failure.
    #[non_exhaustive]
    Durable,
    /// The completion will tell.
    Pending,
}

/// Who is told what became of a write: one target for many writes, which are told apart by their
/// numbers.
pub trait Completes: 'static {
    /// The write is durable, or has failed.
    fn completed(&self, write: u64, outcome: Result<(), StoreError>);

    /// The write waits for space on the disk. It is completed later, when there is space again or
    /// the store fails. Told before any later write of the group is completed: of those, one that
    /// is completed first says nothing of this one.
    fn delayed(&self, write: u64);
}

/// Tells the node what became of a write. Dropping it unused tells of a failure
/// ([`Abandoned`](StoreError::Abandoned)).
pub struct Completion {
    /// None once it has told.
    target: Option<Rc<dyn Completes>>,
    write: u64,
}

impl Completion {
    /// Tells `target` of the write with this number.
    pub fn to(target: Rc<dyn Completes>, write: u64) -> Self {
        Self { target: Some(target), write }
    }

    /// Calls `then` with the outcome. For tests of stores, and for stores that wrap others.
    pub fn new(then: impl FnOnce(Result<(), StoreError>) + 'static) -> Self {
        Self::to(Rc::new(Once(Cell::new(Some(then)))), 0)
    }

    /// The write is durable, or has failed; after a failure, all later ones fail.
    pub fn complete(mut self, outcome: Result<(), StoreError>) {
        if let Some(target) = self.target.take() {
            target.completed(self.write, outcome);
        }
    }

    /// The write was made durable before `append` returns, which answers this. The target is told
    /// nothing.
    pub fn durable(mut self) -> Appended {
        self.target = None;
        Appended::Durable
    }

    /// The write waits for space. May be told again, but not before `append` has returned.
    pub fn delayed(&self) {
        if let Some(target) = &self.target {
            target.delayed(self.write);
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            target.completed(self.write, Err(StoreError::Abandoned));
        }
    }
}

/// A closure that hears of one write.
struct Once<F>(Cell<Option<F>>);

impl<F: FnOnce(Result<(), StoreError>) + 'static> Completes for Once<F> {
    fn completed(&self, _: u64, outcome: Result<(), StoreError>) {
        if let Some(then) = self.0.take() {
            then(outcome);
        }
    }

    fn delayed(&self, _: u64) {}
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Completion")
    }
}
