//! Snapshots: writing one, and reading one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use quorate::{Executor, GroupId, SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError};
use redb::{Database, Durability, Error, ReadOnlyTable, ReadTransaction};

use crate::tables::{CHUNKS, SNAPSHOTS, encoded_meta, sealed, unsealed};
use crate::{caught, durably, transact};

/// How many snapshots of each group are in the making.
pub(crate) type Drafts = Rc<RefCell<BTreeMap<GroupId, usize>>>;

pub(crate) struct Draft<R: Executor> {
    rt: R,
    /// A draft may outlive its store, and must not keep the database open then.
    db: Weak<Database>,
    group: GroupId,
    number: u64,
    bytes: u64,
    drafts: Drafts,
    finished: bool,
}

impl<R: Executor> Draft<R> {
    pub(crate) fn new(rt: R, db: &Arc<Database>, group: GroupId, drafts: Drafts) -> Self {
        *drafts.borrow_mut().entry(group).or_default() += 1;
        let number = rt.random();
        Self { rt, db: Arc::downgrade(db), group, number, bytes: 0, drafts, finished: false }
    }
}

#[async_trait(?Send)]
impl<R: Executor> SnapshotDraft for Draft<R> {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        let db = self.db.upgrade().ok_or(StoreError::Abandoned)?;
        if !chunk.is_empty() {
            let key = (self.number, self.bytes);
            transact(&db, Durability::None, |tx| {
                tx.open_table(CHUNKS)?.insert(key, &sealed(key, &chunk)[..])?;
                Ok(())
            })?;
            self.bytes += chunk.len() as u64;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError> {
        let db = self.db.upgrade().ok_or(StoreError::Abandoned)?;
        let key = (self.group, meta.log_id.index, self.number);
        let meta = encoded_meta(self.group, meta);
        durably(&self.rt, &db, move |tx| {
            tx.open_table(SNAPSHOTS)?.insert(key, &meta[..])?;
            Ok(())
        })
        .await?;
        self.finished = true;
        Ok(())
    }
}

impl<R: Executor> Drop for Draft<R> {
    fn drop(&mut self) {
        *self.drafts.borrow_mut().entry(self.group).or_default() -= 1;
        if let Some(db) = self.db.upgrade().filter(|_| !self.finished) {
            let all = (self.number, 0)..=(self.number, u64::MAX);
            let _forgotten_by_the_next_opening = transact(&db, Durability::None, |tx| {
                Ok(tx.open_table(CHUNKS)?.retain_in(all, |_, _| false)?)
            });
        }
    }
}

/// The content of a finished snapshot, as it was when this was opened: redb keeps that.
pub(crate) struct Content {
    chunks: ReadOnlyTable<(u64, u64), &'static [u8]>,
    number: u64,
    end: u64,
}

impl Content {
    /// None where there is no such snapshot.
    pub(crate) fn open(
        tx: &ReadTransaction,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Option<Self>, Error> {
        let (index, encoded) = (meta.log_id.index, encoded_meta(group, meta));
        for row in tx.open_table(SNAPSHOTS)?.range((group, index, 0)..=(group, index, u64::MAX))? {
            let (key, of) = row?;
            if of.value() == encoded {
                let (_, _, number) = key.value();
                return Ok(Some(Self { chunks: tx.open_table(CHUNKS)?, number, end: meta.bytes }));
            }
        }
        Ok(None)
    }

    fn bytes(&self, offset: u64, max_bytes: usize) -> Result<Bytes, Error> {
        let before = self.chunks.range((self.number, 0)..=(self.number, offset))?.next_back();
        let begin = before.transpose()?.map_or(0, |(key, _)| key.value().1);
        let wanted = self.end.saturating_sub(offset).min(max_bytes as u64) as usize;
        let mut bytes = BytesMut::new();
        for row in self.chunks.range((self.number, begin)..=(self.number, u64::MAX))? {
            if bytes.len() == wanted {
                break;
            }
            let (key, chunk) = row?;
            let chunk = unsealed(key.value(), chunk.value())?;
            // Nothing is taken from a chunk that does not follow.
            let skip = (offset + bytes.len() as u64).checked_sub(key.value().1);
            let rest = skip.and_then(|skip| chunk.get(skip as usize..)).unwrap_or_default();
            bytes.extend_from_slice(&rest[..rest.len().min(wanted - bytes.len())]);
        }
        if bytes.len() < wanted {
            return Err(Error::Corrupted(format!("not all of snapshot {} is there", self.number)));
        }
        Ok(bytes.freeze())
    }
}

#[async_trait(?Send)]
impl SnapshotContent for Content {
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        caught(|| self.bytes(offset, max_bytes))
    }
}
