//! Which disks may be damaged: so few at a time that what was committed stays recoverable from the others.
//!
//! Raft survives the loss of a minority's disks, if those nodes are kept from voting until they have caught up. So a node whose disk was damaged or replaced counts as
//! impaired until it says that it has caught up, and its log has all that was committed then.

use std::cell::RefCell;
use std::collections::BTreeMap;

use quorate::{Index, NodeId};

/// What is wrong with a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// Something on it has changed.
    Rotten,
    /// It was replaced by an empty one.
    Replaced,
    /// … and the node says that it has caught up, when so much was committed.
    CaughtUp(Index),
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
    pub fn replaced(&self, node: NodeId) {
        self.damaged.borrow_mut().insert(node, Damage::Replaced);
    }

    pub fn is_rotten(&self, node: NodeId) -> bool {
        self.damaged.borrow().get(&node) == Some(&Damage::Rotten)
    }

    /// Whether something is wrong with its disk, or was, and it may not have all of it again.
    pub fn is_impaired(&self, node: NodeId) -> bool {
        self.damaged.borrow().contains_key(&node)
    }

    /// What is durable at a node, and what is committed. Whether that makes it whole again.
    pub fn look(&self, node: NodeId, caught_up: bool, durable: Index, committed: Index) -> bool {
        let mut damaged = self.damaged.borrow_mut();
        match damaged.get(&node).copied() {
            Some(Damage::Replaced) if caught_up => {
                damaged.insert(node, Damage::CaughtUp(committed));
                false
            }
            Some(Damage::CaughtUp(wanted)) if durable >= wanted => {
                damaged.remove(&node);
                true
            }
            _ => false,
        }
    }
}
