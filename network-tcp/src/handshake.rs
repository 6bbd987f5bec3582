//! Who speaks to whom. The connecting side sends a [`Hello`], the accepting side an [`Answer`]; then frames go one way
//! and reports of what has arrived the other. Pure: bytes in, bytes out.
//!
//! All numbers are little-endian. A hello is: magic (8 bytes), version (4), cluster (8), the sender's node id (8), the node
//! id it wants (8), the lane (1), the length of the sender's address (4), the address. An answer is: magic (8), version (4), cluster (8),
//! node id (8), verdict (1). In every version, a hello begins with magic and version, and the answer is this one.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_core::{Body, MAX_ADDRESS_BYTES, NodeId};
use thiserror::Error;

const MAGIC: u64 = u64::from_le_bytes(*b"quorate\n");

/// The version of the protocol: of the handshake, the frames and the messages.
const VERSION: u32 = 2;

/// What of a hello is the same in every version.
const PREFIX_BYTES: usize = 12;

/// A hello without its address.
const HELLO_BYTES: usize = 41;

/// The largest hello.
pub(crate) const MAX_HELLO_BYTES: usize = HELLO_BYTES + MAX_ADDRESS_BYTES;

/// An answer.
pub(crate) const ANSWER_BYTES: usize = 29;

/// Which of the two connections to a peer: a heartbeat must not wait behind the pieces of a snapshot, nor break off with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// For everything but the pieces of snapshots; the answers to these, too.
    Main,
    /// For the pieces of snapshots. It is open while there are any.
    Bulk,
}

impl Lane {
    /// The one for such a message.
    pub(crate) fn of(body: &Body) -> Self {
        if matches!(body, Body::Snapshot { .. }) { Self::Bulk } else { Self::Main }
    }

    fn code(self) -> u8 {
        match self {
            Self::Main => 0,
            Self::Bulk => 1,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Main, Self::Bulk].into_iter().find(|lane| lane.code() == code)
    }
}

/// What the connecting side says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster: u64,
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) lane: Lane,
    /// Where `from` is reached.
    pub(crate) address: String,
}

/// What the accepting side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) cluster: u64,
    pub(crate) node: NodeId,
    /// None: accepted.
    pub(crate) refused: Option<Refusal>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("the other side speaks another protocol")]
    Magic,
    #[error("the versions of the protocol differ")]
    Version,
    #[error("the cluster ids differ")]
    Cluster,
    #[error("another node lives at this address")]
    Node,
    #[error("the hello is malformed")]
    Malformed,
    /// One of a later version.
    #[error("reason {0}")]
    Unknown(u8),
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::Magic => 1,
            Self::Version => 2,
            Self::Cluster => 3,
            Self::Node => 4,
            Self::Malformed => 5,
            Self::Unknown(code) => code,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Magic),
            2 => Some(Self::Version),
            3 => Some(Self::Cluster),
            4 => Some(Self::Node),
            5 => Some(Self::Malformed),
            code => Some(Self::Unknown(code)),
        }
    }
}

/// Whether this may become what we expect: something else may say little, and then wait for an answer.
fn begins_with_magic(bytes: &[u8]) -> bool {
    bytes.iter().zip(MAGIC.to_le_bytes()).all(|(is, should)| *is == should)
}

impl Hello {
    pub(crate) fn encode(&self) -> Bytes {
        assert!(self.address.len() <= MAX_ADDRESS_BYTES);
        let mut to = BytesMut::with_capacity(HELLO_BYTES + self.address.len());
        to.put_u64_le(MAGIC);
        to.put_u32_le(VERSION);
        to.put_u64_le(self.cluster);
        to.put_u64_le(self.from);
        to.put_u64_le(self.to);
        to.put_u8(self.lane.code());
        to.put_u32_le(self.address.len() as u32);
        to.put_slice(self.address.as_bytes());
        to.freeze()
    }

    /// Takes a hello off the front; none if it has not arrived whole. What can be refused is refused as soon as it is
    /// there, before anything that comes after it is looked at.
    pub(crate) fn take(from: &mut BytesMut) -> Result<Option<Self>, Refusal> {
        if from.len() < PREFIX_BYTES {
            return begins_with_magic(from).then_some(None).ok_or(Refusal::Magic);
        }
        let mut head = &from[..];
        if head.get_u64_le() != MAGIC {
            return Err(Refusal::Magic);
        }
        if head.get_u32_le() != VERSION {
            return Err(Refusal::Version);
        }
        if from.len() < HELLO_BYTES {
            return Ok(None);
        }
        let cluster = head.get_u64_le();
        let (sender, to) = (head.get_u64_le(), head.get_u64_le());
        let lane = Lane::from_code(head.get_u8()).ok_or(Refusal::Malformed)?;
        let address_bytes = head.get_u32_le() as usize;
        if address_bytes > MAX_ADDRESS_BYTES || sender == 0 || to == 0 {
            return Err(Refusal::Malformed);
        }
        let Some(address) = head.get(..address_bytes) else { return Ok(None) };
        let address = std::str::from_utf8(address).map_err(|_| Refusal::Malformed)?.to_owned();
        from.advance(HELLO_BYTES + address_bytes);
        Ok(Some(Self { cluster, from: sender, to, lane, address }))
    }

