//! A model of identity, formation and the exchange of a lost disk, explored exhaustively.
//!
//! The rule behind it: a (node id, incarnation) is a Raft server, and a lost disk is a server that
//! has crashed for ever. There are two models:
//!
//! - [`replication`]: votes, logs, commits, a read and the exchange, in a cluster of three nodes
//!   that is formed, with a new disk of one node while the old one is dead or lives on.
//! - [`formation`]: how a cluster is formed, with lost disks, twins and differing lists.
//!
//! [`explore`] visits every state of either, and prints the shortest way to a wrong one.
//! [`rule::Rule`] names the rules that can be dropped: without any of them there is a violation.
//! [`scopes`] are the bounds; `docs/model.md` tells what was visited and what is not modelled.
//!
//! ```text
//! cargo run --release -p quorate-model
//! cargo run --release -p quorate-model -- --without incarnations-in-acks
//! scripts/model
//! ```

pub mod bits;
pub mod explore;
pub mod formation;
pub mod log;
pub mod replication;
pub mod rule;
pub mod scopes;
