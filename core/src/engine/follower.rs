//! A replica that follows a leader, or waits for one.

use bytes::Bytes;
use quorate_rt::Instant;

use super::candidate::Contender;
use super::read_index::ReadIndexRequests;
use super::{Common, Proposal, ReadOutcome, Ticket};
use crate::entries::Entries;
use crate::identity::{Boot, Replica};
use crate::message::{AppendOutcome, Body, LeadershipTransfer};
use crate::plant;
use crate::snapshot::SnapshotMeta;
use crate::types::{Index, LogId};

pub(super) struct Follower {
    pub(super) election_at: Instant,
    following: Option<Following>,
    /// It has asked for pre-votes, and yielded: the best of those whose requests it has granted
    /// since. None once it has voted, or knows a leader.
    yielded_to: Option<Contender>,
}

/// What a follower knows of the leader of its term, and has asked of it.
struct Following {
    leader: Replica,
    last_contact: Instant,
    /// Up to here the log has been found equal to the leader's. What lies beyond may still be cut.
    agreed: Index,
    /// The largest commit index the leader has told of; it may be beyond what has arrived.
    committed: Index,
    /// The largest round it has told of, and that of its latest append, which is echoed: a number
    /// that was never its own must not be echoed for the rest of the term.
    round: u64,
    echo: u64,
    /// Its last word on what is committed here contradicts this log. Then it confirms no read, for
    /// its state is another.
    contradicts: bool,
    /// Up to here the leader's own log is durable, as far as it has said.
    durable: Index,
    /// Whether it has spoken as a leader in its present boot.
    acted: bool,
    /// What was last said to be durable.
    acknowledged: Index,
    /// The leader waits for an answer even if nothing has become durable.
    reply_due: bool,
    /// While it [rests](super::liveness): the boot of the leader's node.
    resting: Option<Boot>,
    /// The leader has said that it leads no more.
    has_left: bool,
    read_requests: ReadIndexRequests,
}

impl Follower {
    pub(super) fn new(common: &mut Common) -> Self {
        // Alone, there is nobody to wait for.
        let alone = common.voters.iter().eq([common.me]);
        let election_at = if alone { common.now } else { common.election_at() };
        Self { election_at, following: None, yielded_to: None }
    }

    /// One that has yielded to another. It asks when it would have asked anew.
    pub(super) fn yielding(election_at: Instant, to: Contender) -> Self {
        Self { election_at, following: None, yielded_to: Some(to) }
    }

    pub(super) fn has_yielded(&self) -> bool {
        self.yielded_to.is_some()
    }

    /// Whether it prefers this one to whom it has yielded, and then yields to it.
    pub(super) fn prefers(&mut self, theirs: Contender) -> bool {
        match &mut self.yielded_to {
            Some(best) if best.is_better_than(&theirs) => false,
            Some(best) => {
                *best = theirs;
                true
            }
            None => true,
        }
    }

    pub(super) fn leader(&self) -> Option<Replica> {
        self.following.as_ref().map(|following| following.leader)
    }

    /// When the leader was heard last, as far as it is known and silent.
    pub(super) fn last_contact(&self) -> Option<Instant> {
        let following = self.following.as_ref().filter(|following| following.resting.is_none());
        following.map(|following| following.last_contact)
    }

    /// Within the shortest election timeout of a leader's word there is no need for another
    /// (4.2.3).
    pub(super) fn has_live_leader(&self, common: &Common) -> bool {
        self.following.as_ref().is_some_and(|following| {
            let was_heard = common.now < following.last_contact + common.config.election_timeout;
            following.rests(common) || was_heard && !following.has_left
        })
    }

    /// Rests, if there is nothing to do and the leader's node is alive in this boot.
    pub(super) fn rest(
        &mut self,
        common: &mut Common,
        from: Replica,
        last_log_id: LogId,
        boot: Boot,
    ) {
        let Some(following) = self.following.as_mut().filter(|f| f.leader == from) else { return };
        let has_all = common.log.last() == last_log_id && common.committed == last_log_id.index;
        let is_alive = common.node_states.boot(from) == Some(boot);
        if has_all && is_alive && !following.has_left && !following.contradicts {
            following.resting = Some(boot);
            common.send(from, Body::Rests { last_log_id });
        }
    }

    /// The node of a member is alive, in a boot that is now known.
    pub(super) fn node_is_alive(&mut self, common: &mut Common, replica: Replica) {
        let Some(following) = self.following.as_mut().filter(|f| f.leader == replica) else {
            return;
        };
        if following.resting.is_some() && !following.rests(common) {
            // Another run of it, which has not been elected.
            self.loses_leader(common);
        }
    }

