//! The bytes of a handshake. Pure.
//!
//! # Version 3
//!
//! All numbers are little-endian. The tables below are of *fields*, as
//! [`quorate_core::codec::fields`] has them: tag, length, value. So each message grows without a
//! new version. Fields are marked "refuse" and must be there, unless the table says otherwise. A
//! replica is its node (8 bytes) and its incarnation (8), a boot its number (8) and its tag (8).
//!
//! A hello begins with magic (8 bytes), the lowest and the highest version that the dialler speaks
//! (4 and 4), and the length of the fields (4). This is the same in all versions.
//!
//! | field | |
//! | --- | --- |
//! | 1 | the dialler: a replica |
//! | 2 | whom it wants: a replica, with incarnation 0 for whichever store the node has |
//! | 3 | the dialler's boot |
//! | 4 | the state of its store, a byte: 0 empty, 1 claimed, 2 member, 3 spent |
//! | 5 | the lane, a byte: 0 main, 1 bulk |
//! | 6 | a nonce (16 bytes) |
//! | 7 | the address at which the dialler is reached; may be skipped, and missing |
//!
//! An answer begins with magic (8), the version that is used from here on (4, 0 for none), the
//! lowest and the highest version that the acceptor speaks (4 and 4), the reason of a refusal (1, 0
//! for none), and the length of the fields (4). This is the same in all versions. A refusal may be
//! without fields.
//!
//! | field | |
//! | --- | --- |
//! | 1 | the acceptor: a replica |
//! | 2 | its boot |
//! | 3 | the state of its store, as in a hello |
//! | 4 | a nonce (16 bytes) |
//! | 5 | its mac (32 bytes); missing without a cluster, and in a refusal |
//!
//! A confirmation is the length of the fields (4), and:
//!
//! | field | |
//! | --- | --- |
//! | 1 | the reason why the dialler refuses the answer (1 byte); missing if it does not, and otherwise alone |
//! | 2 | its mac (32 bytes); missing without a cluster |
//! | 3 | what its groups remember of the acceptor, each a length (4 bytes) and fields; missing if that is nothing, or nothing is proven |
//!
//! What a group remembers: 1 the group (8 bytes); 2 the highest term (8); 3 the term of the latest
//! vote for the dialler (8); 4 the highest log id that was acknowledged (24: term, leader, index);
//! 5 the highest one of these that is committed (24); 6 the boot of the acceptor in which it has
//! shown that last (missing if that is not known).
//!
//! The version is the highest that both speak.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_core::codec::{
    DecodeError, Fields, Gather, LOG_ID_BYTES, REFUSE, put_field, put_log_id, take_u32, take_u64,
};
use quorate_core::{Boot, GroupId, MAX_ADDRESS_BYTES, Memory, Replica, StoreState, Term};

use super::{Answer, Confirm, Hello, Lane, Mac, Party, Refusal, VERSIONS, Versions};

const MAGIC: u64 = u64::from_le_bytes(*b"quorate\n");

/// Magic, versions and the length of the fields.
const HELLO_PREFIX_BYTES: usize = 20;

/// Magic, version, versions, refusal and the length of the fields.
const ANSWER_PREFIX_BYTES: usize = 25;

/// The most bytes of fields in a hello and in an answer: an address, 100 bytes, and as much again
/// to grow.
const MAX_FIELDS_BYTES: usize = 2 * MAX_ADDRESS_BYTES + 512;

/// The largest hello. (An answer is not larger.)
pub(crate) const MAX_HELLO_BYTES: usize = HELLO_PREFIX_BYTES + MAX_FIELDS_BYTES;

/// The largest answer.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) const MAX_ANSWER_BYTES: usize = ANSWER_PREFIX_BYTES + MAX_FIELDS_BYTES;

/// Of how many groups a confirmation brings what they remember. With [`MAX_CONFIRM_BYTES`] it
/// bounds what a stranger can make us hold.
pub(crate) const MAX_MEMORIES: usize = 1024;

/// The largest confirmation: its memories have 98 bytes each, and may grow by half.
pub(crate) const MAX_CONFIRM_BYTES: usize = 160 * MAX_MEMORIES + 512;

impl Versions {
    fn take(from: &mut impl Buf) -> Self {
        Self { min: from.get_u32_le(), max: from.get_u32_le() }
    }

