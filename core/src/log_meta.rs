//! The shape of a log, without its content: its bounds, the terms of its entries, the memberships
//! in it, and roughly its size.

use crate::entries::Entries;
use crate::membership::Membership;
use crate::plant;
use crate::types::{Entry, Index, LogId, Payload, Term};

/// What an engine needs to know of its log at any time: the identity of every entry, and the
/// memberships. It costs memory by the number of terms, not of entries, since the entries of one
/// leader follow each other. A store fills it while it recovers.
#[derive(Clone, Debug, Default)]
pub struct LogMeta {
    /// The entry before the first one.
    purged: LogId,
    /// The first log id of each run of entries with the same term and leader, in order. The first
    /// run may begin before the log does.
    runs: Vec<LogId>,
    last: LogId,
    /// By the index of the entry that brought it; the one in force where the log begins is among
    /// them, though its entry may be purged.
    memberships: Vec<(Index, Membership)>,
    /// Every so many bytes an entry, and the size of all up to it.
    marks: Vec<(Index, u64)>,
    /// The size of all entries up to the last, purged ones included.
    bytes: u64,
    /// The largest time of an entry that was ever noted.
    time: u64,
}

/// How far the marks are apart, in bytes, to within as much again: so a mark costs nothing beside
/// what it stands for, and sizes are nearly right.
const MARK_BYTES: u64 = 64 << 10;

impl PartialEq for LogMeta {
    /// The sizes and the time are estimates, which differ with the way in which a log came about.
    fn eq(&self, other: &Self) -> bool {
        let Self { purged, runs, last, memberships, marks: _, bytes: _, time: _ } = self;
        // Where the first run began before the log does, doesn't matter.
        let begin = |log_meta: &Self, run: LogId| LogId {
            index: run.index.max(log_meta.purged.index + 1),
            ..run
        };
        *purged == other.purged
            && *last == other.last
            && *memberships == other.memberships
            && runs
                .iter()
                .map(|run| begin(self, *run))
                .eq(other.runs.iter().map(|run| begin(other, *run)))
    }
}

impl Eq for LogMeta {}

impl LogMeta {
    /// An empty log that begins after this entry.
    pub fn after(purged: LogId) -> Self {
        let last = purged;
        plant!(S6, last = LogId::ZERO);
        Self { purged, last, ..Self::default() }
    }

    /// The entry before the first one of the log; [`LogId::ZERO`] if nothing was purged.
    pub fn purged(&self) -> LogId {
        self.purged
    }

    /// The last entry, which may be purged itself; [`LogId::ZERO`] of a log that has never had one.
    pub fn last(&self) -> LogId {
        self.last
    }

    /// Lets go of memory that is not in use.
    pub(crate) fn shrink(&mut self) {
        self.runs.shrink_to_fit();
        self.memberships.shrink_to_fit();
        self.marks.shrink_to_fit();
    }

    /// Notes an entry at the end.
    ///
    /// Panics if it doesn't follow the last one: a store checks that before, where it reads from
    /// disk ([`LogMeta::follows`]).
    pub fn push(&mut self, entry: &Entry) {
        self.note(entry.log_id, entry.log_id.index, entry.time, entry.bytes() as u64);
        if let Payload::Membership(membership) = &entry.payload {
            self.set_membership(entry.log_id.index, membership.clone());
        }
    }

    /// Notes a run of entries at the end; see [`push`](Self::push).
    pub fn extend(&mut self, run: &Entries) {
        if let Err(wrong) = self.try_extend(run) {
            panic!("{wrong} can't follow {}", self.last);
        }
    }

    /// Notes a run of entries at the end.
    ///
    /// Errors: the first that doesn't follow. Those before it are noted.
    pub fn try_extend(&mut self, run: &Entries) -> Result<(), LogId> {
        if !run.is_plain() {
            for entry in run {
                if !self.follows(entry.log_id) {
                    return Err(entry.log_id);
                }
                self.push(entry);
            }
            return Ok(());
        }
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        if !self.follows(first.log_id) {
            return Err(first.log_id);
        }
        if run.bytes() as u64 <= MARK_BYTES {
            self.note_next(first.log_id, last.log_id.index, last.time, run.bytes() as u64);
        } else {
            self.extend_plain(first.log_id, last.time, run.iter().map(Entry::bytes));
        }
        Ok(())
    }

