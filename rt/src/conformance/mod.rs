//! The suite that checks a backend against the contract of [`AsyncRuntime`](crate::AsyncRuntime):
//! every backend runs it as its tests, through [`conformance_suite!`](crate::conformance_suite),
//! which makes a `#[test]` of each case.
//!
//! A case is a scenario of its own and measures no time, except that nothing may come early. What
//! does not end within [`LIMIT`] counts as hung.
#![expect(
    clippy::disallowed_methods,
    reason = "runtimes are woken from other threads, and are given up when they hang"
)]

use std::future::poll_fn;
use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::task::Poll;
use std::thread;
use std::time::Duration;

pub use self::guest::{Guest, Program};
use crate::channel::oneshot;
use crate::{Executor, Launch};

#[doc(hidden)]
pub mod attached;
pub mod exhausted;
#[doc(hidden)]
pub mod files;
#[doc(hidden)]
pub mod files_os;
mod guest;
#[doc(hidden)]
pub mod launch;
#[doc(hidden)]
pub mod locks;
#[doc(hidden)]
pub mod names;
#[doc(hidden)]
pub mod net;
#[doc(hidden)]
pub mod net_os;
pub mod refused;
#[doc(hidden)]
pub mod shutdown;
#[doc(hidden)]
pub mod tasks;
#[doc(hidden)]
pub mod time;
#[doc(hidden)]
pub mod time_virtual;
#[doc(hidden)]
pub mod together;
#[doc(hidden)]
pub mod wakes;

/// After this time a case has hung. Far longer than any takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Makes the tests of a backend: `conformance_suite!(epoll, Tokio, Launch::default());` gives a
/// module `epoll` with a test for each case, run on `Tokio` with that [`Launch`](crate::Launch)
/// (its name and core are not used).
///
/// A runtime that is a world of its own, as a simulator is, adds `isolated`: it is spared the cases
/// that need the operating system's network, or two runtimes that are not the same. Its time must
/// be virtual: two more cases sleep for an hour.
#[macro_export]
macro_rules! conformance_suite {
    ($name:ident, $runtime:ty, $launch:expr) => {
        #[allow(unused_imports)] // Whatever the type and the expression need from outside.
        mod $name {
            use super::*;
            $crate::conformance_suite!(@isolated $runtime, $launch);
            // On the operating system's network and files.
            $crate::conformance_cases! { $runtime, $launch,
                inside {
                    net_os {
                        reset_under_a_read, reset_before_a_read, reset_under_a_write,
                        closed_before_a_write, reset_before_accept, connects_to_a_foreign_listener,
                        vanished_peers_are_noticed, connecting_ends_with_its_task
                    }
                    files_os {
                        a_lock_is_held_until_what_has_begun_has_ended,
                        a_result_that_panics_when_it_is_dropped_harms_nobody
                    }
                }
                around {
                    locks { a_lock_is_held_until_what_has_begun_has_ended_with_the_runtime }
                    together { talking_to_each_other, random_numbers_differ }
                }
            }
        }
    };
    ($name:ident, $runtime:ty, $launch:expr, isolated) => {
        #[allow(unused_imports)]
        mod $name {
            use super::*;
            $crate::conformance_suite!(@isolated $runtime, $launch);
            // In virtual time.
            $crate::conformance_cases! { $runtime, $launch,
                inside {
                    time_virtual { wall_clock_goes_with_the_time, continuous_goes_with_the_time }
                }
                around {}
            }
        }
    };
    (@isolated $runtime:ty, $launch:expr) => {
            $crate::conformance_cases! { $runtime, $launch,
                // Cases that run inside the runtime: `async fn(R)`.
                inside {
                    tasks {
                        gives_its_result, is_woken_by_another, cancelled_by_its_handle,
                        cancelled_before_its_first_poll, cancelled_by_itself,
                        cancelled_with_its_owner,
                        awaited_to_the_end_then_dropped, detached, panic_reaches_the_joiner_alone,
                        panic_without_a_joiner, many, blocking_gives_its_result, blocking_panics,
                        blocking_does_not_block_the_others, blocking_forgotten, blocking_many,
                        random_numbers_differ
                    }
                    time {
                        never_goes_back, continuous_never_goes_back,
                        continuous_goes_on_at_least_as_now_does, never_ends_early,
                        many_never_end_early, past_deadlines_end, ends_in_order, armed_when_created,
                        far_deadlines, dropped_timers, limits_of_time, wall_clock_is_plausible
                    }
                    wakes {
                        burst_to_main, burst_to_a_task, burst_through_another_crate,
                        burst_to_many_tasks, burst_through_a_watch, from_idle,
                        after_the_end_of_a_task, tasks_die_at_home
                    }
                    names { addresses_stay, a_name, without_a_host_or_a_port, many_at_once }
                    net {
                        echoes, ipv6, both_families, short_reads, reads_append, reads_without_room, lines,
                        half_close,
                        end_of_a_stream_that_is_waited_for, empty_writes,
                        writes_larger_than_the_socket_buffer, writes_of_many_buffers,
                        without_the_reading_half, without_the_writing_half, closed_unsplit,
                        closed_under_a_cancelled_read, closed_under_a_cancelled_write, refused,
                        port_in_use, address_of_another_machine, listens_again_after_connections,
                        listens_again_after_a_cancelled_accept, connections_wait_for_accept,
                        many_connections
                    }
                    files {
                        reads_what_was_written, reads_past_the_end, reads_append, gathered_writes,
                        used_by_many_tasks, syncs, writes_durably, allocates, cuts_and_extends,
                        open_modes, renames, directories, names_that_are_not_utf8, locks,
                        cancelled_operations, many_files
                    }
                }
                // Cases that start runtimes of their own: `fn<R>(Launch)`.
                around {
                    launch {
                        on_a_thread_of_its_own, pinned, core_that_does_not_exist, panicking,
                        several_at_once
                    }
                    shutdown {
                        returns_the_value, drops_tasks_that_wait, drops_tasks_never_polled,
                        drops_tasks_that_know_each_other, ends_with_blocking_work,
                        frees_what_tasks_held, outlived_by_a_handle, outlived_by_a_waker,
                        again_and_again
                    }
                }
            }
    };
}

