//! What is known of one group's log: its hard state, snapshot and metadata, where each entry stands
//! on disk, and the most recent entries themselves. It takes one write after the other, from the
//! node or from the disk, and refuses what makes no sense.
//!
//! Where the log's first segments have been removed, an opening meets writes to entries that it
//! knows nothing of; see "The begin" in the format's description. Such a log is not *anchored*
//! until it is known after which entry it begins.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;

use quorate_core::plant;
use quorate_core::{
    Entries, HardState, Index, LogId, LogMeta, LogWrite, MAX_MEMORIES, MAX_STARTS, Marks,
    Recovered, Replica, Runs, SnapshotMeta, Standing, check_list,
};

use crate::early::{Early, missing};
use crate::format::{NOWHERE, Position};
use crate::locations::{EntryLocation, EntryLocations};
use crate::record::Span;

/// No log gets beyond this index in thousands of years, and a sum of two does not overflow.
const MAX_INDEX: Index = Index::MAX >> 2;

#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) hard_state: HardState,
    pub(crate) standing: Standing,
    pub(crate) marks: Marks,
    pub(crate) snapshot: Option<SnapshotMeta>,
    pub(crate) log_meta: LogMeta,
    /// From the first entry that is not purged on.
    pub(crate) locations: EntryLocations,
    /// The last entries.
    pub(crate) recent: Runs,
    /// How often entries that were there have gone, at either end, or have moved.
    pub(crate) changes: u64,
    /// The last purge. Of an anchored log the metadata begins after it.
    purged: LogId,
    anchored: bool,
    /// While it is not anchored: the entries before those of the metadata of which copies were
    /// found.
    early: Early,
    recorded_in: RecordedIn,
}

/// The segments of the records that have last told something.
#[derive(Debug, Default)]
struct RecordedIn {
    hard_state: Option<u32>,
    standing: Option<u32>,
    marks: Option<u32>,
    snapshot: Option<u32>,
    purge: Option<u32>,
}

impl Log {
    /// An empty log. `whole`: the store holds everything that was ever written to it.
    pub(crate) fn new(whole: bool) -> Self {
        Self {
            hard_state: HardState::default(),
            standing: Standing::default(),
            marks: Marks::default(),
            snapshot: None,
            log_meta: LogMeta::default(),
            locations: EntryLocations::default(),
            recent: Runs::default(),
            changes: 0,
            purged: LogId::ZERO,
            anchored: whole,
            early: Early::default(),
            recorded_in: RecordedIn::default(),
        }
    }

    /// Takes over that the group is out of use, if that is so.
    pub(crate) fn keep_spent(&mut self, removed: &Self) {
        if removed.standing == Standing::Spent {
            self.standing = Standing::Spent;
            // It may not stand anywhere yet.
            self.recorded_in.standing = removed.recorded_in.standing.or(Some(0));
        }
    }

    /// The index of the first entry in memory.
    pub(crate) fn first_recent(&self) -> Index {
        self.recent.first().unwrap_or(self.log_meta.last().index + 1)
    }

    pub(crate) fn location(&self, index: Index) -> Option<EntryLocation> {
        self.locations.get(self.number(index)?)
    }

    /// The segments that hold entries from this one on, each with the last of them.
    pub(crate) fn places_from(&self, first: Index) -> BTreeMap<u32, Index> {
        let purged = self.log_meta.purged().index;
        let first = first.max(purged + 1);
        let at = (first - purged - 1) as usize;
        let places = (first..).zip(self.locations.from(at));
        let somewhere = places.filter(|(_, location)| location.segment != NOWHERE);
        somewhere.map(|(index, location)| (location.segment, index)).collect()
    }

    /// Where in the locations that of this entry is, if it is there.
    pub(crate) fn number(&self, index: Index) -> Option<usize> {
        usize::try_from(index.checked_sub(self.log_meta.purged().index + 1)?).ok()
    }

    pub(crate) fn recovered(&self) -> Recovered {
        Recovered {
            hard_state: self.hard_state,
            standing: self.standing.clone(),
            marks: self.marks.clone(),
            snapshot: self.snapshot.clone(),
            log_meta: self.log_meta.clone(),
        }
    }

    /// Whether this purge is of an entry that the log does not hold, so that nothing is left of it.
    pub(crate) fn replaces(&self, to: LogId) -> bool {
        to.index > self.log_meta.purged().index && !self.log_meta.contains(to)
    }

