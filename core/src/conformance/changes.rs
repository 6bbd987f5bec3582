//! A configuration in the middle of a change, with all that it may then consist of.

use std::collections::BTreeSet;

use crate::membership::Parts;
use crate::{Change, ChangeId, Ending, MAX_ENDED, Member, MemberRole, Membership, NodeId, Target};

/// This configuration with a change under way, priorities, and up to [`MAX_ENDED`] endings, of each
/// kind in turn. `nth` says which.
pub(super) fn changing(membership: &Membership, nth: u64) -> Membership {
    let id = |nth: u64| ChangeId(u128::from(nth) << 64 | u128::from(nth.wrapping_mul(7) | 1));
    let member = |(at, (node, address)): (usize, (NodeId, String))| {
        let address =
            if address.is_empty() { format!("node-{node}.example:7001") } else { address };
        let role = if at == 0 { MemberRole::Voter } else { MemberRole::Learner };
        let priority = if at % 2 == 0 { 0 } else { (nth | 1) as u8 };
        (node, Member { address: format!("{at}.{address}"), role, priority })
    };
    let before =
        Target { members: membership.nodes().into_iter().enumerate().map(member).collect() };
    let waits_for: BTreeSet<NodeId> = before.members.keys().copied().collect();
    let ending = |nth: u64| match nth % 4 {
        0 => Ending::Done,
        1 => Ending::Cancelled,
        2 => Ending::Late { waits_for: waits_for.clone() },
        _ => Ending::Superseded { by: id(nth.wrapping_add(1)) },
    };
    let ended = (0..nth % (MAX_ENDED as u64 + 1))
        .map(|more| nth.wrapping_add(more))
        .map(|nth| (id(nth), ending(nth)));
    let ended = ended.collect();
    let mut target = before.clone();
    let voter = Member { role: MemberRole::Voter, priority: u8::MAX, address: "new:1".to_owned() };
    target.members.insert(NodeId::MAX - 1, voter);
    let change = Change { id: id(nth), target, before, catch_up: nth };
    Membership::assemble(Parts {
        priorities: waits_for.iter().map(|node| (*node, nth as u8 | 1)).collect(),
        last_change: id(nth),
        change: Some(change),
        ended,
        ..membership.parts().clone()
    })
    .expect("a possible one")
}
