//! What an engine shows of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Engine, State};
use crate::identity::{ClusterId, Replica, Standing};
use crate::membership::Membership;
use crate::metrics::{Obstacle, PeerMetrics, Role};
use crate::snapshot::SnapshotMeta;
use crate::types::{HardState, Index, LogId, NodeId};

impl Engine {
    /// Its role.
    pub fn role(&self) -> Role {
        match &self.role {
            State::Follower(_) => Role::Follower,
            State::Candidate(candidate) if candidate.pre => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Its term and vote.
    pub fn hard_state(&self) -> HardState {
        self.common.hard_state
    }

    /// Who it is.
    pub fn replica(&self) -> Replica {
        self.common.me
    }

    /// The cluster that its store belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.common.cluster
    }

    /// What it has promised.
    pub fn standing(&self) -> &Standing {
        self.common.standing()
    }

    /// While a group is being formed: why each of the other nodes of the list is waited for.
    pub fn obstacles(&self) -> Option<&BTreeMap<NodeId, Obstacle>> {
        self.formation.as_ref().map(|formation| formation.obstacles())
    }

    /// Whether it is part of its group, and no change is under way: a committed configuration that
    /// is not joint names it, and no other disk of its node. Before that its disk may be taking the
    /// place of a lost one, and no other disk may be taken away.
    pub fn is_part(&self) -> bool {
        let common = &self.common;
        let is_settled = !common.voters.is_joint() && common.committed >= common.membership_index;
        let is_only = |membership: &Membership| {
            let of_node = membership.members().keys().filter(|member| member.id == common.me.id);
            of_node.eq([&common.me])
        };
        is_settled && common.membership().is_some_and(is_only)
    }

    /// Whether a voter has granted its vote, or pre-vote, when it has answered last; none if it has
    /// not since a leader was known.
    pub fn answer_of(&self, voter: Replica) -> Option<bool> {
        self.answers.get(&voter).copied()
    }

    /// The time within which a quorum answered this replica's requests for votes when it last had
    /// no leader; none if it has not answered twice.
    pub fn round_trip(&self) -> Option<Duration> {
        self.common.round_trips.of_quorum()
    }

    /// The ids of the list that it was told last.
    pub fn listed(&self) -> Option<&BTreeSet<NodeId>> {
        self.listed.as_ref()
    }

    /// Where replicas are reached, as far as this one knows: by the configuration, or by the list
    /// it was told. A claim is a stranger's word, which must not make a node connect to anybody:
    /// who sends it is answered where it is. A replica that is not known is reached where [its
    /// node](Replica::any) is.
    pub fn addresses(&self) -> BTreeMap<Replica, String> {
        let mut addresses = BTreeMap::new();
        let any = |(id, address): (&NodeId, &String)| (Replica::any(*id), address.clone());
        match self.common.membership() {
            Some(membership) => {
                addresses.extend(membership.members().clone());
                addresses.extend(membership.nodes().iter().map(any));
                let coming = |id| Some((Replica::any(id), membership.address_of_learner(id)?));
                addresses.extend(membership.missing().filter_map(coming));
            }
            None => {
                if let Some(formation) = &self.formation {
                    addresses.extend(formation.list().iter().map(any));
                }
            }
        }
        addresses
    }

    /// The leader of its term, when known.
    pub fn leader(&self) -> Option<Replica> {
        match &self.role {
            State::Follower(follower) => follower.leader(),
            State::Candidate(_) => None,
            State::Leader(_) => Some(self.common.me),
        }
    }

    /// Whether it leads, and wants to transfer leadership; see
    /// [`Input::Resign`](super::Input::Resign).
    pub fn is_resigning(&self) -> bool {
        matches!(&self.role, State::Leader(leader) if leader.is_resigning())
    }

    /// Whether its disk is full: a write waits for space, see
    /// [`Input::Delayed`](super::Input::Delayed). As long as that is so, a leader takes no
    /// commands. If the others commit what its own disk has no space for, it transfers leadership
    /// to one of them.
    pub fn waits_for_space(&self) -> bool {
        self.common.log.waits_for_space()
    }

    /// The last entry of its log.
    pub fn last_log_id(&self) -> LogId {
        self.common.log.last()
    }

    /// Up to here its own disk has the log.
    pub fn durable(&self) -> Index {
        self.common.log.durable()
    }

    /// Up to here it knows the log to be committed.
    pub fn committed(&self) -> Index {
        self.common.committed
    }

    /// Its snapshot.
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.common.log.snapshot()
    }

    /// The last entry that is purged from its log; [`LogId::ZERO`] if none is.
    pub fn purged(&self) -> LogId {
        self.common.log.purged()
    }

    /// Whether its disk knows of the snapshot, and of what is purged.
    pub fn compaction_is_durable(&self) -> bool {
        self.common.log.compaction_is_durable()
    }

    /// How often, in this run, a leader has told of another entry in the place of a committed one.
    /// None of that was taken.
    pub fn contradictions(&self) -> u64 {
        self.common.contradictions
    }

    /// The membership in force, if it is known to be committed.
    pub fn committed_membership(&self) -> Option<&Membership> {
        let is_committed = self.common.committed >= self.common.membership_index;
        self.membership().filter(|_| is_committed)
    }

    /// The membership in force.
    pub fn membership(&self) -> Option<&Membership> {
        self.common.log.membership()
    }

    /// On a leader, what it knows of its peers.
    pub fn peers(&self) -> impl Iterator<Item = (Replica, PeerMetrics)> {
        let leader = match &self.role {
            State::Leader(leader) => Some(leader),
            State::Follower(_) | State::Candidate(_) => None,
        };
        leader.into_iter().flat_map(|leader| leader.peers(self.common.now))
    }
}
