//! A replica that wants to lead: first it asks whether it would be elected (pre-vote, 9.6), then it
//! campaigns (3.4).

use std::collections::BTreeMap;

use quorate_rt::Instant;

use super::Common;
use crate::identity::Replica;
use crate::message::{Body, LeadershipTransfer};
use crate::quorum::VoteResult;
use crate::types::Term;

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

pub(super) struct Candidate {
    /// Only asking.
    pub(super) pre: bool,
    /// The term that it is about: while it only asks, the next one.
    pub(super) term: Term,
    /// When to give up and ask anew.
    pub(super) election_at: Instant,
    votes: BTreeMap<Replica, bool>,
}

impl Candidate {
    /// Asks all voters about this term, which of a real campaign has begun already.
    pub(super) fn new(common: &mut Common, campaign: Campaign, term: Term) -> Self {
        let pre = campaign == Campaign::Ask;
        let transfer = match campaign {
            Campaign::Transfer(transfer) => Some(transfer),
            Campaign::Ask | Campaign::Elect => None,
        };
        let last_log_id = common.log.last();
        if pre {
            common.admit_voters();
        }
        common.sequence += 1;
        let attempt = common.sequence;
        common.round_trips.ask(attempt, common.now);
        let mut votes = BTreeMap::new();
        for peer in common.other_voters() {
            if pre {
                common.send_in_term(peer, term, Body::PreVote { last_log_id, attempt });
            } else {
                common.send(peer, Body::Vote { last_log_id, transfer, attempt });
            }
        }
        if pre {
            votes.insert(common.me, true);
        }
        Self { pre, term, election_at: common.election_at(), votes }
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
