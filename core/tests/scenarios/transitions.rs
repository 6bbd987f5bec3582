//! All changes from one configuration of up to five nodes, with learners, to another, up to the
//! names of the nodes, and in each a leader that fails after each step. Safety is checked all the
//! time, and the change always ends, as a quorum of both configurations is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_core::quorum::Voters;
use quorate_core::{
    ChangeId, ChangeKind, ChangeOptions, ChangeRequest, Config, Ending, Member, MemberRole,
    Membership, NodeId, Payload, Replica, Role, Target,
};

use crate::cluster::{CLUSTER, Cluster, list};

/// What a node is in a configuration, if anything.
type Part = Option<MemberRole>;

const PARTS: [Part; 3] = [Some(MemberRole::Voter), Some(MemberRole::Learner), None];

const NODES: usize = 5;

const CHANGE: ChangeId = ChangeId(b'a' as u128);

/// What each of the five nodes is before and after: of those that differ by the names of the nodes
/// only, one.
fn transitions() -> Vec<[(Part, Part); NODES]> {
    let pairs: Vec<(Part, Part)> =
        PARTS.iter().flat_map(|from| PARTS.map(|to| (*from, to))).collect();
    let mut all = Vec::new();
    let count = pairs.len();
    for code in 0..count.pow(NODES as u32) {
        let digits: [usize; NODES] =
            std::array::from_fn(|place| code / count.pow(place as u32) % count);
        if !digits.is_sorted() {
            continue;
        }
        let parts = digits.map(|digit| pairs[digit]);
        let votes = |of: fn(&(Part, Part)) -> Part| {
            parts.iter().any(|pair| of(pair) == Some(MemberRole::Voter))
        };
        if votes(|pair| pair.0) && votes(|pair| pair.1) {
            all.push(parts);
        }
    }
    all
}

fn membership(parts: &[(Part, Part); NODES]) -> Membership {
    let addresses = list(&[1, 2, 3, 4, 5]);
    let replica = |id: NodeId| Replica::new(id, 1);
    let named = |role: Option<MemberRole>| {
        let is = move |(_, (from, _)): &(NodeId, &(Part, Part))| match role {
            Some(_) => *from == role,
            None => from.is_some(),
        };
        (1..).zip(parts).filter(is).map(|(id, _)| id).collect::<Vec<NodeId>>()
    };
    let members: BTreeMap<_, _> =
        named(None).into_iter().map(|id| (replica(id), addresses[&id].clone())).collect();
    let voters = Voters::simple(named(Some(MemberRole::Voter)).into_iter().map(replica));
    let founders: BTreeSet<NodeId> = members.keys().map(|replica| replica.id).collect();
    Membership::new(CLUSTER, founders, members, voters).expect("a possible one")
}

fn target(parts: &[(Part, Part); NODES]) -> Target {
    let addresses = list(&[1, 2, 3, 4, 5]);
    let member = |(id, (_, to)): (NodeId, &(Part, Part))| {
        let role = (*to)?;
        Some((id, Member { address: addresses[&id].clone(), role, priority: 0 }))
    };
    Target { members: (1..).zip(parts).filter_map(member).collect() }
}

fn leader(cluster: &Cluster) -> Option<NodeId> {
    let leads = |id: &NodeId| cluster.engine(*id).is_some_and(|e| e.role() == Role::Leader);
    let term = |id: &NodeId| cluster.engine(*id).map(|engine| engine.hard_state().term);
    cluster.ids().into_iter().filter(leads).max_by_key(term)
}

/// How many configurations are in the log of a node.
fn configurations(cluster: &Cluster, id: NodeId) -> usize {
    let is_one = |payload: &Payload| matches!(payload, Payload::Membership(_));
    cluster.entries(id).iter().filter(|entry| is_one(&entry.payload)).count()
}

/// What a leader knows that has come of the change, once nothing is under way.
fn outcome(cluster: &Cluster) -> Option<Outcome> {
    let engine = cluster.engine(leader(cluster)?)?;
    let membership = engine.committed_membership()?;
    let is_settled = engine.hard_state().term == engine.last_log_id().term
        && membership.change().is_none()
        && !membership.voters().is_joint();
    is_settled.then(|| Outcome {
        target: membership.target(),
        ending: membership.ending_of(CHANGE).cloned(),
    })
}

