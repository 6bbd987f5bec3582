//! A disk in hand: writes wait until the script completes them, and a crash leaves what was completed.

use std::collections::VecDeque;
use std::ops::Range;

use quorate_core::{Entry, HardState, Index, LogId, LogWrite, Outline, Recovered};

#[derive(Default)]
pub(crate) struct Disk {
    /// What has been submitted, durable or not: it can be read at once.
    submitted: Image,
    durable: Image,
    pending: VecDeque<(u64, LogWrite)>,
    /// A stalled disk completes nothing by itself, only where the script says so.
    pub(crate) stalled: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    fn write(&mut self, write: &LogWrite) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = write.entries.first() {
            let before = first.log_id.index as usize - 1;
            assert!(before <= self.entries.len(), "{} leaves a gap", first.log_id);
            self.entries.truncate(before);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(LogId::ZERO, |entry| entry.log_id)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get((index as usize).checked_sub(1)?)
    }

    pub(crate) fn log_id(&self, index: Index) -> Option<LogId> {
        if index == 0 { Some(LogId::ZERO) } else { self.entry(index).map(|entry| entry.log_id) }
    }
}

impl Disk {
    /// What reads see.
    pub(crate) fn submitted(&self) -> &Image {
        &self.submitted
    }

    /// What a crash leaves.
    pub(crate) fn durable(&self) -> &Image {
        &self.durable
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Up to here no pending write changes the log.
    pub(crate) fn settled(&self) -> Index {
        let entries = self.pending.iter().flat_map(|(_, write)| write.entries.first());
        entries.map(|first| first.log_id.index - 1).min().unwrap_or(Index::MAX)
    }

    pub(crate) fn submit(&mut self, number: u64, write: LogWrite) {
        assert!(self.pending.back().is_none_or(|(before, _)| *before < number), "out of order");
        self.submitted.write(&write);
        self.pending.push_back((number, write));
    }

    /// Makes the oldest `count` writes durable; the number of the last of them.
    pub(crate) fn complete(&mut self, count: usize) -> Option<u64> {
        let mut last = None;
        for (number, write) in self.pending.drain(..count.min(self.pending.len())) {
            self.durable.write(&write);
            last = Some(number);
        }
        last
    }

    /// Loses what is not durable, except the oldest `survivors` writes: they have reached the disk, but nobody has heard of it.
    pub(crate) fn crash(&mut self, survivors: usize) {
        self.complete(survivors);
        self.pending.clear();
        self.submitted = self.durable.clone();
    }

    pub(crate) fn recover(&self) -> Recovered {
        let mut outline = Outline::default();
        for entry in &self.durable.entries {
            outline.push(entry);
        }
        Recovered { hard_state: self.durable.hard_state, snapshot: None, outline }
    }

    /// Entries of the range, if it is there.
    pub(crate) fn read(&self, range: Range<Index>, max_bytes: usize) -> Option<Vec<Entry>> {
        let range = range.start as usize - 1..range.end as usize - 1;
        let entries = self.submitted.entries.get(range)?;
        let mut bytes = 0;
        let fitting = entries.iter().take_while(|entry| {
            bytes += entry.bytes();
            bytes <= max_bytes
        });
        Some(entries[..fitting.count().max(1)].to_vec())
    }
}
