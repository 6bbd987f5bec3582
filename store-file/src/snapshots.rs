//! The files of snapshots: their format, which there are, and reading them.
//!
//! A finished snapshot is a file `snapshots/GROUP-INDEX-DIGEST.snapshot`, one in the making a file
//! `….tmp` beside it. A record of the log names the snapshot of a group; the others are finished
//! and not yet named, or not needed any more. An opening removes all that are not named.
//!
//! The file begins with a [`header`](crate::header). Its magic is `QUORSNAP`, and it has these
//! fields, all marked "refuse":
//!
//! | field | |
//! | --- | --- |
//! | 1 | the store's incarnation (8 bytes) |
//! | 2 | group (8) |
//! | 3 | the log id of the last entry that it covers: term, leader, index (24) |
//! | 4 | the length of the content (8) |
//! | 5 | the digest of the content (32) |
//!
//! The content follows, in blocks of 64 KiB (the last may be shorter), each with its CRC (4) behind
//! it, so that whatever part is read is verified, and neither a writer nor a reader keeps a table
//! that grows with it. The CRCs are CRC-32 (IEEE); a block's starts from the CRC of incarnation,
//! group and the block's number. A file that is shorter or longer than that is damaged. The
//! membership of a snapshot stands only in the log, with the rest of what it is of.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use quorate_core::codec::{DecodeError, Fields, REFUSE, put_field, put_log_id};
use quorate_core::{Digest, GroupId, LogId, SnapshotContent, SnapshotMeta, StoreError};
use quorate_rt::{File, Files, OpenMode};

use crate::format::crc;
use crate::header::{self, HEADER_BYTES, Refused, open_header, put_number};
use crate::segment::{failed, read_exact};

const MAGIC: &[u8; 8] = b"QUORSNAP";

const INCARNATION: u8 = REFUSE | 1;
const GROUP: u8 = REFUSE | 2;
const LOG_ID: u8 = REFUSE | 3;
const CONTENT_BYTES: u8 = REFUSE | 4;
const DIGEST: u8 = REFUSE | 5;

/// The content that has a CRC of its own: small beside what is read at once, so that little is read
/// in vain; large beside the CRC.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;
pub(crate) const CRC_BYTES: u64 = 4;

const FINISHED: &str = ".snapshot";
const DRAFT: &str = ".tmp";

/// Whether this is the name of a snapshot, or of one in the making.
pub(crate) fn is_file_name(name: &str) -> bool {
    name.ends_with(FINISHED) || name.ends_with(DRAFT)
}

/// Where in the file a byte of the content stands, or, behind the last one, what comes after it.
pub(crate) fn place(offset: u64) -> u64 {
    HEADER_BYTES + offset + offset / BLOCK_BYTES * CRC_BYTES
}

/// The length of the file.
fn file_bytes(content: u64) -> u64 {
    HEADER_BYTES + content + content.div_ceil(BLOCK_BYTES) * CRC_BYTES
}

/// The seed for the CRC of a block.
pub(crate) fn block_seed(store: u64, group: GroupId, number: u64) -> u32 {
    crc(0, [&store.to_le_bytes()[..], &group.to_le_bytes(), &number.to_le_bytes()])
}

/// What the header of a snapshot's file tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SnapshotHeader {
    /// The store's incarnation.
    store: u64,
    group: GroupId,
    log_id: LogId,
    bytes: u64,
    digest: Digest,
}

impl SnapshotHeader {
    pub(crate) fn of(store: u64, group: GroupId, meta: &SnapshotMeta) -> Self {
        let SnapshotMeta { log_id, bytes, digest, .. } = *meta;
        Self { store, group, log_id, bytes, digest }
    }

    pub(crate) fn encode(&self) -> Bytes {
        header::header(MAGIC, |fields| {
            put_number(fields, INCARNATION, self.store);
            put_number(fields, GROUP, self.group);
            put_field(fields, LOG_ID, |to| put_log_id(to, self.log_id));
            put_number(fields, CONTENT_BYTES, self.bytes);
            put_field(fields, DIGEST, |to| to.put_slice(&self.digest.0));
        })
    }

    fn take(mut fields: Fields) -> Result<Self, DecodeError> {
        let store = fields.number(INCARNATION)?;
        let group = fields.number(GROUP)?;
        let log_id = fields.log_id(LOG_ID)?;
        let bytes = fields.number(CONTENT_BYTES)?;
        let digest = Digest(fields.array(DIGEST)?);
        fields.finish()?;
        Ok(Self { store, group, log_id, bytes, digest })
    }

