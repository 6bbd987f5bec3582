//! What is known of the logs of all groups without reading, and how a read is answered from it.
//!
//! The recent entries of a group are always the last ones of its log, without a gap, and are
//! truncated with it, so they can't disagree with it. Only durable ones are let go, the longest
//! submitted first over all groups; so whatever is not in memory can be read from disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use quorate_core::{Entries, Entry, GroupId, Index, LogId, LogWrite, Recovered, StoreError};

use crate::format::Position;
use crate::locations::EntryLocation;
use crate::log::Log;
use crate::owner::Owner;
use crate::record::Span;

/// Stored entries are read in pieces of this size (a larger entry at once): large enough that a
/// piece's fixed cost vanishes, small beside the cache.
const READ_BYTES: u64 = 1 << 20;

/// Two entries are read at once if no more than this lies between them: the headers of their
/// records, or a little of other groups.
const MAX_GAP_BYTES: u64 = 4 << 10;

/// How a part of a read is answered.
#[derive(Debug)]
pub(crate) enum Part {
    /// From memory.
    Recent(Entries),
    /// From the disk: neighbours in one segment, the first of which has index `first`.
    Stored { first: Index, locations: Vec<EntryLocation> },
}

/// What a store holds: the logs of all groups, and whose it is.
#[derive(Debug)]
pub(crate) struct Logs {
    /// The store's; none before a segment was read.
    pub(crate) incarnation: Option<u64>,
    pub(crate) owner: Owner,
    /// The first segment in which a part of that was last told.
    owner_recorded_in: Option<u32>,
    logs: BTreeMap<GroupId, Box<Log>>,
    /// Whether everything that was ever written is among what is noted; if not, what is missing is
    /// purged in the end.
    whole: bool,
    cache_bytes: usize,
    /// Of all the entries in memory, and of `order`.
    cached: usize,
    /// What went into memory, in order: for each write its group and last index. After a truncation
    /// an item may stand for entries that are gone, or for newer ones in their place.
    order: VecDeque<(GroupId, Index)>,
}

/// What an item of `order` is counted as. It makes endless rewriting of the same index hit the
/// limit, too.
const ORDER_BYTES: usize = size_of::<(GroupId, Index)>();

impl Logs {
    pub(crate) fn new(cache_bytes: usize) -> Self {
        let (logs, order) = (BTreeMap::new(), VecDeque::new());
        let (incarnation, owner, owner_recorded_in) = (None, Owner::default(), None);
        let (whole, cached) = (true, 0);
        Self { incarnation, owner, owner_recorded_in, logs, whole, cache_bytes, cached, order }
    }

    /// The first segments of the log were removed. To be told before anything is noted.
    pub(crate) fn begin_unknown(&mut self) {
        assert!(self.logs.is_empty());
        self.whole = false;
    }

    /// All that the store holds has been noted.
    ///
    /// Errors: it is not all that it should hold, and where that shows.
    pub(crate) fn complete(&mut self) -> Result<(), (String, Option<Position>)> {
        for (group, log) in &mut self.logs {
            let of_group = |reason| format!("in group {group}, {reason}");
            if !self.whole {
                log.anchor().map_err(|(reason, location)| {
                    let EntryLocation { segment, offset, .. } = location;
                    (of_group(reason), Some(Position { segment, offset }))
                })?;
            }
            log.check_covered().map_err(|reason| (of_group(reason), None))?;
        }
        self.logs.retain(|_, log| !log.is_vacant()); // They were removed.
        self.whole = true;
        Ok(())
    }

    /// Whether the write is a purge of an entry that the log does not hold.
    pub(crate) fn replaces(&self, group: GroupId, write: &LogWrite) -> bool {
        let held = |to| self.logs.get(&group).map_or(to != LogId::ZERO, |log| log.replaces(to));
        write.purge.is_some_and(held)
    }

    /// The first segment with an entry of any group.
    pub(crate) fn first_segment(&self) -> Option<u32> {
        self.logs.values().filter_map(|log| log.locations.first_segment()).min()
    }

    /// Writes that tell again what was last told before this segment.
    pub(crate) fn states_before(&self, segment: u32) -> Vec<(GroupId, LogWrite)> {
        let logs = self.logs.iter();
        logs.filter_map(|(group, log)| Some((*group, log.state_before(segment)?))).collect()
    }

    /// Notes a write whose record is at `at`, with its entries where `spans` say. The entries don't
    /// get into memory; see [`keep`](Self::keep).
    ///
    /// Errors: why it makes no sense after what was noted before. Then the group's log must not be
    /// used any more.
    pub(crate) fn note(
        &mut self,
        group: GroupId,
        write: &LogWrite,
        replaces: bool,
        spans: &[Span],
        at: Position,
    ) -> Result<(), String> {
        if let Some(cluster) = write.cluster
            && self.owner.cluster != Some(cluster)
        {
            self.owner = self.owner.joined(cluster)?;
            if at.is_somewhere() {
                self.owner_recorded_in = self.owner_recorded_in.or(Some(at.segment));
            }
        }
        let log = self.logs.entry(group).or_insert_with(|| Box::new(Log::new(self.whole)));
        let noted = log.note(write, replaces, spans, at).and_then(|released| {
            if self.whole {
                log.check_covered()?;
            }
            Ok(released)
        });
        self.cached -= noted.map_err(|reason| format!("in group {group}, {reason}"))?;
        Ok(())
    }

