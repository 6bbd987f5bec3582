//! The suite of `quorate-core`, on every runtime: with a cache and large segments, and with
//! neither.

use quorate_core::conformance::log_store::StoreFactory;
use quorate_core::log_store_suite;
use quorate_rt::{self as rt, Driver, Launch};
use quorate_rt_compio::Compio;
use quorate_rt_monoio::Monoio;
use quorate_rt_tokio::Tokio;
use quorate_store_file::{FileConfig, FileStore};
use tempfile::TempDir;

struct Files {
    dir: TempDir,
    config: FileConfig,
}

impl<R: rt::Files> StoreFactory<R> for Files {
    type Store = FileStore<R>;

    async fn open(&self, rt: &R) -> FileStore<R> {
        let store = FileStore::open_with(rt, self.dir.path(), self.config.clone());
        store.await.expect("the store opens")
    }

    /// A real disk keeps what was written as long as its machine has power. The suite of a disk in
    /// memory, which does lose it, is in `src/tests/power.rs`.
    async fn lose_power(&self, _rt: &R) -> bool {
        false
    }
}

fn files(config: FileConfig) -> Files {
    Files { dir: tempfile::tempdir().expect("a directory"), config }
}

/// Many segments and batches, and every read from disk.
fn small() -> Files {
    files(FileConfig { segment_bytes: 16 << 10, cache_bytes: 0, max_batch_bytes: 4 << 10 })
}

fn uring() -> Launch {
    Launch { driver: Driver::Uring, ..Launch::default() }
}

log_store_suite!(tokio_default, Tokio, Launch::default(), files(FileConfig::default()));
log_store_suite!(tokio_small, Tokio, Launch::default(), small());
log_store_suite!(monoio_small, Monoio, uring(), small());
log_store_suite!(compio_small, Compio, uring(), small());
