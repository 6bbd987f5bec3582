//! The log as the engine knows it: the identity of its entries, what of it is in whose hands, and what is durable.
//!
//! An entry is *fresh* from when it is appended until the next output hands it to the store; it is *submitted* until the store
//! says that it is durable. Only fresh entries are held here with their content.

use std::collections::VecDeque;
use std::mem;

use crate::log_store::LogWrite;
use crate::membership::Membership;
use crate::outline::Outline;
use crate::types::{Entry, HardState, Index, LogId, Term};

pub(super) struct Log {
    outline: Outline,
    /// What the next write will hold: the end of the log.
    fresh: Vec<Entry>,
    /// Writes on their way to the disk, oldest first.
    submitted: VecDeque<Submitted>,
    next_write: u64,
    durable: Index,
}

struct Submitted {
    write: u64,
    /// Up to here the log is durable when this write is. A truncation lowers it: the same index may be written again
    /// later, even with the same log id as before (R9), and this write says nothing of that.
    last: Index,
    hard_state: Option<HardState>,
}

impl Log {
    pub(super) fn new(outline: Outline) -> Self {
        let durable = outline.last().index;
        Self { outline, fresh: Vec::new(), submitted: VecDeque::new(), next_write: 1, durable }
    }

    pub(super) fn last(&self) -> LogId {
        self.outline.last()
    }

    /// Up to here this node's disk has the log.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    pub(super) fn membership(&self) -> Option<&Membership> {
        self.outline.membership().map(|(_, membership)| membership)
    }

    pub(super) fn contains(&self, log_id: LogId) -> bool {
        self.outline.contains(log_id)
    }

    pub(super) fn log_id(&self, index: Index) -> Option<LogId> {
        self.outline.log_id(index)
    }

    pub(super) fn last_at_most(&self, index: Index, term: Term) -> LogId {
        self.outline.last_at_most(index, term)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.outline.push(&entry);
        self.fresh.push(entry);
    }

    /// Forgets the entry at `from` and all after it, because the leader has others there.
    pub(super) fn truncate(&mut self, from: Index) {
        self.outline.truncate(from);
        self.durable = self.durable.min(from - 1);
        for submitted in &mut self.submitted {
            submitted.last = submitted.last.min(from - 1);
        }
        self.fresh.retain(|entry| entry.log_id.index < from);
    }

    /// The entries from `from` on, if they are all fresh.
    pub(super) fn fresh_from(&self, from: Index) -> Option<&[Entry]> {
        let first = self.fresh.first()?.log_id.index;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        self.fresh.get(skip..)
    }

    /// Hands what is fresh to the store, with the hard state if that has changed.
    pub(super) fn take_write(&mut self, hard_state: Option<HardState>) -> Option<(u64, LogWrite)> {
        if self.fresh.is_empty() && hard_state.is_none() {
            return None;
        }
        let write = self.next_write;
        self.next_write += 1;
        self.submitted.push_back(Submitted { write, last: self.last().index, hard_state });
        Some((write, LogWrite { hard_state, entries: mem::take(&mut self.fresh) }))
    }

    /// This write and all before it are durable. Answers the last hard state among them.
    pub(super) fn persisted(&mut self, write: u64) -> Option<HardState> {
        assert!(write < self.next_write, "the store completes write {write}, which it never got");
        let mut hard_state = None;
        while let Some(first) = self.submitted.front()
            && first.write <= write
        {
            self.durable = self.durable.max(first.last);
            hard_state = first.hard_state.or(hard_state);
            self.submitted.pop_front();
        }
        assert!(self.durable <= self.last().index, "more is durable than was ever appended");
        hard_state
    }
}
