//! The suites that check an implementation of [`LogStore`](crate::LogStore),
//! [`Transport`](crate::Transport) or [`StateMachine`](crate::StateMachine) against the contract of
//! its trait. Ours run them as their tests, and so can yours.
//!
//! Each suite is a macro that makes a `#[test]` of each case. It is given a runtime, and an
//! expression that makes a factory. The expression is evaluated anew for each case, and repeatedly
//! where a case needs several stores:
//!
//! | macro | factory |
//! | --- | --- |
//! | [`log_store_suite!`](crate::log_store_suite) | [`StoreFactory`](log_store::StoreFactory) |
//! | [`transport_suite!`](crate::transport_suite) | [`TransportFactory`](transport::TransportFactory) |
//! | [`state_machine_suite!`](crate::state_machine_suite) | [`MachineFactory`](state_machine::MachineFactory) |
//!
//! To run one, name this crate among the `dev-dependencies`, with its feature `conformance`,
//! together with a runtime, and write a file in `tests/`:
//!
//! ```
//! use quorate_core::conformance::log_store::StoreFactory;
//! use quorate_core::conformance::state_machine::MachineFactory;
//! use quorate_core::conformance::transport::TransportFactory;
//! use quorate_core::{
//!     At, StateMachine, log_store_suite, state_machine_suite, transport_suite,
//! };
//! use quorate_rt::Launch;
//! use quorate_rt_tokio::Tokio;
//! use serde::{Deserialize, Serialize};
//!
//! # use std::ops::Range;
//! # use quorate_core::{
//! #     Appended, ClusterId, Completion, Entries, GroupId, Identity, Index, LogStore, LogWrite,
//! #     Message,
//! #     NodeId, Recovered, SnapshotContent, SnapshotDraft, SnapshotMeta, StoreError, Transport,
//! # };
//! # struct YourStore;
//! # impl YourStore {
//! #     async fn open(_: &str) -> Self { Self }
//! # }
//! # impl LogStore for YourStore {
//! #     async fn identify(&self, _: NodeId) -> Result<Identity, StoreError> { todo!() }
//! #     fn cluster(&self) -> Option<ClusterId> { todo!() }
//! #     async fn recover(&self, _: GroupId) -> Result<Recovered, StoreError> { todo!() }
//! #     fn release(&self, _: GroupId) {}
//! #     async fn remove(&self, _: GroupId) -> Result<(), StoreError> { todo!() }
//! #     fn append(&self, _: GroupId, _: LogWrite, done: Completion) -> Appended { done.durable() }
//! #     async fn read(
//! #         &self, _: GroupId, _: Range<Index>, _: usize,
//! #     ) -> Result<Entries, StoreError> { todo!() }
//! #     async fn draft(
//! #         &self, _: GroupId,
//! #     ) -> Result<Box<dyn SnapshotDraft>, StoreError> { todo!() }
//! #     async fn snapshot(
//! #         &self, _: GroupId, _: &SnapshotMeta,
//! #     ) -> Result<Box<dyn SnapshotContent>, StoreError> { todo!() }
//! # }
//! # struct YourTransport;
//! # impl YourTransport {
//! #     async fn bind(_: &str) -> Self { Self }
//! #     fn address(&self) -> String { String::new() }
//! # }
//! # impl Transport for YourTransport {
//! #     fn send(&self, _: Message) -> bool { true }
//! # }
//! /// A log store: here, one in a directory of its own for each case.
//! struct Stores {
//!     dir: String,
//! }
//!
//! impl StoreFactory<Tokio> for Stores {
//!     type Store = YourStore;
//!
//!     async fn open(&self, _rt: &Tokio) -> YourStore {
//!         YourStore::open(&self.dir).await
//!     }
//!
//!     async fn lose_power(&self, _rt: &Tokio) -> bool {
//!         false // This disk can't. Have another factory whose disk can.
//!     }
//! }
//!
//! # fn temporary_directory() -> String { String::new() }
//! log_store_suite!(store, Tokio, Launch::default(), Stores { dir: temporary_directory() });
//!
//! /// A transport.
//! struct Transports;
//!
//! impl TransportFactory<Tokio> for Transports {
//!     type Transport = YourTransport;
//!
//!     async fn transport(&self, _rt: &Tokio) -> (YourTransport, String) {
//!         let transport = YourTransport::bind("127.0.0.1:0").await;
//!         let address = transport.address();
//!         (transport, address)
//!     }
//! }
//!
//! transport_suite!(transport, Tokio, Launch::default(), Transports);
//!
//! /// A state machine.
//! #[derive(Default, Serialize, Deserialize)]
//! struct Counter(u64);
//!
//! impl StateMachine for Counter {
//!     type Command = u64;
//!     type Response = u64;
//!
//!     async fn apply(&mut self, command: u64, _: At) -> u64 {
//!         self.0 = self.0.wrapping_add(command);
//!         self.0
//!     }
//! }
//!
//! struct Counters;
//!
//! impl MachineFactory for Counters {
//!     type Machine = Counter;
//!     type State = u64;
//!
//!     fn machine(&self) -> Counter {
//!         Counter::default()
//!     }
//!
//!     fn command(&self, random: u64) -> u64 {
//!         random
//!     }
//!
//!     fn state(&self, machine: &Counter) -> u64 {
//!         machine.0
//!     }
//! }
//!
//! state_machine_suite!(counter, Tokio, Launch::default(), Counters);
//! # fn main() {}
//! ```
//!
//! A case is a scenario of its own and measures no time. What does not end within
//! [`LIMIT`](quorate_rt::conformance::LIMIT) counts as hung. What is random in a case has a fixed
//! seed.
//!
//! A case that a factory can't offer counts as passed, and writes a line to standard error:
//! `SKIPPED: <module>::<case>: <reason>`. `cargo test` shows it also without `--nocapture`.

mod changes;
pub mod log_store;
pub mod state_machine;
pub mod transport;

use std::cell::Cell;

use quorate_rt::{Executor, Launch};

use crate::{ClusterId, NodeId, Replica};

#[doc(hidden)]
pub use quorate_rt::conformance::{run, within_limit};

thread_local! {
    /// The module of the case that this thread runs. A case has a thread of its own.
    static SUITE: Cell<&'static str> = const { Cell::new("") };
}

/// Runs a case of the suite in this module.
#[doc(hidden)]
pub fn run_in<R: Executor>(
    suite: &'static str,
    launch: Launch,
    case: impl AsyncFnOnce(R) + Send + 'static,
) {
    within_limit(move || {
        SUITE.set(suite);
        R::run(&launch, case).expect("the runtime starts");
    });
}

/// Tells that a case was not tried, and why.
fn skipped(case: &str, reason: &str) {
    quorate_rt::conformance::skipped(&format!("{}::{case}", SUITE.get()), reason);
}

/// The cluster to which all belongs.
const CLUSTER: ClusterId = ClusterId(0xfeed_0000_0000_0001_0203_0405_0607_0809);

/// The usual replica of a node.
fn replica(id: NodeId) -> Replica {
    Replica::new(id, id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
}

/// A test for each case that runs inside the runtime: `async fn(R, F)`.
#[doc(hidden)]
#[macro_export]
macro_rules! suite_cases {
    ($runtime:ty, $launch:expr, $factory:expr, $($module:ident { $($case:ident),* $(,)? })*) => {
        $($(#[test]
        fn $case() {
            $crate::conformance::run_in(module_path!(), $launch, async |rt: $runtime| {
                $crate::conformance::$module::$case(rt, $factory).await
            });
        })*)*
    };
}
