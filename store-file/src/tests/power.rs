//! The suite of `quorate-core` on a disk in memory that loses what was not synced whenever the
//! store is opened again, and that can be filled; and what the suite says of a store that does not
//! sync.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;

use quorate_core::conformance::log_store::{self, StoreFactory};
use quorate_core::log_store_suite;

use super::*;

#[derive(Default)]
struct Disks {
    /// The present one. It outlives the runtime that it was made with.
    disk: RefCell<Rc<Disk>>,
    forgets_syncs: bool,
}

impl Disks {
    /// The runtime, with the present disk.
    fn with_disk(&self, rt: &Memory) -> Memory {
        let mut rt = rt.clone();
        rt.disk = Rc::clone(&self.disk.borrow());
        rt
    }
}

impl StoreFactory<Memory> for Disks {
    type Store = Store;

    async fn open(&self, rt: &Memory) -> Store {
        self.try_open(rt).await.expect("the store opens")
    }

    async fn try_open(&self, rt: &Memory) -> Result<Store, StoreError> {
        let rt = self.with_disk(rt);
        rt.disk.faults.forget_durable_writes.set(self.forgets_syncs);
        FileStore::open_with(&rt, "d", SMALL).await
    }

    /// Whoever still writes does so to the old disk.
    async fn lose_power(&self, rt: &Memory) -> bool {
        let before = Rc::clone(&self.disk.borrow());
        let after = rt.with(&before.synced()).disk;
        after.faults.full.set(before.faults.full.get());
        self.disk.replace(after);
        true
    }

    fn set_full(&self, full: bool) -> bool {
        self.disk.borrow().faults.full.set(full);
        true
    }

    fn fail_next_write(&self) -> bool {
        self.disk.borrow().faults.fail_next_write.set(true);
        true
    }

    fn fail_next_sync(&self) -> bool {
        self.disk.borrow().faults.fail_next_sync.set(true);
        true
    }

    fn flip_bit(&self, at: u64) -> bool {
        let disk = self.disk.borrow();
        let files = disk.now();
        // Zeros are space that is allocated beforehand, for the most part.
        let places: Vec<_> = files
            .iter()
            .flat_map(|(path, content)| (0..).zip(content).map(move |(at, byte)| (path, at, byte)))
            .filter(|(_, _, byte)| **byte != 0)
            .collect();
        let (path, offset, byte): (_, usize, _) = places[(at / 8) as usize % places.len()];
        let mut content = files[path].clone();
        content[offset] = byte ^ (1 << (at % 8));
        disk.put(path, content);
        true
    }
}

log_store_suite!(without_power, Memory, Launch::default(), Disks::default());

/// These cases lose the power after something was reported as durable, so a store must fail them
/// whose syncs do nothing.
#[test]
fn a_store_that_does_not_sync_fails_the_suite() {
    let fails = |name: &str, case: fn(Memory, Disks) -> Case| {
        let failed = panic::catch_unwind(AssertUnwindSafe(|| {
            let disks = Disks { forgets_syncs: true, ..Disks::default() };
            Memory::run(&Launch::default(), async |rt| case(rt, disks).await).unwrap();
        }));
        assert!(failed.is_err(), "{name} passes with a store that does not sync");
    };
    macro_rules! fail {
        ($($case:ident),*) => {
            $(fails(stringify!($case), |rt, disks| Box::pin(log_store::$case(rt, disks)));)*
        };
    }
    fail![
        recovers_the_log_meta,
        recovers_hard_states,
        recovers_standings_and_marks,
        counts_its_starts,
        joins_a_cluster_with_the_write_that_says_so,
        crashes_at_any_moment,
        crashes_while_a_suffix_is_replaced,
        crashes_while_it_purges,
        keeps_snapshots,
        survives_a_power_loss,
        removes_groups,
        keeps_that_a_removed_group_is_spent,
        waits_for_space,
        votes_on_a_full_disk,
        removes_what_waits_for_space,
        tells_standings_on_a_full_disk,
        removes_a_spent_group_whose_standing_waits,
        removes_groups_while_the_disk_becomes_full,
        stays_failed_after_a_failed_write,
        stays_failed_after_a_failed_sync
    ];
}

type Case = std::pin::Pin<Box<dyn Future<Output = ()>>>;
