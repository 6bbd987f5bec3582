//! The small scope has no violation, and has one without each of the rules.

use clap::ValueEnum;
use quorate_model::explore::{Model, Outcome, Trace, explore};
use quorate_model::formation::Formation;
use quorate_model::replication::Replication;
use quorate_model::rule::Rule;
use quorate_model::scopes::{Scope, formation, replication};

/// More states than any of these explorations has.
const LIMIT: usize = 3_000_000;

fn violation<M: Model>(model: &M) -> Option<Trace> {
    match explore(model, LIMIT).outcome {
        Outcome::Safe => None,
        Outcome::Violation(trace) => Some(trace),
        Outcome::Limit => panic!("more than {LIMIT} states"),
    }
}

fn assert_safe<M: Model + std::fmt::Display>(model: &M) {
    if let Some(trace) = violation(model) {
        panic!("{model}: {}, after {:#?}", trace.violation, trace.steps);
    }
}

/// The shortest way to a violation in the first model of the small scope that has one.
fn without(rule: Rule) -> Option<Trace> {
    if rule.of_replication() {
        let with = |model| Replication { without: Some(rule), ..model };
        replication(Scope::Small).into_iter().find_map(|model| violation(&with(model)))
    } else {
        let with = |model| Formation { without: Some(rule), ..model };
        formation(Scope::Small).into_iter().find_map(|model| violation(&with(model)))
    }
}

#[test]
fn replication_is_safe_with_all_rules() {
    replication(Scope::Small).iter().for_each(assert_safe);
}

#[test]
fn formation_is_safe_with_all_rules() {
    formation(Scope::Small).iter().for_each(assert_safe);
}

#[test]
fn each_rule_is_needed() {
    for &rule in Rule::value_variants() {
        let trace = without(rule).unwrap_or_else(|| panic!("nothing is wrong without {rule:?}"));
        println!("{rule:?}: {} after {:#?}", trace.violation, trace.steps);
    }
}

/// The steps that the model leaves out lead to no violation.
#[test]
fn steps_that_are_left_out_are_safe() {
    assert_safe(&Replication { terms: 2, entries: 1, plain: true, without: None });
}

/// A trace is replayed from real states: its length is that of the shortest way.
#[test]
fn two_steps_elect_two_leaders_without_incarnations_in_votes() {
    let trace = without(Rule::IncarnationsInVotes).expect("two leaders");
    assert_eq!(
        trace.steps,
        ["1 campaigns in term 1, 3 votes for it", "2 campaigns in term 1, 3' votes for it"]
    );
    assert_eq!(trace.violation, "term 1 has two leaders");
}

/// What identities can't prevent: more is lost or doubled at once than the design tolerates.
#[test]
fn two_twins_form_two_clusters() {
    let model = Formation {
        lists: [0b111, 0b111],
        wipes: 0,
        twins: 2,
        retold: 0,
        attempts: 2,
        ballots: 2,
        without: None,
    };
    assert!(violation(&model).is_some());
    assert!(violation(&Formation { wipes: 1, twins: 1, ..model }).is_some());
}
