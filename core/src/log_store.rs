//! The trait of a durable log, which a user may implement.

use std::ops::Range;

use crate::error::StoreError;
use crate::outline::Outline;
use crate::types::{Entry, GroupId, HardState, Index};

/// A durable log, shared by all the groups of a core.
///
/// What is submitted by [`append`](LogStore::append) is readable at once and durable when its completion says so. Writes of one
/// group take effect in the order of their submission, on disk as well: after a crash a log holds everything up to some
/// write and nothing of those after it, and whatever was reported as durable is among it.
///
/// A store that has failed once stays failed: it never retries a write or a sync and reports success.
pub trait LogStore: 'static {
    /// What the store holds of a group; called once, before the other methods, for each group.
    ///
    /// Errors: the log is damaged, or can't be read. An unknown group is an empty one.
    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError>;

    /// Submits a write, without waiting. `done` is completed when it is durable, in the order of submission,
    /// possibly before this returns. One sync may cover many writes, of many groups.
    fn append(&self, group: GroupId, write: LogWrite, done: Completion);

    /// Entries from `range.start` on, in order and without a gap: as many as fit into `max_bytes` (see [`Entry::bytes`]), at least
    /// one, and none at or beyond `range.end`. What has been submitted counts as stored.
    ///
    /// Errors: an entry of the range is not there, or can't be read. Never fewer entries in place of an error.
    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError>;
}

/// One write to a group's log: both parts, or neither, survive a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogWrite {
    /// Replaces the hard state.
    pub hard_state: Option<HardState>,
    /// Appended to the log. They are contiguous; where the first one's index is not above the log's last, it and all that
    /// follows is replaced.
    pub entries: Vec<Entry>,
}

/// What a store holds of a group when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last hard state; all zero for a group that has none.
    pub hard_state: HardState,
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
