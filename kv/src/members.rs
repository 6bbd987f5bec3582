//! The members of a cluster, in words: for `quorate-kv check` and RAFT STATUS.

use quorate::{Membership, Replica};

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
