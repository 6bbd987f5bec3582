//! Who speaks to whom: what either side of a connection says first, and what that proves. Pure: bytes in, bytes out.
//!
//! The dialler sends a [`Hello`], the acceptor an [`Answer`], the dialler a [`Confirm`]. Then frames go one way, and reports
//! of what has arrived the other.
//!
//! # What is proven
//!
//! A node that knows the id of its cluster proves so without sending it: a mac, which is the keyed BLAKE3 hash of
//!
//! - a byte for the role of the side that makes it: 1 dialler, 2 acceptor, so that neither can send the other's back;
//! - the nonces of both sides, the dialler's first, so that no old one is of use;
//! - the replicas of both sides, and their boots.
//!
//! The key is derived from the cluster's id. A side without a cluster sends no mac. If both macs verify, the connection is
//! *proven*. Otherwise:
//!
//! - If both sides are members of a cluster, or were, they are of different ones, and the connection is refused.
//! - If not, the connection is *unproven*: only what forms a cluster or lets a new disk in goes over it (see [`is_formation`]).
//!
//! The dialler sends no frame before it has verified the answer, and the acceptor delivers none before it has verified the
//! confirmation. Without TLS around it this guards against mistakes, not against attackers, who may change what
//! follows.
//!
//! # Form, version 3
//!
//! All numbers are little-endian. The tables below are of *fields*, as [`quorate_core::codec::fields`] has them: tag, length, value. So
//! each message grows without a new version. Fields are marked "refuse" and must be there, unless the table says otherwise.
//! A replica is its node (8 bytes) and its incarnation (8), a boot its number (8) and its tag (8).
//!
//! A hello begins with magic (8 bytes), the lowest and the highest version that the dialler speaks (4 and 4), and the length of
//! the fields (4). This is the same in all versions.
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
//! An answer begins with magic (8), the version that is used from here on (4, 0 for none), the lowest and the highest version
//! that the acceptor speaks (4 and 4), the reason of a refusal (1, 0 for none), and the length of the fields (4). This
//! is the same in all versions. A refusal may be without fields.
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
//! What a group remembers: 1 the group (8 bytes); 2 the highest term (8); 3 the term of the latest vote for the dialler (8); 4 the highest
//! log id that was acknowledged (24: term, leader, index); 5 the highest one of these that is committed (24).
//!
//! The version is the highest that both speak.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_core::codec::{
    DecodeError, Fields, Gather, LOG_ID_BYTES, REFUSE, put_field, put_log_id, take_u32, take_u64,
};
use quorate_core::{
    Body, Boot, ClusterId, Credentials, GroupId, MAX_ADDRESS_BYTES, Memory, Replica, StoreState,
    Term,
};
use thiserror::Error;

const MAGIC: u64 = u64::from_le_bytes(*b"quorate\n");

/// The versions of the protocol that this code speaks: of the handshake, the frames and the messages.
pub(crate) const VERSIONS: Versions = Versions { min: 3, max: 3 };

/// Magic, versions and the length of the fields.
const HELLO_PREFIX_BYTES: usize = 20;

/// Magic, version, versions, refusal and the length of the fields.
const ANSWER_PREFIX_BYTES: usize = 25;

/// The most bytes of fields in a hello and in an answer: an address, 100 bytes, and as much again to grow.
const MAX_FIELDS_BYTES: usize = 2 * MAX_ADDRESS_BYTES + 512;

/// The largest hello. (An answer is not larger.)
pub(crate) const MAX_HELLO_BYTES: usize = HELLO_PREFIX_BYTES + MAX_FIELDS_BYTES;

/// The largest answer.
#[cfg(any(test, feature = "fuzz"))]
pub(crate) const MAX_ANSWER_BYTES: usize = ANSWER_PREFIX_BYTES + MAX_FIELDS_BYTES;

/// Of how many groups a confirmation brings what they remember. With [`MAX_CONFIRM_BYTES`] it bounds what a stranger can make
/// us hold.
pub(crate) const MAX_MEMORIES: usize = 1024;

/// The largest confirmation: its memories have 98 bytes each, and may grow by half.
pub(crate) const MAX_CONFIRM_BYTES: usize = 160 * MAX_MEMORIES + 512;

/// What the mac's key is derived for, so that the same id used as a key elsewhere gives another.
const MAC_CONTEXT: &str = "quorate 2026-01-01 handshake: the key of a cluster from its id";

