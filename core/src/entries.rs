//! A run of entries that follow each other, shared by all who need them; and a part of a log, run
//! by run.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::types::{Entry, Index, LogId, Payload};

/// Entries that follow each other in a log: a leader's messages to its peers, the writes to its
/// log, the recent entries in a store's memory and what is applied are parts of the same few runs.
/// A clone, or a part, is a reference: no entry is copied.
///
/// It is a slice of [`Entry`] to whoever reads it. It may go to other threads.
#[derive(Clone, Default)]
pub struct Entries {
    /// None: no entries, and no allocation.
    shared: Option<Arc<[Entry]>>,
    range: Range<usize>,
    bytes: usize,
    is_plain: bool,
}

impl Entries {
    /// Their sizes together, as all limits count them: see [`Entry::bytes`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all are of one term and leader, and none holds a membership, as is the rule: who has
    /// seen the first of such a run knows what all are. False may also mean that it is not known,
    /// of a part.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// A part of them, as of a slice; it keeps the memory of all of them.
    ///
    /// Panics where the range is not within them.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let part = &self[range.clone()];
        if part.len() == self.len() {
            return self.clone();
        }
        if part.is_empty() {
            return Self::default();
        }
        let bytes = part.iter().map(Entry::bytes).sum();
        let range = self.range.start + range.start..self.range.start + range.end;
        Self { shared: self.shared.clone(), range, bytes, is_plain: self.is_plain }
    }

    /// The first of them, as many as fit into so many bytes, but at least one.
    #[must_use]
    pub fn first_bytes(self, max_bytes: usize) -> Self {
        if self.bytes <= max_bytes {
            return self;
        }
        let mut bytes = 0usize;
        let fitting = self.iter().take_while(|entry| {
            bytes = bytes.saturating_add(entry.bytes());
            bytes <= max_bytes
        });
        self.slice(0..fitting.count().max(1))
    }

    /// Several runs that follow each other as one. Of one that is nothing but a clone.
    ///
    /// Panics where they don't follow each other.
    pub fn joined(runs: &[Self]) -> Self {
        match runs {
            [run] => run.clone(),
            runs => runs.iter().flat_map(|run| run.iter().cloned()).collect(),
        }
    }

    /// The part with indexes in this range, as far as they are among them.
    fn within(&self, range: Range<Index>) -> Self {
        let Some(first) = self.first().map(|entry| entry.log_id.index) else {
            return Self::default();
        };
        let at = |index: Index| {
            usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX).min(self.len())
        };
        let (begin, end) = (at(range.start), at(range.end));
        self.slice(begin..end.max(begin))
    }
}

impl From<Vec<Entry>> for Entries {
    /// Panics where the index of one is not that of the one before, plus one.
    fn from(entries: Vec<Entry>) -> Self {
        Arc::<[Entry]>::from(entries).into() // Faster than one by one.
    }
}

impl FromIterator<Entry> for Entries {
    /// Panics where the index of one is not that of the one before, plus one.
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        entries.into_iter().collect::<Arc<[Entry]>>().into()
    }
}

impl From<Arc<[Entry]>> for Entries {
    /// Panics where the index of one is not that of the one before, plus one.
    fn from(shared: Arc<[Entry]>) -> Self {
        let Some(first) = shared.first().map(|entry| entry.log_id) else {
            return Self::default();
        };
        let (mut bytes, mut is_plain) = (0, true);
        for (offset, entry) in shared.iter().enumerate() {
            let LogId { term, leader, index } = entry.log_id;
            let expected = first.index.checked_add(offset as Index);
            assert!(Some(index) == expected, "{index} is not next in its run");
            bytes += entry.bytes();
            is_plain &= (term, leader) == (first.term, first.leader)
                && !matches!(entry.payload, Payload::Membership(_));
        }
        Self { range: 0..shared.len(), shared: Some(shared), bytes, is_plain }
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        self.shared.as_ref().map_or(&[], |shared| &shared[self.range.clone()])
    }
}

impl<'a> IntoIterator for &'a Entries {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Entries {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Entries {}

impl PartialEq<[Entry]> for Entries {
    fn eq(&self, other: &[Entry]) -> bool {
        **self == *other
    }
}

impl<const N: usize> PartialEq<[Entry; N]> for Entries {
    fn eq(&self, other: &[Entry; N]) -> bool {
        **self == *other
    }
}

impl PartialEq<Vec<Entry>> for Entries {
    fn eq(&self, other: &Vec<Entry>) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// A part of a log in memory, run by run: what a store keeps of it.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// None is empty, and each follows the one before. By the index of its first entry.
    runs: VecDeque<(Index, Entries)>,
    /// Beyond the last entry; 0 where there is none.
    end: Index,
    bytes: usize,
}

impl Runs {
    /// Its entries' sizes together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first index; none where there is no entry.
    pub fn first(&self) -> Option<Index> {
        self.runs.front().map(|(first, _)| *first)
    }

    /// The last index; none where there is no entry.
    pub fn last(&self) -> Option<Index> {
        self.end.checked_sub(1)
    }

