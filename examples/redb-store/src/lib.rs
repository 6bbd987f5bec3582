//! A log store of one's own, in a redb database. The suite in `tests/` checks it against the
//! contract of [`LogStore`].
//!
//! A write is a transaction that is not durable yet, so it can be read at once. A task then commits
//! an empty durable one on another thread, which makes durable all that came before it: two syncs
//! for many writes. redb has one writer at a time, so a write that comes during a sync holds up the
//! node for as long, which `FileStore` does not. A full disk is a failed one here, and ends the
//! node.
//!
//! Damage is an error, and no wrong content and no shorter log. Three things are needed for that:
//!
//! - redb looks at its checksums only after a crash. [`builder`] has it check them at each opening.
//! - If redb finds the last commit damaged, it goes back to the one before, and may do so only
//!   after a crash in the middle of the last one. After a commit in two phases it never does.
//! - Reads check nothing, and panic at some damage. So each value that an open store reads has a
//!   checksum of its own, and panics are caught.
//!
//! What is left is one bit of the file's first page, which says where the last commit is. redb does
//! not check that it is the right one.

mod snapshots;
mod tables;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use quorate::rt::channel::Signal;
use quorate::{
    Appended, ClusterId, Completion, Entries, Executor, GroupId, Identity, Index, LogStore,
    LogWrite, NodeId, Recovered, SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError,
};
use redb::{Builder, Database, Durability, Error, ReadableDatabase, WriteTransaction};

use crate::snapshots::{Content, Draft, Drafts};

/// The logs and snapshots of all groups of a node.
pub struct RedbStore<R: Executor> {
    rt: R,
    db: Arc<Database>,
    cluster: Cell<Option<ClusterId>>,
    open: RefCell<BTreeSet<GroupId>>,
    drafts: Drafts,
    writes: Rc<Writes>,
    /// Ends with the store.
    _syncs: R::Task<()>,
}

/// The writes that are not durable yet, and what is known of them already.
#[derive(Default)]
struct Writes {
    waiting: RefCell<Vec<(Completion, Result<(), StoreError>)>>,
    submitted: Signal,
    /// A store that has failed once stays failed.
    failed: RefCell<Option<StoreError>>,
}

impl<R: Executor> RedbStore<R> {
    /// Opens the database in this file, or creates it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where it is open already. The database is damaged, or another one of
    /// redb.
    pub fn open(rt: &R, path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let db = builder().create(path.as_ref()).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Locked(path.as_ref().into()),
            error => failed(error),
        })?;
        Self::with(rt, db)
    }

    /// Opens the store in this database, which a [`builder`] has opened and which holds nothing
    /// else.
    ///
    /// # Errors
    /// The database can't be written, or is another one of redb.
    pub fn with(rt: &R, db: Database) -> Result<Self, StoreError> {
        let (db, writes) = (Arc::new(db), Rc::<Writes>::default());
        transact(&db, Durability::Immediate, |tx| tables::prepare(tx, rt.random()))?;
        let syncs = rt.spawn(sync(rt.clone(), Arc::clone(&db), Rc::clone(&writes)));
        Ok(Self {
            rt: rt.clone(),
            db,
            cluster: Cell::default(),
            open: RefCell::default(),
            drafts: Drafts::default(),
            writes,
            _syncs: syncs,
        })
    }
}

/// Opens databases for stores: each time all of redb's checksums are checked.
#[must_use]
pub fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_check_integrity_on_open(true);
    builder
}

/// Makes durable what has been written, as long as the store is there.
async fn sync<R: Executor>(rt: R, db: Arc<Database>, writes: Rc<Writes>) {
    loop {
        writes.submitted.wait().await;
        let waiting = writes.waiting.take();
        let synced = durably(&rt, &db, |_| Ok(())).await;
        if let Err(error) = &synced {
            writes.failed.replace(Some(error.clone()));
        }
        for (done, written) in waiting {
            done.complete(written.and(synced.clone()));
        }
    }
}

