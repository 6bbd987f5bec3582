//! What happens to writes while the disk is full.
//!
//! Only a new segment needs space, since a segment is allocated before anything is written to it.
//! When the next one can't be allocated, everything that is not written yet loses its place in the
//! log, and is sorted anew. Entries wait here. The rest (see
//! [`LogStore`](quorate_core::LogStore#a-full-disk) for why it may go ahead) gets a place at once:
//! in what is left of the segment in use, and then in the *reserve*. The reserve is a small file
//! that is allocated beforehand. When it is needed it gets a header and becomes the next segment of
//! the log, so the format knows nothing of it.
//!
//! Entries get a place only while the reserve is there; so after a restart with a full disk, too,
//! what is left in the last segment is kept for the small writes. When even that is used up,
//! everything waits in its order.
//!
//! The writer tries again from time to time, and when a file was removed. It first makes the
//! reserve, where that was used, and then the next segment. Then all that waits gets a place in the
//! order of its submission.
//!
//! When a group is removed, those of its writes that wait are dropped. The removal is a small write
//! like a vote.
//!
//! Nothing of what waits is on the disk, so there is nothing for a crash to leave half-way. What it
//! replaces stays there until then ([`Pins`](crate::pins::Pins)).

use std::collections::VecDeque;
use std::io;
use std::iter;
use std::mem;

use quorate_core::{Completion, GroupId, LogId, LogWrite, Standing, StoreError};

use crate::batch::Batch;
use crate::format::{HEADER_BYTES, Position};
use crate::owner::Owner;
use crate::record::{Content, record_bytes, take_records};
use crate::state::{State, unobserved};

/// How large the reserve is. A vote takes about 100 bytes, a start of the node as much, and what is
/// told again of a group before segments go less than 4 KiB: so it is enough for thousands of
/// elections, or for the purges of some hundred groups, and small beside a segment.
pub(crate) const RESERVE_BYTES: u64 = 1 << 20;

