//! Where peers are reached: what the groups' memberships say, and otherwise what peers said of themselves. Pure.

use std::collections::BTreeMap;

use quorate_core::{GroupId, MAX_NODES, NodeId};

#[derive(Default)]
pub(crate) struct Addresses {
    of_groups: BTreeMap<GroupId, BTreeMap<NodeId, String>>,
    learned: BTreeMap<NodeId, String>,
}

impl Addresses {
    pub(crate) fn get(&self, node: NodeId) -> Option<&str> {
        let of_groups = self.of_groups.values().find_map(|peers| peers.get(&node));
        of_groups.or_else(|| self.learned.get(&node)).map(String::as_str)
    }

    pub(crate) fn set(&mut self, group: GroupId, peers: &BTreeMap<NodeId, String>) {
        let known = peers.iter().filter(|(_, address)| !address.is_empty());
        let known = known.map(|(id, address)| (*id, address.clone())).collect();
        self.of_groups.insert(group, known);
    }

    /// The group has ended. With the last one, what was learned on the way is forgotten.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.of_groups.remove(&group);
        if self.of_groups.is_empty() {
            self.learned.clear();
        }
    }

    /// What a peer says of itself, so that a node whose membership is still empty can answer. As many as a cluster has
    /// nodes; strangers beyond that are not remembered.
    pub(crate) fn learn(&mut self, node: NodeId, address: String) {
        if self.learned.len() < MAX_NODES || self.learned.contains_key(&node) {
            self.learned.insert(node, address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_wins_over_what_was_learned_until_it_forgets_the_node() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.get(1), None);
        addresses.learn(1, "learned:1".to_owned());
        assert_eq!(addresses.get(1), Some("learned:1"));
        addresses.set(7, &BTreeMap::from([(1, "group:1".to_owned()), (2, String::new())]));
        addresses.learn(1, "learned:2".to_owned());
        assert_eq!(addresses.get(1), Some("group:1"));
        assert_eq!(addresses.get(2), None);
        addresses.set(7, &BTreeMap::new());
        assert_eq!(addresses.get(1), Some("learned:2"));
        addresses.forget(7);
        assert_eq!(addresses.get(1), None);
    }

    #[test]
    fn only_so_many_strangers_are_remembered() {
        let mut addresses = Addresses::default();
        (1..=MAX_NODES as u64 + 1).for_each(|node| addresses.learn(node, format!("n:{node}")));
        assert_eq!(addresses.get(MAX_NODES as u64 + 1), None);
        addresses.learn(1, "moved:1".to_owned());
        assert_eq!(addresses.get(1), Some("moved:1"));
    }
}
