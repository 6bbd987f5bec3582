//! The protocol as a function: inputs and the time go in, one batch of outputs comes out.
//!
//! No I/O, no clock, no async, no randomness but that of the seed: the same inputs give the same outputs. [`Engine::step`] takes what has happened,
//! [`Engine::take_output`] gives what is to be done about all of it. Section numbers are those of Ongaro's thesis,
//! "Consensus: Bridging Theory and Practice" (2014).
//!
//! What only one role needs lives in that role: `follower`, `candidate`, `leader`. What all of them share is `Common`.

mod candidate;
mod catching_up;
mod common;
mod follower;
mod forward;
mod inflight;
mod input;
mod leader;
mod log;
mod messages;
mod output;
mod progress;
mod reads;
mod snapshot;

use std::mem;

use bytes::Bytes;
use quorate_rt::Instant;
use quorate_rt::planted::{Bug, planted};

use self::candidate::{Campaign, Candidate};
use self::common::Common;
use self::follower::Follower;
use self::leader::Leader;
use self::log::Log;
use crate::config::Config;
use crate::log_store::{LogWrite, Recovered};
use crate::membership::Membership;
use crate::metrics::{PeerMetrics, Role};
use crate::snapshot::SnapshotMeta;
use crate::types::{Entry, GroupId, HardState, Index, LogId, NodeId, Payload, Term};

pub use self::input::{Input, Ticket};
pub use self::output::{Fetch, Incoming, Output, PieceRead, Proposal, ReadOutcome};

/// One node's part in one Raft group.
pub struct Engine {
    common: Common,
    role: State,
}

enum State {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

impl Engine {
    /// An engine that goes on from what its store has recovered, as a follower. `seed` is all of its randomness: no two nodes,
    /// and no two runs of one, should have the same.
    pub fn new(
        id: NodeId,
        group: GroupId,
        config: Config,
        recovered: Recovered,
        seed: u64,
        now: Instant,
    ) -> Self {
        assert!(id != 0, "a node id must not be 0");
        let Recovered { hard_state, outline, snapshot } = recovered;
        assert!(
            outline.last().term <= hard_state.term,
            "the log ends in term {}, but the hard state knows of term {} only",
            outline.last().term,
            hard_state.term
        );
        let mut random = fastrand::Rng::with_seed(seed);
        let session = random.u64(..);
        // Not from 0: an answer to a question of an earlier run must not pass for one to a later question (L3).
        let sequence = random.u64(..) >> 1;
        let mut common = Common {
            id,
            group,
            config,
            random,
            now,
            log: Log::new(outline, snapshot.clone()),
            hard_state,
            durable_hard_state: hard_state,
            submitted_hard_state: hard_state,
            committed: 0,
            reach: None,
            voters: Vec::new(),
            held: Vec::new(),
            receiving: None,
            session,
            sequence,
            refused: Vec::new(),
            out: Box::default(),
        };
        common.membership_changed();
        if let Some(snapshot) = snapshot {
            common.commit_to(snapshot.log_id.index);
            common.out.restore = Some(snapshot);
        }
        let role = State::Follower(Follower::new(&mut common));
        Self { common, role }
    }

    /// Forms a cluster: appends the first entry of all, which holds its membership. Every node of the membership may be
    /// told to, with the same membership, or only one of them.
    ///
    /// False, and nothing has changed, if the node has a log or knows of a term: it is part of a cluster already.
    pub fn initialize(&mut self, now: Instant, membership: Membership) -> bool {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        let common = &mut self.common;
        if common.log.last() != LogId::ZERO || common.hard_state != HardState::default() {
            return false;
        }
        common.append(Entry { log_id: LogId::FIRST, payload: Payload::Membership(membership) });
        self.role = State::Follower(Follower::new(common));
        true
    }

    /// Clients want these commands replicated. The answers bear the tickets `first`, `first + 1` and so on. It is a step like others, and takes many at
    /// once, as they mostly come.
    pub fn propose(
        &mut self,
        now: Instant,
        first: Ticket,
        commands: impl IntoIterator<Item = Bytes>,
    ) {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        let common = &mut self.common;
        let tickets = first..;
        match &mut self.role {
            State::Leader(leader) => leader.propose(common, first, commands),
            State::Follower(follower) => {
                tickets.zip(commands).for_each(|(t, command)| follower.propose(common, t, command));
            }
            State::Candidate(_) => {
                tickets.zip(commands).for_each(|(t, _)| common.out.tell(t, Proposal::NotLeader));
            }
        }
    }

