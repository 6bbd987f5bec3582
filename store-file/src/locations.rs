//! Where the entries of one group's log stand, and how much of them stands in each segment.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::Entry;

use crate::record::ENTRY_OVERHEAD_BYTES;

/// Where an entry stands, with its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryLocation {
    pub(crate) offset: u64,
    pub(crate) segment: u32,
    pub(crate) len: u32,
}

impl EntryLocation {
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// The size of the entry as the limits count it: the content is counted as it is encoded.
    pub(crate) fn entry_bytes(&self) -> usize {
        Entry::OVERHEAD_BYTES + (self.len as usize).saturating_sub(ENTRY_OVERHEAD_BYTES)
    }
}

/// Of each entry, from the first one on. Entries that were copied stand behind later ones, so the
/// locations are not in order.
#[derive(Debug, Default)]
pub(crate) struct EntryLocations {
    list: VecDeque<EntryLocation>,
    /// The bytes of the entries in each segment; of no segment 0.
    bytes: BTreeMap<u32, u64>,
}

impl EntryLocations {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn front(&self) -> Option<EntryLocation> {
        self.list.front().copied()
    }

    pub(crate) fn get(&self, at: usize) -> Option<EntryLocation> {
        self.list.get(at).copied()
    }

    /// Those from `at` on.
    pub(crate) fn from(&self, at: usize) -> impl Iterator<Item = EntryLocation> {
        self.list.range(at.min(self.list.len())..).copied()
    }

    /// The first segment with an entry.
    pub(crate) fn first_segment(&self) -> Option<u32> {
        self.bytes.keys().next().copied()
    }

    /// The bytes of the entries in a segment.
    pub(crate) fn bytes_in(&self, segment: u32) -> u64 {
        self.bytes.get(&segment).copied().unwrap_or(0)
    }

    /// The bytes of all entries.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.values().sum()
    }

    pub(crate) fn extend(&mut self, locations: impl IntoIterator<Item = EntryLocation>) {
        // Those of one write are in one segment, and are counted together.
        let (mut segment, mut bytes) = (0, 0);
        for location in locations {
            if location.segment != segment && bytes > 0 {
                *self.bytes.entry(segment).or_default() += bytes;
                bytes = 0;
            }
            segment = location.segment;
            bytes += u64::from(location.len);
            self.list.push_back(location);
        }
        if bytes > 0 {
            *self.bytes.entry(segment).or_default() += bytes;
        }
    }

    pub(crate) fn set(&mut self, at: usize, location: EntryLocation) {
        if let Some(known) = self.list.get_mut(at) {
            uncount(&mut self.bytes, *known);
            *known = location;
            count(&mut self.bytes, location);
        }
    }

    /// Keeps the first ones only.
    pub(crate) fn truncate(&mut self, keep: usize) {
        for location in self.list.drain(keep.min(self.list.len())..) {
            uncount(&mut self.bytes, location);
        }
    }

    /// Keeps the last ones only. A log that was long once takes no more memory than it needs,
    /// within reason.
    pub(crate) fn keep_last(&mut self, keep: usize) {
        for location in self.list.drain(..self.list.len() - keep) {
            uncount(&mut self.bytes, location);
        }
        if self.list.capacity() > 1024 && self.list.capacity() / 4 > keep {
            self.list.shrink_to(2 * keep);
        }
    }

    #[cfg(test)]
    pub(crate) fn list(&mut self) -> &mut VecDeque<EntryLocation> {
        &mut self.list
    }
}

fn count(bytes: &mut BTreeMap<u32, u64>, location: EntryLocation) {
    *bytes.entry(location.segment).or_default() += u64::from(location.len);
}

fn uncount(bytes: &mut BTreeMap<u32, u64>, location: EntryLocation) {
    let left = bytes.get_mut(&location.segment).expect("each location is counted");
    *left -= u64::from(location.len);
    if *left == 0 {
        bytes.remove(&location.segment);
    }
}
