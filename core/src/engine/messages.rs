//! What an engine makes of the messages of its peers: which it believes, which term they bring, and
//! which role they concern.

use std::collections::BTreeSet;

use super::candidate::Campaign;
use super::{Common, Engine, State};
use crate::entries::Entries;
use crate::identity::{Claim, ClusterId, Memory, Replica};
use crate::membership::{ChangeReply, Membership};
use crate::message::{AppendOutcome, Body, ForwardOutcome, LeadershipTransfer, Message, Situation};
use crate::plant;
use crate::snapshot::SnapshotMeta;
use crate::types::{HardState, Index, LogId, NodeId, Payload, Term};

/// A message may be so many terms ahead. With an election every millisecond, a node that is further
/// behind was away for seven weeks. One that is ahead by more raises this replica's term by so much
/// and does nothing else, so that repeated messages lead on, and no few messages use all terms up:
/// that takes 2^31, of which each costs a durable write.
const MAX_TERM_STEP: u64 = 1 << 32;

/// A snapshot may end so many entries after this replica's log: that is 89 years of 100,000 entries
/// a second. One that claims more is not believed, so that no few snapshots use all indexes up.
const MAX_SNAPSHOT_STEP: Index = 1 << 48;

/// No log gets beyond this index in thousands of years, and a store may rely on it. A peer that
/// claims more is not believed.
pub(super) const LAST_INDEX: Index = Index::MAX >> 2;

