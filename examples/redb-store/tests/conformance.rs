//! The suite of Quorate, which checks the contract of a log store, on this one: in a file, and on a
//! disk in memory that loses what was not synced, fails writes and syncs, and flips bits.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use std::{io, mem};

use quorate::conformance::log_store::StoreFactory;
use quorate::conformance::log_store_suite;
use quorate::{Executor, Launch, StoreError, Tokio};
use redb::StorageBackend;
use redb_store::RedbStore;

/// A file in a folder of its own.
struct File(tempfile::TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }
}

impl StoreFactory<Tokio> for File {
    type Store = RedbStore<Tokio>;

    async fn open(&self, rt: &Tokio) -> RedbStore<Tokio> {
        loop {
            match RedbStore::open(rt, self.0.path().join("store.redb")) {
                // The store before has been dropped, and its thread may still be syncing.
                Err(StoreError::Locked(_)) => rt.sleep(Duration::from_millis(1)).await,
                opened => return opened.expect("the store opens"),
            }
        }
    }

    async fn lose_power(&self, _: &Tokio) -> bool {
        false // A file can't. The disk below can.
    }
}

/// What is on a disk: now, and after a loss of power.
#[derive(Debug, Default)]
struct Disk {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What the next sync makes durable. After a failed one it is what is written from then on.
    dirty: Vec<Range<usize>>,
    /// How often it was opened. Whoever opened it before can't write any more.
    opened: u64,
    fail_next_write: bool,
    fail_next_sync: bool,
}

#[derive(Default)]
struct Memory(Arc<Mutex<Disk>>);

impl Memory {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no holder panics")
    }
}

#[derive(Debug)]
struct Opened {
    disk: Arc<Mutex<Disk>>,
    number: u64,
}

impl Opened {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock().expect("no holder panics");
        match disk.opened == self.number {
            true => Ok(disk),
            false => Err(io::Error::other("the power is gone")),
        }
    }
}

impl StorageBackend for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk()?.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (disk, begin) = (self.disk()?, offset as usize);
        let end = begin.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(disk.now.get(begin..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk()?.now.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let disk = &mut *self.disk()?;
        let dirty = mem::take(&mut disk.dirty);
        if mem::take(&mut disk.fail_next_sync) {
            return Err(io::Error::other("a failed sync"));
        }
        disk.synced.resize(disk.now.len(), 0);
        for range in dirty {
            let end = range.end.min(disk.now.len());
            let range = range.start.min(end)..end;
            disk.synced[range.clone()].copy_from_slice(&disk.now[range]);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (disk, begin) = (&mut *self.disk()?, offset as usize);
        if mem::take(&mut disk.fail_next_write) {
            return Err(io::Error::other("a failed write"));
        }
        let range = begin..begin + data.len();
        disk.now[range.clone()].copy_from_slice(data);
        disk.dirty.push(range);
        Ok(())
    }
}

impl StoreFactory<Tokio> for Memory {
    type Store = RedbStore<Tokio>;

    async fn open(&self, rt: &Tokio) -> RedbStore<Tokio> {
        self.try_open(rt).await.expect("the store opens")
    }

    async fn try_open(&self, rt: &Tokio) -> Result<RedbStore<Tokio>, StoreError> {
        let number = {
            let mut disk = self.disk();
            disk.opened += 1;
            disk.opened
        };
        let opened = Opened { disk: Arc::clone(&self.0), number };
        // So small a cache that an open store reads what the disk has become. Without any, redb
        // writes pages early, and tries again later if that fails.
        let db = redb_store::builder().set_cache_size(64 << 10).create_with_backend(opened);
        let failed = |error| StoreError::io("the disk", io::Error::other(error));
        RedbStore::with(rt, db.map_err(failed)?)
    }

    async fn lose_power(&self, _: &Tokio) -> bool {
        let disk = &mut *self.disk();
        disk.opened += 1;
        disk.now.clone_from(&disk.synced);
        true
    }

    fn fail_next_write(&self) -> bool {
        self.disk().fail_next_write = true;
        true
    }

    fn fail_next_sync(&self) -> bool {
        self.disk().fail_next_sync = true;
        true
    }

    fn flip_bit(&self, at: u64) -> bool {
        let disk = &mut *self.disk();
        // Zeros are free pages, for the most part.
        let used: Vec<_> = (0..disk.synced.len()).filter(|at| disk.synced[*at] != 0).collect();
        let place = used[(at / 8) as usize % used.len()];
        for content in [&mut disk.now, &mut disk.synced] {
            content[place] ^= 1 << (at % 8);
        }
        true
    }
}

log_store_suite!(file, Tokio, Launch::default(), File::new());
log_store_suite!(memory, Tokio, Launch::default(), Memory::default());
