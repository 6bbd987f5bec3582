//! A store whose disk does what a test wants.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use quorate::rt::channel::watch;
use quorate::{
    Appended, Completion, Entries, Entry, GroupId, Identity, Index, LogStore, LogWrite, MemStore,
    NodeId, Payload, Recovered, SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError,
};

/// What becomes of what is handed to the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disk {
    #[default]
    Works,
    /// Each write fails.
    FailsWrites,
    /// Each write is forgotten, and so is whom to tell.
    ForgetsWrites,
    /// Writes wait until the disk does something else.
    Hangs,
    /// Writes of entries wait until the disk does something else, and are told so by
    /// [`tell_full`](FaultyStore::tell_full) or before the next write is completed.
    Full,
    FailsReads,
    PanicsInReads,
    /// No read gives an entry, nor an error.
    AnswersNothing,
    /// Each read begins an entry too early.
    ReadsTooEarly,
    /// Each read that begins now waits until it is [released](FaultyStore::release).
    HoldsReads,
    /// No snapshot can be begun.
    FailsDrafts,
    /// Nothing can be written to a snapshot.
    FailsChunks,
    /// No snapshot can be finished.
    FailsFinishes,
    PanicsInFinishes,
    /// No snapshot can be opened.
    FailsOpenings,
    /// Each snapshot is opened only when it is [released](FaultyStore::release).
    HoldsOpenings,
    /// No content of a snapshot can be read.
    FailsContents,
    /// The contents of snapshots are read with a wrong bit.
    SpoilsContents,
    /// The contents of snapshots end too early.
    CutsContents,
    /// Each snapshot that is begun now waits until it is [released](FaultyStore::release) before it
    /// takes anything.
    HoldsDrafts,
}

/// A log in memory with faults. A clone is the same store.
#[derive(Clone)]
pub struct FaultyStore {
    log: MemStore,
    disk: Rc<Cell<Disk>>,
    waiting: Rc<RefCell<Vec<Completion>>>,
    released: Rc<watch::Sender<Result<(), StoreError>>>,
    read: Arc<AtomicUsize>,
    drafts_begun: Rc<Cell<usize>>,
    open: Rc<Cell<usize>>,
    held: Rc<Cell<usize>>,
}

impl Default for FaultyStore {
    fn default() -> Self {
        Self {
            log: MemStore::default(),
            disk: Rc::default(),
            waiting: Rc::default(),
            released: Rc::new(watch::channel(Ok(())).0),
            read: Arc::default(),
            drafts_begun: Rc::default(),
            open: Rc::default(),
            held: Rc::default(),
        }
    }
}

/// Something that somebody has, counted.
struct Open(Rc<Cell<usize>>);

impl Open {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A command that was read from the log, counted for as long as somebody holds it.
struct Held {
    command: Bytes,
    read: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.command
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.read.fetch_sub(self.command.len(), Ordering::Relaxed);
    }
}

impl FaultyStore {
    /// The store as the next process would open it.
    pub fn reopen(&self) -> Self {
        Self { log: self.log.reopen(), ..self.clone() }
    }

    /// What it holds of a group, open or not.
    pub fn inspect(&self, group: GroupId) -> Recovered {
        self.log.inspect(group)
    }

    /// Over a log that may hold something already.
    pub fn over(log: MemStore) -> Self {
        Self { log, ..Self::default() }
    }

    /// The disk does this from now on. What has waited for a hanging one becomes durable.
    pub fn set(&self, disk: Disk) {
        self.disk.set(disk);
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(|done| done.complete(Ok(())));
    }

    /// Tells of all writes that wait that the disk is full.
    pub fn tell_full(&self) {
        self.waiting.borrow().iter().for_each(Completion::delayed);
    }

    /// How many writes wait for a disk that hangs or is full.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// What was held goes on.
    pub fn release(&self) {
        self.released.send_modify(|outcome| *outcome = Ok(()));
    }

    /// What was held, or has waited for a hanging disk, fails.
    pub fn fail_held(&self) {
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(|done| done.complete(Err(failed("writing"))));
        self.released.send_modify(|outcome| *outcome = Err(failed("waiting")));
    }

    /// How many snapshots were begun.
    pub fn drafts_begun(&self) -> usize {
        self.drafts_begun.get()
    }

    /// How many drafts and contents of snapshots somebody holds.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// How much is held.
    pub fn held(&self) -> usize {
        self.held.get()
    }

    /// Waits until what is held is released.
    fn wait(&self) -> impl Future<Output = Result<(), StoreError>> + use<> {
        let (mut released, held) = (self.released.subscribe(), Open::new(&self.held));
        async move {
            let _held = held;
            released.changed().await.expect("the store is there");
            Result::clone(&released.borrow())
        }
    }

