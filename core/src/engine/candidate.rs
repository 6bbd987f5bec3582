//! A node that wants to lead: first it asks whether it would be elected (pre-vote, 9.6), then it campaigns (3.4).

use std::collections::BTreeMap;

use quorate_rt::Instant;

use super::Common;
use super::catching_up::Elected;
use crate::message::{Body, Vote};
use crate::quorum::{VoteResult, vote_result};
use crate::types::NodeId;

/// Why and how to campaign.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Campaign {
    /// Only ask, which changes nothing.
    Ask,
    /// A quorum would vote for this node.
    Elect,
    /// The leader wants it.
    Handover,
}

pub(super) struct Candidate {
    /// Only asking.
    pub(super) pre: bool,
    /// When to give up and ask anew.
    pub(super) election_at: Instant,
    votes: BTreeMap<NodeId, Vote>,
}

impl Candidate {
    /// Asks all voters. The term of a real campaign has begun already.
    pub(super) fn new(common: &mut Common, campaign: Campaign) -> Self {
        let pre = campaign == Campaign::Ask;
        let handover = campaign == Campaign::Handover;
        let last_log_id = common.log.last();
        let mut votes = BTreeMap::new();
        for peer in common.peers() {
            if pre {
                let term = common.hard_state.term.next();
                common.send_in_term(peer, term, Body::PreVote { last_log_id });
            } else {
                common.send(peer, Body::Vote { last_log_id, handover });
            }
        }
        if pre {
            votes.insert(common.id, common.vote(true));
        }
        Self { pre, election_at: common.election_at(), votes }
    }

    /// Its own vote counts once it is durable, like any other. Without it, it might lead, restart, and lead once more in the same term: then
    /// the same log id could name two entries.
    pub(super) fn count_own_vote(&mut self, common: &Common) {
        if !self.pre && common.durable_hard_state == common.hard_state {
            self.votes.insert(common.id, common.vote(true));
        }
    }

    pub(super) fn count(&mut self, voter: NodeId, vote: Vote) {
        self.votes.insert(voter, vote);
    }

    /// Whether it is elected, itself having voted, and by whom (see `catching_up.rs`).
    pub(super) fn elected(&self, common: &Common) -> Option<Elected> {
        let by_quorum = vote_result(&[&common.voters], |voter| match self.votes.get(&voter)? {
            Vote::Yes => Some(true),
            Vote::No => Some(false),
            Vote::Tentative => None,
        });
        let by_all = || {
            let granted = |voter| self.votes.get(voter).is_some_and(|vote| *vote != Vote::No);
            common.voters.iter().all(granted)
        };
        match by_quorum {
            _ if !self.votes.contains_key(&common.id) => None,
            VoteResult::Won => Some(Elected::ByQuorum),
            _ => by_all().then_some(Elected::ByAll),
        }
    }
}
