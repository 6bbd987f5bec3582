//! What an opening does with the segments it finds: note every record, tell a torn tail from
//! damage, cut the former and refuse the latter. See the format's description for how they are told
//! apart.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use quorate_core::StoreError;
use quorate_core::plant;
use quorate_rt::{File, Files};
use tracing::info;

use crate::format::{ALIGNMENT, HEADER_BYTES, Position, SegmentHeader, record_seed};
use crate::index::Logs;
use crate::record::{
    Content, Decoded, RECORD_HEADER_BYTES, RecordHeader, SYNC_MARKER_BYTES, record_bytes,
};
use crate::segment::{Segments, failed};
use crate::waiting::RESERVE_BYTES;

/// A segment is read in pieces of this size, or of a larger record's: few enough that an opening is
/// not all waiting for threads.
const WINDOW_BYTES: u64 = 4 << 20;

/// What preallocated space reads as.
const ZEROS: [u8; 4096] = [0; 4096];

/// The log as an opening leaves it.
pub(crate) struct Found<F> {
    pub(crate) store: u64,
    /// The first segment.
    pub(crate) first: u32,
    /// The end of the last record.
    pub(crate) end: Position,
    /// Its segment.
    pub(crate) file: Rc<F>,
    /// The lengths that the segments were made with.
    pub(crate) lengths: BTreeMap<u32, u64>,
    /// Whether a sync marker stands there.
    pub(crate) sync_marker: bool,
}

impl<F> Found<F> {
    /// The length that the segment with the end was made with.
    pub(crate) fn room(&self) -> u64 {
        self.lengths.get(&self.end.segment).copied().expect("its header was read")
    }
}

/// Makes what was examined durable, so that there is nothing behind it but a sync marker, and
/// removes the segments that are not of the log: those after its end, and those before its begin.
pub(crate) async fn repair<R: Files>(
    segments: &Segments<R>,
    numbers: &[u32],
    Examined { store, first, tail, mut lengths, torn }: Examined,
) -> Result<Found<R::File>, StoreError> {
    // A name may have been visible, and not durable, when the last process died.
    segments.sync().await?;
    let end = tail.end;
    if torn.bytes > 0 {
        let file = segments.path(end.segment);
        let (offset, bytes) = (end.offset, torn.bytes);
        info!(file = %file.display(), offset, bytes, "cut a torn tail off the log");
    }
    // From the last one down, so that a crash leaves no gap in the numbers.
    for segment in numbers.iter().rev().filter(|segment| **segment > end.segment) {
        // One that was the reserve, and got no record before a crash, becomes that again: its space
        // may be all there is.
        let is_missing = segments.find_reserve().await?.is_none();
        if !(is_missing && segments.restore_reserve(*segment, RESERVE_BYTES).await?) {
            segments.remove(*segment).await?;
        }
    }
    let file = rewrite_tail(segments, tail, torn.end).await?;
    // The begin is durable now, if it was not before.
    for segment in numbers.iter().filter(|segment| **segment < first) {
        segments.remove(*segment).await?;
    }
    lengths.retain(|segment, _| *segment >= first);
    Ok(Found { store, first, end, file, lengths, sync_marker: tail.sync_marker })
}

/// What there is, before anything is done about it.
pub(crate) struct Examined {
    pub(crate) store: u64,
    /// The first segment that is needed.
    pub(crate) first: u32,
    pub(crate) tail: Tail,
    /// The lengths that the segments were made with, up to that with the tail.
    pub(crate) lengths: BTreeMap<u32, u64>,
    pub(crate) torn: Leftover,
}

