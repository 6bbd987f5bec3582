//! A model of identity, formation and the exchange of a lost disk.

pub mod bits;
pub mod explore;
pub mod formation;
pub mod log;
pub mod replication;
pub mod rule;
pub mod scopes;
