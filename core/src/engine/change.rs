//! How a leader brings a change of the membership to its end, and how a node learns that it is no
//! member any more.
//!
//! What a configuration becomes next is decided by [`Membership::step`]. Here is what it takes:
//! asking for those who are to become members, judging who has caught up, and a leader that leaves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use quorate_rt::Instant;

use super::leader::Leader;
use super::progress::Progress;
use super::read_index::ChangeAnswer;
use super::{Common, Engine, State};
use crate::identity::{Replica, Standing};
use crate::membership::{
    Begun, ChangeId, ChangeKind, ChangeReply, ChangeRequest, Membership, Sight, Step,
};
use crate::message::Body;
use crate::metrics::{ChangeProgress, ChangeWait, Obstacle};
use crate::plant;
use crate::quorum::Voters;
use crate::types::{LogId, NodeId};

/// A leader that has no vote in the target tries so often to transfer leadership before it puts the
/// target in force. If nobody takes over, the others elect somebody after that.
const TRANSFERS: u32 = 2;

/// A leader remembers its answers to so many requests. That is far more than can be asked for while
/// a copy of one is on its way within a term.
const MAX_ANSWERED: usize = 64;

/// What a leader knows of the change that is under way.
#[derive(Default)]
pub(super) struct OngoingChange {
    /// Replicas that have answered and may be let in.
    pub(super) arrived: BTreeSet<Replica>,
    /// Why nodes are not let in.
    pub(super) obstacles: BTreeMap<NodeId, Obstacle>,
    /// Who must answer or catch up before the next step.
    waits_for: BTreeSet<NodeId>,
    /// Since when this leader waits, for which change.
    since: Option<(ChangeId, Instant)>,
    /// How often it has tried to transfer leadership, as it leaves.
    transfers: u32,
    /// As it leaves: who votes in the configuration that is to follow.
    pub(super) heirs: Option<Voters>,
    /// A request that has come before the configuration in force was committed.
    noted: Option<ChangeRequest>,
    /// What was said to the last requests for a change, the latest one last.
    answered: VecDeque<(ChangeId, ChangeReply)>,
}

impl Engine {
    /// A change is wanted: here, or by another node.
    #[cold]
    pub(super) fn on_change(&mut self, from: Option<Replica>, request: ChangeRequest) {
        let common = &mut self.common;
        let id = request.id;
        let reply = match (&mut self.role, from) {
            (State::Leader(leader), Some(from)) if !leader.is_member(from) => return,
            (State::Leader(leader), _) => {
                if let Some(reply) = leader.request_change(common, from, &request) {
                    common.answer_change(from, id, reply);
                }
                return;
            }
            (State::Follower(follower), None) if let Some(leader) = follower.leader() => {
                return common.send(leader, Body::Change(Box::new(request)));
            }
            _ => ChangeReply::Again,
        };
        common.answer_change(from, id, reply);
    }

    /// On a leader: how far the change is that is under way. For nodes that have not said why they
    /// are not let in, `silent` says it.
    pub fn change_progress(&self, silent: impl Fn(NodeId) -> Obstacle) -> Option<ChangeProgress> {
        let State::Leader(leader) = &self.role else { return None };
        if !self.common.has_change {
            return None;
        }
        let membership = self.common.membership()?;
        let id = membership.change()?.id;
        let why = |node: &NodeId| {
            let progress = membership.replica_of(*node).and_then(|of| leader.peers.get(&of));
            let timeout = self.common.config.election_timeout;
            let is_heard = |progress: &&Progress| {
                progress.heard_from
                    && progress.last_contact(self.common.now) + timeout > self.common.now
            };
            let wait = match progress.filter(is_heard) {
                Some(progress) => ChangeWait::CatchingUp {
                    behind: self.common.committed.saturating_sub(progress.matched),
                    snapshot: progress
                        .sending()
                        .map(|sending| (sending.stored, sending.meta.bytes)),
                    left: progress.left(),
                },
                None => ChangeWait::Obstacle(match leader.change.obstacles.get(node) {
                    Some(obstacle) => obstacle.clone(),
                    None => silent(*node),
                }),
            };
            (*node, wait)
        };
        let waits_for = leader.change.waits_for.iter().map(why).collect();
        Some(ChangeProgress { id, waits_for })
    }
}

impl Leader {
    /// Whether a voter may be given the leadership: one that is to lose its vote would soon have to
    /// transfer it again.
    pub(super) fn may_lead(&self, common: &Common, peer: Replica) -> bool {
        match &self.change.heirs {
            Some(heirs) => heirs.contains(peer),
            None => common.membership().is_some_and(|membership| membership.is_to_vote(peer)),
        }
    }

    /// Whether the configuration may be changed: it is committed, and so is an entry of this term.
    pub(super) fn is_settled(&self, common: &Common) -> bool {
        plant!(
            M12,
            if common.membership_index < self.first {
                return true;
            }
        );
        common.committed >= self.first && common.committed >= common.membership_index
    }

