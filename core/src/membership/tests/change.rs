//! Changes: how they begin, what follows, how they end.

use std::time::Duration;

use super::target::target;
use super::*;
use crate::error::ChangeRefusal;

const NO_TIME: Duration = Duration::ZERO;

fn lower() -> ChangeOptions {
    ChangeOptions { allow_lower_tolerance: true, ..ChangeOptions::default() }
}

fn follows(id: u128) -> ChangeOptions {
    ChangeOptions { follows: Some(ChangeId(id)), ..lower() }
}

/// What comes of a request: the next configuration, if there is one, and the answer.
fn requested(
    of: &Membership,
    id: u128,
    target: Target,
    options: ChangeOptions,
) -> (Option<Membership>, ChangeReply) {
    outcome(of, id, ChangeKind::Begin { target, options })
}

fn cancelled(of: &Membership, id: u128) -> (Option<Membership>, ChangeReply) {
    outcome(of, id, ChangeKind::Cancel)
}

fn outcome(of: &Membership, id: u128, kind: ChangeKind) -> (Option<Membership>, ChangeReply) {
    match of.request(&ChangeRequest { id: ChangeId(id), kind }) {
        Begun::Reply(reply) => (None, reply),
        Begun::Next(next, reply) => (Some(*next), reply),
    }
}

/// The configuration with which a change begins.
pub(super) fn begun(
    of: &Membership,
    id: u128,
    target: Target,
    options: ChangeOptions,
) -> Membership {
    let (next, reply) = requested(of, id, target, options);
    assert_eq!(reply, ChangeReply::Await(ChangeId(id)));
    next.expect("it begins")
}

fn refusal(of: &Membership, target: Target, options: ChangeOptions) -> ChangeRefusal {
    match requested(of, 99, target, options) {
        (None, ChangeReply::Refused(refusal)) => refusal,
        (next, reply) => panic!("{next:?}, {reply:?}"),
    }
}

fn next(step: Step) -> Membership {
    match step {
        Step::Next(next) => next.expect("possible"),
        Step::Wait(waits_for) => panic!("it waits for {waits_for:?}"),
        Step::Stay => panic!("it stays"),
    }
}

fn waits_for(step: Step) -> Vec<NodeId> {
    match step {
        Step::Wait(waits_for) => waits_for.into_iter().collect(),
        Step::Next(next) => panic!("it becomes {next:?}"),
        Step::Stay => panic!("it stays"),
    }
}

/// All that are missing are let in.
pub(super) fn let_in(mut membership: Membership) -> Membership {
    let missing: Vec<_> = membership.missing().collect();
    for id in missing {
        membership = membership.with_learner(replica(id)).expect("possible");
    }
    membership
}

/// The joint configuration of a change in which all goes well.
pub(super) fn joint(of: &Membership, id: u128, target: Target) -> Membership {
    let begun = let_in(begun(of, id, target, lower()));
    let joint = next(begun.step(|_| Sight::Ready, NO_TIME));
    assert!(joint.voters().is_joint());
    joint
}

/// A change in which all goes well, to its end.
pub(super) fn through(of: &Membership, id: u128, target: Target) -> Membership {
    let mut membership = let_in(begun(of, id, target, lower()));
    while membership.change().is_some() {
        membership = next(membership.step(|_| Sight::Ready, NO_TIME));
    }
    membership
}

fn ids(of: &[NodeId]) -> BTreeSet<NodeId> {
    of.iter().copied().collect()
}

fn members(of: &Membership) -> Vec<NodeId> {
    of.members().keys().map(|member| member.id).collect()
}

fn ending(of: &Membership, id: u128) -> Option<Ending> {
    of.ending_of(ChangeId(id)).cloned()
}

