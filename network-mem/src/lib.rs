//! Raft transports within a process: within one thread, and across threads
