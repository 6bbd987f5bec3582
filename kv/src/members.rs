//! The members of a cluster, in words: for `quorate-kv check`, RAFT STATUS and RAFT MEMBERS.

use std::fmt::Write;

use quorate::{ChangeId, MemberRole, Membership, Metrics, NodeId, Replica};

use crate::reply::Reply;

/// What a replica is in a configuration.
pub(crate) fn role(membership: &Membership, replica: Replica) -> &'static str {
    let voters = membership.voters();
    match (voters.incoming().contains(&replica), voters.outgoing().contains(&replica)) {
        (true, false) if voters.is_joint() => "incoming voter",
        (false, true) => "outgoing voter",
        (true, _) => "voter",
        (false, false) if membership.is_member(replica) => "learner",
        (false, false) => "not a member",
    }
}

/// A replica with its whole incarnation, as in all other output.
pub(crate) fn name(replica: Replica) -> String {
    format!("{}/{:016x}", replica.id, replica.incarnation)
}

/// The change that is under way, as far as a node knows.
pub(crate) fn under_way(metrics: &Metrics) -> Option<ChangeId> {
    Some(metrics.membership.as_ref()?.change()?.id)
}

/// The answer to RAFT MEMBERS: a line for each member, one for each node that is to become one, one
/// for the change that is under way and one for each node that it waits for.
pub(crate) fn list(metrics: &Metrics) -> Reply {
    Reply::Array(lines(metrics).into_iter().map(Reply::bulk).collect())
}

fn lines(metrics: &Metrics) -> Vec<String> {
    let Some(membership) = &metrics.membership else { return Vec::new() };
    let members = membership.members().iter();
    let mut lines: Vec<_> =
        members.map(|(of, address)| line(metrics, membership, *of, address)).collect();
    let Some(change) = membership.change() else { return lines };
    let is_member = |id: NodeId| membership.members().keys().any(|member| member.id == id);
    for (id, member) in change.target.members.iter().filter(|(id, _)| !is_member(**id)) {
        let role = aim(member.role);
        lines.push(format!("id={id} address={} role=none becomes={role}", member.address));
    }
    let target = change.target.members.iter();
    let ids = |wanted: MemberRole| {
        let of = target.clone().filter(|(_, member)| member.role == wanted);
        of.map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(",")
    };
    let (voters, learners) = (ids(MemberRole::Voter), ids(MemberRole::Learner));
    lines.push(format!("change={} voters={voters} learners={learners}", change.id));
    match &metrics.change {
        Some(progress) => {
            for (id, wait) in &progress.waits_for {
                lines.push(format!("waits_for={id} why={wait}"));
            }
        }
        None => {
            let leader = metrics.leader.map_or("the leader".to_owned(), |id| format!("node {id}"));
            lines.push(format!("progress={leader} knows it: ask there"));
        }
    }
    lines
}

fn line(metrics: &Metrics, membership: &Membership, of: Replica, address: &str) -> String {
    let role = role(membership, of).replace(' ', "-");
    let leads = metrics.leader == Some(of.id) && role != "learner";
    let mut line = format!(
        "id={} address={address} role={role} leader={} incarnation={:016x}",
        of.id,
        if leads { "yes" } else { "no" },
        of.incarnation
    );
    let mut fact = |name: &str, value: &dyn std::fmt::Display| {
        let _ = write!(line, " {name}={value}"); // Never fails on a string.
    };
    if of == metrics.replica {
        fact("this_node", &"yes");
    }
    if membership.priority(of.id) > 0 {
        fact("priority", &membership.priority(of.id));
    }
    if let Some(change) = membership.change() {
        match change.target.members.get(&of.id) {
            Some(member) => fact("becomes", &aim(member.role)),
            None => fact("becomes", &"removed"),
        }
    }
    if let Some(peer) = metrics.peers.get(&of) {
        // What the others have is unknown to a leader that has not heard of them.
        if let Some(contact) = peer.last_contact {
            fact("matched", &peer.matched);
            fact("behind", &metrics.committed.saturating_sub(peer.matched));
            fact("last_contact_ms", &contact.as_millis());
        }
        if let Some((stored, whole)) = peer.snapshot {
            fact("snapshot_bytes", &format!("{stored}/{whole}"));
        }
    }
    line
}

/// What a member is to be.
fn aim(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quorate::ClusterId;
    use quorate::quorum::Voters;

    use super::*;

    #[test]
    fn each_replica_of_a_joint_configuration_has_its_role() {
        let [one, old, new, learner] =
            [(1, 7), (2, 8), (2, 9), (3, 10)].map(|(id, store)| Replica::new(id, store));
        let members: BTreeMap<_, _> = [one, old, new, learner]
            .map(|replica| (replica, format!("{}:1", replica.id)))
            .into_iter()
            .collect();
        let founders = [1, 2, 3].into();
        let joint = Voters::joint([one, new], [one, old]);
        let joint = Membership::new(ClusterId(5), founders, members, joint).unwrap();
        let roles = [one, old, new, learner, Replica::new(3, 11)].map(|of| role(&joint, of));
        let expected = ["voter", "outgoing voter", "incoming voter", "learner", "not a member"];
        assert_eq!(roles, expected);
    }
}