/// The whole way: noted, let in, joint, done.
#[test]
fn a_change_goes_from_step_to_step() {
    let before = founded(&[1, 2, 3]);
    let to = target(&[1, 2, 4], &[5]);
    let noted = begun(&before, 1, to.clone(), ChangeOptions::default());
    let change = noted.change().expect("it is under way");
    assert_eq!((&change.target, &change.before), (&to, &before.target()));
    assert_eq!((change.id, change.catch_up), (ChangeId(1), 600_000));
    assert_eq!((noted.voters(), members(&noted)), (before.voters(), vec![1, 2, 3]));
    assert_eq!(noted.target(), to, "the next target begins from what is to be");
    assert_eq!((noted.last_change(), noted.endings().count()), (ChangeId(1), 0));
    assert_eq!(noted.missing().collect::<Vec<_>>(), [4, 5]);
    assert_eq!(noted.address_of_learner(4).as_deref(), Some("node-4"));
    let ready = |_| Sight::Ready;
    assert_eq!(waits_for(noted.step(ready, NO_TIME)), [4, 5]);

    let with_learners = let_in(noted);
    assert_eq!(with_learners.learners().collect::<Vec<_>>(), replicas(&[4, 5]));
    assert!(with_learners.is_to_vote(replica(4)) && !with_learners.is_to_vote(replica(5)));
    assert!(with_learners.is_to_vote(replica(1)) && !with_learners.is_to_vote(replica(3)));
    let behind = |who| if who == replica(4) { Sight::Behind } else { Sight::Ready };
    assert_eq!(waits_for(with_learners.step(behind, NO_TIME)), [4]);
    let joint = next(with_learners.step(ready, NO_TIME));
    let voters = Voters::joint(replicas(&[1, 2, 4]), replicas(&[1, 2, 3]));
    assert_eq!((joint.voters(), members(&joint)), (&voters, vec![1, 2, 3, 4, 5]));
    assert_eq!(joint.change(), with_learners.change());

    let done = next(joint.step(|_| Sight::Silent, NO_TIME));
    assert_eq!(done.voters(), &Voters::simple(replicas(&[1, 2, 4])));
    assert_eq!((members(&done), done.target()), (vec![1, 2, 4, 5], to));
    assert_eq!((done.change(), ending(&done, 1)), (None, Some(Ending::Done)));
    assert_eq!((done.founders(), done.cluster()), (before.founders(), before.cluster()));
    assert!(matches!(done.step(ready, NO_TIME), Step::Stay));
}

/// A learner need not be heard: it counts for nothing.
#[test]
fn only_who_is_to_vote_is_waited_for_once_all_are_let_in() {
    let noted = let_in(begun(&founded(&[1, 2, 3]), 1, target(&[1, 2, 3, 4], &[5]), lower()));
    let sight = |who| if who == replica(5) { Sight::Silent } else { Sight::Ready };
    assert!(next(noted.step(sight, NO_TIME)).voters().is_joint());
}

/// Of the voters that there are, none need keep up; of those that there will be, a majority must
/// be heard (M15).
#[test]
fn voters_of_whom_a_majority_is_silent_are_not_put_in_force() {
    let five = founded(&[1, 2, 3, 4, 5]);
    let noted = begun(&five, 1, target(&[1, 4, 5], &[]), lower());
    let silent = |silent: &'static [NodeId]| {
        move |who: Replica| if silent.contains(&who.id) { Sight::Silent } else { Sight::Behind }
    };
    assert_eq!(waits_for(noted.step(silent(&[4, 5]), NO_TIME)), [4, 5]);
    assert_eq!(waits_for(noted.step(silent(&[2, 3, 4, 5]), NO_TIME)), [4, 5]);
    assert!(next(noted.step(silent(&[5]), NO_TIME)).voters().is_joint());
    assert!(next(noted.step(silent(&[2, 3]), NO_TIME)).voters().is_joint());
}

#[test]
fn who_has_not_caught_up_in_time_ends_a_change() {
    let before = founded(&[1, 2, 3]);
    let to = target(&[1, 2, 3, 4, 5], &[6]).moved(1, "elsewhere").unwrap();
    let to = to.preferring(2, 9).unwrap();
    let options = ChangeOptions { catch_up: Duration::from_secs(4), ..lower() };
    let noted = begun(&before, 1, to, options);
    assert_eq!((noted.address(1), noted.priority(2)), (Some("elsewhere"), 9), "at once");
    let noted = noted.with_learner(replica(4)).unwrap();
    let sight = |who| if who == replica(4) { Sight::Behind } else { Sight::Ready };
    assert_eq!(waits_for(noted.step(sight, Duration::from_millis(3999))), [4, 5, 6]);
    let late = next(noted.step(sight, Duration::from_secs(4)));
    assert_eq!(ending(&late, 1), Some(Ending::Late { waits_for: ids(&[4, 5, 6]) }));
    assert_eq!(late.voters(), before.voters());
    // What the change has let in, moved and preferred is undone (M16).
    assert_eq!((late.members(), late.target()), (before.members(), before.target()));
    assert_eq!((late.priority(2), late.change()), (0, None));
    assert_eq!(late.last_change(), ChangeId(1), "it was accepted all the same");
}

