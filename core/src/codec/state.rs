//! What a store keeps of a group beside its log: hard state, standing and marks; and claims.
//!
//! Each is a structure. All fields are marked "refuse" and must be there, unless the table says
//! what a missing one means.
//!
//! The hard state:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the term (8 bytes) |
//! | 2 | the replica that has the vote in it; missing where there is none |
//!
//! The standing, of which at most one field is there; none where nothing is promised:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the claim that was accepted: a structure |
//! | 2 | the id of the cluster that has let the group in (16 bytes) |
//! | 3 | it was removed from the group (no bytes) |
//! | 4 | as field 1, where claims of several stores of the founder were accepted |
//!
//! A claim:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the cluster's id (16 bytes) |
//! | 2 | the ballot (8 bytes) |
//! | 3 | the founder: a replica |
//! | 4 | the list of nodes, as [`membership`](super::membership) describes it |
//!
//! The marks:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the log id up to which the log was known to be committed |
//! | 2 | what is remembered of others: a list of structures, in ascending order of their replicas |
//! | 3 | the starts of the replica, in ascending order; missing where none is known |
//!
//! A start is the number (8 bytes) and the tag (8) of its boot, and the term (8) and the last log
//! id of the store at that time.
//!
//! What is remembered of a replica:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the replica |
//! | 2 | its highest term (8 bytes) |
//! | 3 | the latest term of its votes for whoever remembers (8 bytes) |
//! | 4 | the highest log id that it has acknowledged |
//! | 5 | the highest one of these that is committed |
//! | 6 | the number (8 bytes) and tag (8) of the boot of its last proof; missing if unknown |

use std::sync::Arc;

use bytes::Bytes;

use super::fields::{
    Fields, REFUSE, Structure, put_field, put_field_head, put_log_id_field, put_number_field,
    put_replica_field, put_sized, put_structure, put_structure_field, take_structure,
};
use super::membership::{ascending, put_cluster_field, put_nodes_field, take_cluster, take_nodes};
use super::{DecodeError, Gather, LOG_ID_BYTES, put_log_id};
use crate::identity::{Boot, Claim, MAX_MEMORIES, MAX_STARTS, Marks, Memory, Standing, Start};
use crate::membership::check_list;
use crate::types::{HardState, LogId, Term};

/// Appends a hard state.
pub fn put_hard_state(to: &mut Gather, hard_state: &HardState) {
    put_structure(to, hard_state);
}

/// Takes a hard state off the front.
pub fn take_hard_state(from: &mut Bytes) -> Result<HardState, DecodeError> {
    take_structure(from)
}

const TERM: u8 = REFUSE | 1;
const VOTED_FOR: u8 = REFUSE | 2;

impl Structure for HardState {
    const WHAT: &'static str = "hard state";

    fn put(&self, to: &mut Gather) {
        put_number_field(to, TERM, self.term.0);
        if let Some(candidate) = self.voted_for {
            put_replica_field(to, VOTED_FOR, candidate);
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let term = Term(fields.number(TERM)?);
        Ok(Self { term, voted_for: fields.optional(VOTED_FOR, Fields::replica)? })
    }
}

/// Appends what a group has promised.
pub fn put_standing(to: &mut Gather, standing: &Standing) {
    put_structure(to, standing);
}

/// Takes what a group has promised off the front.
pub fn take_standing(from: &mut Bytes) -> Result<Standing, DecodeError> {
    take_structure(from)
}

const CLAIMED: u8 = REFUSE | 1;
const ADMITTED: u8 = REFUSE | 2;
const SPENT: u8 = REFUSE | 3;
const CONTESTED: u8 = REFUSE | 4;

impl Structure for Standing {
    const WHAT: &'static str = "standing";

    fn put(&self, to: &mut Gather) {
        match self {
            Self::Empty => {}
            Self::Claimed(claim) => put_structure_field(to, CLAIMED, claim),
            Self::Contested(claim) => put_structure_field(to, CONTESTED, claim),
            Self::Admitted(cluster) => put_cluster_field(to, ADMITTED, *cluster),
            Self::Spent => put_field_head(to, SPENT, 0),
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let claim = fields.optional(CLAIMED, Fields::structure)?;
        let cluster = fields.optional(ADMITTED, take_cluster)?;
        let spent = fields.optional(SPENT, Fields::array::<0>)?;
        let contested = fields.optional(CONTESTED, Fields::structure)?;
        match (claim, cluster, spent, contested) {
            (None, None, None, None) => Ok(Self::Empty),
            (Some(claim), None, None, None) => Ok(Self::Claimed(claim)),
            (None, Some(cluster), None, None) => Ok(Self::Admitted(cluster)),
            (None, None, Some([]), None) => Ok(Self::Spent),
            (None, None, None, Some(claim)) => Ok(Self::Contested(claim)),
            _ => Err(DecodeError::Invalid("more than one standing".to_owned())),
        }
    }
}

/// Appends a claim.
#[cfg(test)]
pub(crate) fn put_claim(to: &mut Gather, claim: &Claim) {
    put_structure(to, claim);
}

/// Takes a claim off the front.
#[cfg(test)]
pub(crate) fn take_claim(from: &mut Bytes) -> Result<Claim, DecodeError> {
    take_structure(from)
}

const CLUSTER: u8 = REFUSE | 1;
const BALLOT: u8 = REFUSE | 2;
const FOUNDER: u8 = REFUSE | 3;
const LIST: u8 = REFUSE | 4;

impl Structure for Claim {
    const WHAT: &'static str = "claim";

