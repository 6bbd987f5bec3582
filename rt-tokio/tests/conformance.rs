//! The suite of `quorate-rt`, on tokio: on a runtime of Quorate's, in a program's `LocalRuntime`,
//! and in a `LocalSet` of a program on many threads.

use std::io;
use std::time::Duration;

use quorate_rt::conformance::attached::our_tasks_run_beside_a_busy_task_of_the_program;
use quorate_rt::conformance::{Program, within_limit};
use quorate_rt::{Attached, Launch, attached_suite, conformance_suite};
use quorate_rt_tokio::Tokio;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::LocalSet;

conformance_suite!(epoll, Tokio, Launch::default());
attached_suite!(in_a_local_runtime, OnLocalRuntime, Launch::default());
attached_suite!(in_a_local_set, InLocalSet, Launch::default());

/// A program on tokio's own runtime, which attaches Quorate's.
#[derive(Clone, Debug)]
struct OnLocalRuntime;

impl Program for OnLocalRuntime {
    type Guest = Tokio;

    fn run<T>(_: &Launch, main: impl AsyncFnOnce() -> T) -> io::Result<T> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().build_local(LocalOptions::default())?;
        Ok(runtime.block_on(main()))
    }

    fn attach() -> io::Result<Attached<Tokio>> {
        Tokio::attach()
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(tokio::task::spawn_local(task));
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep(duration)
    }
}

/// A program on tokio's own runtime, which attaches Quorate's.
#[derive(Clone, Debug)]
struct InLocalSet;

impl Program for InLocalSet {
    type Guest = Tokio;

    fn run<T>(_: &Launch, main: impl AsyncFnOnce() -> T) -> io::Result<T> {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        Ok(LocalSet::new().block_on(&runtime, main()))
    }

    fn attach() -> io::Result<Attached<Tokio>> {
        Tokio::attach()
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(tokio::task::spawn_local(task));
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        tokio::time::sleep(duration)
    }
}

#[test]
fn quorates_tasks_run_beside_a_busy_task_of_the_program() {
    within_limit(|| {
        our_tasks_run_beside_a_busy_task_of_the_program::<InLocalSet>(Launch::default())
    });
}

#[test]
fn a_task_on_many_threads_is_told_to_launch() {
    let program = Builder::new_multi_thread().enable_all().build().unwrap();
    let error = program.block_on(async { Tokio::attach().map(drop) }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("quorate::launch"), "{error}");
}

#[test]
fn a_program_without_timers_is_told_so() {
    let mut builder = Builder::new_current_thread();
    let program = builder.enable_io().build_local(LocalOptions::default()).unwrap();
    let error = program.block_on(async { Tokio::attach().map(drop) }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("enable_all"), "{error}");
}
