//! The format of a store on disk: version 3.
//!
//! A store is a folder with the files of its log in `wal`, those of its
//! [`snapshots`](crate::snapshots), and the file `LOCK`, whose content means nothing once the store
//! is closed (see [`folder`](crate::folder)). All numbers are little-endian, and each other file
//! begins with a [`header`](crate::header).
//!
//! # Versions
//!
//! Records, headers and what they hold consist of tagged fields (see
//! `quorate_core::codec::fields`). A field and a kind of record that a reader does not know is
//! skipped or refused, as its tag says; it is never taken for a torn tail. So the format grows
//! without a new version, and a new one is for another layout only. A store of any version from 3
//! on is opened by all later builds, which upgrade it in place: `tests/data` holds a folder of each
//! version. A store of version 2 is refused with the advice what to do. A build from before a kind
//! of record was introduced, such as the removal, refuses a store that has one.
//!
//! # Segments
//!
//! The log is a sequence of segments, the files `wal/0000000000000001.wal` and on, numbered without
//! a gap (16 decimal digits). Each is preallocated, so that what has not been written yet is zeros.
//! A record that is larger than a segment is alone in one that is made of its size, so no record
//! stands behind the length that a segment was made with. The header of a segment, whose magic is
//! `QUORWAL` and a zero, has these fields:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the segment's number (8 bytes) |
//! | 2 | the store's incarnation: random, not 0, the same in all files of the store (8) |
//! | 3 | the length in bytes that the segment was made with (8) |
//!
//! A segment that is shorter than it was made is damaged where it ends: no crash shortens a file,
//! and its end may have held acknowledged writes. It may be longer, by a sync marker (see below).
//!
//! # Records
//!
//! The records follow the header, each filled up with zeros to a multiple of 8 bytes:
//!
//! | offset | bytes | |
//! | --- | --- | --- |
//! | 0 | 4 | CRC of the header's bytes 4 to 40 |
//! | 4 | 4 | CRC of the body; of a write's entries only their CRCs are in it |
//! | 8 | 8 | the body's length |
//! | 16 | 8 | group; 0 where a record is of none |
//! | 24 | 8 | the log was durable up to here when this was written: offset |
//! | 32 | 4 | and segment |
//! | 36 | 4 | kind |
//! | 40 | | the body |
//!
//! The top bit of a kind tells a reader that does not know it what to do, like that of a field:
//! set, refuse the log; clear, skip the record.
//!
//! | kind | | body |
//! | --- | --- | --- |
//! | 1, refuse | a write of a group | see below |
//! | 2, refuse | a sync marker (see "The tail") | empty |
//! | 3, refuse | a begin (see "The begin") | field 1, refuse: the number of a segment (8 bytes) |
//! | 4, refuse | an owner: whose store it is from now on | fields, see below |
//! | 5, refuse | a removal: nothing that was told of the group before is left of it | empty |
//! | 6, refuse | a copy of entries (see "Copies") | that of a write without fields, with entries |
//!
//! The body of a write is the length of its fields (4), the fields, and its entries, to the end of
//! the body: for each its CRC (4) and the entry. All parts of a write, and all entries, have the
//! form of `quorate_core::codec`. The fields are marked "refuse", and are missing where the write
//! does not have that part:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the hard state |
//! | 2 | the cluster that the store belongs to (16 bytes) |
//! | 3 | what the group has promised: its standing |
//! | 4 | the marks |
//! | 5 | the group's snapshot from now on: what it is of |
//! | 6 | the log id of the last entry that is purged, which the log held |
//! | 7 | the same, of an entry that the log did not hold: nothing is left of the log; never beside 6 |
//!
//! An owner has these fields, all marked "refuse". Each start of a node writes one:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the node that the store is bound to (8 bytes); missing before the first start |
//! | 2 | how many times a node has started on it (8) |
//! | 3 | the cluster that the store belongs to (16); missing before it belongs to one |
//!
//! # The begin
//!
//! Segments in which nothing is needed any more are removed. Before that, what was last told in one
//! of them is told again: of each group its hard state, standing, marks, snapshot and purge, and of
//! the store its owner. Then a begin tells which is the first segment that is needed; and only when
//! all that is durable, those before it go. So the segments that are there are numbered without a
//! gap from one on that is not behind the last begin told, or from 1 where none is: otherwise a
//! file is missing. (Those before the begin, with or without gaps, are left over from a crash.)
//! Where a crash has kept a purge, and not the begin after it, the next opening tells the begin.
//!
//! What stands in the segments from there on refers to entries that are gone with those before. A
//! group's log then begins with the first entry that is found of it, until it is known where: by a
//! purge of the entry before that, or of a later one. A group whose entries do not follow on its
//! last purge misses some.
//!
//! # Copies
//!
//! So that a segment can be removed in which entries are still needed, these are copied to the end
//! of the log (see [`cleaning`](crate::cleaning)). A copy says: the log of this group, as it is by
//! what stands before, holds these entries; from now on they are read from here. It changes nothing
//! of the log, and says nothing of what follows on its entries. So it is no matter whether a crash
//! comes before the segment is removed, or in the middle of copying: each entry stands where it
//! stood, or at its copy as well. The segment goes when its last copy is durable, and the begin
//! behind that.
//!
//! A copy of what the log does not hold makes no sense: of an entry that is purged, beyond the end,
//! or another one than was written with its index. But where the first segments were removed, what
//! was copied may not be there any more. The writes of a group that are found are the end of its
//! log without a gap: from the first of them on, none is missing. Copies may be of entries before
//! that, in any order and with gaps, as one segment after the other was cleaned; and like written
//! ones they are gone when a later write truncates the log before them. In the end they must reach
//! from the last purge to the first write, without a gap.
//!
//! # Removals
//!
//! A removal is not told again: before its segment goes, all those go that hold something of the
//! group from before it.
//!
//! # A full disk
//!
//! The file `wal/reserve` is space for what must be written while the disk is full (see
//! [`waiting`](crate::waiting)): allocated, and without meaning. When it is needed it gets a header
//! with its own length and is renamed to the next segment. An opening that does not find it makes
//! it; builds from before it was introduced ignore it.
//!
//! While entries wait for space, the rest of what a group writes goes ahead of them. So two things
//! can stand in a log that no order of writes explains, and mean this:
//!
//! - The purge of field 7 may be of an entry that the log does hold. Nothing is left of the log all
//!   the same: it was to be replaced by entries that were purged before they were written.
//! - A group's log may end before its snapshot does. The entries in between waited and were lost in
//!   a crash. The snapshot stands for them, so the opening tells a purge (field 7) of all that it
//!   covers.
//!
//! # Checksums
//!
//! All CRCs are CRC-32 (IEEE). Those of a record start from a seed, the CRC of incarnation, segment
//! and the record's offset: bytes that are left over from another store, another segment or another
//! place are no record. An entry has a CRC of its own so that it can be read alone; its seed is the
//! CRC of incarnation and group. In the CRC of the body that one stands for the entry, so that each
//! byte is summed once; a record is whole where both match.
//!
//! # The tail
//!
//! Records are written in batches, each with one write into one segment and one sync, the next only
//! after the last one's sync. Every record says how far the log was durable when it was written,
//! which is the end of the batch before. So where a record can't be read, it was either never
//! durable (a torn tail, nobody was told that it is stored), or a later record testifies that it
//! once was: then it is damage. A segment gets its first record only after the one before is
//! durable to its last record. What lies behind the tail is zeroed before the log goes on, so that
//! nothing of a torn batch can follow on new records.
//!
//! The last batch of all has no later record that testifies of it. So when nothing has followed on
//! a batch for a while, or the store is closed, a sync marker is written behind it, after its sync,
//! and is not synced itself: a process that ends leaves it in the system's memory, and a system
//! that shuts down, or goes on for a few seconds, on the disk. It says that the log is durable up
//! to its own place, and is no part of the log: the next record takes its place, or stands at the
//! begin of the next segment.
//!
//! What can't be told apart, and counts as a torn tail: damage in the last batch of all, if there
//! is no sync marker of it. That takes a crash of the system within seconds of the last batch (or
//! of the process within milliseconds of it, or while the next one is written over the sync marker)
//! and a disk that loses, of its own, just what it has reported as synced; or damage that also
//! takes the sync marker, such as a block of zeros in the place of both.

