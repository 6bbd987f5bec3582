//! Messages. The tables are in the documentation of [`codec`](super).

use bytes::{Buf, Bytes};

use super::change::{put_change_field, take_change_id};
use super::entry::{put_runs, take_runs};
use super::fields::{
    Fields, REFUSE, REPLICA_BYTES, Structure, put_byte_field, put_bytes_field, put_field,
    put_field_head, put_log_id_field, put_number_field, put_replica_field, put_structure_field,
};
use super::membership::{
    put_cluster_field, put_digest_field, put_ids_field, take_cluster, take_digest, take_ids,
};
use super::{DecodeError, Gather, length, take_bytes, take_u32};
use crate::entries::Entries;
use crate::identity::{Boot, Claim, ClusterId, Replica};
use crate::message::{
    Alive, AppendOutcome, Body, Departure, ForwardOutcome, LeadershipTransfer, Message, Refusal,
    Situation,
};
use crate::types::{Entry, Term};

const PRE_VOTE: u8 = 1;
const PRE_VOTE_REPLY: u8 = 2;
const VOTE: u8 = 3;
const VOTE_REPLY: u8 = 4;
const APPEND: u8 = 5;
const APPEND_REPLY: u8 = 6;
const FORWARD: u8 = 7;
const FORWARD_REPLY: u8 = 8;
const READ_INDEX: u8 = 9;
const READ_INDEX_REPLY: u8 = 10;
const TIMEOUT_NOW: u8 = 11;
const SNAPSHOT: u8 = 12;
const SNAPSHOT_REPLY: u8 = 13;
const WHO: u8 = 14;
const SITUATION: u8 = 15;
const CLAIM: u8 = 16;
const ADMIT: u8 = 17;
const REST: u8 = 18;
const RESTS: u8 = 19;
const ALIVE: u8 = 20;
const CHANGE: u8 = 21;
const CHANGE_REPLY: u8 = 22;
const REMOVED: u8 = 23;

/// The numbers of the fields of a kind or a structure, in the order of its table. All are refused
/// where they are unknown: who does not know one of them has not understood the message.
pub(super) const ONE: u8 = REFUSE | 1;
pub(super) const TWO: u8 = REFUSE | 2;
pub(super) const THREE: u8 = REFUSE | 3;
pub(super) const FOUR: u8 = REFUSE | 4;
pub(super) const FIVE: u8 = REFUSE | 5;
pub(super) const SIX: u8 = REFUSE | 6;

/// The number of an attempt to be elected, in a request for a vote and in its answer. Who does not
/// know it only can't tell how long the answer took.
const ATTEMPT_OF_VOTE: u8 = 3;
const ATTEMPT: u8 = 2;

/// The bytes of a message before its fields: group, cluster, sender, receiver, term and kind.
pub(super) const HEADER_BYTES: usize = 8 + 16 + 2 * REPLICA_BYTES + 8 + 1;

/// What [`Body::ForwardReply`] says instead of a log id.
const NOT_LEADER: u8 = 1;
const BUSY: u8 = 2;
const STORAGE_FULL: u8 = 3;

fn kind_of(body: &Body) -> u8 {
    match body {
        Body::PreVote { .. } => PRE_VOTE,
        Body::PreVoteReply { .. } => PRE_VOTE_REPLY,
        Body::Vote { .. } => VOTE,
        Body::VoteReply { .. } => VOTE_REPLY,
        Body::Append { .. } => APPEND,
        Body::AppendReply { .. } => APPEND_REPLY,
        Body::Forward { .. } => FORWARD,
        Body::ForwardReply { .. } => FORWARD_REPLY,
        Body::ReadIndex { .. } => READ_INDEX,
        Body::ReadIndexReply { .. } => READ_INDEX_REPLY,
        Body::TimeoutNow { .. } => TIMEOUT_NOW,
        Body::Snapshot { .. } => SNAPSHOT,
        Body::SnapshotReply { .. } => SNAPSHOT_REPLY,
        Body::Who { .. } => WHO,
        Body::Situation { .. } => SITUATION,
        Body::Claim(_) => CLAIM,
        Body::Admit { .. } => ADMIT,
        Body::Rest { .. } => REST,
        Body::Rests { .. } => RESTS,
        Body::Alive(_) => ALIVE,
        Body::Change(_) => CHANGE,
        Body::ChangeReply { .. } => CHANGE_REPLY,
        Body::Removed { .. } => REMOVED,
    }
}

