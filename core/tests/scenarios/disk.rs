//! A disk in hand: writes wait until the script completes them, and a crash leaves what was
//! completed. Snapshots are finished at once.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use quorate_core::engine::Local;
use quorate_core::{
    Boot, ClusterId, Digest, Entries, Entry, HardState, Index, LogId, LogMeta, LogWrite, Marks,
    NodeId, Recovered, Replica, SnapshotMeta, Standing,
};

#[derive(Clone, Default)]
pub(crate) struct Disk {
    /// The first disk of a node is 1, the next one 2, and so on.
    pub(crate) incarnation: u64,
    boot: u64,
    /// What has been submitted, durable or not: it can be read at once.
    submitted: Image,
    durable: Image,
    pending: VecDeque<Pending>,
    /// The contents of finished snapshots. What is being sent stays readable when another is named.
    pub(crate) finished: BTreeMap<Digest, Bytes>,
    /// A stalled disk completes nothing by itself, only where the script says so.
    pub(crate) stalled: bool,
}

#[derive(Clone)]
struct Pending {
    number: u64,
    write: LogWrite,
    /// What the node knew to be committed when it submitted this.
    committed: Index,
}

#[derive(Clone, Default)]
pub(crate) struct Image {
    pub(crate) hard_state: HardState,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) standing: Standing,
    marks: Marks,
    pub(crate) snapshot: Option<SnapshotMeta>,
    /// The entry before the first.
    pub(crate) purged: LogId,
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    fn write(&mut self, write: &LogWrite) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(cluster) = write.cluster {
            assert!(self.cluster.is_none_or(|known| known == cluster), "a second cluster");
            self.cluster = Some(cluster);
        }
        if let Some(standing) = &write.standing {
            self.standing = (**standing).clone();
        }
        if let Some(marks) = &write.marks {
            self.marks = (**marks).clone();
        }
        if let Some(snapshot) = &write.snapshot {
            self.snapshot = Some((**snapshot).clone());
        }
        if let Some(to) = write.purge {
            assert!(to.index >= self.purged.index, "the log can't begin earlier than before");
            let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.log_id.index);
            assert!(to.index <= covered, "{to} is purged, but the snapshot covers {covered}");
            match self.log_id(to.index) == Some(to) {
                true => drop(self.entries.drain(..(to.index - self.purged.index) as usize)),
                false => self.entries.clear(),
            }
            self.purged = to;
        }
        if let Some(first) = write.entries.first() {
            let before = first.log_id.index.checked_sub(self.purged.index + 1);
            let before = before.expect("nothing purged is written") as usize;
            assert!(before <= self.entries.len(), "{} leaves a gap", first.log_id);
            self.entries.truncate(before);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    pub(crate) fn last(&self) -> LogId {
        self.entries.last().map_or(self.purged, |entry| entry.log_id)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        self.entries.get(index.checked_sub(self.purged.index + 1)? as usize)
    }

    pub(crate) fn log_id(&self, index: Index) -> Option<LogId> {
        match index {
            0 => Some(LogId::ZERO),
            index if index == self.purged.index => Some(self.purged),
            index => self.entry(index).map(|entry| entry.log_id),
        }
    }
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(incarnation: u64) -> Self {
        Self { incarnation, ..Self::default() }
    }

    /// One with the first entry of a group, as of a node that has been there when that was formed.
    pub(crate) fn formed(first: Entry, cluster: ClusterId) -> Self {
        let mut disk = Self::new(1);
        for image in [&mut disk.submitted, &mut disk.durable] {
            image.cluster = Some(cluster);
            image.entries.push(first.clone());
        }
        disk
    }

    /// A node starts on it.
    pub(crate) fn identify(&mut self, node: NodeId, tag: u64) -> Local {
        self.boot += 1;
        let replica = Replica::new(node, self.incarnation);
        let boot = Boot { number: self.boot, tag };
        Local { replica, boot, cluster: self.durable.cluster }
    }

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

    /// Whether the snapshot, and where the log begins, are durable.
    pub(crate) fn knows_compaction(&self) -> bool {
        let compacts = |write: &LogWrite| write.snapshot.is_some() || write.purge.is_some();
        !self.pending.iter().any(|pending| compacts(&pending.write))
    }

    /// Up to here no pending write changes the log.
    pub(crate) fn settled(&self) -> Index {
        let entries = self.pending.iter().flat_map(|pending| pending.write.entries.first());
        let settled = entries.map(|first| first.log_id.index - 1).min().unwrap_or(Index::MAX);
        if self.pending.iter().all(|pending| pending.write.purge.is_none()) {
            return settled;
        }
        let mut image = self.durable.clone();
        let mut settled = settled;
        for Pending { write, committed, .. } in &self.pending {
            let replaced = write.purge.is_some_and(|to| image.log_id(to.index) != Some(to));
            if replaced {
                settled = settled.min(*committed);
            }
            image.write(write);
        }
        settled
    }

    pub(crate) fn submit(&mut self, number: u64, write: LogWrite, committed: Index) {
        assert!(self.pending.back().is_none_or(|before| before.number < number), "out of order");
        if let Some(snapshot) = &write.snapshot {
            assert!(self.finished.contains_key(&snapshot.digest), "names what is not finished");
        }
        self.submitted.write(&write);
        self.pending.push_back(Pending { number, write, committed });
    }

    /// Makes the oldest `count` writes durable; the number of the last of them.
    pub(crate) fn complete(&mut self, count: usize) -> Option<u64> {
        let mut last = None;
        for Pending { number, write, .. } in self.pending.drain(..count.min(self.pending.len())) {
            self.durable.write(&write);
            last = Some(number);
        }
        last
    }

    /// Loses what is not durable, except the oldest `survivors` writes: they have reached the disk,
    /// but nobody has heard of it.
    pub(crate) fn crash(&mut self, survivors: usize) {
        self.complete(survivors);
        self.pending.clear();
        self.submitted = self.durable.clone();
        let named = self.durable.snapshot.as_ref().map(|snapshot| snapshot.digest);
        self.finished.retain(|digest, _| Some(*digest) == named);
    }

    pub(crate) fn recover(&self) -> Recovered {
        let mut log_meta = LogMeta::after(self.durable.purged);
        for entry in &self.durable.entries {
            log_meta.push(entry);
        }
        let Image { hard_state, standing, marks, snapshot, .. } = self.durable.clone();
        Recovered { hard_state, standing, marks, snapshot, log_meta }
    }

    /// Entries of the range, if it is there.
    pub(crate) fn read(&self, range: Range<Index>, max_bytes: usize) -> Option<Entries> {
        let purged = self.submitted.purged.index;
        let at = |index: Index| Some(index.checked_sub(purged + 1)? as usize);
        let range = at(range.start)?..at(range.end)?;
        let entries = self.submitted.entries.get(range)?;
        Some(Entries::from(entries.to_vec()).first_bytes(max_bytes))
    }
}
