//! A replica that leads: replication, commitment, rounds, check-quorum.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use litemap::LiteMap;
use quorate_rt::Instant;

use super::change::OngoingChange;
use super::common::shrink_map;
use super::exchange::SILENT_TIMEOUTS;
use super::forward::ForwardDedup;
use super::progress::{Mode, Progress};
use super::read_index::ReadIndexRounds;
use super::snapshot::OutgoingSnapshot;
use super::stamps::Stamps;
use super::transfer::{OngoingTransfer, RETRY_TIMEOUTS};
use super::{Common, Fetch, Proposal, Ticket};
use crate::config::Config;
use crate::entries::Entries;
use crate::identity::{Replica, Standing};
use crate::leadership::TransferFailure;
use crate::membership::Membership;
use crate::message::{AppendOutcome, Body, ForwardOutcome};
use crate::metrics::PeerMetrics;
use crate::plant;
use crate::snapshot::Digest;
use crate::types::{Entry, Index, LogId, Payload};

pub(super) struct Leader {
    /// The other members of the configuration in force, with a vote or without.
    pub(super) peers: LiteMap<Replica, Progress>,
    /// Its first entry, a no-op. Before that is committed, it doesn't know what is (3.6.2, 6.4).
    pub(super) first: Index,
    pub(super) heartbeat_at: Instant,
    pub(super) read_index: ReadIndexRounds,
    /// What it has appended and not yet committed, by index and in bytes.
    uncommitted: VecDeque<(Index, usize)>,
    uncommitted_bytes: usize,
    pub(super) transfer: Option<OngoingTransfer>,
    /// Why the last transfer of this leadership was given up.
    pub(super) failed_transfer: Option<TransferFailure>,
    /// While its disk is full, it tries to transfer leadership again from then on.
    pub(super) yields_at: Instant,
    /// There is a voter of a higher priority that may take over; not before that time.
    pub(super) awaits_preferred: bool,
    pub(super) prefers_at: Instant,
    /// When it last asked for the new disks of silent voters.
    pub(super) asked_at: Instant,
    pub(super) change: OngoingChange,
    pub(super) stamps: Stamps,
    /// When it has something to do by time, as of the last turn; none while all rests.
    wake_at: Option<Instant>,
}

/// Why a leader leads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepDown {
    /// Nobody answers it.
    NoQuorum,
    /// Its disk hangs.
    Disk,
    /// It is no part of the configuration that it has committed.
    Removed,
}

/// The identity of the next entry that the leader appends.
fn next(common: &Common) -> LogId {
    LogId { term: common.hard_state.term, leader: common.me.id, index: common.log.last().index + 1 }
}

impl Leader {
    pub(super) fn new(common: &mut Common) -> Self {
        assert!(common.durable_hard_state == common.hard_state, "leads before its vote is durable");
        let first = next(common);
        let now = common.now;
        let mut leader = Self {
            peers: LiteMap::new(),
            first: first.index,
            heartbeat_at: now + common.config.heartbeat_interval,
            read_index: ReadIndexRounds::default(),
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            transfer: None,
            failed_transfer: None,
            yields_at: now,
            awaits_preferred: false,
            prefers_at: now + RETRY_TIMEOUTS * common.config.election_timeout,
            asked_at: now,
            change: OngoingChange::default(),
            stamps: Stamps::new(common.log.time(), common.wall, now, common.config.max_clock_step),
            wake_at: None,
        };
        common.dedup = ForwardDedup::of_term(first.term);
        common.forwards.led_anew(first.term, &common.config, now);
        leader.reconcile(common);
        common.hasten_marks();
        leader.append(common, Payload::Blank);
        leader
    }

    /// Appends an entry of its own.
    fn append(&mut self, common: &mut Common, payload: Payload) {
        let time = self.stamps.next(common.wall, common.now);
        let entry = Entry { log_id: next(common), time, payload };
        self.appended(entry.log_id.index, entry.bytes());
        common.append(entry);
    }

    /// Puts a configuration in force.
    pub(super) fn reconfigure(&mut self, common: &mut Common, next: Result<Membership, String>) {
        match next {
            Ok(membership) => {
                tracing::info!(me = %common.me, %membership, "a configuration is in force");
                self.append(common, Payload::Membership(membership));
                self.change.heirs = None;
                self.reconcile(common);
            }
            Err(reason) => tracing::error!(%reason, "the configuration can't be changed"),
        }
    }

