//! A Raft log and its snapshots in memory, for tests, benchmarks and caches.
//!
//! It is a [`LogStore`] that forgets everything with the process. Within it, it can outlive its node: a test of a restart
//! keeps a clone, drops the node and starts another on the clone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use quorate_core::{
    Completion, Entries, GroupId, HardState, Index, LogStore, LogWrite, Outline, Recovered, Runs,
    SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError,
};

#[cfg(test)]
mod tests;

/// Logs in memory, one per group. A write is complete, and counts as durable, before `append` returns.
///
/// A clone is the same store.
#[derive(Clone, Debug, Default)]
pub struct MemStore {
    logs: Rc<RefCell<BTreeMap<GroupId, Log>>>,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Debug, Default)]
struct Log {
    hard_state: HardState,
    outline: Outline,
    /// From the first that is not purged on.
    runs: Runs,
    snapshot: Option<SnapshotMeta>,
    /// Those that are finished: the group's, and later ones.
    finished: Vec<(SnapshotMeta, Rc<[Bytes]>)>,
}

impl Log {
    fn apply(&mut self, write: LogWrite) {
        if let Some(hard_state) = write.hard_state {
            let before = self.hard_state;
            assert!(
                hard_state.term > before.term
                    || hard_state.term == before.term
                        && before.voted_for.is_none_or(|vote| hard_state.voted_for == Some(vote)),
                "the hard state goes back from {before:?} to {hard_state:?}"
            );
            self.hard_state = hard_state;
        }
        if let Some(snapshot) = write.snapshot {
            let is_finished = self.finished.iter().any(|(meta, _)| *meta == snapshot);
            assert!(is_finished, "the snapshot at {} is not finished", snapshot.log_id);
            self.finished.retain(|(meta, _)| meta.log_id.index >= snapshot.log_id.index);
            self.snapshot = Some(snapshot);
        }
        if let Some(to) = write.purge {
            let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.log_id.index);
            assert!(to.index <= covered, "{to} is to be purged, and the snapshot covers {covered}");
            self.outline.purge(to);
            self.runs.keep(self.outline.purged().index + 1..self.outline.last().index + 1);
        }
        let Some(first) = write.entries.first().map(|entry| entry.log_id.index) else { return };
        self.outline.truncate(first);
        self.runs.keep(0..first);
        self.outline.extend(&write.entries); // Panics where they don't follow.
        self.runs.push(write.entries);
    }
}

impl LogStore for MemStore {
    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        let mut logs = self.logs.borrow_mut();
        let recovered = logs.get_mut(&group).map(|log| {
            log.finished.retain(|(meta, _)| log.snapshot.as_ref() == Some(meta));
            Recovered {
                hard_state: log.hard_state,
                snapshot: log.snapshot.clone(),
                outline: log.outline.clone(),
            }
        });
        Ok(recovered.unwrap_or_default())
    }

    /// Panics where the entries don't follow each other or the log, or the hard state goes back: bugs of the caller.
    fn append(&self, group: GroupId, write: LogWrite, done: Completion) {
        self.logs.borrow_mut().entry(group).or_default().apply(write);
        // After the borrow has ended: what is told may call back.
        done.complete(Ok(()));
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Entries, StoreError> {
        if range.is_empty() {
            return Ok(Entries::default());
        }
        let logs = self.logs.borrow();
        let log = logs.get(&group).ok_or(StoreError::Missing(range.start))?;
        let (purged, last) = (log.outline.purged().index, log.outline.last().index);
        if range.start <= purged {
            return Err(StoreError::Missing(range.start));
        }
        if range.end > last + 1 {
            return Err(StoreError::Missing(range.start.max(last + 1)));
        }
        Ok(log.runs.read(range, max_bytes))
    }

    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        Ok(Box::new(MemDraft { store: self.clone(), group, chunks: Vec::new() }))
    }

    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        let logs = self.logs.borrow();
        let finished = logs.get(&group).map(|log| &log.finished[..]).unwrap_or_default();
        let found = finished.iter().find(|(finished, _)| finished == meta);
        let (_, chunks) = found.ok_or(StoreError::Missing(meta.log_id.index))?;
        Ok(Box::new(MemContent(Rc::clone(chunks))))
    }
}

struct MemDraft {
    store: MemStore,
    group: GroupId,
    chunks: Vec<Bytes>,
}

#[async_trait(?Send)]
impl SnapshotDraft for MemDraft {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.chunks.push(chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError> {
        let bytes: u64 = self.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        assert_eq!(bytes, meta.bytes, "the snapshot has another length than it is finished with");
        let mut logs = self.store.logs.borrow_mut();
        let finished = &mut logs.entry(self.group).or_default().finished;
        finished.retain(|(known, _)| known != meta);
        finished.push((meta.clone(), self.chunks.into()));
        Ok(())
    }
}

struct MemContent(Rc<[Bytes]>);

#[async_trait(?Send)]
impl SnapshotContent for MemContent {
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        let mut skip = offset;
        let mut found = BytesMut::new();
        for chunk in self.0.iter() {
            let begin = skip.min(chunk.len() as u64) as usize;
            skip -= begin as u64;
            let len = (max_bytes - found.len()).min(chunk.len() - begin);
            let part = chunk.slice(begin..begin + len);
            // Where one chunk is enough, it is not copied.
            if found.is_empty() && len == max_bytes {
                return Ok(part);
            }
            found.extend_from_slice(&part);
        }
        Ok(found.freeze())
    }
}
