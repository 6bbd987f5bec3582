//! Histories that are known to be good or bad, and any others, against a checker that searches
//! (Wing and Gong, 1993; Lowe, 2017).

use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};
use todc_utils::specifications::Specification;

use super::*;

fn operation(what: What, begun: u64, ended: Option<u64>, answer: Answer) -> Operation {
    let time = Duration::from_millis;
    Operation { key: 1, what, begun: time(begun), ended: ended.map(time), answer }
}

fn done(version: u64, value: u64) -> Answer {
    Answer::Done(Register { version, value })
}

/// It wrote `value` from one moment to another, and was told the version.
fn writes(value: u64, begun: u64, ended: u64, version: u64) -> Operation {
    operation(What::Write(value), begun, Some(ended), done(version, value))
}

fn reads(begun: u64, ended: u64, version: u64, value: u64) -> Operation {
    operation(What::Read, begun, Some(ended), done(version, value))
}

fn unknown(value: u64, begun: u64) -> Operation {
    operation(What::Write(value), begun, None, Answer::Unknown)
}

fn refused(value: u64, begun: u64, ended: u64) -> Operation {
    operation(What::Write(value), begun, Some(ended), Answer::Refused)
}

#[track_caller]
fn good(operations: &[Operation]) {
    assert_eq!(check(operations), Ok(()));
    assert!(is_linearizable(operations), "the other checker says no");
}

#[track_caller]
fn bad(operations: &[Operation]) {
    assert!(check(operations).is_err());
    assert!(!is_linearizable(operations), "the other checker says yes");
}

#[test]
fn one_after_the_other() {
    good(&[writes(1, 0, 1, 1), reads(2, 3, 1, 1), writes(2, 4, 5, 2), reads(6, 7, 2, 2)]);
    good(&[reads(0, 1, 0, 0)]);
}

#[test]
fn a_read_that_overlaps_a_write_sees_either() {
    good(&[writes(1, 0, 10, 1), reads(2, 3, 0, 0)]);
    good(&[writes(1, 0, 10, 1), reads(2, 3, 1, 1)]);
    bad(&[writes(1, 0, 10, 1), reads(2, 3, 1, 1), reads(4, 5, 0, 0)]);
}

#[test]
fn a_stale_read() {
    bad(&[writes(1, 0, 1, 1), writes(2, 2, 3, 2), reads(4, 5, 1, 1)]);
    bad(&[writes(1, 0, 1, 1), reads(2, 3, 0, 0)]);
}

#[test]
fn a_read_of_the_future() {
    bad(&[reads(0, 1, 1, 1), writes(1, 2, 3, 1)]);
    bad(&[reads(0, 1, 1, 7)]);
}

#[test]
fn a_lost_write() {
    bad(&[writes(1, 0, 1, 1), writes(2, 2, 3, 1)]);
    bad(&[writes(1, 0, 1, 1), writes(2, 2, 3, 2), writes(3, 4, 5, 2)]);
}

#[test]
fn writes_in_the_wrong_order() {
    bad(&[writes(1, 0, 1, 2), writes(2, 2, 3, 1)]);
    good(&[writes(1, 0, 3, 2), writes(2, 2, 4, 1)]);
}

#[test]
fn a_write_of_unknown_outcome_may_happen_late_or_never() {
    good(&[unknown(1, 0), reads(1, 2, 0, 0), reads(3, 4, 0, 0)]);
    good(&[unknown(1, 0), reads(1, 2, 0, 0), reads(3, 4, 1, 1)]);
    bad(&[unknown(1, 0), reads(1, 2, 1, 1), reads(3, 4, 0, 0)]);
    bad(&[reads(0, 1, 1, 1), unknown(1, 2)]);
}

#[test]
fn a_version_that_nobody_has_seen_is_that_of_an_unknown_write() {
    good(&[unknown(1, 0), writes(2, 1, 2, 2)]);
    bad(&[writes(2, 1, 2, 2)]);
    bad(&[writes(2, 1, 2, 2), unknown(1, 3)]);
    bad(&[unknown(1, 0), writes(2, 1, 2, 3)]);
    bad(&[writes(1, 0, 1, 1), writes(2, 2, 3, 3), unknown(3, 4), writes(4, 5, 6, 4)]);
    // The one that was given up takes effect after one that began later.
    let given_up = operation(What::Write(2), 0, Some(1), Answer::Unknown);
    good(&[given_up, unknown(1, 2), reads(5, 6, 2, 2)]);
}

#[test]
fn a_refused_write_has_no_effect() {
    good(&[refused(1, 0, 1), reads(2, 3, 0, 0)]);
    bad(&[refused(1, 0, 1), reads(2, 3, 1, 1)]);
}