    /// Makes the peers those of the configuration in force.
    fn reconcile(&mut self, common: &mut Common) {
        let Common { log, dedup, me, now, config, .. } = common;
        let Some(membership) = log.membership() else { return };
        let until = *now + config.election_timeout;
        for (peer, progress) in self.peers.iter_mut() {
            let leaves = !membership.is_member(*peer);
            progress.leaves_at = leaves.then(|| progress.leaves_at.unwrap_or(until));
        }
        dedup.tidy(|peer| membership.is_member(peer));
        let next = log.last().index + 1;
        for peer in membership.members().keys().filter(|peer| *peer != me) {
            self.peers.entry(*peer).or_insert_with(|| Progress::new(next, *now));
        }
    }

    /// The progress of a peer that an answer is of. An answer of a replica that the configuration
    /// doesn't name counts for nothing.
    fn progress_of(&mut self, from: Replica) -> Option<&mut Progress> {
        plant!(R15, from = *self.peers.keys().find(|peer| peer.id == from.id)?);
        self.peers.get_mut(&from)
    }

    /// Notes what the peers have acknowledged in this term. Other answers are no proof: whoever
    /// refuses something of an earlier term may not have made its term durable.
    pub(super) fn remember_peers(&self, common: &mut Common) {
        let term = common.hard_state.term;
        for (peer, progress) in self.peers.iter().filter(|(_, progress)| progress.matched > 0) {
            let log_id = |index| common.log.log_id(index).unwrap_or_default();
            let acknowledged = log_id(progress.matched);
            let committed = log_id(progress.matched.min(common.committed));
            common.remember(*peer, progress.acted, |memory| {
                memory.term = memory.term.max(term);
                memory.acknowledged = memory.acknowledged.max(acknowledged);
                memory.committed = memory.committed.max(committed);
            });
        }
    }

    /// Takes commands, of which the first has this ticket.
    pub(super) fn propose(
        &mut self,
        common: &mut Common,
        first: Ticket,
        commands: impl IntoIterator<Item = Bytes>,
    ) {
        let begin = next(common);
        let mut index = begin.index;
        let time = self.stamps.next(common.wall, common.now);
        let Common { log, out, config, .. } = common;
        let (out, config) = (out.get(), &**config);
        let refusal = match self.hands_over() {
            true => Some(Proposal::NotLeader),
            false => log.waits_for_space().then_some(Proposal::StorageFull),
        };
        let taken = (first..).zip(commands).filter_map(|(ticket, command)| {
            let bytes = Entry::OVERHEAD_BYTES + command.len();
            if let Some(refusal) = refusal {
                out.answer(ticket, refusal);
                return None;
            }
            if !self.has_room(config, bytes) {
                out.answer(ticket, Proposal::Busy);
                return None;
            }
            out.answer(ticket, Proposal::Appended(LogId { index, ..begin }));
            self.appended(index, bytes);
            index += 1;
            Some(command)
        });
        log.push_commands(begin, time, taken);
    }

    fn has_room(&self, config: &Config, bytes: usize) -> bool {
        self.uncommitted_bytes + bytes <= config.max_uncommitted_bytes
    }

    /// Notes what is to be committed.
    fn appended(&mut self, index: Index, bytes: usize) {
        self.uncommitted.push_back((index, bytes));
        self.uncommitted_bytes += bytes;
    }

    pub(super) fn read(&mut self, common: &Common, ticket: Ticket) {
        self.read_index.read(common.now, ticket);
    }

    /// Whether the configuration in force names this peer.
    pub(super) fn is_member(&self, peer: Replica) -> bool {
        self.peers.get(&peer).is_some_and(|progress| progress.leaves_at.is_none())
    }

    pub(super) fn on_read_index(&mut self, common: &mut Common, from: Replica, sequence: u64) {
        if self.is_member(from) {
            self.read_index.ask(common.now, from, sequence);
        } else {
            let time = common.log.time();
            common.send(from, Body::ReadIndexReply { sequence, index: None, time });
        }
    }