/// Whether an operation has failed only because the disk, or a quota, is full.
pub(crate) fn is_full(error: &StoreError) -> bool {
    let StoreError::Io { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The queue of a full disk.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    items: VecDeque<Item>,
    /// A small write did not fit: from now on all wait in order.
    exhausted: bool,
    /// How many items there were.
    numbered: u64,
    /// Something was removed since the last try.
    pub(crate) freed: bool,
    /// The oldest segment was cleaned, which gives enough space to go on.
    pub(crate) cleaned: bool,
}

/// A record without a place.
#[derive(Debug)]
struct Item {
    group: GroupId,
    what: What,
    /// Stands for its end until it has one.
    key: Position,
    /// Taken out while the node is told.
    done: Option<Completion>,
    reported: bool,
}

#[derive(Debug)]
pub(crate) enum What {
    /// And whether the log does not hold what it purges.
    Write(Box<LogWrite>, bool),
    Owner(Owner),
    Begin(u32),
    Remove,
}

/// What stood for the ends of writes that were dropped, and who waits for them.
pub(crate) type Dropped = Vec<(Position, Option<Completion>)>;

/// Those who are to be told that they wait.
pub(crate) type Unreported = Vec<(Position, Completion)>;

impl Waiting {
    fn push(&mut self, group: GroupId, what: What, done: Completion) -> Position {
        self.numbered += 1;
        let key = Position::nowhere(self.numbered);
        self.items.push_back(Item { group, what, key, done: Some(done), reported: false });
        key
    }

    /// Whether somebody is to be told that it waits.
    pub(crate) fn has_untold(&self) -> bool {
        self.items.back().is_some_and(|item| !item.reported)
    }

    /// Takes out the completions of those who are to be told. They come back by
    /// [`put_back`](Self::put_back).
    pub(crate) fn take_unreported(&mut self) -> Unreported {
        let items = self.items.iter_mut().rev().take_while(|item| !item.reported);
        let mut unreported: Unreported = items
            .filter_map(|item| {
                item.reported = true;
                Some((item.key, item.done.take()?))
            })
            .collect();
        unreported.reverse();
        unreported
    }

    /// Takes back those who could not be told yet. Gives those whose writes were dropped meanwhile.
    pub(crate) fn put_back(&mut self, unreported: Unreported) -> Unreported {
        let (mut unreported, mut dropped) = (unreported.into_iter().peekable(), Vec::new());
        for item in &mut self.items {
            dropped.extend(iter::from_fn(|| unreported.next_if(|(key, _)| *key < item.key)));
            if let Some((_, done)) = unreported.next_if(|(key, _)| *key == item.key) {
                item.done = Some(done);
            }
        }
        dropped.extend(unreported);
        dropped
    }

    /// Takes out the writes of a group that is removed, and gives who waits for them, and whether
    /// one of them says to which cluster the store belongs. An earlier removal stays, and so does,
    /// in its place, that the group is spent: a begin behind it may rely on it.
    fn drop_writes(&mut self, group: GroupId) -> (Dropped, bool) {
        let says_spent = self.says_spent(group);
        let (mut dropped, mut tells_cluster) = (Vec::new(), false);
        self.items.retain_mut(|item| {
            let What::Write(write, replaces) = &mut item.what else { return true };
            if item.group != group {
                return true;
            }
            tells_cluster |= write.cluster.is_some();
            dropped.push((item.key, item.done.take()));
            let standing = write.standing.take().filter(|standing| **standing == Standing::Spent);
            let is_spent = says_spent && standing.is_some();
            (**write, *replaces) = (LogWrite { standing, ..LogWrite::default() }, false);
            is_spent
        });
        (dropped, tells_cluster)
    }

    /// Whether it waits that a group is spent.
    fn says_spent(&self, group: GroupId) -> bool {
        let of_group = self.items.iter().filter(|item| item.group == group);
        let mut standings = of_group.filter_map(|item| match &item.what {
            What::Write(write, _) => write.standing.as_deref(),
            _ => None,
        });
        standings.next_back() == Some(&Standing::Spent)
    }

    /// All that wait, for a store that has failed or is closed.
    pub(crate) fn take_all(&mut self) -> Vec<Completion> {
        self.items.drain(..).filter_map(|item| item.done).collect()
    }
}

impl State {
    /// Drops what waits of a group that is removed. Gives who is to be told, when nothing is
    /// borrowed.
    pub(crate) fn drop_waiting(&mut self, group: GroupId) -> Dropped {
        let Some(waiting) = &self.waiting else { return Dropped::new() };
        if waiting.says_spent(group) {
            // The removal may go ahead, and must find it.
            let standing = Some(Box::new(Standing::Spent));
            let write = Box::new(LogWrite { standing, ..LogWrite::default() });
            if self.go_ahead(group, &What::Write(write, false)).is_some() {
                self.batches.tell(unobserved());
            }
        }
        let Some(waiting) = &mut self.waiting else { return Dropped::new() };
        let (dropped, tells_cluster) = waiting.drop_writes(group);
        if tells_cluster {
            // The other groups rely on it.
            self.tell_owner(self.logs.owner, unobserved());
        }
        dropped
    }

    /// There is no space for this batch, which has not been written. The log ends in a segment with
    /// `room` bytes.
    /// Gives who is to be told, when nothing is borrowed, that a group was removed.
    pub(crate) fn begin_to_wait(&mut self, batch: Batch, room: u64) -> Dropped {
        let mut dropped = Dropped::new();
        let mut batches = vec![batch];
        while let Some(next) = self.batches.take() {
            batches.push(next);
        }
        self.batches.reset(self.durable, room);
        self.waiting = Some(Waiting::default());
        for Batch { start, chunks, done, .. } in batches {
            let records = take_records(self.encoder.store(), start, &chunks.concat().into());
            assert_eq!(records.len(), done.len());
            for ((group, content, end), done) in records.into_iter().zip(done) {
                let both = |key| (key, key);
                let (ahead, key) = match content {
                    Content::Write(decoded) => {
                        self.logs.lose_place(group, &decoded.write);
                        self.sort(group, decoded.write, decoded.replaces, done)
                    }
                    Content::Owner(owner) => both(self.queue(0, What::Owner(owner), done)),
                    // The number was one of 4 bytes when it was encoded.
                    Content::Begin(first) => both(self.queue(0, What::Begin(first as u32), done)),
                    Content::Remove => {
                        let gone = self.drop_waiting(group);
                        let end = self.put_removal(group, &gone, done);
                        dropped.extend(gone);
                        both(end)
                    }
                    // Its entries stay where they are.
                    Content::Copy(_) => continue,
                    Content::SyncMarker | Content::Skipped => continue, // They are in no batch.
                };
                self.moved(end, ahead, key);
            }
        }
        self.look_for_waste();
        dropped
    }

    /// Gives a write that was noted without a place one, or lets it wait: a part of it may go
    /// ahead. Gives where that ends, or else the whole, and where the whole ends.
    pub(crate) fn sort(
        &mut self,
        group: GroupId,
        mut write: LogWrite,
        replaces: bool,
        done: Completion,
    ) -> (Position, Position) {
        let mut rest = LogWrite::default();
        if !write.entries.is_empty() {
            rest.entries = mem::take(&mut write.entries);
        }
        if rest.entries.first().is_some_and(|first| first.log_id.index == 1) {
            // They say what the group has become by this entry.
            (rest.cluster, rest.standing) = (write.cluster.take(), write.standing.take());
        }
        if rest.entries.is_empty() {
            let end = self.queue(group, What::Write(Box::new(write), replaces), done);
            return (end, end);
        }
        let mut key = None;
        if write != LogWrite::default() {
            // Without a place for this part the whole waits, so that its parts stay together.
            match self.go_ahead(group, &What::Write(Box::new(write.clone()), replaces)) {
                Some(at) => {
                    self.batches.tell(unobserved());
                    key = Some(at);
                }
                None => {
                    write.entries = rest.entries;
                    write.cluster = write.cluster.or(rest.cluster);
                    write.standing = write.standing.or(rest.standing);
                    let end = self.wait(group, What::Write(Box::new(write), replaces), done);
                    return (end, end);
                }
            }
        }
        let waits = self.wait(group, What::Write(Box::new(rest), false), done);
        // What a snapshot and a purge have made superfluous may go when these are durable.
        (key.unwrap_or(waits), waits)
    }

    /// Gives a record a place, or lets it wait. Gives where it ends.
    pub(crate) fn queue(&mut self, group: GroupId, what: What, done: Completion) -> Position {
        match self.go_ahead(group, &what) {
            Some(end) => {
                self.batches.tell(done);
                end
            }
            None => self.wait(group, what, done),
        }
    }

    fn wait(&mut self, group: GroupId, what: What, done: Completion) -> Position {
        self.waiting.get_or_insert_default().push(group, what, done)
    }

    /// Gives a record without entries a place in what is left of the segment or in the reserve, and
    /// gives its end. None if there is none, or earlier ones wait for one.
    fn go_ahead(&mut self, group: GroupId, what: &What) -> Option<Position> {
        let reserve = self.reserve;
        let waiting = self.waiting.get_or_insert_default();
        if waiting.exhausted {
            return None;
        }
        // From the first entry on that waits, the log on the disk is another one, or ends.
        let lacks = |to: LogId| {
            let of_group = waiting.items.iter().filter(|item| item.group == group);
            of_group.into_iter().any(|item| match &item.what {
                What::Write(write, _) => {
                    write.entries.first().is_some_and(|first| first.log_id.index <= to.index)
                }
                _ => false,
            })
        };
        let body_bytes = match what {
            What::Write(write, replaces) => {
                let replaces = *replaces || write.purge.is_some_and(lacks);
                self.encoder.encode(group, write, replaces).0
            }
            What::Owner(owner) => self.encoder.encode_owner(owner),
            What::Begin(first) => self.encoder.encode_begin(*first),
            What::Remove => self.encoder.encode_remove(),
        };
        let Some(at) = self.batches.place_small(body_bytes, reserve) else {
            waiting.exhausted = true;
            return None;
        };
        if at.segment != self.batches.end().segment {
            self.reserve = None; // It becomes this segment.
        }
        self.batches.put(&mut self.encoder, group, at, body_bytes, reserve.unwrap_or(0));
        match what {
            What::Write(write, _) => {
                self.logs.placed(group, write, &[], at);
                self.supersede(group, write);
            }
            What::Owner(_) => self.logs.placed_owner(at),
            What::Begin(_) | What::Remove => {}
        }
        Some(self.batches.end())
    }

    /// A write has gone ahead of those of its group that wait: what it makes void in them must not
    /// follow on it.
    fn supersede(&mut self, group: GroupId, ahead: &LogWrite) {
        let Some(waiting) = &mut self.waiting else { return };
        for item in waiting.items.iter_mut().filter(|item| item.group == group) {
            let What::Write(write, _) = &mut item.what else { continue };
            if ahead.purge.is_some() {
                write.entries = self.logs.still_held(group, &write.entries);
            }
            if ahead.standing.is_some() {
                write.standing = None;
            }
        }
    }

    /// The length that a segment must have for the first that waits.
    pub(crate) fn first_bytes(&mut self) -> u64 {
        let first = self.waiting.as_ref().and_then(|waiting| waiting.items.front());
        let Some(Item { group, what: What::Write(write, replaces), .. }) = first else { return 0 };
        HEADER_BYTES + record_bytes(self.encoder.encode(*group, write, *replaces).0)
    }

    /// There is space again: all that waits gets a place, in order.
    pub(crate) fn end_to_wait(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        for Item { group, what, key, done, .. } in waiting.items {
            let Self { encoder, batches, logs, .. } = &mut *self;
            let (body_bytes, spans) = match &what {
                What::Write(write, replaces) => encoder.encode(group, write, *replaces),
                What::Owner(owner) => (encoder.encode_owner(owner), &[][..]),
                What::Begin(first) => (encoder.encode_begin(*first), &[][..]),
                What::Remove => (encoder.encode_remove(), &[][..]),
            };
            let at = batches.place(body_bytes);
            match &what {
                What::Write(write, _) => logs.placed(group, write, spans, at),
                What::Owner(_) => logs.placed_owner(at),
                What::Begin(_) | What::Remove => {}
            }
            batches.add(encoder, group, at, body_bytes, done.unwrap_or_else(unobserved));
            let end = batches.end();
            self.moved(key, end, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A begin that waits behind it may be what makes its segment needless.
    #[test]
    fn that_a_group_is_spent_keeps_its_place_when_its_writes_are_dropped() {
        let mut waiting = Waiting::default();
        let write = |standing: Option<Standing>| {
            let standing = standing.map(Box::new);
            let purge = Some(LogId::new(1, 1, 9));
            What::Write(Box::new(LogWrite { standing, purge, ..LogWrite::default() }), true)
        };
        waiting.push(7, write(None), unobserved());
        waiting.push(7, write(Some(Standing::Spent)), unobserved());
        waiting.push(8, write(Some(Standing::Spent)), unobserved());
        waiting.push(0, What::Begin(4), unobserved());
        waiting.push(7, write(None), unobserved());
        let (dropped, tells_cluster) = waiting.drop_writes(7);
        assert_eq!((dropped.len(), tells_cluster), (3, false));
        let left = waiting.items.iter().map(|item| match &item.what {
            What::Write(write, _) => {
                assert_eq!(write.standing.as_deref(), Some(&Standing::Spent));
                assert_eq!(write.purge.is_some(), item.group == 8, "nothing else of it is left");
                item.group
            }
            _ => 0,
        });
        assert_eq!(left.collect::<Vec<_>>(), [7, 8, 0]);
    }
}