    /// Notes a copy of entries, whose record is at `at`, where `spans` say.
    ///
    /// Errors: why it makes no sense after what was noted before. Then the group's log must not be
    /// used any more.
    pub(crate) fn note_copy(
        &mut self,
        group: GroupId,
        entries: &Entries,
        spans: &[Span],
        at: Position,
    ) -> Result<(), String> {
        let log = self.logs.entry(group).or_insert_with(|| Box::new(Log::new(self.whole)));
        let noted = log.note_copy(entries, spans, at);
        noted.map_err(|reason| format!("in group {group}, {reason}"))
    }

    /// Notes whose store it is, by a record at `at`.
    ///
    /// Errors: why it can't be, after what was noted before.
    pub(crate) fn note_owner(&mut self, owner: Owner, at: Position) -> Result<(), String> {
        self.owner.check_next(&owner)?;
        self.owner = owner;
        if at.is_somewhere() {
            self.owner_recorded_in = Some(at.segment);
        }
        Ok(())
    }

    /// What was noted without a place stands at `at` now.
    pub(crate) fn placed(
        &mut self,
        group: GroupId,
        write: &LogWrite,
        spans: &[Span],
        at: Position,
    ) {
        if write.cluster.is_some() {
            self.owner_recorded_in = self.owner_recorded_in.or(Some(at.segment));
        }
        if let Some(log) = self.logs.get_mut(&group) {
            log.placed(write, spans, at);
        }
    }

    /// The owner's record stands there.
    pub(crate) fn placed_owner(&mut self, at: Position) {
        self.owner_recorded_in = Some(at.segment);
    }

    /// A write that was noted with a place has lost it.
    pub(crate) fn lose_place(&mut self, group: GroupId, write: &LogWrite) {
        if write.cluster.is_some() {
            self.owner_recorded_in = Some(0);
        }
        if let Some(log) = self.logs.get_mut(&group) {
            log.lose_place(write);
        }
    }

    /// The segments with entries of the group's log that this write replaces, each with the last
    /// of them.
    pub(crate) fn replaced_by(&self, group: GroupId, write: &LogWrite) -> BTreeMap<u32, Index> {
        match (write.entries.first(), self.logs.get(&group)) {
            (Some(first), Some(log)) if first.log_id.index <= log.log_meta.last().index => {
                log.places_from(first.log_id.index)
            }
            _ => BTreeMap::new(),
        }
    }

    /// The last index that is purged from a group's log; 0 if none is.
    pub(crate) fn purged(&self, group: GroupId) -> Index {
        self.logs.get(&group).map_or(0, |log| log.log_meta.purged().index)
    }

    /// The entries of these that the group's log still holds.
    pub(crate) fn still_held(&self, group: GroupId, entries: &Entries) -> Entries {
        let Some(log) = self.logs.get(&group) else { return Entries::default() };
        // The metadata knows the last purged entry as well, and the log does not hold that.
        let purged = log.log_meta.purged().index;
        let is_held = |entry: &Entry| {
            let index = entry.log_id.index;
            index > purged && log.log_meta.log_id(index) == Some(entry.log_id)
        };
        // What was purged lies before them, and what was replaced behind them.
        let first = entries.iter().position(is_held).unwrap_or(entries.len());
        let held = entries[first..].iter().take_while(|entry| is_held(entry)).count();
        entries.slice(first..first + held)
    }

    /// Nothing is left of a group, but that it is spent.
    pub(crate) fn remove(&mut self, group: GroupId) {
        // Whatever comes of it from now on, nothing before is missing.
        let mut left = Log::new(true);
        if let Some(log) = self.logs.remove(&group) {
            self.cached -= log.recent.bytes();
            left.keep_spent(&log);
        }
        if !self.whole || !left.is_vacant() {
            self.logs.insert(group, Box::new(left));
        }
    }

    /// The groups whose log does not reach their snapshot, and the end of that.
    pub(crate) fn unreached_snapshots(&self) -> Vec<(GroupId, LogId)> {
        let logs = self.logs.iter();
        logs.filter_map(|(group, log)| Some((*group, log.unreached_snapshot()?))).collect()
    }

    /// Whose store it is, if a part of that was last told before this segment.
    pub(crate) fn owner_before(&self, segment: u32) -> Option<Owner> {
        self.owner_recorded_in.filter(|recorded_in| *recorded_in < segment).map(|_| self.owner)
    }