    /// Notes entries at the end that are all of the term and leader of the first, and hold no
    /// membership, by their sizes.
    ///
    /// Panics where the first doesn't follow.
    pub(crate) fn extend_plain(
        &mut self,
        first: LogId,
        time: u64,
        sizes: impl IntoIterator<Item = usize>,
    ) {
        // In pieces, each of which gets a mark.
        let (mut begin, mut next, mut bytes) = (first, first.index, 0);
        for size in sizes {
            next += 1;
            bytes += size as u64;
            if bytes >= MARK_BYTES {
                self.note(begin, next - 1, time, bytes);
                (begin.index, bytes) = (next, 0);
            }
        }
        if begin.index < next {
            self.note(begin, next - 1, time, bytes);
        }
    }

    /// Notes entries of one term and leader, from this one to `last`, with so many bytes together.
    fn note(&mut self, first: LogId, last: Index, time: u64, bytes: u64) {
        assert!(self.follows(first), "{first} can't follow {}", self.last);
        self.note_next(first, last, time, bytes);
    }

    /// The same of entries that are known to follow.
    fn note_next(&mut self, first: LogId, last: Index, time: u64, bytes: u64) {
        if self.last == self.purged
            || (first.term, first.leader) != (self.last.term, self.last.leader)
        {
            self.runs.push(first);
        }
        self.last = LogId { index: last, ..first };
        self.bytes += bytes;
        self.time = self.time.max(time);
        if self.bytes - self.marks.last().map_or(0, |(_, bytes)| *bytes) >= MARK_BYTES {
            self.marks.push((last, self.bytes));
        }
    }

    /// Notes an entry at the end of which the content is not at hand: `bytes` is its size as
    /// [`Entry::bytes`] counts it, and `membership` the one that it brings.
    ///
    /// # Errors
    ///
    /// The entry does not follow the last one. Nothing is noted.
    pub fn try_push(
        &mut self,
        log_id: LogId,
        time: u64,
        bytes: usize,
        membership: Option<Membership>,
    ) -> Result<(), LogId> {
        if !self.follows(log_id) {
            return Err(log_id);
        }
        self.note(log_id, log_id.index, time, bytes as u64);
        if let Some(membership) = membership {
            self.set_membership(log_id.index, membership);
        }
        Ok(())
    }

    /// Notes at the end all entries that `next` knows. Nothing else of `next` counts: it need not
    /// know which entry comes before its first.
    ///
    /// # Errors
    ///
    /// The first entry of `next`, which does not follow the last one. Nothing is noted.
    pub fn try_join(&mut self, next: Self) -> Result<(), LogId> {
        let begin = next.purged.index + 1;
        let Some(first) = next.log_id(begin).filter(|_| next.last.index >= begin) else {
            return Ok(());
        };
        if !self.follows(first) {
            return Err(first);
        }
        let continues = self.last != self.purged
            && (first.term, first.leader) == (self.last.term, self.last.leader);
        let first_run = (!continues).then_some(first);
        let runs = next.runs.into_iter().filter(|run| run.index > begin);
        self.runs.extend(first_run.into_iter().chain(runs));
        self.memberships.extend(next.memberships.into_iter().filter(|(at, _)| *at >= begin));
        let before = self.bytes;
        let marks = next.marks.into_iter().filter(|(at, _)| *at >= begin);
        self.marks.extend(marks.map(|(at, bytes)| (at, before + bytes)));
        self.last = next.last;
        self.bytes += next.bytes;
        self.time = self.time.max(next.time);
        Ok(())
    }

    /// Whether an entry with this log id can be the next: the next index, and a term that does not
    /// fall.
    pub fn follows(&self, log_id: LogId) -> bool {
        let same_leader = log_id.term > self.last.term
            || self.last.index == 0
            || log_id.leader == self.last.leader;
        log_id.index == self.last.index + 1 && log_id.term >= self.last.term && same_leader
    }

    /// Forgets the entry at `from` and all after it.
    ///
    /// Panics if that is purged: only what is committed is.
    pub fn truncate(&mut self, from: Index) {
        assert!(from > self.purged.index, "{from} can't be cut: {} is purged", self.purged);
        if from > self.last.index {
            return;
        }
        self.last = self.log_id(from - 1).unwrap_or_default();
        self.runs.retain(|run| run.index < from);
        if self.last == self.purged {
            self.runs.clear();
        }
        let forgotten = from;
        plant!(M8, forgotten = Index::MAX);
        self.memberships.truncate(self.memberships.partition_point(|(at, _)| *at < forgotten));
        self.marks.truncate(self.marks.partition_point(|(index, _)| *index < from));
        self.bytes = self.marks.last().map_or(0, |(_, bytes)| *bytes);
    }

