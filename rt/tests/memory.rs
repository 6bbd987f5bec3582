//! The suite of `quorate-rt` on the runtime in memory, without what it has not: a network, other
//! threads, directories without files, and thousands of tasks.

use quorate_rt::testing::Memory;
use quorate_rt::{Launch, conformance_cases};

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
            armed_when_created, far_deadlines, dropped_timers, wall_clock_is_plausible
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
