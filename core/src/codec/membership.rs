//! Configurations, lists of nodes and what a snapshot is of.
//!
//! A configuration is a structure of these fields. All are marked "refuse" and must be there, where
//! the table says nothing else. Changes and their endings are described in
//! [`change`](super::change).
//!
//! | field | |
//! | --- | --- |
//! | 1 | the cluster's id (16 bytes) |
//! | 2 | the founders: a set of ids |
//! | 3 | the members: a list of structures, in ascending order of their replicas |
//! | 4 | the incoming voters: replicas, in ascending order |
//! | 5 | the outgoing voters likewise; missing where there are none |
//! | 6 | priorities, in ascending order of the ids: for each its node's id (8 bytes) and a byte, not 0; missing where there are none, and skipped by who doesn't know it |
//! | 7 | the id of the last change (16 bytes); missing before the first |
//! | 8 | the change that is under way, a structure; missing where there is none |
//! | 9 | how changes have ended, the latest last: a list of at most 8 structures; missing where there are none |
//!
//! A set of ids is ids of 8 bytes each, in ascending order. A list of structures is one after the
//! other, each with its length. A replica is a node's id (8) and the incarnation (8), neither of
//! which is 0. A member is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | its replica |
//! | 2 | its address, in UTF-8 |
//!
//! A node of a list that a cluster is to be formed of is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | its id (8 bytes) |
//! | 2 | its address, in UTF-8 |
//!
//! What a snapshot is of is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the log id of the last entry that it covers |
//! | 2 | the configuration in force there |
//! | 3 | the index of the entry that brought it (8 bytes) |
//! | 4 | the length of the content (8 bytes) |
//! | 5 | the digest of the content (32 bytes) |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use litemap::LiteMap;

use super::change::{put_change_field, put_ending, take_change_id, take_ending};
use super::fields::{
    Fields, REFUSE, REPLICA_BYTES, Structure, known_replica, put_field, put_field_head,
    put_log_id_field, put_number_field, put_replica, put_replica_field, put_sized, put_structure,
    put_structure_field, take_structure,
};
use super::{DecodeError, Gather};
use crate::identity::{ClusterId, Replica};
use crate::membership::{ChangeId, MAX_ADDRESS_BYTES, MAX_ENDED, MAX_NODES, Membership, Parts};
use crate::quorum::Voters;
use crate::snapshot::{Digest, SnapshotMeta};
use crate::types::NodeId;

/// The bytes that [`put_membership`] writes.
pub(crate) fn membership_bytes(membership: &Membership) -> usize {
    let mut to = Gather::default();
    put_membership(&mut to, membership);
    to.len()
}

/// Appends a configuration.
#[cold] // Out of the way of commands, which are put in a loop.
pub(crate) fn put_membership(to: &mut Gather, membership: &Membership) {
    put_structure(to, membership);
}

/// Takes a configuration off the front.
pub(crate) fn take_membership(from: &mut Bytes) -> Result<Membership, DecodeError> {
    take_structure(from)
}

const CLUSTER: u8 = REFUSE | 1;
const FOUNDERS: u8 = REFUSE | 2;
const MEMBERS: u8 = REFUSE | 3;
const INCOMING: u8 = REFUSE | 4;
const OUTGOING: u8 = REFUSE | 5;
const PRIORITIES: u8 = 6;
const LAST_CHANGE: u8 = REFUSE | 7;
const CHANGE: u8 = REFUSE | 8;
const ENDED: u8 = REFUSE | 9;

const MEMBER: u8 = REFUSE | 1;
const LISTED: u8 = REFUSE | 1;
const ADDRESS: u8 = REFUSE | 2;

impl Structure for Membership {
    const WHAT: &'static str = "configuration";

