//! The log as the engine knows it: the identity of its entries, the snapshot before them, what of
//! it is in whose hands, and what is durable.
//!
//! An entry is *fresh* from when it is appended until the end of the turn; a write hands it to the
//! store, and until that says that it is durable it is *submitted*. Only fresh entries are held
//! here with their content.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use quorate_rt::Instant;

use crate::entries::{Entries, Runs};
use crate::identity::{ClusterId, Marks, Standing};
use crate::log_meta::LogMeta;
use crate::log_store::LogWrite;
use crate::membership::Membership;
use crate::plant;
use crate::snapshot::SnapshotMeta;
use crate::types::{Entry, HardState, Index, LogId, Payload, Term};

pub(super) struct Log {
    log_meta: LogMeta,
    snapshot: Option<Box<SnapshotMeta>>,
    /// The next write makes the snapshot the group's.
    named: bool,
    /// The next write makes the log begin where it does.
    purged: bool,
    /// The last write that has done one or the other.
    compacted_by: u64,
    /// The end of the log: what this turn has appended.
    fresh: Runs,
    /// Up to here a write of this turn holds it already; 0 where none does.
    handed: Index,
    /// The last of it, one by one: not yet a run.
    open: Vec<Entry>,
    /// Writes on their way to the disk, oldest first.
    submitted: VecDeque<Submitted>,
    /// So many of them wait for space.
    delayed: usize,
    next_write: u64,
    durable: Index,
}

struct Submitted {
    write: u64,
    /// Up to here the log is durable when this write is. A truncation lowers it: the same index may
    /// be written again later, even with the same log id as before (R9), and this write says
    /// nothing of that.
    last: Index,
    hard_state: Option<HardState>,
    /// Up to this change of the standing.
    standings: u64,
    at: Instant,
    /// It waits for space.
    delayed: bool,
    /// It is durable, ahead of one that waits for space.
    ahead: bool,
}

/// What a write tells beside the log.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) hard_state: Option<HardState>,
    pub(super) cluster: Option<ClusterId>,
    pub(super) standing: Option<Box<Standing>>,
    pub(super) marks: Option<Box<Marks>>,
    /// How often the standing has changed by now.
    pub(super) standings: u64,
}

impl Log {
    pub(super) fn new(mut log_meta: LogMeta, snapshot: Option<SnapshotMeta>) -> Self {
        let covered = snapshot.as_ref().map_or(0, |snapshot| snapshot.log_id.index);
        let (purged, last) = (log_meta.purged(), log_meta.last());
        assert!(purged.index <= covered, "{purged} is purged, but the snapshot ends at {covered}");
        assert!(covered <= last.index, "the snapshot covers {covered}, but the log ends at {last}");
        if let Some(SnapshotMeta { membership_index, membership, .. }) = &snapshot {
            log_meta.set_membership(*membership_index, membership.clone());
        }
        Self {
            log_meta,
            snapshot: snapshot.map(Box::new),
            named: false,
            purged: false,
            compacted_by: 0,
            fresh: Runs::default(),
            handed: 0,
            open: Vec::new(),
            submitted: VecDeque::new(),
            delayed: 0,
            next_write: 1,
            durable: last.index,
        }
    }

