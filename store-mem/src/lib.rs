//! A Raft log and its snapshots in memory, for tests, benchmarks and caches.
//!
//! It is a [`LogStore`] that forgets everything with the process. Within it, it can outlive its
//! node: a test of a restart keeps a clone, drops the node and starts another on the clone.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::ops::Range;
use std::rc::Rc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use quorate_core::{
    Appended, ClusterId, Completion, Entries, GroupId, HardState, Identity, Index, LogMeta,
    LogStore, LogWrite, Marks, NodeId, Recovered, Runs, SnapshotContent, SnapshotDraft,
    SnapshotMeta, Standing, StoreError,
};

#[cfg(test)]
mod tests;

/// Logs in memory, one per group. A write counts as durable when `append` returns.
///
/// A clone is the same store. A store that is made anew is another one, as after the loss of a
/// disk: also one that a restarted process makes for the same node.
#[derive(Clone, Debug)]
pub struct MemStore {
    content: Rc<RefCell<Content>>,
}

impl Default for MemStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemStore {
    /// Makes an empty store, and draws its incarnation from the entropy of the operating system.
    pub fn new() -> Self {
        #[expect(clippy::disallowed_types, reason = "a restarted process must not draw it again")]
        let random = std::hash::RandomState::new();
        Self::with_incarnation(random.hash_one(0).max(1))
    }

    /// Makes an empty store with this incarnation, for a run that must be the same each time. No
    /// two stores of a node may have the same one.
    ///
    /// # Panics
    /// If it is 0.
    pub fn with_incarnation(incarnation: u64) -> Self {
        assert_ne!(incarnation, 0, "0 stands for an incarnation that is not known");
        let logs = BTreeMap::new();
        let open = BTreeSet::new();
        let content = Content { incarnation, node: None, boots: 0, cluster: None, logs, open };
        Self { content: Rc::new(RefCell::new(content)) }
    }

    /// Returns the store as the next process would open it: none of its groups is open. What still
    /// writes to it must have ended.
    pub fn reopen(&self) -> Self {
        self.content.borrow_mut().open.clear();
        self.clone()
    }

    /// Returns what the store holds of a group, open or not. Tests look at a running node's log
    /// with it.
    pub fn inspect(&self, group: GroupId) -> Recovered {
        let content = self.content.borrow();
        content.logs.get(&group).map(|log| log.recovered()).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Content {
    incarnation: u64,
    /// The only one that may start on it; none before the first start.
    node: Option<NodeId>,
    /// How often it has.
    boots: u64,
    cluster: Option<ClusterId>,
    logs: BTreeMap<GroupId, Box<Log>>,
    /// The groups that are recovered and not released.
    open: BTreeSet<GroupId>,
}

#[derive(Debug, Default)]
struct Log {
    hard_state: HardState,
    standing: Standing,
    marks: Marks,
    log_meta: LogMeta,
    /// From the first that is not purged on.
    runs: Runs,
    snapshot: Option<SnapshotMeta>,
    /// Those that are finished: the group's, and later ones.
    finished: Vec<(SnapshotMeta, Rc<[Bytes]>)>,
    /// How many snapshots are in the making.
    drafts: usize,
}

impl Log {
    fn recovered(&self) -> Recovered {
        Recovered {
            hard_state: self.hard_state,
            standing: self.standing.clone(),
            marks: self.marks.clone(),
            snapshot: self.snapshot.clone(),
            log_meta: self.log_meta.clone(),
        }
    }

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
        if let Some(standing) = write.standing {
            self.standing = *standing;
        }
        if let Some(marks) = write.marks {
            self.marks = *marks;
        }
        if let Some(snapshot) = write.snapshot {
            let is_finished = self.finished.iter().any(|(meta, _)| *meta == *snapshot);
            assert!(is_finished, "the snapshot at {} is not finished", snapshot.log_id);
            self.finished.retain(|(meta, _)| meta.log_id.index >= snapshot.log_id.index);
            self.snapshot = Some(*snapshot);
        }
        if let Some(to) = write.purge {
            let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.log_id.index);
            assert!(to.index <= covered, "{to} is to be purged, and the snapshot covers {covered}");
            self.log_meta.purge(to);
            self.runs.keep(self.log_meta.purged().index + 1..self.log_meta.last().index + 1);
        }
        let Some(first) = write.entries.first().map(|entry| entry.log_id.index) else { return };
        self.log_meta.truncate(first);
        self.runs.keep(0..first);
        self.log_meta.extend(&write.entries); // Panics where they don't follow.
        self.runs.push(write.entries);
    }
}

