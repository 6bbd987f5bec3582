//! Where the entries of one group's log stand, and how much of them stands in each segment.

use std::collections::{BTreeMap, VecDeque};

use quorate_core::Entry;

use crate::record::ENTRY_OVERHEAD_BYTES;

/// Where an entry stands, with its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) segment: u32,
    pub(crate) len: u32,
}

impl Place {
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.len)
    }

    /// The size of the entry as the limits count it: the content is counted as it is encoded.
    pub(crate) fn entry_bytes(&self) -> usize {
        Entry::OVERHEAD_BYTES + (self.len as usize).saturating_sub(ENTRY_OVERHEAD_BYTES)
    }
}

/// Of each entry, from the first one on. Entries that were copied stand behind later ones, so the
/// places are not in order.
#[derive(Debug, Default)]
pub(crate) struct Places {
    list: VecDeque<Place>,
    /// The bytes of the entries in each segment; of no segment 0.
    bytes: BTreeMap<u32, u64>,
}

impl Places {
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn front(&self) -> Option<Place> {
        self.list.front().copied()
    }

    pub(crate) fn get(&self, at: usize) -> Option<Place> {
        self.list.get(at).copied()
    }

    /// Those from `at` on.
    pub(crate) fn from(&self, at: usize) -> impl Iterator<Item = Place> {
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

    pub(crate) fn extend(&mut self, places: impl IntoIterator<Item = Place>) {
        for place in places {
            count(&mut self.bytes, place);
            self.list.push_back(place);
        }
    }

    pub(crate) fn set(&mut self, at: usize, place: Place) {
        if let Some(known) = self.list.get_mut(at) {
            uncount(&mut self.bytes, *known);
            *known = place;
            count(&mut self.bytes, place);
        }
    }

    /// Keeps the first ones only.
    pub(crate) fn truncate(&mut self, keep: usize) {
        for place in self.list.drain(keep.min(self.list.len())..) {
            uncount(&mut self.bytes, place);
        }
    }

    /// Keeps the last ones only. A log that was long once takes no more memory than it needs,
    /// within reason.
    pub(crate) fn keep_last(&mut self, keep: usize) {
        for place in self.list.drain(..self.list.len() - keep) {
            uncount(&mut self.bytes, place);
        }
        if self.list.capacity() > 1024 && self.list.capacity() / 4 > keep {
            self.list.shrink_to(2 * keep);
        }
    }

    #[cfg(test)]
    pub(crate) fn list(&mut self) -> &mut VecDeque<Place> {
        &mut self.list
    }
}

fn count(bytes: &mut BTreeMap<u32, u64>, place: Place) {
    *bytes.entry(place.segment).or_default() += u64::from(place.len);
}

fn uncount(bytes: &mut BTreeMap<u32, u64>, place: Place) {
    let left = bytes.get_mut(&place.segment).expect("each place is counted");
    *left -= u64::from(place.len);
    if *left == 0 {
        bytes.remove(&place.segment);
    }
}
