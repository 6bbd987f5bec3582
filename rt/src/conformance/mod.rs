//! The suite that checks a backend against the contract of [`AsyncRuntime`]: every backend runs it as its tests,
//! through [`conformance_suite!`](crate::conformance_suite), which makes a `#[test]` of each case.
//!
//! A case is a scenario of its own and measures no time, except that nothing may come early. What does not end
//! within [`LIMIT`] counts as hung.

use std::future::poll_fn;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use crate::channel::oneshot;
use crate::{AsyncRuntime, Launch};

#[doc(hidden)]
pub mod tasks;
#[doc(hidden)]
pub mod time;

/// After this time a case has hung. Far longer than any takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Makes the tests of a backend: `conformance_suite!(epoll, Tokio, Launch::default());` gives a module `epoll` with
/// a test for each case, run on `Tokio` with that [`Launch`](crate::Launch) (its name and core are not used).
#[macro_export]
macro_rules! conformance_suite {
    ($name:ident, $runtime:ty, $launch:expr) => {
        #[allow(unused_imports)] // Whatever the type and the expression need from outside.
        mod $name {
            use super::*;
            $crate::conformance_cases! { $runtime, $launch,
                // Cases that run inside the runtime: `async fn(R)`.
                inside {
                    tasks {
                        gives_its_result, is_woken_by_another, cancelled_by_its_handle,
                        cancelled_before_its_first_poll, cancelled_by_itself, cancelled_with_its_owner,
                        awaited_to_the_end_then_dropped, detached, panic_reaches_the_joiner_alone,
                        panic_without_a_joiner, many, blocking_gives_its_result, blocking_panics,
                        blocking_does_not_block_the_others, blocking_forgotten, blocking_many,
                        random_numbers_differ
                    }
                    time {
                        never_goes_back, never_ends_early, many_never_end_early, past_deadlines_end,
                        ends_in_order, armed_when_created, far_deadlines, dropped_timers
                    }
                }
                // Cases that start runtimes of their own: `fn<R>(Launch)`.
                around {
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
pub fn run<R: AsyncRuntime>(launch: Launch, case: impl AsyncFnOnce(R) + Send + 'static) {
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