/// Makes the tests of a backend that is attached to a [`Program`]: those of
/// [`conformance_suite!`](crate::conformance_suite) on a [`Guest`] of it, and more.
#[macro_export]
macro_rules! attached_suite {
    ($name:ident, $program:ty, $launch:expr) => {
        #[allow(unused_imports)]
        mod $name {
            use super::*;
            $crate::conformance_suite!(guest, $crate::conformance::Guest<$program>, $launch);
            $crate::conformance_cases! { $program, $launch,
                inside {}
                around {
                    attached {
                        the_program_ticks_beside_busy_tasks,
                        the_program_ticks_while_its_tasks_and_ours_wake_each_other,
                        those_who_attach_share_it, close_waits_for_work_whose_task_is_gone,
                        a_lock_is_free_after_a_program_that_has_not_closed,
                        running_within_a_program_is_an_error,
                        close_ends_though_the_last_handle_is_dropped_meanwhile,
                        close_ends_though_operations_begin_meanwhile,
                        close_drops_tasks_between_two_operations,
                        many_wait_for_one_piece_of_work,
                        attaching_within_run_is_an_error, attaching_without_a_program_is_an_error,
                        what_is_called_after_the_end_says_so,
                        files_are_written_from_a_task_of_the_program
                    }
                }
            }
        }
    };
}

/// The expansion of [`conformance_suite!`](crate::conformance_suite).
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($runtime:ty, $launch:expr,
     inside { $($module:ident { $($case:ident),* })* }
     around { $($outer:ident { $($whole:ident),* })* }) => {
        $(mod $module {
            use super::*;
            $(#[test]
            fn $case() {
                $crate::conformance::run($launch, $crate::conformance::$module::$case::<$runtime>);
            })*
        })*
        $(mod $outer {
            use super::*;
            $(#[test]
            fn $whole() {
                $crate::conformance::within_limit(|| {
                    $crate::conformance::$outer::$whole::<$runtime>($launch);
                });
            })*
        })*
    };
}

/// Runs a case inside a runtime, on a thread of its own.
pub fn run<R: Executor>(launch: Launch, case: impl AsyncFnOnce(R) + Send + 'static) {
    within_limit(move || R::run(&launch, case).expect("the runtime starts"));
}

/// Runs a case on a thread of its own. A panic in it goes on here; a hung one becomes one.
pub fn within_limit(case: impl FnOnce() + Send + 'static) {
    let (ended, end) = sync_channel::<()>(0);
    let name = thread::current().name().unwrap_or("case").to_owned();
    let case = thread::Builder::new().name(name).spawn(move || {
        let _ended = ended; // Dropped at the end, or by a panic.
        case();
    });
    match end.recv_timeout(LIMIT) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs: {LIMIT:?} have passed"),
        Err(RecvTimeoutError::Disconnected) | Ok(()) => {
            if let Err(panic) = case.expect("a thread starts").join() {
                resume_unwind(panic);
            }
        }
    }
}

/// Tells that a case was not tried, and why, even where what tests print is captured.
#[doc(hidden)]
pub fn skipped(case: &str, reason: &str) {
    // In one piece, as other tests write at the same time.
    let _ = io::stderr().write_all(format!("SKIPPED: {case}: {reason}\n").as_bytes());
}

/// Lets the other tasks go first, once.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Tells its receiver when it is dropped.
struct Guard(Option<oneshot::Sender<()>>);

/// A guard, and what resolves when it is dropped.
fn guard() -> (Guard, oneshot::Receiver<()>) {
    let (sender, dropped) = oneshot::channel();
    (Guard(Some(sender)), dropped)
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _nobody_may_care = sender.send(());
        }
    }
}
