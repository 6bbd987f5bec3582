//! Configurations: their bounds, and how one follows from another.

use super::*;

mod change;
mod confchange;
mod plan;
mod target;

/// The replica of a node that tests usually mean.
pub(crate) fn replica(id: NodeId) -> Replica {
    Replica::new(id, id << 48 | 0xabcd)
}

/// The one that comes after it.
fn second(id: NodeId) -> Replica {
    Replica::new(id, 0xbeef << 48)
}

/// The first configuration of a cluster of these nodes.
pub(crate) fn founded(ids: &[NodeId]) -> Membership {
    let members = ids.iter().map(|id| (replica(*id), format!("node-{id}"))).collect();
    Membership::founding(ClusterId(77), members).expect("a possible one")
}

fn replicas(of: &[NodeId]) -> Vec<Replica> {
    of.iter().map(|id| replica(*id)).collect()
}

fn list(of: &[(NodeId, &str)]) -> BTreeMap<NodeId, String> {
    of.iter().map(|(id, address)| (*id, (*address).to_owned())).collect()
}

#[test]
fn a_list_keeps_within_its_bounds() {
    let of = |count: u64| (1..=count).map(|id| (id, format!("host-{id}:1"))).collect();
    assert_eq!(check_list(&of(1)), Ok(()));
    assert_eq!(check_list(&of(MAX_NODES as u64)), Ok(()));
    assert_eq!(check_list(&list(&[(7, &"a".repeat(MAX_ADDRESS_BYTES))])), Ok(()));
    let wrong = [
        (of(0), "at least one node"),
        (of(MAX_NODES as u64 + 1), "65 nodes are more than 64"),
        (list(&[(0, "a")]), "must not be 0"),
        (list(&[(1, "a"), (2, "")]), "node 2 has no address"),
        (list(&[(7, &"a".repeat(MAX_ADDRESS_BYTES + 1))]), "the address of node 7 is longer"),
        (list(&[(1, "a"), (2, "b"), (3, "a")]), "nodes 1 and 3 have the same address, a"),
    ];
    for (list, reason) in wrong {
        let error = check_list(&list).unwrap_err();
        assert!(error.contains(reason), "{error} should say: {reason}");
    }
}

#[test]
fn a_configuration_keeps_within_its_bounds() {
    let new = |founders: &[NodeId], members: &[Replica], voters: &[Replica], address: &str| {
        let founders = founders.iter().copied().collect();
        let members = members.iter().map(|member| (*member, address.to_owned())).collect();
        Membership::new(ClusterId(1), founders, members, Voters::simple(voters.iter().copied()))
    };
    let (one, two) = (replica(1), replica(2));
    let many: Vec<_> = (1..=MAX_NODES as u64 + 1).map(replica).collect();
    let ids: Vec<_> = (1..=MAX_NODES as u64 + 1).collect();
    let longest = "a".repeat(MAX_ADDRESS_BYTES);
    assert!(new(&[1], &[one], &[one], "").is_ok());
    assert!(new(&[9], &[one, two], &[two], &longest).is_ok(), "who founded it may be gone");
    assert!(new(&ids[1..], &many[1..], &many[1..], "a").is_ok());
    assert!(new(&[1], &[one, second(1)], &[one], "a").is_ok());
    let third = Replica::new(1, 1);
    let wrong = [
        (new(&[1], &[one], &[], "a"), "at least one voter"),
        (new(&[], &[one], &[one], "a"), "the ids of its founders"),
        (new(&[0, 1], &[one], &[one], "a"), "the ids of its founders"),
        (new(&ids, &[one], &[one], "a"), "the ids of its founders"),
        (new(&[1], &many, &[one], "a"), "65 members are more than 64"),
        (new(&[1], &[one], &[one, two], "a"), "replica 2/0002 votes and is no member"),
        (new(&[1], &[one, replica(0)], &[one], "a"), "must not be 0"),
        (new(&[1], &[one, Replica::any(2)], &[one], "a"), "must not be 0"),
        (new(&[1], &[one], &[one], &(longest + "a")), "the address of node 1 is longer"),
        (new(&[1], &[one, second(1), third], &[one], "a"), "node 1 has more than two replicas"),
    ];
    for (outcome, reason) in wrong {
        let error = outcome.unwrap_err();
        assert!(error.contains(reason), "{error} should say: {reason}");
    }
}

#[test]
fn all_founders_vote() {
    let membership = founded(&[1, 2, 3]);
    assert_eq!(membership.cluster(), ClusterId(77));
    assert_eq!(membership.founders(), &BTreeSet::from([1, 2, 3]));
    assert_eq!(membership.voters(), &Voters::simple(replicas(&[1, 2, 3])));
    assert_eq!(membership.nodes(), list(&[(1, "node-1"), (2, "node-2"), (3, "node-3")]));
    assert_eq!(membership.learners().count(), 0);
    assert!(membership.is_voter(replica(3)) && !membership.is_voter(replica(4)));
    assert!(!membership.is_member(second(3)), "another disk of a member");
    assert!(!membership.is_member(Replica::any(3)), "an address, and no member");
    assert_eq!(membership.address(2), Some("node-2"));
    assert_eq!(membership.address(4), None);
    assert!(Membership::founding(ClusterId(1), BTreeMap::new()).is_err());
}