/// Reads the segments with these numbers, of which there is at least one, into `logs`, and changes
/// nothing. Those before a gap are not read: they must be left over.
///
/// Errors: something is damaged that was durable once; `logs` holds what stands before that.
pub(crate) async fn examine<R: Files>(
    segments: &Segments<R>,
    numbers: &[u32],
    logs: &mut Logs,
) -> Result<Examined, StoreError> {
    let last = numbers.last().copied().unwrap_or(1);
    let pairs = numbers.windows(2).rev();
    let gap = pairs.into_iter().find_map(|pair| match pair {
        [before, after] if before + 1 < *after => Some(*after),
        _ => None,
    });
    let found_from = gap.or(numbers.first().copied()).unwrap_or(1);
    if found_from > 1 {
        logs.begin_unknown();
    }
    let mut reader = Reader::open(segments, found_from, None).await?;
    let store = reader.store;
    logs.incarnation = Some(store);
    let end = Position::first_in(found_from);
    // What the first record says of what was durable lies before it.
    let durable = Position { segment: 0, offset: 0 };
    let mut tail = Tail { first: 1, end, durable, sync_marker: false };
    let mut lengths = BTreeMap::new();
    loop {
        lengths.insert(reader.segment, reader.made_with);
        tail = note_records(&mut reader, tail, logs).await?;
        if tail.end.segment == last {
            break;
        }
        let first = Position::first_in(tail.end.segment + 1);
        let mut next = Reader::open(segments, first.segment, Some(store)).await?;
        match next.record(first.offset).await? {
            Some((record, _)) if record.durable == tail.end => reader = next,
            Some((record, _)) if record.durable < tail.end => {
                let reason = "does not follow on the segment before".to_owned();
                return Err(segments.damaged(first.segment, first.offset, reason));
            }
            // Nothing, or a sync marker of something that is missing here: look_behind will tell.
            _ => break,
        }
        // A sync marker at the end of a segment says nothing of the next one.
        let sync_marker = false;
        plant!(X7, sync_marker = tail.sync_marker);
        tail = Tail { end: first, sync_marker, ..tail };
    }
    let torn = look_behind(segments, store, tail, last).await?;
    plant!(
        D1,
        if torn.bytes > 0 {
            return Err(segments.damaged(tail.end.segment, tail.end.offset, "torn".to_owned()));
        }
    );
    let first = tail.first;
    if found_from > first {
        return Err(segments.damaged(found_from - 1, 0, "the file is missing".to_owned()));
    }
    logs.complete().map_err(|(reason, at)| {
        let at = at.unwrap_or(tail.end);
        segments.damaged(at.segment, at.offset, reason)
    })?;
    Ok(Examined { store, first, tail, lengths, torn })
}

#[derive(Clone, Copy)]
pub(crate) struct Tail {
    /// The first segment that is needed, as was told last.
    first: u32,
    /// The end of the last record.
    pub(crate) end: Position,
    /// How far the log is known to have been durable.
    durable: Position,
    /// Whether a sync marker stands at the end.
    pub(crate) sync_marker: bool,
}

impl Tail {
    /// Where in the last segment nothing should stand any more.
    fn rest(&self) -> u64 {
        self.end.offset + if self.sync_marker { SYNC_MARKER_BYTES } else { 0 }
    }
}

/// Notes the records of a segment, from `tail.end` on, if that is in it, up to the first that can't
/// be read.
async fn note_records<R: Files>(
    reader: &mut Reader<'_, R>,
    mut tail: Tail,
    logs: &mut Logs,
) -> Result<Tail, StoreError> {
    while let Some((record, content)) = reader.record(tail.end.offset).await? {
        let at = tail.end;
        let damaged = |reason| Err(reader.segments.damaged(at.segment, at.offset, reason));
        if record.durable < tail.durable || record.durable > at {
            return damaged(format!("the log can't have been durable up to {}", record.durable));
        }
        tail.durable = record.durable;
        plant!(
            X12,
            content = match content {
                Content::Copy(copied) => Content::Write(copied),
                content => content,
            }
        );
        match content {
            Content::SyncMarker => {
                if record.durable != at || record.body_bytes > 0 {
                    return damaged("a sync marker of something else".to_owned());
                }
                tail.sync_marker = true;
                break;
            }
            Content::Begin(first) => match u32::try_from(first) {
                Ok(first) if (tail.first..=at.segment).contains(&first) => tail.first = first,
                _ => return damaged(format!("the log can't begin at segment {first}")),
            },
            Content::Owner(owner) => {
                if let Err(reason) = logs.note_owner(owner, at) {
                    return damaged(reason);
                }
            }
            Content::Remove => logs.remove(record.group),
            Content::Skipped => {}
            Content::Copy(Decoded { write, spans, .. }) => {
                if let Err(reason) = logs.note_copy(record.group, &write.entries, &spans, at) {
                    return damaged(reason);
                }
            }
            Content::Write(Decoded { write, replaces, spans }) => {
                if let Err(reason) = logs.note(record.group, &write, replaces, &spans, at) {
                    return damaged(reason);
                }
            }
        }
        tail.end.offset += record_bytes(record.body_bytes);
    }
    Ok(tail)
}

