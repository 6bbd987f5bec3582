//! The suite of `quorate-rt`, on both of compio's drivers: on a runtime of Quorate's, and in a
//! program on a runtime of its own.

use std::io;
use std::time::Duration;

use compio::driver::{DriverType, ProactorBuilder};
use compio::runtime::RuntimeBuilder;
use quorate_rt::conformance::{
    Program, attached::our_tasks_run_beside_a_busy_task_of_the_program, files, within_limit,
};
use quorate_rt::{Attached, Driver, Executor, Launch, attached_suite, conformance_suite};
use quorate_rt_compio::Compio;

conformance_suite!(uring, Compio, with(Driver::Uring));
conformance_suite!(epoll, Compio, with(Driver::Poll));
attached_suite!(in_a_program_uring, OnCompio, with(Driver::Uring));
attached_suite!(in_a_program_epoll, OnCompio, with(Driver::Poll));

fn with(driver: Driver) -> Launch {
    Launch { driver, ..Launch::default() }
}

/// A program on compio's own runtime, which attaches Quorate's.
#[derive(Clone, Debug)]
struct OnCompio;

impl Program for OnCompio {
    type Guest = Compio;

    fn run<T>(options: &Launch, main: impl AsyncFnOnce() -> T) -> io::Result<T> {
        let mut proactor = ProactorBuilder::new();
        proactor.driver_type(match options.driver {
            Driver::Poll => DriverType::Poll,
            _ => DriverType::IoUring,
        });
        Ok(RuntimeBuilder::new().with_proactor(proactor).build()?.block_on(main()))
    }

    fn attach() -> io::Result<Attached<Compio>> {
        Compio::attach()
    }

    fn spawn(task: impl Future<Output = ()> + 'static) {
        compio::runtime::spawn(task).detach();
    }

    fn sleep(duration: Duration) -> impl Future<Output = ()> + 'static {
        compio::runtime::time::sleep(duration)
    }
}

#[test]
fn a_durable_write_is_one_trip_through_the_ring() {
    let launch = Launch { driver: Driver::Uring, ..Launch::default() };
    Compio::run(&launch, files::has_a_descriptor_for_durable_writes).unwrap();
}

#[test]
fn quorates_tasks_run_beside_a_busy_task_of_the_program() {
    within_limit(|| {
        our_tasks_run_beside_a_busy_task_of_the_program::<OnCompio>(with(Driver::Uring))
    });
}
