//! Log cleaning: entries that keep an old segment from being removed are copied to the end of the
//! log.
//!
//! All groups share the segments, and a segment goes only when nothing in it is needed any more. So
//! a single entry of a group that never purges would keep all segments after its own, whatever the
//! other groups purge. When the segments hold too much beside what is needed, a task copies what is
//! needed in the oldest one, and then that can go. How copies are told apart from writes is
//! described in the format's description.
//!
//! # Bounds
//!
//! *Space.* Cleaning begins when the segments take more than twice the bytes that are needed, and
//! [`SPARE_SEGMENTS`] more, and ends when they don't. While it is at it, others write on; it keeps
//! pace with them, so that until it gets to what is not needed the log grows by no more than what
//! is needed. It takes at most the needed bytes of one segment before it gives that segment back.
//!
//! *Writing.* Where more than half is not needed, each pass over the log frees at least as much as
//! it copies. What is freed was written once, so at most one byte is copied for each byte that is
//! written by others.
//!
//! *Time and memory.* The node's thread is never held for longer than it takes to copy
//! [`PIECE_BYTES`], and a batch that a vote waits for holds no more of copies than of other writes,
//! or one piece.
//!
//! *A full disk.* What there is for votes and purges is not spent on copies, but for the case where
//! this helps for sure: the oldest segment holds next to nothing. It is cleaned then, once, and its
//! space is enough for the reserve and for the next segment.
//!
//! # Damage
//!
//! An entry that can't be read can't be copied. Its segment stays, and is tried again each time the
//! log has gone on to another segment; the entry may be purged by then. The store goes on: who
//! reads the entry gets the error, as before.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use quorate_core::plant;
use quorate_core::{Completion, Entries, GroupId, Index, StoreError};
use quorate_rt::channel::oneshot;
use quorate_rt::{Files, Task, yield_now};
use tracing::{debug, error};

use crate::config::FileConfig;
use crate::format::HEADER_BYTES;
use crate::index::{Logs, neighbours};
use crate::locations::EntryLocation;
use crate::log::place_of;
use crate::state::State;
use crate::store::Shared;
use crate::waiting::RESERVE_BYTES;

/// The segments may take so many more than twice the needed bytes. One is in use, and one is where
/// the oldest entries stand; so a store whose groups all purge now and then is never cleaned. It is
/// little beside what a disk for a log has.
const SPARE_SEGMENTS: u64 = 4;

/// What a group takes besides its entries, at most: its hard state, standing, marks, snapshot and
/// purge, which are told again before segments go. (If these were not counted, a store of many
/// groups and few entries would be cleaned again and again.)
const GROUP_BYTES: u64 = 4 << 10;

/// What is read and copied at once, if no entry is larger: large enough for a disk to write it
/// efficiently, and copied in a fraction of a millisecond.
const PIECE_BYTES: u64 = 256 << 10;

/// A piece is at most this part of a segment, so that what does not fit at the end of one is
/// little.
const PIECES_IN_SEGMENT: u64 = 8;

/// How many copies begin while others are under way, if the groups write much: a bound on the
/// memory that they take, and on what a batch holds of them.
const MAX_UNDER_WAY: usize = 16;

/// How many locations, or groups, are looked at in one turn.
const SCANNED: usize = 16 << 10;

/// While the disk is full, the oldest segment is cleaned if this part of the reserve is enough.
const PART_OF_RESERVE: u64 = 16;

/// What a store knows of its segments, for cleaning.
#[derive(Debug)]
pub(crate) struct Cleaning {
    /// What the segments were made with, less their headers.
    lengths: BTreeMap<u32, u64>,
    segment_bytes: u64,
    is_due: bool,
    /// A task is at it.
    pub(crate) is_running: bool,
    /// The segment that was in use when an entry could not be read.
    failed_in: Option<u32>,
}

impl Cleaning {
    pub(crate) fn new(lengths: BTreeMap<u32, u64>, config: &FileConfig) -> Self {
        let lengths = lengths.into_iter().map(|(segment, bytes)| (segment, content(bytes)));
        Self {
            lengths: lengths.collect(),
            segment_bytes: config.segment_bytes,
            is_due: false,
            is_running: false,
            failed_in: None,
        }
    }

    /// Whether there is something to do that nobody does.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due && !self.is_running
    }

    pub(crate) fn forget_before(&mut self, first: u32) {
        self.lengths = self.lengths.split_off(&first);
    }

    fn piece_bytes(&self) -> u64 {
        PIECE_BYTES.min(self.segment_bytes / PIECES_IN_SEGMENT)
    }
}

/// The bytes for records in a segment that was made with so many.
fn content(bytes: u64) -> u64 {
    bytes.saturating_sub(HEADER_BYTES)
}

/// Neighbours in a group's log that stand in one segment.
#[derive(Debug)]
struct Run {
    group: GroupId,
    first: Index,
    locations: Vec<EntryLocation>,
}

/// Where the search for the entries in a segment goes on.
type Cursor = (GroupId, Index);

