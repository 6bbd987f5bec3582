//! Scenarios that must fail with a bug that is planted in the engine (`docs/testing.md`): what
//! comes of them is then not what the file says, or violates a safety property.

use std::panic::catch_unwind;

use quorate_core::planted::{self, Bug};

use crate::script;

/// For each bug, a scenario that is about it.
const SEEN_BY: [(Bug, &str); 18] = [
    (Bug::E4, "membership_leader_leaves.txt"),
    (Bug::E5, "membership_learner.txt"),
    (Bug::R6, "membership_learner.txt"),
    (Bug::M2, "membership_grow.txt"),
    (Bug::M3, "membership_joint_leader_fails.txt"),
    (Bug::M5, "membership_leader_leaves.txt"),
    (Bug::M8, "membership_truncated.txt"),
    (Bug::M9, "membership_grow.txt"),
    (Bug::M10, "membership_grow.txt"),
    (Bug::M11, "membership_follows.txt"),
    (Bug::M12, "membership_joint_leader_fails.txt"),
    (Bug::M13, "membership_vote_of_behind.txt"),
    (Bug::M14, "membership_late.txt"),
    (Bug::M15, "membership_silent_target.txt"),
    (Bug::M16, "membership_late.txt"),
    (Bug::M17, "membership_cancel.txt"),
    (Bug::X18, "membership_asked_again.txt"),
    (Bug::X19, "membership_deposed.txt"),
];

#[test]
fn planted_bugs_are_noticed() {
    let fails = |bug, scenario| {
        planted::set(bug);
        let outcome = catch_unwind(|| script::compare(scenario, false));
        planted::set(None);
        outcome.is_err()
    };
    let missed: Vec<_> =
        SEEN_BY.iter().filter(|(bug, scenario)| !fails(Some(*bug), *scenario)).collect();
    assert!(missed.is_empty(), "nothing is noticed of {missed:?}");
    let wrong: Vec<_> = SEEN_BY.iter().filter(|(_, scenario)| fails(None, *scenario)).collect();
    assert!(wrong.is_empty(), "they fail without a bug: {wrong:?}");
}
