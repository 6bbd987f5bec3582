//! What an engine is told.

use bytes::Bytes;

use crate::message::Message;
use crate::types::{Entry, NodeId, Term};

/// The caller's number for a write or a read of its clients; the answer in the output bears it.
pub type Ticket = u64;

/// Something that has happened. The time at which it did is given with it, to [`Engine::step`](super::Engine::step).
#[derive(Clone, Debug)]
pub enum Input {
    /// A message has arrived.
    Message(Message),
    /// A client wants this command replicated.
    Propose {
        /// Names it in the answer.
        ticket: Ticket,
        /// The command.
        command: Bytes,
    },
    /// A client wants to read.
    Read {
        /// Names it in the answer.
        ticket: Ticket,
    },
    /// This write, and all before it, are durable.
    Persisted {
        /// The number of the write, from [`Output::write`](super::Output::write).
        write: u64,
    },
    /// The entries that a [`Fetch`](super::Fetch) asked for.
    Fetched {
        /// The peer they are for.
        peer: NodeId,
        /// The term in which they were asked for.
        term: Term,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// This node shall not lead any more, if it does: it hands over to a peer, or goes on after an election timeout if none takes over.
    Resign,
    /// Nothing but time has passed.
    Wake,
}
