//! Linearizable reads by read index (6.4): both ends of it.
//!
//! A leader notes its commit index, and the reads that wait may be answered from there on once a
//! quorum has answered a *round* that began after they came: then nobody else was leader at that
//! moment. One round at a time, for all the reads that wait.

use std::collections::BTreeMap;
use std::mem;

use quorate_rt::Instant;

use super::{Common, ReadOutcome, Ticket};
use crate::identity::Replica;
use crate::membership::{ChangeId, ChangeReply};
use crate::message::Body;
use crate::plant;
use crate::types::Index;

/// So many answers to requests for changes wait for a round. It is far more than operators ask for
/// at a time, and each may hold a configuration.
const MAX_HELD: usize = 64;

/// The leader's end.
#[derive(Default)]
pub(super) struct ReadIndexRounds {
    /// The number of the last round. It goes out with each append.
    round: u64,
    waiting: Readers,
    /// Since when the first of them waits.
    since: Option<Instant>,
    confirming: Option<(Index, Readers)>,
}

/// Whom a leader answers.
#[derive(Default)]
struct Readers {
    clients: Vec<Ticket>,
    /// A follower asks one question at a time: only its latest one matters.
    peers: BTreeMap<Replica, u64>,
    /// Answers about the configuration in force, which only who still leads may give.
    changes: Vec<ChangeAnswer>,
}

/// What is to be said to a request for a change of the membership, and to whom: to a node of this
/// group, or here.
pub(super) struct ChangeAnswer {
    pub(super) to: Option<Replica>,
    pub(super) id: ChangeId,
    pub(super) reply: ChangeReply,
}

impl ReadIndexRounds {
    pub(super) fn round(&self) -> u64 {
        self.round
    }

    /// A client of this node reads.
    pub(super) fn read(&mut self, now: Instant, ticket: Ticket) {
        self.waiting.clients.push(ticket);
        self.since.get_or_insert(now);
    }

    /// A follower asks, for clients of its own.
    pub(super) fn ask(&mut self, now: Instant, peer: Replica, sequence: u64) {
        self.waiting.peers.insert(peer, sequence);
        self.since.get_or_insert(now);
    }

    /// An answer to a request for a change waits until it is known that this replica still leads. A
    /// copy of the request waits for the same answer. Gives whether there is room for it.
    pub(super) fn hold(&mut self, now: Instant, answer: ChangeAnswer) -> bool {
        let has_room = self.waiting.changes.len() < MAX_HELD;
        if has_room {
            self.waiting.changes.push(answer);
            self.since.get_or_insert(now);
        }
        has_room
    }

    pub(super) fn holds(&self, id: ChangeId) -> bool {
        let confirming = self.confirming.iter().map(|(_, readers)| readers);
        confirming.chain([&self.waiting]).any(|of| of.changes.iter().any(|held| held.id == id))
    }

    /// Refuses those who have waited long enough: a leader whose first entry is not committed, as
    /// the disks of its peers hang, may lead on like this.
    pub(super) fn on_time(&mut self, common: &mut Common) {
        let timeout = common.config.request_timeout;
        if self.since.is_some_and(|since| since + timeout <= common.now) {
            self.since = None;
            mem::take(&mut self.waiting).answer(common, None);
        }
    }

    /// Begins a round if one is wanted and none is under way; whether it did.
    pub(super) fn begin(&mut self, common: &Common) -> bool {
        let Readers { clients, peers, changes } = &self.waiting;
        let wanted = !clients.is_empty() || !peers.is_empty() || !changes.is_empty();
        if self.confirming.is_some() || !wanted {
            return false;
        }
        self.round += 1;
        self.since = None;
        self.confirming = Some((common.committed, mem::take(&mut self.waiting)));
        true
    }

    /// Whether a round is under way for which somebody waits.
    pub(super) fn is_confirming(&self) -> bool {
        self.confirming.is_some()
    }

