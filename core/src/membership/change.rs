//! A change that is under way. It stands in the configuration itself, so that whoever leads goes on
//! with it: the next step follows from the configuration in force, and from which of its members
//! have caught up.
//!
//! 1. The change is noted, with the present voters; addresses and priorities count at once.
//! 2. Nodes that are not members yet become learners, when they have answered.
//! 3. When all that get a vote have caught up, and most of those that are to vote have the change
//!    in their logs, a joint configuration gives them the vote. Both its
//!    halves must agree, so that no quorum of the old configuration can act without one of the new
//!    (thesis 4.3).
//! 4. When that is committed, the target follows, and the change has ended.
//!
//! Before step 4 a change can be taken back: without a joint configuration the members are again
//! those of before, and a joint one is left for its outgoing half, which each of its quorums has a
//! majority of. So it ends when its time is up before step 3, when it is cancelled, and when
//! another change takes its place. That one may find a joint configuration of the old voters A and
//! voters B. On it follows one of A and the new target: both need a majority of A, so any two of
//! their quorums meet.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MAX_NODES, MemberRole, Membership, Parts, Target};
use crate::error::ChangeRefusal;
use crate::identity::Replica;
use crate::plant;
use crate::quorum::{VoteResult, Voters};
use crate::text::serde_as_text;
use crate::types::NodeId;

/// Names a change of the membership, on all nodes: drawn at random by the node that is asked for
/// it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId(pub u128);

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for ChangeId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Self)
    }
}

serde_as_text! { ChangeId => "{:032x}"(0) }

/// A change of the membership that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Its name.
    pub id: ChangeId,
    /// What is to become of the configuration.
    pub target: Target,
    /// What it was before, and becomes again if the change is taken back.
    pub before: Target,
    /// It is taken back if those who are to vote have not caught up after so many milliseconds of
    /// one leadership.
    pub catch_up: u64,
}

/// How a change has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The target is in force.
    Done,
    /// It was cancelled, and the configuration is what it was before.
    Cancelled,
    /// Its time was up, and the configuration is what it was before.
    Late {
        /// The nodes that had not answered or not caught up.
        waits_for: BTreeSet<NodeId>,
    },
    /// Another change has taken its place.
    Superseded {
        /// That one.
        by: ChangeId,
    },
}

/// So many endings are kept in a configuration, for those who wait for one on a node that was away.
/// A change takes a second or more, so that such a node has most of them after a short absence.
pub const MAX_ENDED: usize = 8;

/// How a change is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeOptions {
    /// The last change that was accepted, as far as the caller knows:
    /// [`Membership::last_change`](super::Membership::last_change). If another was accepted
    /// meanwhile, this one is refused (`Conflict`). If that change is under way, this one takes its
    /// place. With `None` nothing is compared, and while a change is under way this one is refused
    /// (`UnderWay`).
    pub follows: Option<ChangeId>,
    /// How long new nodes may take to answer, and those that get a vote to catch up, in all;
    /// default ten minutes. Then the change is taken back. A large state takes as long as it takes
    /// to send it. Each leader counts the time anew, by its monotonic clock.
    #[serde(with = "crate::text::duration")]
    pub catch_up: Duration,
    /// Whether, on the way or in the end, fewer failures may be tolerated than now.
    pub allow_lower_tolerance: bool,
}

impl Default for ChangeOptions {
    fn default() -> Self {
        let catch_up = Duration::from_secs(600);
        Self { follows: None, catch_up, allow_lower_tolerance: false }
    }
}

/// A request to change the membership, on its way to the leader. It may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRequest {
    /// The change that it is about.
    pub id: ChangeId,
    /// What is wanted.
    pub kind: ChangeKind,
}

/// What is wanted of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// That it begins.
    Begin {
        /// What the configuration is to become.
        target: Target,
        /// How.
        options: ChangeOptions,
    },
    /// That it is taken back.
    Cancel,
}

/// What the leader says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeReply {
    /// This change is under way, or has ended: its [ending](Membership::ending_of) will tell.
    Await(ChangeId),
    /// There is nothing to do.
    Nothing,
    /// It waits until the configuration in force is committed. It is to be asked again.
    Noted,
    /// The receiver does not lead, or can't take it yet: it is to be asked again.
    Again,
    /// It is not done.
    Refused(ChangeRefusal),
}

impl ChangeReply {
    /// Whether whoever has asked for this change need not ask again, and hears no more of it.
    pub(crate) fn ends(&self, id: ChangeId) -> bool {
        match self {
            Self::Await(change) => *change != id,
            Self::Nothing | Self::Refused(_) => true,
            Self::Noted | Self::Again => false,
        }
    }
}

/// What a request leads to.
pub(crate) enum Begun {
    Reply(ChangeReply),
    /// This configuration is to be put in force, and then that is the answer.
    Next(Box<Membership>, ChangeReply),
}

/// What a leader sees of a member.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is not heard, or has not got the configuration with the change.
    Silent,
    /// It is heard, and has not caught up, or has not kept up for long enough.
    Behind,
    /// It keeps up.
    Ready,
}