/// A keyed BLAKE3 hash.
pub(crate) type Mac = [u8; 32];

/// A random number, used once.
pub(crate) type Nonce = [u8; 16];

/// Which of the two connections to a peer: a heartbeat must not wait behind the pieces of a snapshot, nor break off with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// For everything but the pieces of snapshots; the answers to these, too.
    Main,
    /// For the pieces of snapshots. It is open while there are any.
    Bulk,
}

impl Lane {
    const ALL: [Self; 2] = [Self::Main, Self::Bulk];

    /// The one for such a message.
    pub(crate) fn of(body: &Body) -> Self {
        if matches!(body, Body::Snapshot { .. }) { Self::Bulk } else { Self::Main }
    }
}

/// Whether a message forms a cluster, or lets a new disk in. Only these go where nothing is proven.
pub(crate) fn is_formation(body: &Body) -> bool {
    matches!(body, Body::Who { .. } | Body::Situation { .. } | Body::Claim(_) | Body::Admit { .. })
}

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl Versions {
    /// The highest version in both.
    pub(crate) fn agree(self, other: Self) -> Option<u32> {
        let highest = self.max.min(other.max);
        (highest >= self.min.max(other.min)).then_some(highest)
    }

    fn take(from: &mut impl Buf) -> Self {
        Self { min: from.get_u32_le(), max: from.get_u32_le() }
    }

    fn put(self, to: &mut BytesMut) {
        to.put_u32_le(self.min);
        to.put_u32_le(self.max);
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "{}", self.min),
            false => write!(f, "{} to {}", self.min, self.max),
        }
    }
}

/// One of the two sides, as it says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) replica: Replica,
    pub(crate) boot: Boot,
    pub(crate) state: StoreState,
    pub(crate) nonce: Nonce,
}

impl Party {
    pub(crate) fn new(own: &Credentials, nonce: Nonce) -> Self {
        Self { replica: own.replica, boot: own.boot, state: own.state, nonce }
    }
}

/// Which side makes a mac.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Dialler = 1,
    Acceptor = 2,
}

/// What proves that one side knows the id of the cluster.
pub(crate) fn mac(cluster: ClusterId, role: Role, dialler: &Party, acceptor: &Party) -> Mac {
    let key = blake3::derive_key(MAC_CONTEXT, &cluster.0.to_le_bytes());
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&[role as u8]);
    hasher.update(&dialler.nonce).update(&acceptor.nonce);
    for Party { replica, boot, .. } in [dialler, acceptor] {
        for number in [replica.id, replica.incarnation, boot.number, boot.tag] {
            hasher.update(&number.to_le_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

/// Whether the connection is proven, by what the other side has sent. `expected` is the mac that the other side makes if it is of our
/// cluster.
///
/// Errors: it is of another.
pub(crate) fn judge(
    own: StoreState,
    theirs: StoreState,
    expected: Option<Mac>,
    sent: Option<Mac>,
) -> Result<bool, Refusal> {
    let (Some(expected), Some(sent)) = (expected, sent) else { return Ok(false) };
    // This comparison takes the same time wherever they differ.
    if blake3::Hash::from(expected) == blake3::Hash::from(sent) {
        return Ok(true);
    }
    let is_bound = |state| matches!(state, StoreState::Member | StoreState::Spent);
    if is_bound(own) && is_bound(theirs) { Err(Refusal::Cluster) } else { Ok(false) }
}

/// Why a connection is refused, in words for either side.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("the other side speaks another protocol; is it a node's peer port?")]
    Magic,
    #[error(
        "no version of the protocol in common: this node speaks {VERSIONS}, the other {theirs}; \
         upgrade the older of the two through a release that speaks both"
    )]
    Versions { theirs: Versions },
    #[error(
        "the two nodes are members of different clusters, and exchange nothing; one was formed from another \
         list, or runs on a data folder of another cluster: check their addresses and folders. A node that is to join \
         this cluster needs an empty folder"
    )]
    Cluster,
    #[error("node {lives} lives at this address, and not node {asked}: check the addresses")]
    Node { asked: Replica, lives: Replica },
    #[error(
        "the node runs on another store, {lives}, than the one that was asked for, {asked}: it has lost its disk, \
         or runs on another data folder"
    )]
    Replica { asked: Replica, lives: Replica },
    #[error("the handshake is malformed")]
    Malformed,
    #[error(
        "two processes run on copies of one data folder; the one that came later is refused. Stop it, and start it \
         on an empty folder as a node of its own, or not at all"
    )]
    Twin,
    #[error(
        "the node's data folder was put back to an earlier state: it has started more often on this folder than the \
         folder knows. It may lack what it has acknowledged: give the node an empty folder, and it joins anew"
    )]
    OlderBoot,
    /// One of a later version.
    #[error("for a reason that this version does not know, number {0}")]
    Unknown(u8),
}