    /// The bytes of commands that were read and that are still held by whoever has read them.
    pub fn read_bytes(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    fn counted(&self, mut entry: Entry) -> Entry {
        if let Payload::Command(command) = &mut entry.payload {
            let (held, read) = (command.clone(), Arc::clone(&self.read));
            read.fetch_add(held.len(), Ordering::Relaxed);
            *command = Bytes::from_owner(Held { command: held, read });
        }
        entry
    }
}

fn failed(what: &str) -> StoreError {
    StoreError::io(what, io::Error::other("the disk is broken"))
}

impl LogStore for FaultyStore {
    async fn identify(&self, node: NodeId) -> Result<Identity, StoreError> {
        self.log.identify(node).await
    }

    fn cluster(&self) -> Option<quorate::ClusterId> {
        self.log.cluster()
    }

    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        self.log.recover(group).await
    }

    fn release(&self, group: GroupId) {
        self.log.release(group);
    }

    async fn remove(&self, group: GroupId) -> Result<(), StoreError> {
        self.log.remove(group).await
    }

    fn append(&self, group: GroupId, write: LogWrite, done: Completion) -> Appended {
        match self.disk.get() {
            Disk::FailsWrites => done.complete(Err(failed("writing"))),
            Disk::ForgetsWrites => drop(done),
            Disk::Hangs => {
                let _its_own = self.log.append(group, write, Completion::new(|_| ()));
                self.waiting.borrow_mut().push(done);
            }
            Disk::Full => {
                self.tell_full();
                let waits = !write.entries.is_empty();
                let _its_own = self.log.append(group, write, Completion::new(|_| ()));
                match waits {
                    true => self.waiting.borrow_mut().push(done),
                    false => done.complete(Ok(())),
                }
            }
            _ => return self.log.append(group, write, done),
        }
        Appended::Pending
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Entries, StoreError> {
        if self.disk.get() == Disk::HoldsReads {
            self.wait().await?;
        }
        match self.disk.get() {
            Disk::FailsReads => Err(failed("reading")),
            Disk::PanicsInReads => panic!("the store panics"),
            Disk::AnswersNothing => Ok(Entries::default()),
            Disk::ReadsTooEarly => {
                self.log.read(group, range.start - 1..range.end, max_bytes).await
            }
            _ => {
                let entries = self.log.read(group, range, max_bytes).await?;
                Ok(entries.iter().map(|entry| self.counted(entry.clone())).collect())
            }
        }
    }

    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        self.drafts_begun.set(self.drafts_begun.get() + 1);
        if self.disk.get() == Disk::FailsDrafts {
            return Err(failed("beginning a snapshot"));
        }
        let held = (self.disk.get() == Disk::HoldsDrafts).then(|| Box::pin(self.wait()) as _);
        let (inner, disk) = (self.log.draft(group).await?, Rc::clone(&self.disk));
        Ok(Box::new(FaultyDraft { inner, disk, held, _open: Open::new(&self.open) }))
    }

    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        match self.disk.get() {
            Disk::FailsOpenings => return Err(failed("opening a snapshot")),
            Disk::HoldsOpenings => self.wait().await?,
            _ => {}
        }
        let (inner, disk) = (self.log.snapshot(group, meta).await?, Rc::clone(&self.disk));
        Ok(Box::new(FaultyContent { inner, disk, _open: Open::new(&self.open) }))
    }
}

type Wait = Pin<Box<dyn Future<Output = Result<(), StoreError>>>>;

struct FaultyDraft {
    inner: Box<dyn SnapshotDraft>,
    disk: Rc<Cell<Disk>>,
    held: Option<Wait>,
    _open: Open,
}

#[async_trait(?Send)]
impl SnapshotDraft for FaultyDraft {
    async fn write(&mut self, chunk: Bytes) -> Result<(), StoreError> {
        if let Some(held) = self.held.take() {
            held.await?;
        }
        match self.disk.get() {
            Disk::FailsChunks => Err(failed("writing a snapshot")),
            _ => self.inner.write(chunk).await,
        }
    }

    async fn finish(self: Box<Self>, meta: &SnapshotMeta) -> Result<(), StoreError> {
        match self.disk.get() {
            Disk::FailsFinishes => Err(failed("finishing a snapshot")),
            Disk::PanicsInFinishes => panic!("the store panics"),
            _ => self.inner.finish(meta).await,
        }
    }
}

struct FaultyContent {
    inner: Box<dyn SnapshotContent>,
    disk: Rc<Cell<Disk>>,
    _open: Open,
}

#[async_trait(?Send)]
impl SnapshotContent for FaultyContent {
    async fn read(&self, offset: u64, max_bytes: usize) -> Result<Bytes, StoreError> {
        match self.disk.get() {
            Disk::FailsContents => Err(failed("reading a snapshot")),
            Disk::SpoilsContents => {
                let mut chunk = self.inner.read(offset, max_bytes).await?.to_vec();
                *chunk.last_mut().expect("is not empty") ^= 1;
                Ok(chunk.into())
            }
            Disk::CutsContents => Ok(self.inner.read(offset, max_bytes).await?.split_to(1)),
            _ => self.inner.read(offset, max_bytes).await,
        }
    }
}
