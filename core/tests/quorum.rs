//! The quorum functions against data from outside: every case of every file in the folder `quorum/`
//! of `QUORATE_CONFORMANCE_DIR` must hold. Where that variable is not set, the test says so and
//! passes.
//!
//! A case is a command (`committed cfg=(1,2) cfgj=(2,3) idx=(100,_,5)` or `vote cfg=(…)
//! votes=(y,n,_)`), a line `----`, and an answer up to the next blank line, of which the last line
//! counts: the rest is a chart for human eyes. Its voters are node ids; here each has one replica.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use quorate_core::quorum::{VoteResult, Voters};
use quorate_core::{NodeId, Replica};

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
        // Past what catches the output of tests, so that it is seen.
        let line = "SKIPPED: the cases from outside: QUORATE_CONFORMANCE_DIR is not set";
        let _ = writeln!(std::io::stderr(), "{line}");
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
    first: Vec<Replica>,
    /// The second configuration, if one is given: empty for `zero`.
    second: Option<Vec<Replica>>,
    /// What each voter has said, in words.
    said: BTreeMap<Replica, String>,
}

fn replica(id: NodeId) -> Replica {
    Replica::new(id, 1)
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
        let ids = || list.iter().map(|id| replica(id.parse().unwrap())).collect::<Vec<_>>();
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
    let answer = |voters: &Voters| match question.kind.as_str() {
        "committed" => match committed(voters, &question.said) {
            u64::MAX => "∞".to_owned(),
            index => index.to_string(),
        },
        "vote" => match vote(voters, &question.said) {
            VoteResult::Won => "VoteWon".to_owned(),
            VoteResult::Pending => "VotePending".to_owned(),
            VoteResult::Lost => "VoteLost".to_owned(),
        },
        kind => panic!("{}: {kind} is not understood", case.place),
    };
    // The empty quorum's chart has its answer in the chart's line.
    let expected = case.answer.trim_start_matches("<empty majority quorum>");
    let first = &question.first;
    let simple = Voters::simple(first.iter().copied());
    let joint = |incoming: &[Replica], outgoing: &[Replica]| {
        Voters::joint(incoming.iter().copied(), outgoing.iter().copied())
    };
    match &question.second {
        None => {
            assert_eq!(answer(&simple), expected, "{}: {}", case.place, case.command);
            assert_eq!(answer(&joint(first, &[])), expected, "{}: joint with nobody", case.place);
            assert_eq!(answer(&joint(first, first)), expected, "{}: joint with itself", case.place);
        }
        Some(second) => {
            assert_eq!(answer(&joint(first, second)), expected, "{}: {}", case.place, case.command);
            assert_eq!(answer(&joint(second, first)), expected, "{}: halves swapped", case.place);
        }
    }
    let reversed: Vec<_> = first.iter().rev().copied().collect();
    let second = question.second.as_deref().unwrap_or_default();
    assert_eq!(answer(&joint(&reversed, second)), expected, "{}: voters reversed", case.place);
}

fn committed(voters: &Voters, said: &BTreeMap<Replica, String>) -> u64 {
    voters.agreed(|voter| match said[&voter].as_str() {
        "_" => 0,
        index => index.parse().unwrap(),
    })
}

fn vote(voters: &Voters, said: &BTreeMap<Replica, String>) -> VoteResult {
    voters.vote_result(|voter| match said[&voter].as_str() {
        "_" => None,
        "y" => Some(true),
        "n" => Some(false),
        other => panic!("{other} is no vote"),
    })
}

/// The definitions, written down as slowly as possible, for all small configurations: nothing but
/// the code is left out by an oracle that was written by hand.
#[test]
fn small_majorities_agree_with_the_definition() {
    for size in 0..=5_u32 {
        let ids: Vec<NodeId> = (1..=u64::from(size)).collect();
        let voters = Voters::simple(ids.iter().copied().map(replica));
        for code in 0..4_u64.pow(size) {
            let digit = |id: NodeId| code / 4_u64.pow(id as u32 - 1) % 4;
            let reached_by_quorum =
                |value: u64| 2 * ids.iter().filter(|id| digit(**id) >= value).count() > ids.len();
            let expected = match size {
                0 => u64::MAX,
                _ => (0..4).rev().find(|value| reached_by_quorum(*value)).unwrap_or(0),
            };
            assert_eq!(voters.agreed(|voter| digit(voter.id)), expected, "{ids:?} {code}");

            let answer = |id| match digit(id) {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            };
            let count = |which| ids.iter().filter(|id| answer(**id) == which).count();
            let (yes, open) = (count(Some(true)), count(None));
            let expected = if size == 0 || 2 * yes > ids.len() {
                VoteResult::Won
            } else if 2 * (yes + open) > ids.len() {
                VoteResult::Pending
            } else {
                VoteResult::Lost
            };
            let result = voters.vote_result(|voter| answer(voter.id));
            assert_eq!(result, expected, "{ids:?} {code}");
        }
    }
}

/// More voters than the function keeps room for without an allocation.
#[test]
fn large_majorities() {
    let agreed = |count| Voters::simple((1..=count).map(replica)).agreed(|voter| voter.id);
    assert_eq!(agreed(64), 32, "33 of 64 have at least 32");
    assert_eq!(agreed(9), 5);
}

/// What the old disk of a node has, or says, is not what the new one does.
#[test]
fn two_replicas_of_a_node_are_two_voters() {
    let (old, new) = (Replica::new(3, 1), Replica::new(3, 2));
    let joint = Voters::joint([replica(1), replica(2), new], [replica(1), replica(2), old]);
    let reached = |voter: Replica| match voter.id {
        1 => 10,
        2 => 0,
        _ if voter == old => 10,
        _ => 5,
    };
    assert_eq!(joint.agreed(reached), 5, "the outgoing half alone has 10");
    let yes = |voter| (voter == replica(1) || voter == old).then_some(true);
    assert_eq!(joint.vote_result(yes), VoteResult::Pending);
    assert_eq!(Voters::simple([replica(1), replica(2), new]).vote_result(yes), VoteResult::Pending);
    assert_eq!(Voters::simple([replica(1), replica(2), old]).vote_result(yes), VoteResult::Won);
}

#[test]
fn voters_are_sorted_and_named_once() {
    let voters = Voters::simple([3, 1, 2, 3].map(replica));
    assert_eq!(voters.incoming(), [1, 2, 3].map(replica));
    assert!(!voters.is_joint() && voters.outgoing().is_empty());
    assert_eq!(voters, Voters::simple([1, 2, 3].map(replica)));
    assert_eq!(voters, Voters::joint([2, 3, 1].map(replica), []));
    let joint = Voters::joint([4, 2, 3].map(replica), [3, 1, 2].map(replica));
    assert!(joint.is_joint());
    assert_eq!(joint.iter().map(|voter| voter.id).collect::<Vec<_>>(), [2, 3, 4, 1]);
    assert!(joint.contains(replica(1)) && joint.contains(replica(4)));
    assert!(!joint.contains(Replica::new(1, 2)) && !joint.contains(replica(5)));
    assert_eq!(Voters::default().iter().count(), 0);
}