    /// Takes note of something that has happened by `now`.
    pub fn step(&mut self, now: Instant, input: Input) {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        match input {
            Input::Message(message) => self.on_message(message),
            Input::Forward { message, refused } => {
                self.common.refused = refused;
                self.on_message(message);
                self.common.refused.clear();
            }
            Input::Read { ticket } => match &mut self.role {
                State::Leader(leader) => leader.read(&self.common, ticket),
                State::Follower(follower) => follower.read(&mut self.common, ticket),
                State::Candidate(_) => {
                    self.common.out.reads.push((ticket, ReadOutcome::NotLeader));
                }
            },
            Input::Persisted { write } => {
                self.common.persisted(write);
                if let State::Candidate(candidate) = &mut self.role {
                    candidate.count_own_vote(&self.common);
                    self.count_votes();
                }
            }
            Input::Fetched { peer, term, entries } => {
                if let State::Leader(leader) = &mut self.role
                    && term == self.common.hard_state.term
                {
                    leader.fetched(&mut self.common, peer, entries);
                }
            }
            Input::Resign => {
                if let State::Leader(leader) = &mut self.role {
                    leader.resign(&self.common);
                }
            }
            Input::PieceRead { peer, digest, offset, chunk } => {
                if let State::Leader(leader) = &mut self.role {
                    leader.piece_read(&mut self.common, peer, digest, offset, chunk);
                }
            }
            Input::PieceStored { digest, stored } => {
                self.common.piece_stored(self.leader(), digest, stored);
            }
            Input::SnapshotLost { digest } => self.common.snapshot_lost(self.leader(), digest),
            Input::SnapshotReady(meta) => self.on_snapshot_ready(meta),
            Input::Purge => self.purge_behind_snapshot(0),
            Input::Wake => self.on_time(),
        }
    }

    /// What of all that was stepped is to be made durable so far: the first part of the output, for a caller whose store may be done with it at once. It steps
    /// that by [`Input::Persisted`], and what follows from it is part of the output. (Of a caller who doesn't ask, all of it is.)
    pub fn take_write(&mut self) -> Option<(u64, LogWrite)> {
        let common = &mut self.common;
        let unsaved = common.hard_state != common.submitted_hard_state;
        common.submitted_hard_state = common.hard_state;
        common.log.take_write(unsaved.then_some(common.hard_state), common.now)
    }

    /// What is to be done about all that was stepped since the last call: it takes the place of `output`, whose memory is used for the next. (It is
    /// boxed because moving it would be some 2 % of a lone write's instructions.)
    pub fn take_output(&mut self, output: &mut Box<Output>) {
        let common = &mut self.common;
        match &mut self.role {
            State::Leader(leader) => leader.finish_turn(common),
            State::Follower(follower) => follower.finish_turn(common),
            State::Candidate(_) => {}
        }
        let write = self.take_write();
        let common = &mut self.common;
        common.log.end_turn();
        common.out.write = write;
        common.out.wake_at = match &self.role {
            State::Leader(leader) => Some(leader.wake_at()),
            State::Follower(follower) => follower.wake_at(common),
            State::Candidate(candidate) => Some(candidate.election_at),
        };
        mem::swap(&mut common.out, output);
        common.out.clear();
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match &self.role {
            State::Follower(_) => Role::Follower,
            State::Candidate(candidate) if candidate.pre => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Its term and vote.
    pub fn hard_state(&self) -> HardState {
        self.common.hard_state
    }

    /// The leader of its term, when known.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            State::Follower(follower) => follower.leader(),
            State::Candidate(_) => None,
            State::Leader(_) => Some(self.common.id),
        }
    }

    /// Whether it leads, and wants to hand over; see [`Input::Resign`].
    pub fn is_resigning(&self) -> bool {
        matches!(&self.role, State::Leader(leader) if leader.is_resigning())
    }

    /// The last entry of its log.
    pub fn last_log_id(&self) -> LogId {
        self.common.log.last()
    }

    /// Up to here its own disk has the log.
    pub fn durable(&self) -> Index {
        self.common.log.durable()
    }

    /// Up to here it knows the log to be committed.
    pub fn committed(&self) -> Index {
        self.common.committed
    }

    /// Its snapshot.
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.common.log.snapshot()
    }

