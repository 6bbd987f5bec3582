//! The suite of `quorate-rt` on the runtime in memory, without what it has not: a network, other
//! threads, directories without files, and thousands of tasks; and what its faults do.

use std::io;
use std::path::Path;

use quorate_rt::testing::{Image, Memory};
use quorate_rt::{Executor, File, Files, Launch, OpenMode, conformance_cases};

conformance_cases! { Memory, Launch::default(),
    inside {
        tasks {
            gives_its_result, is_woken_by_another, cancelled_by_its_handle,
            cancelled_before_its_first_poll, cancelled_by_itself, cancelled_with_its_owner,
            awaited_to_the_end_then_dropped, detached, panic_reaches_the_joiner_alone,
            panic_without_a_joiner, blocking_panics, blocking_many, random_numbers_differ
        }
        time {
            never_goes_back, continuous_never_goes_back, continuous_goes_on_at_least_as_now_does,
            never_ends_early, past_deadlines_end, ends_in_order,
            armed_when_created, far_deadlines, dropped_timers, limits_of_time,
            wall_clock_is_plausible
        }
        time_virtual { wall_clock_goes_with_the_time, continuous_goes_with_the_time }
        files {
            reads_what_was_written, reads_past_the_end, reads_append, gathered_writes,
            used_by_many_tasks, syncs, writes_durably, allocates, cuts_and_extends, renames,
            locks, cancelled_operations, many_files
        }
    }
    around { launch { on_a_thread_of_its_own } }
}

/// A file on a disk in memory, which exists durably.
async fn file(rt: &Memory) -> <Memory as Files>::File {
    let file = rt.open(Path::new(FILE), OpenMode::CreateNew).await.unwrap();
    file.write_all_at(vec!["before".into()], 0).await.unwrap();
    file.sync_data().await.unwrap();
    rt.sync_dir(Path::new("/")).await.unwrap();
    file
}

const FILE: &str = "/file";

/// What a process reads, and what a power loss leaves.
fn content(rt: &Memory) -> (Vec<u8>, Vec<u8>) {
    let of = |image: Image| image.get(Path::new(FILE)).cloned().unwrap_or_default();
    (of(rt.disk.now()), of(rt.disk.synced()))
}

#[test]
fn a_sync_that_fails_for_lack_of_space_makes_nothing_durable() {
    Memory::run(&Launch::default(), async |rt| {
        let file = file(&rt).await;
        rt.disk.faults.fail_sync_for_space.set(true);
        file.write_all_at(vec!["behind".into()], 0).await.unwrap();
        let error = file.sync_data().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(content(&rt), (b"behind".to_vec(), b"before".to_vec()));
        let error = file.write_durably_at(vec!["BEHIND".into()], 0).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(content(&rt), (b"BEHIND".to_vec(), b"before".to_vec()));
        rt.disk.faults.fail_sync_for_space.set(false);
        file.write_durably_at(vec!["behind".into()], 0).await.unwrap();
        assert_eq!(content(&rt), (b"behind".to_vec(), b"behind".to_vec()));
    })
    .unwrap();
}

#[test]
fn a_disk_that_forgets_durable_writes_says_that_they_are_durable() {
    Memory::run(&Launch::default(), async |rt| {
        let file = file(&rt).await;
        rt.disk.faults.forget_durable_writes.set(true);
        file.write_durably_at(vec!["behind".into()], 0).await.unwrap();
        assert_eq!(content(&rt), (b"behind".to_vec(), b"before".to_vec()));
        file.sync_data().await.unwrap();
        assert_eq!(content(&rt).1, b"behind", "a sync of its own is none of these");
    })
    .unwrap();
}