    /// Forgets the entry `to` and all before it. If the log does not hold this very entry, all of
    /// it is forgotten, and it begins after that one. What is purged already changes nothing.
    pub fn purge(&mut self, to: LogId) {
        if to.index < self.purged.index {
            return;
        }
        if to.index > self.purged.index && !self.contains(to) {
            let (bytes, time, memberships) = (self.bytes, self.time, Vec::new());
            plant!(M6, memberships = self.memberships.clone());
            *self = Self { bytes, time, memberships, ..Self::after(to) };
            return;
        }
        if self.last.index == to.index {
            self.last = to;
        }
        self.purged = to;
        // The last one that begins at or before the first entry stays.
        let keep = |begins: &dyn Fn(Index) -> usize| begins(to.index + 1).saturating_sub(1);
        let runs = &self.runs;
        let first = keep(&|index| runs.partition_point(|run| run.index <= index));
        self.runs.drain(..first);
        if self.last == to {
            self.runs.clear();
        }
        // The one in force there stays.
        let memberships = self.memberships.partition_point(|(at, _)| *at <= to.index);
        self.memberships.drain(..memberships.saturating_sub(1));
        self.marks
            .drain(..self.marks.partition_point(|(index, _)| *index <= to.index).saturating_sub(1));
    }

    /// Notes the membership in force where the log begins, which a snapshot tells: the entry at
    /// `index` brought it. (The node does so; a store need not.)
    pub fn set_membership(&mut self, index: Index, membership: Membership) {
        match self.memberships.binary_search_by_key(&index, |(at, _)| *at) {
            Ok(at) => self.memberships[at].1 = membership,
            Err(at) => {
                if self.memberships.is_empty() {
                    self.memberships.reserve_exact(1); // Mostly it stays the only one.
                }
                self.memberships.insert(at, (index, membership));
            }
        }
    }

    /// The identity of the entry at `index`: [`LogId::ZERO`] at 0, that of the entry before the
    /// first; none before that and beyond the end.
    pub fn log_id(&self, index: Index) -> Option<LogId> {
        if index == 0 {
            return Some(LogId::ZERO);
        }
        if index == self.purged.index {
            return Some(self.purged);
        }
        if index > self.last.index || index < self.purged.index {
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

    /// Whether the log holds this very entry, or begins right after it. It always holds
    /// [`LogId::ZERO`].
    pub fn contains(&self, log_id: LogId) -> bool {
        self.log_id(log_id.index) == Some(log_id)
    }

    /// The last entry at or before `index` whose term is not above `term`; [`LogId::ZERO`] if that
    /// would be a purged one.
    pub fn last_at_most(&self, index: Index, term: Term) -> LogId {
        let mut at = self.log_id(index.min(self.last.index)).unwrap_or_default();
        while at.term > term {
            let run = self.runs.partition_point(|run| run.index <= at.index);
            let first = run.checked_sub(1).and_then(|run| self.runs.get(run));
            at = first.and_then(|first| self.log_id(first.index - 1)).unwrap_or_default();
        }
        at
    }

    /// The membership in force: the last one in the log, committed or not (thesis 4.1), and where
    /// it stands.
    pub fn membership(&self) -> Option<(Index, &Membership)> {
        self.memberships.last().map(|(index, membership)| (*index, membership))
    }

    /// The memberships that were brought by entries after `before` and up to `to`, in order.
    pub fn memberships(&self, before: Index, to: Index) -> impl Iterator<Item = &Membership> {
        let up_to = |index: Index| self.memberships.partition_point(|(at, _)| *at <= index);
        let found = &self.memberships[up_to(before)..up_to(to.max(before))];
        found.iter().map(|(_, membership)| membership)
    }

    /// The largest time of an entry that was ever noted, in milliseconds since the Unix epoch.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// How far back from the entry at `index` one may go before the entries after it, up to that
    /// one, take more than about `bytes` bytes: to within 64 KiB, and not beyond where the log
    /// begins.
    pub fn back_by(&self, index: Index, bytes: u64) -> Index {
        if bytes == 0 {
            return index.clamp(self.purged.index, self.last.index);
        }
        let mark = |count: usize| count.checked_sub(1).and_then(|at| self.marks.get(at));
        let here = mark(self.marks.partition_point(|(marked, _)| *marked <= index));
        let here = here.map_or(0, |(_, bytes)| *bytes);
        let begin = mark(self.marks.partition_point(|(_, sum)| sum + bytes <= here));
        begin.map_or(0, |(marked, _)| *marked).max(self.purged.index)
    }
}

#[cfg(test)]
mod tests;
