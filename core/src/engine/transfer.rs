//! Leadership by hand: transferring it (3.10), campaigning and stepping down.
//!
//! A transfer has two phases:
//!
//! 1. The leader serves as usual until a voter that may take over has caught up: it has
//!    acknowledged all that the log held when the transfer began, and all that came since is on its
//!    way to it.
//! 2. Then the leader takes no more commands and tells that voter to campaign, at once. The order
//!    follows the last entries on the same connection. It takes effect only where the log ends with
//!    them, so it is lost with them, and is then repeated.
//!
//! The order waits neither for the last entries to be acknowledged nor for them to be committed.
//! A candidate leads when its own vote is durable, and what its log held before is durable by then.
//! Its first entry commits what the old leader had not.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_rt::Instant;

use super::leader::Leader;
use super::progress::{Mode, Progress};
use super::{Common, Engine, State};
use crate::config::Config;
use crate::identity::Replica;
use crate::leadership::{
    CampaignError, Leadership, StepDownError, TransferError, TransferFailure, TransferOptions,
};
use crate::message::Body;
use crate::plant;
use crate::types::Index;

/// A leader whose disk is full tries to transfer leadership again after so many election timeouts.
pub(super) const YIELD_TIMEOUTS: u32 = 2;

/// A voter of a higher priority must have kept up for so many election timeouts before it takes the
/// leadership over: one that comes and goes is not to lead each time.
const STEADY_TIMEOUTS: u32 = 3;

/// … and a leader that it can't take over from, or a new one, waits for so many.
pub(super) const RETRY_TIMEOUTS: u32 = 10;

pub(super) struct OngoingTransfer {
    /// Who is to take over; any other voter if none.
    to: Option<Replica>,
    /// The end of the log when it began.
    goal: Index,
    /// Then it goes on leading: a peer that was told has failed, or none has come near (E8).
    pub(super) until: Instant,
    /// It has told somebody to take over, and takes no more commands.
    hands_over: bool,
    /// Whom it has told to campaign.
    sent_to: BTreeSet<Replica>,
    /// When it tells again, if it still leads: an order may be lost, or its peer gone.
    send_at: Instant,
}

impl OngoingTransfer {
    fn is_to(&self, peer: Replica) -> bool {
        self.to.is_none_or(|to| to == peer)
    }
}

/// Whether something was heard of a peer lately. A leader must not stop serving for the sake of one
/// that is gone.
fn is_heard(config: &Config, now: Instant, progress: &Progress) -> bool {
    progress.last_contact(now) + 2 * config.heartbeat_interval > now
}

impl Engine {
    /// Begins to transfer leadership. If a transfer to the same voter is under way, this is a part
    /// of it, with its deadline. [`is_resigning`](Self::is_resigning) tells whether it is still
    /// under way, and [`transfer_failure`](Self::transfer_failure) why it was given up.
    ///
    /// # Errors
    /// This replica does not lead, the node is not a voter, there is no other voter, or another
    /// transfer is under way.
    pub fn transfer_leadership(
        &mut self,
        now: Instant,
        options: TransferOptions,
    ) -> Result<(), TransferError> {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        match &mut self.role {
            State::Leader(leader) => leader.transfer_to(&self.common, options),
            State::Follower(_) | State::Candidate(_) => {
                Err(TransferError::NotLeader { leader: self.known_leader() })
            }
        }
    }

    /// Campaigns now, by pre-votes first. Once it [leads](Self::role), or follows another
    /// [leader](Self::leader), the outcome is known; [`has_lost`](Self::has_lost) tells that of a
    /// campaign that has no chance any more. Nothing happens on a replica that leads or campaigns.
    ///
    /// # Errors
    /// It is not a voter, or its leader is alive.
    pub fn campaign_by_hand(&mut self, now: Instant) -> Result<(), CampaignError> {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        if !self.common.may_campaign() {
            return Err(CampaignError::NotVoter);
        }
        match &self.role {
            State::Follower(follower) => {
                // The others refuse by the same rule. To leave the leader would only hold up those
                // who wait for its word here.
                if let Some(leader) = follower.leader().filter(|_| self.follows_live_leader()) {
                    let term = self.common.hard_state.term;
                    let led = Leadership { leader: leader.id, term };
                    return Err(CampaignError::LeaderIsAlive(led));
                }
                self.campaign_before_vote();
            }
            State::Candidate(candidate) if candidate.pre => self.campaign_before_vote(),
            State::Candidate(_) | State::Leader(_) => {}
        }
        Ok(())
    }