    /// Whether anybody waits, for a round under way or for the next.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_confirming() || self.since.is_some()
    }

    /// Goes on to another round, for which nobody waits. Who waits for the present one is confirmed
    /// by that, which is later.
    pub(super) fn skip(&mut self) {
        self.round += 1;
    }

    /// A quorum has answered round `round`. Gives the answers to requests for changes that may be
    /// given now.
    pub(super) fn confirmed(&mut self, common: &mut Common, round: u64) -> Vec<ChangeAnswer> {
        let is_latest = round == self.round;
        plant!(L3, is_latest = is_latest || round > 0);
        if is_latest && let Some((index, readers)) = self.confirming.take() {
            return readers.answer(common, Some(index));
        }
        Vec::new()
    }

    /// It does not lead any more. Whoever wants a change asks again.
    pub(super) fn abandon(&mut self, common: &mut Common) {
        mem::take(&mut self.waiting).answer(common, None);
        if let Some((_, readers)) = self.confirming.take() {
            readers.answer(common, None);
        }
    }
}

impl Readers {
    /// Gives what is not answered by it.
    fn answer(self, common: &mut Common, index: Option<Index>) -> Vec<ChangeAnswer> {
        let outcome = index.map_or(ReadOutcome::NotLeader, ReadOutcome::At);
        common.out.get().reads.extend(self.clients.into_iter().map(|ticket| (ticket, outcome)));
        for (peer, sequence) in self.peers {
            let time = common.log.time();
            common.send(peer, Body::ReadIndexReply { sequence, index, time });
        }
        self.changes
    }
}

/// The follower's end.
#[derive(Default)]
pub(super) struct ReadIndexRequests {
    waiting: Vec<Ticket>,
    /// When those began to wait.
    since: Option<Instant>,
    asked: Option<PendingRequest>,
}

struct PendingRequest {
    sequence: u64,
    tickets: Vec<Ticket>,
    /// A question may be lost, and asking again does no harm.
    again_at: Instant,
    deadline: Instant,
}

impl ReadIndexRequests {
    pub(super) fn read(&mut self, ticket: Ticket) {
        self.waiting.push(ticket);
    }

    /// Asks for all that wait, if no question is under way.
    pub(super) fn send(&mut self, common: &mut Common, leader: Replica) {
        if self.waiting.is_empty() {
            return;
        }
        let since = *self.since.get_or_insert(common.now);
        if self.asked.is_none() {
            self.since = None;
            common.sequence += 1;
            let sequence = common.sequence;
            common.send(leader, Body::ReadIndex { sequence });
            self.asked = Some(PendingRequest {
                sequence,
                tickets: mem::take(&mut self.waiting),
                again_at: common.now + common.config.heartbeat_interval,
                deadline: since + common.config.request_timeout,
            });
        }
    }

    /// Answers those who wait. Whether this was asked.
    pub(super) fn on_reply(
        &mut self,
        common: &mut Common,
        sequence: u64,
        index: Option<Index>,
    ) -> bool {
        let Some(asked) = self.asked.take_if(|asked| asked.sequence == sequence) else {
            return false;
        };
        let outcome = index.map_or(ReadOutcome::NotLeader, ReadOutcome::At);
        common.out.get().reads.extend(asked.tickets.into_iter().map(|ticket| (ticket, outcome)));
        true
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.asked.as_ref().map(|asked| asked.again_at.min(asked.deadline))
    }

    pub(super) fn on_time(&mut self, common: &mut Common, leader: Replica) {
        if let Some(asked) = self.asked.take_if(|asked| common.now >= asked.deadline) {
            refuse(common, asked.tickets);
        } else if let Some(asked) = &mut self.asked
            && common.now >= asked.again_at
        {
            asked.again_at = common.now + common.config.heartbeat_interval;
            let sequence = asked.sequence;
            common.send(leader, Body::ReadIndex { sequence });
        }
    }

    /// The leader is not to be waited for any more.
    pub(super) fn abandon(self, common: &mut Common) {
        refuse(common, self.waiting);
        let asked = self.asked;
        plant!(L6, asked = None);
        if let Some(asked) = asked {
            refuse(common, asked.tickets);
        }
    }
}

fn refuse(common: &mut Common, tickets: Vec<Ticket>) {
    common
        .out
        .get()
        .reads
        .extend(tickets.into_iter().map(|ticket| (ticket, ReadOutcome::NotLeader)));
}
