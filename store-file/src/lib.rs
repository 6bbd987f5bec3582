//! A write-ahead log for Raft, over the files of any runtime.
//!
//! [`FileStore`] is the durable [`LogStore`](quorate_core::LogStore): preallocated segments, group commit, an index and the recent entries in
//! memory. Its format is described in `format.rs`.

mod batch;
mod check;
mod config;
mod format;
mod index;
mod recovery;
mod segment;
mod store;
mod writer;

pub use check::{GroupReport, LogEnd, StoreReport};
pub use config::FileConfig;
pub use store::FileStore;

#[cfg(test)]
mod tests;
