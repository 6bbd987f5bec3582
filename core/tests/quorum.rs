//! The quorum functions against data from outside: every case of every file in the folder `quorum/` of
//! `QUORATE_CONFORMANCE_DIR` must hold. Where that variable is not set, the test says so and passes.
//!
//! A case is a command (`committed cfg=(1,2) cfgj=(2,3) idx=(100,_,5)` or `vote cfg=(…) votes=(y,n,_)`), a line `----`, and
//! an answer up to the next blank line, of which the last line counts: the rest is a chart for human eyes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use quorate_core::NodeId;
use quorate_core::quorum::{VoteResult, agreed, vote_result};

const FILES: [&str; 4] =
    ["joint_commit.txt", "joint_vote.txt", "majority_commit.txt", "majority_vote.txt"];

/// A command, where it stands, and the last line of its answer.
struct Case {
    place: String,
    command: String,
    answer: String,
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where the data are is the caller's choice")]
fn the_conformance_data_holds() {
    let Some(folder) = std::env::var_os("QUORATE_CONFORMANCE_DIR") else {
        println!("QUORATE_CONFORMANCE_DIR is not set: nothing to check");
        return;
    };
    let folder = PathBuf::from(folder).join("quorum");
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".txt"))
        .collect();
    found.sort();
    assert_eq!(found, FILES, "the files of {}", folder.display());
    for name in found {
        let cases = cases(&folder.join(name));
        assert!(!cases.is_empty());
        for case in &cases {
            run(case);
        }
        println!("{} cases of {}", cases.len(), cases[0].place);
    }
}

/// All cases of a file. A line that belongs to none of them is an error.
fn cases(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = path.file_name().unwrap().to_str().unwrap();
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{name}:{}", number + 1);
        let (_, dashes) = lines.next().unwrap_or_else(|| panic!("{place}: ends too early"));
        assert_eq!(dashes, "----", "{place}: a command has one line");
        let answer =
            lines.by_ref().map(|(_, line)| line).take_while(|line| !line.trim().is_empty()).last();
        let answer = answer.unwrap_or_else(|| panic!("{place}: no answer")).to_owned();
        cases.push(Case { place, command: line.to_owned(), answer });
    }
    assert_eq!(
        text.lines().filter(|line| *line == "----").count(),
        cases.len(),
        "{name}: a case was overlooked"
    );
    cases
}

/// A command in its parts.
struct Question {
    kind: String,
    first: Vec<NodeId>,
    /// The second configuration, if one is given: empty for `zero`.
    second: Option<Vec<NodeId>>,
    /// What each voter has said, in words; in the order in which the voters first appear.
    said: BTreeMap<NodeId, String>,
}

fn parse(case: &Case) -> Question {
    let place = &case.place;
    let command: String = case.command.replace(", ", ",");
    let mut words = command.split_whitespace();
    let kind = words.next().unwrap().to_owned();
    let (mut first, mut second, mut said) = (Vec::new(), None, Vec::new());
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{place}: {word}"));
        let list: Vec<String> = match value {
            "zero" => Vec::new(),
            _ => value
                .strip_prefix('(')
                .and_then(|value| value.strip_suffix(')'))
                .unwrap_or_else(|| panic!("{place}: {word}"))
                .split(',')
                .map(str::to_owned)
                .collect(),
        };
        let ids = || list.iter().map(|id| id.parse().unwrap()).collect::<Vec<NodeId>>();
        match (key, kind.as_str()) {
            ("cfg", _) => first = ids(),
            ("cfgj", _) => second = Some(ids()),
            ("idx", "committed") | ("votes", "vote") => said = list,
            _ => panic!("{place}: {word} is not understood"),
        }
    }
    let mut voters = Vec::new();
    for voter in first.iter().chain(second.iter().flatten()) {
        if !voters.contains(voter) {
            voters.push(*voter);
        }
    }
    assert_eq!(voters.len(), said.len(), "{place}: each voter says something");
    Question { kind, first, second, said: voters.into_iter().zip(said).collect() }
}

