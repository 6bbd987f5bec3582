//! What an engine wants done.

use std::mem;
use std::ops::Range;

use bytes::Bytes;
use quorate_rt::Instant;

use super::Ticket;
use crate::error::InitializeError;
use crate::identity::Replica;
use crate::log_store::LogWrite;
use crate::membership::{ChangeId, ChangeReply, Membership};
use crate::message::Message;
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::{Index, LogId, Term};

/// What has come of all that was stepped since the last output. The parts may be carried out side
/// by side: nothing in it has to wait for another part.
#[derive(Debug, Default)]
pub struct Output {
    /// Make this durable, in the order of the numbers, and say so by
    /// [`Input::Persisted`](super::Input::Persisted).
    pub write: Option<(u64, LogWrite)>,
    /// Send these.
    pub messages: Vec<Message>,
    /// The log is now known to be committed up to here: apply it.
    pub committed: Option<Index>,
    /// What became of proposals.
    pub proposals: Vec<(Range<Ticket>, Proposal)>,
    /// What became of reads.
    pub reads: Vec<(Ticket, ReadOutcome)>,
    /// What few turns want.
    pub rare: Option<Box<Rare>>,
    /// When to step again at the latest, with [`Input::Wake`](super::Input::Wake); none if only a
    /// message can change anything.
    pub wake_at: Option<Instant>,
}

/// What few turns of an engine want done. It is apart, so that the others don't look for it.
#[derive(Debug, Default)]
pub struct Rare {
    /// Read these entries from the log and bring them by [`Input::Fetched`](super::Input::Fetched).
    pub fetches: Vec<Fetch>,
    /// Read these chunks of snapshots and bring them by
    /// [`Input::ChunkRead`](super::Input::ChunkRead).
    pub chunks: Vec<ReadChunk>,
    /// What is to be done, in order, about the snapshot that is coming in.
    pub receive_steps: Vec<ReceiveStep>,
    /// Restore the state machine from this snapshot, which the write makes the group's, before
    /// anything behind it is applied, unless that was done before
    /// [`Input::SnapshotReady`](super::Input::SnapshotReady). It covers more than was committed.
    pub restore: Option<SnapshotMeta>,
    /// Proposals that were passed on to the leader and that it can't read, and why. No effect.
    pub refused: Vec<(Ticket, String)>,
    /// What the leader says to requests for changes of the membership.
    pub changes: Vec<(ChangeId, ChangeReply)>,
    /// The membership in force has changed to this; none while there is none.
    pub membership: Option<Membership>,
    /// What this replica was in this term, leader or follower, it is no more. The nodes of the
    /// other members are to be told, as they may count on it: see
    /// [`Input::PeerHasLeft`](super::Input::PeerHasLeft).
    pub left: Option<Term>,
    /// Where replicas are reached may have changed: see
    /// [`Engine::addresses`](super::Engine::addresses).
    pub addresses_changed: bool,
    /// The group can't be formed as this node was told to.
    pub cannot_form: Option<InitializeError>,
    /// The store has less than others remember of it, and this is what. The node must stop at once.
    pub rolled_back: Option<String>,
}

/// What has come so far, since the last output. Its memory is lent by a caller that drives many
/// engines, or else made when it is needed.
#[derive(Default)]
pub(super) struct Pending(Option<Box<Output>>);

/// Memory that nobody has lent.
#[cold]
#[inline(never)]
fn made() -> Box<Output> {
    Box::default()
}

impl Pending {
    pub(super) fn get(&mut self) -> &mut Output {
        self.0.get_or_insert_with(made)
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.get().rare()
    }

    pub(super) fn take(&mut self) -> Box<Output> {
        self.0.take().unwrap_or_else(made)
    }

    /// Uses this memory, unless something has come already.
    pub(super) fn lend(&mut self, memory: &mut Option<Box<Output>>) {
        if self.0.is_none() {
            if let Some(output) = memory.as_mut() {
                output.clear();
            }
            mem::swap(&mut self.0, memory);
        }
    }
}

impl Output {
    /// What few turns want.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Makes it that of nothing, and keeps its memory.
    fn clear(&mut self) {
        let Self { write, messages, committed, proposals, reads, rare, wake_at } = self;
        messages.clear();
        proposals.clear();
        reads.clear();
        (*write, *committed, *rare, *wake_at) = (None, None, None, None);
    }