impl Engine {
    pub(super) fn on_message(&mut self, message: Message) {
        let common = &mut self.common;
        let Message { group, cluster, from, to, term, body } = message;
        if !is_for(common.me, to, &body)
            || group != common.group
            || from.id == 0
            || from == common.me
        {
            tracing::debug!(%from, %to, group, "ignored a message that is not for this replica");
            return;
        }
        if let (Some(theirs), Some(ours)) = (cluster, common.cluster)
            && theirs != ours
        {
            if let Some(suppressed) = common.logs_stranger() {
                tracing::warn!(%from, suppressed, "ignored a message of another cluster");
            }
            return;
        }
        if let Body::Who { .. } | Body::Situation { .. } | Body::Claim(_) | Body::Admit { .. } =
            body
        {
            self.on_formation(from, &body);
            return;
        }
        if let Body::Alive(_) = body {
            return; // It is between nodes, and has no term.
        }
        if let Body::Removed { log_id, membership } = &body {
            // What is committed has no term either.
            if common.on_removed(*log_id, membership) && matches!(self.role, State::Candidate(_)) {
                self.become_follower(self.common.hard_state.term);
            }
            return;
        }
        if common.is_void() {
            return;
        }
        if let Body::PreVote { .. } | Body::Vote { .. } = &body
            && let State::Leader(leader) = &mut self.role
        {
            leader.rouse(from, common.now); // It follows nobody.
        }
        if let Body::Vote { last_log_id, .. } = &body {
            common.tell_removed(from, *last_log_id);
        }
        let ours = self.common.hard_state.term;
        if term > ours {
            let max_step = MAX_TERM_STEP;
            plant!(I9, max_step = u64::MAX);
            match &body {
                _ if term > Term::LAST => {
                    if let Some(suppressed) = self.common.logs_peer() {
                        tracing::error!(%from, %term, suppressed, "ignored a message of a term that can't be");
                    }
                    return;
                }
                // A question that binds nobody, and the answer to ours.
                Body::PreVote { .. } | Body::PreVoteReply { granted: true, .. } => {}
                // While a leader is alive nobody else is wanted, whatever the term (4.2.3).
                Body::Vote { transfer, .. }
                    if self.follows_live_leader() && !self.is_valid_transfer(from, *transfer) =>
                {
                    return;
                }
                _ if term.0 - ours.0 > max_step => {
                    if let Some(suppressed) = self.common.logs_peer() {
                        tracing::warn!(
                            %from, %term, %ours,
                            suppressed,
                            "a message is too far ahead in its term: followed by a step"
                        );
                    }
                    self.become_follower(Term(ours.0 + MAX_TERM_STEP));
                    return;
                }
                _ => self.become_follower(term),
            }
        } else if term < ours {
            if let Body::PreVoteReply { granted, attempt } | Body::VoteReply { granted, attempt } =
                body
            {
                self.note_answer(from, granted, attempt);
            }
            self.on_old_term(from, term, body);
            return;
        }
        let common = &mut self.common;
        match body {
            Body::PreVote { last_log_id, attempt } => {
                self.on_pre_vote(from, term, last_log_id, attempt);
            }
            Body::Vote { last_log_id, attempt, .. } => self.on_vote(from, last_log_id, attempt),
            Body::PreVoteReply { granted, attempt } => {
                self.note_answer(from, granted, attempt);
                self.on_vote_reply(true, from, term, granted);
            }
            Body::VoteReply { granted, attempt } => {
                self.note_answer(from, granted, attempt);
                self.on_vote_reply(false, from, term, granted);
            }
            Body::Append { prev, committed, round, durable, entries } => {
                self.on_append(from, prev, committed, round, durable, entries);
            }
            Body::Rest { last_log_id, round, boot } => {
                let last = last_log_id.index;
                self.on_append(from, last_log_id, last, round, last, Entries::default());
                if let State::Follower(follower) = &mut self.role {
                    follower.rest(&mut self.common, from, last_log_id, boot);
                }
            }
            Body::Rests { last_log_id } => {
                if let State::Leader(leader) = &mut self.role {
                    leader.on_rests(common, from, last_log_id);
                }
            }
            Body::AppendReply { round, outcome } => {
                if let State::Leader(leader) = &mut self.role {
                    leader.on_append_reply(common, from, round, outcome);
                }
            }
            Body::Forward { boot, sequence, commands } => match &mut self.role {
                State::Leader(leader) => {
                    leader.on_forward(common, from, boot, sequence, commands);
                }
                // It has not led in this term.
                _ if common.hard_state.voted_for != Some(common.me) => {
                    let outcome = ForwardOutcome::NotLeader;
                    common.send(from, Body::ForwardReply { boot, sequence, outcome });
                }
                _ => common.refuse_missed(term, from, boot, sequence),
            },
            Body::ForwardReply { boot, sequence, outcome } => {
                common.on_forward_reply(from, boot, sequence, outcome);
            }
            Body::ReadIndex { sequence } => match &mut self.role {
                State::Leader(leader) => leader.on_read_index(common, from, sequence),
                _ => {
                    let time = common.log.time();
                    common.send(from, Body::ReadIndexReply { sequence, index: None, time });
                }
            },
            Body::Snapshot { meta, offset, chunk } => {
                let last = common.log.last().index;
                if !snapshot_can_be(&meta, offset, chunk.len(), term, last) {
                    if let Some(suppressed) = self.common.logs_peer() {
                        tracing::error!(%from, at = %meta.log_id, suppressed, "ignored a snapshot that can't be");
                    }
                    return;
                }
                if !self.accepts_configuration(from, &meta.membership) {
                    if let Some(suppressed) = self.common.logs_peer() {
                        tracing::warn!(%from, at = %meta.log_id, suppressed, "ignored a snapshot of another cluster");
                    }
                    return;
                }
                match &mut self.role {
                    State::Follower(follower) => {
                        follower.on_snapshot(&mut self.common, from, *meta, offset, chunk);
                    }
                    // The leader's next append makes it a follower.
                    State::Candidate(_) => {}
                    State::Leader(_) => {
                        if let Some(suppressed) = self.common.logs_peer() {
                            tracing::error!(%from, %term, suppressed, "ignored a second leader of this node's term");
                        }
                    }
                }
            }
            Body::SnapshotReply { digest, stored } => {
                if let State::Leader(leader) = &mut self.role {
                    leader.on_snapshot_reply(common, from, digest, stored);
                }
            }
            Body::TimeoutNow { last_log_id, round } => {
                if let State::Follower(follower) = &self.role
                    && follower.may_take_over(common, from, last_log_id, round)
                {
                    let transfer = LeadershipTransfer { leader: from, term, round };
                    self.campaign(Campaign::Transfer(transfer));
                }
            }
            Body::Change(request) => self.on_change(Some(from), *request),
            Body::ChangeReply { id, reply } => common.out.rare().changes.push((id, *reply)),
            Body::Who { .. }
            | Body::Situation { .. }
            | Body::Claim(_)
            | Body::Admit { .. }
            | Body::Removed { .. }
            | Body::Alive(_) => {}
            Body::ReadIndexReply { sequence, index, .. } => {
                if let State::Follower(follower) = &mut self.role {
                    follower.on_read_index_reply(common, from, sequence, index);
                }
            }
        }
    }

