//! Where the operating system refuses threads and descriptors.

use quorate_rt::conformance::exhausted::{
    alone, descriptors_are_used_up, threads_are_refused, threads_of_the_ring_are_refused,
};
use quorate_rt::{Driver, Launch};
use quorate_rt_compio::Compio;

fn launch(driver: Driver) -> Launch {
    Launch { driver, ..Launch::named("exhausted") }
}

#[test]
fn work_goes_on_while_threads_are_refused_uring() {
    alone("work_goes_on_while_threads_are_refused_uring", || {
        threads_are_refused::<Compio>(&launch(Driver::Uring))
    });
}

#[test]
fn files_outlive_a_lack_of_the_rings_threads() {
    alone("files_outlive_a_lack_of_the_rings_threads", || {
        threads_of_the_ring_are_refused::<Compio>(&launch(Driver::Uring))
    });
}

#[test]
fn a_listener_outlives_a_lack_of_descriptors_uring() {
    alone("a_listener_outlives_a_lack_of_descriptors_uring", || {
        descriptors_are_used_up::<Compio>(&launch(Driver::Uring))
    });
}

#[test]
fn work_goes_on_while_threads_are_refused_epoll() {
    alone("work_goes_on_while_threads_are_refused_epoll", || {
        threads_are_refused::<Compio>(&launch(Driver::Poll))
    });
}

#[test]
fn a_listener_outlives_a_lack_of_descriptors_epoll() {
    alone("a_listener_outlives_a_lack_of_descriptors_epoll", || {
        descriptors_are_used_up::<Compio>(&launch(Driver::Poll))
    });
}
