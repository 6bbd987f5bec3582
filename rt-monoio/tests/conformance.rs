//! The suite of `quorate-rt`, on both of monoio's drivers.

use quorate_rt::conformance::files;
use quorate_rt::{Driver, Executor, Launch, conformance_suite};
use quorate_rt_monoio::Monoio;

conformance_suite!(uring, Monoio, Launch { driver: Driver::Uring, ..Launch::default() });
conformance_suite!(epoll, Monoio, Launch { driver: Driver::Poll, ..Launch::default() });

#[test]
fn a_durable_write_is_one_trip_through_the_ring() {
    let launch = Launch { driver: Driver::Uring, ..Launch::default() };
    Monoio::run(&launch, files::has_a_descriptor_for_durable_writes).unwrap();
}