    /// The leader of this term has said something of its log.
    fn on_append(
        &mut self,
        from: Replica,
        prev: LogId,
        committed: Index,
        round: u64,
        durable: Index,
        entries: Entries,
    ) {
        let term = self.common.hard_state.term;
        if !entries_follow(prev, &entries, term) {
            if let Some(suppressed) = self.common.logs_peer() {
                tracing::error!(%from, %prev, suppressed, "ignored an append whose entries can't be");
            }
            return;
        }
        let is_empty = self.common.log.last().index == 0;
        // Commands in a log that has begun are as good as their leader.
        let is_usual = entries.is_plain() && !is_empty || entries.is_empty();
        if !is_usual && !self.accepts_entries(from, prev, &entries) {
            if let Some(suppressed) = self.common.logs_peer() {
                tracing::warn!(%from, %prev, suppressed, "ignored an append of another cluster");
            }
            return;
        }
        let begins = is_empty && !entries.is_empty();
        if let State::Candidate(_) = self.role {
            self.become_follower(term);
        }
        match &mut self.role {
            State::Follower(follower) => {
                follower.on_append(&mut self.common, from, prev, committed, round, entries);
                follower.learn_durable(from, durable);
            }
            State::Candidate(_) | State::Leader(_) => {
                if let Some(suppressed) = self.common.logs_peer() {
                    tracing::error!(%from, %term, suppressed, "ignored a second leader of this node's term");
                }
            }
        }
        if begins && self.common.membership().is_some() {
            self.joined();
        }
    }

    /// Takes a message that forms a cluster, or lets a new disk in. These have no term.
    #[cold]
    fn on_formation(&mut self, from: Replica, body: &Body) {
        let common = &mut self.common;
        let ours = self.listed.as_ref();
        let promised_before = common.standing().cluster();
        let mut asked = None;
        let listed = match body {
            Body::Who { listed } => listed.clone(),
            Body::Claim(claim) => {
                asked = Some(claim.cluster);
                let ids = claim.ids();
                let by_founder = claim.founder == from && ids.first() == Some(&from.id);
                if !by_founder || !ids.contains(&common.me.id) || !from.is_known() {
                    if let Some(suppressed) = common.logs_stranger() {
                        tracing::warn!(%from, suppressed, "ignored a claim that can't be");
                    }
                    return;
                }
                common.on_claim((**claim).clone(), ours);
                ids
            }
            Body::Admit { cluster, founders } => {
                asked = Some(*cluster);
                common.on_admit(*cluster, founders, ours);
                founders.clone()
            }
            Body::Situation { situation, listed } => {
                self.on_situation(from, situation.clone(), listed.clone());
                return;
            }
            _ => return,
        };
        if self.common.standing().cluster() != promised_before
            && let State::Follower(follower) = &self.role
            && follower.leader().is_some()
        {
            // That leader was one of the cluster that this replica is no part of any more. One of
            // the next cluster may lead in the same term.
            self.become_follower(self.common.hard_state.term);
        }
        if self.common.standing().cluster() != promised_before
            && let Body::Claim(claim) = body
        {
            self.warn_of_addresses(claim);
        }
        self.tell_situation(from, asked);
        if let Body::Who { listed } = body {
            self.admit_member(from, listed);
            if let State::Leader(leader) = &mut self.role {
                // Somebody without a log asks around: it may be the new disk of a silent voter.
                leader.look_for_new_disks(&mut self.common);
            }
        }
        if let Some(formation) = &self.formation
            && let Err(error) = formation.compare(from.id, listed)
        {
            self.refuse_formation(error);
        }
    }

    /// Lists are compared by their ids: a node may be reached by several names. But one that is
    /// elsewhere by another list may be a node of another cluster.
    fn warn_of_addresses(&self, claim: &Claim) {
        let Some(formation) = &self.formation else { return };
        for (id, listed) in formation.list() {
            if let Some(claimed) = claim.list.get(id).filter(|claimed| *claimed != listed) {
                tracing::warn!(
                    me = %self.common.me,
                    "node {id} is at {listed} by the list of this node, and at {claimed} by that of node {}, which \
                     forms the cluster: one of the lists may be wrong",
                    claim.founder.id
                );
            }
        }
    }

    /// A member that has no log yet asks around. It may have accepted the claim of the founder's
    /// next disk, and hear nothing of this cluster before it is told its id. A member other than
    /// the founder has the first entry, so that claim can't succeed.
    ///
    /// Or it was put back to before its first entry: then it is told its id by a founder too that
    /// remembers entries of it, and next, over a connection that is proven, what it has forgotten.
    fn admit_member(&mut self, from: Replica, listed: &BTreeSet<NodeId>) {
        let common = &mut self.common;
        let Some(membership) = common.membership() else { return };
        let founders = membership.founders();
        let is_founder = founders.first() == Some(&common.me.id);
        // (That it has voted proves nothing: it votes before it has the first entry, and the
        // founder may lose that again.)
        let knows = |memory: Memory| memory.acknowledged != LogId::ZERO;
        let has_left = !is_founder || common.memory_of(from).is_some_and(knows);
        if has_left && membership.is_member(from) && listed == founders {
            let (cluster, founders) = (membership.cluster(), founders.clone());
            common.send(from, Body::Admit { cluster, founders });
        }
    }