    /// Whether a node may accept it.
    pub(crate) fn check(&self, cluster: u64, node: NodeId) -> Result<(), Refusal> {
        if self.cluster != cluster {
            return Err(Refusal::Cluster);
        }
        if self.to != node {
            return Err(Refusal::Node);
        }
        if self.from == node {
            return Err(Refusal::Malformed);
        }
        Ok(())
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(ANSWER_BYTES);
        to.put_u64_le(MAGIC);
        to.put_u32_le(VERSION);
        to.put_u64_le(self.cluster);
        to.put_u64_le(self.node);
        to.put_u8(self.refused.map_or(0, Refusal::code));
        to.freeze()
    }

    /// Takes an answer off the front; none if it has not arrived whole.
    pub(crate) fn take(from: &mut BytesMut) -> Result<Option<Self>, Refusal> {
        let Some(answer) = from.get(..ANSWER_BYTES) else {
            return begins_with_magic(from).then_some(None).ok_or(Refusal::Magic);
        };
        let mut head = answer;
        if head.get_u64_le() != MAGIC {
            return Err(Refusal::Magic);
        }
        if head.get_u32_le() != VERSION {
            return Err(Refusal::Version);
        }
        let (cluster, node) = (head.get_u64_le(), head.get_u64_le());
        let refused = Refusal::from_code(head.get_u8());
        from.advance(ANSWER_BYTES);
        Ok(Some(Self { cluster, node, refused }))
    }

    /// Whether it is a welcome by the node that `hello` asked for.
    pub(crate) fn check(&self, hello: &Hello) -> Result<(), Refusal> {
        if self.cluster != hello.cluster {
            return Err(Refusal::Cluster);
        }
        if self.node != hello.to {
            return Err(Refusal::Node);
        }
        self.refused.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello { cluster: 9, from: 1, to: 2, lane: Lane::Main, address: "raft-1:7001".to_owned() }
    }

    #[test]
    fn a_hello_comes_out_as_it_went_in_and_only_whole() {
        for hello in [hello(), Hello { lane: Lane::Bulk, ..hello() }] {
            let bytes = hello.encode();
            for len in 0..bytes.len() {
                let part = Hello::take(&mut BytesMut::from(&bytes[..len]));
                assert_eq!(part, Ok(None), "{len} bytes");
            }
            let mut stream = BytesMut::from(&bytes[..]);
            stream.put_slice(b"more");
            assert_eq!(Hello::take(&mut stream), Ok(Some(hello)));
            assert_eq!(stream, "more");
        }
    }

    #[test]
    fn an_answer_comes_out_as_it_went_in_and_only_whole() {
        let refusals = [
            None,
            Some(Refusal::Magic),
            Some(Refusal::Version),
            Some(Refusal::Cluster),
            Some(Refusal::Node),
            Some(Refusal::Malformed),
            Some(Refusal::Unknown(77)),
        ];
        for refused in refusals {
            let answer = Answer { cluster: 9, node: 2, refused };
            let bytes = answer.encode();
            for len in 0..bytes.len() {
                assert_eq!(Answer::take(&mut BytesMut::from(&bytes[..len])), Ok(None));
            }
            let mut stream = BytesMut::from(&bytes[..]);
            stream.put_slice(b"more");
            assert_eq!(Answer::take(&mut stream), Ok(Some(answer)));
            assert_eq!(stream, "more");
            assert_eq!(answer.check(&hello()), refused.map_or(Ok(()), Err));
        }
    }

    #[test]
    fn a_hello_is_refused_for_what_is_wrong_with_it() {
        let with = |change: &dyn Fn(&mut BytesMut)| {
            let mut bytes = BytesMut::from(&hello().encode()[..]);
            change(&mut bytes);
            Hello::take(&mut bytes)
        };
        assert_eq!(with(&|bytes| bytes[0] ^= 1), Err(Refusal::Magic));
        assert_eq!(with(&|bytes| bytes[8] ^= 2), Err(Refusal::Version));
        assert_eq!(with(&|bytes| bytes[20] = 0), Err(Refusal::Malformed), "from node 0");
        assert_eq!(with(&|bytes| bytes[28] = 0), Err(Refusal::Malformed), "to node 0");
        assert_eq!(with(&|bytes| bytes[36] = 2), Err(Refusal::Malformed), "on a third lane");
        assert_eq!(with(&|bytes| bytes[40] = 1), Err(Refusal::Malformed), "an address of 16 MiB");
        assert_eq!(with(&|bytes| bytes[46] = 0xFF), Err(Refusal::Malformed), "not UTF-8");
        assert_eq!(Hello::take(&mut BytesMut::from("PING\r\n")), Err(Refusal::Magic));
        assert_eq!(hello().check(9, 2), Ok(()));
        assert_eq!(hello().check(8, 2), Err(Refusal::Cluster));
        assert_eq!(hello().check(9, 3), Err(Refusal::Node));
        assert_eq!(Hello { to: 1, ..hello() }.check(9, 1), Err(Refusal::Malformed), "from itself");
    }

    #[test]
    fn an_answer_is_refused_for_what_is_wrong_with_it() {
        assert_eq!(Answer::take(&mut BytesMut::from("HTTP/1.1")), Err(Refusal::Magic));
        assert_eq!(Answer::take(&mut BytesMut::from("-ERR\r\n")), Err(Refusal::Magic));
        let answer = Answer { cluster: 9, node: 2, refused: None };
        let mut bytes = BytesMut::from(&answer.encode()[..]);
        bytes[8] += 1;
        assert_eq!(Answer::take(&mut bytes), Err(Refusal::Version));
        assert_eq!(Answer { cluster: 1, ..answer }.check(&hello()), Err(Refusal::Cluster));
        assert_eq!(Answer { node: 3, ..answer }.check(&hello()), Err(Refusal::Node));
    }
}