    /// Errors: why these bytes are not this header.
    fn check(&self, found: &Bytes) -> Result<(), Refused> {
        let found = Self::take(open_header(MAGIC, "snapshot", found)?)?;
        let reason = if found.store != self.store {
            "the snapshot of another store".to_owned()
        } else if found.group != self.group {
            format!("the snapshot of group {}", found.group)
        } else if found != *self {
            format!("another snapshot than the one at {}", self.log_id)
        } else {
            return Ok(());
        };
        Err(Refused::Damaged(reason))
    }
}

/// The directory of the snapshots.
pub(crate) struct Snapshots<R: Files> {
    rt: R,
    pub(crate) dir: PathBuf,
    /// Those that are finished: each group's, and later ones.
    finished: RefCell<BTreeMap<GroupId, Vec<SnapshotMeta>>>,
    /// How many drafts there were.
    drafts: Cell<u64>,
    /// How many there are of each group.
    drafting: RefCell<BTreeMap<GroupId, usize>>,
}

impl<R: Files> Snapshots<R> {
    pub(crate) fn new(rt: R, dir: PathBuf) -> Self {
        Self {
            rt,
            dir,
            finished: RefCell::default(),
            drafts: Cell::new(0),
            drafting: RefCell::default(),
        }
    }

    fn name(group: GroupId, meta: &SnapshotMeta) -> String {
        let mut digest = meta.digest.0;
        let [a, b, c, d, e, f, g, h, ..] = &mut digest;
        let digest = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        format!("{group}-{}-{digest:016x}{FINISHED}", meta.log_id.index)
    }

    pub(crate) fn path(&self, group: GroupId, meta: &SnapshotMeta) -> PathBuf {
        self.dir.join(Self::name(group, meta))
    }

    /// A name for a draft that no other one has.
    pub(crate) fn draft_path(&self) -> PathBuf {
        self.drafts.set(self.drafts.get() + 1);
        self.dir.join(format!("{}{DRAFT}", self.drafts.get()))
    }

    /// The finished ones and the drafts that are there; none where there is no directory.
    async fn list(&self) -> Result<Vec<String>, StoreError> {
        match self.rt.read_dir(&self.dir).await {
            Ok(mut names) => {
                names.retain(|name| is_file_name(name));
                Ok(names)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("listing", &self.dir, error)),
        }
    }

    /// Any finished one.
    pub(crate) async fn any(&self) -> Result<Option<PathBuf>, StoreError> {
        let names = self.list().await?;
        let name = names.iter().find(|name| name.ends_with(FINISHED));
        Ok(name.map(|name| self.dir.join(name)))
    }

    /// Takes stock at an opening: these are the snapshots that the log names. Gives all the other
    /// files.
    ///
    /// Errors: one of them is not there, or not whole as far as its header and length tell.
    pub(crate) async fn examine(
        &self,
        store: u64,
        named: impl Iterator<Item = (GroupId, &SnapshotMeta)>,
    ) -> Result<Vec<PathBuf>, StoreError> {
        let mut keep = BTreeSet::new();
        for (group, meta) in named {
            self.open_file(store, group, meta).await?;
            self.finished(group, meta);
            keep.insert(Self::name(group, meta));
        }
        let names = self.list().await?;
        let others = names.iter().filter(|name| !keep.contains(*name));
        Ok(others.map(|name| self.dir.join(name)).collect())
    }

    /// A draft of the group begins; [`end_draft`](Self::end_draft) ends it.
    pub(crate) fn begin_draft(&self, group: GroupId) {
        *self.drafting.borrow_mut().entry(group).or_default() += 1;
    }

    pub(crate) fn end_draft(&self, group: GroupId) {
        let mut drafting = self.drafting.borrow_mut();
        match drafting.get_mut(&group) {
            Some(drafts) if *drafts > 1 => *drafts -= 1,
            _ => drop(drafting.remove(&group)),
        }
    }

    pub(crate) fn is_drafting(&self, group: GroupId) -> bool {
        self.drafting.borrow().contains_key(&group)
    }

    /// Nothing is left of the group. Gives the files of its snapshots.
    pub(crate) fn forget(&self, group: GroupId) -> Vec<PathBuf> {
        let finished = self.finished.borrow_mut().remove(&group).unwrap_or_default();
        finished.iter().map(|one| self.path(group, one)).collect()
    }

    /// One has been finished.
    pub(crate) fn finished(&self, group: GroupId, meta: &SnapshotMeta) {
        let mut finished = self.finished.borrow_mut();
        let finished = finished.entry(group).or_default();
        finished.retain(|known| known != meta);
        finished.push(meta.clone());
    }

