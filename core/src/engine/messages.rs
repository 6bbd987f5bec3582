//! What an engine makes of the messages of its peers: which it believes, which term they bring, and which role they concern.

use quorate_rt::planted::{Bug, planted};

use super::candidate::Campaign;
use super::{Engine, State};
use crate::entries::Entries;
use crate::message::{AppendOutcome, Body, ForwardOutcome, Message, Vote};
use crate::snapshot::SnapshotMeta;
use crate::types::{Index, LogId, NodeId, Term};

/// So many elections can't have happened. A peer that speaks of a later term is not believed, lest there be no next one.
const LAST_TERM: Term = Term(u64::MAX / 2);

/// No log gets beyond this index in thousands of years, and a store may rely on it. A peer whose snapshot claims more is not believed.
const LAST_INDEX: Index = Index::MAX >> 2;

impl Engine {
    pub(super) fn on_message(&mut self, message: Message) {
        let common = &mut self.common;
        let Message { group, from, to, term, body } = message;
        if group != common.group || to != common.id || from == common.id || from == 0 {
            tracing::warn!(from, to, group, "ignored a message that is not for this node");
            return;
        }
        if term > LAST_TERM {
            tracing::error!(from, %term, "ignored a message of a term that can't be");
            return;
        }
        let ours = common.hard_state.term;
        if term > ours {
            match &body {
                // A question that binds nobody, and the answer to ours.
                Body::PreVote { .. } | Body::PreVoteReply { vote: Vote::Yes | Vote::Tentative } => {
                }
                // While a leader is alive nobody else is wanted, whatever the term (4.2.3).
                Body::Vote { handover: false, .. } if self.follows_live_leader() => return,
                _ => self.become_follower(term),
            }
        } else if term < ours {
            self.on_old_term(from, body);
            return;
        }
        let common = &mut self.common;
        match body {
            Body::PreVote { last_log_id } => {
                let granted = term > common.hard_state.term
                    && last_log_id_is_current(last_log_id, common.log.last())
                    && !self.follows_live_leader();
                let common = &mut self.common;
                let term = if granted { term } else { common.hard_state.term };
                let vote = common.vote(granted);
                common.send_in_term(from, term, Body::PreVoteReply { vote });
            }
            Body::Vote { last_log_id, .. } => self.on_vote(from, last_log_id),
            Body::PreVoteReply { vote } => self.on_vote_reply(true, from, term, vote),
            Body::VoteReply { vote } => self.on_vote_reply(false, from, term, vote),
            Body::Append { prev, committed, round, entries } => {
                if !entries_follow(prev, &entries, term) {
                    tracing::error!(from, %prev, "ignored an append whose entries can't be");
                    return;
                }
                if let State::Candidate(_) = self.role {
                    self.become_follower(term);
                }
                match &mut self.role {
                    State::Follower(follower) => {
                        follower.on_append(&mut self.common, from, prev, committed, round, entries);
                    }
                    State::Candidate(_) | State::Leader(_) => {
                        tracing::error!(from, %term, "ignored a second leader of this node's term");
                    }
                }
            }
            Body::AppendReply { round, outcome } => {
                if let State::Leader(leader) = &mut self.role {
                    leader.on_append_reply(common, from, round, outcome);
                }
            }
            Body::Forward { session, sequence, commands } => match &mut self.role {
                State::Leader(leader) => {
                    leader.on_forward(common, from, session, sequence, commands);
                }
                // A leader that has stepped down may have taken another copy of it: then only silence is true.
                _ if common.hard_state.voted_for == Some(common.id) => {}
                _ => {
                    let outcome = ForwardOutcome::NotLeader;
                    common.send(from, Body::ForwardReply { session, sequence, outcome });
                }
            },
            Body::ForwardReply { session, sequence, outcome } => {
                if let State::Follower(follower) = &mut self.role
                    && session == common.session
                {
                    follower.on_forward_reply(common, from, sequence, outcome);
                }
            }
            Body::ReadIndex { sequence } => match &mut self.role {
                State::Leader(leader) => leader.on_read_index(common, from, sequence),
                _ => common.send(from, Body::ReadIndexReply { sequence, index: None }),
            },
            Body::Snapshot { meta, offset, chunk } => {
                if !snapshot_can_be(&meta, offset, chunk.len(), term) {
                    tracing::error!(from, at = %meta.log_id, "ignored a snapshot that can't be");
                    return;
                }
                if let State::Candidate(_) = self.role {
                    self.become_follower(term);
                }
                match &mut self.role {
                    State::Follower(follower) => {
                        follower.on_snapshot(&mut self.common, from, meta, offset, chunk);
                    }
                    State::Candidate(_) | State::Leader(_) => {
                        tracing::error!(from, %term, "ignored a second leader of this node's term");
                    }
                }
            }
            Body::SnapshotReply { digest, stored } => {
                if let State::Leader(leader) = &mut self.role {
                    leader.on_snapshot_reply(common, from, digest, stored);
                }
            }
            Body::TimeoutNow => {
                if common.is_voter() && self.leader() == Some(from) {
                    self.campaign(Campaign::Handover);
                }
            }
            Body::ReadIndexReply { sequence, index } => {
                if let State::Follower(follower) = &mut self.role {
                    follower.on_read_index_reply(common, from, sequence, index);
                }
            }
        }
    }