impl LogStore for MemStore {
    async fn identify(&self, node: NodeId) -> Result<Identity, StoreError> {
        let mut content = self.content.borrow_mut();
        let holds = *content.node.get_or_insert(node);
        if holds != node {
            let place = "the store in memory".to_owned();
            return Err(StoreError::OtherNode { place, holds, wanted: node });
        }
        content.boots += 1;
        let Content { incarnation, cluster, boots: boot, .. } = *content;
        Ok(Identity { incarnation, cluster, boot })
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.content.borrow().cluster
    }

    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        let Content { logs, open, .. } = &mut *self.content.borrow_mut();
        if !open.insert(group) {
            return Err(StoreError::GroupInUse(group));
        }
        let recovered = logs.get_mut(&group).map(|log| {
            log.finished.retain(|(meta, _)| log.snapshot.as_ref() == Some(meta));
            log.recovered()
        });
        Ok(recovered.unwrap_or_default())
    }

    fn release(&self, group: GroupId) {
        self.content.borrow_mut().open.remove(&group);
    }

    async fn remove(&self, group: GroupId) -> Result<(), StoreError> {
        let Content { logs, open, .. } = &mut *self.content.borrow_mut();
        let drafts = logs.get(&group).map_or(0, |log| log.drafts);
        if open.contains(&group) || drafts > 0 {
            return Err(StoreError::GroupInUse(group));
        }
        if let Some(log) = logs.remove(&group)
            && log.standing == Standing::Spent
        {
            let left = Log { standing: Standing::Spent, ..Log::default() };
            logs.insert(group, Box::new(left));
        }
        Ok(())
    }

    /// # Panics
    /// If the entries don't follow each other or the log, the hard state goes back, or the store
    /// belongs to another cluster already: these are bugs of the caller.
    fn append(&self, group: GroupId, write: LogWrite, done: Completion) -> Appended {
        let mut content = self.content.borrow_mut();
        if let Some(cluster) = write.cluster {
            let belongs = *content.cluster.get_or_insert(cluster);
            assert_eq!(belongs, cluster, "a store belongs to one cluster");
        }
        content.logs.entry(group).or_default().apply(write);
        done.durable()
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
        let logs = &self.content.borrow().logs;
        let log = logs.get(&group).ok_or(StoreError::Missing(range.start))?;
        let (purged, last) = (log.log_meta.purged().index, log.log_meta.last().index);
        if range.start <= purged {
            return Err(StoreError::Missing(range.start));
        }
        if range.end > last + 1 {
            return Err(StoreError::Missing(range.start.max(last + 1)));
        }
        Ok(log.runs.read(range, max_bytes))
    }

    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        self.content.borrow_mut().logs.entry(group).or_default().drafts += 1;
        Ok(Box::new(MemDraft { store: self.clone(), group, chunks: Vec::new() }))
    }

    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        let logs = &self.content.borrow().logs;
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

    async fn finish(mut self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError> {
        let bytes: u64 = self.chunks.iter().map(|chunk| chunk.len() as u64).sum();
        assert_eq!(bytes, meta.bytes, "the snapshot has another length than it is finished with");
        let mut content = self.store.content.borrow_mut();
        let finished = &mut content.logs.entry(self.group).or_default().finished;
        finished.retain(|(known, _)| known != meta);
        finished.push((meta.clone(), std::mem::take(&mut self.chunks).into()));
        Ok(())
    }
}

impl Drop for MemDraft {
    fn drop(&mut self) {
        let logs = &mut self.store.content.borrow_mut().logs;
        if let Some(log) = logs.get_mut(&self.group) {
            log.drafts -= 1;
        }
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