    pub(super) fn on_forward(
        &mut self,
        common: &mut Common,
        from: Replica,
        boot: u64,
        sequence: u64,
        commands: Vec<Bytes>,
    ) {
        let refused = mem::take(&mut common.refused);
        let is_member = self.is_member(from);
        plant!(I7, is_member = true);
        if !is_member {
            // One that has left may have had it taken before: then only silence is true.
            if !common.dedup.knows(from) {
                let outcome = ForwardOutcome::NotLeader;
                common.send(from, Body::ForwardReply { boot, sequence, outcome });
            }
            return;
        }
        if !common.may_be_of(from, boot) {
            return;
        }
        // A refusal counts as seen, too: after it, a repetition must not be taken.
        let nothing = commands.is_empty() && refused.is_empty();
        if nothing || !common.dedup.is_first(from, boot, sequence) {
            return;
        }
        let bytes = commands.iter().map(|command| Entry::OVERHEAD_BYTES + command.len()).sum();
        let has_room = self.has_room(&common.config, bytes);
        plant!(X5, has_room = true);
        let outcome = if self.hands_over() {
            ForwardOutcome::NotLeader
        } else if common.log.waits_for_space() {
            ForwardOutcome::StorageFull
        } else if has_room {
            let first = next(common);
            for (index, command) in (first.index..).zip(&commands) {
                self.appended(index, Entry::OVERHEAD_BYTES + command.len());
            }
            let time = self.stamps.next(common.wall, common.now);
            common.log.push_commands(first, time, commands);
            if let Some(progress) = self.peers.get_mut(&from) {
                progress.awaits_commit = common.log.last().index;
            }
            match refused.is_empty() {
                true => ForwardOutcome::Appended(first),
                false => ForwardOutcome::Partly { first, refused },
            }
        } else {
            ForwardOutcome::Busy
        };
        common.send(from, Body::ForwardReply { boot, sequence, outcome });
    }

    pub(super) fn on_append_reply(
        &mut self,
        common: &mut Common,
        from: Replica,
        round: u64,
        outcome: AppendOutcome,
    ) {
        let latest_round = self.read_index.round();
        let Some(progress) = self.progress_of(from) else { return };
        let last = common.log.last().index;
        let (AppendOutcome::Accepted { matched: about }
        | AppendOutcome::Rejected { prev: about, .. }) = outcome;
        if round > latest_round || about > last {
            if let Some(suppressed) = common.logs_peer() {
                tracing::error!(%from, suppressed, "ignored an answer to what was never sent");
            }
            return;
        }
        progress.last_contact = common.now;
        progress.heard_from = true;
        progress.round = progress.round.max(round);
        match outcome {
            AppendOutcome::Accepted { matched } => {
                progress.acted = true;
                progress.accepted(matched, &common.log);
            }
            AppendOutcome::Rejected { prev, hint } => progress.rejected(prev, hint, &common.log),
        }
    }

    pub(super) fn on_snapshot_reply(
        &mut self,
        common: &Common,
        from: Replica,
        digest: Digest,
        stored: u64,
    ) {
        let Some(progress) = self.peers.get_mut(&from) else { return };
        progress.last_contact = common.now;
        progress.heard_from = true;
        if let Mode::Snapshot(sending) = &mut progress.mode {
            let before = sending.stored;
            sending.on_reply(common, digest, stored);
            let (stored, bytes) = (sending.stored, sending.meta.bytes);
            if before < stored && stored == bytes {
                let at = sending.meta.log_id;
                tracing::info!(me = %common.me, peer = %from, %at, bytes, "has sent a snapshot");
            }
        }
    }

    pub(super) fn chunk_read(
        &mut self,
        common: &mut Common,
        peer: Replica,
        digest: Digest,
        offset: u64,
        chunk: Bytes,
    ) {
        if let Some(progress) = self.peers.get_mut(&peer)
            && let Mode::Snapshot(sending) = &mut progress.mode
        {
            sending.read(common, peer, digest, offset, chunk);
        }
    }

    /// The peers still need what follows on this: on the snapshot that one is being sent, or on
    /// what one that is there has.
    pub(super) fn needed_after(&self, common: &Common) -> Option<Index> {
        let timeout = common.config.election_timeout;
        let needs = |progress: &Progress| match progress.sending() {
            Some(sending) => Some(sending.meta.log_id.index),
            None => (progress.last_contact(common.now) + timeout > common.now)
                .then_some(progress.matched),
        };
        plant!(
            S5,
            return self.peers.values().filter(|p| p.sending().is_none()).filter_map(needs).min()
        );
        self.peers.values().filter_map(needs).min()
    }

