//! Group commit: the writes that wait for the disk, gathered into batches. A batch is what one
//! write and one sync make durable.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use quorate_core::codec::Gather;
use quorate_core::plant;
use quorate_core::{Completion, GroupId};

use crate::config::FileConfig;
use crate::format::Position;
use crate::record::{Encoder, record_bytes};

/// One write to one segment.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) start: Position,
    pub(crate) end: Position,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) done: Vec<Completion>,
}

/// The batches that wait, in order. The last one grows until it is taken or full.
///
/// It has no bound of its own: a write is in here from its submission to its sync, so the bound is
/// what the nodes submit without waiting.
#[derive(Debug)]
pub(crate) struct Batches {
    /// How long a segment is made.
    segment_bytes: u64,
    /// Up to where records fit in the one that holds the end.
    room: u64,
    max_batch_bytes: usize,
    full: VecDeque<Batch>,
    /// The end of the last record: of all that is stored and all that waits.
    end: Position,
    // The batch that grows:
    start: Position,
    /// The end of the batch before it, which is durable when this one is written.
    durable: Position,
    content: Gather,
    done: Vec<Completion>,
    /// The bytes of all records since the opening.
    put_bytes: u64,
}

impl Batches {
    /// Nothing waits. The log ends there, in a segment that was made with `room` bytes.
    pub(crate) fn new(end: Position, room: u64, config: &FileConfig) -> Self {
        Self {
            segment_bytes: config.segment_bytes,
            room,
            max_batch_bytes: config.max_batch_bytes,
            full: VecDeque::new(),
            end,
            start: end,
            durable: end,
            content: Gather::new(),
            done: Vec::new(),
            put_bytes: 0,
        }
    }

    /// The bytes of all records that were submitted since the opening.
    pub(crate) fn put_bytes(&self) -> u64 {
        self.put_bytes
    }

    /// The end of all that has been submitted.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// Where the next record goes. One that is larger than a segment is the only one in its
    /// segment, which is made for it.
    pub(crate) fn place(&self, body_bytes: u64) -> Position {
        if self.end.offset + record_bytes(body_bytes) <= self.room {
            return self.end;
        }
        let next = self.end.segment.checked_add(1);
        Position::first_in(next.expect("2^32 segments are more than any disk holds"))
    }

    /// Where a record goes while the disk is full: into the segment that holds the end, or into
    /// the one that the reserve of so many bytes is to become. None if it fits into neither.
    pub(crate) fn place_small(&self, body_bytes: u64, reserve: Option<u64>) -> Option<Position> {
        let bytes = record_bytes(body_bytes);
        if self.end.offset + bytes <= self.room {
            return Some(self.end);
        }
        let next = Position::first_in(self.end.segment.checked_add(1)?);
        reserve.filter(|reserve| next.offset + bytes <= *reserve).map(|_| next)
    }

    /// Adds the record that `encoder` has just encoded, at its [`place`](Self::place).
    pub(crate) fn add(
        &mut self,
        encoder: &mut Encoder,
        group: GroupId,
        at: Position,
        body_bytes: u64,
        done: Completion,
    ) {
        self.put(encoder, group, at, body_bytes, self.segment_bytes);
        self.tell(done);
    }

    /// Who is told of the record that was put last.
    pub(crate) fn tell(&mut self, done: Completion) {
        self.done.push(done);
    }

    /// Forgets the place of all that is not durable. The log goes on at `end`, in a segment that
    /// was made with `room` bytes.
    pub(crate) fn reset(&mut self, end: Position, room: u64) {
        assert!(self.full.is_empty() && self.content.is_empty(), "they were taken out");
        (self.end, self.start, self.durable, self.room) = (end, end, end, room);
    }

    /// Adds the record that `encoder` has just encoded. If it is the first of its segment, that is
    /// made with `room` bytes, or for this record.
    pub(crate) fn put(
        &mut self,
        encoder: &mut Encoder,
        group: GroupId,
        at: Position,
        body_bytes: u64,
        room: u64,
    ) {
        let bytes = record_bytes(body_bytes);
        if at != self.end || self.content.len() as u64 + bytes > self.max_batch_bytes as u64 {
            self.seal();
        }
        if self.content.is_empty() {
            self.start = at;
            self.durable = self.end;
        }
        if at.segment != self.end.segment {
            self.room = room; // After a larger record there is none.
        }
        plant!(X6, self.durable = self.end);
        encoder.put(&mut self.content, group, at, self.durable);
        self.end = Position { offset: at.offset + bytes, ..at };
        self.put_bytes += bytes;
        assert_eq!(self.start.offset + self.content.len() as u64, self.end.offset);
    }

    /// The next batch to be written.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        if self.full.is_empty() {
            self.seal();
        }
        self.full.pop_front()
    }

    fn seal(&mut self) {
        if self.content.is_empty() {
            return;
        }
        self.full.push_back(Batch {
            start: self.start,
            end: self.end,
            chunks: self.content.take(),
            done: mem::take(&mut self.done),
        });
    }
}