/// Appends a message.
pub fn put_message(to: &mut Gather, message: &Message) {
    let mut header = [0; HEADER_BYTES]; // At once: there are many.
    header[..8].copy_from_slice(&message.group.to_le_bytes());
    header[8..24].copy_from_slice(&message.cluster.map_or(0, |cluster| cluster.0).to_le_bytes());
    header[24..32].copy_from_slice(&message.from.id.to_le_bytes());
    header[32..40].copy_from_slice(&message.from.incarnation.to_le_bytes());
    header[40..48].copy_from_slice(&message.to.id.to_le_bytes());
    header[48..56].copy_from_slice(&message.to.incarnation.to_le_bytes());
    header[56..64].copy_from_slice(&message.term.0.to_le_bytes());
    header[64] = kind_of(&message.body);
    to.put_slice(&header);
    put_body(to, &message.body);
}

fn put_body(to: &mut Gather, body: &Body) {
    match body {
        Body::PreVote { last_log_id, attempt } => {
            put_log_id_field(to, ONE, *last_log_id);
            put_attempt(to, ATTEMPT, *attempt);
        }
        Body::PreVoteReply { granted, attempt } | Body::VoteReply { granted, attempt } => {
            put_byte_field(to, ONE, u8::from(*granted));
            put_attempt(to, ATTEMPT, *attempt);
        }
        Body::Vote { last_log_id, transfer, attempt } => {
            if let Some(transfer) = transfer {
                put_structure_field(to, ONE, transfer);
            }
            put_log_id_field(to, TWO, *last_log_id);
            put_attempt(to, ATTEMPT_OF_VOTE, *attempt);
        }
        Body::Append { prev, committed, round, durable, entries } => {
            put_log_id_field(to, ONE, *prev);
            put_number_field(to, TWO, *committed);
            put_number_field(to, THREE, *round);
            put_number_field(to, FOUR, *durable);
            match entries.is_empty() {
                true => put_field_head(to, FIVE, 0),
                false => put_field(to, FIVE, |to| put_runs(to, entries)),
            }
        }
        Body::AppendReply { round, outcome } => {
            put_number_field(to, ONE, *round);
            match outcome {
                AppendOutcome::Accepted { matched } => put_number_field(to, TWO, *matched),
                AppendOutcome::Rejected { prev, hint } => {
                    put_number_field(to, THREE, *prev);
                    put_log_id_field(to, FOUR, *hint);
                }
            }
        }
        Body::Forward { boot, sequence, commands } => {
            put_number_field(to, ONE, *boot);
            put_number_field(to, TWO, *sequence);
            put_field(to, THREE, |to| {
                for command in commands {
                    to.put_u32(length(command.len()));
                    to.put_bytes(command);
                }
            });
        }
        Body::ForwardReply { boot, sequence, outcome } => {
            put_number_field(to, ONE, *boot);
            put_number_field(to, TWO, *sequence);
            match outcome {
                ForwardOutcome::Appended(log_id) => put_log_id_field(to, THREE, *log_id),
                ForwardOutcome::NotLeader => put_byte_field(to, FOUR, NOT_LEADER),
                ForwardOutcome::Busy => put_byte_field(to, FOUR, BUSY),
                ForwardOutcome::StorageFull => put_byte_field(to, FOUR, STORAGE_FULL),
                ForwardOutcome::Partly { first, refused } => {
                    put_log_id_field(to, FIVE, *first);
                    put_field(to, SIX, |to| put_refusals(to, refused));
                }
            }
        }
        Body::ReadIndex { sequence } => put_number_field(to, ONE, *sequence),
        Body::ReadIndexReply { sequence, index, time } => {
            if let Some(index) = index {
                put_number_field(to, ONE, *index);
            }
            put_number_field(to, TWO, *sequence);
            put_number_field(to, THREE, *time);
        }
        Body::TimeoutNow { last_log_id, round } => {
            put_log_id_field(to, ONE, *last_log_id);
            put_number_field(to, TWO, *round);
        }
        Body::Snapshot { meta, offset, chunk } => {
            put_structure_field(to, ONE, &**meta);
            put_number_field(to, TWO, *offset);
            put_bytes_field(to, THREE, chunk);
        }
        Body::SnapshotReply { digest, stored } => {
            put_digest_field(to, ONE, *digest);
            put_number_field(to, TWO, *stored);
        }
        Body::Who { listed } => put_ids_field(to, ONE, listed),
        Body::Situation { situation, listed } => {
            put_structure_field(to, ONE, situation);
            put_ids_field(to, TWO, listed);
        }
        Body::Claim(claim) => put_structure_field(to, ONE, &**claim),
        Body::Admit { cluster, founders } => {
            put_cluster_field(to, ONE, *cluster);
            put_ids_field(to, TWO, founders);
        }
        Body::Rest { last_log_id, round, boot } => {
            put_log_id_field(to, ONE, *last_log_id);
            put_number_field(to, TWO, *round);
            put_number_field(to, THREE, boot.number);
            put_number_field(to, FOUR, boot.tag);
        }
        Body::Rests { last_log_id } => put_log_id_field(to, ONE, *last_log_id),
        Body::Change(request) => put_structure_field(to, ONE, &**request),
        Body::ChangeReply { id, reply } => {
            put_change_field(to, ONE, *id);
            put_structure_field(to, TWO, &**reply);
        }
        Body::Removed { log_id, membership } => {
            put_log_id_field(to, ONE, *log_id);
            put_structure_field(to, TWO, membership);
        }
        Body::Alive(alive) => {
            let Alive { boot, heard: (in_boot, number), last, departures } = &**alive;
            put_number_field(to, ONE, boot.number);
            put_number_field(to, TWO, boot.tag);
            put_number_field(to, THREE, *in_boot);
            put_number_field(to, FOUR, *number);
            put_number_field(to, FIVE, *last);
            put_field(to, SIX, |to| {
                for Departure { group, term } in departures {
                    to.put_u64(*group);
                    to.put_u64(term.0);
                }
            });
        }
    }
}

