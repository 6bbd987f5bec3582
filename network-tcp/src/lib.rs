//! The Raft transport over TCP, on any runtime.
//!
//! Between two nodes there is one connection in each direction: whoever has something to say
//! connects, and the messages of all groups go over it. The other end's answers go over its own
//! connection. The chunks of snapshots have a connection apart, as long as there are any, so that
//! nothing else waits behind them. The only thing that comes back on a connection is how many bytes
//! have arrived, at most once a second, so that a sender notices within five seconds that its peer
//! has vanished. A connection on which nothing comes is pinged every 15 seconds, and closed within
//! 40 if there is no answer; five seconds later so is the one in the other direction.
//!
//! A handshake tells which replica is at the other end, and proves that it belongs to the same
//! cluster, without telling the cluster's id. Where that can't be proven, only messages go through
//! that form a cluster or let a new disk in. Without TLS this guards against mistakes, such as a
//! wrong address or a copied data folder, and not against attackers.
//!
//! | file | concern |
//! | --- | --- |
//! | `config.rs` | the settings and the counters |
//! | `list.rs` | the checks of a list of nodes; pure |
//! | `addresses.rs` | where peers are reached; pure |
//! | `frame.rs` | a message as bytes, and messages out of a stream of bytes; pure |
//! | `handshake.rs` | who speaks to whom, of what, and what that proves; pure |
//! | `handshake/form.rs` | a handshake as bytes; pure |
//! | `sessions.rs` | the open connections, and two boots of one replica |
//! | `memories.rs` | what nodes remember of each other, and who is refused for it |
//! | `transport.rs` | [`TcpTransport`]: the state that all tasks of a transport share |
//! | `outbox.rs` | what waits for a peer, by lane |
//! | `dialling.rs` | opening a connection to one of several addresses |
//! | `outgoing.rs` | the task that connects and writes |
//! | `incoming.rs` | the tasks that accept connections and serve them |
//! | `connection_slots.rs` | who has a place among the accepted connections; pure |
//! | `welcome.rs` | the acceptor's side of a handshake |
//! | `reading.rs` | reading frames, and reporting what has arrived |
//! | `budget.rs` | the memory for frames under way |
//! | `marks.rs` | which connections are closed as nothing comes |
//! | `watch.rs` | what becomes of a panic in a task |
//! | `lines.rs` | how often lines of the log are written that anybody can cause |
//! | `wait.rs` | deadlines, names |

mod addresses;
mod budget;
mod config;
mod connection_slots;
mod dialling;
mod frame;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod incoming;
mod lines;
mod list;
mod marks;
mod memories;
mod outbox;
mod outgoing;
mod reading;
mod sessions;
#[cfg(test)]
mod tests;
mod transport;
mod wait;
mod watch;
mod welcome;

pub use config::{Stats, TcpConfig};
pub use list::check_address;
pub use transport::TcpTransport;
