//! The runtime that Quorate asks for: tasks, time, channels, TCP and files.
//!
//! The interface is split by concern, and code asks for what it uses:
//!
//! | trait | concern | needed by |
//! | --- | --- | --- |
//! | [`Executor`] | tasks, time, randomness | a node, a transport in memory |
//! | [`Network`] | TCP, names; and an `Executor` | a transport over TCP |
//! | [`Files`] | files, directories, locks; and an `Executor` | a log on disk |
//! | [`AsyncRuntime`] | all of them | a program that is generic over its runtime |
//!
//! The production backends (tokio, monoio, compio) and the simulator implement them. Everything
//! above this crate is written against the traits alone, so that one engine, one transport and one
//! write-ahead log run unchanged on each of them.
//!
//! Three rules hold for every backend, and the suite in `conformance` (a feature of that name)
//! checks them:
//!
//! * **What belongs to a core stays there.** Nothing here asks for `Send`. A runtime lives on one
//!   thread; [`Executor::launch`] builds its main future on that thread. Only a
//!   [`std::task::Waker`] crosses.
//! * **I/O owns its buffers.** An operation takes a buffer and gives it back, as io_uring needs it.
//! * **Nothing selects over I/O.** A dropped read may lose bytes and a dropped write may still
//!   happen, so an operation belongs to a task that runs it to its end.

// docs.rs shows which feature an item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(async_fn_in_trait)] // No `Send` bounds, on purpose: see the rules above.

mod attached;
pub mod blocking;
pub mod blocking_threads;
pub mod channel;
#[cfg(feature = "conformance")]
pub mod conformance;
mod executor;
mod files;
mod launch;
mod limited;
mod lines;
pub mod local_executor;
pub mod local_task;
pub mod names;
mod network;
mod outstanding;
mod race;
mod runtime;
pub mod sockets;
mod stop_signal;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod timeout;

pub use attached::{Attached, Attachment};
pub use executor::Executor;
pub use files::{File, Files, OpenMode};
pub use launch::{Driver, Launch};
pub use limited::Limited;
pub use lines::Lines;
pub use network::{Listener, Network, ReadHalf, Stream, WriteHalf};
pub use race::{Either, race};
pub use runtime::AsyncRuntime;
pub use stop_signal::StopSignal;
pub use task::{Task, TaskError, yield_now};
pub use time::{ContinuousInstant, Instant, system_wall_clock};
pub use timeout::Elapsed;