    pub(super) fn fetched(&mut self, common: &mut Common, peer: Replica, entries: Entries) {
        let Some(progress) = self.peers.get_mut(&peer) else { return };
        progress.fetching = false;
        // Meanwhile the peer may have turned out to need others, or what stands before these may
        // have been purged: then it gets the snapshot.
        let wanted = entries.first().is_some_and(|entry| entry.log_id.index == progress.next)
            && progress.next > common.log.purged().index;
        if wanted && progress.room(common.config.max_inflight_bytes).is_some() {
            send(common, peer, progress, self.read_index.round(), entries);
        }
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Lets go of memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.uncommitted.shrink_to_fit();
        shrink_map(&mut self.peers);
        self.peers.iter_mut().for_each(|(_, progress)| progress.inflight.shrink());
    }

    fn next_wake(&self, common: &Common) -> Option<Instant> {
        if !self.is_quiet(common) {
            let until = self.transfer.as_ref().map(|transfer| transfer.until);
            let until = until.filter(|until| *until > common.now);
            return Instant::earliest([Some(self.heartbeat_at), until]);
        }
        let is_silent = |peer: &Replica| common.node_states.has_fallen_silent(*peer);
        let mut awake = self.peers.iter().filter(|(_, progress)| !progress.rests);
        match awake.clone().all(|(peer, _)| is_silent(peer)) {
            false => Some(self.heartbeat_at),
            // If anybody is silent, it looks for new disks, mostly in vain: one asks by itself.
            true => {
                let timeout = common.config.election_timeout;
                let looks_at = awake.next().map(|_| self.heartbeat_at + timeout * SILENT_TIMEOUTS);
                Instant::earliest([looks_at, self.unheard_at(common)])
            }
        }
    }

    /// When it will have heard from no quorum for an election timeout; none as long as those who
    /// rest are one with it.
    fn unheard_at(&self, common: &Common) -> Option<Instant> {
        let heard = self.agreed(common, u64::MAX, |progress| match progress.rests {
            true => u64::MAX,
            false => progress.last_contact(common.now).as_nanos(),
        });
        let at = Instant::from_nanos(heard) + common.config.election_timeout;
        // A deadline that has passed counts at the next heartbeat.
        (heard < u64::MAX).then_some(if at > common.now { at } else { self.heartbeat_at })
    }

    /// Whether nothing has to be done but to show that it leads.
    fn is_quiet(&self, common: &Common) -> bool {
        let last = common.log.last().index;
        common.committed == last
            && common.log.durable() == last
            && last >= self.first
            && self.transfer.is_none()
            && !self.read_index.is_wanted()
            && !common.has_change
            && !self.awaits_preferred
            && *common.standing() != Standing::Spent
    }

    /// A peer may have slept, be another run, or follow nobody.
    pub(super) fn rouse(&mut self, peer: Replica, now: Instant) {
        if let Some(progress) = self.peers.get_mut(&peer) {
            progress.rouse(now);
            progress.due = true;
        }
    }

    pub(super) fn node_is_silent(&mut self, peer: Replica, heard: Instant) {
        if let Some(progress) = self.peers.get_mut(&peer) {
            progress.rests = false;
            progress.last_contact = progress.last_contact.max(heard);
        }
    }

    /// A peer rests, if all is still as it was when it was asked to.
    pub(super) fn on_rests(&mut self, common: &Common, from: Replica, last_log_id: LogId) {
        let is_quiet =
            self.is_quiet(common) && common.config.heartbeats && last_log_id == common.log.last();
        let is_alive = common.node_states.boot(from).is_some();
        let Some(progress) = self.peers.get_mut(&from) else { return };
        progress.last_contact = common.now;
        // Whatever was sent to it after it was asked has ended its rest.
        let is_latest = mem::take(&mut progress.asked_to_rest);
        progress.rests = is_latest && is_quiet && is_alive && progress.matched == last_log_id.index;
    }

