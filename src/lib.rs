//! Quorate: Raft for Rust services.
//!
//! One consensus engine, one TCP transport and one write-ahead log, which run unchanged on tokio, on monoio and on compio. This crate
//! puts the parts together: its features choose the backends, all of them may be on at once, and none changes what a type means.
//!
//! | feature | brings |
//! | --- | --- |
//! | `tokio` (default) | [`Tokio`] |
//! | `monoio` | [`Monoio`] |
//! | `compio` | [`Compio`] |
//! | `tcp` (default) | [`TcpTransport`] |
//! | `mem` (default) | [`MemStore`], [`LocalNetwork`], [`SharedNetwork`] |
//! | `file` (default) | [`FileStore`] |
//! | `sim` | [`sim`]: a runtime that simulates hosts, networks and disks, for tests |

#![cfg_attr(
    not(all(
        feature = "tokio",
        feature = "monoio",
        feature = "compio",
        feature = "tcp",
        feature = "mem",
        feature = "file",
        feature = "sim"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

/// The README's program compiles.
#[cfg(all(doctest, feature = "tokio", feature = "tcp", feature = "file"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// The programs of the guide compile and run.
#[cfg(all(doctest, feature = "sim", feature = "tcp", feature = "file", feature = "mem"))]
#[doc = include_str!("../docs/simulation.md")]
struct Simulating;

pub use quorate_core::*;
/// The runtime that everything is written against.
pub use quorate_rt as rt;
pub use quorate_rt::{Driver, Executor, Files, Launch, Network};

pub use parts::*;

cfg_if::cfg_if! {
    if #[cfg(feature = "sim")] {
        /// The simulator: whole clusters on virtual time, a network and disks that do their worst, from a seed.
        pub use quorate_rt_sim as sim;
    }
}

/// The runtime, and what the features bring.
mod parts {
    pub use quorate_rt::AsyncRuntime;

    cfg_if::cfg_if! {
        if #[cfg(feature = "tokio")] {
            pub use quorate_rt_tokio::Tokio;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "monoio")] {
            pub use quorate_rt_monoio::Monoio;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "compio")] {
            pub use quorate_rt_compio::Compio;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "tcp")] {
            pub use quorate_network_tcp::{TcpConfig, TcpTransport};
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "mem")] {
            pub use quorate_network_mem::{
                LocalNetwork, LocalTransport, SharedNetwork, SharedTransport,
            };
            pub use quorate_store_mem::MemStore;
        }
    }
    cfg_if::cfg_if! {
        if #[cfg(feature = "file")] {
            pub use quorate_store_file::{FileConfig, FileStore, StoreReport};
        }
    }
}

/// What a service usually needs.
pub mod prelude {
    pub use serde::{Deserialize, Serialize};

    pub use crate::parts::*;
    pub use crate::{
        At, Compact, Config, LocalRaft, Membership, Metrics, Node, Raft, Raw, ReadError, Role,
        Snapshot, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine, WriteError,
    };
    // Their methods, not their names: a service may have a `Network` of its own.
    pub use crate::{Executor as _, Files as _, Network as _};
}

/// Runs `main` on this thread, on a runtime of the kind `R` with its best driver, until it ends.
///
/// # Errors
/// Those of `main`, and [`Error::Io`] where the runtime can't be built.
pub fn run<R: Executor, T: 'static>(main: impl AsyncFnOnce(R) -> Result<T>) -> Result<T> {
    R::run(&Launch::default(), main)?
}
