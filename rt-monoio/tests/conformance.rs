//! The suite of `quorate-rt`, on both of monoio's drivers: on a runtime of Quorate's, and in a
//! program on a runtime of its own.

use std::io;
use std::time::Duration;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use quorate_rt::conformance::{Program, files};
use quorate_rt::{Attached, Driver, Executor, Launch, attached_suite, conformance_suite};
use quorate_rt_monoio::Monoio;

conformance_suite!(uring, Monoio, with(Driver::Uring));
conformance_suite!(epoll, Monoio, with(Driver::Poll));
attached_suite!(in_a_program_uring, OnMonoio, with(Driver::Uring));
attached_suite!(in_a_program_epoll, OnMonoio, with(Driver::Poll));

fn with(driver: Driver) -> Launch {
    Launch { driver, ..Launch::default() }
}

/// A program on monoio's own runtime, which attaches Quorate's.
#[derive(Clone, Debug)]
struct OnMonoio;

impl Program for OnMonoio {
    type Guest = Monoio;

    fn run<T>(options: &Launch, main: impl AsyncFnOnce() -> T) -> io::Result<T> {
        Ok(match options.driver {
            Driver::Poll => {
                RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?.block_on(main())
            }
            _ => RuntimeBuilder::<IoUringDriver>::new().enable_timer().build()?.block_on(main()),
        })
    }

    fn attach() -> io::Result<Attached<Monoio>> {
        Monoio::attach()
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(task));
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        monoio::time::sleep(duration)
    }
}

#[test]
fn a_durable_write_is_one_trip_through_the_ring() {
    let launch = Launch { driver: Driver::Uring, ..Launch::default() };
    Monoio::run(&launch, files::has_a_descriptor_for_durable_writes).unwrap();
}

#[test]
fn a_program_without_timers_is_told_so() {
    let mut program = RuntimeBuilder::<IoUringDriver>::new().build().unwrap();
    let error = program.block_on(async { Monoio::attach().map(drop) }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("timer_enabled"), "{error}");
}
