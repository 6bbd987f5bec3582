//! Bugs that can be planted on purpose, one at a time, to see that a check notices them. For the
//! simulations in `quorate-tests`; not covered by semantic versioning.
//!
//! [`plant!`](crate::plant) marks the place. Without the feature `planted`, which only the
//! simulations' build has, it expands to nothing.

use std::fmt;

/// Makes the type, what each bug is in words, and the list of all.
macro_rules! bugs {
    ($($(#[doc = $what:literal])+ $name:ident,)*) => {
        /// A bug, by its row in docs/known-bugs.md. `F`, `V` and `X` are our own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $what])+ $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What it breaks.
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($what),+).trim_ascii(),)*
                }
            }
        }
    };
}

bugs! {
    /// Logs are compared by term and by index, each for itself.
    E1,
    /// A vote is answered before it is durable.
    E2,
    /// A leader commits entries of an earlier term by counting.
    E3,
    /// A node that was removed campaigns on.
    E4,
    /// A learner campaigns.
    E5,
    /// A node campaigns without asking first.
    E6,
    /// A leader that nobody answers stays one.
    E7,
    /// A leadership transfer that nobody takes up is never given up.
    E8,
    /// All election timeouts are the same, and candidates that collide do not yield.
    E9,
    /// An append removes all that stands behind its `prev`.
    R1,
    /// Entries that are there already are cut and written anew, committed ones as well.
    R2,
    /// An empty append is not compared with the log.
    R3,
    /// A leader that has to go back far probes the same place again.
    R4,
    /// The progress of the peers is not sorted.
    R5,
    /// A leader's node counts as alive in whatever boot.
    V1,
    /// The end of a leadership is not told.
    V2,
    /// A group that rests waits for the node of its leader for ever.
    V3,
    /// Learners are counted, and a joint configuration as one of all its members.
    R6,
    /// A leader without peers commits nothing.
    R7,
    /// A leader counts what its own disk does not have yet.
    R8,
    /// A completion counts for what was written over since.
    R9,
    /// Completions come out of order, and each is waited for by itself.
    R10,
    /// A failed read of the log for a peer is taken for its end.
    R11,
    /// The cache keeps what is truncated from the log.
    R12,
    /// A leader sends to no peer before the one before it has answered once.
    R13,
    /// An answer to a heartbeat is taken for that to the append before it.
    R14,
    /// Acknowledgements are counted by node id, whichever disk they are of.
    R15,
    /// Writes that were passed on get no answer when the leader is gone.
    R16,
    /// What is passed on has no window, and nobody hears that the transport has not taken it.
    R20,
    /// A vote names a node and not its disk.
    I1,
    /// A message to an earlier disk of a node is taken by the next one.
    I2,
    /// A store does not compare the node that it belongs to with the one that starts on it.
    I3,
    /// What others remember of a replica is not compared with what it has.
    I4,
    /// A claim takes the place of any other with a lower ballot.
    I5,
    /// A leader takes forwards of strangers, and a follower a snapshot of whoever offers one.
    I7,
    /// A lost disk is exchanged without a joint configuration.
    I8,
    /// A message of any term is believed, and a snapshot up to any index.
    I9,
    /// A `TimeoutNow` holds for ever.
    I10,
    /// A claim is answered before it is durable.
    F1,
    /// Claims have no ballots.
    F2,
    /// A founder writes the first entry when a majority has accepted its claim.
    F3,
    /// A log begins with whatever first entry comes.
    F4,
    /// Who was not a founder is not counted when it has got a vote.
    M2,
    /// A change is not gone on with by another leader than the one that has begun it.
    M3,
    /// A leader that is to have no vote neither transfers leadership nor leaves.
    M5,
    /// The membership of a log that a snapshot replaces stays in force.
    M6,
    /// A state that was restored from a snapshot has no membership.
    M7,
    /// A truncated membership stays in force.
    M8,
    /// A change of the voters skips the joint configuration.
    M9,
    /// A node that joins takes itself for removed by the configurations of before.
    M10,
    /// A change that another takes the place of counts as done, and any other may.
    M11,
    /// The configuration of an earlier leader is left before it is committed.
    M12,
    /// A node votes only for voters of the configuration that it knows.
    M13,
    /// A change is never late.
    M14,
    /// Voters of whom a majority is silent are put in force.
    M15,
    /// Learners of a change that was taken back stay.
    M16,
    /// A change that is cancelled in its joint configuration is made all the same.
    M17,
    /// A snapshot counts as applied from when it has come in.
    S1,
    /// A snapshot that has come in is taken though more is committed.
    S2,
    /// A chunk from the middle begins a transfer.
    S3,
    /// A peer that lacks just the last purged entry gets no snapshot.
    S4,
    /// What follows on a snapshot that is being sent is purged.
    S5,
    /// A log that is purged to its end forgets its last log id.
    S6,
    /// A batch counts as applied before it is, and a snapshot may be taken in between.
    S7,
    /// A superseded snapshot is removed before its successor is durably named.
    S8,
    /// Reads are answered before the leader has committed an entry of its own.
    L1,
    /// A read needs the word of nobody but the leader.
    L2,
    /// The answers to an earlier round confirm a read.
    L3,
    /// A follower's read waits on when the leader that it has asked is gone.
    L6,
    /// A torn tail is taken for damage.
    D1,
    /// Damage is taken for a torn tail.
    D2,
    /// A failed sync is repeated, and believed.
    D3,
    /// The directory isn't synced after a rename.
    D4,
    /// What a disk takes only in part is taken for written.
    D5,
    /// A leader does not look at how long its disk takes.
    D6,
    /// A snapshot that can't be restored takes the place of the log.
    D9,
    /// What a leader can't read gets a place in its log.
    D10,
    /// Only the first address of a name is tried.
    P5,
    /// A node that gets no descriptor for a connection accepts no more.
    P7,
    /// Where all places are taken, the next connection is closed, whoever has the others.
    P10,
    /// A segment that is shorter than it was made is taken for one with a torn tail.
    D7,
    /// A write that was passed on, and of which nobody knows what became, is told to have been
    /// refused.
    X1,
    /// A promise goes out when anything has become durable.
    X2,
    /// The leader's commit index counts for what was not found equal to its log.
    X3,
    /// The entry before an append is compared by index only.
    X4,
    /// Writes that were passed on are not counted against the leader's limit.
    X5,
    /// A record says that those before it in its batch are durable.
    X6,
    /// A sync marker at the end of a segment counts for the next segment.
    X7,
    /// The quota of a write that fails is not given back.
    X8,
    /// What was last told in a segment is not told again before that is removed.
    X9,
    /// An opening syncs the last batch, and does not write it anew.
    X10,
    /// What contradicts a committed entry ends the node.
    X11,
    /// A copy of entries is taken for a write, which truncates the log behind them.
    X12,
    /// A segment is removed before the copies of what was in it are durable.
    X13,
    /// All election timeouts are the same, and pre-candidates yield to whoever asks.
    X14,
    /// A change is told to be done before its target is committed.
    X15,
    /// A change that is refused because another is under way is made after that.
    X16,
    /// A transfer counts as done when the voter has been told to take over.
    X17,
    /// A copy of a change that was refused is looked at anew.
    X18,
    /// A leader says of a target that it is in force, and does not ask whether it still leads.
    X19,
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether bugs can be planted in this build.
pub const POSSIBLE: bool = cfg!(feature = "planted");

/// Plants a bug at this place: a line of its own, beside code that stays as it is.
///
/// `plant!(S3, is_first = true)` gives a variable another value, by shadowing it, if the bug is
/// planted. `plant!(V3, return)` does something more, which may also leave the function or the
/// loop. Without the feature `planted` nothing is left of either.
#[cfg(feature = "planted")]
#[macro_export]
macro_rules! plant {
    ($bug:ident, $variable:ident = $value:expr) => {
        let $variable =
            if $crate::planted::planted($crate::planted::Bug::$bug) { $value } else { $variable };
    };
    ($bug:ident, $more:expr) => {
        if $crate::planted::planted($crate::planted::Bug::$bug) {
            $more;
        }
    };
}

/// Plants nothing: this build is without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[macro_export]
macro_rules! plant {
    ($bug:ident, $($more:tt)*) => {};
}

pub use here::{planted, set};

#[cfg(feature = "planted")]
mod here {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug, or none, in what this thread runs from now on.
    pub fn set(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is planted.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(feature = "planted"))]
mod here {
    use super::Bug;

    /// Plants nothing, as that is not possible.
    pub fn set(_: Option<Bug>) {}

    /// Whether this bug is planted: never.
    pub const fn planted(_: Bug) -> bool {
        false
    }
}