    fn put(self, to: &mut BytesMut) {
        to.put_u32_le(self.min);
        to.put_u32_le(self.max);
    }
}

const HELLO_FROM: u8 = REFUSE | 1;
const HELLO_TO: u8 = REFUSE | 2;
const HELLO_BOOT: u8 = REFUSE | 3;
const HELLO_STATE: u8 = REFUSE | 4;
const HELLO_LANE: u8 = REFUSE | 5;
const HELLO_NONCE: u8 = REFUSE | 6;
const HELLO_ADDRESS: u8 = 7;

impl Hello {
    pub(crate) fn encode(&self) -> Bytes {
        assert!(self.address.len() <= MAX_ADDRESS_BYTES);
        let mut to = BytesMut::new();
        to.put_u64_le(MAGIC);
        self.versions.put(&mut to);
        put_sized(&mut to, |fields| {
            let Party { replica, boot, state, nonce } = &self.from;
            put_pair_field(fields, HELLO_FROM, [replica.id, replica.incarnation]);
            put_pair_field(fields, HELLO_TO, [self.to.id, self.to.incarnation]);
            put_pair_field(fields, HELLO_BOOT, [boot.number, boot.tag]);
            put_slice_field(fields, HELLO_STATE, &[state_code(*state)]);
            put_slice_field(fields, HELLO_LANE, &[self.lane as u8]);
            put_slice_field(fields, HELLO_NONCE, nonce);
            if !self.address.is_empty() {
                put_slice_field(fields, HELLO_ADDRESS, self.address.as_bytes());
            }
        });
        to.freeze()
    }

    /// Takes a hello off the front; none if it has not arrived whole. What can be refused is
    /// refused as soon as it is there, before anything that comes after it is looked at.
    pub(crate) fn take(from: &mut BytesMut) -> Result<Option<Self>, Refusal> {
        check_magic(from)?;
        let Some(mut prefix) = from.get(size_of_val(&MAGIC)..HELLO_PREFIX_BYTES) else {
            return Ok(None);
        };
        let versions = Versions::take(&mut prefix);
        if VERSIONS.agree(versions).is_none() {
            return Err(Refusal::Versions { theirs: versions });
        }
        let Some(fields) = take_fields(from, HELLO_PREFIX_BYTES, MAX_FIELDS_BYTES)? else {
            return Ok(None);
        };
        let mut fields = Fields::new("hello", fields);
        let replica = fields.replica(HELLO_FROM)?;
        let to = fields.value(HELLO_TO, take_pair)?;
        let boot = take_boot(&mut fields, HELLO_BOOT)?;
        let state = state_of(fields.byte(HELLO_STATE)?)?;
        let lane = fields.byte(HELLO_LANE)?;
        let lane = Lane::ALL.into_iter().find(|known| *known as u8 == lane);
        let nonce = fields.array(HELLO_NONCE)?;
        let address = fields.optional(HELLO_ADDRESS, Fields::bytes)?.unwrap_or_default();
        fields.finish()?;
        let address = std::str::from_utf8(&address).map_err(|_| Refusal::Malformed)?.to_owned();
        if to[0] == 0 || address.len() > MAX_ADDRESS_BYTES {
            return Err(Refusal::Malformed);
        }
        Ok(Some(Self {
            versions,
            from: Party { replica, boot, state, nonce },
            to: Replica::new(to[0], to[1]),
            lane: lane.ok_or(Refusal::Malformed)?,
            address,
        }))
    }
}

