//! What an engine is told.

use bytes::Bytes;
use quorate_rt::Instant;

use crate::entries::Entries;
use crate::identity::{Boot, Memory, Replica};
use crate::membership::ChangeRequest;
use crate::message::Message;
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::Term;

/// The caller's number for a write or a read of its clients; the answer in the output bears it.
pub type Ticket = u64;

/// Something that has happened. The time at which it did is given with it, to
/// [`Engine::step`](super::Engine::step).
#[derive(Clone, Debug)]
pub enum Input {
    /// A message has arrived.
    Message(Message),
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
    /// The disk is full and this write waits for space. Later writes may be durable before it. Told
    /// before any of them is.
    Delayed {
        /// The number of the write.
        write: u64,
    },
    /// The entries that a [`Fetch`](super::Fetch) asked for; none if they have been purged in the
    /// meantime.
    Fetched {
        /// The peer they are for.
        peer: Replica,
        /// The term in which they were asked for.
        term: Term,
        /// The entries.
        entries: Entries,
    },
    /// The chunk that a [`ReadChunk`](super::ReadChunk) asked for.
    ChunkRead {
        /// The peer it is for.
        peer: Replica,
        /// The digest of the snapshot.
        digest: Digest,
        /// Where it begins.
        offset: u64,
        /// The chunk; empty if another snapshot has taken the place of this one before it was
        /// opened.
        chunk: Bytes,
    },
    /// Of the snapshot that is [coming in](super::ReceiveStep), so much has been written.
    ChunkStored {
        /// The digest of the snapshot.
        digest: Digest,
        /// Up to here.
        stored: u64,
    },
    /// This snapshot is finished and durable in the store: one that was taken here and can be
    /// restored, or one that has come in. One that covers more than is
    /// [committed](super::Engine::committed) here should be restored before this is stepped, as the
    /// next write puts it in the place of the log.
    SnapshotReady(SnapshotMeta),
    /// The snapshot that was coming in is discarded: its digest is another, or it can't be written.
    SnapshotLost {
        /// The digest it should have had.
        digest: Digest,
    },
    /// Purge from the log all that the snapshot covers, without keeping some for peers that are a
    /// little behind.
    Purge,
    /// A change of the membership is wanted here. It may be repeated. The answer comes by
    /// [`Rare::changes`](super::Rare::changes), unless a message of it is lost.
    Change(Box<ChangeRequest>),
    /// This node shall not lead any more, if it does: it transfers leadership to a peer, or goes on
    /// after an election timeout if none takes over.
    Resign,
    /// Another replica remembers this of the present one. If that has less now, it was put back to
    /// an earlier state, and [`Rare::rolled_back`](super::Rare::rolled_back) says so. It is to
    /// come before any other message of that replica.
    Remembered {
        /// Who remembers.
        from: Replica,
        /// What it remembers.
        memory: Memory,
    },
    /// Another replica, of the same cluster, speaks in this boot from now on.
    Met {
        /// Who was met.
        replica: Replica,
        /// Its run.
        boot: Boot,
    },
    /// The node of another member is alive, in this boot. It was silent or unknown before, or in
    /// another boot.
    NodeIsAlive {
        /// The member.
        replica: Replica,
        /// The boot of its node.
        boot: Boot,
    },
    /// The node of another member has been silent for too long.
    NodeIsSilent {
        /// The member.
        replica: Replica,
        /// When it was heard last.
        heard: Instant,
    },
    /// What another member was in this term and in earlier ones, leader or follower, it is no more.
    PeerHasLeft {
        /// The member.
        replica: Replica,
        /// The term.
        term: Term,
    },
    /// Nothing but time has passed.
    Wake,
}