    fn put(&self, to: &mut Gather) {
        put_cluster_field(to, CLUSTER, self.cluster());
        put_ids_field(to, FOUNDERS, self.founders());
        put_field(to, MEMBERS, |to| {
            for (replica, address) in self.members() {
                put_sized(to, |to| {
                    put_replica_field(to, MEMBER, *replica);
                    put_address_field(to, ADDRESS, address);
                });
            }
        });
        put_voters_field(to, INCOMING, self.voters().incoming());
        if self.voters().is_joint() {
            put_voters_field(to, OUTGOING, self.voters().outgoing());
        }
        let Parts { priorities, last_change, change, ended, .. } = self.parts();
        if !priorities.is_empty() {
            put_field_head(to, PRIORITIES, priorities.len() * PRIORITY_BYTES);
            for (id, priority) in priorities {
                to.put_u64(*id);
                to.put_u8(*priority);
            }
        }
        if *last_change != ChangeId::default() {
            put_change_field(to, LAST_CHANGE, *last_change);
        }
        if let Some(change) = change {
            put_structure_field(to, CHANGE, change);
        }
        if !ended.is_empty() {
            put_field(to, ENDED, |to| {
                for (change, ending) in ended {
                    put_sized(to, |to| put_ending(to, *change, ending));
                }
            });
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let cluster = take_cluster(fields, CLUSTER)?;
        let founders = take_ids(fields, FOUNDERS)?;
        let members = fields.list(MEMBERS, MAX_NODES, "member of a configuration", |member| {
            Ok((member.replica(MEMBER)?, take_address(member, ADDRESS)?))
        })?;
        let members = ascending(members, "members")?;
        let incoming = take_voters(fields, INCOMING)?;
        let outgoing = fields.optional(OUTGOING, take_voters)?.unwrap_or_default();
        let voters = Voters::joint(incoming, outgoing);
        let priorities = fields.optional(PRIORITIES, take_priorities)?.unwrap_or_default();
        let last_change = fields.optional(LAST_CHANGE, take_change_id)?.unwrap_or_default();
        let change = fields.optional(CHANGE, Fields::structure)?;
        let take_ended =
            |fields: &mut Fields, tag| fields.list(tag, MAX_ENDED, "ending", take_ending);
        let ended = fields.optional(ENDED, take_ended)?.unwrap_or_default();
        let parts =
            Parts { cluster, founders, members, voters, priorities, last_change, change, ended };
        Self::assemble(parts).map_err(DecodeError::Invalid)
    }
}

/// The bytes of a priority with the id of its node.
pub(super) const PRIORITY_BYTES: usize = 9;

fn take_priorities(fields: &mut Fields, tag: u8) -> Result<BTreeMap<NodeId, u8>, DecodeError> {
    let bytes = fields.bytes(tag)?;
    let (priorities, []) = bytes.as_chunks::<PRIORITY_BYTES>() else {
        return Err(DecodeError::Invalid(format!("priorities in {} bytes", bytes.len())));
    };
    if priorities.len() > MAX_NODES {
        return Err(DecodeError::Invalid(format!("more than {MAX_NODES} priorities")));
    }
    let pair = |bytes: &[u8; PRIORITY_BYTES]| {
        let [id @ .., priority] = bytes;
        (u64::from_le_bytes(*id), *priority)
    };
    let priorities: Vec<_> = priorities.iter().map(pair).collect();
    if priorities.iter().any(|(id, priority)| *id == 0 || *priority == 0) {
        return Err(DecodeError::Invalid("a priority of 0, or of node 0".to_owned()));
    }
    ascending(priorities, "priorities")
}

/// A map of pairs that must be in ascending order, so that what is said has one form only.
pub(super) fn ascending<K: Ord, V, M: FromIterator<(K, V)>>(
    pairs: Vec<(K, V)>,
    what: &str,
) -> Result<M, DecodeError> {
    match pairs.is_sorted_by(|(one, _), (next, _)| one < next) {
        true => Ok(pairs.into_iter().collect()),
        false => Err(DecodeError::Invalid(format!("{what} out of order"))),
    }
}

fn put_voters_field(to: &mut Gather, tag: u8, voters: &[Replica]) {
    put_field_head(to, tag, voters.len() * REPLICA_BYTES);
    voters.iter().for_each(|voter| put_replica(to, *voter));
}

fn take_voters(fields: &mut Fields, tag: u8) -> Result<Vec<Replica>, DecodeError> {
    let bytes = fields.bytes(tag)?;
    let (voters, []) = bytes.as_chunks() else {
        return Err(DecodeError::Invalid(format!("voters in {} bytes", bytes.len())));
    };
    if voters.len() > MAX_NODES {
        return Err(DecodeError::Invalid(format!("more than {MAX_NODES} voters")));
    }
    let voters = voters.iter().map(known_replica).collect::<Result<Vec<_>, _>>()?;
    match voters.is_sorted_by(|one, next| one < next) {
        true => Ok(voters),
        false => Err(DecodeError::Invalid("voters out of order".to_owned())),
    }
}

/// Appends a field of a cluster's id.
pub(super) fn put_cluster_field(to: &mut Gather, tag: u8, cluster: ClusterId) {
    put_field_head(to, tag, size_of::<ClusterId>());
    to.put_slice(&cluster.0.to_le_bytes());
}

/// Takes a field of a cluster's id.
pub(super) fn take_cluster(fields: &mut Fields, tag: u8) -> Result<ClusterId, DecodeError> {
    fields.array(tag).map(|bytes| ClusterId(u128::from_le_bytes(bytes)))
}

/// Appends a field of a set of ids.
pub(super) fn put_ids_field(to: &mut Gather, tag: u8, ids: &BTreeSet<NodeId>) {
    put_field_head(to, tag, ids.len() * size_of::<NodeId>());
    ids.iter().for_each(|id| to.put_u64(*id));
}

/// Takes a field of a set of ids.
pub(super) fn take_ids(fields: &mut Fields, tag: u8) -> Result<BTreeSet<NodeId>, DecodeError> {
    let bytes = fields.bytes(tag)?;
    let (ids, []) = bytes.as_chunks() else {
        return Err(DecodeError::Invalid(format!("a set of ids in {} bytes", bytes.len())));
    };
    if ids.len() > MAX_NODES {
        return Err(DecodeError::Invalid(format!("{} ids are more than {MAX_NODES}", ids.len())));
    }
    let ids = ids.iter().map(|id| u64::from_le_bytes(*id));
    if !ids.clone().is_sorted_by(|one, next| one < next) || ids.clone().next() == Some(0) {
        return Err(DecodeError::Invalid("a set of ids out of order, or with 0".to_owned()));
    }
    Ok(ids.collect())
}

pub(super) fn put_address_field(to: &mut Gather, tag: u8, address: &str) {
    put_field_head(to, tag, address.len());
    to.put_slice(address.as_bytes());
}

pub(super) fn take_address(fields: &mut Fields, tag: u8) -> Result<String, DecodeError> {
    let address = fields.bytes(tag)?;
    if address.len() > MAX_ADDRESS_BYTES {
        return Err(DecodeError::Invalid(format!("an address of {} bytes", address.len())));
    }
    String::from_utf8(address.into())
        .map_err(|_| DecodeError::Invalid("an address that is not UTF-8".to_owned()))
}

/// Appends a field of nodes and their addresses.
pub(super) fn put_nodes_field(to: &mut Gather, tag: u8, nodes: &LiteMap<NodeId, String>) {
    put_field(to, tag, |to| {
        for (id, address) in nodes {
            put_sized(to, |to| {
                put_number_field(to, LISTED, *id);
                put_address_field(to, ADDRESS, address);
            });
        }
    });
}

/// Takes a field of nodes and their addresses.
pub(super) fn take_nodes(
    fields: &mut Fields,
    tag: u8,
) -> Result<BTreeMap<NodeId, String>, DecodeError> {
    let nodes = fields.list(tag, MAX_NODES, "node of a list", |node| {
        Ok((node.number(LISTED)?, take_address(node, ADDRESS)?))
    })?;
    ascending(nodes, "nodes")
}

/// Appends what a snapshot is of.
pub fn put_snapshot_meta(to: &mut Gather, meta: &SnapshotMeta) {
    put_structure(to, meta);
}

/// Takes what a snapshot is of off the front.
pub fn take_snapshot_meta(from: &mut Bytes) -> Result<SnapshotMeta, DecodeError> {
    take_structure(from)
}

const LOG_ID: u8 = REFUSE | 1;
const MEMBERSHIP: u8 = REFUSE | 2;
const MEMBERSHIP_INDEX: u8 = REFUSE | 3;
const CONTENT_BYTES: u8 = REFUSE | 4;
const DIGEST: u8 = REFUSE | 5;
const TIME: u8 = REFUSE | 6;

impl Structure for SnapshotMeta {
    const WHAT: &'static str = "snapshot";

