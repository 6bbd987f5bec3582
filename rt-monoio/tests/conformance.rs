//! The suite of `quorate-rt`, on both of monoio's drivers.

use quorate_rt::{Driver, Launch, conformance_suite};
use quorate_rt_monoio::Monoio;

conformance_suite!(uring, Monoio, Launch { driver: Driver::Uring, ..Launch::default() });
conformance_suite!(epoll, Monoio, Launch { driver: Driver::Poll, ..Launch::default() });