/// What a configuration waits for, or becomes.
pub(crate) enum Step {
    /// It stays as it is.
    Stay,
    /// It waits for these nodes to answer or to catch up.
    Wait(BTreeSet<NodeId>),
    /// The next configuration. Only where the present one is committed under the present leader may
    /// it be put in force.
    Next(Result<Membership, String>),
}

impl Membership {
    /// The voters that a change comes from: those of a simple configuration, and the outgoing half
    /// of a joint one.
    pub(super) fn base(&self) -> &[Replica] {
        match self.voters().is_joint() {
            true => self.voters().outgoing(),
            false => self.voters().incoming(),
        }
    }

    /// The replica that stands for a node in the target of a change: the one that votes, if there
    /// are two.
    pub(crate) fn replica_of(&self, id: NodeId) -> Option<Replica> {
        let is_of_node = |replica: &&Replica| replica.id == id;
        let voters = self.voters();
        let mut voting = voters.incoming().iter().chain(voters.outgoing());
        voting.find(is_of_node).or_else(|| self.members().keys().find(is_of_node)).copied()
    }

    /// Where a new replica of a node is reached.
    pub(crate) fn address_of_learner(&self, id: NodeId) -> Option<String> {
        let of_target = self.change().and_then(|change| change.target.members.get(&id));
        let address = of_target.map(|member| member.address.as_str());
        address.or_else(|| self.address(id)).map(str::to_owned)
    }

    /// Of the change that is under way: the nodes of the target that are no members yet.
    pub(crate) fn missing(&self) -> impl Iterator<Item = NodeId> {
        let target = self.change().into_iter().flat_map(|change| change.target.members.keys());
        target.copied().filter(|id| self.replica_of(*id).is_none())
    }

    /// Whether a replica is to vote when the change that is under way has ended.
    pub(crate) fn is_to_vote(&self, replica: Replica) -> bool {
        match self.change() {
            Some(change) => {
                let member = change.target.members.get(&replica.id);
                member.is_some_and(|member| member.role == MemberRole::Voter)
                    && self.replica_of(replica.id) == Some(replica)
            }
            None => self.voters().incoming().contains(&replica),
        }
    }

    /// What comes of a request.
    pub(crate) fn request(&self, request: &ChangeRequest) -> Begun {
        let ChangeRequest { id, kind } = request;
        let under_way = self.change().map(|change| change.id);
        let (target, options) = match kind {
            ChangeKind::Begin { target, options } => (target, options),
            ChangeKind::Cancel => {
                return match self.change() {
                    Some(change) if change.id == *id => self.take_back(change, Ending::Cancelled),
                    _ if self.ending_of(*id).is_some() => Begun::Reply(ChangeReply::Await(*id)),
                    _ => refused(ChangeRefusal::NotUnderWay),
                };
            }
        };
        if under_way == Some(*id) || self.ending_of(*id).is_some() {
            return Begun::Reply(ChangeReply::Await(*id)); // It is repeated.
        }
        if let Some(change) = self.change()
            && change.target == *target
        {
            return Begun::Reply(ChangeReply::Await(change.id));
        }
        if let Some(follows) = options.follows
            && follows != self.last_change()
        {
            return refused(ChangeRefusal::Conflict { membership: self.clone() });
        }
        let is_parallel = under_way.is_some() && options.follows.is_none();
        plant!(M11, is_parallel = false);
        if is_parallel {
            return refused(ChangeRefusal::UnderWay { membership: self.clone() });
        }
        let plan = match self.plan(target, None) {
            Ok(plan) if plan.steps.is_empty() && under_way.is_none() => {
                return Begun::Reply(ChangeReply::Nothing);
            }
            Ok(plan) => plan,
            Err(refusal) => return refused(refusal),
        };
        let is_new = |id: &&NodeId| self.replica_of(**id).is_none();
        let all = self.members().len() + target.members.keys().filter(is_new).count();
        if all > MAX_NODES {
            let reason = format!("on the way it would have {all} members, more than {MAX_NODES}");
            return refused(ChangeRefusal::Target(reason));
        }
        let (now_tolerates, at_least) = (plan.tolerates_now, plan.tolerates_at_least);
        if at_least < now_tolerates && !options.allow_lower_tolerance {
            let (now, lowest) = (now_tolerates as u64, at_least as u64);
            return refused(ChangeRefusal::LowersTolerance { now, lowest });
        }
        let catch_up = u64::try_from(options.catch_up.as_millis()).unwrap_or(u64::MAX);
        let before = self.change().map_or_else(|| self.present(), |change| change.before.clone());
        let change = Change { id: *id, target: target.clone(), before, catch_up };
        let begun = self.with(|parts| {
            if let Some(earlier) = parts.change.take() {
                let ending = Ending::Superseded { by: *id };
                plant!(M11, ending = Ending::Done);
                parts.end(earlier.id, ending);
            }
            parts.last_change = *id;
            parts.locate(&change.target);
            parts.change = Some(change);
        });
        // What needs no other voters is done at once.
        let next = begun.map(|begun| match begun.step(|_| Sight::Silent, Duration::ZERO) {
            Step::Next(Ok(next)) if next.ending_of(*id) == Some(&Ending::Done) => next,
            _ => begun,
        });
        next_or_refused(next, ChangeReply::Await(*id))
    }