/// Does all of this or nothing.
fn transact<T>(
    db: &Database,
    durability: Durability,
    change: impl FnOnce(&WriteTransaction) -> Result<T, Error>,
) -> Result<T, StoreError> {
    caught(|| {
        let mut tx = db.begin_write()?;
        tx.set_durability(durability)?;
        tx.set_two_phase_commit(true);
        let changed = change(&tx)?;
        tx.commit()?;
        Ok(changed)
    })
}

/// The same, durable when it returns, on another thread.
async fn durably<R: Executor, T: Send + 'static>(
    rt: &R,
    db: &Arc<Database>,
    change: impl FnOnce(&WriteTransaction) -> Result<T, Error> + Send + 'static,
) -> Result<T, StoreError> {
    let db = Arc::clone(db);
    let done = rt.spawn_blocking(move || transact(&db, Durability::Immediate, change)).await;
    done.unwrap_or_else(|error| Err(StoreError::io("a thread of redb", io::Error::other(error))))
}

/// A panic is an error: redb has one for some kinds of damage.
fn caught<T>(access: impl FnOnce() -> Result<T, Error>) -> Result<T, StoreError> {
    let outcome = panic::catch_unwind(AssertUnwindSafe(access));
    let panicked = |_| Err(Error::Corrupted("redb has panicked".to_owned()));
    outcome.unwrap_or_else(panicked).map_err(failed)
}

fn failed(error: impl Into<Error>) -> StoreError {
    StoreError::io("the redb database", io::Error::other(error.into()))
}

impl<R: Executor> LogStore for RedbStore<R> {
    async fn identify(&self, node: NodeId) -> Result<Identity, StoreError> {
        let started = durably(&self.rt, &self.db, move |tx| tables::start(tx, node)).await?;
        let place = || "the redb database".to_owned();
        let identity = started.map_err(|holds| StoreError::OtherNode {
            place: place(),
            holds,
            wanted: node,
        })?;
        self.cluster.set(identity.cluster);
        Ok(identity)
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.cluster.get()
    }

    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        if self.open.borrow().contains(&group) {
            return Err(StoreError::GroupInUse(group));
        }
        let recovered = caught(|| tables::recover(&self.db.begin_read()?, group))?;
        self.open.borrow_mut().insert(group);
        Ok(recovered)
    }

    fn release(&self, group: GroupId) {
        self.open.borrow_mut().remove(&group);
    }

    async fn remove(&self, group: GroupId) -> Result<(), StoreError> {
        let drafts = self.drafts.borrow().get(&group).copied().unwrap_or_default();
        if drafts > 0 || self.open.borrow().contains(&group) {
            return Err(StoreError::GroupInUse(group));
        }
        durably(&self.rt, &self.db, move |tx| tables::remove(tx, group)).await
    }

    fn append(&self, group: GroupId, write: LogWrite, done: Completion) -> Appended {
        let mut failed = self.writes.failed.borrow_mut();
        let written = match &*failed {
            Some(error) => Err(StoreError::Poisoned(Arc::new(error.clone()))),
            None => transact(&self.db, Durability::None, |tx| tables::apply(tx, group, &write)),
        };
        if let Err(error) = &written {
            failed.get_or_insert_with(|| error.clone());
        }
        self.cluster.set(write.cluster.or(self.cluster.get()));
        // Told later, by the task: never before this returns.
        self.writes.waiting.borrow_mut().push((done, written));
        self.writes.submitted.raise();
        Appended::Pending
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Entries, StoreError> {
        if range.is_empty() {
            return Ok(Entries::default());
        }
        // What is recent is in redb's cache. The rest is read from the disk, in this thread.
        let read = caught(|| tables::read(&self.db.begin_read()?, group, range, max_bytes))?;
        read.map(Entries::from).map_err(StoreError::Missing)
    }

    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        let draft = Draft::new(self.rt.clone(), &self.db, group, Rc::clone(&self.drafts));
        Ok(Box::new(draft))
    }

    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        let content = caught(|| Content::open(&self.db.begin_read()?, group, meta))?;
        Ok(Box::new(content.ok_or(StoreError::Missing(meta.log_id.index))?))
    }
}