    /// The node of a member has been silent for an election timeout, or its leadership has ended.
    /// The elections of many groups are spread.
    pub(super) fn misses(&mut self, common: &mut Common, replica: Replica, heard: Option<Instant>) {
        let Some(following) = self.following.as_mut().filter(|f| f.leader == replica) else {
            return;
        };
        match heard {
            Some(_) if following.resting.is_none() => return, // Its heartbeats are counted on.
            Some(heard) => following.last_contact = following.last_contact.max(heard),
            None => following.has_left = true,
        }
        self.loses_leader(common);
    }

    fn loses_leader(&mut self, common: &mut Common) {
        let Some(following) = &mut self.following else { return };
        following.resting = None;
        self.election_at = common.spread_election_at();
        // The leader may be there, and take this replica for one that still rests.
        common.out.rare().left = Some(common.hard_state.term);
    }

    /// Whether this `TimeoutNow` may take effect, at the replica that it was given to:
    /// nothing has changed since.
    pub(super) fn may_take_over(
        &self,
        common: &Common,
        from: Replica,
        last_log_id: LogId,
        round: u64,
    ) -> bool {
        let led_by = |following: &Following| following.leader == from;
        plant!(I10, return common.is_voter() && self.following.as_ref().is_some_and(led_by));
        let follows = |following: &Following| led_by(following) && following.round <= round;
        let holds = last_log_id == common.log.last();
        common.is_voter() && holds && self.following.as_ref().is_some_and(follows)
    }

    /// Whether this replica follows just the leader that gave this order, and has heard of no later
    /// round of it.
    pub(super) fn is_valid_transfer(&self, common: &Common, transfer: LeadershipTransfer) -> bool {
        plant!(I10, return true);
        let LeadershipTransfer { leader, term, round } = transfer;
        let follows =
            |following: &Following| following.leader == leader && following.round <= round;
        term == common.hard_state.term && self.following.as_ref().is_some_and(follows)
    }

    /// Whoever has got this node's vote has as much time as a leader to make itself heard.
    pub(super) fn wait_for_leader(&mut self, common: &mut Common) {
        self.yielded_to = None;
        self.election_at = common.election_at();
    }

    pub(super) fn election_is_due(&self, common: &Common) -> bool {
        common.now >= self.election_at && common.campaigns() && !self.rests(common)
    }

    /// Whether it counts on the leader's node.
    fn rests(&self, common: &Common) -> bool {
        self.following.as_ref().is_some_and(|following| following.rests(common))
    }

    pub(super) fn wake_at(&self, common: &Common) -> Option<Instant> {
        let waits = (self.following.is_some() || common.campaigns()) && !self.rests(common);
        let election = waits.then_some(self.election_at);
        let following = self.following.as_ref();
        let read_requests = following.and_then(|following| following.read_requests.wake_at());
        Instant::earliest([election, read_requests])
    }

    pub(super) fn on_time(&mut self, common: &mut Common) {
        // Who does not campaign would follow for ever. Its leader may lie, or be
        // of an attempt to form the group that was given up, and another lead in the same term.
        if common.now >= self.election_at && !common.campaigns() && !self.rests(common) {
            if self.following.is_some() {
                // The leader may be there, and take this replica for one that rests. Who campaigns
                // shows it by its pre-vote.
                common.out.rare().left = Some(common.hard_state.term);
            }
            self.leave_leader(common);
        }
        if let Some(following) = &mut self.following {
            following.read_requests.on_time(common, following.leader);
        }
    }

    /// Answers those who wait for the leader's word.
    pub(super) fn leave_leader(&mut self, common: &mut Common) {
        self.remember_leader(common);
        if let Some(following) = self.following.take() {
            common.leave_forwards();
            following.read_requests.abandon(common);
        }
    }

    /// Notes what the leader has made durable: its term with its vote for itself, and its log.
    pub(super) fn remember_leader(&self, common: &mut Common) {
        let Some(following) = &self.following else { return };
        let term = common.hard_state.term;
        let log_id = |index| common.log.log_id(index).unwrap_or_default();
        let durable = following.durable.min(following.agreed);
        let (acknowledged, committed) = (log_id(durable), log_id(durable.min(common.committed)));
        common.remember(following.leader, following.acted, |memory| {
            memory.term = memory.term.max(term);
            memory.acknowledged = memory.acknowledged.max(acknowledged);
            memory.committed = memory.committed.max(committed);
        });
    }

