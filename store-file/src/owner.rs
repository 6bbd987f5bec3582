//! Whose store it is: the node that it is bound to, how often that has started on it, and the
//! cluster that it belongs to.

use quorate_core::codec::{DecodeError, Fields, Gather, REFUSE, put_field};
use quorate_core::plant;
use quorate_core::{ClusterId, NodeId};

use crate::header::put_number;

const NODE: u8 = REFUSE | 1;
const BOOT: u8 = REFUSE | 2;
const CLUSTER: u8 = REFUSE | 3;

/// What a store knows of itself besides its incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// None before a node has started on it.
    pub(crate) node: Option<NodeId>,
    /// How many times it has.
    pub(crate) boot: u64,
    /// None before it has joined one.
    pub(crate) cluster: Option<ClusterId>,
}

impl Owner {
    /// After a further start of this node.
    ///
    /// Errors: the node that it belongs to.
    pub(crate) fn started(self, node: NodeId) -> Result<Self, NodeId> {
        plant!(I3, node = self.node.unwrap_or(node));
        match self.node {
            Some(holds) if holds != node => Err(holds),
            holds => Ok(Self { node: holds.or(Some(node)), boot: self.boot + 1, ..self }),
        }
    }

    /// After it has joined a cluster.
    ///
    /// Errors: it belongs to another one.
    pub(crate) fn joined(self, cluster: ClusterId) -> Result<Self, String> {
        match self.cluster {
            Some(other) if other != cluster => Err("the store changes its cluster".to_owned()),
            _ => Ok(Self { cluster: Some(cluster), ..self }),
        }
    }

    /// Errors: why `next` can't follow.
    pub(crate) fn check_next(&self, next: &Self) -> Result<(), String> {
        if self.node.is_some() && next.node != self.node {
            return Err("the store changes its node".to_owned());
        }
        if self.cluster.is_some() && next.cluster != self.cluster {
            return Err("the store changes its cluster".to_owned());
        }
        if next.boot < self.boot {
            return Err(format!("start {} after start {}", next.boot, self.boot));
        }
        Ok(())
    }

    /// Appends its fields.
    pub(crate) fn put(&self, to: &mut Gather) {
        if let Some(node) = self.node {
            put_number(to, NODE, node);
        }
        put_number(to, BOOT, self.boot);
        if let Some(cluster) = self.cluster {
            put_cluster(to, CLUSTER, cluster);
        }
    }

    /// Takes its fields.
    pub(crate) fn take(fields: &mut Fields) -> Result<Self, DecodeError> {
        let node = fields.optional(NODE, Fields::number)?;
        if node == Some(0) {
            return Err(DecodeError::Invalid("a node with id 0".to_owned()));
        }
        let boot = fields.number(BOOT)?;
        let cluster = fields.optional(CLUSTER, take_cluster)?;
        Ok(Self { node, boot, cluster })
    }
}

/// Appends a field of a cluster's id.
pub(crate) fn put_cluster(to: &mut Gather, tag: u8, cluster: ClusterId) {
    put_field(to, tag, |to| to.put_slice(&cluster.0.to_le_bytes()));
}

/// Takes a field of a cluster's id.
pub(crate) fn take_cluster(fields: &mut Fields, tag: u8) -> Result<ClusterId, DecodeError> {
    fields.array(tag).map(|bytes| ClusterId(u128::from_le_bytes(bytes)))
}