    /// What is due, and whether it is to lead no more.
    pub(super) fn on_time(&mut self, common: &mut Common) -> Option<StepDown> {
        if common.now >= self.heartbeat_at {
            self.heartbeat_at = common.now + common.config.heartbeat_interval;
            let (is_quiet, last) = (self.is_quiet(common), common.log.last().index);
            for (peer, progress) in self.peers.iter_mut() {
                let is_silent = common.node_states.has_fallen_silent(*peer);
                if common.config.heartbeats {
                    progress.due = !(progress.rests || is_quiet && is_silent);
                }
                progress.may_rest = common.config.heartbeats
                    && is_quiet
                    && progress.matched == last
                    && progress.sending().is_none()
                    && progress.leaves_at.is_none()
                    && common.node_states.boot(*peer).is_some();
            }
            self.peers.retain(|_, peer| peer.leaves_at.is_none_or(|at| at > common.now));
            self.look_for_members(common);
            self.prefer_another(common);
            self.look_for_new_disks(common);
        }
        self.read_index.on_time(common);
        let has_no_vote = !common.is_voter() && common.committed >= common.membership_index;
        if *common.standing() == Standing::Spent || has_no_vote {
            return Some(StepDown::Removed);
        }
        self.give_up_transfer(common);
        let timeout = common.config.election_timeout;
        let writing_since = common.log.writing_since();
        plant!(D6, writing_since = None);
        if let Some(since) = writing_since
            && since + timeout <= common.now
        {
            // A disk that hangs: the peers still commit what it has sent, but one of them should
            // lead (D6). If theirs hang, too, nothing is committed, and it transfers leadership to
            // nobody. But if they wait for what it can't read either, then they elect one who can.
            self.resign(common);
            let starves = self.peers.values().any(|progress| progress.fetching);
            if starves && since + 2 * timeout <= common.now {
                return Some(StepDown::Disk);
            }
        }
        // Check-quorum (6.2): a leader that nobody answers is none.
        let now = common.now;
        let heard =
            self.agreed(common, now.as_nanos(), |progress| progress.last_contact(now).as_nanos());
        let is_heard = Instant::from_nanos(heard) + common.config.election_timeout > common.now;
        plant!(E7, is_heard = true);
        (!is_heard).then_some(StepDown::NoQuorum)
    }

    /// What a quorum has reached, this node's own part in it being `own`.
    fn agreed(&self, common: &Common, own: u64, of: impl Fn(&Progress) -> u64) -> u64 {
        common.voters.agreed(|voter| {
            plant!(
                M2,
                if common.membership().is_some_and(|m| !m.founders().contains(&voter.id)) {
                    return 0;
                }
            );
            if voter == common.me { own } else { self.peers.get(&voter).map_or(0, &of) }
        })
    }

    /// Commits, answers reads and sends appends, once for all that the turn has brought.
    pub(super) fn finish_turn(&mut self, common: &mut Common) {
        if self.wake_at.is_none() && self.heartbeat_at <= common.now {
            self.heartbeat_at = common.now + common.config.heartbeat_interval;
        }
        self.commit(common);
        let first = self.first;
        plant!(L1, first = 0);
        while common.committed >= first {
            if self.read_index.is_confirming() {
                let own = self.read_index.round();
                let round = self.agreed(common, own, |progress| progress.round);
                plant!(L2, round = own);
                let answers = self.read_index.confirmed(common, round);
                answers.into_iter().for_each(|answer| self.answer_change(common, answer));
            }
            if !self.read_index.begin(common) {
                break;
            }
            for (_, progress) in self.peers.iter_mut() {
                progress.due = true;
            }
        }
        let round = self.read_index.round();
        for (peer, progress) in self.peers.iter_mut() {
            replicate(common, *peer, progress, round);
            plant!(
                R13,
                if !progress.heard_from {
                    break;
                }
            );
        }
        self.yield_to_others(common);
        self.transfer_leadership(common);
        self.wake_at = self.next_wake(common);
    }

    /// Moves the commit index, and takes the next step of a change of the configuration that this
    /// allows.
    fn commit(&mut self, common: &mut Common) {
        // Where there are other voters, one of them must have acknowledged what is committed next.
        let acknowledged = |(_, progress): (_, &Progress)| progress.matched > common.committed;
        if common.committed < common.log.last().index
            && (common.voters.incoming().len() < 2 || self.peers.iter().any(acknowledged))
        {
            self.commit_agreed(common);
        }
        self.advance_change(common);
    }

    fn commit_agreed(&mut self, common: &mut Common) {
        let durable = common.log.durable();
        plant!(R8, durable = common.log.last().index);
        // Its own disk is one among many, and counts for what it has made durable (R8).
        let index = self.agreed(common, durable, |progress| progress.matched);
        // Entries of earlier terms are committed only by one of this term after them (3.6.2, figure
        // 8).
        let of_this_term = index >= self.first;
        plant!(E3, of_this_term = true);
        plant!(R7, of_this_term = of_this_term && !self.peers.is_empty());
        if index > common.committed && of_this_term {
            self.commit_to(common, index);
        }
    }

