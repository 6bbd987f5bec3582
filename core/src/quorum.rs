//! Who agrees: the voters of a configuration, and what a quorum of them has said.
//!
//! A quorum is a majority of the voters; while a joint configuration is in force, a majority of
//! each of its two halves (thesis 4.3). Nobody else knows of two halves. The laws:
//!
//! * An empty half agrees to everything, so that it changes nothing beside another one.
//! * Two quorums of one configuration have a voter in common.
//! * Voters are replicas: a vote of the old disk of a node never counts for the new one.
//!
//! `tests/quorum.rs` checks these functions against data from outside.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::identity::Replica;
use crate::plant;

/// The outcome of a vote, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority has said yes, in each half of a joint configuration.
    Won,
    /// Neither is certain yet.
    Pending,
    /// A majority can't be reached any more.
    Lost,
}

/// The voters of a configuration. Each half is sorted and names nobody twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voters {
    #[serde(deserialize_with = "deserialize_half")]
    incoming: Vec<Replica>,
    /// Empty but in a joint configuration.
    #[serde(deserialize_with = "deserialize_half")]
    outgoing: Vec<Replica>,
}

fn half(voters: impl IntoIterator<Item = Replica>) -> Vec<Replica> {
    let mut voters: Vec<_> = voters.into_iter().collect();
    voters.sort_unstable();
    voters.dedup();
    voters
}

fn deserialize_half<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Replica>, D::Error> {
    Vec::deserialize(from).map(half)
}

impl Voters {
    /// The voters of a simple configuration.
    pub fn simple(voters: impl IntoIterator<Item = Replica>) -> Self {
        Self { incoming: half(voters), outgoing: Vec::new() }
    }

    /// The voters of a joint configuration.
    pub fn joint(
        incoming: impl IntoIterator<Item = Replica>,
        outgoing: impl IntoIterator<Item = Replica>,
    ) -> Self {
        Self { incoming: half(incoming), outgoing: half(outgoing) }
    }

    /// Those who vote from now on.
    pub fn incoming(&self) -> &[Replica] {
        &self.incoming
    }

    /// Those who voted before; none but in a joint configuration.
    pub fn outgoing(&self) -> &[Replica] {
        &self.outgoing
    }

    /// Whether two halves must agree.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether this replica votes, in one half at least.
    pub fn contains(&self, replica: Replica) -> bool {
        self.incoming.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// All voters, each once.
    pub fn iter(&self) -> impl Iterator<Item = Replica> {
        let only = |voter: &&Replica| !self.incoming.contains(voter);
        self.incoming.iter().chain(self.outgoing.iter().filter(only)).copied()
    }

    /// The largest value that a quorum has reached, given what each voter has; [`u64::MAX`] if
    /// there are no voters at all. A voter that has not been heard from has 0.
    ///
    /// It serves for anything that only grows: match indexes (commitment), rounds (reads), times of
    /// contact (check-quorum).
    pub fn agreed(&self, reached: impl Fn(Replica) -> u64) -> u64 {
        let incoming = majority_agreed(&self.incoming, &reached);
        match self.is_joint() {
            true => incoming.min(majority_agreed(&self.outgoing, &reached)),
            false => incoming,
        }
    }

    /// The outcome of a vote, given what each voter has answered.
    pub fn vote_result(&self, answer: impl Fn(Replica) -> Option<bool>) -> VoteResult {
        match (majority_vote(&self.incoming, &answer), majority_vote(&self.outgoing, &answer)) {
            (VoteResult::Lost, _) | (_, VoteResult::Lost) => VoteResult::Lost,
            (VoteResult::Won, VoteResult::Won) => VoteResult::Won,
            _ => VoteResult::Pending,
        }
    }
}

impl fmt::Display for Voters {
    /// `1/3f2a, 2/771c`; of a joint configuration the incoming half first: `1/3f2a, 2/9a0b (joint
    /// with 1/3f2a, 2/771c)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |half: &[Replica]| half.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        f.write_str(&list(&self.incoming))?;
        match self.is_joint() {
            true => write!(f, " (joint with {})", list(&self.outgoing)),
            false => Ok(()),
        }
    }
}

fn majority_agreed(voters: &[Replica], reached: impl Fn(Replica) -> u64) -> u64 {
    // Few clusters are larger than this: then no allocation, as this runs once a turn.
    const USUAL: usize = 7;
    let mut few = [0; USUAL];
    let mut many = Vec::new();
    let values = if voters.len() <= USUAL {
        &mut few[..voters.len()]
    } else {
        many.resize(voters.len(), 0);
        &mut many[..]
    };
    for (value, voter) in values.iter_mut().zip(voters) {
        *value = reached(*voter);
    }
    let unsorted = &mut *values;
    plant!(R5, unsorted = &mut unsorted[..0]);
    unsorted.sort_unstable();
    // The smallest of the largest ⌊n/2⌋ + 1 values.
    match values.len().checked_sub(values.len() / 2 + 1) {
        Some(position) => values[position],
        None => u64::MAX,
    }
}

fn majority_vote(voters: &[Replica], answer: impl Fn(Replica) -> Option<bool>) -> VoteResult {
    let needed = match voters.len() {
        0 => 0,
        n => n / 2 + 1,
    };
    let yes = voters.iter().filter(|voter| answer(**voter) == Some(true)).count();
    let no = voters.iter().filter(|voter| answer(**voter) == Some(false)).count();
    if yes >= needed {
        VoteResult::Won
    } else if voters.len() - no < needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}