#[test]
fn a_learner_is_a_member_where_its_node_is_and_has_no_vote() {
    let before = founded(&[1, 2, 3]);
    let after = before.with_learner(second(3)).unwrap();
    assert_eq!(after.voters(), before.voters());
    assert_eq!(after.learners().collect::<Vec<_>>(), [second(3)]);
    assert!(after.is_member(second(3)) && !after.is_voter(second(3)));
    assert_eq!(after.members()[&second(3)], "node-3");
    assert_eq!((after.address(3), after.nodes()), (Some("node-3"), before.nodes()));
    assert_eq!(after.founders(), before.founders());
    assert_eq!(after.cluster(), before.cluster());
    assert_eq!(after.without_learner(second(3)), Ok(before));
}

#[test]
fn a_learner_that_can_not_be_is_refused() {
    let membership = founded(&[1, 2, 3]);
    assert!(membership.with_learner(replica(4)).unwrap_err().contains("no member"));
    assert!(membership.with_learner(Replica::any(3)).unwrap_err().contains("must not be 0"));
    let with_learner = membership.with_learner(second(3)).unwrap();
    let third = with_learner.with_learner(Replica::new(3, 5)).unwrap_err();
    assert!(third.contains("more than two replicas"), "{third}");
    let ids: Vec<_> = (1..=MAX_NODES as u64).collect();
    assert!(founded(&ids).with_learner(second(3)).unwrap_err().contains("more than 64"));
}

#[test]
fn only_a_learner_is_taken_out_without_a_vote() {
    let membership = founded(&[1, 2, 3]);
    let voter = membership.without_learner(replica(3)).unwrap_err();
    assert!(voter.contains("votes and is no member"), "{voter}");
    assert_eq!(membership.without_learner(second(3)), Ok(membership), "it was none");
}

/// The whole way from one disk of a node to the next.
#[test]
fn a_new_disk_takes_the_place_of_a_lost_one() {
    let before = founded(&[1, 2, 3]);
    let joint = before.with_learner(second(3)).unwrap().exchanging(replica(3), second(3)).unwrap();
    assert!(joint.voters().is_joint());
    assert_eq!(joint.voters().outgoing(), replicas(&[1, 2, 3]));
    assert_eq!(joint.voters().incoming(), [replica(1), replica(2), second(3)]);
    assert!(joint.is_voter(replica(3)) && joint.is_voter(second(3)), "both halves decide");
    assert_eq!(joint.learners().count(), 0);
    assert_eq!(joint.members().len(), 4);

    let after = joint.left_joint().unwrap();
    assert_eq!(after.voters(), &Voters::simple([replica(1), replica(2), second(3)]));
    assert!(!after.is_member(replica(3)), "the lost disk is gone");
    assert_eq!(after.nodes(), before.nodes());
    assert_eq!((after.founders(), after.cluster()), (before.founders(), before.cluster()));
}

#[test]
fn an_exchange_is_for_members_only() {
    let error = founded(&[1, 2, 3]).exchanging(replica(3), second(3)).unwrap_err();
    assert!(error.contains("votes and is no member"), "{error}");
}

#[test]
fn who_never_voted_stays_when_a_joint_configuration_is_left() {
    let with_learners = founded(&[1, 2, 3]).with_learner(second(2)).unwrap();
    let with_learners = with_learners.with_learner(second(3)).unwrap();
    let after = with_learners.exchanging(replica(3), second(3)).unwrap().left_joint().unwrap();
    assert_eq!(after.learners().collect::<Vec<_>>(), [second(2)]);
    assert!(after.is_voter(second(3)) && !after.is_member(replica(3)));
    assert_eq!(after.left_joint(), Ok(after), "a simple one stays as it is");
}

/// A vote of the old disk is none of the new one's, in a joint configuration either.
#[test]
fn each_half_of_an_exchange_needs_its_own_majority() {
    use crate::quorum::VoteResult;
    let joint = founded(&[1, 2, 3]).with_learner(second(3)).unwrap();
    let joint = joint.exchanging(replica(3), second(3)).unwrap();
    let vote =
        |yes: &[Replica]| joint.voters().vote_result(|voter| yes.contains(&voter).then_some(true));
    assert_eq!(vote(&[replica(1), replica(3)]), VoteResult::Pending);
    assert_eq!(vote(&[replica(1), second(3)]), VoteResult::Pending);
    assert_eq!(vote(&[replica(1), replica(3), second(3)]), VoteResult::Won);
    assert_eq!(vote(&[replica(1), replica(2)]), VoteResult::Won);
}

#[test]
fn what_people_read_of_a_configuration() {
    let shown = |membership: &Membership| (membership.to_string(), format!("{membership:?}"));
    let twice = |text: &str| (text.to_owned(), text.to_owned());
    let simple = founded(&[1, 2, 3]);
    assert_eq!(shown(&simple), twice("1/0001, 2/0002, 3/0003"));
    let with_learner = simple.with_learner(second(3)).unwrap();
    assert_eq!(shown(&with_learner), twice("1/0001, 2/0002, 3/0003, learners 3/beef"));
    let joint = with_learner.exchanging(replica(3), second(3)).unwrap();
    let halves = "1/0001, 2/0002, 3/beef (joint with 1/0001, 2/0002, 3/0003)";
    assert_eq!(shown(&joint), twice(halves));
}
