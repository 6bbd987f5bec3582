//! What every role needs: who this node is, its log and hard state, and what is to come out of the turn.

use std::mem;
use std::time::Duration;

use quorate_rt::Instant;
use quorate_rt::planted::{Bug, planted};

use super::catching_up::Reach;
use super::log::Log;
use super::output::{Output, Proposal};
use super::snapshot::Receiving;
use crate::config::Config;
use crate::entries::Entries;
use crate::message::{Body, Message, Refusal};
use crate::types::{Entry, GroupId, HardState, Index, NodeId, Payload, Term};

/// What every role needs.
pub(super) struct Common {
    pub(super) id: NodeId,
    pub(super) group: GroupId,
    pub(super) config: Config,
    pub(super) random: fastrand::Rng,
    pub(super) now: Instant,
    pub(super) log: Log,
    pub(super) hard_state: HardState,
    /// What of it the disk is known to have.
    pub(super) durable_hard_state: HardState,
    /// What of it was handed to the store.
    pub(super) submitted_hard_state: HardState,
    pub(super) committed: Index,
    /// What it has to reach to have caught up, when that is known.
    pub(super) reach: Option<Reach>,
    /// The voters of the membership in force.
    pub(super) voters: Vec<NodeId>,
    /// Answers that wait until what they promise is durable.
    pub(super) held: Vec<(HardState, Message)>,
    /// The snapshot that is coming in.
    pub(super) receiving: Option<Receiving>,
    /// Distinguishes this run of the node from earlier ones, for those to whom it passes on writes.
    pub(super) session: u64,
    /// The last number given to a forward or a question.
    pub(super) sequence: u64,
    /// Of the forward that is being looked at: the commands that can't be read.
    pub(super) refused: Vec<Refusal>,
    pub(super) out: Box<Output>,
}

impl Common {
    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        self.send_in_term(to, self.hard_state.term, body);
    }

    pub(super) fn send_in_term(&mut self, to: NodeId, term: Term, body: Body) {
        let message = Message { group: self.group, from: self.id, to, term, body };
        self.out.messages.push(message);
    }

    /// Sends what must not be said before this node's term and vote are durable.
    pub(super) fn promise(&mut self, to: NodeId, body: Body) {
        let at_once = planted(Bug::E2) && matches!(body, Body::VoteReply { .. });
        if self.hard_state == self.durable_hard_state || at_once {
            self.send(to, body);
        } else {
            let term = self.hard_state.term;
            let message = Message { group: self.group, from: self.id, to, term, body };
            // What it would have said of this kind before is out of date, and what a slow disk holds back stays bounded.
            let kind = mem::discriminant(&message.body);
            self.held.retain(|(_, held)| held.to != to || mem::discriminant(&held.body) != kind);
            self.held.push((self.hard_state, message));
        }
    }

    pub(super) fn persisted(&mut self, write: u64) {
        if let Some(hard_state) = self.log.persisted(write) {
            assert!(hard_state >= self.durable_hard_state, "the hard state never falls");
            self.durable_hard_state = hard_state;
            // One that was overtaken before it was written is kept just as well by its successor: a later term rules out the earlier.
            let out = &mut self.out.messages;
            let is_kept = |needs: HardState| needs <= hard_state || planted(Bug::X2);
            out.extend(self.held.extract_if(.., |(needs, _)| is_kept(*needs)).map(|(_, m)| m));
        }
    }

    pub(super) fn append(&mut self, entry: Entry) {
        let reconfigures = matches!(entry.payload, Payload::Membership(_));
        self.log.push(entry);
        if reconfigures {
            self.membership_changed();
        }
    }

    pub(super) fn extend(&mut self, run: Entries) {
        let brings = |entry: &Entry| matches!(entry.payload, Payload::Membership(_));
        let reconfigures = !run.is_plain() && run.iter().any(brings);
        self.log.extend(run);
        if reconfigures {
            self.membership_changed();
        }
    }

    pub(super) fn truncate(&mut self, from: Index) {
        assert!(
            from > self.committed || planted(Bug::R2),
            "entry {from} is to be replaced, but {} are committed (R2)",
            self.committed
        );
        self.log.truncate(from);
        self.membership_changed();
    }

    pub(super) fn membership_changed(&mut self) {
        let membership = self.log.membership();
        self.voters = membership.map(|m| m.voters().keys().copied().collect()).unwrap_or_default();
        self.out.membership = membership.cloned();
    }

    pub(super) fn is_voter(&self) -> bool {
        self.voters.contains(&self.id)
    }

    /// Others than this node.
    pub(super) fn peers(&self) -> Vec<NodeId> {
        self.voters.iter().copied().filter(|voter| *voter != self.id).collect()
    }

    pub(super) fn commit_to(&mut self, index: Index) {
        assert!(index <= self.log.last().index, "committed beyond the end of the log");
        if index > self.committed {
            self.committed = index;
            self.out.committed = Some(index);
        }
    }

    /// A time from one to two election timeouts from now, so that rarely two nodes campaign at once (3.4).
    pub(super) fn election_at(&mut self) -> Instant {
        let timeout = self.config.election_timeout;
        let extra = self.random.u64(..=u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        let extra = if planted(Bug::E9) { 0 } else { extra };
        self.now + timeout + Duration::from_nanos(extra)
    }

    /// The leader that took what was placed may not be able to commit it any more.
    pub(super) fn placed_are_lost(&mut self) {
        self.out.placed_are_lost = true;
        for (_, outcome) in &mut self.out.proposals {
            if let Proposal::Placed(_) = outcome {
                *outcome = Proposal::Unknown;
            }
        }
    }
}
