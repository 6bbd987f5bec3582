//! What nodes remember of each other, as the handshake carries it: see
//! [`Memory`](quorate_core::Memory).

use quorate_core::{Boot, GroupId, Memory, Replica};
use quorate_rt::Network;

use crate::handshake::MAX_MEMORIES;
use crate::lines::Cause;
use crate::transport::State;

/// What the groups of this node remember of a peer.
pub(crate) async fn recall<R: Network>(state: &State<R>, peer: Replica) -> Vec<(GroupId, Memory)> {
    let groups = state.groups();
    if groups.len() > MAX_MEMORIES
        && let Some(suppressed) = state.lines.pass(Cause::Groups, state.rt.now())
    {
        tracing::warn!(%peer, suppressed, "only {MAX_MEMORIES} groups tell what they remember of a peer");
    }
    let mut remembered = Vec::new();
    for (group, inbox) in groups.into_iter().take(MAX_MEMORIES) {
        if let Some(memory) = inbox.recall(peer).await {
            remembered.push((group, memory));
        }
    }
    remembered
}

/// Whether a store that is in this boot has promised what is remembered of it in a later one, or in
/// another one of the same number.
pub(crate) fn is_older(boot: Boot, remembered: &[(GroupId, Memory)]) -> bool {
    remembered.iter().any(|(_, memory)| memory.boot.is_after(boot))
}

/// A peer of the cluster has said what it remembers of this node.
pub(crate) fn hear<R: Network>(state: &State<R>, peer: Replica, remember: Vec<(GroupId, Memory)>) {
    for (group, memory) in remember {
        if let Some(inbox) = state.inbox(group) {
            inbox.remembered(peer, memory);
        }
    }
}