/// Time counts as long as somebody is waited for, and not when all is well.
#[test]
fn a_change_that_waits_for_nobody_is_never_late() {
    let noted = let_in(begun(&founded(&[1]), 1, target(&[1, 2], &[]), lower()));
    let joint = next(noted.step(|_| Sight::Ready, Duration::MAX));
    assert!(joint.voters().is_joint());
    let done = next(joint.step(|_| Sight::Silent, Duration::MAX));
    assert_eq!(ending(&done, 1), Some(Ending::Done));
}

#[test]
fn what_was_before_comes_back_with_its_learners_addresses_and_priorities() {
    let first = target(&[1, 2], &[3]).preferring(2, 5).unwrap();
    let before = through(&founded(&[1, 2, 3]), 1, first);
    let to = target(&[1, 3, 4], &[]).moved(1, "elsewhere").unwrap().preferring(1, 8).unwrap();
    let noted = begun(&before, 2, to.clone(), lower());
    for stage in [noted.clone(), let_in(noted), joint(&before, 2, to)] {
        let (next, reply) = cancelled(&stage, 2);
        let next = next.expect("it is taken back");
        assert_eq!(reply, ChangeReply::Await(ChangeId(2)));
        assert_eq!(ending(&next, 2), Some(Ending::Cancelled));
        assert_eq!((next.members(), next.voters()), (before.members(), before.voters()));
        assert_eq!((next.target(), next.priority(2)), (before.target(), 5));
        assert_eq!(next.learners().collect::<Vec<_>>(), replicas(&[3]));
        // It is known from then on, to whoever asks again.
        assert_eq!(cancelled(&next, 2), (None, ChangeReply::Await(ChangeId(2))));
    }
}

/// A cancellation after the end changes nothing (M17), and is told how the change has ended.
#[test]
fn what_has_ended_is_not_cancelled() {
    let before = founded(&[1, 2, 3]);
    let done = through(&before, 1, target(&[1, 2, 4], &[]));
    assert_eq!(cancelled(&done, 1), (None, ChangeReply::Await(ChangeId(1))));
    let refused = ChangeReply::Refused(ChangeRefusal::NotUnderWay);
    assert_eq!(cancelled(&done, 2), (None, refused.clone()));
    let other = begun(&done, 3, target(&[1, 2], &[]), lower());
    assert_eq!(cancelled(&other, 1), (None, ChangeReply::Await(ChangeId(1))));
    assert_eq!(cancelled(&other, 2), (None, refused.clone()), "another one is under way");
    assert_eq!(cancelled(&before, 1), (None, refused));
}

#[test]
fn what_can_not_be_is_refused() {
    let three = founded(&[1, 2, 3]);
    let reasons = [
        (target(&[], &[1, 2, 3]), "nobody would vote"),
        (target(&[], &[]), "at least one node"),
        (three.target().moved(2, "node-1").unwrap(), "the same address"),
        (target(&[0, 1], &[]), "must not be 0"),
    ];
    for (target, reason) in reasons {
        let ChangeRefusal::Target(error) = refusal(&three, target, lower()) else {
            panic!("it can't be: {reason}")
        };
        assert!(error.contains(reason), "{error} should say: {reason}");
    }
    // Each of both would be few enough.
    let all: Vec<_> = (1..=MAX_NODES as u64).collect();
    let most = founded(&all[..40]);
    let over = target(&all[15..], &[]);
    assert!(matches!(requested(&most, 1, over, lower()).1, ChangeReply::Await(_)));
    let over = target(&(20..60).chain([99]).collect::<Vec<_>>(), &[100, 101, 102, 103, 104]);
    let reason = "on the way it would have 65 members, more than 64".to_owned();
    let most = founded(&(1..=40).collect::<Vec<_>>());
    assert_eq!(refusal(&most, over, lower()), ChangeRefusal::Target(reason));
}

#[test]
fn fewer_failures_are_tolerated_only_where_that_is_allowed() {
    let five = founded(&[1, 2, 3, 4, 5]);
    let default = ChangeOptions::default;
    let lowers = |now, lowest| ChangeRefusal::LowersTolerance { now, lowest };
    assert_eq!(refusal(&five, target(&[1, 2, 3], &[]), default()), lowers(2, 1));
    assert_eq!(refusal(&five, target(&[1], &[2, 3, 4, 5]), default()), lowers(2, 0));
    assert_eq!(refusal(&five, target(&[1, 2, 3, 4], &[]), default()), lowers(2, 1));
    begun(&five, 1, target(&[1, 2, 3], &[]), lower());
    begun(&founded(&[1, 2, 3, 4]), 1, target(&[1, 2, 3], &[]), default());
    begun(&founded(&[1, 2]), 1, target(&[1], &[]), default());
    begun(&five, 1, target(&[6, 7, 8, 9, 10], &[]), default());
}