    /// Whether it campaigns, or asks for pre-votes, and a majority has refused.
    pub fn has_lost(&self) -> bool {
        matches!(&self.role, State::Candidate(candidate) if candidate.has_lost(&self.common))
    }

    /// Leads no more, at once and without a successor. It then waits for a leader like any
    /// follower.
    ///
    /// # Errors
    /// It does not lead, or there is no other voter: then it would be elected again at once.
    pub fn step_down(&mut self, now: Instant) -> Result<(), StepDownError> {
        assert!(now >= self.common.now, "time runs backwards");
        self.common.now = now;
        let State::Leader(leader) = &self.role else {
            return Err(StepDownError::NotLeader { leader: self.known_leader() });
        };
        if !leader.has_other_voters(&self.common) {
            return Err(StepDownError::NoOtherVoter);
        }
        let term = self.common.hard_state.term;
        tracing::info!(me = %self.common.me, %term, "steps down, as it was told to");
        self.become_follower(term);
        Ok(())
    }

    /// The leader, when known, and where it is reached.
    fn known_leader(&self) -> Option<crate::error::Leader> {
        let id = self.leader()?.id;
        let address = self.common.membership()?.address(id)?.to_owned();
        Some(crate::error::Leader { id, address })
    }

    /// Whether it leads, has told another voter to take over, and takes no commands meanwhile.
    pub fn hands_over(&self) -> bool {
        matches!(&self.role, State::Leader(leader) if leader.hands_over())
    }

    /// Why the last transfer of the present leadership was given up.
    pub fn transfer_failure(&self) -> Option<TransferFailure> {
        match &self.role {
            State::Leader(leader) => leader.failed_transfer,
            State::Follower(_) | State::Candidate(_) => None,
        }
    }
}

impl Leader {
    fn transfer_to(
        &mut self,
        common: &Common,
        options: TransferOptions,
    ) -> Result<(), TransferError> {
        let voter = |id| {
            let voter = common.voters.incoming().iter().find(|voter| voter.id == id);
            voter.copied().ok_or(TransferError::NoSuchVoter(id))
        };
        let to = options.to.map(voter).transpose()?;
        if !self.has_other_voters(common) {
            return Err(TransferError::NoOtherVoter);
        }
        match &self.transfer {
            Some(transfer) if transfer.to == to => {}
            Some(transfer) => {
                return Err(TransferError::UnderWay { to: transfer.to.map(|to| to.id) });
            }
            None => {
                let within = options.within.unwrap_or(common.config.election_timeout);
                self.begin_transfer(common, to, within.min(TransferOptions::LONGEST));
            }
        }
        Ok(())
    }

    pub(super) fn has_other_voters(&self, common: &Common) -> bool {
        self.peers.keys().any(|peer| common.voters.contains(*peer))
    }

    fn begin_transfer(&mut self, common: &Common, to: Option<Replica>, within: Duration) {
        self.failed_transfer = None;
        self.transfer = Some(OngoingTransfer {
            to,
            goal: common.log.last().index,
            until: common.now + within,
            hands_over: false,
            sent_to: BTreeSet::new(),
            send_at: common.now,
        });
    }

    /// Begins to transfer leadership to any voter, if there is another one. A transfer that is
    /// under way becomes one to any voter, within an election timeout.
    pub(super) fn resign(&mut self, common: &Common) {
        let timeout = common.config.election_timeout;
        if let Some(transfer) = &mut self.transfer {
            transfer.to = None;
            transfer.until = transfer.until.min(common.now + timeout);
        } else if self.has_other_voters(common) {
            self.begin_transfer(common, None, timeout);
        }
    }

    /// Transfers leadership if its disk is full and the others commit what that has no space for:
    /// then a quorum of them has space, and one of it should lead. Where nothing is committed
    /// without this disk, another leader could not commit its first entry, and so could not even
    /// answer reads.
    ///
    /// A try ends after an election timeout, and the next one begins another later: in between,
    /// clients are told why their writes are refused.
    pub(super) fn yield_to_others(&mut self, common: &Common) {
        let is_left_behind =
            common.log.waits_for_space() && common.committed > common.log.durable();
        if is_left_behind && self.transfer.is_none() && common.now >= self.yields_at {
            self.yields_at = common.now + YIELD_TIMEOUTS * common.config.election_timeout;
            self.resign(common);
        }
    }