/// What lies behind the last record.
pub(crate) struct Leftover {
    /// Bytes from the end of the log, and its sync marker, to the last one that is not zero, in all
    /// segments.
    pub(crate) bytes: u64,
    /// Where they end in the last record's segment.
    end: u64,
}

/// Searches what lies behind the end of the log.
///
/// Errors: a record there is evidence that the log was durable beyond that end, so it is damaged
/// there.
async fn look_behind<R: Files>(
    segments: &Segments<R>,
    store: u64,
    tail: Tail,
    last: u32,
) -> Result<Leftover, StoreError> {
    let end = tail.end;
    let mut leftover = Leftover { bytes: 0, end: tail.rest() };
    // Where a record must be missing if there was one beyond that.
    let mut missing = end;
    for segment in end.segment..=last {
        let mut reader = Reader::open(segments, segment, Some(store)).await?;
        let begin = if segment == end.segment { tail.rest() } else { HEADER_BYTES };
        let mut used_to = begin;
        let mut offset = begin;
        while offset < reader.len {
            let len = WINDOW_BYTES.min(reader.len - offset);
            let Some(window) = reader.bytes(offset, len).await? else { break };
            for page in window.chunks(ZEROS.len()) {
                // Nearly all of what is preallocated; and a comparison of a page costs as much as
                // one of a word.
                if page == &ZEROS[..page.len()] {
                    offset += page.len() as u64;
                    continue;
                }
                for word in page.chunks(ALIGNMENT as usize) {
                    // No record begins with zeros, but for one in 2^64.
                    if word.iter().any(|byte| *byte != 0) {
                        used_to = offset + word.len() as u64;
                        let durable = reader.evidence(offset, end).await?;
                        plant!(D2, durable = None);
                        if let Some(durable) = durable {
                            let at = if durable > missing { missing } else { end };
                            let evidence = segments.path(segment);
                            let evidence = evidence.display();
                            let reason = format!(
                                "no valid record, but the one at offset {offset} of {evidence} says that \
                                 the log was durable up to {durable}"
                            );
                            return Err(segments.damaged(at.segment, at.offset, reason));
                        }
                    }
                    offset += word.len() as u64;
                }
            }
        }
        leftover.bytes += used_to - begin;
        if leftover.bytes == 0 {
            missing = Position::first_in(segment + 1);
        }
        if segment == end.segment {
            leftover.end = used_to;
        }
    }
    Ok(leftover)
}

/// Makes the tail durable, and what is behind it, up to `leftover_end`, zero.
///
/// The last batch is written once more, not only synced: after a failed sync, its pages may look
/// clean without being on the disk (Rebello et al., ATC 2020), and a process that dies of it starts
/// again and lands here. Not so if it has a sync marker, which is written only after a sync that
/// worked.
async fn rewrite_tail<R: Files>(
    segments: &Segments<R>,
    tail: Tail,
    leftover_end: u64,
) -> Result<Rc<R::File>, StoreError> {
    let Position { segment, offset: end } = tail.end;
    let file = segments.file(segment).await?;
    let path = segments.path(segment);
    let is_synced = tail.sync_marker;
    plant!(X10, is_synced = true);
    let mut offset = match tail.durable {
        _ if is_synced => tail.rest(),
        durable if durable.segment == segment => durable.offset,
        _ => HEADER_BYTES,
    };
    let torn = leftover_end.saturating_sub(end).min(WINDOW_BYTES);
    let zeros = Bytes::from(vec![0; torn as usize]);
    while offset < leftover_end {
        let chunk = if offset < end {
            segments.read(segment, offset, WINDOW_BYTES.min(end - offset) as usize).await?
        } else {
            zeros.slice(..torn.min(leftover_end - offset) as usize)
        };
        let bytes = chunk.len() as u64;
        let written = file.write_all_at(vec![chunk], offset).await;
        written.map_err(|error| failed("repairing", &path, error))?;
        offset += bytes;
    }
    file.sync_data().await.map_err(|error| failed("syncing", &path, error))?;
    Ok(file)
}