#[test]
fn a_change_that_is_asked_for_again_is_the_same() {
    let before = founded(&[1, 2, 3]);
    let to = || target(&[1, 2, 4], &[]);
    let noted = begun(&before, 1, to(), ChangeOptions::default());
    let again = |of: &Membership| requested(of, 1, to(), ChangeOptions::default());
    let wait = (None, ChangeReply::Await(ChangeId(1)));
    assert_eq!(again(&noted), wait);
    assert_eq!(again(&let_in(noted.clone())), wait);
    assert_eq!(again(&joint(&before, 1, to())), wait);
    assert_eq!(again(&through(&before, 1, to())), wait);
    let back = cancelled(&noted, 1).0.expect("it is taken back");
    assert_eq!(again(&back), wait, "it does not begin anew");
    // Another one with the same target waits for the first.
    assert_eq!(requested(&noted, 2, to(), ChangeOptions::default()), wait);
}

#[test]
fn where_all_is_as_wanted_there_is_nothing_to_do() {
    let three = founded(&[1, 2, 3]);
    let nothing = (None, ChangeReply::Nothing);
    assert_eq!(requested(&three, 1, three.target(), ChangeOptions::default()), nothing);
    let done = through(&three, 1, target(&[1, 2], &[3]));
    assert_eq!(requested(&done, 2, target(&[1, 2], &[3]), follows(1)), nothing);
}

/// What needs no other voters and no further members is done with the request.
#[test]
fn what_is_only_moved_preferred_or_taken_out_is_done_at_once() {
    let before = through(&founded(&[1, 2, 3]), 1, target(&[1, 2, 3], &[4]));
    let default = ChangeOptions::default;
    let done = begun(&before, 2, before.target().moved(2, "elsewhere").unwrap(), default());
    assert_eq!((done.address(2), done.change()), (Some("elsewhere"), None));
    assert_eq!(ending(&done, 2), Some(Ending::Done));
    let done = begun(&before, 2, before.target().preferring(4, 3).unwrap(), default());
    assert_eq!((done.priority(4), ending(&done, 2)), (3, Some(Ending::Done)));
    let done = begun(&before, 2, target(&[1, 2, 3], &[]), default());
    assert_eq!((members(&done), ending(&done, 2)), (vec![1, 2, 3], Some(Ending::Done)));
}

#[test]
fn one_change_at_a_time_unless_the_next_one_follows() {
    let before = founded(&[1, 2, 3]);
    let noted = begun(&before, 1, target(&[1, 2, 4], &[]), ChangeOptions::default());
    let other = || target(&[1, 2, 5], &[]);
    let under_way = ChangeRefusal::UnderWay { membership: noted.clone() };
    assert_eq!(refusal(&noted, other(), ChangeOptions::default()), under_way);
    let conflict = |of: &Membership| ChangeRefusal::Conflict { membership: of.clone() };
    assert_eq!(refusal(&noted, other(), follows(7)), conflict(&noted));
    assert_eq!(refusal(&before, other(), follows(7)), conflict(&before));
    // The same target as that of the change under way is a repetition, whatever it follows.
    let (nothing, reply) = requested(&noted, 99, target(&[1, 2, 4], &[]), follows(7));
    assert_eq!((nothing, reply), (None, ChangeReply::Await(ChangeId(1))));
    let done = through(&before, 1, target(&[1, 2, 4], &[]));
    assert_eq!(refusal(&done, other(), follows(0)), conflict(&done));
    begun(&before, 1, other(), follows(0));

    let second = begun(&let_in(noted), 2, other(), follows(1));
    let by = ChangeId(2);
    assert_eq!(ending(&second, 1), Some(Ending::Superseded { by }));
    assert_eq!((second.last_change(), second.target()), (by, other()));
    assert_eq!(second.change().expect("under way").before, before.target());
    assert_eq!(members(&second), [1, 2, 3, 4]);
    // Whom the first has let in, the second has no use for, however it ends.
    let back = cancelled(&second, 2).0.expect("it is taken back");
    assert_eq!((members(&back), back.target()), (vec![1, 2, 3], before.target()));
    let joint = next(let_in(second).step(|_| Sight::Ready, NO_TIME));
    let done = next(joint.step(|_| Sight::Ready, NO_TIME));
    assert_eq!((members(&done), done.target()), (vec![1, 2, 5], other()));
}

