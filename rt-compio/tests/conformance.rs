//! The suite of `quorate-rt`, on both of compio's drivers.

use quorate_rt::{Driver, Launch, conformance_suite};
use quorate_rt_compio::Compio;

conformance_suite!(uring, Compio, Launch { driver: Driver::Uring, ..Launch::default() });
conformance_suite!(epoll, Compio, Launch { driver: Driver::Poll, ..Launch::default() });