    /// The write that tells of all but the entries again, if any of it was last told before this
    /// segment.
    pub(crate) fn state_before(&self, segment: u32) -> Option<LogWrite> {
        let RecordedIn { hard_state, standing, marks, snapshot, purge } = self.recorded_in;
        let recorded_in =
            [hard_state, standing, marks, snapshot, purge].into_iter().flatten().min()?;
        (recorded_in < segment).then(|| LogWrite {
            hard_state: hard_state.map(|_| self.hard_state),
            cluster: None,
            standing: standing.map(|_| Box::new(self.standing.clone())),
            marks: marks.map(|_| Box::new(self.marks.clone())),
            snapshot: self.snapshot.clone().map(Box::new),
            purge: purge.map(|_| self.purged),
            entries: Entries::default(),
        })
    }

    /// Notes a write whose record is at `at`. The entries don't get into memory. Gives the bytes of
    /// those that were let go from there.
    ///
    /// Errors: why it makes no sense after what was noted before. Then the log must not be used any
    /// more.
    pub(crate) fn note(
        &mut self,
        write: &LogWrite,
        replaces: bool,
        spans: &[Span],
        at: Position,
    ) -> Result<usize, String> {
        // What waits for a place is not told yet: what was told before still counts.
        let recorded_in = |before| at.is_somewhere().then_some(at.segment).or(before);
        check_readable(write)?;
        if let Some(new) = write.hard_state {
            let old = self.hard_state;
            let vote_kept = old.voted_for.is_none() || old.voted_for == new.voted_for;
            if new.term < old.term || new.term == old.term && !vote_kept {
                return Err(format!("the hard state goes back from {old:?} to {new:?}"));
            }
            self.hard_state = new;
            self.recorded_in.hard_state = recorded_in(self.recorded_in.hard_state);
        }
        if let Some(standing) = &write.standing {
            self.standing = (**standing).clone();
            self.recorded_in.standing = recorded_in(self.recorded_in.standing);
        }
        if let Some(marks) = &write.marks {
            self.marks = (**marks).clone();
            self.recorded_in.marks = recorded_in(self.recorded_in.marks);
        }
        if let Some(new) = &write.snapshot {
            let old = self.snapshot.as_ref().map_or(LogId::ZERO, |snapshot| snapshot.log_id);
            if new.log_id.index < old.index {
                return Err(format!("the snapshot goes back from {old} to {}", new.log_id));
            }
            self.snapshot = Some((**new).clone());
            self.recorded_in.snapshot = recorded_in(self.recorded_in.snapshot);
        }
        let mut released = 0;
        if let Some(to) = write.purge {
            released += self.purge(to, replaces)?;
            self.recorded_in.purge = recorded_in(self.recorded_in.purge);
        }
        Ok(released + self.add(&write.entries, spans, at)?)
    }

    fn purge(&mut self, to: LogId, replaces: bool) -> Result<usize, String> {
        let purged = self.log_meta.purged();
        if to.index > MAX_INDEX {
            return Err(format!("{to} is to be purged"));
        }
        // The other way round is sound: a purge that went ahead of entries which waited for space
        // may have found the very entry that they were to replace and bring back.
        if self.anchored && !replaces && self.replaces(to) {
            return Err(format!("{to} is to be purged as if the log did hold it"));
        }
        if to.index < self.purged.index || to == self.purged && self.anchored {
            return Ok(0); // As it is already.
        }
        if to.index == self.purged.index && to != self.purged {
            return Err(format!("{to} is to be purged after {}", self.purged));
        }
        self.early.purge(to, replaces)?;
        self.purged = to;
        if replaces {
            // One that is not anchored may seem to begin behind it.
            if !self.anchored || self.log_meta.contains(to) {
                self.log_meta = LogMeta::after(to);
            }
            self.anchored = true;
        } else if !self.anchored {
            if self.locations.is_empty() || to.index < purged.index {
                return Ok(0);
            }
            let next = self.log_meta.log_id(to.index + 1);
            if to.index > purged.index && !self.log_meta.contains(to)
                || next.is_some_and(|next| next.term < to.term)
            {
                return Err(format!("{to} is to be purged from a log that does not hold it"));
            }
            self.anchored = true;
        }
        self.changes += 1;
        self.log_meta.purge(to);
        self.locations.keep_last((self.log_meta.last().index - to.index) as usize);
        Ok(self.release_all_but(to.index + 1..self.log_meta.last().index + 1))
    }

