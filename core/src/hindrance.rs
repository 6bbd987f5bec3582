//! Why a request was refused by a node that found no leader for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metrics::{Metrics, Obstacle, Role, UnfitTiming};
use crate::types::{NodeId, Term};

/// Why a node has no leader for a request, or none that answers, as far as it knows. It is part of
/// [`WriteError::NotLeader`](crate::WriteError::NotLeader) and
/// [`ReadError::NotLeader`](crate::ReadError::NotLeader), whose text includes it; a service that
/// refuses requests by itself asks for it by [`Metrics::hindrance`].
///
/// ```
/// use std::collections::BTreeMap;
///
/// use quorate_core::{Metrics, Obstacle};
///
/// let reason = "another cluster".to_owned();
/// let waits_for = BTreeMap::from([(1, Obstacle::Refuses { reason }), (3, Obstacle::Forming)]);
/// let metrics = Metrics { id: 2, waits_for, ..Metrics::default() };
/// assert_eq!(
///     metrics.hindrance().to_string(),
///     "the cluster of node 2 is not formed yet; node 1: it refuses this node: another cluster; \
///      node 3: it is ready to form the group, and waits as well"
/// );
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hindrance {
    /// The node that tells it.
    pub node: NodeId,
    /// Whether its group is formed.
    pub is_formed: bool,
    /// It was removed from the group: see [`Metrics::removed`].
    pub removed: bool,
    /// Its group is formed, and it is no member of it by the configuration that it knows.
    pub is_outside: bool,
    /// Its role.
    pub role: Role,
    /// It does not campaign by itself: see [`Metrics::passive`].
    pub passive: bool,
    /// Its term.
    pub term: Term,
    /// The leader, where one is known and does not answer; perhaps the node itself.
    pub leader: Option<NodeId>,
    /// What stands against each of the others: see [`Metrics::waits_for`].
    pub waits_for: BTreeMap<NodeId, Obstacle>,
    /// Where `waits_for` is known and no leader is: the other voters that answer, whether or not
    /// they vote for this node.
    pub answering: BTreeSet<NodeId>,
    /// The settings don't fit the network.
    pub unfit_timing: Option<UnfitTiming>,
    /// The node's disk is full: see [`Metrics::storage_full`].
    pub storage_full: bool,
}

impl Hindrance {
    pub(crate) fn of(metrics: &Metrics) -> Self {
        Self {
            node: metrics.id,
            is_formed: metrics.membership.is_some(),
            removed: metrics.removed,
            is_outside: is_outside(metrics),
            role: metrics.role,
            passive: metrics.passive,
            term: metrics.term,
            leader: metrics.leader,
            waits_for: metrics.waits_for.clone(),
            answering: answering(metrics),
            unfit_timing: metrics.unfit_timing,
            storage_full: metrics.storage_full,
        }
    }

    /// Whether the same would be told of these metrics. It copies little: thousands of requests
    /// may be refused at a time.
    pub(crate) fn is_of(&self, metrics: &Metrics) -> bool {
        let Self { node, is_formed, role, passive, term, leader, waits_for, .. } = self;
        let Self {
            answering: told, unfit_timing, storage_full, removed, is_outside: outside, ..
        } = self;
        *node == metrics.id
            && *is_formed == metrics.membership.is_some()
            && *removed == metrics.removed
            && *outside == is_outside(metrics)
            && *role == metrics.role
            && *passive == metrics.passive
            && *term == metrics.term
            && *leader == metrics.leader
            && *unfit_timing == metrics.unfit_timing
            && *storage_full == metrics.storage_full
            && *waits_for == metrics.waits_for
            && *told == answering(metrics)
    }
}

fn is_outside(metrics: &Metrics) -> bool {
    metrics.membership.as_ref().is_some_and(|membership| !membership.is_member(metrics.replica))
}