    /// The leader has said something. None: it is not the one that this node follows.
    fn hear(&mut self, common: &mut Common, from: Replica) -> Option<&mut Following> {
        if self.following.is_none() {
            let (me, term) = (common.me, common.hard_state.term);
            tracing::info!(%me, %term, leader = %from, "follows a leader");
            common.hasten_marks();
            common.forwards.led_anew(term, &common.config, common.now);
            self.yielded_to = None;
        }
        let following = self.following.get_or_insert_with(|| Following {
            leader: from,
            last_contact: common.now,
            agreed: 0,
            committed: 0,
            round: 0,
            echo: 0,
            contradicts: false,
            durable: 0,
            acted: false,
            acknowledged: 0,
            reply_due: false,
            resting: None,
            has_left: false,
            read_requests: ReadIndexRequests::default(),
        });
        if following.leader != from {
            let leader = following.leader;
            // One of them lies, and it may be the first. When that has said nothing for an election
            // timeout, this node hears whoever leads.
            if let Some(suppressed) = common.logs_peer() {
                tracing::error!(%from, %leader, suppressed, "ignored a second leader of this term");
            }
            return None;
        }
        self.election_at = common.election_at();
        following.last_contact = common.now;
        following.resting = None;
        following.acted = true;
        Some(following)
    }

    pub(super) fn on_snapshot(
        &mut self,
        common: &mut Common,
        from: Replica,
        meta: SnapshotMeta,
        offset: u64,
        chunk: Bytes,
    ) {
        // An append comes first: it tells that whoever sends this leads.
        let follows = self.leader().is_some();
        plant!(I7, follows = true);
        if !follows {
            return;
        }
        let Some(following) = self.hear(common, from) else { return };
        let at = meta.log_id;
        let committed_in = common.log.log_id(common.committed).unwrap_or_default().term;
        if at.index > common.committed && at.term >= committed_in {
            common.receive(from, meta, offset, chunk);
        } else if at.index > common.log.purged().index && !common.log.contains(at) {
            following.contradicts = true;
            common.contradicted(from, at);
        } else {
            // It has all of that, and can say so: what is committed is the leader's, too.
            following.agreed = following.agreed.max(common.committed);
            following.reply_due = true;
        }
    }

    /// A snapshot has taken the place of the log up to the commit index.
    pub(super) fn installed(&mut self, common: &Common) {
        if let Some(following) = &mut self.following {
            let agreed = following.agreed.max(common.committed);
            following.agreed = agreed.min(common.log.last().index);
        }
    }

    pub(super) fn on_append(
        &mut self,
        common: &mut Common,
        from: Replica,
        prev: LogId,
        committed: Index,
        round: u64,
        entries: Entries,
    ) {
        let Some(following) = self.hear(common, from) else { return };
        let (prev, entries) = match behind_purged(common.log.purged(), prev, entries) {
            Ok(behind) => behind,
            Err(theirs) => {
                following.contradicts = true;
                common.contradicted(from, theirs);
                return;
            }
        };
        let new_round = round != following.echo;
        following.round = following.round.max(round);
        following.echo = round;
        let agrees = common.log.contains(prev);
        plant!(R3, agrees = agrees || entries.is_empty());
        plant!(X4, agrees = agrees || common.log.log_id(prev.index).is_some());
        if !agrees {
            if prev.index <= common.committed {
                following.contradicts = true;
                common.contradicted(from, prev);
                return;
            }
            // `contains` fails beyond the end, too: then the end is the hint.
            let hint = common.log.last_at_most(prev.index, prev.term);
            let outcome = AppendOutcome::Rejected { prev: prev.index, hint };
            common.promise(from, Body::AppendReply { round, outcome });
            return;
        }
        let last = prev.index + entries.len() as u64;
        if new_round || entries.is_empty() || last <= common.log.durable() {
            // A round or a heartbeat asks whether this node is there, however slow its disk may be;
            // and where the entries were here before, nothing will become durable that would
            // answer.
            following.reply_due = true;
        }
        plant!(
            R1,
            if prev.index < common.log.last().index {
                common.truncate(prev.index + 1)
            }
        );
        // Only a conflicting entry may cut the log: this append may be older than what follows in
        // it (R1).
        let known = entries.iter().take_while(|entry| common.log.contains(entry.log_id)).count();
        plant!(R2, known = 0);
        let new = entries.slice(known..entries.len());
        if let Some(new_at) = new.first().map(|entry| entry.log_id) {
            let first = new_at.index;
            // The first entry of all is the same everywhere, and never replaced.
            let replaces_all = first == 1 && common.log.last().index > 0;
            let contradicts = first <= common.committed || replaces_all;
            plant!(R2, contradicts = false);
            if contradicts {
                following.contradicts = true;
                common.contradicted(from, new_at);
                return;
            }
            if first <= common.log.last().index {
                common.truncate(first);
                // No leader replaces what it has told itself. But messages may be forged, and what
                // is agreed must be in the log.
                following.agreed = following.agreed.min(first - 1);
            }
            common.extend(new);
        }
        following.agreed = following.agreed.max(last);
        following.contradicts &= following.agreed < common.committed;
        following.learn_commit(common, committed);
    }