    /// Answers a proposal; those that are placed one after the other, as most are, all together.
    pub(super) fn answer(&mut self, ticket: Ticket, proposal: Proposal) {
        if let Proposal::Appended(placed) = proposal
            && let Some((tickets, Proposal::Appended(first))) = self.proposals.last_mut()
            && tickets.end == ticket
            && first.index.checked_add(ticket - tickets.start) == Some(placed.index)
            && (first.term, first.leader) == (placed.term, placed.leader)
        {
            tickets.end += 1;
        } else {
            self.proposals.push((ticket..ticket + 1, proposal));
        }
    }
}

/// Entries that a peer needs and that are not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The peer.
    pub peer: Replica,
    /// The term in which they are asked for.
    pub term: Term,
    /// Which entries.
    pub range: Range<Index>,
    /// How much of them at most, though at least one.
    pub max_bytes: usize,
}

/// A chunk of a snapshot that a peer needs. At most one for each peer is asked for at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadChunk {
    /// The peer.
    pub peer: Replica,
    /// The snapshot. It has been the group's, and is kept open for as long as chunks of it are
    /// asked for, whatever has taken its place.
    pub meta: SnapshotMeta,
    /// Where the chunk begins.
    pub offset: u64,
    /// Its length.
    pub len: usize,
}

/// What is to be done about the snapshot that is coming in from the leader. There is one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiveStep {
    /// Begin a draft. One that was begun before and not finished is discarded.
    Begin(Digest),
    /// Append this to it, and say so by [`Input::ChunkStored`](super::Input::ChunkStored), or by
    /// [`Input::SnapshotLost`](super::Input::SnapshotLost) where that can't be done.
    Chunk(Bytes),
    /// That was all: compare its digest and finish it, and tell by
    /// [`Input::SnapshotReady`](super::Input::SnapshotReady) or
    /// [`Input::SnapshotLost`](super::Input::SnapshotLost).
    End(SnapshotMeta),
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// It has this place in the leader's log, and those that follow it in its range of tickets have
    /// the following ones. It takes effect if that entry is applied, and never if an entry of a
    /// later term is applied before it or in its place.
    Appended(LogId),
    /// No leader took it. No effect.
    NotLeader,
    /// Too much is uncommitted, or on its way to the leader. No effect.
    Busy,
    /// The leader's disk is full. No effect.
    StorageFull,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Body;

    fn placed(term: u64, index: Index) -> Proposal {
        Proposal::Appended(LogId::new(term, 1, index))
    }

    #[test]
    fn proposals_that_are_placed_one_after_the_other_are_told_together() {
        let mut output = Output::default();
        let told = [
            (4, placed(2, 7)),
            (5, placed(2, 8)),
            (6, placed(2, 9)),
            (8, placed(2, 10)),  // Another ticket than the next,
            (9, placed(2, 12)),  // another place,
            (10, placed(3, 13)), // another leader;
            (11, Proposal::Busy),
            (12, Proposal::Busy),
            (13, placed(3, 14)),
        ];
        told.into_iter().for_each(|(ticket, proposal)| output.answer(ticket, proposal));
        let together = [
            (4..7, placed(2, 7)),
            (8..9, placed(2, 10)),
            (9..10, placed(2, 12)),
            (10..11, placed(3, 13)),
            (11..12, Proposal::Busy),
            (12..13, Proposal::Busy),
            (13..14, placed(3, 14)),
        ];
        assert_eq!(output.proposals, together);
    }

    #[test]
    fn nothing_is_left_of_an_output_that_is_cleared() {
        let (from, to) = (Replica::new(1, 1), Replica::new(2, 1));
        let body = Body::ReadIndex { sequence: 1 };
        let message = Message { group: 0, cluster: None, from, to, term: Term(2), body };
        let rare = Rare { left: Some(Term(2)), ..Rare::default() };
        let mut output = Output {
            write: Some((1, LogWrite::default())),
            messages: vec![message],
            committed: Some(9),
            proposals: vec![(1..2, Proposal::Busy)],
            reads: vec![(1, ReadOutcome::NotLeader)],
            rare: Some(Box::new(rare)),
            wake_at: Some(Instant::default()),
        };
        output.clear();
        assert_eq!(format!("{output:?}"), format!("{:?}", Output::default()));
    }
}
