//! A replica that wants to lead: first it asks whether it would be elected (pre-vote, 9.6), then it
//! campaigns (3.4).
//!
//! Two that ask at the same time must not cancel each other out, as they would if all voters
//! granted both requests: both would campaign, and might share the votes. So those who ask are put
//! in [order](Contender::is_better_than), and a pre-candidate *yields* to a better one: it grants
//! the request, gives its own attempt up, and refuses worse ones, until it would have asked anew.
//! The better one refuses the worse one's request. With nodes 1, 2 and 3, whose logs are equal and
//! who ask at the same moment:
//!
//! 1. Node 1 hears of 2 and 3, node 2 hears of 3: both yield. Node 3 refuses 1 and 2.
//! 2. Node 3 has the pre-votes of all three. It alone campaigns, and leads.
//!
//! What keeps this from delaying an election:
//!
//! - Requests that are not answered are repeated, so that a lost message costs a heartbeat interval
//!   and not an attempt.
//! - A replica yields in one attempt only, and not in the next one, unless it has voted or heard of
//!   a leader in between. One that is better but can't be elected, as it hears nobody, delays the
//!   others by one attempt.
//! - A pre-candidate yields to a worse one as well, once that one has refused its request (it had
//!   heard of the leader later, or had yielded to a third), or when it repeats its requests no
//!   more: its own attempt has failed, as far as the other is concerned.
//! - It yields to nobody whose log is shorter, as it does not grant that request at all, and a real
//!   candidate does not yield.
//!
//! Nothing of this concerns safety: pre-votes change no hard state, and whoever gets them still has
//! to be elected.

use std::collections::BTreeMap;

use quorate_rt::Instant;

use super::follower::Follower;
use super::messages::last_log_id_is_current;
use super::{Common, Engine, State};
use crate::identity::Replica;
use crate::message::{Body, LeadershipTransfer};
use crate::plant;
use crate::quorum::VoteResult;
use crate::types::{LogId, Term};

/// Why and how to campaign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Campaign {
    /// Only ask, which changes nothing.
    Ask,
    /// A quorum would vote for this replica.
    Elect,
    /// The leader wants it.
    Transfer(LeadershipTransfer),
}

/// A replica that asks for pre-votes, as far as it is compared with others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Contender {
    /// The term that it would campaign in.
    term: Term,
    last_log_id: LogId,
    replica: Replica,
}

impl Contender {
    /// Whether this one goes on, of two that ask at the same time. It is the one with the later
    /// term (the other's would be over soon), then the one with the longer log (3.6.1), then the
    /// one with the greater id. All replicas must come to the same result, so priorities do not
    /// count: not all know the same ones. The leader follows them, by transfers.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        let rank = |contender: &Self| {
            let Self { term, last_log_id: last, replica } = *contender;
            (term, last.term, last.index, replica)
        };
        rank(self) > rank(other)
    }
}

pub(super) struct Candidate {
    /// Only asking.
    pub(super) pre: bool,
    /// The term that it is about: while it only asks, the next one.
    pub(super) term: Term,
    /// When to give up and ask anew.
    pub(super) election_at: Instant,
    /// While it only asks: whether it yields to a better one.
    yields: bool,
    votes: BTreeMap<Replica, bool>,
    /// The number of its requests, and on whose order they are made.
    attempt: u64,
    transfer: Option<LeadershipTransfer>,
    /// When to repeat them to those that have not answered, and until when that is done.
    pub(super) repeat_at: Instant,
    repeats_until: Instant,
}

impl Candidate {
    /// Asks all voters about this term, which of a real campaign has begun already. It yields to a
    /// better one, unless it has done so before.
    pub(super) fn new(
        common: &mut Common,
        campaign: Campaign,
        term: Term,
        has_yielded: bool,
    ) -> Self {
        let pre = campaign == Campaign::Ask;
        let transfer = match campaign {
            Campaign::Transfer(transfer) => Some(transfer),
            Campaign::Ask | Campaign::Elect => None,
        };
        if pre {
            common.admit_voters();
        }
        common.sequence += 1;
        let attempt = common.sequence;
        common.round_trips.ask(attempt, common.now);
        let yields = pre && !has_yielded;
        plant!(E9, yields = false);
        let election_at = common.election_at();
        let now = common.now;
        // An answer to the last repetition is measured as one to the first request. It must not
        // pass for one that took an election timeout, unless a round trip takes a third of one.
        let repeats_until = now + common.config.election_timeout * 2 / 3;
        let votes = BTreeMap::new();
        let mut candidate = Self {
            pre,
            term,
            election_at,
            yields,
            votes,
            attempt,
            transfer,
            repeat_at: now,
            repeats_until,
        };
        let all = common.other_voters();
        candidate.ask(common, all);
        if pre {
            candidate.votes.insert(common.me, true);
        }
        candidate
    }