#[test]
fn registers_are_apart() {
    let other = |operation: Operation| Operation { key: 2, ..operation };
    assert_eq!(check(&[writes(1, 0, 1, 1), other(reads(2, 3, 0, 0))]), Ok(()));
    assert!(check(&[writes(1, 0, 1, 1), other(reads(2, 3, 1, 1))]).is_err());
}

/// What the other checker is told of an operation.
#[derive(Clone, Copy, Debug)]
enum Told {
    Read(Option<Register>),
    /// The value, and the version if it was answered.
    Write(u64, Option<u64>),
}

struct Registers;

impl Specification for Registers {
    type State = (u64, u64);
    type Operation = Told;

    fn init() -> (u64, u64) {
        (0, 0)
    }

    fn apply(operation: &Told, (version, value): &(u64, u64)) -> (bool, (u64, u64)) {
        match operation {
            Told::Read(seen) => {
                let is_seen = *seen == Some(Register { version: *version, value: *value });
                (is_seen, (*version, *value))
            }
            Told::Write(written, answer) => {
                let next = version + 1;
                (answer.is_none_or(|version| version == next), (next, *written))
            }
        }
    }
}

/// Whether any of the writes of unknown outcome, taken to have happened, makes it linearizable.
fn is_linearizable(operations: &[Operation]) -> bool {
    let unknown: Vec<usize> = (0..operations.len())
        .filter(|number| {
            let of = &operations[*number];
            matches!(of.what, What::Write(_)) && of.answer == Answer::Unknown
        })
        .collect();
    (0..1_u32 << unknown.len()).any(|chosen| {
        let happened = unknown.iter().zip(0..).filter(|(_, bit)| chosen & 1 << bit != 0);
        search(operations, &happened.map(|(number, _)| *number).collect())
    })
}

fn search(operations: &[Operation], happened: &BTreeSet<usize>) -> bool {
    let mut moments = Vec::new();
    for (number, of) in operations.iter().enumerate() {
        let told = match (of.what, of.answer) {
            (What::Read, Answer::Done(register)) => Told::Read(Some(register)),
            (What::Write(value), Answer::Done(Register { version, value: left })) => {
                if left != value {
                    return false;
                }
                Told::Write(value, Some(version))
            }
            (What::Write(value), Answer::Unknown) if happened.contains(&number) => {
                Told::Write(value, None)
            }
            _ => continue,
        };
        let ended = match of.answer {
            Answer::Done(_) => of.ended.unwrap_or(Duration::MAX),
            _ => Duration::MAX,
        };
        moments.push((of.begun, false, number, Action::Call(told)));
        moments.push((ended, true, number, Action::Response(told)));
    }
    moments.sort_by_key(|(at, ends, number, _)| (*at, *ends, *number));
    let actions: Vec<_> =
        moments.into_iter().map(|(_, _, number, action)| (number, action)).collect();
    actions.is_empty() || WGLChecker::<Registers>::is_linearizable(History::from_actions(actions))
}

/// Histories of a few operations, close enough to good ones that both kinds are common.
fn histories() -> impl Strategy<Value = Vec<Operation>> {
    let operation = (0..4_u8, 0..12_u64, 1..6_u64, 0..4_u64, 0..5_u64);
    prop::collection::vec(operation, 1..7).prop_map(|parts| {
        let mut operations = Vec::new();
        for ((kind, begun, length, version, seen), value) in parts.into_iter().zip(1..) {
            let ended = begun + length;
            // Versions and values of reads go together, mostly.
            operations.push(match kind {
                0 => reads(begun, ended, version, if seen == 4 { version } else { seen }),
                1 => unknown(value, begun),
                2 => writes(value, begun, ended, version.max(1)),
                _ => reads(begun, ended, version, 0),
            });
        }
        // Where a write has a read's version, the read has most likely seen it.
        let written: Vec<_> = operations
            .iter()
            .filter_map(|of| match (of.what, of.answer) {
                (What::Write(value), Answer::Done(register)) => Some((register.version, value)),
                _ => None,
            })
            .collect();
        for of in &mut operations {
            if let (What::Read, Answer::Done(register)) = (of.what, &mut of.answer)
                && let Some((_, value)) = written.iter().find(|(v, _)| *v == register.version)
            {
                register.value = *value;
            }
        }
        operations
    })
}

#[test]
fn it_agrees_with_a_checker_that_searches() {
    let counts = Cell::new((0, 0));
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 20_000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&histories(), |operations| {
        let ours = check(&operations);
        prop_assert_eq!(ours.is_ok(), is_linearizable(&operations), "{:?}", ours);
        let (good, bad) = counts.get();
        counts.set(if ours.is_ok() { (good + 1, bad) } else { (good, bad + 1) });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let (good, bad) = counts.get();
    assert!(good > 1000 && bad > 1000, "{good} good ones and {bad} bad ones: too few of a kind");
}
