//! The suite of `quorate-core`, on the store that is kept and on one that is new each time.

use quorate_core::conformance::log_store::StoreFactory;
use quorate_core::log_store_suite;
use quorate_rt::Launch;
use quorate_rt_tokio::Tokio;
use quorate_store_mem::MemStore;

/// Opening it again is another clone.
#[derive(Default)]
struct Kept(MemStore);

impl StoreFactory<Tokio> for Kept {
    type Store = MemStore;

    async fn open(&self, _rt: &Tokio) -> MemStore {
        self.0.reopen()
    }

    /// What is durable in memory can't be lost.
    async fn lose_power(&self, _rt: &Tokio) -> bool {
        false
    }
}

struct Forgotten;

impl StoreFactory<Tokio> for Forgotten {
    type Store = MemStore;
    const DURABLE: bool = false;

    async fn open(&self, _rt: &Tokio) -> MemStore {
        MemStore::new()
    }

    /// All is lost each time.
    async fn lose_power(&self, _rt: &Tokio) -> bool {
        true
    }
}

log_store_suite!(kept, Tokio, Launch::default(), Kept::default());
log_store_suite!(forgotten, Tokio, Launch::default(), Forgotten);
