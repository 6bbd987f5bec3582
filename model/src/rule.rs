//! The rules of the design that a model can do without, to show that it would notice.

use clap::ValueEnum;

/// A rule that can be dropped. Each drop leads to a violation in a small scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// A vote is asked of one incarnation and counts for that one only. Without it, a vote of the
    /// new disk counts as one of the old disk.
    IncarnationsInVotes,
    /// `voted_for` names the candidate's incarnation. Without it, a voter grants its vote to both
    /// disks of one node in one term.
    IncarnationsInVotedFor,
    /// An append is for one incarnation, and its acknowledgement counts for that one only.
    IncarnationsInAcks,
    /// A round of a read is confirmed by the incarnations that the configuration names.
    IncarnationsInRounds,
    /// Answers carry the number of their round. Without it, an earlier acknowledgement of this
    /// term confirms a read.
    RoundNumbers,
    /// The new disk takes the place of the old one by way of a joint configuration.
    JointStep,
    /// The joint configuration is committed before the new one is appended.
    JointCommitted,
    /// A learner gets entries, and its acknowledgements count for nothing.
    LearnersCountForNothing,
    /// F1, F2: a store makes a claim durable before it answers. Without it, a restart forgets it.
    DurableClaims,
    /// F2: another claim is accepted only with a higher ballot.
    Ballots,
    /// F2: only an empty store accepts a claim. Without it, a bound one says yes, too.
    EmptyStores,
    /// F2: another claim is accepted only from the same store, or from the same node id with the
    /// same list.
    SameFounder,
    /// F2: a founder's store may change its list only while the store that is asked has accepted
    /// no claim of another store.
    OneStoreChangesList,
    /// F3: the founder waits until all have accepted. Without it, a majority is enough.
    AllAccept,
    /// F4: a first entry is taken only by who has accepted the claim for it, or from a bound
    /// member other than the founder. Without it, whoever is named takes it.
    ClaimBeforeEntry,
}

impl Rule {
    /// Returns whether the model of replication has this rule. The others are of formation.
    pub fn of_replication(self) -> bool {
        use Rule::*;
        matches!(
            self,
            IncarnationsInVotes
                | IncarnationsInVotedFor
                | IncarnationsInAcks
                | IncarnationsInRounds
                | RoundNumbers
                | JointStep
                | JointCommitted
                | LearnersCountForNothing
        )
    }
}