impl Refusal {
    /// What stands for it in an answer or a confirmation; 0 stands for none.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Magic => 1,
            Self::Versions { .. } => 2,
            Self::Cluster => 3,
            Self::Node { .. } => 4,
            Self::Malformed => 5,
            Self::Replica { .. } => 6,
            Self::Twin => 7,
            Self::OlderBoot => 8,
            Self::Unknown(code) => code,
        }
    }

    /// The one that stands alone; the others are made of what else there is.
    pub(crate) fn from_code(code: u8) -> Self {
        let alone = [Self::Magic, Self::Cluster, Self::Malformed, Self::Twin, Self::OlderBoot];
        alone.into_iter().find(|refusal| refusal.code() == code).unwrap_or(Self::Unknown(code))
    }

    /// Whether somebody must do something about it, lest data be lost.
    pub(crate) fn is_grave(self) -> bool {
        matches!(self, Self::Cluster | Self::Twin | Self::OlderBoot)
    }
}

impl From<DecodeError> for Refusal {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// What the dialler says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) versions: Versions,
    pub(crate) from: Party,
    /// Whom it wants; maybe [`any`](Replica::any) of a node.
    pub(crate) to: Replica,
    pub(crate) lane: Lane,
    /// Where `from` is reached; may be empty.
    pub(crate) address: String,
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

    /// Takes a hello off the front; none if it has not arrived whole. What can be refused is refused as soon as it is
    /// there, before anything that comes after it is looked at.
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
        let boot = fields.value(HELLO_BOOT, take_pair)?;
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
        let boot = Boot { number: boot[0], tag: boot[1] };
        Ok(Some(Self {
            versions,
            from: Party { replica, boot, state, nonce },
            to: Replica::new(to[0], to[1]),
            lane: lane.ok_or(Refusal::Malformed)?,
            address,
        }))
    }

    /// Whether this node may accept it, as far as that can be told by looking at it alone.
    pub(crate) fn check(&self, own: &Credentials) -> Result<(), Refusal> {
        check_wanted(self.to, own.replica)?;
        if self.from.replica != own.replica {
            return Ok(());
        }
        let is_itself = self.from.boot.tag == own.boot.tag;
        Err(if is_itself { Refusal::Malformed } else { Refusal::Twin })
    }
}

/// Whether whoever lives there is the one that was asked for.
fn check_wanted(asked: Replica, lives: Replica) -> Result<(), Refusal> {
    if asked.id != lives.id {
        return Err(Refusal::Node { asked, lives });
    }
    if asked.is_known() && asked != lives {
        return Err(Refusal::Replica { asked, lives });
    }
    Ok(())
}

/// What the acceptor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The one to be used; 0 where there is none.
    pub(crate) version: u32,
    pub(crate) versions: Versions,
    /// The code of a [`Refusal`]; 0 for a welcome.
    pub(crate) refused: u8,
    /// None where the acceptor has not even understood who asks.
    pub(crate) node: Option<Party>,
    pub(crate) mac: Option<Mac>,
}

const ANSWER_NODE: u8 = REFUSE | 1;
const ANSWER_BOOT: u8 = REFUSE | 2;
const ANSWER_STATE: u8 = REFUSE | 3;
const ANSWER_NONCE: u8 = REFUSE | 4;
const ANSWER_MAC: u8 = REFUSE | 5;

impl Answer {
    pub(crate) fn welcome(hello: &Hello, node: Party, mac: Option<Mac>) -> Self {
        let version = VERSIONS.agree(hello.versions).unwrap_or(0);
        Self { version, versions: VERSIONS, refused: 0, node: Some(node), mac }
    }