/// Both joint configurations share their outgoing half, in which any two of their quorums meet.
#[test]
fn another_change_may_follow_on_a_joint_configuration() {
    let before = founded(&[1, 2, 3]);
    let first = joint(&before, 1, target(&[1, 4, 5], &[]));
    let second = let_in(begun(&first, 2, target(&[3, 4, 6], &[]), follows(1)));
    assert_eq!(second.voters(), first.voters());
    let behind = |who| if who == replica(6) { Sight::Behind } else { Sight::Ready };
    assert_eq!(waits_for(second.step(behind, NO_TIME)), [6], "node 4 votes already");
    let late = next(second.step(behind, Duration::MAX));
    assert_eq!((late.members(), late.voters()), (before.members(), before.voters()));
    let second = next(second.step(|_| Sight::Ready, NO_TIME));
    let voters = Voters::joint(replicas(&[3, 4, 6]), replicas(&[1, 2, 3]));
    assert_eq!(second.voters(), &voters);
    let done = next(second.step(|_| Sight::Ready, NO_TIME));
    assert_eq!(done.target(), target(&[3, 4, 6], &[]));

    // The way back is no further joint configuration.
    let back = begun(&first, 3, before.target(), follows(1));
    let back =
        if back.change().is_some() { next(back.step(|_| Sight::Silent, NO_TIME)) } else { back };
    assert_eq!((back.members(), back.voters()), (before.members(), before.voters()));
    assert_eq!(ending(&back, 3), Some(Ending::Done));
    assert_eq!(ending(&back, 1), Some(Ending::Superseded { by: ChangeId(3) }));
}

#[test]
fn only_the_last_endings_are_kept() {
    let mut membership = founded(&[1, 2, 3]);
    let count = MAX_ENDED as u128 + 3;
    for id in 1..=count {
        let to = membership.target().moved(2, format!("place {id}")).unwrap();
        membership = begun(&membership, id, to, ChangeOptions::default());
    }
    let kept: Vec<_> = membership.endings().map(|(id, _)| id.0).collect();
    assert_eq!(kept, (4..=count).collect::<Vec<_>>());
    assert_eq!((ending(&membership, 3), ending(&membership, 4)), (None, Some(Ending::Done)));
    // One that ends and one that takes its place at once are two.
    let noted = begun(&membership, 20, target(&[1, 2, 4], &[]), lower());
    let both = begun(&noted, 21, membership.target().moved(1, "x").unwrap(), follows(20));
    let kept: Vec<_> = both.endings().map(|(id, _)| id.0).collect();
    assert_eq!(kept, [6, 7, 8, 9, 10, 11, 20, 21]);
    // One that is forgotten is not known any more.
    let (_, reply) = cancelled(&both, 1);
    assert_eq!(reply, ChangeReply::Refused(ChangeRefusal::NotUnderWay));
}

/// A lost disk of a node that keeps its vote goes on waiting for its place, through a change.
#[test]
fn the_new_disk_of_a_voter_waits_through_a_change() {
    let before = founded(&[1, 2, 3]).with_learner(second(3)).unwrap();
    let done = through(&before, 1, target(&[1, 3], &[]));
    assert_eq!(done.voters(), &Voters::simple(replicas(&[1, 3])));
    assert_eq!(done.learners().collect::<Vec<_>>(), [second(3)]);
    let gone = through(&before, 1, target(&[1, 2], &[]));
    assert_eq!(gone.members().len(), 2, "both disks of it are gone");
}

/// Otherwise the lost one would stand for its node in the next change, and never catch up.
#[test]
fn of_a_node_that_loses_its_vote_the_new_disk_stays_and_the_lost_one_goes() {
    let before = founded(&[1, 2, 3]).with_learner(second(3)).unwrap();
    let done = through(&before, 1, target(&[1, 2], &[3]));
    assert_eq!(done.learners().collect::<Vec<_>>(), [second(3)]);
    let back = through(&done, 2, target(&[1, 2, 3], &[]));
    assert_eq!(back.voters(), &Voters::simple([replica(1), replica(2), second(3)]));
}
