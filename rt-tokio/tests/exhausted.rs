//! Where the operating system refuses threads and descriptors.

use quorate_rt::conformance::exhausted::{alone, descriptors_are_used_up, threads_are_refused};
use quorate_rt::{Driver, Launch};
use quorate_rt_tokio::Tokio;

fn launch(driver: Driver) -> Launch {
    Launch { driver, ..Launch::named("exhausted") }
}

#[test]
fn work_goes_on_while_threads_are_refused() {
    alone("work_goes_on_while_threads_are_refused", || {
        threads_are_refused::<Tokio>(&launch(Driver::Auto))
    });
}

#[test]
fn a_listener_outlives_a_lack_of_descriptors() {
    alone("a_listener_outlives_a_lack_of_descriptors", || {
        descriptors_are_used_up::<Tokio>(&launch(Driver::Auto))
    });
}
