//! How a cluster is formed: claims with ballots. And what an empty store accepts of others.
//!
//! The node with the lowest id of the list founds the cluster. That a store is empty must be a
//! promise and not an answer: a store that says "empty" to two founders could become a member of
//! two clusters. So:
//!
//! 1. Each attempt draws a cluster id and a ballot, and goes to each node of the list as a *claim*.
//! 2. A store accepts a claim durably, and only if it has no log, and was told no other list. In
//!    the place of a claim that it has accepted it takes one with a higher ballot by the same node
//!    with the same list: that founder gave the earlier attempt up, or has lost its disk. Another
//!    list it takes only from the same store, and only if it has accepted claims of no other: if
//!    two stores of a founder are about, an attempt of the one may succeed with the list that the
//!    other gives up.
//! 3. When all have accepted, the founder writes the first entry. From then on it makes no attempt
//!    any more.
//! 4. A store begins its log only with the first entry of the claim that it has accepted, or of a
//!    cluster that has let it in; or of one that a member other than the founder offers, because
//!    then the first entry has left the founder, and no other attempt can succeed.
//! 5. A founder that meets a store with a log has lost its disk: it gives up and waits to be let in
//!    (see `exchange.rs`).
//!
//! The other nodes of the list ask around with their own list, so that a node that was told another
//! one is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use litemap::LiteMap;
use quorate_rt::Instant;

use super::Common;
use crate::error::InitializeError;
use crate::identity::{Claim, ClusterId, Replica, Standing};
use crate::membership::Membership;
use crate::message::{Body, Situation};
use crate::metrics::Obstacle;
use crate::plant;
use crate::types::{Entry, LogId, NodeId, Payload};

/// What a node does that was told a list and has no log yet.
pub(super) struct Formation {
    list: Arc<LiteMap<NodeId, String>>,
    ids: BTreeSet<NodeId>,
    /// On the founder: who else has accepted the present claim.
    accepted: BTreeMap<NodeId, Replica>,
    /// The ballot of the claim that was sent last.
    sent: u64,
    /// The highest ballot that was heard of.
    ballot: u64,
    /// Why each of the others is waited for.
    obstacles: BTreeMap<NodeId, Obstacle>,
    pub(super) ask_at: Instant,
}

impl Formation {
    /// Begins, with a claim if this node is the founder.
    ///
    /// Errors: it has promised to be part of another cluster.
    pub(super) fn new(
        common: &mut Common,
        list: BTreeMap<NodeId, String>,
    ) -> Result<Self, InitializeError> {
        let ids: BTreeSet<NodeId> = list.keys().copied().collect();
        let others = ids.iter().copied().filter(|id| *id != common.me.id);
        let mut formation = Self {
            obstacles: others.map(|id| (id, Obstacle::Silent)).collect(),
            list: Arc::new(list.into_iter().collect()),
            ids,
            accepted: BTreeMap::new(),
            sent: 0,
            ballot: 0,
            ask_at: common.now,
        };
        let promised = common.standing().claim().cloned();
        let founds = formation.is_founder(common.me.id);
        match promised {
            // The same attempt goes on: nobody has seen a first entry of it.
            Some(claim) if founds && claim.founder == common.me && claim.ids() == formation.ids => {
                formation.ballot = claim.ballot;
            }
            // The same founder may claim it anew, with the list that it was told last.
            Some(claim) if !formation.is_founder(claim.founder.id) => {
                return Err(InitializeError::Promised {
                    founder: claim.founder,
                    promised: claim.ids(),
                    listed: formation.ids,
                });
            }
            promised => {
                formation.ballot = promised.map_or(0, |claim| claim.ballot);
                if founds && !matches!(common.standing(), Standing::Admitted(_)) {
                    formation.claim(common);
                }
            }
        }
        formation.ask(common);
        Ok(formation)
    }

    pub(super) fn list(&self) -> &LiteMap<NodeId, String> {
        &self.list
    }