    /// What was noted without a place stands at `at` now, with its entries where `spans` say.
    /// Entries that others have replaced, or that are purged, are none of this log's any more.
    pub(crate) fn placed(&mut self, write: &LogWrite, spans: &[Span], at: Position) {
        let parts = [
            (write.hard_state.is_some(), &mut self.recorded_in.hard_state),
            (write.standing.is_some(), &mut self.recorded_in.standing),
            (write.marks.is_some(), &mut self.recorded_in.marks),
            (write.snapshot.is_some(), &mut self.recorded_in.snapshot),
            (write.purge.is_some(), &mut self.recorded_in.purge),
        ];
        for (is_there, recorded_in) in parts {
            if is_there {
                *recorded_in = Some(at.segment);
            }
        }
        for (entry, span) in write.entries.iter().zip(spans) {
            self.set_location(entry.log_id, place_of(span, at));
        }
    }

    /// A write that was noted with a place has lost it. What it has told may be told again from
    /// anywhere; its entries are in memory.
    pub(crate) fn lose_place(&mut self, write: &LogWrite) {
        if write.standing.is_some() {
            // It may wait, while what was told before must not go.
            self.recorded_in.standing = Some(0);
        }
        for entry in &write.entries {
            let index = entry.log_id.index;
            if let Some(location) = self.location(index) {
                self.set_location(entry.log_id, EntryLocation { segment: NOWHERE, ..location });
            }
        }
    }

    fn set_location(&mut self, log_id: LogId, location: EntryLocation) {
        if self.log_meta.log_id(log_id.index) != Some(log_id) {
            return;
        }
        if let Some(at) = self.number(log_id.index) {
            self.locations.set(at, location);
        }
    }

    /// Notes that entries which the log holds stand at `at` as well, where `spans` say, and are to
    /// be read from there.
    ///
    /// Errors: the log does not hold them. Then it must not be used any more.
    pub(crate) fn note_copy(
        &mut self,
        entries: &Entries,
        spans: &[Span],
        at: Position,
    ) -> Result<(), String> {
        assert_eq!(entries.len(), spans.len());
        check_lengths(spans)?;
        for (entry, span) in entries.iter().zip(spans) {
            let (log_id, location) = (entry.log_id, place_of(span, at));
            let known = self.location(log_id.index);
            let is_early = !self.anchored
                && log_id.index > self.purged.index
                && (self.locations.is_empty() || log_id.index <= self.log_meta.purged().index);
            if is_early {
                self.early.add(entry, location)?;
            } else if known.is_some_and(|known| known.len == location.len)
                && self.log_meta.contains(log_id)
            {
                self.set_location(log_id, location);
            } else {
                return Err(format!("a copy of {log_id}, which the log does not hold"));
            }
        }
        Ok(())
    }

    /// The entry that stood at `from`, if it still counts, is to be read from `to`.
    pub(crate) fn moved(&mut self, index: Index, from: EntryLocation, to: EntryLocation) {
        if let Some(at) = self.number(index).filter(|at| self.locations.get(*at) == Some(from)) {
            self.locations.set(at, to);
        }
    }

    /// Whether nothing was ever told of it.
    pub(crate) fn is_vacant(&self) -> bool {
        let RecordedIn { hard_state, standing, marks, snapshot, purge } = self.recorded_in;
        let recorded_in = [hard_state, standing, marks, snapshot, purge];
        self.locations.is_empty() && recorded_in.iter().all(Option::is_none)
    }

    /// The snapshot's last entry, if the log does not reach it: the entries before it waited for
    /// space when the snapshot was taken, and were lost in a crash. The snapshot stands for them.
    pub(crate) fn unreached_snapshot(&self) -> Option<LogId> {
        let covered = self.snapshot.as_ref()?.log_id;
        let is_beyond = covered.index > self.log_meta.purged().index;
        (is_beyond && !self.log_meta.contains(covered)).then_some(covered)
    }

    /// Lets go of the entries in memory that are not in this range. Gives their bytes.
    fn release_all_but(&mut self, range: Range<Index>) -> usize {
        let before = self.recent.bytes();
        self.recent.keep(range);
        before - self.recent.bytes()
    }

