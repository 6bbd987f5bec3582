//! The suite of `quorate-rt`, on tokio: on a runtime of Quorate's, in a program's `LocalRuntime`, and
//! in a `LocalSet` of a program on many threads.

use std::io;
use std::time::Duration;

use quorate_rt::conformance::Program;
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
