//! Targets: what is made of one, and what can't be.

use super::*;
use crate::error::ChangeRefusal;

pub(super) fn member(id: NodeId, role: MemberRole) -> (NodeId, Member) {
    (id, Member { address: format!("node-{id}"), role, priority: 0 })
}

/// A target of these voters and learners, at their usual addresses.
pub(super) fn target(voters: &[NodeId], learners: &[NodeId]) -> Target {
    let voters = voters.iter().map(|id| member(*id, MemberRole::Voter));
    let learners = learners.iter().map(|id| member(*id, MemberRole::Learner));
    Target { members: voters.chain(learners).collect() }
}

#[test]
fn a_target_is_made_of_the_present_configuration() {
    let present = founded(&[1, 2, 3]).target();
    assert_eq!(present, target(&[1, 2, 3], &[]));
    let present = || present.clone();
    let with = |made: Result<Target, ChangeRefusal>| made.expect("possible");
    assert_eq!(with(present().with_voter(4, "node-4")), target(&[1, 2, 3, 4], &[]));
    assert_eq!(with(present().with_learner(4, "node-4")), target(&[1, 2, 3], &[4]));
    assert_eq!(with(present().without(3)), target(&[1, 2], &[]));
    assert_eq!(with(present().demoted(3)), target(&[1, 2], &[3]));
    assert_eq!(with(target(&[1, 2], &[3]).promoted(3)), present());
    assert_eq!(with(present().replaced(3, 4, "node-4")), target(&[1, 2, 4], &[]));
    assert_eq!(with(target(&[1], &[3]).replaced(3, 4, "node-4")), target(&[1], &[4]));
    let moved = with(present().moved(2, "elsewhere"));
    assert_eq!(moved.members[&2].address, "elsewhere");
    assert_eq!(with(moved.moved(2, "node-2")), present());
    let preferred = with(present().preferring(2, 7));
    assert_eq!(preferred.members[&2].priority, 7);
    let replaced = with(preferred.clone().replaced(2, 5, "node-5"));
    assert_eq!(replaced.members[&5].priority, 7, "who takes a place has its priority");
    assert_eq!(with(preferred.preferring(2, 0)), present());
    assert_eq!(target(&[1, 3], &[2]).voters().collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn who_is_a_member_is_not_let_in_and_who_is_none_not_changed() {
    let present = || target(&[1, 2], &[3]);
    let wrong = [
        (present().with_voter(2, "x"), "node 2 is a member already, at node-2"),
        (present().with_voter(3, "x"), "node 3 is a member already, at node-3"),
        (present().with_learner(1, "x"), "node 1 is a member already, at node-1"),
        (present().replaced(1, 2, "x"), "node 2 is a member already, at node-2"),
        (present().replaced(2, 2, "x"), "node 2 is a member already, at node-2"),
        (present().replaced(4, 5, "x"), "node 4 is no member"),
        (present().without(4), "node 4 is no member"),
        (present().promoted(4), "node 4 is no member"),
        (present().demoted(4), "node 4 is no member"),
        (present().moved(4, "x"), "node 4 is no member"),
        (present().preferring(4, 1), "node 4 is no member"),
    ];
    for (made, reason) in wrong {
        assert_eq!(made, Err(ChangeRefusal::Target(reason.to_owned())));
    }
}

#[test]
fn what_can_not_be_a_target_is_told() {
    let at = |target: Target, id, address: &str| target.moved(id, address).expect("a member");
    let ids: Vec<_> = (1..=MAX_NODES as u64 + 1).collect();
    assert_eq!(target(&ids[1..], &[]).check(), Ok(()));
    assert_eq!(target(&[1], &[2, 3]).check(), Ok(()));
    let wrong = [
        (target(&[], &[]), "at least one node"),
        (target(&[], &[1, 2]), "nobody would vote"),
        (target(&ids, &[]), "65 nodes are more than 64"),
        (target(&[0, 1], &[]), "must not be 0"),
        (at(target(&[1, 2], &[]), 2, ""), "node 2 has no address"),
        (at(target(&[1, 2], &[3]), 3, "node-1"), "nodes 1 and 3 have the same address, node-1"),
        (at(target(&[1], &[]), 1, &"a".repeat(MAX_ADDRESS_BYTES + 1)), "is longer than 512"),
    ];
    for (target, reason) in wrong {
        let error = target.check().unwrap_err();
        assert!(error.contains(reason), "{error} should say: {reason}");
        assert_eq!(founded(&[1]).plan(&target, None), Err(ChangeRefusal::Target(error)));
    }
}

#[test]
fn what_people_read_of_a_target() {
    assert_eq!(target(&[3, 1, 2], &[]).to_string(), "1, 2, 3");
    assert_eq!(target(&[1], &[5, 4]).to_string(), "1, learners 4, 5");
}