fn run(case: &Case) {
    let question = parse(case);
    let answer = |majorities: &[&[NodeId]]| match question.kind.as_str() {
        "committed" => match committed(majorities, &question.said) {
            u64::MAX => "∞".to_owned(),
            index => index.to_string(),
        },
        "vote" => match vote(majorities, &question.said) {
            VoteResult::Won => "VoteWon".to_owned(),
            VoteResult::Pending => "VotePending".to_owned(),
            VoteResult::Lost => "VoteLost".to_owned(),
        },
        kind => panic!("{}: {kind} is not understood", case.place),
    };
    // The empty quorum's chart has its answer in the chart's line.
    let expected = case.answer.trim_start_matches("<empty majority quorum>");
    let first = &question.first[..];
    match &question.second {
        None => {
            assert_eq!(answer(&[first]), expected, "{}: {}", case.place, case.command);
            assert_eq!(answer(&[first, &[]]), expected, "{}: joint with nobody", case.place);
            assert_eq!(answer(&[first, first]), expected, "{}: joint with itself", case.place);
        }
        Some(second) => {
            assert_eq!(answer(&[first, second]), expected, "{}: {}", case.place, case.command);
            assert_eq!(answer(&[second, first]), expected, "{}: halves swapped", case.place);
        }
    }
    let mut reversed = first.to_vec();
    reversed.reverse();
    let second = question.second.as_deref().unwrap_or_default();
    assert_eq!(answer(&[&reversed, second]), expected, "{}: voters reversed", case.place);
}

fn committed(majorities: &[&[NodeId]], said: &BTreeMap<NodeId, String>) -> u64 {
    agreed(majorities, |voter| match said[&voter].as_str() {
        "_" => 0,
        index => index.parse().unwrap(),
    })
}

fn vote(majorities: &[&[NodeId]], said: &BTreeMap<NodeId, String>) -> VoteResult {
    vote_result(majorities, |voter| match said[&voter].as_str() {
        "_" => None,
        "y" => Some(true),
        "n" => Some(false),
        other => panic!("{other} is no vote"),
    })
}

/// The definitions, written down as slowly as possible, for all small configurations: nothing but the code is
/// left out by an oracle that was written by hand.
#[test]
fn small_majorities_agree_with_the_definition() {
    for size in 0..=5_u32 {
        let voters: Vec<NodeId> = (1..=u64::from(size)).collect();
        for code in 0..4_u64.pow(size) {
            let digit = |voter: NodeId| code / 4_u64.pow(voter as u32 - 1) % 4;
            let reached_by_quorum = |value: u64| {
                2 * voters.iter().filter(|voter| digit(**voter) >= value).count() > voters.len()
            };
            let expected = match size {
                0 => u64::MAX,
                _ => (0..4).rev().find(|value| reached_by_quorum(*value)).unwrap_or(0),
            };
            assert_eq!(agreed(&[&voters], digit), expected, "{voters:?} {code}");

            let answer = |voter| match digit(voter) {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            };
            let count = |which| voters.iter().filter(|v| answer(**v) == which).count();
            let (yes, open) = (count(Some(true)), count(None));
            let expected = if size == 0 || 2 * yes > voters.len() {
                VoteResult::Won
            } else if 2 * (yes + open) > voters.len() {
                VoteResult::Pending
            } else {
                VoteResult::Lost
            };
            assert_eq!(vote_result(&[&voters], answer), expected, "{voters:?} {code}");
        }
    }
}

/// More voters than the function keeps room for without an allocation.
#[test]
fn large_majorities() {
    let voters: Vec<NodeId> = (1..=64).collect();
    assert_eq!(agreed(&[&voters], |voter| voter), 32, "33 of 64 have at least 32");
    let voters: Vec<NodeId> = (1..=9).collect();
    assert_eq!(agreed(&[&voters], |voter| voter), 5);
}