use std::fmt;

use bytes::Bytes;
use crc32fast::Hasher;
use quorate_core::GroupId;
use quorate_core::codec::{DecodeError, Fields, REFUSE};

pub(crate) use crate::header::HEADER_BYTES;
use crate::header::{Refused, header, open_header, put_number};

/// Every record begins at a multiple of this.
pub(crate) const ALIGNMENT: u64 = 8;

const MAGIC: &[u8; 8] = b"QUORWAL\0";

const NUMBER: u8 = REFUSE | 1;
const INCARNATION: u8 = REFUSE | 2;
const MADE_WITH: u8 = REFUSE | 3;

/// Where a record stands that has no place yet: behind all that has one.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// A place in the log. Ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl Position {
    /// Stands for what waits for a place, by a number of its own.
    pub(crate) fn nowhere(number: u64) -> Self {
        Self { segment: NOWHERE, offset: number }
    }

    /// Whether this is a place on the disk.
    pub(crate) fn is_somewhere(self) -> bool {
        self.segment != NOWHERE
    }

    /// Of the first record of a segment.
    pub(crate) fn first_in(segment: u32) -> Self {
        Self { segment, offset: HEADER_BYTES }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of segment {}", self.offset, self.segment)
    }
}

/// What the header of a segment tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The store's incarnation.
    pub(crate) store: u64,
    /// The length that the segment was made with.
    pub(crate) bytes: u64,
}