    pub(super) fn obstacles(&self) -> &BTreeMap<NodeId, Obstacle> {
        &self.obstacles
    }

    pub(super) fn wake_at(&self) -> Instant {
        self.ask_at
    }

    fn is_founder(&self, id: NodeId) -> bool {
        self.ids.first() == Some(&id)
    }

    /// Whether the cluster is formed already, and this founder has lost its disk, as far as the
    /// others have said last. If all of them have lost theirs since, it makes an attempt again.
    fn has_given_up(&self) -> bool {
        self.obstacles.values().any(|obstacle| *obstacle == Obstacle::Formed)
    }

    /// The claim of this founder that is under way.
    fn present_claim<'a>(&self, common: &'a Common) -> Option<&'a Claim> {
        let is_present = |claim: &&Claim| {
            claim.founder == common.me && !self.has_given_up() && claim.ids() == self.ids
        };
        common.standing().claim().filter(is_present)
    }

    /// Begins a new attempt.
    fn claim(&mut self, common: &mut Common) {
        // No founder makes so many attempts, but a stranger may tell of one.
        let ballot = self.ballot.saturating_add(1);
        plant!(F2, ballot = self.ballot);
        self.ballot = ballot;
        self.accepted.clear();
        // A later group of the nodes of a cluster belongs to that cluster.
        let cluster = common.cluster.unwrap_or_else(|| ClusterId(common.random.u128(1..)));
        let founder = common.me;
        let claim = Claim { cluster, ballot, founder, list: self.list.clone() };
        common.set_standing(Standing::Claimed(claim));
    }

    pub(super) fn on_time(&mut self, common: &mut Common) {
        if common.now >= self.ask_at {
            self.ask(common);
        }
    }

    fn ask(&mut self, common: &mut Common) {
        self.ask_at = common.now + common.config.heartbeat_interval;
        let is_elsewhere = |claim: &Claim| common.cluster.is_some_and(|c| c != claim.cluster);
        if self.present_claim(common).is_some_and(is_elsewhere) {
            self.claim(common); // Another group of this store has been formed meanwhile.
        }
        let claim = self.present_claim(common).cloned();
        if claim.is_some() && !common.standing_is_durable() {
            return; // A founder that forgot a claim would draw its ballot again.
        }
        self.sent = claim.as_ref().map_or(self.sent, |claim| claim.ballot);
        let me = common.me.id;
        for id in self.ids.iter().filter(|id| **id != me) {
            let body = match &claim {
                Some(claim) => Body::Claim(Box::new(claim.clone())),
                None => Body::Who { listed: self.ids.clone() },
            };
            common.send(Replica::any(*id), body);
        }
    }

    /// What has become durable may be this founder's own claim.
    pub(super) fn persisted(&mut self, common: &mut Common) {
        let unsent = self.present_claim(common).is_some_and(|claim| claim.ballot != self.sent);
        if unsent && common.standing_is_durable() {
            self.ask(common);
        }
    }

    /// The first entry, once all have accepted the claim.
    pub(super) fn first_entry(&self, common: &Common) -> Option<Entry> {
        let claim = self.present_claim(common).filter(|_| common.standing_is_durable())?;
        if common.cluster.is_some_and(|cluster| cluster != claim.cluster) {
            return None;
        }
        let needed = self.ids.len() - 1;
        plant!(F3, needed = self.ids.len() / 2);
        if self.accepted.len() < needed {
            return None;
        }
        let all = self.accepted.values().chain([&common.me]);
        let address = |replica: &Replica| Some((*replica, self.list.get(&replica.id)?.clone()));
        let members = all.filter_map(address).collect();
        let membership = Membership::founding(claim.cluster, members).ok()?;
        let payload = Payload::Membership(membership);
        Some(Entry { log_id: LogId::FIRST, time: common.wall, payload })
    }

    /// A node of the list has said what it has.
    ///
    /// Errors: it was told another list.
    pub(super) fn on_situation(
        &mut self,
        common: &mut Common,
        from: Replica,
        situation: Situation,
        listed: BTreeSet<NodeId>,
    ) -> Result<(), InitializeError> {
        if from.id == common.me.id || !self.ids.contains(&from.id) {
            return Ok(());
        }
        self.compare(from.id, listed)?;
        // Its store may be another than the one that has accepted.
        self.accepted.remove(&from.id);
        let obstacle = match situation {
            Situation::Empty => Obstacle::Forming,
            Situation::Claimed { ballot, founder, ids } => {
                self.ballot = self.ballot.max(ballot);
                let present = self.present_claim(common).map(|claim| claim.ballot);
                if founder == common.me && present == Some(ballot) {
                    self.accepted.insert(from.id, from);
                    Obstacle::Forming
                } else if (ids == self.ids || founder == common.me)
                    && present.is_some_and(|present| present <= ballot)
                {
                    // An earlier attempt of this node, maybe on another disk: the next one has a
                    // higher ballot.
                    self.claim(common);
                    Obstacle::Forming
                } else if ids == self.ids {
                    Obstacle::Forming
                } else {
                    // Also of an earlier attempt of this node, if it will not give that up: it has
                    // accepted one of another store of this node, too.
                    Obstacle::Promised { founder: founder.id, ids }
                }
            }
            Situation::Member { founders, .. } => {
                self.compare(from.id, founders)?;
                Obstacle::Formed
            }
            Situation::Admitted => Obstacle::Formed,
            Situation::Spent => Obstacle::Spent,
            Situation::Elsewhere => Obstacle::OtherCluster,
        };
        self.obstacles.insert(from.id, obstacle);
        Ok(())
    }

    /// Errors: the list that a node of this list goes by is another.
    pub(super) fn compare(
        &self,
        node: NodeId,
        theirs: BTreeSet<NodeId>,
    ) -> Result<(), InitializeError> {
        if theirs.is_empty() || theirs == self.ids || !self.ids.contains(&node) {
            return Ok(());
        }
        Err(InitializeError::OtherList { node, theirs, listed: self.ids.clone() })
    }
}