/// Each is its group and its term (8 bytes each).
fn take_departures(mut from: Bytes) -> Result<Vec<Departure>, DecodeError> {
    const BYTES: usize = 16;
    if !from.len().is_multiple_of(BYTES) || from.len() / BYTES > Alive::MAX_DEPARTURES {
        return Err(DecodeError::Invalid(format!("departures of {} bytes", from.len())));
    }
    let mut departures = Vec::with_capacity(from.len() / BYTES);
    while !from.is_empty() {
        let group = from.get_u64_le();
        departures.push(Departure { group, term: Term(from.get_u64_le()) });
    }
    Ok(departures)
}

/// Decodes a message, which must be all there is in `from`.
pub fn decode_message(from: Bytes) -> Result<Message, DecodeError> {
    decode_message_within(from, usize::MAX)
}

/// Decodes a message, which must be all there is in `from`, and whose entries or commands are
/// counted as at most so many bytes, each with its
/// [overhead](crate::types::Entry::OVERHEAD_BYTES). In memory the smallest take many times the
/// bytes that they have here.
///
/// # Errors
/// Also where there are more; nothing is allocated for them.
pub fn decode_message_within(
    mut from: Bytes,
    max_content_bytes: usize,
) -> Result<Message, DecodeError> {
    let most = max_content_bytes / Entry::OVERHEAD_BYTES;
    let Some(mut header) = from.first_chunk::<HEADER_BYTES>().map(|header| &header[..]) else {
        return Err(DecodeError::Short { what: "message", needs: HEADER_BYTES, has: from.len() });
    };
    let group = header.get_u64_le();
    let cluster = Some(header.get_u128_le()).filter(|cluster| *cluster != 0).map(ClusterId);
    let sender = Replica::new(header.get_u64_le(), header.get_u64_le());
    let to = Replica::new(header.get_u64_le(), header.get_u64_le());
    let term = Term(header.get_u64_le());
    let kind = header.get_u8();
    if sender.id == 0 || to.id == 0 {
        return Err(DecodeError::Invalid("a message from or to node 0".to_owned()));
    }
    if !sender.is_known() || !to.is_known() && !matches!(kind, WHO | CLAIM) {
        return Err(DecodeError::Invalid("a message from or to incarnation 0".to_owned()));
    }
    from.advance(HEADER_BYTES);
    let mut fields = Fields::new("message", from);
    let body = take_body(&mut fields, kind, most)?;
    fields.finish()?;
    Ok(Message { group, cluster, from: sender, to, term, body })
}

