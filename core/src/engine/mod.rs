//! The protocol as a function: inputs and the time go in, one batch of outputs comes out.
//!
//! No I/O, no clock, no async, no randomness but that of the seed: the same inputs give the same
//! outputs. [`Engine::step`] takes what has happened, [`Engine::take_output`] gives what is to be
//! done about all of it. Section numbers are those of Ongaro's thesis, "Consensus: Bridging Theory
//! and Practice" (2014).
//!
//! **For whom.** A service never meets an engine: [`Node`](crate::Node) drives those of its groups.
//! This module is public for tests, simulators and tools that step engines by hand. It is not
//! covered by semantic versioning.
//!
//! What only one role needs lives in that role: `follower`, `candidate`, `leader`. What all of them
//! share is `Common`.
//!
//! | file | concern |
//! | --- | --- |
//! | `mod.rs` | [`Engine`]: its inputs, its timers, and the changes of role |
//! | `input.rs`, `output.rs` | what an engine is told, and what it wants done |
//! | `messages.rs` | which messages are believed, and which role they concern |
//! | `view.rs` | what an engine shows of itself |
//! | `common.rs` | what every role needs: the log, the hard state, the time |
//! | `memories.rs` | what is remembered of others, by which a disk that was put back is noticed |
//! | `lines.rs` | how often the log tells of what others do wrong |
//! | `log.rs` | the identity of entries, what is durable, and what is purged |
//! | `follower.rs`, `candidate.rs`, `leader.rs` | the roles |
//! | `progress.rs`, `inflight.rs` | a leader's view of one peer, and the window to it |
//! | `round_trips.rs` | how long voters take to answer a candidate |
//! | `read_index.rs` | linearizable reads, both ends |
//! | `forward.rs` | writes passed on to the leader, both ends |
//! | `snapshot.rs` | a snapshot on its way to a follower, both ends |
//! | `liveness.rs` | groups at rest |
//! | `formation.rs` | forming a group |
//! | `change.rs`, `exchange.rs` | changes of the membership, and letting a new disk in for a lost one |
//! | `stamps.rs` | the times of entries |
//! | `transfer.rs` | leadership that is transferred |
//! | `configure.rs` | settings that change while it runs |

mod candidate;
mod change;
mod common;
mod configure;
mod exchange;
mod follower;
mod formation;
mod forward;
mod inflight;
mod input;
mod leader;
mod lines;
mod liveness;
mod log;
mod memories;
mod messages;
mod output;
mod progress;
mod read_index;
mod round_trips;
mod snapshot;
mod stamps;
mod transfer;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use litemap::LiteMap;
use quorate_rt::Instant;

use self::candidate::{Campaign, Candidate};
use self::common::{Common, shrink_map};
use self::follower::Follower;
use self::formation::Formation;
use self::leader::Leader;
use crate::config::Config;
use crate::error::InitializeError;
use crate::identity::{Boot, ClusterId, Replica, Standing};
use crate::log_store::{LogWrite, Recovered};
use crate::message::Refusal;
use crate::plant;
use crate::snapshot::SnapshotMeta;
use crate::types::{GroupId, HardState, NodeId, Term};

pub use self::input::{Input, Ticket};
pub(crate) use self::liveness::least_heard;
pub use self::output::{Fetch, Output, Proposal, Rare, ReadChunk, ReadOutcome, ReceiveStep};

/// One replica's part in one Raft group.
pub struct Engine {
    common: Common,
    role: State,
    /// It was told a list, and has no log yet.
    formation: Option<Box<Formation>>,
    /// The ids of the list that it was told last, whatever came of it.
    listed: Option<BTreeSet<NodeId>>,
    /// What the voters have answered last to this replica's requests for their votes, since it has
    /// lost its leader.
    answers: LiteMap<Replica, bool>,
}

/// Who an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// The node and its store.
    pub replica: Replica,
    /// This run of the node.
    pub boot: Boot,
    /// The cluster that the store belongs to, if it belongs to one.
    pub cluster: Option<ClusterId>,
}

enum State {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

impl Engine {
    /// An engine that goes on from what its store has recovered, as a follower. `seed` is all of
    /// its randomness: no two nodes, and no two runs of one, should have the same.
    pub fn new(
        local: Local,
        group: GroupId,
        config: impl Into<Arc<Config>>,
        recovered: Recovered,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut common = Common::new(local, group, config.into(), recovered, seed, now);
        let role = State::Follower(Follower::new(&mut common));
        Self { common, role, formation: None, listed: None, answers: LiteMap::new() }
    }

