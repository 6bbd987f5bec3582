//! The suites of `quorate-core`, on what the tests of clusters use: where that itself were wrong,
//! they would prove nothing.

use std::cell::RefCell;
use std::future::pending;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use quorate::rt::Task;
use quorate::sim::{Disk, DiskImage, Generator, Sim};
use quorate::{Executor, FileConfig, FileStore, Launch, StoreError, Tokio};
use quorate_core::conformance::log_store::StoreFactory;
use quorate_core::conformance::state_machine::MachineFactory;
use quorate_core::{log_store_suite, state_machine_suite};
use quorate_tests::{FaultyStore, Journal};

/// With a disk that works.
#[derive(Default)]
struct Stores(FaultyStore);

impl StoreFactory<Tokio> for Stores {
    type Store = FaultyStore;

    async fn open(&self, _rt: &Tokio) -> FaultyStore {
        self.0.reopen()
    }

    /// What is durable in memory can't be lost.
    async fn lose_power(&self, _rt: &Tokio) -> bool {
        false
    }
}

log_store_suite!(faulty_store, Tokio, Launch::default(), Stores::default());

/// Files on a simulated disk, which loses any of the sectors that were not synced, and can be
/// filled.
struct Simulated {
    dir: PathBuf,
    disk: RefCell<Option<Disk>>,
    /// What the disk of the runtime before held in the end.
    kept: Rc<RefCell<DiskImage>>,
}

impl Simulated {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = format!("/store-{}", NEXT.fetch_add(1, Relaxed)).into();
        Self { dir, disk: RefCell::default(), kept: Rc::default() }
    }

    fn disk(&self) -> Disk {
        self.disk.borrow().clone().expect("a store was opened")
    }
}

/// Keeps what a disk holds when its runtime ends.
struct Keeper(Disk, Rc<RefCell<DiskImage>>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.1.replace(self.0.durable());
    }
}

/// Many segments, and every read from the disk.
const SMALL: FileConfig =
    FileConfig { segment_bytes: 16 << 10, cache_bytes: 0, max_batch_bytes: 8 << 10 };

impl StoreFactory<Sim> for Simulated {
    type Store = FileStore<Sim>;

    async fn open(&self, rt: &Sim) -> FileStore<Sim> {
        self.try_open(rt).await.expect("the store opens")
    }

    async fn try_open(&self, rt: &Sim) -> Result<FileStore<Sim>, StoreError> {
        let disk = rt.host().disk();
        let is_new = !disk.files().iter().any(|file| file.starts_with(&self.dir));
        if is_new && self.disk.replace(Some(disk.clone())).is_some() {
            disk.replace(&self.kept.borrow());
        }
        if is_new {
            let keeper = Keeper(disk, Rc::clone(&self.kept));
            let keeps = async move {
                let _keeper = keeper;
                pending::<()>().await;
            };
            rt.spawn(keeps).detach();
        }
        FileStore::open_with(rt, &self.dir, SMALL).await
    }

    /// The dropped store ends its last write first.
    async fn lose_power(&self, rt: &Sim) -> bool {
        rt.sleep(Duration::from_secs(1)).await;
        let disk = rt.host().disk();
        disk.replace(&disk.torn(&Generator::new(rt.random(), "power")));
        true
    }

    fn set_full(&self, full: bool) -> bool {
        let disk = self.disk();
        if full {
            disk.fill()
        } else {
            disk.set_capacity(1 << 40)
        }
        true
    }

    fn fail_next_write(&self) -> bool {
        self.disk().fail_next_write();
        true
    }

    fn fail_next_sync(&self) -> bool {
        self.disk().fail_next_sync();
        true
    }

    fn flip_bit(&self, at: u64) -> bool {
        let disk = self.disk();
        let mut files = disk.durable().files;
        files.retain(|path, _| path.starts_with(&self.dir));
        // Zeros are space that is allocated beforehand, for the most part.
        let places: Vec<_> = files
            .iter()
            .flat_map(|(path, content)| (0..).zip(content).map(move |(at, byte)| (path, at, byte)))
            .filter(|(_, _, byte)| **byte != 0)
            .collect();
        let (path, offset, _) = places[(at / 8) as usize % places.len()];
        disk.flip_bit(path, offset, (at % 8) as u8).expect("it is there");
        true
    }
}

log_store_suite!(file_store_simulated, Sim, Launch::default(), Simulated::new());

struct Journals;

impl MachineFactory for Journals {
    type Machine = Journal;
    type State = Vec<String>;

    fn machine(&self) -> Journal {
        Journal::default()
    }

    fn command(&self, random: u64) -> String {
        format!("line {}", random % 1000).repeat(random as usize % 4)
    }

    fn state(&self, journal: &Journal) -> Vec<String> {
        journal.entries.clone()
    }
}

state_machine_suite!(journal, Tokio, Launch::default(), Journals);
