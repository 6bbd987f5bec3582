//! What a store knows, and what becomes of a write before it is written.

use std::collections::BTreeSet;
use std::mem;
use std::task::Waker;

use quorate_core::plant;
use quorate_core::{Completion, Entry, GroupId, LogWrite, StoreError};
use quorate_rt::channel::oneshot;
use quorate_rt::{Files, Instant};

use crate::batch::Batches;
use crate::cleaning::Cleaning;
use crate::format::Position;
use crate::index::Logs;
use crate::owner::Owner;
use crate::pins::Pins;
use crate::record::{ENTRY_OVERHEAD_BYTES, Encoder, Span};
use crate::segment::Segments;
use crate::trash::{Garbage, Trash};
use crate::waiting::{Dropped, Waiting, What};

pub(crate) struct State {
    pub(crate) encoder: Encoder,
    pub(crate) batches: Batches,
    pub(crate) logs: Logs,
    /// The groups that are recovered and not released.
    pub(crate) open: BTreeSet<GroupId>,
    /// While the disk is full.
    pub(crate) waiting: Option<Waiting>,
    /// The length of the reserve, while that is there.
    pub(crate) reserve: Option<u64>,
    /// The end of what is durable.
    pub(crate) durable: Position,
    /// The first segment that is needed, as was told last.
    pub(crate) first: u32,
    pub(crate) trash: Trash,
    pub(crate) pins: Pins,
    pub(crate) cleaning: Cleaning,
    /// What all writes are answered with after a failure.
    pub(crate) failed: Option<StoreError>,
    /// The writer, when it has nothing to do.
    pub(crate) writer: Option<Waker>,
    /// Who waits until the last batch has its sync marker.
    pub(crate) settling: Vec<oneshot::Sender<()>>,
}

impl State {
    /// A batch up to `end` has become durable.
    pub(crate) fn wrote(&mut self, end: Position) {
        assert!(self.durable < end, "batches are written in order");
        self.durable = end;
        self.pins.release(end);
        self.logs.shrink(end);
    }

    pub(crate) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    pub(crate) fn take_garbage(&mut self, now: Instant) -> Vec<Garbage> {
        self.trash.take(self.durable, now)
    }

    /// Notes a write, of which it takes the entries, and queues its record.
    ///
    /// Panics if it makes no sense: a bug of the caller.
    ///
    /// Gives where the record ends.
    pub(crate) fn submit(
        &mut self,
        group: GroupId,
        write: &mut LogWrite,
        done: Completion,
    ) -> Position {
        let replaces = self.logs.replaces(group, write);
        if self.waiting.is_some() {
            return self.submit_to_full_disk(group, mem::take(write), replaces, done);
        }
        let Self { encoder, batches, logs, durable, pins, .. } = self;
        let replaced = logs.replaced_by(group, write);
        let (body_bytes, spans) = encoder.encode(group, write, replaces);
        let at = batches.place(body_bytes);
        if let Err(reason) = logs.note(group, write, replaces, spans, at) {
            panic!("a write that makes no sense: {reason}");
        }
        batches.add(encoder, group, at, body_bytes, done);
        if !replaced.is_empty() {
            pins.add(group, replaced, batches.end());
        }
        logs.keep(group, mem::take(&mut write.entries));
        logs.shrink(*durable);
        batches.end()
    }

    fn submit_to_full_disk(
        &mut self,
        group: GroupId,
        write: LogWrite,
        replaces: bool,
        done: Completion,
    ) -> Position {
        let bytes = |entry: &Entry| ENTRY_OVERHEAD_BYTES + entry.bytes() - Entry::OVERHEAD_BYTES;
        let span = |entry| Span { offset: 0, len: bytes(entry) };
        let spans: Vec<Span> = write.entries.iter().map(span).collect();
        let replaced = self.logs.replaced_by(group, &write);
        let noted = self.logs.note(group, &write, replaces, &spans, Position::nowhere(0));
        if let Err(reason) = noted {
            panic!("a write that makes no sense: {reason}");
        }
        self.logs.keep(group, write.entries.clone());
        let (ahead, end) = self.sort(group, write, replaces, done);
        self.pins.add(group, replaced, end);
        ahead
    }

