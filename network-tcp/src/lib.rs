//! The Raft transport over TCP, on any runtime