    fn sight(&self, common: &Common, replica: Replica) -> Sight {
        let timeout = common.config.election_timeout;
        let is_recent = |at: Instant| at + timeout > common.now;
        match self.peers.get(&replica) {
            _ if replica == common.me => Sight::Ready,
            Some(peer)
                if peer.matched >= common.membership_index
                    && is_recent(peer.last_contact(common.now)) =>
            {
                let keeps_up = peer.keeps_up_since.is_some_and(|since| !is_recent(since));
                if keeps_up { Sight::Ready } else { Sight::Behind }
            }
            _ => Sight::Silent,
        }
    }

    /// A request is sent again and again until there is an answer, so copies of it may come after
    /// that. They get the same answer. Otherwise a change that was refused, as another one was
    /// under way, would be made by the next copy when that one has ended.
    ///
    /// It is enough that the leader of this term remembers. A copy of an earlier term is not looked
    /// at here, and what another leader makes of it is never committed: an entry of this term is.
    /// And nobody believes a final answer of an earlier term: see
    /// [`Common::forget_old_answers`].
    ///
    /// That a target is in force already, or on its way by another change, is said only when a
    /// quorum has confirmed that this replica still leads. Otherwise one that was paused, and
    /// replaced meanwhile, would call a target done that is so no more. There is no reply then yet.
    fn request_change(
        &mut self,
        common: &mut Common,
        from: Option<Replica>,
        request: &ChangeRequest,
    ) -> Option<ChangeReply> {
        let mut answered = self.change.answered.iter();
        let is_begin = matches!(request.kind, ChangeKind::Begin { .. });
        plant!(X16, is_begin = false);
        plant!(X18, is_begin = false);
        if let Some((_, reply)) = answered.find(|(id, _)| is_begin && *id == request.id) {
            return Some(reply.clone());
        }
        if self.read_index.holds(request.id) {
            return None;
        }
        let reply = self.judge(common, request);
        let is_told_done = reply.ends(request.id) && !matches!(reply, ChangeReply::Refused(_));
        plant!(X19, is_told_done = false);
        if is_told_done {
            let answer = ChangeAnswer { to: from, id: request.id, reply };
            let is_held = self.read_index.hold(common.now, answer);
            return (!is_held).then_some(ChangeReply::Again);
        }
        if is_begin && !matches!(reply, ChangeReply::Again | ChangeReply::Noted) {
            self.remember_answer(request.id, reply.clone());
        }
        Some(reply)
    }

    fn remember_answer(&mut self, id: ChangeId, reply: ChangeReply) {
        self.change.answered.push_back((id, reply));
        if self.change.answered.len() > MAX_ANSWERED {
            self.change.answered.pop_front();
        }
    }

    /// Gives an answer that has waited.
    #[cold]
    pub(super) fn answer_change(&mut self, common: &mut Common, answer: ChangeAnswer) {
        let ChangeAnswer { to, id, reply } = answer;
        self.remember_answer(id, reply.clone());
        common.answer_change(to, id, reply);
    }

    fn judge(&mut self, common: &mut Common, request: &ChangeRequest) -> ChangeReply {
        if common.committed < self.first || self.hands_over() || common.log.waits_for_space() {
            return ChangeReply::Again;
        }
        let Some(membership) = common.membership() else { return ChangeReply::Again };
        // A disk that is being exchanged has its place in a moment.
        let exchanges = membership.change().is_none() && membership.voters().is_joint();
        if !self.is_settled(common) || exchanges {
            return self.note(request);
        }
        match membership.request(request) {
            Begun::Reply(reply) => {
                plant!(
                    X16,
                    if matches!(
                        reply,
                        ChangeReply::Refused(crate::error::ChangeRefusal::UnderWay { .. })
                    ) {
                        self.note(request);
                    }
                );
                reply
            }
            Begun::Next(next, reply) => {
                if !next.is_voter(common.me) && self.leaves_later(common, &next) {
                    return self.note(request);
                }
                let OngoingChange { noted, answered, .. } = mem::take(&mut self.change);
                self.change = OngoingChange { noted, answered, ..OngoingChange::default() };
                // Who kept up before has to do so in the time of this change.
                self.peers.iter_mut().for_each(|(_, progress)| progress.keeps_up_since = None);
                self.reconfigure(common, Ok(*next));
                reply
            }
        }
    }

    /// Keeps a request until it can be looked at. There is place for one.
    fn note(&mut self, request: &ChangeRequest) -> ChangeReply {
        let noted = self.change.noted.get_or_insert_with(|| request.clone());
        if noted == request { ChangeReply::Noted } else { ChangeReply::Again }
    }