    pub(crate) fn is_finished(&self, group: GroupId, meta: &SnapshotMeta) -> bool {
        let finished = self.finished.borrow();
        finished.get(&group).is_some_and(|finished| finished.contains(meta))
    }

    /// This one becomes the group's. Gives the files of those that it supersedes.
    ///
    /// Panics if it isn't finished: a bug of the caller.
    pub(crate) fn supersede(&self, group: GroupId, meta: &SnapshotMeta) -> Vec<PathBuf> {
        assert!(self.is_finished(group, meta), "the snapshot at {} is not finished", meta.log_id);
        let mut finished = self.finished.borrow_mut();
        let all = finished.entry(group).or_default();
        let superseded = all.extract_if(.., |one| one.log_id.index < meta.log_id.index);
        superseded.map(|one| self.path(group, &one)).collect()
    }

    /// Opens one for reading.
    pub(crate) async fn open(
        &self,
        store: u64,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Content<R>, StoreError> {
        let missing = Err(StoreError::Missing(meta.log_id.index));
        if !self.is_finished(group, meta) {
            return missing;
        }
        match self.open_file(store, group, meta).await {
            // It may have been superseded in the meantime.
            Err(_) if !self.is_finished(group, meta) => missing,
            opened => opened,
        }
    }

    async fn open_file(
        &self,
        store: u64,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Content<R>, StoreError> {
        let path = self.path(group, meta);
        let damaged = |offset, reason: String| {
            Err(StoreError::Damaged { file: path.clone(), offset, reason: reason.into() })
        };
        let file = match self.rt.open(&path, OpenMode::Read).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return damaged(0, "the file is missing".to_owned());
            }
            Err(error) => return Err(failed("opening", &path, error)),
        };
        let header = read_exact(&file, &path, 0, HEADER_BYTES as usize).await?;
        let expected = SnapshotHeader::of(store, group, meta);
        expected.check(&header).map_err(|refused| refused.at(path.clone(), 0))?;
        let len = file.len().await.map_err(|error| failed("measuring", &path, error))?;
        let expected = file_bytes(meta.bytes);
        if len != expected {
            return damaged(len.min(expected), format!("{len} bytes where {expected} should be"));
        }
        Ok(Content { file, path, store, group, bytes: meta.bytes })
    }
}

/// An open snapshot.
pub(crate) struct Content<R: Files> {
    file: R::File,
    pub(crate) path: PathBuf,
    store: u64,
    group: GroupId,
    bytes: u64,
}

impl<R: Files> Content<R> {
    async fn read_verified(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        let end = offset.saturating_add(max_bytes as u64).min(self.bytes);
        if offset >= end {
            return Ok(Bytes::new());
        }
        // Whole blocks, since only these can be verified.
        let begin = offset / BLOCK_BYTES * BLOCK_BYTES;
        let whole = end.next_multiple_of(BLOCK_BYTES).min(self.bytes);
        let blocks = (whole - begin).div_ceil(BLOCK_BYTES);
        let len = (whole - begin + blocks * CRC_BYTES) as usize;
        let mut stored = read_exact(&self.file, &self.path, place(begin), len).await?;
        let mut content = BytesMut::new();
        for number in begin / BLOCK_BYTES..begin / BLOCK_BYTES + blocks {
            let at = number * BLOCK_BYTES;
            let block = stored.split_to(BLOCK_BYTES.min(self.bytes - at) as usize);
            let expected = stored.split_to(CRC_BYTES as usize);
            let seed = block_seed(self.store, self.group, number);
            if crc(seed, [&block[..]]).to_le_bytes()[..] != expected[..] {
                let (file, offset) = (self.path.clone(), place(at));
                let reason = format!("the CRC of block {number} does not match");
                return Err(StoreError::Damaged { file, offset, reason: reason.into() });
            }
            let wanted = offset.saturating_sub(at) as usize..(end - at).min(BLOCK_BYTES) as usize;
            let part = block.slice(wanted.start..wanted.end.min(block.len()));
            if blocks == 1 {
                return Ok(part); // Without a copy.
            }
            content.extend_from_slice(&part);
        }
        Ok(content.freeze())
    }
}

// (The body is not in here: what a macro has rewritten, coverage does not see.)
#[async_trait(?Send)]
impl<R: Files> SnapshotContent for Content<R> {
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        self.read_verified(offset, max_bytes).await
    }
}