    fn tell_situation(&mut self, to: Replica, asked: Option<ClusterId>) {
        let situation = self.common.situation(asked);
        let listed = self.listed().cloned().unwrap_or_default();
        self.common.promise(to, Body::Situation { situation, listed });
    }

    fn on_situation(&mut self, from: Replica, situation: Situation, listed: BTreeSet<NodeId>) {
        if let State::Leader(leader) = &mut self.role {
            leader.on_situation(&mut self.common, from, situation, &listed);
        } else if let Some(formation) = &mut self.formation {
            match formation.on_situation(&mut self.common, from, situation, listed) {
                Ok(()) => self.form(),
                Err(error) => self.refuse_formation(error),
            }
        }
    }

    /// Whether entries may follow on `prev` here: configurations among them are of this replica's
    /// cluster, and a log begins only with the first entry of a cluster that it may join.
    fn accepts_entries(&self, from: Replica, prev: LogId, entries: &Entries) -> bool {
        if self.common.log.last() == LogId::ZERO && prev != LogId::ZERO {
            return true; // They will not fit, and the sender is to learn where the log ends.
        }
        let begins = prev == LogId::ZERO && self.common.membership().is_none();
        if entries.is_plain() {
            return !begins;
        }
        let first = entries.first().map(|entry| (entry.log_id, &entry.payload));
        if begins && !matches!(first, Some((LogId::FIRST, Payload::Membership(_)))) {
            return false;
        }
        entries.iter().all(|entry| match &entry.payload {
            Payload::Membership(membership) => self.accepts_configuration(from, membership),
            Payload::Blank | Payload::Command(_) => true,
        })
    }

    fn accepts_configuration(&self, from: Replica, membership: &Membership) -> bool {
        match self.common.membership() {
            Some(ours) => ours.cluster() == membership.cluster(),
            None => self.common.may_join(membership, from, self.listed()),
        }
    }

    /// Whether this replica is to believe that its own leader wants `candidate` to take over.
    fn is_valid_transfer(&self, candidate: Replica, transfer: Option<LeadershipTransfer>) -> bool {
        let Some(transfer) = transfer else { return false };
        match &self.role {
            State::Follower(follower) => follower.is_valid_transfer(&self.common, transfer),
            State::Leader(leader) => {
                plant!(I10, return true);
                transfer.leader == self.common.me
                    && transfer.term == self.common.hard_state.term
                    && leader.transfers_to(candidate)
            }
            State::Candidate(_) => false,
        }
    }

    /// A message of an earlier term: whoever sent it learns of ours, so that it stops waiting or
    /// leading.
    fn on_old_term(&mut self, from: Replica, term: Term, body: Body) {
        let common = &mut self.common;
        let reply = match body {
            Body::PreVote { attempt, last_log_id } => {
                common.tell_removed(from, last_log_id);
                Body::PreVoteReply { granted: false, attempt }
            }
            Body::Vote { attempt, .. } => Body::VoteReply { granted: false, attempt },
            Body::Append { .. } | Body::Rest { .. } | Body::Snapshot { .. } => {
                // Its sender may lead in our term by now, so this must not pass for an answer to
                // what it has sent there: not to a probe, and not to a round, which would confirm a
                // read that began later (L3).
                let outcome = AppendOutcome::Rejected { prev: 0, hint: LogId::ZERO };
                Body::AppendReply { round: 0, outcome }
            }
            Body::Forward { boot, sequence, .. } => {
                return common.refuse_missed(term, from, boot, sequence);
            }
            Body::ForwardReply { boot, sequence, outcome } => {
                return common.on_forward_reply(from, boot, sequence, outcome);
            }
            Body::ReadIndex { sequence } => {
                Body::ReadIndexReply { sequence, index: None, time: common.log.time() }
            }
            Body::Change(request) => {
                let reply = Box::new(ChangeReply::Again);
                Body::ChangeReply { id: request.id, reply }
            }
            Body::ChangeReply { id, reply } => {
                if !reply.ends(id) {
                    common.out.rare().changes.push((id, *reply));
                }
                return;
            }
            Body::PreVoteReply { .. }
            | Body::VoteReply { .. }
            | Body::Removed { .. }
            | Body::AppendReply { .. }
            | Body::Rests { .. }
            | Body::Alive(_)
            | Body::ReadIndexReply { .. }
            | Body::TimeoutNow { .. }
            | Body::Who { .. }
            | Body::Situation { .. }
            | Body::Claim(_)
            | Body::Admit { .. }
            | Body::SnapshotReply { .. } => return,
        };
        common.send(from, reply);
    }