    /// Asks for the nodes that are to become members, and judges whether those keep up that are to
    /// vote. Once in a heartbeat interval.
    pub(super) fn look_for_members(&mut self, common: &mut Common) {
        if !common.is_changing {
            return;
        }
        let Some(membership) = common.membership().cloned() else { return };
        let silence = common.config.election_timeout;
        for learner in membership.learners() {
            if let Some(progress) = self.peers.get_mut(&learner) {
                progress.judge(common.now, silence, common.committed);
            }
        }
        let target = membership.change().map(|change| &change.target);
        let ids = target.into_iter().flat_map(|target| target.members.keys().copied());
        for id in ids {
            let is_silent = |learner: Replica| learner.id == id && self.is_silent(common, learner);
            let asks = membership.replica_of(id).is_none() || membership.learners().any(is_silent);
            if asks {
                common.send(Replica::any(id), Body::Who { listed: BTreeSet::new() });
            }
        }
    }

    /// Takes the next step of whatever has made the configuration one that is to be followed by
    /// another.
    #[inline]
    pub(super) fn advance_change(&mut self, common: &mut Common) {
        let OngoingChange { noted, arrived, .. } = &self.change;
        if common.is_changing || noted.is_some() || !arrived.is_empty() {
            self.take_next_step(common); // Out of the way of the turns in which nothing changes.
        }
    }

    #[cold]
    fn take_next_step(&mut self, common: &mut Common) {
        if self.change.noted.is_some()
            && self.is_settled(common)
            && let Some(request) = self.change.noted.take()
        {
            // Whoever has asked asks again, and is told then.
            self.request_change(common, None, &request);
        }
        if !self.change.arrived.is_empty() && self.is_settled(common) && self.let_in(common) {
            return;
        }
        if !common.is_changing || !self.is_settled(common) {
            return;
        }
        plant!(
            M3,
            if common.membership_index < self.first {
                return;
            }
        );
        let Some(membership) = common.membership() else { return };
        let begun = membership.change().map(|change| change.id);
        if self.change.since.is_none_or(|(id, _)| Some(id) != begun) {
            self.change.since = begun.map(|id| (id, common.now));
        }
        let waited = self.change.since.map_or(Duration::ZERO, |(_, since)| common.now - since);
        match membership.step(|replica| self.sight(common, replica), waited) {
            Step::Stay => self.exchange(common),
            Step::Wait(waits_for) => self.change.waits_for = waits_for,
            Step::Next(next) => {
                let without_me = next.as_ref().ok().filter(|next| !next.is_voter(common.me));
                plant!(
                    M5,
                    if without_me.is_some() {
                        return;
                    }
                );
                if without_me.is_some_and(|next| self.leaves_later(common, next)) {
                    return;
                }
                self.change.waits_for.clear();
                self.reconfigure(common, next);
            }
        }
    }

    /// The next configuration gives this leader no vote: whether it is to wait, as somebody who has
    /// one there is to take the leadership over first.
    fn leaves_later(&mut self, common: &Common, next: &Membership) -> bool {
        self.change.heirs = Some(next.voters().clone());
        if self.is_resigning() {
            return true;
        }
        if self.change.transfers == TRANSFERS {
            return false;
        }
        self.change.transfers += 1;
        self.resign(common);
        true
    }
}

impl Common {
    /// Answers a request for a change: of another node, or of this one.
    fn answer_change(&mut self, to: Option<Replica>, id: ChangeId, reply: ChangeReply) {
        match to {
            Some(to) => self.send(to, Body::ChangeReply { id, reply: Box::new(reply) }),
            None => self.out.rare().changes.push((id, reply)),
        }
    }

    /// What the leader of an earlier term has said is not the last word on a request: a later one
    /// may have been asked since, and may have taken it. So it is asked once more. (That a change
    /// is under way by this id stays true, whoever says so.)
    #[cold]
    pub(super) fn forget_old_answers(&mut self) {
        self.out.rare().changes.retain(|(id, reply)| !reply.ends(*id));
    }

    /// Who asks for a vote and is no member does not know that it was removed, unless its log is
    /// longer: then it may know more.
    pub(super) fn tell_removed(&mut self, to: Replica, last_log_id: LogId) {
        let committed = self.log.log_id(self.committed).unwrap_or_default();
        let is_longer = (last_log_id.term, last_log_id.index) > (committed.term, committed.index);
        if self.committed < self.membership_index || is_longer {
            return;
        }
        if let Some(membership) = self.membership()
            && !membership.is_member(to)
        {
            let membership = membership.clone();
            self.send(to, Body::Removed { log_id: committed, membership });
        }
    }

    /// A member shows a configuration that is committed and does not name this replica. Where the
    /// configuration in force here is an older one, or the same, this replica was removed. Gives
    /// whether it is news.
    #[cold]
    pub(super) fn on_removed(&mut self, log_id: LogId, theirs: &Membership) -> bool {
        let is_ours = self.membership().is_some_and(|ours| ours.cluster() == theirs.cluster());
        let is_later = log_id.index >= self.membership_index && !theirs.is_member(self.me);
        let is_news = *self.standing() != Standing::Spent;
        let was_removed = is_ours && is_later && is_news && self.has_been_voter();
        if was_removed {
            self.is_spent();
        }
        was_removed
    }
}