    /// The first run.
    pub fn first_run(&self) -> Option<&Entries> {
        self.runs.front().map(|(_, run)| run)
    }

    /// Takes the first run out.
    pub fn pop_run(&mut self) -> Option<Entries> {
        let (_, run) = self.runs.pop_front()?;
        self.bytes -= run.bytes();
        if self.runs.is_empty() {
            self.end = 0;
        }
        Some(run)
    }

    /// Lets go of all.
    pub fn clear(&mut self) {
        self.bytes = 0;
        self.end = 0;
        while self.runs.pop_back().is_some() {} // Mostly there is one.
    }

    /// Lets go of memory that is not in use.
    pub fn shrink(&mut self) {
        self.runs.shrink_to_fit();
    }

    /// Appends a run.
    ///
    /// Panics where it doesn't follow.
    pub fn push(&mut self, run: Entries) {
        let Some(first) = run.first().map(|entry| entry.log_id.index) else { return };
        assert!(self.end == 0 || self.end == first, "{first} is not next");
        self.end = first + run.len() as Index;
        self.bytes += run.bytes();
        self.runs.push_back((first, run));
    }

    /// Lets go of all outside of this range.
    pub fn keep(&mut self, range: Range<Index>) {
        while self.first().is_some_and(|first| first < range.start) {
            let end = self.end;
            let first = self.pop_run().map(|run| run.within(range.start..Index::MAX));
            if let Some(first) = first.filter(|first| !first.is_empty()) {
                self.end = end;
                self.bytes += first.bytes();
                self.runs.push_front((range.start, first));
            }
        }
        while self.end > range.end
            && let Some((first, run)) = self.runs.pop_back()
        {
            let kept = run.within(0..range.end);
            self.bytes -= run.bytes() - kept.bytes();
            self.end = first + kept.len() as Index;
            if !kept.is_empty() {
                self.runs.push_back((first, kept));
            }
        }
        if self.runs.is_empty() {
            self.end = 0;
        }
    }

    /// Entries from `range.start` on, as many as there are in the range and fit into so many bytes,
    /// but at least one. None where that one is not there.
    ///
    /// Where they are of one run, nothing is copied.
    pub fn read(&self, range: Range<Index>, max_bytes: usize) -> Entries {
        let Some(at) = self.run_of(range.start) else { return Entries::default() };
        let (start, run) = &self.runs[at];
        // Mostly one run is wanted whole, and nothing behind it.
        let is_whole = *start == range.start && run.bytes() <= max_bytes;
        if is_whole && range.end.min(self.end) == start + run.len() as Index {
            return run.clone();
        }
        let first = run.within(range.clone()).first_bytes(max_bytes);
        let mut bytes = first.bytes();
        let mut next = range.start + first.len() as Index;
        if next >= range.end.min(self.end) || bytes >= max_bytes {
            return first;
        }
        let mut found = vec![first];
        for (first, run) in self.runs.range(at + 1..) {
            let part = run.within(next..range.end).first_bytes(max_bytes - bytes);
            if *first != next || part.is_empty() || bytes + part.bytes() > max_bytes {
                break;
            }
            bytes += part.bytes();
            next += part.len() as Index;
            found.push(part);
        }
        Entries::joined(&found)
    }

    /// The entries from this one on to the end of its run; none where it is not there.
    pub fn rest_of_run(&self, from: Index) -> Option<Entries> {
        let (first, run) = &self.runs[self.run_of(from)?];
        Some(if *first == from { run.clone() } else { run.within(from..Index::MAX) })
    }

