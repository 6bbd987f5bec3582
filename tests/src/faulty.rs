//! A store whose disk does what a test wants.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use quorate::{
    Completion, Entry, GroupId, Index, LogStore, LogWrite, MemStore, Payload, Recovered,
    SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError,
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
    FailsReads,
    PanicsInReads,
}

/// A log in memory with faults. A clone is the same store.
#[derive(Clone, Default)]
pub struct FaultyStore {
    log: MemStore,
    disk: Rc<Cell<Disk>>,
    waiting: Rc<RefCell<Vec<Completion>>>,
    read: Arc<AtomicUsize>,
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
    /// The disk does this from now on. What has waited for a hanging one becomes durable.
    pub fn set(&self, disk: Disk) {
        self.disk.set(disk);
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(|done| done.complete(Ok(())));
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
    async fn recover(&self, group: GroupId) -> Result<Recovered, StoreError> {
        self.log.recover(group).await
    }

    fn append(&self, group: GroupId, write: LogWrite, done: Completion) {
        match self.disk.get() {
            Disk::FailsWrites => done.complete(Err(failed("writing"))),
            Disk::ForgetsWrites => drop(done),
            Disk::Hangs => {
                self.log.append(group, write, Completion::new(|_| ()));
                self.waiting.borrow_mut().push(done);
            }
            Disk::Works | Disk::FailsReads | Disk::PanicsInReads => {
                self.log.append(group, write, done);
            }
        }
    }

    async fn read(
        &self,
        group: GroupId,
        range: Range<Index>,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        match self.disk.get() {
            Disk::FailsReads => Err(failed("reading")),
            Disk::PanicsInReads => panic!("the store panics"),
            _ => {
                let entries = self.log.read(group, range, max_bytes).await?;
                Ok(entries.into_iter().map(|entry| self.counted(entry)).collect())
            }
        }
    }

    async fn draft(&self, group: GroupId) -> Result<Box<dyn SnapshotDraft>, StoreError> {
        self.log.draft(group).await
    }

    async fn snapshot(
        &self,
        group: GroupId,
        meta: &SnapshotMeta,
    ) -> Result<Box<dyn SnapshotContent>, StoreError> {
        self.log.snapshot(group, meta).await
    }
}
