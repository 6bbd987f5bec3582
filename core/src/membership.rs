//! Who belongs to a cluster, and where each node is reached.

use std::collections::BTreeMap;

use crate::types::NodeId;

/// The nodes of a cluster and the addresses at which their peers reach them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    voters: BTreeMap<NodeId, String>,
}

/// The most nodes in a membership. A larger quorum only makes each write slower; the bound keeps what a peer or a disk
/// can make us allocate small.
pub const MAX_NODES: usize = 64;

/// The longest address, in bytes: longer than any host name.
pub const MAX_ADDRESS_BYTES: usize = 512;

impl Membership {
    /// A membership of these voters.
    ///
    /// Errors: a sentence that says what is wrong: no voter, an id of 0, more than [`MAX_NODES`], an address longer
    /// than [`MAX_ADDRESS_BYTES`].
    pub fn new(voters: BTreeMap<NodeId, String>) -> Result<Self, String> {
        if voters.is_empty() {
            return Err("a membership needs at least one voter".to_owned());
        }
        if voters.len() > MAX_NODES {
            return Err(format!("{} nodes are more than {MAX_NODES}", voters.len()));
        }
        if voters.contains_key(&0) {
            return Err("a node id must not be 0".to_owned());
        }
        if let Some((id, _)) = voters.iter().find(|(_, a)| a.len() > MAX_ADDRESS_BYTES) {
            return Err(format!(
                "the address of node {id} is longer than {MAX_ADDRESS_BYTES} bytes"
            ));
        }
        Ok(Self { voters })
    }

    /// The voters and their addresses.
    pub fn voters(&self) -> &BTreeMap<NodeId, String> {
        &self.voters
    }

    /// Whether `id` votes.
    pub fn is_voter(&self, id: NodeId) -> bool {
        self.voters.contains_key(&id)
    }

    /// The address of a node.
    pub fn address(&self, id: NodeId) -> Option<&str> {
        self.voters.get(&id).map(String::as_str)
    }

    /// Its size as the limits count it: that of its binary form, by which a store can tell it without reading.
    pub(crate) fn bytes(&self) -> usize {
        5 + self.voters.values().map(|address| 12 + address.len()).sum::<usize>()
    }
}
