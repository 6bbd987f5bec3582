//! The suite of `quorate-rt`, on both of compio's drivers.

use quorate_rt::conformance::files;
use quorate_rt::{Driver, Executor, Launch, conformance_suite};
use quorate_rt_compio::Compio;

conformance_suite!(uring, Compio, Launch { driver: Driver::Uring, ..Launch::default() });
conformance_suite!(epoll, Compio, Launch { driver: Driver::Poll, ..Launch::default() });

#[test]
fn a_durable_write_is_one_trip_through_the_ring() {
    let launch = Launch { driver: Driver::Uring, ..Launch::default() };
    Compio::run(&launch, files::has_a_descriptor_for_durable_writes).unwrap();
}