/// The nodes of the other voters that answer, where it is known who does not.
fn answering(metrics: &Metrics) -> BTreeSet<NodeId> {
    let Metrics { id, leader, waits_for, membership, .. } = metrics;
    if leader.is_some() || waits_for.is_empty() {
        return BTreeSet::new();
    }
    let voters = membership.iter().flat_map(|membership| membership.voters().iter());
    let others = voters.map(|voter| voter.id).filter(|voter| voter != id);
    let answers = |voter: &NodeId| matches!(waits_for.get(voter), None | Some(Obstacle::NoVote));
    others.filter(answers).collect()
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, role, term, .. } = self;
        match self.leader {
            _ if self.removed => write!(
                f,
                "node {node} was removed from the group: ask another node; its data is kept, and \
                 it can be a member again only with an empty store"
            )?,
            _ if !self.is_formed && self.waits_for.values().any(|why| *why == Obstacle::Formed) => {
                write!(
                    f,
                    "node {node} has an empty disk, and waits to be let in by the group's leader, \
                     which does so when the lost disk has been silent for ten election timeouts"
                )?;
            }
            _ if !self.is_formed => write!(f, "the cluster of node {node} is not formed yet")?,
            Some(leader) if leader == *node => {
                write!(f, "node {node} leads, and no quorum has answered it")?;
            }
            _ if self.is_outside => write!(
                f,
                "node {node} is no member of the group by the configuration that it knows: it \
                 catches up with the others, or was removed"
            )?,
            Some(leader) => write!(f, "node {leader} leads, and node {node} has no answer of it")?,
            None if self.passive => write!(
                f,
                "node {node} is a {role} in term {term}, and campaigns only when it is told to: \
                 elections are switched off on it"
            )?,
            None => write!(f, "node {node} is a {role} in term {term}")?,
        }
        for (other, obstacle) in &self.waits_for {
            write!(f, "; node {other}: {obstacle}")?;
        }
        let has_asked = self.is_formed && !self.removed && !self.passive && self.leader.is_none();
        if has_asked && !self.waits_for.is_empty() {
            if self.answering.is_empty() {
                f.write_str("; nobody else answers")?;
            }
            for voter in &self.answering {
                write!(f, "; node {voter} answers")?;
            }
        }
        if let Some(unfit) = &self.unfit_timing {
            write!(f, "; {unfit}")?;
        }
        match self.storage_full {
            true => write!(f, "; the disk of node {node} is full: make space on it"),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::identity::Replica;
    use crate::membership::tests::{founded, replica};

    fn told(metrics: &Metrics) -> String {
        let hindrance = metrics.hindrance();
        assert!(hindrance.is_of(metrics));
        hindrance.to_string()
    }

    #[test]
    fn a_node_that_does_not_campaign_says_so() {
        let mut metrics = Metrics { id: 2, passive: true, term: Term(3), ..Metrics::default() };
        metrics.membership = Some(founded(&[1, 2, 3]));
        metrics.replica = replica(2);
        metrics.waits_for.insert(1, Obstacle::Silent);
        assert_eq!(
            told(&metrics),
            "node 2 is a follower in term 3, and campaigns only when it is told to: elections are \
             switched off on it; node 1: nothing is heard of it"
        );
    }

    #[test]
    fn why_nobody_leads_is_told_as_far_as_it_is_known() {
        let mut metrics =
            Metrics { id: 2, replica: replica(2), term: Term(3), ..Metrics::default() };
        metrics.waits_for = BTreeMap::from([(1, Obstacle::Silent)]);
        let forming = "the cluster of node 2 is not formed yet; node 1: nothing is heard of it";
        assert_eq!(told(&metrics), forming);
        metrics.waits_for = BTreeMap::from([(1, Obstacle::Formed)]);
        let empty = "node 2 has an empty disk, and waits to be let in by the group's leader, which \
             does so when the lost disk has been silent for ten election timeouts; node 1: it is a \
             member of the group, which was formed before this disk was empty: the group's leader \
             has to let this disk in";
        assert_eq!(told(&metrics), empty);
        metrics.waits_for = BTreeMap::from([(1, Obstacle::Silent)]);
        metrics.membership = Some(founded(&[1, 2, 3]));
        let leaderless =
            "node 2 is a follower in term 3; node 1: nothing is heard of it; node 3 answers";
        assert_eq!(told(&metrics), leaderless);
        metrics.waits_for.insert(3, Obstacle::Refuses { reason: "no".to_owned() });
        let alone = "node 2 is a follower in term 3; node 1: nothing is heard of it; \
             node 3: it refuses this node: no; nobody else answers";
        assert_eq!(told(&metrics), alone);
        metrics.waits_for.clear();
        // An election is under way.
        assert_eq!(told(&metrics), "node 2 is a follower in term 3");
        metrics.unfit_timing = UnfitTiming::of(Duration::from_millis(1400), &Config::default());
        let slow = "node 2 is a follower in term 3; a quorum of the voters answers after 1400 ms, \
             but the election timeout is 1000 ms (with a heartbeat interval of 100 ms), so that \
             each leader steps down before it is answered: set election_timeout to at least 4200 \
             ms and heartbeat_interval to 420 ms on all nodes";
        assert_eq!(told(&metrics), slow);
        metrics.unfit_timing = None;
        metrics.leader = Some(1);
        assert_eq!(told(&metrics), "node 1 leads, and node 2 has no answer of it");
        metrics.leader = Some(2);
        assert_eq!(told(&metrics), "node 2 leads, and no quorum has answered it");
        metrics.replica = Replica::new(4, 9);
        metrics.leader = Some(1);
        let outside = "node 2 is no member of the group by the configuration that it knows: it \
             catches up with the others, or was removed";
        assert_eq!(told(&metrics), outside);
        metrics.removed = true;
        let removed = "node 2 was removed from the group: ask another node; its data is kept, and \
             it can be a member again only with an empty store";
        assert_eq!(told(&metrics), removed);
        metrics.removed = false;
        (metrics.replica, metrics.leader) = (replica(2), Some(2));
        metrics.storage_full = true;
        let full = "node 2 leads, and no quorum has answered it; the disk of node 2 is full: make \
             space on it";
        assert_eq!(told(&metrics), full);
    }

    #[test]
    fn it_is_out_of_date_as_soon_as_another_would_be_told() {
        let metrics = Metrics {
            id: 2,
            replica: replica(2),
            membership: Some(founded(&[1, 2, 3])),
            waits_for: BTreeMap::from([(1, Obstacle::Silent)]),
            ..Metrics::default()
        };
        let before = metrics.hindrance();
        let is_old = |change: &dyn Fn(&mut Metrics)| {
            let mut metrics = metrics.clone();
            change(&mut metrics);
            assert_eq!(before.is_of(&metrics), before == metrics.hindrance());
            !before.is_of(&metrics)
        };
        assert!(is_old(&|metrics| metrics.role = Role::Candidate));
        assert!(is_old(&|metrics| metrics.term = Term(9)));
        assert!(is_old(&|metrics| metrics.leader = Some(3)));
        assert!(is_old(&|metrics| metrics.membership = None));
        assert!(is_old(&|metrics| metrics.membership = Some(founded(&[1, 2, 3, 4]))));
        assert!(is_old(&|metrics| metrics.waits_for.clear()));
        assert!(is_old(&|metrics| _ = metrics.waits_for.insert(1, Obstacle::NoVote)));
        let trip = Duration::from_secs(2);
        let unfit = UnfitTiming::of(trip, &Config::default());
        assert!(is_old(&|metrics| metrics.unfit_timing = unfit));
        assert!(is_old(&|metrics| metrics.storage_full = true));
        assert!(is_old(&|metrics| metrics.removed = true));
        assert!(is_old(&|metrics| metrics.replica = Replica::new(9, 9)), "no member any more");
        assert!(!is_old(&|metrics| metrics.committed = 9));
    }
}
