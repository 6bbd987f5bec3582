//! Who speaks to whom: what either side of a connection says first, and what that proves. Pure:
//! bytes in, bytes out.
//!
//! The dialler sends a [`Hello`], the acceptor an [`Answer`], the dialler a [`Confirm`]. Then
//! frames go one way, and reports of what has arrived the other.
//!
//! # What is proven
//!
//! A node that knows the id of its cluster proves so without sending it: a mac, which is the keyed
//! BLAKE3 hash of
//!
//! - a byte for the role of the side that makes it: 1 dialler, 2 acceptor, so that neither can send
//!   the other's back;
//! - the nonces of both sides, the dialler's first, so that no old one is of use;
//! - the replicas of both sides, and their boots.
//!
//! The key is derived from the cluster's id. A side without a cluster sends no mac. If both macs
//! verify, the connection is *proven*. Otherwise:
//!
//! - If both sides are members of a cluster, or were, they are of different ones, and the
//!   connection is refused.
//! - If not, the connection is *unproven*: only what forms a cluster or lets a new disk in goes
//!   over it (see [`is_formation`]).
//!
//! The dialler sends no frame before it has verified the answer, and the acceptor delivers none
//! before it has verified the confirmation. Without TLS around it this guards against mistakes, not
//! against attackers, who may change what follows.
//!
//! The bytes are in [`form`].

mod form;

use std::fmt;

use quorate_core::codec::DecodeError;
use quorate_core::{
    Body, Boot, ClusterId, Credentials, GroupId, Memory, Obstacle, Replica, StoreState,
};
use thiserror::Error;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use form::{MAX_ANSWER_BYTES, MAX_CONFIRM_BYTES};
pub(crate) use form::{MAX_HELLO_BYTES, MAX_MEMORIES};

/// The versions of the protocol that this code speaks: of the handshake, the frames and the
/// messages.
pub(crate) const VERSIONS: Versions = Versions { min: 3, max: 3 };

/// What the mac's key is derived for, so that the same id used as a key elsewhere gives another.
const MAC_CONTEXT: &str = "quorate 2026-01-01 handshake: the key of a cluster from its id";

/// A keyed BLAKE3 hash.
pub(crate) type Mac = [u8; 32];

/// A random number, used once.
pub(crate) type Nonce = [u8; 16];

/// Which of the two connections to a peer: a heartbeat must not wait behind the chunks of a
/// snapshot, nor break off with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// For everything but the chunks of snapshots; the answers to these, too.
    Main,
    /// For the chunks of snapshots. It is open while there are any.
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

/// Whether the connection is proven, by what the other side has sent. `expected` is the mac that
/// the other side makes if it is of our cluster.
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
    // Said on both sides, of whom either may be the one on the wrong disk: so by its id.
    #[error(
        "node {} runs on {}, {lives}, and the store {asked} was asked for: {}",
        lives.id, store(*is_empty), doubt(*is_empty)
    )]
    Replica { asked: Replica, lives: Replica, is_empty: bool },
    #[error("the handshake is malformed")]
    Malformed,
    // Either may be told so, whichever of them has connected again last.
    #[error(
        "two processes run as one replica: they share a data folder, or have copies of it. Stop one of them. To be \
         a node of its own, it needs another id and an empty folder"
    )]
    Twin,
    #[error(
        "the data folder of the node that is refused was put back to an earlier state, or is a copy: a later start \
         of it is remembered. Start that node on its latest folder. Only if a majority of the other nodes runs, start it \
         on an empty one, and keep the one that it has"
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

    /// What it is to the node that has dialled this address, or to which the peer has said so.
    pub(crate) fn obstacle(self, by_peer: bool, address: &str) -> Obstacle {
        let reason = self.to_string();
        match self {
            Self::Replica { lives, is_empty, .. } => Obstacle::OtherStore { lives, is_empty },
            // It is somebody else who lives there.
            Self::Node { .. } | Self::Magic | Self::Malformed => {
                Obstacle::Unreachable { address: address.to_owned(), reason }
            }
            _ if by_peer => Obstacle::Refuses { reason },
            _ => Obstacle::Refused { reason },
        }
    }

    /// Whether somebody must do something about it, lest data be lost.
    pub(crate) fn is_grave(self) -> bool {
        matches!(self, Self::Cluster | Self::Twin | Self::OlderBoot)
    }
}

fn store(is_empty: bool) -> &'static str {
    if is_empty { "an empty store" } else { "another store" }
}

fn doubt(is_empty: bool) -> &'static str {
    match is_empty {
        true => "its disk was lost, or it was started on another folder",
        false => {
            "its disk was exchanged for a new one, or one of the two nodes runs on another node's, another cluster's \
             or an older folder"
        }
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

impl Hello {
    /// Whether this node may accept it, as far as that can be told by looking at it alone.
    pub(crate) fn check(&self, own: &Credentials) -> Result<(), Refusal> {
        check_wanted(self.to, own.replica, own.state)?;
        if self.from.replica != own.replica {
            return Ok(());
        }
        let is_itself = self.from.boot.tag == own.boot.tag;
        Err(if is_itself { Refusal::Malformed } else { Refusal::Twin })
    }
}

/// Whether whoever lives there is the one that was asked for.
fn check_wanted(asked: Replica, lives: Replica, state: StoreState) -> Result<(), Refusal> {
    if asked.id != lives.id {
        return Err(Refusal::Node { asked, lives });
    }
    if asked.is_known() && asked != lives {
        let is_empty = !matches!(state, StoreState::Member | StoreState::Spent);
        return Err(Refusal::Replica { asked, lives, is_empty });
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

impl Answer {
    pub(crate) fn welcome(hello: &Hello, node: Party, mac: Option<Mac>) -> Self {
        let version = VERSIONS.agree(hello.versions).unwrap_or(0);
        Self { version, versions: VERSIONS, refused: 0, node: Some(node), mac }
    }

    pub(crate) fn refuse(refusal: Refusal, node: Option<Party>) -> Self {
        Self { version: 0, versions: VERSIONS, refused: refusal.code(), node, mac: None }
    }

    /// The acceptor, if it welcomes, and is the one that `hello` asked for.
    pub(crate) fn check(&self, hello: &Hello) -> Result<Party, Refusal> {
        const VERSIONS_CODE: u8 = 2;
        if self.refused == VERSIONS_CODE {
            return Err(Refusal::Versions { theirs: self.versions });
        }
        if let Some(node) = self.node {
            check_wanted(hello.to, node.replica, node.state)?;
        }
        match self.refused {
            0 => self.node.ok_or(Refusal::Malformed),
            code => Err(Refusal::from_code(code)),
        }
    }
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