impl Common {
    /// What this replica has, for whoever asks. `cluster` is the one that the question is about.
    pub(super) fn situation(&self, cluster: Option<ClusterId>) -> Situation {
        if *self.standing() == Standing::Spent {
            return Situation::Spent;
        }
        if let Some(membership) = self.membership() {
            return Situation::Member {
                founders: membership.founders().clone(),
                voter: self.has_been_voter(),
            };
        }
        if self.log.last() != LogId::ZERO {
            return Situation::Elsewhere; // A part of a log whose configuration is not known.
        }
        let elsewhere = |ours: ClusterId| cluster.is_some_and(|cluster| cluster != ours);
        if self.cluster.is_some_and(elsewhere) {
            return Situation::Elsewhere;
        }
        match self.standing() {
            Standing::Claimed(claim) | Standing::Contested(claim) => Situation::Claimed {
                ballot: claim.ballot,
                founder: claim.founder,
                ids: claim.ids(),
            },
            Standing::Admitted(ours) if cluster == Some(*ours) => Situation::Admitted,
            Standing::Admitted(ours) if elsewhere(*ours) => Situation::Elsewhere,
            Standing::Empty | Standing::Admitted(_) | Standing::Spent => Situation::Empty,
        }
    }

    /// Accepts a claim, if it may. What it has then is for the founder to be told, when it is
    /// durable.
    pub(super) fn on_claim(&mut self, claim: Claim, listed: Option<&BTreeSet<NodeId>>) {
        let situation = self.situation(Some(claim.cluster));
        let is_later = |before: &Claim| {
            plant!(F2, return claim.ballot > before.ballot || claim != *before);
            claim.ballot > before.ballot
        };
        let same_list =
            |before: &Claim| before.founder.id == claim.founder.id && before.ids() == claim.ids();
        let accepted = match (situation, self.standing()) {
            (Situation::Empty, _) => Some(Standing::Claimed(claim.clone())),
            (Situation::Claimed { .. }, Standing::Claimed(before)) if is_later(before) => {
                if before.founder == claim.founder {
                    Some(Standing::Claimed(claim.clone()))
                } else {
                    same_list(before).then(|| Standing::Contested(claim.clone()))
                }
            }
            (Situation::Claimed { .. }, Standing::Contested(before)) if is_later(before) => {
                same_list(before).then(|| Standing::Contested(claim.clone()))
            }
            _ => None,
        };
        plant!(
            I5,
            accepted = match self.standing() {
                Standing::Claimed(before) if is_later(before) =>
                    Some(Standing::Claimed(claim.clone())),
                _ => accepted,
            }
        );
        if let Some(standing) = accepted
            && listed.is_none_or(|listed| *listed == claim.ids())
        {
            self.set_standing(standing);
        }
    }

