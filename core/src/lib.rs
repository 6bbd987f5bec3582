//! The Raft engine, the node that drives it, and the traits a service implements