    pub(super) fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_deref()
    }

    /// The entry before the first.
    pub(super) fn purged(&self) -> LogId {
        self.log_meta.purged()
    }

    pub(super) fn back_by(&self, index: Index, bytes: u64) -> Index {
        self.log_meta.back_by(index, bytes)
    }

    /// Makes it the group's snapshot. The log holds all that it covers.
    pub(super) fn name_snapshot(&mut self, meta: SnapshotMeta) {
        self.snapshot = Some(Box::new(meta));
        self.named = true;
    }

    /// Puts a snapshot in the place of all that it covers, and of the whole log if that does not
    /// hold the snapshot's last entry. Up to `committed` both are known to be the same.
    pub(super) fn install(&mut self, meta: SnapshotMeta, committed: Index) {
        if !self.log_meta.contains(meta.log_id) {
            self.durable = self.durable.min(committed);
            for submitted in &mut self.submitted {
                submitted.last = submitted.last.min(committed);
            }
            self.open.clear();
            self.fresh.clear();
            self.handed = 0;
        }
        self.log_meta.purge(meta.log_id);
        self.log_meta.set_membership(meta.membership_index, meta.membership.clone());
        self.seal();
        self.fresh.keep(meta.log_id.index + 1..Index::MAX);
        self.purged = true;
        self.name_snapshot(meta);
    }

    /// Forgets all entries up to this one, which the snapshot covers, and which it holds.
    pub(super) fn purge(&mut self, to: Index) {
        if to > self.log_meta.purged().index
            && let Some(to) = self.log_meta.log_id(to)
        {
            self.log_meta.purge(to);
            self.purged = true;
        }
    }

    /// Whether the snapshot, and where the log begins, are what a restart would find.
    pub(super) fn compaction_is_durable(&self) -> bool {
        let by = self.compacted_by;
        let written = !self.submitted.iter().any(|one| one.write == by && !one.ahead);
        written && !self.named && !self.purged
    }

    pub(super) fn last(&self) -> LogId {
        self.log_meta.last()
    }

    /// Up to here this node's disk has the log.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    pub(super) fn membership(&self) -> Option<&Membership> {
        self.log_meta.membership().map(|(_, membership)| membership)
    }

    /// The entry that brought the membership in force; 0 where there is none.
    pub(super) fn membership_index(&self) -> Index {
        self.log_meta.membership().map_or(0, |(index, _)| index)
    }

    /// The memberships that were brought by entries after `before` and up to `to`.
    pub(super) fn memberships(
        &self,
        before: Index,
        to: Index,
    ) -> impl Iterator<Item = &Membership> {
        self.log_meta.memberships(before, to)
    }

    /// The largest time of an entry, purged ones included.
    pub(super) fn time(&self) -> u64 {
        let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.time);
        self.log_meta.time().max(covered)
    }

    pub(super) fn contains(&self, log_id: LogId) -> bool {
        self.log_meta.contains(log_id)
    }

    pub(super) fn log_id(&self, index: Index) -> Option<LogId> {
        self.log_meta.log_id(index)
    }

    pub(super) fn last_at_most(&self, index: Index, term: Term) -> LogId {
        self.log_meta.last_at_most(index, term)
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.log_meta.push(&entry);
        self.open.push(entry);
    }

    /// Appends commands as entries, from this one on.
    pub(super) fn push_commands(
        &mut self,
        first: LogId,
        time: u64,
        commands: impl IntoIterator<Item = Bytes>,
    ) {
        let before = self.open.len();
        let entry = |(index, command)| Entry {
            log_id: LogId { index, ..first },
            time,
            payload: Payload::Command(command),
        };
        self.open.extend((first.index..).zip(commands).map(entry));
        self.log_meta.extend_plain(first, time, self.open[before..].iter().map(Entry::bytes));
    }

    pub(super) fn extend(&mut self, run: Entries) {
        self.log_meta.extend(&run);
        self.seal();
        self.fresh.push(run);
    }

    /// Makes a run of what came one by one.
    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.fresh.push(self.open.drain(..).collect());
        }
    }

    /// Forgets the entry at `from` and all after it, because the leader has others there.
    pub(super) fn truncate(&mut self, from: Index) {
        self.log_meta.truncate(from);
        self.durable = self.durable.min(from - 1);
        let last = from - 1;
        plant!(R9, last = Index::MAX);
        for submitted in &mut self.submitted {
            submitted.last = submitted.last.min(last);
        }
        self.seal();
        self.fresh.keep(0..from);
        self.handed = self.handed.min(from - 1);
    }

    /// Entries from `from` on, if that is fresh: up to the end of its run.
    pub(super) fn fresh_from(&mut self, from: Index) -> Option<Entries> {
        self.seal();
        self.fresh.rest_of_run(from)
    }

    /// Whether there is something that was not handed to the store yet.
    pub(super) fn is_unhanded(&self) -> bool {
        let is_fresh = self.fresh.last().is_some_and(|last| last > self.handed);
        self.named || self.purged || is_fresh || !self.open.is_empty()
    }

    /// Hands to the store what is fresh and has not been handed to it, with what else is to be
    /// told.
    pub(super) fn take_write(&mut self, beside: Beside, now: Instant) -> (u64, LogWrite) {
        let Beside { hard_state, cluster, standing, marks, standings } = beside;
        self.seal();
        let write = self.next_write;
        self.next_write += 1;
        if self.named || self.purged {
            self.compacted_by = write;
        }
        let (named, purged) = (mem::take(&mut self.named), mem::take(&mut self.purged));
        let snapshot = if named { self.snapshot.clone() } else { None };
        let purge = purged.then(|| self.log_meta.purged());
        let mut entries = Entries::default();
        if let Some(last) = self.fresh.last().filter(|last| *last > self.handed) {
            let first = self.fresh.first().unwrap_or(last).max(self.handed + 1);
            entries = self.fresh.read(first..last + 1, usize::MAX);
            self.handed = last;
        }
        let last = self.last().index;
        let (delayed, ahead) = (false, false);
        let submitted = Submitted { write, last, hard_state, standings, at: now, delayed, ahead };
        self.submitted.push_back(submitted);
        (write, LogWrite { hard_state, cluster, standing, marks, snapshot, purge, entries })
    }

    /// The turn is over: what it has appended is in the store's hands.
    pub(super) fn end_turn(&mut self) {
        if self.fresh.last().is_some_and(|last| last == self.handed) {
            self.fresh.clear();
            self.handed = 0;
        }
        assert!(self.fresh.first().is_none(), "not submitted");
    }

    /// Lets go of memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.fresh.shrink();
        self.open.shrink_to_fit();
        self.submitted.shrink_to_fit();
        self.log_meta.shrink();
    }

    /// Since when the disk has been at its oldest write. Those that wait for space say nothing of
    /// its pace.
    pub(super) fn writing_since(&self) -> Option<Instant> {
        let mut under_way = self.submitted.iter().filter(|one| !one.delayed && !one.ahead);
        under_way.next().map(|submitted| submitted.at)
    }

    /// Whether the disk is full: a write waits for space.
    pub(super) fn waits_for_space(&self) -> bool {
        self.delayed > 0
    }

    /// The store has no space for this write, and may complete later ones before it.
    pub(super) fn delayed(&mut self, write: u64) {
        let at = self.submitted.binary_search_by_key(&write, |submitted| submitted.write);
        if let Ok(at) = at
            && !mem::replace(&mut self.submitted[at].delayed, true)
        {
            self.delayed += 1;
        }
    }

    /// This write and all before it are durable, but for those that wait for space. Answers the
    /// last hard state among them, and up to which change the standing is.
    pub(super) fn persisted(&mut self, write: u64) -> (Option<HardState>, u64) {
        assert!(write < self.next_write, "the store completes write {write}, which it never got");
        let (mut hard_state, mut standings) = (None, 0);
        let mut before = self.submitted.iter().take_while(|submitted| submitted.write < write);
        if self.delayed > 0 && before.any(|submitted| submitted.delayed) {
            // It went ahead of entries that wait: its hard state is durable, and the log is not.
            let at = self.submitted.binary_search_by_key(&write, |submitted| submitted.write);
            if let Ok(at) = at {
                let submitted = &mut self.submitted[at];
                submitted.ahead = true;
                hard_state = submitted.hard_state.take();
            }
            return (hard_state, standings);
        }
        while let Some(first) = self.submitted.front()
            && (first.write <= write || first.ahead)
        {
            plant!(
                R10,
                if first.write != write {
                    break;
                }
            );
            self.durable = self.durable.max(first.last);
            hard_state = first.hard_state.or(hard_state);
            standings = first.standings;
            self.delayed -= usize::from(first.delayed);
            self.submitted.pop_front();
        }
        assert!(self.durable <= self.last().index, "more is durable than was ever appended");
        (hard_state, standings)
    }
}

#[cfg(test)]
mod tests;
