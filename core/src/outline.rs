//! The shape of a log, without its content: its bounds, the terms of its entries and the memberships in it.

use std::collections::BTreeMap;

use crate::membership::Membership;
use crate::types::{Entry, Index, LogId, Payload, Term};

/// What an engine needs to know of its log at any time: the identity of every entry, and the memberships. It costs memory
/// by the number of terms, not of entries, since the entries of one leader follow each other. A store fills it while it
/// recovers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The first log id of each run of entries with the same term and leader, in order.
    runs: Vec<LogId>,
    last: LogId,
    memberships: BTreeMap<Index, Membership>,
}

impl Outline {
    /// The last entry; [`LogId::ZERO`] of an empty log.
    pub fn last(&self) -> LogId {
        self.last
    }

    /// Notes an entry at the end.
    ///
    /// Panics if it doesn't follow the last one: a store checks that before, where it reads from disk ([`Outline::follows`]).
    pub fn push(&mut self, entry: &Entry) {
        let log_id = entry.log_id;
        assert!(self.follows(log_id), "{log_id} can't follow {}", self.last);
        if self.last.index == 0
            || (log_id.term, log_id.leader) != (self.last.term, self.last.leader)
        {
            self.runs.push(log_id);
        }
        self.last = log_id;
        if let Payload::Membership(membership) = &entry.payload {
            self.memberships.insert(log_id.index, membership.clone());
        }
    }

    /// Whether an entry with this log id can be the next: the next index, and a term that does not fall.
    pub fn follows(&self, log_id: LogId) -> bool {
        let same_leader = log_id.term > self.last.term
            || self.last.index == 0
            || log_id.leader == self.last.leader;
        log_id.index == self.last.index + 1 && log_id.term >= self.last.term && same_leader
    }

    /// Forgets the entry at `from` and all after it.
    pub fn truncate(&mut self, from: Index) {
        assert!(from > 0, "the first entry has index 1");
        if from > self.last.index {
            return;
        }
        self.last = self.log_id(from - 1).unwrap_or_default();
        self.runs.retain(|run| run.index < from);
        self.memberships.split_off(&from);
    }

    /// The identity of the entry at `index`: [`LogId::ZERO`] at 0, none beyond the end.
    pub fn log_id(&self, index: Index) -> Option<LogId> {
        if index == 0 {
            return Some(LogId::ZERO);
        }
        if index > self.last.index {
            return None;
        }
        // Most questions are about the last run.
        let run = match self.runs.last() {
            Some(run) if run.index <= index => run,
            _ => {
                let after = self.runs.partition_point(|run| run.index <= index);
                self.runs.get(after.checked_sub(1)?)?
            }
        };
        Some(LogId { index, ..*run })
    }

    /// Whether the log holds this very entry. It always holds [`LogId::ZERO`].
    pub fn contains(&self, log_id: LogId) -> bool {
        self.log_id(log_id.index) == Some(log_id)
    }

    /// The last entry at or before `index` whose term is not above `term`.
    pub fn last_at_most(&self, index: Index, term: Term) -> LogId {
        let mut at = self.log_id(index.min(self.last.index)).unwrap_or_default();
        while at.term > term {
            let run = self.runs.partition_point(|run| run.index <= at.index);
            let first = run.checked_sub(1).and_then(|run| self.runs.get(run));
            at = first.and_then(|first| self.log_id(first.index - 1)).unwrap_or_default();
        }
        at
    }

    /// The membership in force: the last one in the log, committed or not (thesis 4.1), and where it stands.
    pub fn membership(&self) -> Option<(Index, &Membership)> {
        self.memberships.last_key_value().map(|(index, membership)| (*index, membership))
    }
}

#[cfg(test)]
mod tests;
