//! Changes of configurations against data from outside: the folder `confchange/` of
//! `QUORATE_CONFORMANCE_DIR`. Where that variable is not set, the test says so and passes.
//!
//! A case is a command, a line of operations on nodes (`vN` voter, `lN` learner, `rN` removed, `uN`
//! updated), a line `----`, and the configuration that comes of it, or why none does. The lines
//! below a configuration are those of the leader's tracker, one for each member. Of them the id and
//! `learner` are compared, and the rest, which is about replication, is not.
//!
//! | command | here |
//! | --- | --- |
//! | `simple` | the operations make a target, and the change to it goes through to its end |
//! | `enter-joint` | likewise, to the joint configuration |
//! | `leave-joint` | the step after that |
//! | `learners_next` | outgoing voters that are learners in the target |
//! | `autoleave` | nobody has to ask for that step |
//!
//! The first case of each file that names a voter founds the cluster: no configuration here is
//! without a voter.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::error::ChangeRefusal;

const FILES: [&str; 9] = [
    "joint_autoleave.txt",
    "joint_idempotency.txt",
    "joint_learners_next.txt",
    "joint_safety.txt",
    "simple_idempotency.txt",
    "simple_promote_demote.txt",
    "simple_safety.txt",
    "update.txt",
    "zero.txt",
];

/// How many cases hold.
const HOLDING: usize = 48;

/// Where two designs differ, what happens here instead is looked at as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    /// Each change of the voters goes through a joint configuration, so that any number of them may
    /// change.
    AnyNumberOfVoters,
    /// What changes no voter needs no joint configuration.
    NothingToDo,
    /// Who asks for the target of the change under way hears that it is.
    Repeated,
    /// There is no configuration without a voter, and so none to be left.
    NoVoter,
    /// An id of 0 is refused, and not ignored.
    Zero,
    /// This case goes on from a joint configuration that there is not, as nothing was to be done.
    NotJoint,
}
use Difference::*;

/// The cases that can't hold here: by file, line of the command, and why.
const DIFFERENT: [(&str, usize, Difference); 10] = [
    ("joint_autoleave.txt", 20, Repeated),
    ("joint_safety.txt", 1, NoVoter),
    ("joint_safety.txt", 25, NothingToDo),
    ("joint_safety.txt", 30, NothingToDo),
    ("joint_safety.txt", 34, NotJoint),
    ("joint_safety.txt", 53, Repeated),
    ("simple_safety.txt", 20, AnyNumberOfVoters),
    ("simple_safety.txt", 30, AnyNumberOfVoters),
    ("simple_safety.txt", 35, AnyNumberOfVoters),
    ("zero.txt", 2, Zero),
];

/// A command with its operations, where it stands, and the lines of its answer.
struct Case {
    file: String,
    line: usize,
    command: String,
    operations: Vec<(char, NodeId)>,
    answer: Vec<String>,
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
    let folder = PathBuf::from(folder).join("confchange");
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".txt"))
        .collect();
    found.sort();
    assert_eq!(found, FILES, "the files of {}", folder.display());
    let (mut holding, mut different) = (0, Vec::new());
    for name in found {
        let mut state = State::default();
        for case in cases(&folder.join(name)) {
            let listed = DIFFERENT
                .iter()
                .find(|(file, line, _)| (*file, *line) == (case.file.as_str(), case.line));
            match state.run(&case) {
                Ok(()) => {
                    assert_eq!(listed, None, "{}:{} holds", case.file, case.line);
                    holding += 1;
                }
                Err(difference) => different.push((case.file, case.line, difference)),
            }
        }
    }
    let listed: Vec<_> =
        DIFFERENT.iter().map(|(file, line, why)| ((*file).to_owned(), *line, *why)).collect();
    assert_eq!(different, listed);
    assert_eq!(holding, HOLDING);
}

/// All cases of a file.
fn cases(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut cases = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let said = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "----");
        let operation = |word: &str| {
            let (kind, id) = word.split_at(1);
            (kind.chars().next().unwrap(), id.parse().expect("an id"))
        };
        let operations: Vec<_> = said.flat_map(str::split_whitespace).map(operation).collect();
        let answer = lines.by_ref().map(|(_, line)| line.to_owned());
        let answer: Vec<_> = answer.take_while(|line| !line.trim().is_empty()).collect();
        assert!(!answer.is_empty(), "{file}:{}: no answer", number + 1);
        let (line, command) = (number + 1, line.to_owned());
        cases.push(Case { file: file.clone(), line, command, operations, answer });
    }
    let count = text.lines().filter(|line| *line == "----").count();
    assert!(count == cases.len() && count > 0, "{file}: a case was overlooked");
    cases
}

