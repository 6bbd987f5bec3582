//! What is known of the logs without reading: per group the hard state, the outline, where each entry stands on disk, and the most recent
//! entries themselves.
//!
//! The recent entries of a group are always the last ones of its log, without a gap, and are truncated with it, so they can't disagree with
//! it. Only durable ones are let go, the longest submitted first over all groups; so whatever is not in memory can be read from disk.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use quorate_core::{Entry, GroupId, HardState, Index, LogWrite, Outline, Recovered, StoreError};

use crate::format::{ENTRY_OVERHEAD_BYTES, Position, Span};

/// Stored entries are read in pieces of this size (a larger entry at once): large enough that a piece's fixed cost vanishes, small beside the cache.
const READ_BYTES: u64 = 1 << 20;

/// Two entries are read at once if no more than this lies between them: the headers of their records, or a little of other groups.
const MAX_GAP_BYTES: u64 = 4 << 10;

/// Where an entry stands, with its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) segment: u32,
    pub(crate) len: u32,
}

impl Place {
    fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// The size of the entry as the limits count it: the content is counted as it is encoded.
    fn entry_bytes(&self) -> usize {
        Entry::OVERHEAD_BYTES + (self.len as usize).saturating_sub(ENTRY_OVERHEAD_BYTES)
    }
}

/// How a part of a read is answered.
#[derive(Debug)]
pub(crate) enum Part {
    /// From memory.
    Recent(Entry),
    /// From the disk: neighbours in one segment, the first of which has index `first`.
    Stored { first: Index, places: Vec<Place> },
}

#[derive(Debug, Default)]
struct Log {
    hard_state: HardState,
    outline: Outline,
    /// From index 1 on.
    places: VecDeque<Place>,
    /// The last entries.
    recent: VecDeque<Entry>,
    truncations: u64,
}

impl Log {
    /// The index of the first entry in memory.
    fn first_recent(&self) -> Index {
        self.outline.last().index + 1 - self.recent.len() as Index
    }

    fn place(&self, index: Index) -> Option<Place> {
        self.places.get(usize::try_from(index.checked_sub(1)?).ok()?).copied()
    }
}

/// The logs of all groups.
#[derive(Debug)]
pub(crate) struct Logs {
    logs: BTreeMap<GroupId, Log>,
    cache_bytes: usize,
    /// Of all the entries in memory, and of `order`.
    cached: usize,
    /// What went into memory, in order: for each write its group and last index. After a truncation an item may stand for
    /// entries that are gone, or for newer ones in their place.
    order: VecDeque<(GroupId, Index)>,
}

/// What an item of `order` is counted as. It makes endless rewriting of the same index hit the limit, too.
const ORDER_BYTES: usize = size_of::<(GroupId, Index)>();

impl Logs {
    pub(crate) fn new(cache_bytes: usize) -> Self {
        Self { logs: BTreeMap::new(), cache_bytes, cached: 0, order: VecDeque::new() }
    }

    /// Notes a write whose record is at `at`, with its entries where `spans` say. The entries don't get into memory; see [`keep`](Self::keep).
    ///
    /// Errors: why it makes no sense after what was noted before. Then the group's log must not be used any more.
    pub(crate) fn note(
        &mut self,
        group: GroupId,
        write: &LogWrite,
        at: Position,
        spans: &[Span],
    ) -> Result<(), String> {
        assert_eq!(write.entries.len(), spans.len());
        let log = self.logs.entry(group).or_default();
        if let Some(new) = write.hard_state {
            let old = log.hard_state;
            let vote_kept = old.voted_for.is_none() || old.voted_for == new.voted_for;
            if new.term < old.term || new.term == old.term && !vote_kept {
                return Err(format!("the hard state goes back from {old:?} to {new:?}"));
            }
            log.hard_state = new;
        }
        let Some(first) = write.entries.first().map(|entry| entry.log_id.index) else {
            return Ok(());
        };
        let last = log.outline.last().index;
        if first == 0 || first > last + 1 {
            return Err(format!("a gap in group {group}: entry {first} after {last}"));
        }
        if first <= last {
            let recent = log.recent.len().saturating_sub((last + 1 - first) as usize);
            self.cached -= log.recent.drain(recent..).map(|entry| entry.bytes()).sum::<usize>();
            log.outline.truncate(first);
            log.places.truncate(first as usize - 1);
            log.truncations += 1;
        }
        for (entry, span) in write.entries.iter().zip(spans) {
            if !log.outline.follows(entry.log_id) {
                let before = log.outline.last();
                return Err(format!("in group {group}, {} after {before}", entry.log_id));
            }
            log.outline.push(entry);
            log.places.push_back(Place {
                offset: at.offset + span.offset as u64,
                segment: at.segment,
                len: u32::try_from(span.len).map_err(|_| "an entry of 4 GiB".to_owned())?,
            });
        }
        Ok(())
    }

