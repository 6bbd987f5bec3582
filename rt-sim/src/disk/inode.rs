//! A file's content: as it is seen, as it is durable, and what lies between.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// What a disk writes as a whole or not at all.
pub(super) const SECTOR: u64 = 512;

#[derive(Default)]
pub(super) struct Inode {
    content: RefCell<Content>,
    /// The next write goes so much further ahead.
    misdirected: Cell<Option<u64>>,
    writes: Cell<u64>,
    /// How often it is open.
    opened: Cell<u32>,
}

#[derive(Default)]
struct Content {
    visible: Vec<u8>,
    durable: Vec<u8>,
    /// In order, each with its number.
    unsynced: Vec<(u64, Change)>,
    changes: u64,
}

/// A change of a file.
#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, data: Bytes },
    Len(u64),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let (begin, end) = (*offset as usize, *offset as usize + data.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[begin..end].copy_from_slice(data);
            }
            Self::Len(len) => content.resize(*len as usize, 0),
        }
    }

    /// How long it makes a file that is shorter.
    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Write { offset, data } => offset + data.len() as u64,
            Self::Len(len) => *len,
        }
    }

    /// Only the sectors of it that are wanted.
    pub(super) fn sectors(&self, mut wanted: impl FnMut() -> bool) -> Vec<Self> {
        match self {
            Self::Len(_) => wanted().then(|| self.clone()).into_iter().collect(),
            Self::Write { offset, data } => {
                let (mut offset, mut data, mut sectors) = (*offset, data.clone(), Vec::new());
                while !data.is_empty() {
                    let len = (SECTOR - offset % SECTOR).min(data.len() as u64);
                    let sector = data.split_to(len as usize);
                    if wanted() {
                        sectors.push(Self::Write { offset, data: sector });
                    }
                    offset += len;
                }
                sectors
            }
        }
    }
}

impl Inode {
    /// The content of a file that was always there.
    pub(super) fn set(&self, content: &[u8]) {
        let (visible, durable) = (content.to_vec(), content.to_vec());
        self.content.replace(Content { visible, durable, ..Content::default() });
    }

    pub(super) fn len(&self) -> u64 {
        self.content.borrow().visible.len() as u64
    }

    /// Reads into the spare capacity, at most so much; how much it was.
    pub(super) fn read(&self, into: &mut BytesMut, offset: u64, most: usize) -> usize {
        let content = self.content.borrow();
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = content.visible.get(begin..).unwrap_or_default();
        let count = rest.len().min(into.capacity() - into.len()).min(most);
        into.extend_from_slice(&rest[..count]);
        count
    }

    pub(super) fn open(&self) {
        self.opened.update(|opened| opened + 1);
    }

    pub(super) fn close(&self) {
        self.opened.update(|opened| opened - 1);
    }

    pub(super) fn is_open(&self) -> bool {
        self.opened.get() > 0
    }

    /// What a write changes that was to change this: it may be misdirected.
    pub(super) fn write(&self, mut changes: Vec<Change>) -> Vec<Change> {
        self.writes.update(|writes| writes + 1);
        let ahead = self.misdirected.take().unwrap_or(0);
        for change in &mut changes {
            if let Change::Write { offset, .. } = change {
                *offset += ahead;
            }
        }
        changes
    }

    pub(super) fn change(&self, change: Change) {
        let content = &mut *self.content.borrow_mut();
        change.apply(&mut content.visible);
        content.changes += 1;
        content.unsynced.push((content.changes, change));
    }

    /// What a sync that begins now makes durable.
    pub(super) fn changes(&self) -> u64 {
        self.content.borrow().changes
    }

    /// What was changed up to there is durable.
    pub(super) fn synced(&self, changes: u64) {
        let content = &mut *self.content.borrow_mut();
        let upto = content.unsynced.partition_point(|(number, _)| *number <= changes);
        for (_, change) in content.unsynced.drain(..upto) {
            change.apply(&mut content.durable);
        }
    }

    /// What was changed up to there counts as synced from now on, and only some of it is.
    pub(super) fn lost(&self, changes: u64, mut survives: impl FnMut() -> bool) {
        let content = &mut *self.content.borrow_mut();
        let upto = content.unsynced.partition_point(|(number, _)| *number <= changes);
        for (_, change) in content.unsynced.drain(..upto) {
            for part in change.sectors(&mut survives) {
                part.apply(&mut content.durable);
            }
        }
    }

    /// The power is gone; of what was not synced this survives.
    pub(super) fn lose_power(&self, surviving: impl FnOnce(Vec<Change>) -> Vec<Change>) {
        let content = &mut *self.content.borrow_mut();
        let unsynced = content.unsynced.drain(..).map(|(_, change)| change).collect();
        for change in surviving(unsynced) {
            change.apply(&mut content.durable);
        }
        content.visible.clone_from(&content.durable);
        self.misdirected.set(None);
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.get()
    }

    pub(super) fn durable(&self) -> Vec<u8> {
        self.content.borrow().durable.clone()
    }

    /// What is durable, and of what is not those sectors that `survives` is true for.
    pub(super) fn torn(&self, mut survives: impl FnMut() -> bool) -> Vec<u8> {
        let content = self.content.borrow();
        let mut torn = content.durable.clone();
        for (_, change) in &content.unsynced {
            for part in change.sectors(&mut survives) {
                part.apply(&mut torn);
            }
        }
        torn
    }

    pub(super) fn unsynced(&self) -> Vec<Range<u64>> {
        let content = self.content.borrow();
        let range = |(_, change): &(u64, Change)| match change {
            Change::Write { offset, data } => Some(*offset..offset + data.len() as u64),
            Change::Len(_) => None,
        };
        content.unsynced.iter().filter_map(range).collect()
    }

    /// Flips a bit in what is seen, and where that comes from: the last write there that is not
    /// synced, or the disk.
    pub(super) fn flip_bit(&self, offset: u64, bit: u8) {
        let content = &mut *self.content.borrow_mut();
        let flip = |bytes: &mut [u8], at: u64| {
            if let Some(byte) = bytes.get_mut(at as usize) {
                *byte ^= 1 << bit;
            }
        };
        flip(&mut content.visible, offset);
        for (_, change) in content.unsynced.iter_mut().rev() {
            if let Change::Write { offset: begin, data } = change
                && (*begin..*begin + data.len() as u64).contains(&offset)
            {
                let mut flipped = data.to_vec(); // The writer may have it, too.
                flip(&mut flipped, offset - *begin);
                *data = Bytes::from(flipped);
                return;
            }
        }
        flip(&mut content.durable, offset);
    }

    pub(super) fn misdirect(&self, ahead: u64) {
        self.misdirected.set(Some(ahead));
    }
}