const ANSWER_NODE: u8 = REFUSE | 1;
const ANSWER_BOOT: u8 = REFUSE | 2;
const ANSWER_STATE: u8 = REFUSE | 3;
const ANSWER_NONCE: u8 = REFUSE | 4;
const ANSWER_MAC: u8 = REFUSE | 5;

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::new();
        to.put_u64_le(MAGIC);
        to.put_u32_le(self.version);
        self.versions.put(&mut to);
        to.put_u8(self.refused);
        put_sized(&mut to, |fields| {
            if let Some(Party { replica, boot, state, nonce }) = &self.node {
                put_pair_field(fields, ANSWER_NODE, [replica.id, replica.incarnation]);
                put_pair_field(fields, ANSWER_BOOT, [boot.number, boot.tag]);
                put_slice_field(fields, ANSWER_STATE, &[state_code(*state)]);
                put_slice_field(fields, ANSWER_NONCE, nonce);
            }
            if let Some(mac) = &self.mac {
                put_slice_field(fields, ANSWER_MAC, mac);
            }
        });
        to.freeze()
    }

    /// Takes an answer off the front; none if it has not arrived whole.
    pub(crate) fn take(from: &mut BytesMut) -> Result<Option<Self>, Refusal> {
        check_magic(from)?;
        let Some(mut prefix) = from.get(size_of_val(&MAGIC)..ANSWER_PREFIX_BYTES) else {
            return Ok(None);
        };
        let version = prefix.get_u32_le();
        let versions = Versions::take(&mut prefix);
        let refused = prefix.get_u8();
        let is_known = (VERSIONS.min..=VERSIONS.max).contains(&version);
        if !is_known && refused == 0 {
            return Err(Refusal::Versions { theirs: versions });
        }
        let Some(fields) = take_fields(from, ANSWER_PREFIX_BYTES, MAX_FIELDS_BYTES)? else {
            return Ok(None);
        };
        // The fields of a refusal are of the acceptor's version, and only for a better line in the
        // log.
        let said = take_answer(fields);
        let (node, mac) = if refused == 0 { said? } else { said.unwrap_or((None, None)) };
        Ok(Some(Self { version, versions, refused, node, mac }))
    }
}

fn take_answer(fields: Bytes) -> Result<(Option<Party>, Option<Mac>), DecodeError> {
    if fields.is_empty() {
        return Ok((None, None));
    }
    let mut fields = Fields::new("answer", fields);
    let replica = fields.replica(ANSWER_NODE)?;
    let boot = take_boot(&mut fields, ANSWER_BOOT)?;
    let state = state_of(fields.byte(ANSWER_STATE)?)?;
    let nonce = fields.array(ANSWER_NONCE)?;
    let mac = fields.optional(ANSWER_MAC, Fields::array)?;
    fields.finish()?;
    Ok((Some(Party { replica, boot, state, nonce }), mac))
}

const CONFIRM_REFUSED: u8 = REFUSE | 1;
const CONFIRM_MAC: u8 = REFUSE | 2;
const CONFIRM_REMEMBER: u8 = REFUSE | 3;

const MEMORY_GROUP: u8 = REFUSE | 1;
const MEMORY_TERM: u8 = REFUSE | 2;
const MEMORY_VOTED: u8 = REFUSE | 3;
const MEMORY_ACKNOWLEDGED: u8 = REFUSE | 4;
const MEMORY_COMMITTED: u8 = REFUSE | 5;
const MEMORY_BOOT: u8 = REFUSE | 6;

impl Confirm {
    pub(crate) fn encode(&self) -> Bytes {
        assert!(self.remember.len() <= MAX_MEMORIES);
        let mut to = BytesMut::new();
        put_sized(&mut to, |fields| {
            if self.refused != 0 {
                put_slice_field(fields, CONFIRM_REFUSED, &[self.refused]);
            }
            if let Some(mac) = &self.mac {
                put_slice_field(fields, CONFIRM_MAC, mac);
            }
            if !self.remember.is_empty() {
                put_field(fields, CONFIRM_REMEMBER, |fields| {
                    for (group, memory) in &self.remember {
                        put_memory(fields, *group, memory);
                    }
                });
            }
        });
        to.freeze()
    }

    /// Takes a confirmation off the front; none if it has not arrived whole.
    pub(crate) fn take(from: &mut BytesMut) -> Result<Option<Self>, Refusal> {
        let Some(fields) = take_fields(from, size_of::<u32>(), MAX_CONFIRM_BYTES)? else {
            return Ok(None);
        };
        let mut fields = Fields::new("confirmation", fields);
        let refused = fields.optional(CONFIRM_REFUSED, Fields::byte)?.unwrap_or(0);
        let mac = fields.optional(CONFIRM_MAC, Fields::array)?;
        let mut memories = fields.optional(CONFIRM_REMEMBER, Fields::bytes)?.unwrap_or_default();
        fields.finish()?;
        let mut remember = Vec::new();
        while !memories.is_empty() {
            if remember.len() == MAX_MEMORIES {
                return Err(Refusal::Malformed);
            }
            let len = take_u32(&mut memories, "memory")? as usize;
            if len > memories.len() {
                return Err(Refusal::Malformed);
            }
            remember.push(take_memory(memories.split_to(len))?);
        }
        Ok(Some(Self { refused, mac, remember }))
    }
}