/// The configuration in force; none before the cluster is founded.
#[derive(Default)]
struct State {
    membership: Option<Membership>,
    changes: u128,
}

/// What comes of a command: a configuration that is not put in force if it is not what is expected.
enum Outcome {
    Is(Membership),
    Refused(&'static str),
    Differs(Difference),
}

impl State {
    fn run(&mut self, case: &Case) -> Result<(), Difference> {
        let place = format!("{}:{}", case.file, case.line);
        let outcome = match (&self.membership, case.command.split(' ').next().unwrap()) {
            (None, "simple") => found(case),
            (None, "enter-joint") => {
                // Whatever it is made of.
                let none = Membership::new(
                    ClusterId(1),
                    BTreeSet::from([1]),
                    BTreeMap::new(),
                    Voters::joint([replica(1)], []),
                );
                assert!(none.is_err());
                let voters = Voters::joint([], [replica(1)]);
                let members = [(replica(1), String::new())].into();
                let none = Membership::new(ClusterId(1), BTreeSet::from([1]), members, voters);
                assert!(none.unwrap_err().contains("at least one voter"), "{place}");
                Outcome::Refused("can't make a zero-voter config joint")
            }
            (None, "leave-joint") => Outcome::Differs(NoVoter),
            (Some(of), "leave-joint") => match of.step(|_| Sight::Silent, Duration::ZERO) {
                Step::Next(next) => Outcome::Is(next.expect("possible")),
                Step::Stay if !of.voters().is_joint() => {
                    Outcome::Refused("can't leave a non-joint config")
                }
                Step::Stay | Step::Wait(_) => panic!("{place}: it is joint and waits"),
            },
            (Some(of), "simple") => change(of, case, self.changes + 1, false),
            (Some(of), "enter-joint") => change(of, case, self.changes + 1, true),
            (_, other) => panic!("{place}: {other} is not understood"),
        };
        self.changes += 1;
        let is_refused = !case.answer[0].starts_with("voters=");
        match outcome {
            Outcome::Differs(difference) => Err(difference),
            Outcome::Refused(why) if is_refused => {
                assert_eq!(case.answer, [why], "{place}");
                Ok(())
            }
            Outcome::Refused(why) => {
                assert_eq!(why, "can't leave a non-joint config", "{place}");
                // It has come to the same in another way.
                check(self.membership.as_ref().expect("founded"), case);
                Err(NotJoint)
            }
            Outcome::Is(_) if is_refused => {
                let expected = "more than one voter changed without entering joint config";
                assert_eq!(case.answer, [expected], "{place}");
                Err(AnyNumberOfVoters)
            }
            Outcome::Is(next) => {
                check(&next, case);
                self.membership = Some(next);
                Ok(())
            }
        }
    }
}

/// The target that operations make of one.
fn made(mut target: Target, operations: &[(char, NodeId)]) -> Target {
    for (operation, id) in operations {
        let known = target.members.contains_key(id);
        let address = format!("node-{id}");
        let made = match operation {
            'v' if known => target.promoted(*id),
            'v' => target.with_voter(*id, address),
            'l' if known => target.demoted(*id),
            'l' => target.with_learner(*id, address),
            'r' if known => target.without(*id),
            'u' if known => target.moved(*id, format!("another-{id}")),
            'r' | 'u' => Ok(target),
            other => panic!("{other} is not understood"),
        };
        target = made.expect("possible");
    }
    target
}

/// The first configuration.
fn found(case: &Case) -> Outcome {
    let target = made(Target::default(), &case.operations);
    if let Err(reason) = target.check() {
        if reason.contains("must not be 0") {
            return Outcome::Differs(Zero);
        }
        assert!(reason.contains("nobody would vote"), "{reason}");
        return Outcome::Refused("removed all voters");
    }
    let members = target.voters().map(|id| (replica(id), format!("node-{id}"))).collect();
    let founded = Membership::founding(ClusterId(77), members).expect("possible");
    assert_eq!(founded.target(), target, "all found it");
    Outcome::Is(founded)
}

/// A change of a configuration, to its end or to its joint configuration.
fn change(of: &Membership, case: &Case, id: u128, stays_joint: bool) -> Outcome {
    let (id, target) = (ChangeId(id), made(of.target(), &case.operations));
    let asked = |follows| {
        let options = ChangeOptions { follows, allow_lower_tolerance: true, ..Default::default() };
        let kind = ChangeKind::Begin { target: target.clone(), options };
        of.request(&ChangeRequest { id, kind })
    };
    let mut next = match asked(None) {
        Begun::Next(next, ChangeReply::Await(begun)) if begun == id => *next,
        Begun::Next(_, reply) => panic!("{reply:?}"),
        Begun::Reply(ChangeReply::Await(other)) => {
            assert_eq!(of.change().map(|change| change.id), Some(other));
            return Outcome::Differs(Repeated);
        }
        Begun::Reply(ChangeReply::Nothing) if stays_joint => return Outcome::Differs(NothingToDo),
        Begun::Reply(ChangeReply::Nothing) => return Outcome::Is(of.clone()),
        Begun::Reply(ChangeReply::Refused(ChangeRefusal::Target(reason))) => {
            assert!(["nobody would vote", "at least one node"].iter().any(|r| reason.contains(r)));
            return Outcome::Refused("removed all voters");
        }
        Begun::Reply(ChangeReply::Refused(ChangeRefusal::UnderWay { membership })) => {
            assert!(membership == *of && of.voters().is_joint());
            // One that says that it follows the first takes its place: joint configurations with
            // the same outgoing half may come one after the other.
            assert!(matches!(asked(Some(of.last_change())), Begun::Next(..)));
            return Outcome::Refused(match stays_joint {
                true => "config is already joint",
                false => "can't apply simple config change in joint config",
            });
        }
        Begun::Reply(reply) => panic!("{reply:?}"),
    };
    next = super::change::let_in(next);
    while next.change().is_some() && !(stays_joint && next.voters().is_joint()) {
        match next.step(|_| Sight::Ready, Duration::ZERO) {
            Step::Next(following) => next = following.expect("possible"),
            Step::Wait(_) | Step::Stay => panic!("{next:?}: it does not go on"),
        }
    }
    assert_eq!(next.target(), target);
    Outcome::Is(next)
}

/// Compares a configuration with the answer of a case, in all that both know.
fn check(membership: &Membership, case: &Case) {
    let place = format!("{}:{}", case.file, case.line);
    let ids = |of: &mut dyn Iterator<Item = Replica>| {
        of.map(|replica| replica.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let voters = membership.voters();
    let mut shown = format!("voters=({})", ids(&mut voters.incoming().iter().copied()));
    if voters.is_joint() {
        shown += &format!("&&({})", ids(&mut voters.outgoing().iter().copied()));
    }
    let target = membership.target();
    let is_next = |voter: &Replica| {
        let member = target.members.get(&voter.id);
        membership.is_voter(*voter) && member.is_some_and(|m| m.role == MemberRole::Learner)
    };
    let mut next = voters.outgoing().iter().copied().filter(is_next);
    for (name, list) in
        [("learners", ids(&mut membership.learners())), ("learners_next", ids(&mut next))]
    {
        if !list.is_empty() {
            shown += &format!(" {name}=({list})");
        }
    }
    // Here each is left by itself.
    let step = membership.step(|_| Sight::Silent, Duration::ZERO);
    assert_eq!(matches!(step, Step::Next(_)), voters.is_joint(), "{place}");
    let expected = case.answer[0].trim_end_matches(" autoleave");
    assert_eq!(shown, expected, "{place}: {} {:?}", case.command, case.operations);
    let tracked = |line: &String| {
        let (id, rest) = line.split_once(": ").expect("1: …");
        (id.parse::<NodeId>().unwrap(), rest.ends_with(" learner"))
    };
    let tracked: Vec<_> = case.answer[1..].iter().map(tracked).collect();
    let members = membership.members().keys();
    let members: Vec<_> =
        members.map(|member| (member.id, !membership.is_voter(*member))).collect();
    assert_eq!(members, tracked, "{place}: the members, and which of them are learners");
}