/// `most` is how many entries or commands there may be.
fn take_body(fields: &mut Fields, kind: u8, most: usize) -> Result<Body, DecodeError> {
    let too_many = || DecodeError::Invalid(format!("more than {most} entries or commands"));
    Ok(match kind {
        PRE_VOTE => {
            let last_log_id = fields.log_id(ONE)?;
            Body::PreVote { last_log_id, attempt: take_attempt(fields, ATTEMPT)? }
        }
        PRE_VOTE_REPLY => {
            let granted = take_bool(fields, ONE)?;
            Body::PreVoteReply { granted, attempt: take_attempt(fields, ATTEMPT)? }
        }
        VOTE => {
            let transfer = fields.optional(ONE, Fields::structure)?;
            let last_log_id = fields.log_id(TWO)?;
            let attempt = take_attempt(fields, ATTEMPT_OF_VOTE)?;
            Body::Vote { last_log_id, transfer, attempt }
        }
        VOTE_REPLY => {
            let granted = take_bool(fields, ONE)?;
            Body::VoteReply { granted, attempt: take_attempt(fields, ATTEMPT)? }
        }
        APPEND => {
            let prev = fields.log_id(ONE)?;
            let committed = fields.number(TWO)?;
            let round = fields.number(THREE)?;
            let durable = fields.number(FOUR)?;
            let entries = match fields.bytes(FIVE)? {
                none if none.is_empty() => Entries::default(),
                runs => take_runs(runs, prev, most)?,
            };
            Body::Append { prev, committed, round, durable, entries }
        }
        APPEND_REPLY => {
            let round = fields.number(ONE)?;
            let outcome = match fields.optional(TWO, Fields::number)? {
                Some(matched) => AppendOutcome::Accepted { matched },
                None => AppendOutcome::Rejected {
                    prev: fields.number(THREE)?,
                    hint: fields.log_id(FOUR)?,
                },
            };
            Body::AppendReply { round, outcome }
        }
        FORWARD => {
            let boot = fields.number(ONE)?;
            let sequence = fields.number(TWO)?;
            let mut from = fields.bytes(THREE)?;
            let mut commands = Vec::new();
            while !from.is_empty() {
                if commands.len() == most {
                    return Err(too_many());
                }
                let len = take_u32(&mut from, "forward")? as usize;
                commands.push(take_bytes(&mut from, len, "forwarded command")?);
            }
            Body::Forward { boot, sequence, commands }
        }
        FORWARD_REPLY => {
            let boot = fields.number(ONE)?;
            let sequence = fields.number(TWO)?;
            let outcome = if let Some(first) = fields.optional(THREE, Fields::log_id)? {
                ForwardOutcome::Appended(first)
            } else if let Some(refusal) = fields.optional(FOUR, Fields::byte)? {
                match refusal {
                    NOT_LEADER => ForwardOutcome::NotLeader,
                    BUSY => ForwardOutcome::Busy,
                    STORAGE_FULL => ForwardOutcome::StorageFull,
                    kind => return Err(DecodeError::Kind { what: "forward reply", kind }),
                }
            } else {
                let first = fields.log_id(FIVE)?;
                let refused = take_refusals(fields.bytes(SIX)?, most)?;
                ForwardOutcome::Partly { first, refused }
            };
            Body::ForwardReply { boot, sequence, outcome }
        }
        READ_INDEX => Body::ReadIndex { sequence: fields.number(ONE)? },
        READ_INDEX_REPLY => {
            let index = fields.optional(ONE, Fields::number)?;
            let sequence = fields.number(TWO)?;
            Body::ReadIndexReply { sequence, index, time: fields.number(THREE)? }
        }
        TIMEOUT_NOW => {
            let last_log_id = fields.log_id(ONE)?;
            Body::TimeoutNow { last_log_id, round: fields.number(TWO)? }
        }
        SNAPSHOT => {
            let meta = Box::new(fields.structure(ONE)?);
            let offset = fields.number(TWO)?;
            Body::Snapshot { meta, offset, chunk: fields.bytes(THREE)? }
        }
        SNAPSHOT_REPLY => {
            let digest = take_digest(fields, ONE)?;
            Body::SnapshotReply { digest, stored: fields.number(TWO)? }
        }
        WHO => Body::Who { listed: take_ids(fields, ONE)? },
        SITUATION => {
            let situation = fields.structure(ONE)?;
            Body::Situation { situation, listed: take_ids(fields, TWO)? }
        }
        CLAIM => Body::Claim(Box::new(fields.structure::<Claim>(ONE)?)),
        ADMIT => {
            let cluster = take_cluster(fields, ONE)?;
            Body::Admit { cluster, founders: take_ids(fields, TWO)? }
        }
        REST => {
            let last_log_id = fields.log_id(ONE)?;
            let round = fields.number(TWO)?;
            let boot = Boot { number: fields.number(THREE)?, tag: fields.number(FOUR)? };
            Body::Rest { last_log_id, round, boot }
        }
        RESTS => Body::Rests { last_log_id: fields.log_id(ONE)? },
        ALIVE => {
            let boot = Boot { number: fields.number(ONE)?, tag: fields.number(TWO)? };
            let heard = (fields.number(THREE)?, fields.number(FOUR)?);
            let last = fields.number(FIVE)?;
            let departures = take_departures(fields.bytes(SIX)?)?;
            Body::Alive(Box::new(Alive { boot, heard, last, departures }))
        }
        CHANGE => Body::Change(Box::new(fields.structure(ONE)?)),
        CHANGE_REPLY => {
            let id = take_change_id(fields, ONE)?;
            Body::ChangeReply { id, reply: Box::new(fields.structure(TWO)?) }
        }
        REMOVED => {
            let log_id = fields.log_id(ONE)?;
            Body::Removed { log_id, membership: fields.structure(TWO)? }
        }
        kind => return Err(DecodeError::Kind { what: "message", kind }),
    })
}