/// Entries that are copied: they are to be read from their new locations when these are durable.
struct Copying {
    run: Run,
    to: Vec<EntryLocation>,
    durable: oneshot::Receiver<Result<(), StoreError>>,
}

impl Logs {
    /// What the logs need, estimated from above.
    fn needed_bytes(&self) -> u64 {
        self.groups().map(|(_, log)| log.locations.bytes() + GROUP_BYTES).sum()
    }

    fn bytes_in(&self, segment: u32) -> u64 {
        self.groups().map(|(_, log)| log.locations.bytes_in(segment)).sum()
    }

    /// The next entries in this segment, to be read with at most `max_bytes`, or one entry; and
    /// where the search goes on, if it was not to the end.
    fn entries_in(&self, segment: u32, from: Cursor, max_bytes: u64) -> (Vec<Run>, Option<Cursor>) {
        let mut runs: Vec<Run> = Vec::new();
        let (mut bytes, mut scanned) = (0, 0);
        for (group, log) in self.groups_from(from.0) {
            scanned += 1;
            if log.locations.bytes_in(segment) == 0 {
                continue;
            }
            let begin = log.log_meta.purged().index + 1;
            let first = if group == from.0 { begin.max(from.1) } else { begin };
            let mut last: Option<(Index, EntryLocation)> = None;
            for (index, location) in (first..).zip(log.locations.from((first - begin) as usize)) {
                scanned += 1;
                if location.segment == segment {
                    let before = last.filter(|(before, _)| before + 1 == index);
                    let cost = match before {
                        Some((_, before)) if neighbours(&[before], location) => {
                            location.end() - before.end()
                        }
                        _ => location.len.into(),
                    };
                    if bytes > 0 && bytes + cost > max_bytes {
                        return (runs, Some((group, index)));
                    }
                    bytes += cost;
                    match runs.last_mut() {
                        Some(run) if before.is_some() => run.locations.push(location),
                        _ => runs.push(Run { group, first: index, locations: vec![location] }),
                    }
                    last = Some((index, location));
                }
                if scanned >= SCANNED {
                    return (runs, Some((group, index + 1)));
                }
            }
            if scanned >= SCANNED {
                return (runs, group.checked_add(1).map(|next| (next, 0)));
            }
        }
        (runs, None)
    }

    /// The entries of a run that still stand there. Meanwhile it may have been purged from the
    /// front, and truncated from the end.
    fn still_there(&self, run: &mut Run, entries: Entries) -> Entries {
        let stands = |(index, location): (Index, &EntryLocation)| {
            self.log(run.group).and_then(|log| log.location(index)).as_ref() == Some(location)
        };
        let stand: Vec<_> = (run.first..).zip(&run.locations).map(stands).collect();
        let gone = stand.iter().take_while(|stands| !**stands).count();
        let left = stand[gone..].iter().take_while(|stands| **stands).count();
        run.first += gone as Index;
        run.locations.drain(..gone);
        run.locations.truncate(left);
        entries.slice(gone..gone + left)
    }
}

impl State {
    /// The log has gone on to a segment of this length.
    pub(crate) fn begins_segment(&mut self, segment: u32, bytes: u64) {
        self.cleaning.lengths.insert(segment, content(bytes));
        self.look_for_waste();
    }

    /// Looks whether there is something to clean. To be called when a segment has begun, and when
    /// something is not needed any more.
    pub(crate) fn look_for_waste(&mut self) {
        self.cleaning.is_due = self.to_be_cleaned().is_some();
    }

    /// The oldest segment, if it is to be cleaned.
    fn to_be_cleaned(&self) -> Option<u32> {
        let (oldest, Cleaning { lengths, segment_bytes, failed_in, .. }) =
            (self.first, &self.cleaning);
        let in_use = self.durable.segment;
        if oldest >= in_use || self.failed.is_some() || *failed_in == Some(in_use) {
            return None;
        }
        let is_worth_it = match &self.waiting {
            None => {
                let allowed = 2 * self.logs.needed_bytes() + SPARE_SEGMENTS * segment_bytes;
                lengths.values().sum::<u64>() > allowed
            }
            Some(waiting) => {
                let little = RESERVE_BYTES.min(*segment_bytes) / PART_OF_RESERVE;
                !waiting.cleaned && self.logs.bytes_in(oldest) <= little
            }
        };
        is_worth_it.then_some(oldest)
    }

    /// Queues a copy of entries, which stand at `run` until it is durable. None if they don't any
    /// more, or there is no space.
    fn copy(&mut self, mut run: Run, entries: Entries) -> Option<Copying> {
        let entries = self.logs.still_there(&mut run, entries);
        if entries.is_empty() {
            return None;
        }
        let Self { encoder, batches, reserve, waiting, cleaning, .. } = self;
        let (body_bytes, spans) = encoder.encode_copy(run.group, entries);
        let (at, room) = match waiting {
            None => (batches.place(body_bytes), cleaning.segment_bytes),
            Some(_) => (batches.place_small(body_bytes, *reserve)?, reserve.unwrap_or(0)),
        };
        let to: Vec<_> = spans.iter().map(|span| place_of(span, at)).collect();
        if waiting.is_some() && at.segment != batches.end().segment {
            *reserve = None; // It becomes this segment.
        }
        batches.put(encoder, run.group, at, body_bytes, room);
        let (sender, durable) = oneshot::channel();
        batches.tell(Completion::new(move |outcome| drop(sender.send(outcome))));
        plant!(X13, self.logs.moved(run.group, run.first, &run.locations, &to));
        Some(Copying { run, to, durable })
    }
}