/// Reads a segment from front to back.
struct Reader<'a, R: Files> {
    segments: &'a Segments<R>,
    store: u64,
    segment: u32,
    len: u64,
    /// The length that the segment was made with: it is no shorter now.
    made_with: u64,
    window: Bytes,
    window_at: u64,
}

impl<'a, R: Files> Reader<'a, R> {
    /// Opens a segment and checks its header and length, and that it belongs to `store`, if that is
    /// known yet.
    async fn open(
        segments: &'a Segments<R>,
        segment: u32,
        store: Option<u64>,
    ) -> Result<Self, StoreError> {
        let file = segments.file(segment).await?;
        let path = segments.path(segment);
        let len = file.len().await.map_err(|error| failed("measuring", &path, error))?;
        let window = Bytes::new();
        let mut reader =
            Self { segments, store: 0, segment, len, made_with: 0, window, window_at: 0 };
        let Some(header) = reader.bytes(0, HEADER_BYTES).await? else {
            return Err(segments.damaged(segment, len, "the file ends in its header".to_owned()));
        };
        let SegmentHeader { store: found, bytes } =
            SegmentHeader::decode(&header, segment).map_err(|refused| refused.at(path, 0))?;
        if store.is_some_and(|store| store != found) {
            let reason = "the segment of another store".to_owned();
            return Err(segments.damaged(segment, 0, reason));
        }
        let is_cut = len < bytes;
        plant!(D7, is_cut = false);
        if is_cut {
            let reason = format!("the file ends here, and was made with {bytes} bytes");
            return Err(segments.damaged(segment, len, reason));
        }
        reader.store = found;
        reader.made_with = bytes;
        Ok(reader)
    }

    /// The bytes there; none if the file ends before.
    async fn bytes(&mut self, offset: u64, len: u64) -> Result<Option<Bytes>, StoreError> {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.len) else {
            return Ok(None);
        };
        if offset < self.window_at || end > self.window_at + self.window.len() as u64 {
            let len = len.max(WINDOW_BYTES).min(self.len - offset);
            self.window = self.segments.read(self.segment, offset, len as usize).await?;
            self.window_at = offset;
        }
        let begin = (offset - self.window_at) as usize;
        Ok(Some(self.window.slice(begin..begin + len as usize)))
    }

    /// The header of a record that begins there, if one does; its body may still be torn.
    async fn record_header(&mut self, offset: u64) -> Result<Option<RecordHeader>, StoreError> {
        let header = self.bytes(offset, RECORD_HEADER_BYTES as u64).await?;
        let seed = record_seed(self.store, Position { segment: self.segment, offset });
        Ok(header.and_then(|header| RecordHeader::decode(header.first_chunk()?, seed)))
    }

    /// How far the log was durable, if a whole record begins there and says that it was beyond
    /// `end`.
    async fn evidence(
        &mut self,
        offset: u64,
        end: Position,
    ) -> Result<Option<Position>, StoreError> {
        let header = self.record_header(offset).await?;
        match header.filter(|record| record.durable > end) {
            Some(record) => Ok(self.record(offset).await?.map(|_| record.durable)),
            None => Ok(None),
        }
    }

    /// The record that begins there, if a whole one does.
    ///
    /// Errors: it makes no sense.
    async fn record(&mut self, offset: u64) -> Result<Option<(RecordHeader, Content)>, StoreError> {
        let Some(record) = self.record_header(offset).await? else { return Ok(None) };
        let body = self.bytes(offset + RECORD_HEADER_BYTES as u64, record.body_bytes).await?;
        // What fills it up belongs to it: the next one begins behind that.
        let whole = body.filter(|_| offset + record_bytes(record.body_bytes) <= self.len);
        let Some(body) = whole else { return Ok(None) };
        let seed = record_seed(self.store, Position { segment: self.segment, offset });
        let content = record
            .content(self.store, body, seed)
            .map_err(|refused| refused.at(self.segments.path(self.segment), offset))?;
        Ok(content.map(|content| (record, content)))
    }
}
