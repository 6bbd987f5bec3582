//! A Raft log in memory, for tests, benchmarks and caches.
//!
//! It is a [`LogStore`] that forgets everything with the process. Within it, it can outlive its node: a test of a restart
//! keeps a clone, drops the node and starts another on the clone.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use quorate_core::{
    Completion, Entry, GroupId, HardState, Index, LogStore, LogWrite, Outline, Recovered,
    StoreError,
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
    /// From index 1 on.
    entries: VecDeque<Entry>,
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
        let Some(first) = write.entries.first().map(|entry| entry.log_id.index) else { return };
        self.outline.truncate(first);
        self.entries.truncate(self.outline.last().index as usize);
        for entry in write.entries {
            self.outline.push(&entry); // Panics where it doesn't follow.
            self.entries.push_back(entry);
        }
        assert_eq!(self.entries.len() as Index, self.outline.last().index);
    }
}

impl LogStore for MemStore {
    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        let logs = self.logs.borrow();
        let recovered = logs
            .get(&group)
            .map(|log| Recovered { hard_state: log.hard_state, outline: log.outline.clone() });
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
    ) -> Result<Vec<Entry>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let logs = self.logs.borrow();
        let last = logs.get(&group).map_or(0, |log| log.outline.last().index);
        if range.start == 0 {
            return Err(StoreError::Missing(0));
        }
        let log = logs
            .get(&group)
            .filter(|_| range.end <= last + 1)
            .ok_or(StoreError::Missing(range.start.max(last + 1)))?;
        let mut bytes = 0;
        let mut found = Vec::new();
        for entry in log.entries.range(range.start as usize - 1..range.end as usize - 1) {
            bytes += entry.bytes();
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }
}