    /// The last entry that is purged from its log; [`LogId::ZERO`] if none is.
    pub fn purged(&self) -> LogId {
        self.common.log.purged()
    }

    /// Whether its disk knows of the snapshot, and of what is purged.
    pub fn compaction_is_durable(&self) -> bool {
        self.common.log.compaction_is_durable()
    }

    /// The membership in force.
    pub fn membership(&self) -> Option<&Membership> {
        self.common.log.membership()
    }

    /// On a leader, what it knows of its peers.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, PeerMetrics)> {
        let leader = match &self.role {
            State::Leader(leader) => Some(leader),
            State::Follower(_) | State::Candidate(_) => None,
        };
        leader.into_iter().flat_map(|leader| leader.peers(self.common.now))
    }

    /// A snapshot that was taken here, or one that has come in, is whole and durable.
    fn on_snapshot_ready(&mut self, meta: SnapshotMeta) {
        let installed = self.common.snapshot_ready(meta);
        if installed && let State::Follower(follower) = &mut self.role {
            follower.installed(&self.common);
        }
        self.purge_behind_snapshot(self.common.config.retained_bytes);
    }

    fn purge_behind_snapshot(&mut self, retained: u64) {
        let needed = match &self.role {
            State::Leader(leader) => leader.needed_after(&self.common),
            State::Follower(_) | State::Candidate(_) => None,
        };
        self.common.purge_behind_snapshot(retained, needed);
    }

    fn count_votes(&mut self) {
        let State::Candidate(candidate) = &self.role else { return };
        let Some(elected) = candidate.elected(&self.common) else { return };
        if candidate.pre {
            self.campaign(Campaign::Elect);
        } else {
            self.role = State::Leader(Box::new(Leader::new(&mut self.common, elected)));
        }
    }

    fn on_time(&mut self) {
        match &mut self.role {
            State::Follower(follower) => {
                if follower.election_is_due(&self.common) {
                    self.campaign_before_vote();
                } else {
                    follower.on_time(&mut self.common);
                }
            }
            State::Candidate(candidate) => {
                if self.common.now >= candidate.election_at {
                    self.campaign_before_vote();
                }
            }
            State::Leader(leader) => {
                if let Some(reason) = leader.on_time(&mut self.common) {
                    tracing::info!(id = self.common.id, ?reason, "stepped down");
                    self.become_follower(self.common.hard_state.term);
                }
            }
        }
    }

    /// Asks the others whether they would vote for this node, which changes nothing for them (9.6).
    fn campaign_before_vote(&mut self) {
        if planted(Bug::E6) {
            return self.campaign(Campaign::Elect);
        }
        self.leave_role();
        let candidate = Candidate::new(&mut self.common, Campaign::Ask);
        self.role = State::Candidate(candidate);
        self.count_votes();
    }

    fn campaign(&mut self, campaign: Campaign) {
        self.leave_role();
        let common = &mut self.common;
        common.hard_state = HardState {
            term: common.hard_state.term.next(),
            voted_for: Some(common.id),
            ..common.hard_state
        };
        let candidate = Candidate::new(common, campaign);
        self.role = State::Candidate(candidate);
    }

    /// Gives up its role, if it has any to give up, and waits for a leader of `term`.
    fn become_follower(&mut self, term: Term) {
        self.leave_role();
        let common = &mut self.common;
        assert!(term >= common.hard_state.term, "terms never fall");
        if term > common.hard_state.term {
            common.hard_state = HardState { term, voted_for: None, ..common.hard_state };
        }
        // A follower goes on waiting: a candidate that nobody elects must not keep the others from campaigning.
        if !matches!(self.role, State::Follower(_)) {
            self.role = State::Follower(Follower::new(common));
        }
    }

    /// Answers all who wait for this node as leader, or for the leader that it has followed.
    fn leave_role(&mut self) {
        match &mut self.role {
            State::Follower(follower) => follower.leave_leader(&mut self.common),
            State::Candidate(_) => {}
            State::Leader(leader) => {
                leader.leave(&mut self.common);
                self.common.placed_are_lost();
            }
        }
    }

    fn follows_live_leader(&self) -> bool {
        match &self.role {
            State::Follower(follower) => follower.has_live_leader(&self.common),
            State::Candidate(_) => false,
            // Check-quorum makes it step down if it isn't alive.
            State::Leader(_) => true,
        }
    }
}
