//! Where replicas are reached: what the groups' configurations and lists say, and otherwise what
//! peers said of themselves. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use quorate_core::{GroupId, MAX_NODES, Replica};

/// An address, and from where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// As `host:port`.
    pub(crate) at: String,
    /// By a group, and not only by what the peer said of itself.
    pub(crate) is_configured: bool,
}

#[derive(Default)]
pub(crate) struct Addresses {
    of_groups: BTreeMap<GroupId, BTreeMap<Replica, String>>,
    learned: BTreeMap<Replica, String>,
    /// What the names among the addresses were when they were last looked up.
    found: BTreeMap<String, Vec<SocketAddr>>,
}

impl Addresses {
    /// Where a replica is reached: where a group has it, or its node, and otherwise where that
    /// replica itself said.
    pub(crate) fn get(&self, replica: Replica) -> Option<Address> {
        let of_groups = |replica| {
            self.of_groups.values().find_map(|peers: &BTreeMap<_, _>| peers.get(&replica))
        };
        if let Some(at) = of_groups(replica).or_else(|| of_groups(Replica::any(replica.id))) {
            return Some(Address { at: at.clone(), is_configured: true });
        }
        let at = self.learned.get(&replica)?.clone();
        Some(Address { at, is_configured: false })
    }

    /// Whether a group names just this replica, or its node whichever store that has, and not only
    /// another replica of its node.
    pub(crate) fn names(&self, replica: Replica) -> bool {
        self.of_groups.values().any(|peers| peers.contains_key(&replica))
    }

    pub(crate) fn set(&mut self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        let known = peers.iter().filter(|(_, address)| !address.is_empty());
        let known = known.map(|(replica, address)| (*replica, address.clone())).collect();
        self.of_groups.insert(group, known);
    }

    /// The group has ended. With the last one, what was learned on the way is forgotten.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.of_groups.remove(&group);
        if self.of_groups.is_empty() {
            self.learned.clear();
        }
    }

    /// What a replica says of itself, so that a node that knows of no address can answer. It is
    /// used for that replica alone. As many are remembered as a cluster has nodes; when there are
    /// more, those go that are not connected, and if all are, the new one.
    pub(crate) fn learn(
        &mut self,
        replica: Replica,
        address: String,
        is_connected: impl Fn(Replica) -> bool,
    ) {
        let is_full = |learned: &BTreeMap<_, _>| learned.len() >= MAX_NODES;
        if is_full(&self.learned) && !self.learned.contains_key(&replica) {
            self.learned.retain(|replica, _| is_connected(*replica));
            if is_full(&self.learned) {
                return;
            }
        }
        self.learned.insert(replica, address);
    }

    /// What a name has been found to be. It is forgotten when names beyond the size of a cluster
    /// are remembered, and it is not in use any more.
    pub(crate) fn set_found(&mut self, name: &str, addresses: Vec<SocketAddr>) {
        if self.found.len() >= MAX_NODES && !self.found.contains_key(name) {
            let of_groups = self.of_groups.values().flat_map(BTreeMap::values);
            let in_use: BTreeSet<&String> = of_groups.chain(self.learned.values()).collect();
            self.found.retain(|name, _| in_use.contains(name));
            if self.found.len() >= MAX_NODES {
                return;
            }
        }
        self.found.insert(name.to_owned(), addresses);
    }

    /// What a name was when it was last looked up.
    pub(crate) fn found(&self, name: &str) -> Option<Vec<SocketAddr>> {
        self.found.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Replica = Replica::new(1, 100);
    const NEW: Replica = Replica::new(1, 200);

    fn at(addresses: &Addresses, replica: Replica) -> Option<String> {
        addresses.get(replica).map(|address| address.at)
    }

    fn configured(addresses: &mut Addresses, peers: &[(Replica, &str)]) {
        let peers = peers.iter().map(|(replica, address)| (*replica, (*address).to_owned()));
        addresses.set(7, &peers.collect());
    }

    #[test]
    fn a_group_wins_over_what_was_learned_until_it_forgets_the_node() {
        let mut addresses = Addresses::default();
        assert_eq!(at(&addresses, OLD), None);
        addresses.learn(OLD, "learned:1".to_owned(), |_| true);
        assert_eq!(at(&addresses, OLD).as_deref(), Some("learned:1"));
        assert!(!addresses.get(OLD).unwrap().is_configured);
        configured(&mut addresses, &[(OLD, "group:1"), (Replica::new(2, 1), "")]);
        addresses.learn(OLD, "learned:2".to_owned(), |_| true);
        assert_eq!(at(&addresses, OLD).as_deref(), Some("group:1"));
        assert!(addresses.get(OLD).unwrap().is_configured);
        assert_eq!(at(&addresses, Replica::new(2, 1)), None);
        configured(&mut addresses, &[]);
        assert_eq!(at(&addresses, OLD).as_deref(), Some("learned:2"));
        addresses.forget(7);
        assert_eq!(at(&addresses, OLD), None);
    }

    #[test]
    fn a_replica_is_where_it_is_listed_itself_and_otherwise_where_its_node_is() {
        let mut addresses = Addresses::default();
        configured(&mut addresses, &[(OLD, "old:1"), (Replica::any(1), "node:1")]);
        addresses.learn(NEW, "learned:1".to_owned(), |_| true);
        assert_eq!(at(&addresses, OLD).as_deref(), Some("old:1"));
        assert_eq!(at(&addresses, NEW).as_deref(), Some("node:1"));
        assert_eq!(at(&addresses, Replica::any(1)).as_deref(), Some("node:1"));
    }

    #[test]
    fn what_a_replica_says_of_itself_is_for_it_alone() {
        let mut addresses = Addresses::default();
        addresses.learn(NEW, "learned:1".to_owned(), |_| true);
        assert_eq!(at(&addresses, OLD), None);
        assert_eq!(at(&addresses, Replica::any(1)), None);
    }

    #[test]
    fn only_so_many_strangers_are_remembered() {
        let stranger = |id: u64| Replica::new(id, 1);
        let mut addresses = Addresses::default();
        let last = MAX_NODES as u64 + 1;
        (1..=last).for_each(|id| addresses.learn(stranger(id), format!("n:{id}"), |_| true));
        assert_eq!(at(&addresses, stranger(last)), None);
        addresses.learn(stranger(1), "moved:1".to_owned(), |_| true);
        assert_eq!(at(&addresses, stranger(1)).as_deref(), Some("moved:1"));
        addresses.learn(stranger(last), "n".to_owned(), |replica| replica != stranger(2));
        assert_eq!(at(&addresses, stranger(last)).as_deref(), Some("n"));
        assert_eq!(at(&addresses, stranger(2)), None, "it was not connected");
    }

    #[test]
    fn what_names_were_is_remembered_for_as_many_as_a_cluster_has_nodes() {
        let mut addresses = Addresses::default();
        let found = |n: usize| vec![SocketAddr::from(([10, 0, 0, 1], n as u16))];
        configured(&mut addresses, &[(OLD, "used:0")]);
        (0..MAX_NODES).for_each(|n| addresses.set_found(&format!("used:{n}"), found(n)));
        addresses.set_found("used:1", found(7));
        assert_eq!(addresses.found("used:1"), Some(found(7)));
        addresses.set_found("one:1", found(1));
        assert_eq!(addresses.found("one:1"), Some(found(1)));
        assert_eq!(addresses.found("used:0"), Some(found(0)));
        assert_eq!(addresses.found("used:1"), None, "it was not in use");
    }
}