    fn on_vote(&mut self, from: Replica, last_log_id: LogId, attempt: u64) {
        let common = &mut self.common;
        let free = match common.hard_state.voted_for {
            Some(other) => other == from,
            // A follower of a leader of this very term has no reason to vote in it any more.
            None => match &self.role {
                State::Follower(follower) => follower.leader().is_none(),
                State::Candidate(_) | State::Leader(_) => false,
            },
        };
        plant!(I1, free = free || common.hard_state.voted_for.is_some_and(|v| v.id == from.id));
        let granted = free && last_log_id_is_current(last_log_id, common.log.last());
        plant!(M13, granted = granted && common.voters.contains(from));
        if granted {
            let term = common.hard_state.term;
            common.set_hard_state(HardState { term, voted_for: Some(from) });
            if let State::Follower(follower) = &mut self.role {
                follower.wait_for_leader(common);
            }
        }
        common.promise(from, Body::VoteReply { granted, attempt });
    }

    /// Keeps what a voter has answered and how long it took, to be told while there is no leader.
    fn note_answer(&mut self, from: Replica, granted: bool, attempt: u64) {
        let common = &mut self.common;
        if common.voters.contains(from) {
            self.answers.insert(from, granted);
            let Common { me, voters, round_trips, now, .. } = common;
            round_trips.answered(*me, voters, from, attempt, *now);
        }
    }

    fn on_vote_reply(&mut self, pre: bool, from: Replica, term: Term, granted: bool) {
        if let State::Candidate(candidate) = &mut self.role
            && candidate.pre == pre
            && (!granted || term == candidate.term)
        {
            if granted && !pre && self.common.voters.contains(from) {
                self.common.remember(from, true, |memory| {
                    memory.term = memory.term.max(term);
                    memory.voted = term;
                });
            }
            candidate.count(&self.common, from, granted);
            self.count_votes();
        }
    }
}

/// Whether a message is for this replica. Questions to a node go to whichever store it has now.
fn is_for(me: Replica, to: Replica, body: &Body) -> bool {
    let to_node = to == Replica::any(me.id) && matches!(body, Body::Who { .. } | Body::Claim(_));
    plant!(I2, return to.id == me.id);
    to == me || to_node
}

/// Whether a log that ends with `theirs` has everything that was committed, as far as one that ends
/// with `ours` can tell: a later term, or the same and no shorter (3.6.1).
pub(super) fn last_log_id_is_current(theirs: LogId, ours: LogId) -> bool {
    plant!(E1, return theirs.term >= ours.term && theirs.index >= ours.index);
    (theirs.term, theirs.index) >= (ours.term, ours.index)
}

/// Whether these entries can follow `prev` in a log of a leader of `term`.
fn entries_follow(prev: LogId, entries: &Entries, term: Term) -> bool {
    let telling = if entries.is_plain() { 1 } else { entries.len() };
    let mut before = prev;
    entries.iter().take(telling).all(|entry| {
        let log_id = entry.log_id;
        let follows = Some(log_id.index) == before.index.checked_add(1)
            && log_id.term >= before.term
            && (log_id.term > before.term
                || log_id.leader == before.leader
                || before == LogId::ZERO)
            && log_id.term <= term;
        before = log_id;
        follows
    })
}

/// Whether a leader of `term` can have such a snapshot, and such a chunk of it, for a log that ends
/// with `last`.
fn snapshot_can_be(meta: &SnapshotMeta, offset: u64, len: usize, term: Term, last: Index) -> bool {
    let end = offset.checked_add(len as u64);
    let farthest = last.saturating_add(MAX_SNAPSHOT_STEP).min(LAST_INDEX);
    plant!(I9, farthest = Index::MAX);
    meta.log_id.term <= term
        && (1..=meta.log_id.index).contains(&meta.membership_index)
        && meta.log_id.index <= farthest
        && end.is_some_and(|end| end <= meta.bytes)
}