    fn put(&self, to: &mut Gather) {
        put_cluster_field(to, CLUSTER, self.cluster);
        put_number_field(to, BALLOT, self.ballot);
        put_replica_field(to, FOUNDER, self.founder);
        put_nodes_field(to, LIST, &self.list);
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let cluster = take_cluster(fields, CLUSTER)?;
        let ballot = fields.number(BALLOT)?;
        let founder = fields.replica(FOUNDER)?;
        let list = take_nodes(fields, LIST)?;
        check_list(&list).map_err(DecodeError::Invalid)?;
        Ok(Self { cluster, ballot, founder, list: Arc::new(list.into_iter().collect()) })
    }
}

/// Appends marks.
pub fn put_marks(to: &mut Gather, marks: &Marks) {
    put_structure(to, marks);
}

/// Takes marks off the front.
pub fn take_marks(from: &mut Bytes) -> Result<Marks, DecodeError> {
    take_structure(from)
}

const COMMITTED: u8 = REFUSE | 1;
const MEMORIES: u8 = REFUSE | 2;
const STARTS: u8 = REFUSE | 3;

const REMEMBERED: u8 = REFUSE | 1;
const REMEMBERED_TERM: u8 = REFUSE | 2;
const REMEMBERED_VOTE: u8 = REFUSE | 3;
const ACKNOWLEDGED: u8 = REFUSE | 4;
const ACKNOWLEDGED_COMMITTED: u8 = REFUSE | 5;
const SHOWN_IN: u8 = REFUSE | 6;

const START_BYTES: usize = 24 + LOG_ID_BYTES;

impl Structure for Marks {
    const WHAT: &'static str = "marks";

    fn put(&self, to: &mut Gather) {
        put_log_id_field(to, COMMITTED, self.committed);
        put_field(to, MEMORIES, |to| {
            for (replica, memory) in &self.memories {
                put_sized(to, |to| {
                    put_replica_field(to, REMEMBERED, *replica);
                    put_number_field(to, REMEMBERED_TERM, memory.term.0);
                    put_number_field(to, REMEMBERED_VOTE, memory.voted.0);
                    put_log_id_field(to, ACKNOWLEDGED, memory.acknowledged);
                    put_log_id_field(to, ACKNOWLEDGED_COMMITTED, memory.committed);
                    if memory.boot != Boot::default() {
                        put_field_head(to, SHOWN_IN, 16);
                        to.put_u64(memory.boot.number);
                        to.put_u64(memory.boot.tag);
                    }
                });
            }
        });
        if !self.starts.is_empty() {
            put_field_head(to, STARTS, self.starts.len() * START_BYTES);
            for (number, start) in &self.starts {
                to.put_u64(*number);
                to.put_u64(start.tag);
                to.put_u64(start.term.0);
                put_log_id(to, start.last);
            }
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let committed = fields.log_id(COMMITTED)?;
        let memories = fields.list(MEMORIES, MAX_MEMORIES, "memory of a replica", |memory| {
            let replica = memory.replica(REMEMBERED)?;
            let term = Term(memory.number(REMEMBERED_TERM)?);
            let voted = Term(memory.number(REMEMBERED_VOTE)?);
            let acknowledged = memory.log_id(ACKNOWLEDGED)?;
            let committed = memory.log_id(ACKNOWLEDGED_COMMITTED)?;
            let boot = memory.optional(SHOWN_IN, take_boot)?.unwrap_or_default();
            Ok((replica, Memory { term, voted, acknowledged, committed, boot }))
        })?;
        let memories = ascending(memories, "memories")?;
        let starts = fields.optional(STARTS, take_starts)?.unwrap_or_default();
        Ok(Self { committed, memories, starts: ascending(starts, "starts")? })
    }
}

fn take_boot(fields: &mut Fields, tag: u8) -> Result<Boot, DecodeError> {
    let [number, tag] = numbers(&fields.array::<16>(tag)?);
    Ok(Boot { number, tag })
}

fn take_starts(fields: &mut Fields, tag: u8) -> Result<Vec<(u64, Start)>, DecodeError> {
    let bytes = fields.bytes(tag)?;
    let (starts, []) = bytes.as_chunks::<START_BYTES>() else {
        return Err(DecodeError::Invalid(format!("starts in {} bytes", bytes.len())));
    };
    if starts.len() > MAX_STARTS {
        return Err(DecodeError::Invalid(format!("more than {MAX_STARTS} starts")));
    }
    let start_of = |start: &[u8; START_BYTES]| {
        let [number, tag, term, last_term, leader, index] = numbers(start);
        let last = LogId { term: Term(last_term), leader, index };
        (number, Start { tag, term: Term(term), last })
    };
    Ok(starts.iter().map(start_of).collect())
}

/// The numbers of 8 bytes each that these bytes are.
fn numbers<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let (numbers, _) = bytes.as_chunks();
    std::array::from_fn(|at| u64::from_le_bytes(numbers[at]))
}