    /// A message of an earlier term: whoever sent it learns of ours, so that it stops waiting or leading.
    fn on_old_term(&mut self, from: NodeId, body: Body) {
        let common = &mut self.common;
        let reply = match body {
            Body::PreVote { .. } => Body::PreVoteReply { vote: Vote::No },
            Body::Vote { .. } => Body::VoteReply { vote: Vote::No },
            Body::Append { .. } | Body::Snapshot { .. } => {
                // Its sender may lead in our term by now, so this must not pass for an answer to what it has sent there: not
                // to a probe, and not to a round, which would confirm a read that began later (L3).
                let outcome = AppendOutcome::Rejected { prev: 0, hint: LogId::ZERO };
                Body::AppendReply { round: 0, outcome }
            }
            Body::Forward { session, sequence, .. } => {
                Body::ForwardReply { session, sequence, outcome: ForwardOutcome::NotLeader }
            }
            Body::ReadIndex { sequence } => Body::ReadIndexReply { sequence, index: None },
            Body::PreVoteReply { .. }
            | Body::VoteReply { .. }
            | Body::AppendReply { .. }
            | Body::ForwardReply { .. }
            | Body::ReadIndexReply { .. }
            | Body::TimeoutNow
            | Body::SnapshotReply { .. } => return,
        };
        common.send(from, reply);
    }

    fn on_vote(&mut self, from: NodeId, last_log_id: LogId) {
        let common = &mut self.common;
        let free = match common.hard_state.voted_for {
            Some(other) => other == from,
            // A follower of a leader of this very term has no reason to vote in it any more.
            None => match &self.role {
                State::Follower(follower) => follower.leader().is_none(),
                State::Candidate(_) | State::Leader(_) => false,
            },
        };
        let granted = free && last_log_id_is_current(last_log_id, common.log.last());
        if granted {
            common.hard_state.voted_for = Some(from);
            if let State::Follower(follower) = &mut self.role {
                follower.wait_for_leader(common);
            }
        }
        let vote = common.vote(granted);
        common.promise(from, Body::VoteReply { vote });
    }

    fn on_vote_reply(&mut self, pre: bool, from: NodeId, term: Term, vote: Vote) {
        let asked =
            if pre { self.common.hard_state.term.next() } else { self.common.hard_state.term };
        if let State::Candidate(candidate) = &mut self.role
            && candidate.pre == pre
            && (vote == Vote::No || term == asked)
        {
            candidate.count(from, vote);
            self.count_votes();
        }
    }
}

/// Whether a log that ends with `theirs` has everything that was committed, as far as one that ends with `ours` can tell: a later term, or the same
/// and no shorter (3.6.1).
fn last_log_id_is_current(theirs: LogId, ours: LogId) -> bool {
    if planted(Bug::E1) {
        return theirs.term >= ours.term && theirs.index >= ours.index;
    }
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

/// Whether a leader of `term` can have such a snapshot, and such a piece of it.
fn snapshot_can_be(meta: &SnapshotMeta, offset: u64, len: usize, term: Term) -> bool {
    let end = offset.checked_add(len as u64);
    meta.log_id.term <= term
        && (1..=meta.log_id.index).contains(&meta.membership_index)
        && meta.log_id.index <= LAST_INDEX
        && end.is_some_and(|end| end <= meta.bytes)
}