impl SegmentHeader {
    /// The header of the segment with this number.
    pub(crate) fn encode(&self, segment: u32) -> Bytes {
        header(MAGIC, |fields| {
            put_number(fields, NUMBER, segment.into());
            put_number(fields, INCARNATION, self.store);
            put_number(fields, MADE_WITH, self.bytes);
        })
    }

    /// Takes the header of the segment with this number.
    pub(crate) fn decode(header: &Bytes, segment: u32) -> Result<Self, Refused> {
        if is_of_version_2(header) {
            return Err(Refused::Unsupported(VERSION_2.to_owned()));
        }
        let fields = open_header(MAGIC, "segment of a log", header)?;
        let (number, found) = Self::take(fields)?;
        if number != u64::from(segment) {
            return Err(Refused::Damaged(format!("the header is that of segment {number}")));
        }
        if found.store == 0 {
            return Err(Refused::damaged("the store's incarnation is 0"));
        }
        Ok(found)
    }

    fn take(mut fields: Fields) -> Result<(u64, Self), DecodeError> {
        let number = fields.number(NUMBER)?;
        let store = fields.number(INCARNATION)?;
        let bytes = fields.number(MADE_WITH)?;
        fields.finish()?;
        Ok((number, Self { store, bytes }))
    }
}

const VERSION_2: &str = "format version 2, and this build reads version 3: keep this folder, \
     start the node with an empty one and let the cluster bring it up to date, one node at a time; \
     or export the data with the build that wrote them";

/// Versions before 3 had no fields, and their CRC elsewhere.
fn is_of_version_2(header: &[u8]) -> bool {
    let summed = header.get(..24).map(|begin| crc(0, [begin]).to_le_bytes());
    header.starts_with(MAGIC)
        && header.get(8..12) == Some(&2u32.to_le_bytes())
        && header.get(24..28) == summed.as_ref().map(|value| &value[..])
}

/// The seed for a record at this place.
pub(crate) fn record_seed(store: u64, at: Position) -> u32 {
    let mut place = [0; 20]; // At once: every record has one.
    place[..8].copy_from_slice(&store.to_le_bytes());
    place[8..12].copy_from_slice(&at.segment.to_le_bytes());
    place[12..].copy_from_slice(&at.offset.to_le_bytes());
    crc(0, [&place[..]])
}

/// Computes the CRC of an entry of a group. What has the right seed is made once for many: it asks
/// for the features of the processor.
#[derive(Debug)]
pub(crate) struct EntryCrc {
    pub(crate) group: GroupId,
    seeded: Hasher,
}

impl EntryCrc {
    pub(crate) fn new(store: u64, group: GroupId) -> Self {
        let seed = crc(0, [&store.to_le_bytes()[..], &group.to_le_bytes()]);
        Self { group, seeded: Hasher::new_with_initial(seed) }
    }

    pub(crate) fn of<'a>(&self, chunks: impl IntoIterator<Item = &'a [u8]>) -> u32 {
        continued(self.seeded.clone(), chunks)
    }
}

pub(crate) fn crc<'a>(seed: u32, chunks: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    continued(Hasher::new_with_initial(seed), chunks)
}

fn continued<'a>(mut hasher: Hasher, chunks: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    chunks.into_iter().for_each(|chunk| hasher.update(chunk));
    hasher.finalize()
}

#[cfg(test)]
mod tests;