    /// Something was removed: there may be space again.
    pub(crate) fn has_freed(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.freed = true;
            self.wake_writer();
        }
    }

    /// Takes out all that wait, for a store that has failed or is closed.
    pub(crate) fn take_all(&mut self) -> Vec<Completion> {
        let mut all = Vec::new();
        while let Some(batch) = self.batches.take() {
            all.extend(batch.done);
        }
        all.extend(self.waiting.iter_mut().flat_map(Waiting::take_all));
        all
    }

    /// Forgets a group, and queues the record that says so. Gives where that ends, and who is to be
    /// told, when nothing is borrowed, that what waited was dropped.
    pub(crate) fn remove(&mut self, group: GroupId, done: Completion) -> (Position, Dropped) {
        let dropped = self.drop_waiting(group);
        self.logs.remove(group);
        (self.put_removal(group, &dropped, done), dropped)
    }

    /// Queues the record that a group was removed, and that these writes of it were dropped.
    pub(crate) fn put_removal(
        &mut self,
        group: GroupId,
        dropped: &Dropped,
        done: Completion,
    ) -> Position {
        let end = self.put(group, What::Remove, done);
        dropped.iter().for_each(|(key, _)| self.moved(*key, end, end));
        end
    }

    /// A record that ended at `from` ends at `to` now, and what goes ahead of its entries at
    /// `ahead`.
    pub(crate) fn moved(&mut self, from: Position, ahead: Position, to: Position) {
        self.trash.move_to(from, ahead);
        self.pins.move_to(from, to);
    }

    /// Queues a record of which everything is noted. Gives where it ends.
    fn put(&mut self, group: GroupId, what: What, done: Completion) -> Position {
        if self.waiting.is_some() {
            return self.queue(group, what, done);
        }
        let Self { encoder, batches, logs, .. } = self;
        let body_bytes = match &what {
            What::Owner(owner) => encoder.encode_owner(owner),
            What::Begin(first) => encoder.encode_begin(*first),
            What::Remove => encoder.encode_remove(),
            What::Write(write, replaces) => encoder.encode(group, write, *replaces).0,
        };
        let at = batches.place(body_bytes);
        if matches!(what, What::Owner(_)) {
            logs.placed_owner(at);
        }
        batches.add(encoder, group, at, body_bytes, done);
        batches.end()
    }

    /// Notes whose store it is from now on, and queues its record.
    pub(crate) fn tell_owner(&mut self, owner: Owner, done: Completion) {
        let noted = self.logs.note_owner(owner, Position::nowhere(0));
        noted.expect("it is the owner that was, and what has come of it");
        self.put(0, What::Owner(owner), done);
    }

    /// After a purge or a removal: has the segments removed that hold no entry any more, and looks
    /// whether the others hold too much that is of no use.
    pub(crate) fn forget_needless<R: Files>(&mut self, segments: &Segments<R>) {
        if let Some(first) = self.move_begin() {
            segments.forget_before(first);
        }
        self.look_for_waste();
    }

    /// Where the first segments hold no entry any more, queues what must be durable before they
    /// go: all that was last told in them, once more, and the new begin. See the format.
    ///
    /// Gives the new begin.
    pub(crate) fn move_begin(&mut self) -> Option<u32> {
        // The next segment may not come to be, if there is no space for it. Then the log goes on in
        // this one, which must not go.
        let end = self.durable.segment;
        let pinned = self.pins.first(|group| self.logs.purged(group)).unwrap_or(end);
        // The first of entries that wait for space has none.
        let first = self.logs.first_segment().unwrap_or(end).min(pinned).min(end);
        if first <= self.first {
            return None;
        }
        let recorded_before = first;
        plant!(X9, recorded_before = 0);
        if let Some(owner) = self.logs.owner_before(recorded_before) {
            self.tell_owner(owner, unobserved());
        }
        for (group, mut state) in self.logs.states_before(recorded_before) {
            self.submit(group, &mut state, unobserved());
        }
        let recorded = self.put(0, What::Begin(first), unobserved());
        plant!(X13, recorded = if self.cleaning.is_running { self.durable } else { recorded });
        for segment in self.first..first {
            self.trash.put(recorded, Garbage::Segment(segment));
        }
        self.first = first;
        self.cleaning.forget_before(first);
        Some(first)
    }
}

/// The completion of a write that nobody waits for. If it fails, the store has failed, and others
/// are told.
pub(crate) fn unobserved() -> Completion {
    Completion::new(|_| ())
}
