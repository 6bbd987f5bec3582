//! Whole clusters of the shipped code in the simulator: engine, node, transport and write-ahead
//! log, under everything that can go wrong, checked after each step.
//!
//! A run is made from a seed: a [`Plan`] is drawn; for a while things go wrong, while clients write
//! and read; then all is well again for a core of the nodes, which must find a leader, serve, and
//! agree. The checks look on all the time (`checks/`).
//!
//! | file | concern |
//! | --- | --- |
//! | `plan.rs`, `profile.rs` | what a run is made of |
//! | `run.rs` | a run, from its seed to its report |
//! | `healing.rs`, `epilogue.rs` | what must come of it when all is well again |
//! | `cluster.rs` | the hosts and their processes |
//! | `workload/` | what is asked of them |
//! | `quiet.rs` | further groups on the same nodes, mostly at rest, with checks of their own |
//! | `faults/`, `atlas.rs` | what goes wrong, and how much of it may |
//! | `observed.rs`, `observer.rs`, `model.rs` | what is seen, and what is known from it |
//! | `ledger.rs`, `history.rs` | what is replicated, and what clients were told of it |
//! | `asked.rs` | what operators have asked for, and were told |
//! | `checks/` | what must hold |
//! | `shrink.rs` | shorter runs that fail as well |
//! | `planted.rs` | defects that are put in on purpose, to see that they are found |

pub mod asked;
pub mod atlas;
pub mod checks;
pub mod cluster;
pub mod epilogue;
pub mod faults;
pub mod healing;
pub mod history;
pub mod ledger;
pub mod model;
pub mod observed;
pub mod observer;
pub mod plan;
pub mod planted;
pub mod profile;
pub mod quiet;
pub mod run;
pub mod shrink;
pub mod workload;

pub use faults::Fault;
pub use observer::Violation;
pub use plan::{Epilogue, Overrides, Plan};
pub use profile::Profile;
pub use run::{Report, Story, run, tell};
pub use shrink::shrink;

/// A task of a simulated host.
type SimTask = <quorate::sim::Sim as quorate::Executor>::Task<()>;