/// Cleans the oldest segments in the background, as long as it is worth it.
pub(crate) fn clean<R: Files>(shared: &Rc<Shared<R>>) {
    let Cleaning { is_due, is_running, .. } = &mut shared.state.borrow_mut().cleaning;
    (*is_due, *is_running) = (false, true);
    let task = Rc::clone(shared);
    let cleaning = async move {
        let cleaned = task.clean().await;
        let is_closed = task.lock.borrow().is_none();
        let state = &mut *task.state.borrow_mut();
        state.cleaning.is_running = false;
        match cleaned {
            // The store has failed or is closed, or the disk is full. The log goes on without.
            Err(StoreError::Abandoned | StoreError::Poisoned(_)) | Ok(()) => {}
            Err(_) if is_closed => {}
            Err(cause) => {
                error!(
                    %cause,
                    "an entry of the log can't be read; whoever needs it will fail, and its \
                     segment and those after it can't be removed: replace this node's disk"
                );
                state.cleaning.failed_in = Some(state.durable.segment);
            }
        }
        state.wake_writer();
    };
    shared.segments.rt.spawn(cleaning).detach();
}

impl<R: Files> Shared<R> {
    /// Errors: an entry can't be read or copied.
    async fn clean(&self) -> Result<(), StoreError> {
        loop {
            let Some(oldest) = self.state.borrow().to_be_cleaned() else { return Ok(()) };
            self.copy_entries(oldest).await?;
            let state = &mut *self.state.borrow_mut();
            if state.failed.is_some() || self.lock.borrow().is_none() {
                return Err(StoreError::Abandoned);
            }
            let Some(first) = state.move_begin() else { return Ok(()) };
            debug!(oldest, first, "the oldest segments of the log were cleaned");
            self.segments.forget_before(first);
            if let Some(waiting) = &mut state.waiting {
                waiting.cleaned = true;
            }
            state.wake_writer();
        }
    }

    /// Copies what is needed in a segment to the end of the log, and ends when that is durable.
    async fn copy_entries(&self, segment: u32) -> Result<(), StoreError> {
        let begin = self.state.borrow().batches.put_bytes();
        let mut copied = 0;
        let mut under_way = VecDeque::new();
        let mut next = Some((0, 0));
        while let Some(from) = next {
            let piece;
            {
                let state = self.state.borrow();
                let max_bytes = state.cleaning.piece_bytes();
                (piece, next) = state.logs.entries_in(segment, from, max_bytes);
            }
            let mut read = Vec::new();
            for run in piece {
                match self.fetch_run(&run).await {
                    Ok(entries) => read.push((run, entries)),
                    Err(cause) if self.is_there(&run) => return Err(cause),
                    Err(_) => {} // It was purged, and its segment may be gone.
                }
            }
            let others = {
                let state = &mut *self.state.borrow_mut();
                if state.failed.is_some() || self.lock.borrow().is_none() {
                    return Err(StoreError::Abandoned);
                }
                let before = state.batches.put_bytes();
                for (run, entries) in read {
                    under_way.extend(state.copy(run, entries));
                }
                let after = state.batches.put_bytes();
                copied += after - before;
                state.wake_writer();
                after - begin - copied
            };
            yield_now().await;
            // Those who write wait for no more than one piece, or for as much as they write.
            while under_way.len() >= MAX_UNDER_WAY || copied >= others {
                let Some(copying) = under_way.pop_front() else { break };
                self.finish(copying).await?;
            }
        }
        for copying in under_way {
            self.finish(copying).await?;
        }
        Ok(())
    }

    /// Waits until a copy is durable.
    async fn finish(&self, Copying { run, to, durable }: Copying) -> Result<(), StoreError> {
        plant!(X13, return Ok(()));
        durable.await.unwrap_or(Err(StoreError::Abandoned))?;
        self.state.borrow_mut().logs.moved(run.group, run.first, &run.locations, &to);
        Ok(())
    }

    fn is_there(&self, run: &Run) -> bool {
        let state = self.state.borrow();
        let log = state.logs.log(run.group);
        let mut locations = (run.first..).zip(&run.locations);
        locations.any(|(index, location)| {
            log.and_then(|log| log.location(index)).as_ref() == Some(location)
        })
    }

    async fn fetch_run(&self, run: &Run) -> Result<Entries, StoreError> {
        let (mut first, mut parts) = (run.first, Vec::new());
        for locations in run.locations.chunk_by(|before, next| neighbours(&[*before], *next)) {
            parts.push(self.fetch(run.group, first, locations).await?);
            first += locations.len() as Index;
        }
        Ok(Entries::joined(&parts))
    }
}
