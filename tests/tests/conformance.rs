//! The suites of `quorate-core`, on what the tests of clusters use: where that itself were wrong, they would prove nothing.

use quorate::{Launch, Tokio};
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