    fn commit_to(&mut self, common: &mut Common, index: Index) {
        for (_, progress) in self.peers.iter_mut() {
            let awaits = progress.awaits_commit;
            progress.due |= common.committed < awaits && awaits <= index;
        }
        // Those who leave are to hear of it, and so are the others if this leader does.
        let is_news = common.committed < common.membership_index;
        common.commit_to(index);
        if is_news
            && index >= common.membership_index
            && (!common.is_voter() || self.peers.values().any(|peer| peer.leaves_at.is_some()))
        {
            self.peers.iter_mut().for_each(|(_, progress)| progress.due = true);
        }
        while let Some((first, bytes)) = self.uncommitted.front()
            && *first <= index
        {
            self.uncommitted_bytes -= bytes;
            self.uncommitted.pop_front();
        }
    }

    /// A replica begins to speak in another boot.
    pub(super) fn met(&mut self, replica: Replica) {
        if let Some(progress) = self.peers.get_mut(&replica) {
            progress.acted = false;
        }
    }

    pub(super) fn leave(&mut self, common: &mut Common) {
        self.remember_peers(common);
        self.read_index.abandon(common);
    }

    pub(super) fn peers(&self, now: Instant) -> impl Iterator<Item = (Replica, PeerMetrics)> {
        let metrics = move |progress: &Progress| PeerMetrics {
            matched: progress.matched,
            last_contact: progress.heard_from.then(|| now - progress.last_contact(now)),
            inflight_bytes: progress.inflight.bytes(),
            snapshot: progress.sending().map(|sending| (sending.stored, sending.meta.bytes)),
        };
        let members = self.peers.iter().filter(|(_, progress)| progress.leaves_at.is_none());
        members.map(move |(peer, progress)| (*peer, metrics(progress)))
    }
}

/// Sends a peer what it lacks, as far as its window allows, and a heartbeat if it is due and there
/// was nothing to send.
fn replicate(common: &mut Common, peer: Replica, progress: &mut Progress, round: u64) {
    let purged = common.log.purged().index;
    let lacks_purged = progress.next <= purged;
    plant!(S4, lacks_purged = progress.next < purged);
    if lacks_purged && progress.sending().is_none() {
        let snapshot = common.log.snapshot().expect("what is purged is covered by a snapshot");
        let (at, bytes) = (snapshot.log_id, snapshot.bytes);
        tracing::info!(me = %common.me, %peer, %at, bytes, "sends a snapshot to a peer that is far behind");
        progress.needs_snapshot(OutgoingSnapshot::new(snapshot.clone(), common.now));
    }
    if let Mode::Snapshot(sending) = &mut progress.mode {
        sending.advance(common, peer);
    }
    let max_append_bytes = common.config.max_append_bytes;
    while !progress.fetching
        && progress.next <= common.log.last().index
        && let Some(room) = progress.room(common.config.max_inflight_bytes)
    {
        let max_bytes = room.min(max_append_bytes);
        let Some(fresh) = common.log.fresh_from(progress.next) else {
            let range = progress.next..common.log.last().index + 1;
            let term = common.hard_state.term;
            common.out.rare().fetches.push(Fetch { peer, term, range, max_bytes });
            progress.fetching = true;
            break;
        };
        send(common, peer, progress, round, fresh.first_bytes(max_bytes));
    }
    if !progress.due {
        return;
    }
    let last_log_id = common.log.last();
    if progress.may_rest && progress.matched == last_log_id.index {
        (progress.due, progress.may_rest, progress.asked_to_rest) = (false, false, true);
        common.send(peer, Body::Rest { last_log_id, round, boot: common.boot });
    } else {
        send(common, peer, progress, round, Entries::default());
    }
}

fn send(common: &mut Common, peer: Replica, progress: &mut Progress, round: u64, entries: Entries) {
    // What a peer that needs the snapshot has, is not known: only that it begins as all logs do.
    let before = if progress.sending().is_some() { 0 } else { progress.next - 1 };
    let prev = common.log.log_id(before).expect("next is at most one beyond the end of the log");
    match entries.last() {
        Some(last) => {
            progress.sent(last.log_id.index, entries.bytes());
        }
        None => {
            if let Mode::Probe { awaiting } = &mut progress.mode {
                *awaiting = true;
            }
        }
    }
    progress.due = false;
    (progress.may_rest, progress.asked_to_rest) = (false, false);
    progress.rouse(common.now);
    let (committed, durable) = (common.committed, common.log.durable());
    common.send(peer, Body::Append { prev, committed, round, durable, entries });
}