    /// The wall clock shows this, in milliseconds since the Unix epoch. A leader gives it to the
    /// entries that it places.
    pub fn set_wall_clock(&mut self, wall: u64) {
        self.common.wall = wall;
    }

    /// The node hosts so many groups, this one included. If they rest, all of them whose leader was
    /// on a node that dies learn it at the same moment, and their elections are spread over a
    /// millisecond for each, but at most over an election timeout. Without this call they are
    /// spread over an election timeout.
    pub fn set_groups(&mut self, groups: usize) {
        self.common.groups = u32::try_from(groups).unwrap_or(u32::MAX);
    }

    /// The store belongs to this cluster: another group of it has joined it since.
    pub fn set_cluster(&mut self, cluster: ClusterId) {
        self.common.cluster.get_or_insert(cluster);
    }

    /// Forms a group of the nodes of this list, or waits until the node with the lowest id of it
    /// does. Every node of the list may be told it, or only that one. The group is formed when
    /// there is a [`membership`](Self::membership); that it can't be is told by
    /// [`Rare::cannot_form`].
    ///
    /// Nothing happens in a group that was founded with the same ids, or is being formed with them.
    ///
    /// Errors: the group was founded with another list, is being formed with one, or may not be
    /// formed by this replica.
    pub fn initialize(
        &mut self,
        now: Instant,
        list: BTreeMap<NodeId, String>,
    ) -> Result<(), InitializeError> {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        let listed: BTreeSet<NodeId> = list.keys().copied().collect();
        if *self.common.standing() == Standing::Spent {
            return Err(InitializeError::Spent);
        }
        if let Some(membership) = self.common.membership() {
            let founders = membership.founders();
            return match listed == *founders {
                true => Ok(()),
                false => Err(InitializeError::Founded { founders: founders.clone(), listed }),
            };
        }
        if let Some(formation) = &self.formation {
            return formation.compare(self.common.me.id, listed);
        }
        self.listed = Some(listed);
        self.formation = Some(Box::new(Formation::new(&mut self.common, list)?));
        self.common.out.rare().addresses_changed = true;
        // A claim of an earlier run is durable already, and may need nobody else.
        self.form();
        Ok(())
    }

