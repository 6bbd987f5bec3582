//! Which disks may be damaged: so few at a time that what was committed stays recoverable from the
//! others.
//!
//! Raft survives the loss of a minority's disks, as it survives that so many nodes crash for ever:
//! a node with an empty disk is another replica, which has no vote yet. So a node whose disk was
//! damaged or replaced counts as impaired until its new replica votes in the committed
//! configuration.

use std::cell::RefCell;
use std::collections::BTreeMap;

use quorate::NodeId;

/// What is wrong with a node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// Something on it has changed.
    Rotten,
    /// It was replaced by an empty one.
    Replaced,
    /// It was put back to an earlier state, and will be replaced.
    PutBack,
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

    /// Its disk is an earlier one of it: as good as lost from now on, as the node has to stop.
    pub fn put_back(&self, node: NodeId) {
        self.damaged.borrow_mut().insert(node, Damage::PutBack);
    }

    /// Its disk is a new one.
    pub fn replaced(&self, node: NodeId) {
        self.damaged.borrow_mut().insert(node, Damage::Replaced);
    }

    pub fn is_rotten(&self, node: NodeId) -> bool {
        self.damaged.borrow().get(&node) == Some(&Damage::Rotten)
    }

    /// All disks are new ones.
    pub fn clear(&self) {
        self.damaged.borrow_mut().clear();
    }

    /// Whether something is wrong with its disk, or its new one has no vote yet.
    pub fn is_impaired(&self, node: NodeId) -> bool {
        self.damaged.borrow().contains_key(&node)
    }

    /// Whether the disk that a node has now votes. Tells whether that makes the node whole again.
    pub fn look(&self, node: NodeId, votes: bool) -> bool {
        let mut damaged = self.damaged.borrow_mut();
        let whole = votes && damaged.get(&node) == Some(&Damage::Replaced);
        if whole {
            damaged.remove(&node);
        }
        whole
    }
}
