//! Group commit: the writes that wait for the disk, gathered into batches. A batch is what one
//! write and one sync make durable.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use quorate_core::codec::Gather;
use quorate_core::{Completion, GroupId};
use quorate_rt::planted::{Bug, planted};

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
        }
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

    /// Adds the record that `encoder` has just encoded, at its [`place`](Self::place).
    pub(crate) fn add(
        &mut self,
        encoder: &mut Encoder,
        group: GroupId,
        at: Position,
        body_bytes: u64,
        done: Completion,
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
            self.room = self.segment_bytes; // After a larger record there is none.
        }
        if planted(Bug::X6) {
            self.durable = self.end;
        }
        encoder.put(&mut self.content, group, at, self.durable);
        self.done.push(done);
        self.end = Position { offset: at.offset + bytes, ..at };
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