    /// Transfers leadership to a voter of a higher priority that keeps up, once in a heartbeat
    /// interval.
    pub(super) fn prefer_another(&mut self, common: &Common) {
        self.awaits_preferred = false;
        let Some(membership) = common.membership().filter(|m| m.has_priorities()) else { return };
        let (now, timeout) = (common.now, common.config.election_timeout);
        let own = membership.priority(common.me.id);
        let mut preferred = None;
        for (peer, progress) in self.peers.iter_mut() {
            let priority = membership.priority(peer.id);
            if priority <= own || !common.voters.incoming().contains(peer) {
                continue;
            }
            progress.judge(now, timeout, common.committed);
            self.awaits_preferred |= !common.node_states.has_fallen_silent(*peer);
            let since = progress.keeps_up_since;
            if since.is_some_and(|since| since + STEADY_TIMEOUTS * timeout <= now) {
                preferred = preferred.max(Some((priority, *peer)));
            }
        }
        if let Some((priority, to)) = preferred
            && self.transfer.is_none()
            && !common.is_changing
            && now >= self.prefers_at
        {
            tracing::info!(me = %common.me, %to, priority, "transfers leadership to the preferred leader");
            self.prefers_at = now + RETRY_TIMEOUTS * timeout;
            self.begin_transfer(common, Some(to), timeout);
        }
    }

    /// Whether it has told this peer to take over, and still waits for that.
    pub(super) fn transfers_to(&self, peer: Replica) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| transfer.sent_to.contains(&peer))
    }

    /// Whether it wants to transfer leadership.
    pub(super) fn is_resigning(&self) -> bool {
        self.transfer.is_some()
    }

    /// Whether it takes no commands because it has told a peer to take over.
    pub(super) fn hands_over(&self) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| transfer.hands_over)
    }

    /// Tells a peer that has caught up to campaign. Of several it tells the one last heard from, so
    /// that an order to a peer that is gone is followed by one to a peer that has answered since.
    pub(super) fn transfer_leadership(&mut self, common: &mut Common) {
        let Some(transfer) = &self.transfer else { return };
        let (last, now) = (common.log.last(), common.now);
        if now < transfer.send_at {
            return;
        }
        let is_ready = |peer: Replica, progress: &Progress| {
            transfer.is_to(peer)
                && common.voters.contains(peer)
                && self.may_lead(common, peer)
                && progress.matched >= transfer.goal
                && matches!(progress.mode, Mode::Pipeline)
                && progress.next > last.index
                && is_heard(&common.config, now, progress)
        };
        let ready = self.peers.iter().filter(|(peer, progress)| is_ready(**peer, progress));
        let latest = ready.max_by_key(|(_, peer)| (peer.last_contact(now), peer.matched));
        let Some(peer) = latest.map(|(peer, _)| *peer) else { return };
        let Some(transfer) = &mut self.transfer else { return };
        if !transfer.hands_over {
            // However patient the caller is, clients wait no longer than for an election.
            transfer.hands_over = true;
            transfer.until = transfer.until.min(now + common.config.election_timeout);
        }
        transfer.sent_to.insert(peer);
        transfer.send_at = now + common.config.heartbeat_interval;
        let round = self.read_index.round();
        common.send(peer, Body::TimeoutNow { last_log_id: last, round });
    }

    /// Goes on leading where nobody has taken over in time.
    pub(super) fn give_up_transfer(&mut self, common: &Common) {
        let now = common.now;
        plant!(E8, now = Instant::default());
        let Some(transfer) = self.transfer.take_if(|transfer| now >= transfer.until) else {
            return;
        };
        let why = self.failure_of(common, &transfer);
        let to = transfer.to.map(|to| to.id);
        tracing::warn!(me = %common.me, to, %why, "leadership was not transferred, leads on");
        self.failed_transfer = Some(why);
        // An order that is still on its way is out of date for whoever hears of this round.
        self.read_index.skip();
        self.peers.iter_mut().for_each(|(_, progress)| progress.due = true);
    }

    fn failure_of(&self, common: &Common, transfer: &OngoingTransfer) -> TransferFailure {
        let voters = self
            .peers
            .iter()
            .filter(|(peer, _)| transfer.is_to(**peer) && common.voters.contains(**peer));
        let heard = voters.filter(|(_, peer)| is_heard(&common.config, common.now, peer));
        match heard.map(|(_, progress)| progress.matched).max() {
            None => TransferFailure::Silent,
            Some(_) if transfer.hands_over => TransferFailure::NotElected,
            Some(matched) => {
                TransferFailure::NotCaughtUp { lacks: common.log.last().index - matched }
            }
        }
    }
}