/// Each is its place (4 bytes), the length of the reason (4) and the reason.
fn put_refusals(to: &mut Gather, refused: &[Refusal]) {
    for Refusal { place, reason } in refused {
        to.put_u32(*place);
        to.put_u32(length(reason.len()));
        to.put_slice(reason.as_bytes());
    }
}

fn take_refusals(mut from: Bytes, most: usize) -> Result<Vec<Refusal>, DecodeError> {
    const WHAT: &str = "refusal";
    let mut refused: Vec<Refusal> = Vec::new();
    while !from.is_empty() {
        let place = take_u32(&mut from, WHAT)?;
        let len = take_u32(&mut from, WHAT)? as usize;
        let invalid = |what| DecodeError::Invalid(format!("{WHAT} of command {place}: {what}"));
        if refused.last().is_some_and(|before| before.place >= place) {
            return Err(invalid("out of order"));
        }
        if refused.len() == most {
            return Err(invalid("too many"));
        }
        if len > Refusal::MAX_REASON_BYTES {
            return Err(invalid("too long a reason"));
        }
        let reason = take_bytes(&mut from, len, WHAT)?;
        let reason = str::from_utf8(&reason).map_err(|_| invalid("no UTF-8"))?;
        refused.push(Refusal { place, reason: reason.to_owned() });
    }
    Ok(refused)
}

fn put_attempt(to: &mut Gather, tag: u8, attempt: u64) {
    if attempt != 0 {
        put_number_field(to, tag, attempt);
    }
}

fn take_attempt(fields: &mut Fields, tag: u8) -> Result<u64, DecodeError> {
    Ok(fields.optional(tag, Fields::number)?.unwrap_or(0))
}

pub(super) fn take_bool(fields: &mut Fields, tag: u8) -> Result<bool, DecodeError> {
    match fields.byte(tag)? {
        0 => Ok(false),
        1 => Ok(true),
        kind => Err(DecodeError::Kind { what: "yes or no", kind }),
    }
}

impl Structure for LeadershipTransfer {
    const WHAT: &'static str = "leadership transfer";

    fn put(&self, to: &mut Gather) {
        put_replica_field(to, ONE, self.leader);
        put_number_field(to, TWO, self.term.0);
        put_number_field(to, THREE, self.round);
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let leader = fields.replica(ONE)?;
        let term = Term(fields.number(TWO)?);
        Ok(Self { leader, term, round: fields.number(THREE)? })
    }
}

const EMPTY: u8 = 1;
const CLAIMED: u8 = 2;
const ADMITTED: u8 = 3;
const MEMBER: u8 = 4;
const SPENT: u8 = 5;
const ELSEWHERE: u8 = 6;

impl Structure for Situation {
    const WHAT: &'static str = "situation";

    fn put(&self, to: &mut Gather) {
        let kind = |to: &mut Gather, kind| put_byte_field(to, ONE, kind);
        match self {
            Self::Empty => kind(to, EMPTY),
            Self::Claimed { ballot, founder, ids } => {
                kind(to, CLAIMED);
                put_ids_field(to, TWO, ids);
                put_number_field(to, THREE, *ballot);
                put_replica_field(to, FOUR, *founder);
            }
            Self::Admitted => kind(to, ADMITTED),
            Self::Member { founders, voter } => {
                kind(to, MEMBER);
                put_ids_field(to, TWO, founders);
                put_byte_field(to, THREE, u8::from(*voter));
            }
            Self::Spent => kind(to, SPENT),
            Self::Elsewhere => kind(to, ELSEWHERE),
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(match fields.byte(ONE)? {
            EMPTY => Self::Empty,
            CLAIMED => {
                let ids = take_ids(fields, TWO)?;
                let ballot = fields.number(THREE)?;
                Self::Claimed { ballot, founder: fields.replica(FOUR)?, ids }
            }
            ADMITTED => Self::Admitted,
            MEMBER => {
                let founders = take_ids(fields, TWO)?;
                Self::Member { founders, voter: take_bool(fields, THREE)? }
            }
            SPENT => Self::Spent,
            ELSEWHERE => Self::Elsewhere,
            kind => return Err(DecodeError::Kind { what: "situation", kind }),
        })
    }
}
