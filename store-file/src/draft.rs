//! A snapshot in the making: a file that is written from front to back, and gets its header and its
//! name in the end.

use std::mem;
use std::path::PathBuf;
use std::rc::Rc;

use async_trait::async_trait;
use bytes::Bytes;
use crc32fast::Hasher;
use quorate_core::{GroupId, SnapshotDraft, SnapshotMeta, StoreError};
use quorate_rt::channel::oneshot;
use quorate_rt::{File, Files, OpenMode, Task};

use crate::segment::failed;
use crate::snapshots::{BLOCK_BYTES, SnapshotHeader, block_seed, place};
use crate::store::Shared;
use crate::trash::Garbage;

/// After so many bytes it is synced: the disk gets no more at once than takes it a fraction of a
/// second, behind which the log's syncs may wait, and the system does not fill its memory with what
/// is not yet written.
const SYNC_BYTES: u64 = 8 << 20;

pub(crate) struct Draft<R: Files> {
    unfinished: Unfinished<R>,
    group: GroupId,
    file: R::File,
    /// Of the content, so far.
    bytes: u64,
    synced: u64,
    /// Of the block that has begun.
    crc: Hasher,
    /// Why it is of no use any more. What has failed is not tried again: least of all a sync.
    failed: Option<StoreError>,
}

impl<R: Files> Draft<R> {
    pub(crate) async fn create(shared: &Rc<Shared<R>>, group: GroupId) -> Result<Self, StoreError> {
        let _lock = shared.lock()?;
        shared.verify_folder().await?;
        let path = shared.snapshots.draft_path();
        shared.snapshots.begin_draft(group);
        let unfinished = Unfinished { shared: Rc::clone(shared), group, path, renamed: false };
        let file = shared.segments.rt.open(&unfinished.path, OpenMode::CreateNew).await;
        let file = file.map_err(|error| failed("making", &unfinished.path, error))?;
        let crc = Hasher::new_with_initial(block_seed(shared.store, group, 0));
        Ok(Self { unfinished, group, file, bytes: 0, synced: 0, crc, failed: None })
    }

    /// The CRC of the block that ends here.
    fn end_block(&mut self) -> Bytes {
        let next = self.bytes.div_ceil(BLOCK_BYTES);
        let seed = block_seed(self.unfinished.shared.store, self.group, next);
        let crc = mem::replace(&mut self.crc, Hasher::new_with_initial(seed)).finalize();
        Bytes::copy_from_slice(&crc.to_le_bytes())
    }

    async fn append(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        // If this is given up halfway, it is not known what was written.
        self.failed = Some(StoreError::Abandoned);
        let appended = self.try_to_append(chunk).await;
        self.failed = appended.clone().err();
        appended
    }

    async fn try_to_append(&mut self, mut chunk: Bytes) -> Result<(), StoreError> {
        let _lock = self.unfinished.shared.lock()?;
        let at = place(self.bytes);
        let mut chunks = Vec::new();
        while !chunk.is_empty() {
            let room = BLOCK_BYTES - self.bytes % BLOCK_BYTES;
            let part = chunk.split_to(chunk.len().min(room as usize));
            self.crc.update(&part);
            self.bytes += part.len() as u64;
            chunks.push(part);
            if self.bytes.is_multiple_of(BLOCK_BYTES) {
                chunks.push(self.end_block());
            }
        }
        let path = &self.unfinished.path;
        let written = self.file.write_all_at(chunks, at).await;
        written.map_err(|error| failed("writing", path, error))?;
        if self.bytes - self.synced >= SYNC_BYTES {
            self.file.sync_data().await.map_err(|error| failed("syncing", path, error))?;
            self.synced = self.bytes;
        }
        Ok(())
    }

    async fn end(self, meta: &SnapshotMeta) -> Result<(), StoreError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        assert_eq!(
            self.bytes, meta.bytes,
            "the snapshot has another length than it is finished with"
        );
        let lock = self.unfinished.shared.lock()?;
        let rt = self.unfinished.shared.segments.rt.clone();
        let meta = meta.clone();
        let (sender, receiver) = oneshot::channel();
        // A rename that has begun ends, and is known of; until then the task holds the lock.
        let finishing = async move {
            let finished = self.complete(&meta).await;
            drop(lock);
            let _ = sender.send(finished); // Nobody waits for it where the draft was given up.
        };
        rt.spawn(finishing).detach();
        receiver.await.unwrap_or(Err(StoreError::Abandoned))
    }

    async fn complete(mut self, meta: &SnapshotMeta) -> Result<(), StoreError> {
        if !self.bytes.is_multiple_of(BLOCK_BYTES) {
            let (at, crc) = (place(self.bytes), self.end_block());
            let written = self.file.write_all_at(vec![crc], at).await;
            written.map_err(|error| failed("writing", &self.unfinished.path, error))?;
        }
        let Unfinished { shared, path, .. } = &self.unfinished;
        let header = SnapshotHeader::of(shared.store, self.group, meta).encode();
        let written = self.file.write_all_at(vec![header], 0).await;
        written.map_err(|error| failed("writing", path, error))?;
        self.file.sync_data().await.map_err(|error| failed("syncing", path, error))?;
        let finished = shared.snapshots.path(self.group, meta);
        shared.verify_folder().await?;
        let renamed = shared.segments.rt.rename(path, &finished).await;
        renamed.map_err(|error| failed("making", &finished, error))?;
        shared.snapshots.finished(self.group, meta);
        self.unfinished.renamed = true;
        Ok(())
    }
}

// (The bodies are not in here: what a macro has rewritten, coverage does not see.)
#[async_trait(?Send)]
impl<R: Files> SnapshotDraft for Draft<R> {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        self.append(chunk).await
    }

    /// Panics if the content has another length than `meta` says: a bug of the caller.
    async fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError> {
        self.end(meta).await
    }
}

/// The file of a draft: garbage when this is dropped, if it was not renamed before.
struct Unfinished<R: Files> {
    shared: Rc<Shared<R>>,
    group: GroupId,
    path: PathBuf,
    renamed: bool,
}

impl<R: Files> Drop for Unfinished<R> {
    fn drop(&mut self) {
        self.shared.snapshots.end_draft(self.group);
        if !self.renamed {
            self.shared.throw_away(Garbage::Snapshot(mem::take(&mut self.path)));
        }
    }
}