    /// The position of the run that holds this entry, if one does.
    fn run_of(&self, index: Index) -> Option<usize> {
        if index >= self.end {
            return None;
        }
        // Mostly it is the last.
        match self.runs.back() {
            Some((first, _)) if *first <= index => Some(self.runs.len() - 1),
            _ => self.runs.partition_point(|(first, _)| *first <= index).checked_sub(1),
        }
    }
}

impl FromIterator<Entries> for Runs {
    fn from_iter<I: IntoIterator<Item = Entries>>(runs: I) -> Self {
        let mut joined = Self::default();
        runs.into_iter().for_each(|run| joined.push(run));
        joined
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(index: u64, len: usize) -> Entry {
        let command = Bytes::from(vec![b'x'; len]);
        Entry { log_id: LogId::new(3, 1, index), time: 0, payload: Payload::Command(command) }
    }

    /// Four entries, from 5 on, of 10, 20, 30 and 40 bytes.
    fn run() -> Entries {
        (5..9).zip([10, 20, 30, 40]).map(|(index, len)| entry(index, len)).collect()
    }

    fn indexes(entries: &Entries) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn a_part_is_the_same_memory_and_knows_its_size() {
        let run = run();
        assert_eq!(run.bytes(), 100 + 4 * Entry::OVERHEAD_BYTES);
        let part = run.slice(1..4).slice(0..2);
        assert_eq!(indexes(&part), [6, 7]);
        assert_eq!(part.bytes(), 50 + 2 * Entry::OVERHEAD_BYTES);
        assert!(std::ptr::eq(&run[1], &part[0]));
        let none = part.slice(2..2);
        assert!(none.is_empty() && none.bytes() == 0 && none == Entries::default());
        assert_eq!(part.slice(0..2), part);
    }

    #[test]
    fn so_many_bytes_hold_what_fits_and_at_least_one() {
        let run = run();
        let two = 30 + 2 * Entry::OVERHEAD_BYTES;
        for (max, expected) in [(0, 1), (two - 1, 1), (two, 2), (two + 1, 2), (usize::MAX, 4)] {
            assert_eq!(run.clone().first_bytes(max).len(), expected, "{max} bytes");
        }
        assert!(Entries::default().first_bytes(0).is_empty());
    }

    #[test]
    fn runs_that_follow_each_other_are_joined() {
        let run = run();
        assert_eq!(Entries::joined(&[run.slice(0..1), run.slice(1..4)]), run);
        assert!(std::ptr::eq(&Entries::joined(&[run.slice(1..3)])[0], &run[1]));
        assert!(Entries::joined(&[]).is_empty());
    }

    #[test]
    #[should_panic(expected = "7 is not next")]
    fn a_gap_is_a_bug() {
        let _ = Entries::from(vec![entry(5, 1), entry(7, 1)]);
    }

    /// Entries 5 to 12 of ten bytes each, in runs of this many.
    fn runs(lengths: &[u64]) -> Runs {
        let ends = lengths.iter().scan(5, |end, len| {
            *end += len;
            Some(*end)
        });
        let run =
            |(end, len): (u64, &u64)| (end - len..end).map(|index| entry(index, 10)).collect();
        ends.zip(lengths).map(run).collect()
    }

    const ONE: usize = 10 + Entry::OVERHEAD_BYTES;
    const WAYS: [&[u64]; 5] = [&[8], &[3, 5], &[1, 1, 1, 1, 1, 1, 1, 1], &[2, 2, 2, 2], &[7, 1]];

    #[test]
    fn what_is_read_is_the_same_in_whatever_runs_it_came() {
        for lengths in WAYS {
            let runs = runs(lengths);
            assert_eq!((runs.first(), runs.last(), runs.bytes()), (Some(5), Some(12), 8 * ONE));
            for (first, end) in
                (5..=12).flat_map(|first| (first + 1..=14).map(move |end| (first, end)))
            {
                for fit in 0..=9 {
                    for max_bytes in [fit * ONE, fit * ONE + 1] {
                        let read = runs.read(first..end, max_bytes);
                        let last = (first + fit.max(1) as u64).min(end).min(13);
                        let expected: Vec<_> = (first..last).collect();
                        assert_eq!(indexes(&read), expected, "{first}..{end} in {max_bytes} bytes");
                    }
                }
            }
            assert!(runs.read(4..9, ONE).is_empty() && runs.read(13..14, ONE).is_empty());
            assert!(runs.read(7..7, ONE).is_empty());
        }
        assert!(Runs::default().read(1..9, ONE).is_empty());
    }

    #[test]
    fn what_is_kept_is_a_range() {
        for lengths in WAYS {
            for (first, end) in (0..15).flat_map(|first| (first..15).map(move |end| (first, end))) {
                let mut runs = runs(lengths);
                runs.keep(first..end);
                let expected: Vec<_> = (first.max(5)..end.min(13)).collect();
                assert_eq!(runs.bytes(), expected.len() * ONE);
                assert_eq!(runs.first(), expected.first().copied());
                let from = runs.first().unwrap_or(0);
                let read = runs.read(from..Index::MAX, usize::MAX);
                assert_eq!(indexes(&read), expected, "{first}..{end}");
                runs.clear();
                assert!(runs.first().is_none() && runs.bytes() == 0);
            }
        }
    }

    #[test]
    fn the_rest_of_a_run_ends_with_it() {
        let runs = runs(&[3, 5]);
        let rest = |from| runs.rest_of_run(from).as_ref().map(indexes);
        assert_eq!(rest(5), Some(vec![5, 6, 7]));
        assert_eq!(rest(7), Some(vec![7]));
        assert_eq!(rest(8), Some(vec![8, 9, 10, 11, 12]));
        assert_eq!((rest(4), rest(13)), (None, None));
    }

    #[test]
    fn runs_are_let_go_one_by_one() {
        let mut runs = runs(&[3, 5]);
        assert_eq!(runs.first_run().map(indexes), Some(vec![5, 6, 7]));
        assert_eq!(runs.pop_run().as_ref().map(indexes), Some(vec![5, 6, 7]));
        assert_eq!((runs.first(), runs.bytes()), (Some(8), 5 * ONE));
        assert!(runs.pop_run().is_some() && runs.pop_run().is_none());
    }

    #[test]
    #[should_panic(expected = "9 is not next")]
    fn a_run_that_does_not_follow_is_a_bug() {
        let mut runs = runs(&[3]);
        runs.push(Entries::from(vec![entry(9, 1)]));
    }
}
