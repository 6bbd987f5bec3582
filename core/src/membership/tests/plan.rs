//! The steps of a change before it is made.

use super::target::target;
use super::*;

/// The steps as people read them, and how many failures are tolerated now and at the worst step.
fn planned(
    from: &Membership,
    target: &Target,
    leader: Option<NodeId>,
) -> (Vec<String>, (usize, usize)) {
    let Plan { tolerates_now, tolerates_at_least, steps } =
        from.plan(target, leader).expect("possible");
    (steps.iter().map(ToString::to_string).collect(), (tolerates_now, tolerates_at_least))
}

fn ids(of: &[NodeId]) -> BTreeSet<NodeId> {
    of.iter().copied().collect()
}

#[test]
fn one_node_becomes_three() {
    let to = target(&[1, 2, 3], &[]);
    let plan = founded(&[1]).plan(&to, Some(1)).expect("possible");
    let steps = [
        PlanStep::AddLearners(ids(&[2, 3])),
        PlanStep::CatchUp(ids(&[2, 3])),
        PlanStep::Joint { incoming: ids(&[1, 2, 3]), outgoing: ids(&[1]) },
        PlanStep::Reach(to.clone()),
    ];
    assert_eq!(plan.steps, steps);
    let read = [
        "add nodes 2, 3 as learners, when they answer",
        "wait until nodes 2, 3 have caught up",
        "voters 1, 2, 3 joint with 1",
        "voters 1, 2, 3",
    ];
    assert_eq!(planned(&founded(&[1]), &to, None), (read.map(str::to_owned).into(), (0, 0)));
}

#[test]
fn three_nodes_become_one() {
    let read = ["voters 1 joint with 1, 2, 3", "voters 1"].map(str::to_owned);
    let to = target(&[1], &[]);
    assert_eq!(planned(&founded(&[1, 2, 3]), &to, Some(1)), (read.into(), (1, 0)));
}

/// The leader has no vote in the end, whether it leaves or becomes a learner.
#[test]
fn a_leader_that_leaves_transfers_leadership_before() {
    for to in [target(&[1, 2], &[]), target(&[1, 2], &[3])] {
        let plan = founded(&[1, 2, 3]).plan(&to, Some(3)).expect("possible");
        let steps = [
            PlanStep::Joint { incoming: ids(&[1, 2]), outgoing: ids(&[1, 2, 3]) },
            PlanStep::TransferLeadership(ids(&[1, 2])),
            PlanStep::Reach(to),
        ];
        assert_eq!(plan.steps, steps);
        assert_eq!((plan.tolerates_now, plan.tolerates_at_least), (1, 0));
        assert_eq!(plan.steps[1].to_string(), "transfer leadership to one of 1, 2");
    }
}

#[test]
fn three_nodes_become_three_others() {
    let read = [
        "add nodes 4, 5, 6 as learners, when they answer",
        "wait until nodes 4, 5, 6 have caught up",
        "voters 4, 5, 6 joint with 1, 2, 3",
        "transfer leadership to one of 4, 5, 6",
        "voters 4, 5, 6",
    ];
    let to = target(&[4, 5, 6], &[]);
    let planned = planned(&founded(&[1, 2, 3]), &to, Some(2));
    assert_eq!(planned, (read.map(str::to_owned).into(), (1, 1)));
}

#[test]
fn what_is_only_moved_or_preferred_needs_no_other_voters() {
    let three = founded(&[1, 2, 3]);
    let moved = three.target().moved(2, "elsewhere").unwrap().preferring(3, 1).unwrap();
    let read = ["update nodes 2, 3", "voters 1, 2, 3"].map(str::to_owned);
    assert_eq!(planned(&three, &moved, Some(2)), (read.into(), (1, 1)));
    assert_eq!(planned(&three, &three.target(), Some(2)), (vec![], (1, 1)));
}

#[test]
fn a_learner_is_let_in_promoted_and_taken_out() {
    let three = founded(&[1, 2, 3]);
    let read = ["add node 4 as a learner, when it answers", "voters 1, 2, 3, learners 4"];
    let with_learner = target(&[1, 2, 3], &[4]);
    let steps = planned(&three, &with_learner, None);
    assert_eq!(steps, (read.map(str::to_owned).into(), (1, 1)));

    let four = change::through(&three, 1, with_learner);
    let read = [
        "wait until node 4 has caught up",
        "voters 1, 2, 3, 4 joint with 1, 2, 3",
        "voters 1, 2, 3, 4",
    ];
    let steps = planned(&four, &target(&[1, 2, 3, 4], &[]), None);
    assert_eq!(steps, (read.map(str::to_owned).into(), (1, 1)));
    let read = ["voters 1, 2, 3"].map(str::to_owned);
    assert_eq!(planned(&four, &three.target(), None), (read.into(), (1, 1)));
}

#[test]
fn the_smaller_half_says_how_many_failures_are_tolerated() {
    for (voters, tolerated) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (64, 31)] {
        let ids: Vec<_> = (1..=voters).collect();
        assert_eq!(founded(&ids).tolerates(), tolerated, "of {voters}");
    }
    let five = founded(&[1, 2, 3, 4, 5]);
    let joint = change::joint(&five, 1, target(&[1, 2, 3], &[]));
    assert_eq!(joint.tolerates(), 1);
    let joint = change::joint(&founded(&[1, 2, 3]), 1, target(&[1, 2, 3, 4, 5], &[]));
    assert_eq!(joint.tolerates(), 1);
}

/// From a joint configuration the way goes on from its outgoing half.
#[test]
fn the_way_from_a_joint_configuration_is_planned_too() {
    let joint = change::joint(&founded(&[1, 2, 3]), 1, target(&[1, 2, 4], &[]));
    let read = ["voters 1, 2, 3"].map(str::to_owned);
    assert_eq!(planned(&joint, &target(&[1, 2, 3], &[]), None), (read.into(), (1, 1)));
    let read = [
        "add node 5 as a learner, when it answers",
        "wait until nodes 4, 5 have caught up",
        "voters 1, 4, 5 joint with 1, 2, 3",
        "voters 1, 4, 5",
    ];
    let steps = planned(&joint, &target(&[1, 4, 5], &[]), None);
    assert_eq!(steps, (read.map(str::to_owned).into(), (1, 1)));
}
