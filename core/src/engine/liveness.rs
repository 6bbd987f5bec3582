//! Liveness of nodes: how a group rests as long as nothing happens in it.
//!
//! A leader whose peers have all that there is sends no heartbeats to them. Instead both sides
//! count on what the *nodes* say to each other, which is one message for each pair of nodes and
//! interval, whatever the number of groups. The node tells its engines only of changes, by
//! [`Input::NodeIsAlive`](super::Input::NodeIsAlive), `NodeIsSilent` and `PeerHasLeft`.
//!
//! 1. The leader asks a peer to rest ([`Body::Rest`](crate::Body::Rest)), in place of a heartbeat,
//!    when everything is committed, its own disk and the peer's have all of it, and the peer's node
//!    is alive. It names its boot.
//! 2. The follower rests if it follows that leader, has the same log, all of it committed, and
//!    knows the leader's node to be alive in that boot. It says so. From then on its leader is
//!    alive as long as that node is, in that boot.
//! 3. When the leader hears that, the peer gets no more heartbeats, and counts as heard from as
//!    long as its node is alive.
//! 4. Anything that the leader sends ends the rest on both sides, and heartbeats go on as before.
//! 5. The follower's rest ends as well when the leader's node falls silent, is alive in another
//!    boot, or says that this leadership has ended. Then the follower's election timer runs. The
//!    leader's ends when the peer's node falls silent, is alive in another boot, or says that its
//!    replica has begun anew; and when the peer asks for a pre-vote, which shows that it follows
//!    nobody.
//!
//! Nothing of this concerns safety: what is committed and what is read is decided by messages of
//! the group alone.

use std::time::Duration;

use litemap::LiteMap;
use quorate_rt::Instant;

use super::common::shrink_map;
use crate::identity::{Boot, Replica};

/// Whoever kept to the times that counted before counts as heard at this time at the least, when
/// these begin to count: two heartbeat intervals are left to hear it again.
pub(crate) fn least_heard(now: Instant, interval: Duration, timeout: Duration) -> Instant {
    let ago = timeout.saturating_sub(2 * interval).as_nanos();
    Instant::from_nanos(now.as_nanos().saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX)))
}

/// What is known of the nodes of others. Of a node that says nothing of itself nothing is known,
/// and its replica gets heartbeats.
#[derive(Default)]
pub(super) struct NodeStates {
    of: LiteMap<Replica, NodeState>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NodeState {
    Alive(Boot),
    Silent,
}

impl NodeStates {
    pub(super) fn is_alive(&mut self, replica: Replica, boot: Boot) {
        self.of.insert(replica, NodeState::Alive(boot));
    }

    pub(super) fn is_silent(&mut self, replica: Replica) {
        self.of.insert(replica, NodeState::Silent);
    }

    pub(super) fn shrink(&mut self) {
        shrink_map(&mut self.of);
    }

    /// Forgets all others: they are members no more.
    pub(super) fn retain(&mut self, is_member: impl Fn(Replica) -> bool) {
        self.of.retain(|replica, _| is_member(*replica));
    }

    /// The boot in which a node is alive.
    pub(super) fn boot(&self, replica: Replica) -> Option<Boot> {
        match self.of.get(&replica)? {
            NodeState::Alive(boot) => Some(*boot),
            NodeState::Silent => None,
        }
    }

    pub(super) fn has_fallen_silent(&self, replica: Replica) -> bool {
        self.of.get(&replica) == Some(&NodeState::Silent)
    }
}