    /// Keeps the entries of the write that was noted last in memory.
    pub(crate) fn keep(&mut self, group: GroupId, entries: Vec<Entry>) {
        let (Some(log), Some(last)) = (self.logs.get_mut(&group), entries.last()) else { return };
        assert_eq!(log.outline.last(), last.log_id);
        self.order.push_back((group, last.log_id.index));
        self.cached += ORDER_BYTES + entries.iter().map(Entry::bytes).sum::<usize>();
        log.recent.extend(entries);
        assert!(log.recent.len() <= log.places.len());
    }

    /// Lets go of what is too much, and lies before `durable`.
    pub(crate) fn shrink(&mut self, durable: Position) {
        while self.cached > self.cache_bytes {
            let Some((group, upto)) = self.order.front().copied() else { return };
            if let Some(log) = self.logs.get_mut(&group) {
                while self.cached > self.cache_bytes
                    && log.first_recent() <= upto
                    && let Some(place) = log.place(log.first_recent())
                {
                    let place = Position { segment: place.segment, offset: place.offset };
                    if place >= durable {
                        return; // All that comes later isn't durable either.
                    }
                    let Some(entry) = log.recent.pop_front() else { break };
                    self.cached -= entry.bytes();
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
        let log = self.logs.get(&group);
        log.map(|log| Recovered {
            hard_state: log.hard_state,
            outline: log.outline.clone(),
            snapshot: None,
        })
        .unwrap_or_default()
    }

    /// All groups, with hard state and outline.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, HardState, &Outline)> {
        self.logs.iter().map(|(group, log)| (*group, log.hard_state, &log.outline))
    }

    /// How often a suffix of the group's log has been replaced.
    pub(crate) fn truncations(&self, group: GroupId) -> u64 {
        self.logs.get(&group).map_or(0, |log| log.truncations)
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
        let last = self.logs.get(&group).map_or(0, |log| log.outline.last().index);
        if range.start == 0 {
            return Err(StoreError::Missing(0));
        }
        let log = self
            .logs
            .get(&group)
            .filter(|_| range.end <= last + 1)
            .ok_or(StoreError::Missing(range.start.max(last + 1)))?;
        let first_recent = log.first_recent();
        let mut parts = Vec::new();
        let mut bytes = 0usize;
        for index in range {
            let place = log.place(index).ok_or(StoreError::Missing(index))?;
            let recent = index.checked_sub(first_recent).and_then(|at| log.recent.get(at as usize));
            bytes = bytes.saturating_add(recent.map_or(place.entry_bytes(), Entry::bytes));
            if bytes > max_bytes && !parts.is_empty() {
                break;
            }
            match (recent, parts.last_mut()) {
                (Some(entry), _) => parts.push(Part::Recent(entry.clone())),
                (None, Some(Part::Stored { places, .. })) if neighbours(places, place) => {
                    places.push(place);
                }
                (None, _) => parts.push(Part::Stored { first: index, places: vec![place] }),
            }
        }
        Ok(parts)
    }
}

/// Whether an entry can be read together with those before it.
fn neighbours(before: &[Place], next: Place) -> bool {
    let (Some(first), Some(last)) = (before.first(), before.last()) else { return false };
    first.segment == next.segment
        && last.end() <= next.offset
        && next.offset - last.end() <= MAX_GAP_BYTES
        && next.end() - first.offset <= READ_BYTES
}
