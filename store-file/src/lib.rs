//! A write-ahead log for Raft, and snapshots, over the files of any runtime.
//!
//! [`FileStore`] is the durable [`LogStore`](quorate_core::LogStore): preallocated segments, group
//! commit, an index and the recent entries in memory; and a file for each snapshot. The formats are
//! described in `format.rs` and `snapshots.rs`.

mod batch;
mod check;
mod cleaning;
mod config;
mod draft;
mod early;
mod folder;
mod format;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzzing;
mod header;
mod index;
mod locations;
mod log;
mod opening;
mod owner;
mod pins;
mod record;
mod recovery;
mod segment;
mod snapshots;
mod state;
mod store;
mod trash;
mod waiting;
mod writer;

pub use check::{GroupReport, IdentityReport, LogEnd, SnapshotReport, StoreReport};
pub use config::FileConfig;
pub use store::FileStore;

#[cfg(test)]
mod tests;
