//! Which disks may be damaged: so few at a time that what was committed stays recoverable from the others.
//!
//! Raft survives the loss of a minority's disks, if those nodes know of it or are kept from voting until they have caught up. So a node whose disk was damaged or
//! replaced counts as impaired until its log has all that was committed when it began anew; and until then it is *fragile*: it must not be killed, since it
//! could not know of its earlier life any more (see docs/divergence.md).

use std::cell::RefCell;
use std::collections::BTreeMap;

use quorate::{Index, NodeId};

/// What is wrong with a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// Something on it has changed.
    Rotten,
    /// It was replaced by an empty one, and the node's log has to reach this.
    Replaced(Index),
}

pub struct Atlas {
    nodes: u64,
    damaged: RefCell<BTreeMap<NodeId, Damage>>,
}

impl Atlas {
    pub fn new(nodes: u64) -> Self {
        Self { nodes, damaged: RefCell::default() }
    }

    /// Whether one more disk may be damaged, this one.
    pub fn may_damage(&self, node: NodeId) -> bool {
        let damaged = self.damaged.borrow();
        let minority = (self.nodes as usize - 1) / 2;
        !damaged.contains_key(&node) && damaged.len() < minority
    }

    pub fn rots(&self, node: NodeId) {
        self.damaged.borrow_mut().insert(node, Damage::Rotten);
    }

    /// Its disk is a new one.
    pub fn replaced(&self, node: NodeId, has_to_reach: Index) {
        self.damaged.borrow_mut().insert(node, Damage::Replaced(has_to_reach));
    }

    pub fn is_rotten(&self, node: NodeId) -> bool {
        self.damaged.borrow().get(&node) == Some(&Damage::Rotten)
    }

    /// Whether it must not be killed.
    pub fn is_fragile(&self, node: NodeId) -> bool {
        matches!(self.damaged.borrow().get(&node), Some(Damage::Replaced(_)))
    }

    /// A node's log is durable up to here.
    pub fn reaches(&self, node: NodeId, durable: Index) {
        let mut damaged = self.damaged.borrow_mut();
        if let Some(Damage::Replaced(wanted)) = damaged.get(&node)
            && durable >= *wanted
        {
            damaged.remove(&node);
        }
    }
}
