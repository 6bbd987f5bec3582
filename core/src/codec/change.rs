//! Changes of the membership: those that are under way and those that have ended, in
//! configurations; requests for them and the answers, in messages.
//!
//! A target is a list of structures, in ascending order of the ids. A member of it is:
//!
//! | field | |
//! | --- | --- |
//! | 1 | its id (8 bytes) |
//! | 2 | its address, in UTF-8 |
//! | 3 | its role, a byte: 1 voter, 2 learner |
//! | 4 | its priority, a byte; missing where it is 0, and skipped by who doesn't know it |
//!
//! A change is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | its id (16 bytes) |
//! | 2 | the target |
//! | 3 | what the configuration was before: a target |
//! | 4 | how long nodes may take to catch up, in milliseconds (8 bytes) |
//!
//! An ending is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the id of the change (16 bytes) |
//! | 2 | a byte: 1 done, 2 cancelled, 3 late, 4 superseded |
//! | 3 | if late: the nodes that were waited for, a set of ids |
//! | 4 | if superseded: the id of the change in its place (16 bytes) |
//!
//! A request is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the id of the change (16 bytes) |
//! | 2 | if it is to begin: the target. To cancel it, this and what follows are missing |
//! | 3 | the change that it follows, if it does (16 bytes) |
//! | 4 | how long nodes may take to catch up, in milliseconds (8 bytes) |
//! | 5 | a byte: 1 if fewer failures may be tolerated than before, 0 if not |
//!
//! The answer is a structure:
//!
//! | field | |
//! | --- | --- |
//! | 1 | a byte: 1 a change is under way or has ended, 2 there is nothing to do, 3 ask again, 4 refused, 5 noted |
//! | 2 | the id of that change (16 bytes) |
//! | 3 | why it is refused, a byte: 1 the target can't be one, 2 another change is under way, 3 another one was made, 4 fewer failures would be tolerated, 5 it is not under way |
//! | 4 | for 1: the reason, in UTF-8 |
//! | 5 | for 2 and 3: the configuration |
//! | 6, 7 | for 4: how many failures are tolerated now, and how many would be (8 bytes each) |

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::fields::{
    Fields, REFUSE, SIZED_BYTES, Structure, field_bytes, put_byte_field, put_field, put_field_head,
    put_number_field, put_sized, put_structure_field,
};
use super::membership::{ascending, put_address_field, put_ids_field, take_address, take_ids};
use super::message::{FIVE, FOUR, ONE, SIX, THREE, TWO, take_bool};
use super::{DecodeError, Gather};
use crate::error::ChangeRefusal;
use crate::membership::{
    Change, ChangeId, ChangeKind, ChangeOptions, ChangeReply, ChangeRequest, Ending,
    MAX_ADDRESS_BYTES, MAX_NODES, Member, MemberRole, Target,
};
use crate::types::NodeId;

const SEVEN: u8 = REFUSE | 7;
const PRIORITY: u8 = 4;

const VOTER: u8 = 1;
const LEARNER: u8 = 2;

/// The longest reason of a refusal, in bytes. A sentence with an address in it fits.
const MAX_REASON_BYTES: usize = 1024;

const ID_FIELD_BYTES: usize = field_bytes(size_of::<ChangeId>());
const NUMBER_FIELD_BYTES: usize = field_bytes(size_of::<u64>());
const OPEN_FIELD_BYTES: usize = 1 + SIZED_BYTES;

/// The bytes of the largest change, as the value of a field.
pub(super) const MAX_CHANGE_BYTES: usize = {
    let member =
        SIZED_BYTES + NUMBER_FIELD_BYTES + field_bytes(MAX_ADDRESS_BYTES) + 2 * field_bytes(1);
    let target = OPEN_FIELD_BYTES + MAX_NODES * member;
    ID_FIELD_BYTES + 2 * target + NUMBER_FIELD_BYTES
};

/// The bytes of the largest ending, with its length.
pub(super) const MAX_ENDING_BYTES: usize = {
    let ids = field_bytes(MAX_NODES * size_of::<NodeId>());
    SIZED_BYTES + ID_FIELD_BYTES + field_bytes(1) + ids
};

/// Appends a field of a change's id.
pub(super) fn put_change_field(to: &mut Gather, tag: u8, change: ChangeId) {
    put_field_head(to, tag, size_of::<ChangeId>());
    to.put_slice(&change.0.to_le_bytes());
}

