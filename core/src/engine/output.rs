//! What an engine wants done.

use std::ops::Range;

use quorate_rt::Instant;

use super::Ticket;
use crate::log_store::LogWrite;
use crate::membership::Membership;
use crate::message::Message;
use crate::types::{Index, LogId, NodeId, Term};

/// What has come of all that was stepped since the last output. The parts may be carried out side by side: nothing in it
/// has to wait for another part.
#[derive(Debug, Default)]
pub struct Output {
    /// Make this durable, in the order of the numbers, and say so by [`Input::Persisted`](super::Input::Persisted).
    pub write: Option<(u64, LogWrite)>,
    /// Send these.
    pub messages: Vec<Message>,
    /// Read these entries from the log and bring them by [`Input::Fetched`](super::Input::Fetched).
    pub fetches: Vec<Fetch>,
    /// The log is now known to be committed up to here: apply it.
    pub committed: Option<Index>,
    /// What became of proposals.
    pub proposals: Vec<(Ticket, Proposal)>,
    /// Leadership was lost, here or at the leader that took them: of the proposals placed so far, those above the commit index have an
    /// unknown outcome from now on. It precedes `proposals`.
    pub placed_are_lost: bool,
    /// What became of reads.
    pub reads: Vec<(Ticket, ReadOutcome)>,
    /// The membership in force has changed to this; none while there is none.
    pub membership: Option<Membership>,
    /// When to step again at the latest, with [`Input::Wake`](super::Input::Wake); none if only a message can change anything.
    pub wake_at: Option<Instant>,
}

/// Entries that a peer needs and that are not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The peer.
    pub peer: NodeId,
    /// The term in which they are asked for.
    pub term: Term,
    /// Which entries.
    pub range: Range<Index>,
    /// How much of them at most, though at least one.
    pub max_bytes: usize,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// It has this place in the leader's log; it takes effect if that entry is applied, and never if another one is applied in its place.
    Placed(LogId),
    /// No leader took it. No effect.
    NotLeader,
    /// Too much is uncommitted. No effect.
    Busy,
    /// It was passed on, and no word came back: it may or may not take effect.
    Unknown,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It may be answered from a state in which everything up to here is applied.
    At(Index),
    /// No leader confirmed it.
    NotLeader,
}
