//! Nodes that begin with nothing. Such a node may be a new one, or one that has lost its disk, and with it votes and entries that it has acknowledged, and that
//! others count on (R15). The thesis has no rule for that, as its servers never lose their disks. These are ours:
//!
//! * *The vote of a node that has not caught up, its own for itself too, counts only if all voters grant theirs.* Whatever was committed is still known to somebody whose disk was
//!   not lost, and that one grants it only to who has all of it. (As long as the disks of no more than a minority are lost at a time.)
//! * *It has caught up* when its log has all that may be committed by its earlier acknowledgements. That is what was committed when a leader first sent it something
//!   that it could accept, for that leader counts it for no more than that any more; and an entry of that leader's term, for before that one the leader itself doesn't know what is
//!   committed (6.4).
//! * So a cluster is formed by all of its nodes. *A leader that was elected only because all have voted for it commits its first entry when all have it, and nothing more before all have
//!   caught up.* So where anything of a client's is committed, all nodes have caught up, and from then on one that begins with nothing has lost its disk, or is a new one.
//!
//! Whether it has caught up is part of a node's hard state: it may be restarted at any time. All of that rests on a transport that doesn't bring what a node has sent in an
//! earlier life after what it has sent in a later one.

use quorate_rt::planted::{Bug, planted};

use super::Common;
use crate::message::Vote;
use crate::types::{Index, Term};

/// What a node has to have, committed and durable, to have caught up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    index: Index,
    /// The term of an entry.
    term: Term,
}

/// How a node was elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elected {
    /// By a quorum of those who have caught up.
    ByQuorum,
    /// By all.
    ByAll,
}

/// How far a leader has got that was elected by all, before it commits what is a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forming {
    /// Its first entry is not yet everywhere.
    Entry,
    /// It is committed, and this round tells the others, who have caught up then. Their echoes come when that is durable.
    Round(u64),
}

impl Common {
    /// What this node's vote is worth, if it is granted.
    pub(super) fn vote(&self, granted: bool) -> Vote {
        match (granted, self.hard_state.caught_up || planted(Bug::R15)) {
            (false, _) => Vote::No,
            (true, true) => Vote::Yes,
            (true, false) => Vote::Tentative,
        }
    }

    /// It has accepted what the leader has sent when so much was committed.
    pub(super) fn accepts(&mut self, committed: Index) {
        if !self.hard_state.caught_up {
            let term = self.hard_state.term;
            self.reach.get_or_insert(Reach { index: committed, term });
        }
    }

    /// Takes note of it when it has caught up.
    pub(super) fn catch_up(&mut self) {
        let has = self.committed.min(self.log.durable());
        let reaches = |reach: Reach| {
            let term = self.log.log_id(has).map(|log_id| log_id.term);
            has >= reach.index && term >= Some(reach.term)
        };
        if self.reach.is_some_and(reaches) {
            self.reach = None;
            self.hard_state.caught_up = true;
        }
    }
}