    /// A member of a cluster lets this replica in.
    ///
    /// Anybody can say so to an empty store. So the word of another cluster takes the place of an
    /// earlier one, as long as there is no log: until then this replica's vote counts in no
    /// cluster, and none has an acknowledgement of it. At most a learner is lost where it was let
    /// in before, which gives way when it is silent.
    pub(super) fn on_admit(
        &mut self,
        cluster: ClusterId,
        founders: &BTreeSet<NodeId>,
        listed: Option<&BTreeSet<NodeId>>,
    ) {
        let fits = listed.is_none_or(|listed| listed == founders);
        let accepts = match (self.situation(Some(cluster)), self.standing()) {
            (Situation::Empty, standing) => *standing == Standing::Empty,
            // A member of a cluster with this list exists, so no attempt for it can succeed any
            // more.
            (Situation::Claimed { ids, .. }, _) => ids == *founders,
            (Situation::Elsewhere, Standing::Admitted(_)) => {
                let has_none = self.log.last() == LogId::ZERO && self.receiving.is_none();
                has_none && self.cluster.is_none()
            }
            _ => false,
        };
        if accepts && fits {
            self.set_standing(Standing::Admitted(cluster));
        }
    }

    /// Lets the voters in that have no log yet. One of them may have accepted the claim of the
    /// founder's next disk meanwhile, and be the one whose vote is missing: it is to know that the
    /// cluster was formed. Once this replica knows of anything that is committed, a leader has
    /// spoken to a quorum.
    pub(super) fn admit_voters(&mut self) {
        let Some(membership) = self.membership() else { return };
        let (cluster, founders) = (membership.cluster(), membership.founders().clone());
        if self.committed > 0 || founders.first() == Some(&self.me.id) {
            return;
        }
        for peer in self.other_voters() {
            self.send(peer, Body::Admit { cluster, founders: founders.clone() });
        }
    }

    /// Whether a log that has no entry yet may begin with what `from` offers: with entries or a
    /// snapshot under this configuration.
    pub(super) fn may_join(
        &self,
        membership: &Membership,
        from: Replica,
        listed: Option<&BTreeSet<NodeId>>,
    ) -> bool {
        if self.cluster.is_some_and(|cluster| cluster != membership.cluster()) {
            return false;
        }
        let promised = match self.standing() {
            Standing::Claimed(claim) | Standing::Contested(claim) => {
                claim.cluster == membership.cluster()
            }
            Standing::Admitted(cluster) => *cluster == membership.cluster(),
            Standing::Spent => return false,
            Standing::Empty => false,
        };
        let founder = membership.founders().first();
        let by_member = membership.is_member(from) && founder != Some(&from.id);
        let agrees = listed.is_none_or(|listed| listed == membership.founders());
        plant!(F4, return true);
        promised || by_member && agrees
    }
}