    fn add(&mut self, entries: &Entries, spans: &[Span], at: Position) -> Result<usize, String> {
        assert_eq!(entries.len(), spans.len());
        let Some(first) = entries.first().map(|entry| entry.log_id.index) else { return Ok(0) };
        if first > MAX_INDEX {
            return Err(format!("an entry {first}"));
        }
        if first <= self.purged.index {
            return Err(format!("entry {first}, and {} is purged", self.purged));
        }
        let begins = self.locations.is_empty() || first <= self.log_meta.purged().index;
        self.early.truncate(first);
        if !self.anchored && begins {
            // Those before it, if there are any, stood in segments that were removed.
            self.anchored = first == self.purged.index + 1;
            let unknown = LogId { index: first - 1, ..LogId::ZERO };
            self.log_meta = LogMeta::after(if self.anchored { self.purged } else { unknown });
            self.locations.truncate(0);
        }
        let last = self.log_meta.last().index;
        if first > last + 1 {
            return Err(format!("a gap: entry {first} after {last}"));
        }
        let mut released = 0;
        if first <= last {
            let kept = 0..first;
            plant!(R12, kept = 0..Index::MAX);
            released = self.release_all_but(kept);
            self.log_meta.truncate(first);
            self.locations.truncate((first - self.log_meta.purged().index - 1) as usize);
            self.changes += 1;
        }
        check_lengths(spans)?;
        self.log_meta
            .try_extend(entries)
            .map_err(|wrong| format!("{wrong} after {}", self.log_meta.last()))?;
        self.locations.extend(spans.iter().map(|span| place_of(span, at)));
        Ok(released)
    }

    /// Everything has been noted that the store holds, and its first segments were removed: what is
    /// missing was purged.
    ///
    /// Errors: it was not, and where that shows.
    pub(crate) fn anchor(&mut self) -> Result<(), (String, EntryLocation)> {
        if self.anchored {
            return Ok(());
        }
        let (early, mut locations) = mem::take(&mut self.early).join(self.purged)?;
        if let Some(location) = self.locations.front() {
            let begin = self.log_meta.purged().index + 1;
            if begin != early.last().index + 1 {
                return Err((missing(begin, early.last(), self.purged), location));
            }
            let main = mem::replace(&mut self.log_meta, early);
            self.log_meta
                .try_join(main)
                .map_err(|wrong| (format!("{wrong} after {}", self.log_meta.last()), location))?;
            locations.extend(self.locations.from(0));
        } else {
            self.log_meta = early;
        }
        self.locations = locations;
        self.anchored = true;
        Ok(())
    }

    /// Errors: the snapshot does not cover what is purged.
    pub(crate) fn check_covered(&self) -> Result<(), String> {
        let covered = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.log_id.index);
        if self.purged.index > covered {
            return Err(format!("{} is purged, and the snapshot ends at {covered}", self.purged));
        }
        Ok(())
    }
}

/// Errors: an entry is longer than its place can tell.
fn check_lengths(spans: &[Span]) -> Result<(), String> {
    if spans.iter().any(|span| u32::try_from(span.len).is_err()) {
        return Err("an entry of 4 GiB".to_owned());
    }
    Ok(())
}

/// Where the entry of a record at `at` stands.
pub(crate) fn place_of(span: &Span, at: Position) -> EntryLocation {
    let (offset, len) = (at.offset + span.offset as u64, span.len as u32);
    EntryLocation { offset, segment: at.segment, len }
}

/// Errors: what could be written, and not be read again.
fn check_readable(write: &LogWrite) -> Result<(), String> {
    let is_none = |replica: &Replica| replica.id == 0 || !replica.is_known();
    if let Some(vote) = write.hard_state.and_then(|hard_state| hard_state.voted_for)
        && is_none(&vote)
    {
        return Err(format!("a vote for {vote:?}"));
    }
    if let Some(claim) = write.standing.as_deref().and_then(Standing::claim) {
        check_list(&claim.list.iter().map(|(id, at)| (*id, at.clone())).collect())?;
        if is_none(&claim.founder) {
            return Err(format!("a claim of {:?}", claim.founder));
        }
    }
    if let Some(Marks { memories, starts, .. }) = write.marks.as_deref()
        && (memories.len() > MAX_MEMORIES
            || memories.keys().any(is_none)
            || starts.len() > MAX_STARTS)
    {
        return Err("marks with too many memories or starts, or of no replica".to_owned());
    }
    if let Some(meta) = &write.snapshot
        && !(1..=meta.log_id.index).contains(&meta.membership_index)
    {
        let (at, of) = (meta.log_id, meta.membership_index);
        return Err(format!("a snapshot at {at} with a membership of {of}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