/// Takes a field of a change's id.
pub(super) fn take_change_id(fields: &mut Fields, tag: u8) -> Result<ChangeId, DecodeError> {
    fields.array(tag).map(|bytes| ChangeId(u128::from_le_bytes(bytes)))
}

fn put_target_field(to: &mut Gather, tag: u8, target: &Target) {
    put_field(to, tag, |to| {
        for (id, Member { address, role, priority }) in &target.members {
            put_sized(to, |to| {
                put_number_field(to, ONE, *id);
                put_address_field(to, TWO, address);
                let role = match role {
                    MemberRole::Voter => VOTER,
                    MemberRole::Learner => LEARNER,
                };
                put_byte_field(to, THREE, role);
                if *priority != 0 {
                    put_byte_field(to, PRIORITY, *priority);
                }
            });
        }
    });
}

fn take_target(fields: &mut Fields, tag: u8) -> Result<Target, DecodeError> {
    let members = fields.list(tag, MAX_NODES, "member of a target", |member| {
        let id = member.number(ONE)?;
        let address = take_address(member, TWO)?;
        let role = match member.byte(THREE)? {
            VOTER => MemberRole::Voter,
            LEARNER => MemberRole::Learner,
            kind => return Err(DecodeError::Kind { what: "role", kind }),
        };
        let priority = member.optional(PRIORITY, Fields::byte)?.unwrap_or_default();
        Ok((id, Member { address, role, priority }))
    })?;
    let members: BTreeMap<NodeId, Member> = ascending(members, "members of a target")?;
    Ok(Target { members })
}

impl Structure for Change {
    const WHAT: &'static str = "change";

    fn put(&self, to: &mut Gather) {
        put_change_field(to, ONE, self.id);
        put_target_field(to, TWO, &self.target);
        put_target_field(to, THREE, &self.before);
        put_number_field(to, FOUR, self.catch_up);
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let id = take_change_id(fields, ONE)?;
        let target = take_target(fields, TWO)?;
        let before = take_target(fields, THREE)?;
        Ok(Self { id, target, before, catch_up: fields.number(FOUR)? })
    }
}

const DONE: u8 = 1;
const CANCELLED: u8 = 2;
const LATE: u8 = 3;
const SUPERSEDED: u8 = 4;

/// Appends the fields of an ending.
pub(super) fn put_ending(to: &mut Gather, change: ChangeId, ending: &Ending) {
    put_change_field(to, ONE, change);
    match ending {
        Ending::Done => put_byte_field(to, TWO, DONE),
        Ending::Cancelled => put_byte_field(to, TWO, CANCELLED),
        Ending::Late { waits_for } => {
            put_byte_field(to, TWO, LATE);
            put_ids_field(to, THREE, waits_for);
        }
        Ending::Superseded { by } => {
            put_byte_field(to, TWO, SUPERSEDED);
            put_change_field(to, FOUR, *by);
        }
    }
}

/// Takes the fields of an ending.
pub(super) fn take_ending(fields: &mut Fields) -> Result<(ChangeId, Ending), DecodeError> {
    let change = take_change_id(fields, ONE)?;
    let ending = match fields.byte(TWO)? {
        DONE => Ending::Done,
        CANCELLED => Ending::Cancelled,
        LATE => Ending::Late { waits_for: take_ids(fields, THREE)? },
        SUPERSEDED => Ending::Superseded { by: take_change_id(fields, FOUR)? },
        kind => return Err(DecodeError::Kind { what: "ending", kind }),
    };
    Ok((change, ending))
}

impl Structure for ChangeRequest {
    const WHAT: &'static str = "request for a change";

    fn put(&self, to: &mut Gather) {
        put_change_field(to, ONE, self.id);
        let ChangeKind::Begin { target, options } = &self.kind else { return };
        let ChangeOptions { follows, catch_up, allow_lower_tolerance } = options;
        put_target_field(to, TWO, target);
        if let Some(follows) = follows {
            put_change_field(to, THREE, *follows);
        }
        let catch_up = u64::try_from(catch_up.as_millis()).unwrap_or(u64::MAX);
        put_number_field(to, FOUR, catch_up);
        put_byte_field(to, FIVE, u8::from(*allow_lower_tolerance));
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let id = take_change_id(fields, ONE)?;
        let Some(target) = fields.optional(TWO, take_target)? else {
            return Ok(Self { id, kind: ChangeKind::Cancel });
        };
        let follows = fields.optional(THREE, take_change_id)?;
        let catch_up = Duration::from_millis(fields.number(FOUR)?);
        let allow_lower_tolerance = take_bool(fields, FIVE)?;
        let options = ChangeOptions { follows, catch_up, allow_lower_tolerance };
        Ok(Self { id, kind: ChangeKind::Begin { target, options } })
    }
}