    /// Keeps the entries of the write that was noted last in memory.
    pub(crate) fn keep(&mut self, group: GroupId, entries: Entries) {
        let (Some(log), Some(last)) = (self.logs.get_mut(&group), entries.last()) else { return };
        assert_eq!(log.log_meta.last(), last.log_id);
        self.order.push_back((group, last.log_id.index));
        self.cached += ORDER_BYTES + entries.bytes();
        log.recent.push(entries);
        assert!(log.first_recent() > log.log_meta.purged().index);
    }

    /// Lets go of what is too much, and lies before `durable`, a write's entries at a time.
    pub(crate) fn shrink(&mut self, durable: Position) {
        while self.cached > self.cache_bytes {
            let Some((group, upto)) = self.order.front().copied() else { return };
            if let Some(log) = self.logs.get_mut(&group) {
                while self.cached > self.cache_bytes
                    && log.first_recent() <= upto
                    && let Some(location) = log.location(log.first_recent())
                {
                    let location = Position { segment: location.segment, offset: location.offset };
                    if location >= durable {
                        return; // All that comes later isn't durable either.
                    }
                    let Some(run) = log.recent.pop_run() else { break };
                    self.cached -= run.bytes();
                }
                if self.cached <= self.cache_bytes {
                    return;
                }
            }
            self.order.pop_front();
            self.cached -= ORDER_BYTES;
        }
    }

    #[cfg(test)]
    pub(crate) fn cached(&self) -> usize {
        self.cached
    }

    pub(crate) fn recovered(&self, group: GroupId) -> Recovered {
        self.logs.get(&group).map(|log| log.recovered()).unwrap_or_default()
    }

    /// What is known of this group and those after it.
    pub(crate) fn groups_from(&self, group: GroupId) -> impl Iterator<Item = (GroupId, &Log)> {
        self.logs.range(group..).map(|(group, log)| (*group, &**log))
    }

    /// The log of a group.
    pub(crate) fn log(&self, group: GroupId) -> Option<&Log> {
        self.logs.get(&group).map(|log| &**log)
    }

    /// Entries of a group, from `first` on, that stood at `from` are to be read from `to`, those
    /// that still count.
    pub(crate) fn moved(
        &mut self,
        group: GroupId,
        first: Index,
        from: &[EntryLocation],
        to: &[EntryLocation],
    ) {
        let Some(log) = self.logs.get_mut(&group) else { return };
        for (index, (from, to)) in (first..).zip(from.iter().zip(to)) {
            log.moved(index, *from, *to);
        }
        // Who reads them meanwhile may find that the segment is gone.
        log.changes += 1;
    }

    /// What is known of all groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, &Log)> {
        self.logs.iter().map(|(group, log)| (*group, &**log))
    }

    /// How often entries of the group's log have been replaced or purged, or have moved.
    pub(crate) fn changes(&self, group: GroupId) -> u64 {
        self.logs.get(&group).map_or(0, |log| log.changes)
    }

    /// How to answer a read; see `LogStore::read`.
    pub(crate) fn plan(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Vec<Part>, StoreError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let log = self.logs.get(&group).ok_or(StoreError::Missing(range.start))?;
        let (purged, last) = (log.log_meta.purged().index, log.log_meta.last().index);
        if range.start <= purged {
            return Err(StoreError::Missing(range.start));
        }
        if range.end > last + 1 {
            return Err(StoreError::Missing(range.start.max(last + 1)));
        }
        let first_recent = log.first_recent();
        let mut parts = Vec::new();
        let mut bytes = 0usize;
        for index in range.start..range.end.min(first_recent) {
            let location = log.location(index).ok_or(StoreError::Missing(index))?;
            bytes = bytes.saturating_add(location.entry_bytes());
            if bytes > max_bytes && !parts.is_empty() {
                return Ok(parts);
            }
            match parts.last_mut() {
                Some(Part::Stored { locations, .. }) if neighbours(locations, location) => {
                    locations.push(location)
                }
                _ => parts.push(Part::Stored { first: index, locations: vec![location] }),
            }
        }
        let left = max_bytes.saturating_sub(bytes);
        let recent = log.recent.read(range.start.max(first_recent)..range.end, left);
        if !recent.is_empty() && (recent.bytes() <= left || parts.is_empty()) {
            parts.push(Part::Recent(recent));
        }
        Ok(parts)
    }
}

/// Whether an entry can be read together with those before it.
pub(crate) fn neighbours(before: &[EntryLocation], next: EntryLocation) -> bool {
    let (Some(first), Some(last)) = (before.first(), before.last()) else { return false };
    first.segment == next.segment
        && last.end() <= next.offset
        && next.offset - last.end() <= MAX_GAP_BYTES
        && next.end() - first.offset <= READ_BYTES
}

#[cfg(test)]
mod tests;
