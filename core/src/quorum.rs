//! What a quorum has agreed on: pure functions of a configuration and of what each voter has said.
//!
//! A configuration is a list of majorities that must all agree: one, or two while a joint configuration is in force (thesis
//! 4.3). An empty majority agrees to everything, so that it changes nothing beside another one. `tests/quorum.rs` checks
//! these functions against data from outside.

use quorate_rt::planted::{Bug, planted};

use crate::types::NodeId;

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

/// The largest value that a quorum has reached, given what each voter has; [`u64::MAX`] if there are no voters at all. A voter that has not
/// been heard from has 0.
///
/// It serves for anything that only grows: match indexes (commitment), rounds (reads), times of contact (check-quorum).
pub fn agreed(majorities: &[&[NodeId]], reached: impl Fn(NodeId) -> u64) -> u64 {
    majorities.iter().map(|voters| majority_agreed(voters, &reached)).min().unwrap_or(u64::MAX)
}

fn majority_agreed(voters: &[NodeId], reached: impl Fn(NodeId) -> u64) -> u64 {
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
    if !planted(Bug::R5) {
        values.sort_unstable();
    }
    // The smallest of the largest ⌊n/2⌋ + 1 values.
    match values.len().checked_sub(values.len() / 2 + 1) {
        Some(position) => values[position],
        None => u64::MAX,
    }
}

/// The outcome of a vote, given what each voter has answered.
pub fn vote_result(
    majorities: &[&[NodeId]],
    answer: impl Fn(NodeId) -> Option<bool>,
) -> VoteResult {
    let mut joint = VoteResult::Won;
    for voters in majorities {
        match majority_vote(voters, &answer) {
            VoteResult::Lost => return VoteResult::Lost,
            VoteResult::Pending => joint = VoteResult::Pending,
            VoteResult::Won => {}
        }
    }
    joint
}

fn majority_vote(voters: &[NodeId], answer: impl Fn(NodeId) -> Option<bool>) -> VoteResult {
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