    pub(crate) fn refuse(refusal: Refusal, node: Option<Party>) -> Self {
        Self { version: 0, versions: VERSIONS, refused: refusal.code(), node, mac: None }
    }

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
        // The fields of a refusal are of the acceptor's version, and only for a better line in the log.
        let said = take_answer(fields);
        let (node, mac) = if refused == 0 { said? } else { said.unwrap_or((None, None)) };
        Ok(Some(Self { version, versions, refused, node, mac }))
    }

    /// The acceptor, if it welcomes, and is the one that `hello` asked for.
    pub(crate) fn check(&self, hello: &Hello) -> Result<Party, Refusal> {
        const VERSIONS_CODE: u8 = 2;
        if self.refused == VERSIONS_CODE {
            return Err(Refusal::Versions { theirs: self.versions });
        }
        if let Some(node) = self.node {
            check_wanted(hello.to, node.replica)?;
        }
        match self.refused {
            0 => self.node.ok_or(Refusal::Malformed),
            code => Err(Refusal::from_code(code)),
        }
    }
}

fn take_answer(fields: Bytes) -> Result<(Option<Party>, Option<Mac>), DecodeError> {
    if fields.is_empty() {
        return Ok((None, None));
    }
    let mut fields = Fields::new("answer", fields);
    let replica = fields.replica(ANSWER_NODE)?;
    let boot = fields.value(ANSWER_BOOT, take_pair)?;
    let state = state_of(fields.byte(ANSWER_STATE)?)?;
    let nonce = fields.array(ANSWER_NONCE)?;
    let mac = fields.optional(ANSWER_MAC, Fields::array)?;
    fields.finish()?;
    let boot = Boot { number: boot[0], tag: boot[1] };
    Ok((Some(Party { replica, boot, state, nonce }), mac))
}

/// What the dialler says to the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confirm {
    /// The code of a [`Refusal`]; 0 if it stays.
    pub(crate) refused: u8,
    pub(crate) mac: Option<Mac>,
    /// What its groups remember of the acceptor.
    pub(crate) remember: Vec<(GroupId, Memory)>,
}

const CONFIRM_REFUSED: u8 = REFUSE | 1;
const CONFIRM_MAC: u8 = REFUSE | 2;
const CONFIRM_REMEMBER: u8 = REFUSE | 3;

const MEMORY_GROUP: u8 = REFUSE | 1;
const MEMORY_TERM: u8 = REFUSE | 2;
const MEMORY_VOTED: u8 = REFUSE | 3;
const MEMORY_ACKNOWLEDGED: u8 = REFUSE | 4;
const MEMORY_COMMITTED: u8 = REFUSE | 5;

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
    let Memory { term, voted, acknowledged, committed } = memory;
    put_slice_field(&mut fields, MEMORY_GROUP, &group.to_le_bytes());
    put_slice_field(&mut fields, MEMORY_TERM, &term.0.to_le_bytes());
    put_slice_field(&mut fields, MEMORY_VOTED, &voted.0.to_le_bytes());
    for (tag, log_id) in [(MEMORY_ACKNOWLEDGED, *acknowledged), (MEMORY_COMMITTED, *committed)] {
        fields.put_slice(&[tag, LOG_ID_BYTES as u8]);
        put_log_id(&mut fields, log_id);
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
    fields.finish()?;
    Ok((group, Memory { term, voted, acknowledged, committed }))
}

/// Whether this may become what we expect: something else may say little, and then wait for an answer.
fn check_magic(bytes: &[u8]) -> Result<(), Refusal> {
    let same = bytes.iter().zip(MAGIC.to_le_bytes()).all(|(is, should)| *is == should);
    if same { Ok(()) } else { Err(Refusal::Magic) }
}

/// Takes the fields off the front, and the prefix before them, which ends with their length; none if they have not arrived whole.
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

fn take_pair(from: &mut Bytes) -> Result<[u64; 2], DecodeError> {
    Ok([take_u64(from, "pair")?, take_u64(from, "pair")?])
}

const STATES: [StoreState; 4] =
    [StoreState::Empty, StoreState::Claimed, StoreState::Member, StoreState::Spent];

fn state_code(state: StoreState) -> u8 {
    STATES.iter().position(|known| *known == state).expect("all are listed") as u8
}

fn state_of(code: u8) -> Result<StoreState, DecodeError> {
    let state = STATES.get(usize::from(code)).copied();
    state.ok_or(DecodeError::Kind { what: "state of a store", kind: code })
}