    /// A replica begins to speak in another boot.
    pub(super) fn met(&mut self, replica: Replica) {
        if let Some(following) = self.following.as_mut().filter(|f| f.leader == replica) {
            following.acted = false;
        }
    }

    /// The leader's own log is durable up to here.
    pub(super) fn learn_durable(&mut self, from: Replica, durable: Index) {
        if let Some(following) = self.following.as_mut().filter(|f| f.leader == from) {
            following.durable = following.durable.max(durable);
        }
    }

    pub(super) fn propose(&mut self, common: &mut Common, ticket: Ticket, command: Bytes) {
        match &mut self.following {
            Some(_) => common.forward(ticket, command),
            None => common.out.get().answer(ticket, Proposal::NotLeader),
        }
    }

    pub(super) fn takes(&self, common: &Common, bytes: usize) -> bool {
        self.following.is_some() && common.forwards.has_room(&common.config, bytes)
    }

    pub(super) fn read(&mut self, common: &mut Common, ticket: Ticket) {
        match &mut self.following {
            Some(following) => following.read_requests.read(ticket),
            None => common.out.get().reads.push((ticket, ReadOutcome::NotLeader)),
        }
    }

    pub(super) fn on_read_index_reply(
        &mut self,
        common: &mut Common,
        from: Replica,
        sequence: u64,
        index: Option<Index>,
    ) {
        if let Some(following) = &mut self.following
            && following.leader == from
        {
            let index = index.filter(|_| !following.contradicts);
            if following.read_requests.on_reply(common, sequence, index) {
                following.learn_commit(common, index.unwrap_or(0));
            }
        }
    }

    /// Sends what this turn has gathered for the leader.
    pub(super) fn finish_turn(&mut self, common: &mut Common) {
        let Some(following) = &mut self.following else { return };
        let matched = following.agreed.min(common.log.durable());
        if following.reply_due || matched > following.acknowledged {
            following.reply_due = false;
            following.acknowledged = matched;
            let outcome = AppendOutcome::Accepted { matched };
            common.promise(following.leader, Body::AppendReply { round: following.echo, outcome });
        }
        common.send_forwards(following.leader);
        following.read_requests.send(common, following.leader);
    }
}

impl Following {
    fn rests(&self, common: &Common) -> bool {
        let boot = common.node_states.boot(self.leader);
        plant!(V1, return self.resting.is_some() && boot.is_some());
        self.resting.is_some() && boot == self.resting
    }

    fn learn_commit(&mut self, common: &mut Common, committed: Index) {
        self.committed = self.committed.max(committed);
        // What lies beyond the agreed part may not be what the leader has committed there.
        let agreed = self.agreed;
        plant!(X3, agreed = common.log.last().index);
        common.commit_to(self.committed.min(agreed).max(common.committed));
    }
}

/// What of an append lies behind the purged part of this log. That part is committed, so the leader
/// has the same there.
///
/// Errors: the leader's entry in the place of the last purged one, which is another.
fn behind_purged(purged: LogId, prev: LogId, entries: Entries) -> Result<(LogId, Entries), LogId> {
    if prev.index >= purged.index || prev == LogId::ZERO && entries.is_empty() {
        return Ok((prev, entries));
    }
    let covered = entries.partition_point(|entry| entry.log_id.index <= purged.index);
    let last = covered.checked_sub(1).and_then(|last| entries.get(last));
    match last.map(|entry| entry.log_id) {
        Some(theirs) if theirs.index == purged.index && theirs != purged => Err(theirs),
        _ => Ok((purged, entries.slice(covered..entries.len()))),
    }
}
