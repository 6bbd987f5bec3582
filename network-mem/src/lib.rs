//! Raft transports within a process, for tests, benchmarks and embedded clusters: [`LocalNetwork`]
//! within one thread, [`SharedNetwork`] across threads.
//!
//! Both pass messages as they are: nothing is encoded and no content is copied.

mod local;
mod shared;

pub use local::{LocalNetwork, LocalTransport};
pub use shared::{MAX_WAITING_BYTES, SharedNetwork, SharedTransport};
