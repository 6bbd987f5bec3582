//! The shape of a log against the log itself.

use std::collections::BTreeMap;

use super::*;
use crate::types::NodeId;

fn blank(term: u64, leader: NodeId, index: Index) -> Entry {
    Entry { log_id: LogId::new(term, leader, index), payload: Payload::Blank }
}

fn membership(ids: &[NodeId]) -> Membership {
    let voters: BTreeMap<_, _> = ids.iter().map(|id| (*id, format!("node-{id}"))).collect();
    Membership::new(voters).expect("valid ids")
}

/// Entries of these terms, whose leaders have the number of the term.
fn log(terms: &[u64]) -> Outline {
    let mut outline = Outline::default();
    for (term, index) in terms.iter().zip(1..) {
        outline.push(&blank(*term, *term, index));
    }
    outline
}

#[test]
fn an_empty_log_ends_before_the_first_entry() {
    let outline = Outline::default();
    assert_eq!(outline.last(), LogId::ZERO);
    assert_eq!(outline.log_id(0), Some(LogId::ZERO));
    assert_eq!(outline.log_id(1), None);
    assert!(outline.contains(LogId::ZERO));
    assert!(!outline.contains(LogId::FIRST));
    assert_eq!(outline.last_at_most(7, Term(7)), LogId::ZERO);
    assert_eq!(outline.membership(), None);
}

#[test]
fn each_entry_has_the_log_id_that_it_was_pushed_with() {
    let terms = [0, 1, 1, 1, 3, 4, 4];
    let outline = log(&terms);
    for (term, index) in terms.iter().zip(1..) {
        let log_id = LogId::new(*term, *term, index);
        assert_eq!(outline.log_id(index), Some(log_id));
        assert!(outline.contains(log_id));
        assert!(!outline.contains(LogId::new(*term + 1, *term, index)), "another term");
        assert!(!outline.contains(LogId::new(*term, *term + 1, index)), "another leader");
    }
    assert_eq!(outline.log_id(8), None);
    assert!(!outline.contains(LogId::new(4, 4, 8)), "beyond the end");
    assert_eq!(outline.last(), LogId::new(4, 4, 7));
}

#[test]
fn what_may_follow() {
    let outline = log(&[0, 2, 2]);
    assert!(outline.follows(LogId::new(2, 2, 4)));
    assert!(outline.follows(LogId::new(3, 1, 4)), "a later term, another leader");
    assert!(!outline.follows(LogId::new(2, 1, 4)), "a term has one leader");
    assert!(!outline.follows(LogId::new(1, 1, 4)), "a term never falls");
    assert!(!outline.follows(LogId::new(2, 2, 5)), "a gap");
    assert!(!outline.follows(LogId::new(2, 2, 3)), "a repetition");
    assert!(Outline::default().follows(LogId::FIRST));
}

#[test]
fn a_truncated_log_is_the_log_that_was_never_longer() {
    let terms = [0, 1, 1, 3, 3, 4];
    for keep in 0..=terms.len() {
        let mut outline = log(&terms);
        outline.truncate(keep as Index + 1);
        assert_eq!(outline, log(&terms[..keep]), "cut after {keep}");
    }
    let mut outline = log(&terms);
    outline.truncate(9);
    assert_eq!(outline, log(&terms), "there is nothing to cut");
}

#[test]
fn a_log_grows_again_after_a_truncation() {
    let mut outline = log(&[0, 1, 1, 1]);
    outline.truncate(3);
    outline.push(&blank(2, 7, 3));
    assert_eq!(outline.log_id(2), Some(LogId::new(1, 1, 2)));
    assert_eq!(outline.last(), LogId::new(2, 7, 3));
    // The same leader goes on where it was cut: one run, not two.
    let mut outline = log(&[0, 1, 1, 1]);
    outline.truncate(3);
    outline.push(&blank(1, 1, 3));
    assert_eq!(outline, log(&[0, 1, 1]));
}

#[test]
fn last_at_most_is_the_last_entry_of_a_term_not_above() {
    let terms = [0, 1, 1, 3, 3, 6];
    let outline = log(&terms);
    for index in 0..=8 {
        for term in 0..=7 {
            let fitting = terms.iter().zip(1..).filter(|(t, i)| *i <= index && **t <= term);
            let expected = fitting.last();
            let expected = expected.map_or(LogId::ZERO, |(t, i)| LogId::new(*t, *t, i));
            assert_eq!(outline.last_at_most(index, Term(term)), expected, "{index}, {term}");
        }
    }
}

/// M8: the configuration before comes back when the one after is truncated.
#[test]
fn the_last_membership_is_in_force_until_it_is_truncated() {
    let mut outline = Outline::default();
    let push = |outline: &mut Outline, log_id, ids: &[NodeId]| {
        outline.push(&Entry { log_id, payload: Payload::Membership(membership(ids)) });
    };
    push(&mut outline, LogId::FIRST, &[1]);
    outline.push(&blank(1, 1, 2));
    push(&mut outline, LogId::new(1, 1, 3), &[1, 2]);
    outline.push(&blank(1, 1, 4));
    assert_eq!(outline.membership(), Some((3, &membership(&[1, 2]))));
    outline.truncate(4);
    assert_eq!(outline.membership(), Some((3, &membership(&[1, 2]))));
    outline.truncate(3);
    assert_eq!(outline.membership(), Some((1, &membership(&[1]))));
    outline.truncate(1);
    assert_eq!(outline.membership(), None);
}