    fn ask(&mut self, common: &mut Common, voters: Vec<Replica>) {
        let last_log_id = common.log.last();
        let Self { attempt, transfer, .. } = *self;
        for peer in voters {
            if self.pre {
                common.send_in_term(peer, self.term, Body::PreVote { last_log_id, attempt });
            } else {
                common.send(peer, Body::Vote { last_log_id, transfer, attempt });
            }
        }
        self.repeat_at = common.now + common.config.heartbeat_interval;
    }

    pub(super) fn election_is_due(&self, common: &Common) -> bool {
        common.now >= self.election_at
    }

    /// It will try again then, and not before.
    pub(super) fn wait(&mut self, common: &mut Common) {
        self.election_at = common.election_at();
    }

    pub(super) fn wake_at(&self) -> Instant {
        match self.repeats() {
            true => self.repeat_at.min(self.election_at),
            false => self.election_at,
        }
    }

    /// Whether its requests will be repeated once more.
    fn repeats(&self) -> bool {
        self.repeat_at <= self.repeats_until
    }

    pub(super) fn on_time(&mut self, common: &mut Common) {
        if self.repeats() && common.now >= self.repeat_at {
            self.repeat(common);
        }
    }

    /// Asks those again that have not answered, but for those whose nodes are known to be gone. A
    /// node with many groups that have lost their quorum would have a lot to send.
    fn repeat(&mut self, common: &mut Common) {
        let mut silent = common.other_voters();
        silent.retain(|voter| {
            !self.votes.contains_key(voter) && !common.node_states.has_fallen_silent(*voter)
        });
        self.ask(common, silent);
    }

    /// Its own vote counts once it is durable, like any other. Without it, it might lead, restart,
    /// and lead once more in the same term: then the same log id could name two entries.
    pub(super) fn count_own_vote(&mut self, common: &Common) {
        if !self.pre && common.durable_hard_state == common.hard_state {
            self.votes.insert(common.me, true);
        }
    }

    /// Only those who vote in this replica's configuration are kept, so that others take no memory.
    pub(super) fn count(&mut self, common: &Common, voter: Replica, granted: bool) {
        if common.voters.contains(voter) {
            self.votes.insert(voter, granted);
        }
    }

    /// Whether a majority has refused.
    pub(super) fn has_lost(&self, common: &Common) -> bool {
        common.voters.vote_result(|voter| self.votes.get(&voter).copied()) == VoteResult::Lost
    }

    /// Whether it is elected, itself having voted.
    pub(super) fn is_elected(&self, common: &Common) -> bool {
        self.votes.contains_key(&common.me)
            && common.voters.vote_result(|voter| self.votes.get(&voter).copied()) == VoteResult::Won
    }
}

impl Engine {
    /// A replica asks whether it would be elected in this term, which binds nobody.
    pub(super) fn on_pre_vote(
        &mut self,
        from: Replica,
        term: Term,
        last_log_id: LogId,
        attempt: u64,
    ) {
        let ours = self.common.hard_state.term;
        let granted = term > ours
            && last_log_id_is_current(last_log_id, self.common.log.last())
            && !self.follows_live_leader()
            && self.prefers(Contender { term, last_log_id, replica: from });
        if !granted {
            self.common.tell_removed(from, last_log_id);
        }
        let term = if granted { term } else { ours };
        self.common.send_in_term(from, term, Body::PreVoteReply { granted, attempt });
    }

    /// Whether it prefers this one, who might be elected, to itself and to whom it has yielded. If
    /// it asks for pre-votes itself, it yields.
    fn prefers(&mut self, theirs: Contender) -> bool {
        let common = &self.common;
        if !common.voters.contains(theirs.replica) {
            return true; // Its configuration may be newer. But a stranger must not end an attempt.
        }
        match &mut self.role {
            State::Candidate(candidate) if candidate.yields => {
                let ours = Contender {
                    term: candidate.term,
                    last_log_id: common.log.last(),
                    replica: common.me,
                };
                let has_refused = candidate.votes.get(&theirs.replica) == Some(&false);
                let has_failed = has_refused || !candidate.repeats();
                let yields = has_failed || theirs.is_better_than(&ours);
                plant!(X14, yields = true);
                if yields {
                    let follower = Follower::yielding(candidate.election_at, theirs);
                    self.role = State::Follower(follower);
                }
                yields
            }
            State::Follower(follower) => follower.prefers(theirs),
            State::Candidate(_) | State::Leader(_) => true,
        }
    }
}