    fn put(&self, to: &mut Gather) {
        put_log_id_field(to, LOG_ID, self.log_id);
        put_structure_field(to, MEMBERSHIP, &self.membership);
        put_number_field(to, MEMBERSHIP_INDEX, self.membership_index);
        put_number_field(to, CONTENT_BYTES, self.bytes);
        put_digest_field(to, DIGEST, self.digest);
        put_number_field(to, TIME, self.time);
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let log_id = fields.log_id(LOG_ID)?;
        let membership = fields.structure(MEMBERSHIP)?;
        let membership_index = fields.number(MEMBERSHIP_INDEX)?;
        let bytes = fields.number(CONTENT_BYTES)?;
        if !(1..=log_id.index).contains(&membership_index) {
            let reason = format!("a snapshot at {log_id} with a membership of {membership_index}");
            return Err(DecodeError::Invalid(reason));
        }
        let digest = take_digest(fields, DIGEST)?;
        let time = fields.number(TIME)?;
        Ok(Self { log_id, time, membership, membership_index, bytes, digest })
    }
}

/// Appends a field of a digest.
pub(super) fn put_digest_field(to: &mut Gather, tag: u8, digest: Digest) {
    put_field_head(to, tag, Digest::BYTES);
    to.put_slice(&digest.0);
}

/// Takes a field of a digest.
pub(super) fn take_digest(fields: &mut Fields, tag: u8) -> Result<Digest, DecodeError> {
    fields.array(tag).map(Digest)
}