fn put_memory(to: &mut Gather, group: GroupId, memory: &Memory) {
    let mut fields = Gather::new();
    let Memory { term, voted, acknowledged, committed, boot } = memory;
    put_slice_field(&mut fields, MEMORY_GROUP, &group.to_le_bytes());
    put_slice_field(&mut fields, MEMORY_TERM, &term.0.to_le_bytes());
    put_slice_field(&mut fields, MEMORY_VOTED, &voted.0.to_le_bytes());
    for (tag, log_id) in [(MEMORY_ACKNOWLEDGED, *acknowledged), (MEMORY_COMMITTED, *committed)] {
        fields.put_slice(&[tag, LOG_ID_BYTES as u8]);
        put_log_id(&mut fields, log_id);
    }
    if *boot != Boot::default() {
        put_pair_field(&mut fields, MEMORY_BOOT, [boot.number, boot.tag]);
    }
    to.put_u32(fields.len() as u32);
    to.append(&mut fields);
}

fn take_memory(from: Bytes) -> Result<(GroupId, Memory), DecodeError> {
    let mut fields = Fields::new("memory", from);
    let group = fields.number(MEMORY_GROUP)?;
    let term = Term(fields.number(MEMORY_TERM)?);
    let voted = Term(fields.number(MEMORY_VOTED)?);
    let acknowledged = fields.log_id(MEMORY_ACKNOWLEDGED)?;
    let committed = fields.log_id(MEMORY_COMMITTED)?;
    let boot = fields.optional(MEMORY_BOOT, take_boot)?.unwrap_or_default();
    fields.finish()?;
    Ok((group, Memory { term, voted, acknowledged, committed, boot }))
}

/// Whether this may become what we expect: something else may say little, and then wait for an
/// answer.
fn check_magic(bytes: &[u8]) -> Result<(), Refusal> {
    let same = bytes.iter().zip(MAGIC.to_le_bytes()).all(|(is, should)| *is == should);
    if same { Ok(()) } else { Err(Refusal::Magic) }
}

/// Takes the fields off the front, and the prefix before them, which ends with their length; none
/// if they have not arrived whole.
fn take_fields(
    from: &mut BytesMut,
    prefix_bytes: usize,
    max_bytes: usize,
) -> Result<Option<Bytes>, Refusal> {
    let Some(prefix) = from.get(..prefix_bytes) else { return Ok(None) };
    let len = prefix.last_chunk().copied().map_or(0, u32::from_le_bytes) as usize;
    if len > max_bytes {
        return Err(Refusal::Malformed);
    }
    if from.len() - prefix_bytes < len {
        return Ok(None);
    }
    from.advance(prefix_bytes);
    Ok(Some(from.split_to(len).freeze()))
}

/// Appends the length of the fields that `put` appends, and these.
fn put_sized(to: &mut BytesMut, put: impl FnOnce(&mut Gather)) {
    let mut fields = Gather::new();
    put(&mut fields);
    to.put_u32_le(fields.len() as u32);
    fields.chunks().for_each(|chunk| to.put_slice(chunk));
}

fn put_slice_field(to: &mut Gather, tag: u8, value: &[u8]) {
    put_field(to, tag, |to| to.put_slice(value));
}

fn put_pair_field(to: &mut Gather, tag: u8, pair: [u64; 2]) {
    put_field(to, tag, |to| pair.into_iter().for_each(|number| to.put_u64(number)));
}

fn take_boot(fields: &mut Fields, tag: u8) -> Result<Boot, DecodeError> {
    let [number, tag] = fields.value(tag, take_pair)?;
    Ok(Boot { number, tag })
}

fn take_pair(from: &mut Bytes) -> Result<[u64; 2], DecodeError> {
    Ok([take_u64(from, "pair")?, take_u64(from, "pair")?])
}

const STATES: [StoreState; 5] = [
    StoreState::Empty,
    StoreState::Claimed,
    StoreState::Member,
    StoreState::Spent,
    StoreState::Admitted,
];

fn state_code(state: StoreState) -> u8 {
    STATES.iter().position(|known| *known == state).expect("all are listed") as u8
}

fn state_of(code: u8) -> Result<StoreState, DecodeError> {
    let state = STATES.get(usize::from(code)).copied();
    state.ok_or(DecodeError::Kind { what: "state of a store", kind: code })
}