    fn take_back(&self, change: &Change, ending: Ending) -> Begun {
        next_or_refused(self.taken_back(change, ending), ChangeReply::Await(change.id))
    }

    /// What follows on this configuration. `sight` says what its leader sees of a member, which has
    /// waited for so long.
    ///
    /// Nobody gets a vote before it keeps up. And a majority of those who are to vote must have
    /// answered since the change has begun: if they have lost their disks, they could never agree
    /// to the joint configuration, which can't be left before they do.
    pub(crate) fn step(&self, sight: impl Fn(Replica) -> Sight, waited: Duration) -> Step {
        let Some(change) = self.change() else {
            return match self.voters().is_joint() {
                true => Step::Next(self.left_joint()), // A lost disk was exchanged.
                false => Step::Stay,
            };
        };
        let mut waits_for: BTreeSet<NodeId> = self.missing().collect();
        let wanted: Vec<_> = change.target.voters().filter_map(|id| self.replica_of(id)).collect();
        let wanted = Voters::simple(wanted);
        let is_reached = |half: &[Replica]| waits_for.is_empty() && wanted.incoming() == half;
        if is_reached(self.voters().incoming()) || is_reached(self.base()) {
            return Step::Next(self.ended(change, wanted, &change.target, Ending::Done));
        }
        let is_behind = |voter: &Replica| !self.is_voter(*voter) && sight(*voter) != Sight::Ready;
        waits_for.extend(wanted.iter().filter(is_behind).map(|voter| voter.id));
        let is_heard = |voter: Replica| sight(voter) != Sight::Silent;
        let can_agree = wanted.vote_result(|voter| Some(is_heard(voter))) == VoteResult::Won;
        plant!(M15, can_agree = true);
        if !can_agree {
            waits_for.extend(wanted.iter().filter(|v| !is_heard(*v)).map(|voter| voter.id));
        }
        let is_late = waited.as_millis() >= u128::from(change.catch_up);
        plant!(M14, is_late = false);
        if waits_for.is_empty() {
            let outgoing = self.base().iter().copied();
            let joint = Voters::joint(wanted.iter(), outgoing);
            plant!(M9, joint = Voters::simple(wanted.iter()));
            Step::Next(self.with(|parts| parts.voters = joint))
        } else if is_late {
            Step::Next(self.taken_back(change, Ending::Late { waits_for }))
        } else {
            Step::Wait(waits_for)
        }
    }

    /// The configuration of before the change.
    fn taken_back(&self, change: &Change, ending: Ending) -> Result<Self, String> {
        let voters = Voters::simple(self.base().iter().copied());
        plant!(M17, voters = Voters::simple(self.voters().incoming().iter().copied()));
        self.ended(change, voters, &change.before, ending)
    }

    /// What is left at the end of a change: these voters, and the learners of the target.
    fn ended(
        &self,
        change: &Change,
        voters: Voters,
        target: &Target,
        ending: Ending,
    ) -> Result<Self, String> {
        let has_new_disk = |voter: &Replica| self.learners().any(|learner| learner.id == voter.id);
        let stays = |replica: &Replica| {
            // The new disk of a voter goes on waiting for its place. If its node has no vote any
            // more, it has that place: the lost one would stand for the node in the next change.
            let is_of_target = |member: &super::Member| {
                !self.is_voter(*replica)
                    || member.role == MemberRole::Learner && !has_new_disk(replica)
            };
            voters.contains(*replica) || target.members.get(&replica.id).is_some_and(is_of_target)
        };
        self.with(|parts| {
            parts.members.retain(|replica, _| {
                let stays = stays(replica);
                plant!(M16, stays = stays || !self.is_voter(*replica));
                stays
            });
            parts.voters = voters.clone();
            parts.change = None;
            parts.locate(target);
            parts.end(change.id, ending);
        })
    }
}

impl Parts {
    /// Addresses and priorities are those of the target, where it names a node.
    fn locate(&mut self, target: &Target) {
        for (replica, address) in &mut self.members {
            if let Some(member) = target.members.get(&replica.id) {
                address.clone_from(&member.address);
            }
        }
        let of = |(id, member): (&NodeId, &super::Member)| (*id, member.priority);
        let priorities: BTreeMap<_, _> = target.members.iter().map(of).collect();
        self.priorities = priorities;
        self.priorities.retain(|_, priority| *priority != 0);
    }

    fn end(&mut self, change: ChangeId, ending: Ending) {
        self.ended.push((change, ending));
        let excess = self.ended.len().saturating_sub(MAX_ENDED);
        self.ended.drain(..excess);
    }
}

fn refused(refusal: ChangeRefusal) -> Begun {
    Begun::Reply(ChangeReply::Refused(refusal))
}

fn next_or_refused(next: Result<Membership, String>, reply: ChangeReply) -> Begun {
    match next {
        Ok(next) => Begun::Next(Box::new(next), reply),
        Err(reason) => refused(ChangeRefusal::Target(reason)),
    }
}