    /// Clients want these commands replicated. The answers bear the tickets `first`, `first + 1`
    /// and so on. It is a step like others, and takes many at once, as they mostly come.
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
                tickets
                    .zip(commands)
                    .for_each(|(t, _)| common.out.get().answer(t, Proposal::NotLeader));
            }
        }
    }

    /// Whether a command of so many bytes, beside those that were proposed before it, is placed
    /// here or passed on to the leader now. Otherwise it would be refused: no leader is known, the
    /// leader [hands over](Self::hands_over), or so much is on its way to the leader that it has to
    /// wait (R20).
    pub fn takes(&self, bytes: usize) -> bool {
        match &self.role {
            State::Leader(leader) => !leader.hands_over(),
            State::Follower(follower) => follower.takes(&self.common, bytes),
            State::Candidate(_) => false,
        }
    }

    /// The transport has not taken this [`Body::Forward`](crate::Body::Forward). Gives the tickets
    /// of its writes, which have no effect.
    pub fn forward_not_taken(&mut self, sequence: u64) -> Vec<Ticket> {
        self.common.forwards.not_taken(sequence)
    }

    /// Before a [`Body::Forward`](crate::Body::Forward) is stepped, the leader's caller takes out
    /// of it the commands that can't be read, and says which they were. The answer to the forward
    /// tells of them.
    pub fn refuse(&mut self, refused: Vec<Refusal>) {
        self.common.refused = refused;
    }

    /// Takes note of something that has happened by `now`.
    pub fn step(&mut self, now: Instant, input: Input) {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        match input {
            Input::Message(message) => self.on_message(message),
            Input::Read { ticket } => match &mut self.role {
                State::Leader(leader) => leader.read(&self.common, ticket),
                State::Follower(follower) => follower.read(&mut self.common, ticket),
                State::Candidate(_) => {
                    self.common.out.get().reads.push((ticket, ReadOutcome::NotLeader));
                }
            },
            Input::Delayed { write } => self.common.log.delayed(write),
            Input::Persisted { write } => {
                self.common.persisted(write);
                if let Some(formation) = &mut self.formation {
                    formation.persisted(&mut self.common);
                    self.form();
                }
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
            Input::Change(request) => self.on_change(None, *request),
            Input::Resign => {
                if let State::Leader(leader) = &mut self.role {
                    leader.resign(&self.common);
                }
            }
            Input::ChunkRead { peer, digest, offset, chunk } => {
                if let State::Leader(leader) = &mut self.role {
                    leader.chunk_read(&mut self.common, peer, digest, offset, chunk);
                }
            }
            Input::ChunkStored { digest, stored } => {
                self.common.chunk_stored(self.leader(), digest, stored);
            }
            Input::SnapshotLost { digest } => self.common.snapshot_lost(self.leader(), digest),
            Input::SnapshotReady(meta) => self.on_snapshot_ready(meta),
            Input::Purge => self.purge_behind_snapshot(0),
            Input::Remembered { from, memory } => {
                let lacks = self.common.lacks(from, &memory).filter(|_| !self.common.is_void());
                plant!(I4, lacks = None);
                if let Some(what) = lacks {
                    self.common.out.rare().rolled_back = Some(what);
                }
            }
            Input::Met { replica, boot } => self.on_met(replica, boot),
            Input::NodeIsAlive { replica, boot } => self.on_node_alive(replica, boot),
            Input::NodeIsSilent { replica, heard } => self.on_node_silent(replica, heard),
            Input::PeerHasLeft { replica, term } => self.on_peer_left(replica, term),
            Input::Wake => self.on_time(),
        }
    }

    /// What of all that was stepped is to be made durable so far: the first part of the output, for
    /// a caller whose store may be done with it at once. It steps that by [`Input::Persisted`], and
    /// what follows from it is part of the output. (Of a caller who doesn't ask, all of it is.)
    pub fn take_write(&mut self) -> Option<(u64, LogWrite)> {
        if !self.common.is_unsaved() {
            return None;
        }
        if self.common.marks_are_due() {
            self.remember_others();
        }
        self.common.take_write()
    }

    /// Lends memory for the next output: the last one, of this engine or of another. It is taken
    /// unless something has come since the last output.
    pub fn lend(&mut self, memory: &mut Option<Box<Output>>) {
        self.common.out.lend(memory);
    }

    /// What is to be done about all that was stepped since the last call. (It is boxed because
    /// moving it would be some 2 % of a lone write's instructions.)
    pub fn take_output(&mut self) -> Box<Output> {
        let common = &mut self.common;
        match &mut self.role {
            State::Leader(leader) => leader.finish_turn(common),
            State::Follower(follower) => follower.finish_turn(common),
            State::Candidate(_) => {}
        }
        if let Some(write) = self.take_write() {
            self.common.out.get().write = Some(write);
        }
        let common = &mut self.common;
        common.log.end_turn();
        let role_at = match &self.role {
            State::Leader(leader) => leader.wake_at(),
            State::Follower(follower) => follower.wake_at(common),
            State::Candidate(candidate) => Some(candidate.wake_at()),
        };
        let forming_at = self.formation.as_ref().map(|formation| formation.wake_at());
        let forwards_at = common.forwards.wake_at();
        let mut output = common.out.take();
        output.wake_at = Instant::earliest([role_at, forming_at, forwards_at]);
        if output.wake_at.is_none() && output.committed.is_none() && output.write.is_none() {
            // It may rest for long, and be one of many.
            common.shrink();
            shrink_map(&mut self.answers);
            if let State::Leader(leader) = &mut self.role {
                leader.shrink();
            }
        }
        output
    }

    fn on_node_alive(&mut self, replica: Replica, boot: Boot) {
        let common = &mut self.common;
        let Some(membership) = common.log.membership() else { return };
        common.node_states.retain(|other| membership.is_member(other));
        if !membership.is_member(replica) {
            return;
        }
        common.node_states.is_alive(replica, boot);
        match &mut self.role {
            State::Leader(leader) => leader.rouse(replica, common.now),
            State::Follower(follower) => follower.node_is_alive(common, replica),
            State::Candidate(_) => {}
        }
    }

    fn on_node_silent(&mut self, replica: Replica, heard: Instant) {
        plant!(V3, return);
        let common = &mut self.common;
        common.node_states.is_silent(replica);
        match &mut self.role {
            State::Leader(leader) => leader.node_is_silent(replica, heard),
            State::Follower(follower) => follower.misses(common, replica, Some(heard)),
            State::Candidate(_) => {}
        }
        self.on_time();
    }

    fn on_peer_left(&mut self, replica: Replica, term: Term) {
        let common = &mut self.common;
        if term < common.hard_state.term {
            return; // It tells of an earlier role than the one that is known.
        }
        match &mut self.role {
            State::Leader(leader) => leader.rouse(replica, common.now),
            State::Follower(follower) => follower.misses(common, replica, None),
            State::Candidate(_) => {}
        }
    }

    /// A snapshot that was taken here, or one that has come in, is whole and durable.
    fn on_snapshot_ready(&mut self, meta: SnapshotMeta) {
        let installed = self.common.snapshot_ready(meta);
        if installed && let State::Follower(follower) = &mut self.role {
            follower.installed(&self.common);
        }
        if installed && self.formation.is_some() {
            self.joined();
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
        if !candidate.is_elected(&self.common) {
            return;
        }
        if candidate.pre {
            self.campaign(Campaign::Elect);
        } else {
            let (me, term) = (self.common.me, self.common.hard_state.term);
            tracing::info!(%me, %term, "leads");
            self.role = State::Leader(Box::new(Leader::new(&mut self.common)));
        }
    }

    /// Writes the first entry if all have accepted this founder's claim, and campaigns: nobody else
    /// can.
    fn form(&mut self) {
        let first = self.formation.as_ref().and_then(|f| f.first_entry(&self.common));
        if let Some(first) = first {
            self.common.append(first);
            self.joined();
            self.campaign_before_vote();
        }
    }

    /// The log has begun.
    fn joined(&mut self) {
        self.formation = None;
        self.common.out.rare().addresses_changed = true;
    }

    /// The group can't be formed as it was told.
    fn refuse_formation(&mut self, error: InitializeError) {
        if self.formation.take().is_some() {
            self.common.out.rare().cannot_form = Some(error);
            self.common.out.rare().addresses_changed = true;
        }
    }

    fn on_time(&mut self) {
        if let Some(formation) = &mut self.formation {
            formation.on_time(&mut self.common);
        }
        self.common.give_up_forwards();
        match &mut self.role {
            State::Follower(follower) => {
                if follower.election_is_due(&self.common) {
                    self.campaign_before_vote();
                } else {
                    follower.on_time(&mut self.common);
                }
            }
            State::Candidate(candidate) => {
                if !candidate.election_is_due(&self.common) {
                    candidate.on_time(&mut self.common);
                } else if self.common.campaigns() {
                    self.campaign_before_vote();
                } else {
                    self.become_follower(self.common.hard_state.term);
                }
            }
            State::Leader(leader) => {
                if let Some(reason) = leader.on_time(&mut self.common) {
                    tracing::info!(me = %self.common.me, ?reason, "stepped down");
                    self.become_follower(self.common.hard_state.term);
                }
            }
        }
    }

    /// Asks the others whether they would vote for this node, which changes nothing for them (9.6),
    /// or campaigns at once, as the settings say.
    fn campaign_before_vote(&mut self) {
        if self.leader().is_some() {
            self.answers.clear();
            self.common.round_trips.forget();
        } else {
            self.answers.retain(|voter, _| self.common.voters.contains(*voter));
            self.common.round_trips.retain(&self.common.voters);
        }
        self.leave_role();
        let Some(term) = self.common.next_term() else {
            // Not at once again, in whichever role.
            match &mut self.role {
                State::Follower(follower) => follower.wait_for_leader(&mut self.common),
                State::Candidate(candidate) => candidate.wait(&mut self.common),
                State::Leader(_) => {}
            }
            return;
        };
        let asks = self.common.config.pre_vote;
        plant!(E6, asks = false);
        if !asks {
            self.common.admit_voters();
            return self.campaign(Campaign::Elect);
        }
        let has_yielded = matches!(&self.role, State::Follower(f) if f.has_yielded());
        let candidate = Candidate::new(&mut self.common, Campaign::Ask, term, has_yielded);
        self.role = State::Candidate(candidate);
        self.count_votes();
    }

    fn campaign(&mut self, campaign: Campaign) {
        let Some(term) = self.common.next_term() else { return };
        self.leave_role();
        let common = &mut self.common;
        common.set_hard_state(HardState { term, voted_for: Some(common.me) });
        let candidate = Candidate::new(common, campaign, term, false);
        self.role = State::Candidate(candidate);
    }

    /// Gives up its role, if it has any to give up, and waits for a leader of `term`.
    fn become_follower(&mut self, term: Term) {
        self.leave_role();
        let common = &mut self.common;
        assert!(term >= common.hard_state.term, "terms never fall");
        if term > common.hard_state.term {
            common.set_hard_state(HardState { term, voted_for: None });
        }
        // A follower goes on waiting: a candidate that nobody elects must not keep the others from
        // campaigning.
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
                self.answers.clear();
                if self.common.committed >= leader.first {
                    // A quorum has answered in time. What comes now has another cause than what
                    // was measured before.
                    self.common.round_trips.forget();
                }
                leader.leave(&mut self.common);
                let left = Some(self.common.hard_state.term);
                plant!(V2, left = self.common.out.rare().left);
                self.common.out.rare().left = left;
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