const AWAIT: u8 = 1;
const NOTHING: u8 = 2;
const AGAIN: u8 = 3;
const REFUSED: u8 = 4;
const NOTED: u8 = 5;

const BAD_TARGET: u8 = 1;
const UNDER_WAY: u8 = 2;
const CONFLICT: u8 = 3;
const LOWERS_TOLERANCE: u8 = 4;
const NOT_UNDER_WAY: u8 = 5;

impl Structure for ChangeReply {
    const WHAT: &'static str = "answer to a request for a change";

    fn put(&self, to: &mut Gather) {
        match self {
            Self::Await(change) => {
                put_byte_field(to, ONE, AWAIT);
                put_change_field(to, TWO, *change);
            }
            Self::Nothing => put_byte_field(to, ONE, NOTHING),
            Self::Again => put_byte_field(to, ONE, AGAIN),
            Self::Noted => put_byte_field(to, ONE, NOTED),
            Self::Refused(refusal) => {
                put_byte_field(to, ONE, REFUSED);
                put_refusal(to, refusal);
            }
        }
    }

    fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(match fields.byte(ONE)? {
            AWAIT => Self::Await(take_change_id(fields, TWO)?),
            NOTHING => Self::Nothing,
            AGAIN => Self::Again,
            NOTED => Self::Noted,
            REFUSED => Self::Refused(take_refusal(fields)?),
            kind => return Err(DecodeError::Kind { what: "answer to a request", kind }),
        })
    }
}

fn put_refusal(to: &mut Gather, refusal: &ChangeRefusal) {
    match refusal {
        ChangeRefusal::Target(reason) => {
            put_byte_field(to, THREE, BAD_TARGET);
            let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
            put_field_head(to, FOUR, reason.len());
            to.put_slice(reason.as_bytes());
        }
        ChangeRefusal::UnderWay { membership } => {
            put_byte_field(to, THREE, UNDER_WAY);
            put_structure_field(to, FIVE, membership);
        }
        ChangeRefusal::Conflict { membership } => {
            put_byte_field(to, THREE, CONFLICT);
            put_structure_field(to, FIVE, membership);
        }
        ChangeRefusal::LowersTolerance { now, lowest } => {
            put_byte_field(to, THREE, LOWERS_TOLERANCE);
            put_number_field(to, SIX, *now);
            put_number_field(to, SEVEN, *lowest);
        }
        ChangeRefusal::NotUnderWay => put_byte_field(to, THREE, NOT_UNDER_WAY),
    }
}

fn take_refusal(fields: &mut Fields) -> Result<ChangeRefusal, DecodeError> {
    Ok(match fields.byte(THREE)? {
        BAD_TARGET => ChangeRefusal::Target(take_reason(&fields.bytes(FOUR)?)?),
        UNDER_WAY => ChangeRefusal::UnderWay { membership: fields.structure(FIVE)? },
        CONFLICT => ChangeRefusal::Conflict { membership: fields.structure(FIVE)? },
        LOWERS_TOLERANCE => {
            let now = fields.number(SIX)?;
            ChangeRefusal::LowersTolerance { now, lowest: fields.number(SEVEN)? }
        }
        NOT_UNDER_WAY => ChangeRefusal::NotUnderWay,
        kind => return Err(DecodeError::Kind { what: "refusal", kind }),
    })
}

fn take_reason(bytes: &Bytes) -> Result<String, DecodeError> {
    if bytes.len() > MAX_REASON_BYTES {
        return Err(DecodeError::Invalid(format!("a reason of {} bytes", bytes.len())));
    }
    let reason = str::from_utf8(bytes);
    reason.map(str::to_owned).map_err(|_| DecodeError::Invalid("a reason not in UTF-8".to_owned()))
}