struct Outcome {
    target: Target,
    ending: Option<Ending>,
}

/// What is left of the last step of a leader that fails.
#[derive(Clone, Copy, Debug)]
enum Left {
    /// It was sent, and is not on its disk.
    Sent,
    /// It is on its disk, and nobody else has it. (And a leader that is to leave has found nobody
    /// who took over: it takes the last step itself.)
    Written,
}

/// Makes the change with a leader that fails when its log has so many configurations, if it ever
/// does. Gives how many configurations there were in the end.
fn change(parts: &[(Part, Part); NODES], fails_at: usize, left: Left) -> usize {
    let what = || format!("{parts:?} with a leader that fails at {fails_at}, {left:?}");
    let config = Config { heartbeat_interval: Duration::from_millis(300), ..Config::default() };
    let (before, target) = (membership(parts), target(parts));
    let ids = [1, 2, 3, 4, 5];
    let mut cluster = Cluster::with_membership(config, &ids, &ids, before.clone());
    cluster.loses_orders = matches!(left, Left::Written);
    let end = cluster.now + Duration::from_secs(20);
    cluster.run_until(end, |cluster| outcome(cluster).is_some());
    let first = leader(&cluster).unwrap_or_else(|| panic!("{}: nobody leads", what()));
    let options = ChangeOptions { allow_lower_tolerance: true, ..ChangeOptions::default() };
    let kind = ChangeKind::Begin { target: target.clone(), options };
    cluster.change(first, ChangeRequest { id: CHANGE, kind });
    let is_reached =
        |cluster: &Cluster| outcome(cluster).is_some_and(|outcome| outcome.target == target);
    let end = cluster.now + Duration::from_secs(30);
    cluster.run_until(end, |cluster| {
        configurations(cluster, first) >= fails_at || is_reached(cluster)
    });
    if configurations(&cluster, first) >= fails_at {
        match left {
            Left::Sent => cluster.crash(first, 0),
            Left::Written => {
                for to in ids.into_iter().filter(|to| *to != first) {
                    while cluster.on_link(first, to) > 0 {
                        cluster.take_message(first, to);
                    }
                }
                cluster.crash(first, usize::MAX);
            }
        }
        // It stays away where nobody needs it; otherwise it comes back after a while.
        let others = |ids: Vec<NodeId>| {
            let without = ids.iter().filter(|id| **id != first).count();
            without > ids.len() / 2
        };
        let voters_before = before.voters().incoming().iter().map(|voter| voter.id).collect();
        if !(others(voters_before) && others(target.voters().collect())) {
            cluster.run(Duration::from_secs(2));
            cluster.start(first);
        }
        // What was not committed may be lost.
        let end = cluster.now + Duration::from_secs(60);
        cluster.run_until(end, |cluster| outcome(cluster).is_some());
    }
    let outcome = outcome(&cluster).unwrap_or_else(|| panic!("{}: it does not end", what()));
    match outcome.ending {
        Some(Ending::Done) => assert_eq!(outcome.target, target, "{}", what()),
        Some(other) => panic!("{}: {other:?}", what()),
        None if fails_at == usize::MAX => assert_eq!(before.target(), target, "{}", what()),
        None => assert_eq!(outcome.target, before.target(), "{}", what()),
    }
    configurations(&cluster, leader(&cluster).expect("it leads"))
}

#[test]
fn every_change_of_up_to_five_nodes_ends_whoever_fails() {
    let transitions = transitions();
    // Multisets of five pairs, without those in which nobody votes before, or after.
    assert_eq!(transitions.len(), 1287 - 252 - 252 + 56);
    for parts in transitions {
        for left in [Left::Sent, Left::Written] {
            let steps = change(&parts, usize::MAX, left);
            for fails_at in 2..=steps {
                change(&parts, fails_at, left);
            }
        }
    }
}
