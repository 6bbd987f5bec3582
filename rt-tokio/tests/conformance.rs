//! The suite of `quorate-rt`, on tokio.

use quorate_rt::{Launch, conformance_suite};
use quorate_rt_tokio::Tokio;

conformance_suite!(epoll, Tokio, Launch::default());
