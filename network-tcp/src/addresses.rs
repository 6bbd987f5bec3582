//! Where replicas are reached: what the groups' configurations and lists say, and otherwise what
//! peers said of themselves. Pure.
//!
//! Groups may name different addresses of a node: it has moved, and its address was changed in one
//! of them so far. The address that a group has changed to last is used. Configurations of
//! different groups have no order, so after a restart it is not known which of them is newer: then
//! the address of the group that was opened first is used. Whenever that leads nowhere, the others
//! are tried in turn ([`Addresses::nth`]), for a shorter time each.
//!
//! When an address is changed, the node still listens at the one before, until it is started again.
//! So that one is kept as a last resort, until the node has been reached at the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;

use litemap::LiteMap;
use quorate_core::{GroupId, MAX_NODES, Replica};

/// An address, and from where it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// As `host:port`.
    pub(crate) at: String,
    /// By a group, and not only by what the peer said of itself.
    pub(crate) is_configured: bool,
}

/// An address that groups have for a replica. The newest one is the last of its list.
struct Place {
    at: String,
    /// How many groups have it; none where the last of them has changed to another.
    groups: usize,
}

#[derive(Default)]
pub(crate) struct Addresses {
    /// Groups of the same nodes, as all of them mostly are, share what they have.
    of_groups: BTreeMap<GroupId, Rc<LiteMap<Replica, String>>>,
    /// The last two that groups had: one that is formed has its list first, and then its members.
    last: [Rc<LiteMap<Replica, String>>; 2],
    /// The same by replica, so that a look-up takes no longer where there are many groups.
    places: BTreeMap<Replica, Vec<Place>>,
    learned: BTreeMap<Replica, String>,
    /// What the names among the addresses were when they were last looked up.
    found: BTreeMap<String, Vec<SocketAddr>>,
}

impl Addresses {
    /// Where a replica is reached: where a group has it, or its node, and otherwise where that
    /// replica itself said.
    pub(crate) fn get(&self, replica: Replica) -> Option<Address> {
        if let Some(place) = self.places(replica).last() {
            return Some(Address { at: place.at.clone(), is_configured: true });
        }
        let at = self.learned.get(&replica)?.clone();
        Some(Address { at, is_configured: false })
    }

    /// Where to try to reach a replica after so many failures in a row; none if nothing is known of
    /// it.
    pub(crate) fn nth(&self, replica: Replica, failures: u32) -> Option<String> {
        let places = self.places(replica);
        match places.len() {
            0 => self.learned.get(&replica).cloned(),
            count => {
                let back = usize::try_from(failures).unwrap_or(0) % count;
                places.get(count - 1 - back).map(|place| place.at.clone())
            }
        }
    }

    /// Where groups have this replica, or otherwise its node.
    fn places(&self, replica: Replica) -> &[Place] {
        let of = |replica| self.places.get(&replica);
        of(replica).or_else(|| of(Replica::any(replica.id))).map_or(&[], Vec::as_slice)
    }

    /// Whether a group names just this replica, or its node whichever store that has, and not only
    /// another replica of its node.
    pub(crate) fn names(&self, replica: Replica) -> bool {
        self.places.contains_key(&replica)
    }

    pub(crate) fn set(&mut self, group: GroupId, peers: &BTreeMap<Replica, String>) {
        let known = peers.iter().filter(|(_, address)| !address.is_empty());
        let known: LiteMap<_, _> = known.map(|(replica, at)| (*replica, at.clone())).collect();
        let known = match self.last.iter().find(|last| ***last == known) {
            Some(shared) => Rc::clone(shared),
            None => {
                self.last.rotate_left(1);
                self.last[1] = Rc::new(known);
                Rc::clone(&self.last[1])
            }
        };
        let before = self.of_groups.insert(group, Rc::clone(&known));
        let changes = before.is_some();
        let before = before.unwrap_or_default();
        for (replica, at) in &*known {
            if before.get(replica) != Some(at) {
                self.enter(*replica, at, changes);
            }
        }
        for (replica, at) in &*before {
            if known.get(replica) != Some(at) {
                self.leave(*replica, at, known.contains_key(replica));
            }
        }
    }

    /// Another group has a replica there. `is_newest`: it has changed to that.
    fn enter(&mut self, replica: Replica, at: &str, is_newest: bool) {
        let places = self.places.entry(replica).or_default();
        let (place, from) = match places.iter().position(|place| place.at == at) {
            Some(from) => (places.remove(from), from),
            None => (Place { at: at.to_owned(), groups: 0 }, 0),
        };
        let to = if is_newest { places.len() } else { from };
        places.insert(to, Place { groups: place.groups + 1, ..place });
    }

    /// A group does not have a replica there any more. `is_kept`: it has it elsewhere now.
    fn leave(&mut self, replica: Replica, at: &str, is_kept: bool) {
        let Some(places) = self.places.get_mut(&replica) else { return };
        for place in &mut *places {
            place.groups -= usize::from(place.at == at);
        }
        places.retain(|place| place.groups > 0 || is_kept && place.at == at);
        // What nobody has any more is tried last.
        places.sort_by_key(|place| place.groups > 0);
        if places.iter().all(|place| place.groups == 0) {
            self.places.remove(&replica);
        }
    }

    /// A replica was reached at this address. Where that is the newest one, those that nobody has
    /// any more are forgotten.
    pub(crate) fn reached(&mut self, replica: Replica, at: &str) {
        for replica in [replica, Replica::any(replica.id)] {
            if let Some(places) = self.places.get_mut(&replica)
                && places.last().is_some_and(|place| place.at == at)
            {
                places.retain(|place| place.groups > 0);
            }
        }
    }

    /// The group has ended. With the last one, what was learned on the way is forgotten.
    pub(crate) fn forget(&mut self, group: GroupId) {
        for (replica, at) in &*self.of_groups.remove(&group).unwrap_or_default() {
            self.leave(*replica, at, false);
        }
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
            let of_groups = self.places.values().flatten().map(|place| &place.at);
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
    fn of_several_groups_the_one_that_has_changed_last_says_where_a_node_is() {
        let mut addresses = Addresses::default();
        let set = |addresses: &mut Addresses, group, at: &str| {
            addresses.set(group, &BTreeMap::from([(OLD, at.to_owned())]));
        };
        (1..=3).for_each(|group| set(&mut addresses, group, "old:1"));
        set(&mut addresses, 2, "new:1");
        assert_eq!(at(&addresses, OLD).as_deref(), Some("new:1"));
        let tried = |addresses: &Addresses| {
            (0..3).map(|n| addresses.nth(OLD, n).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(tried(&addresses), ["new:1", "old:1", "new:1"]);
        // A group that is opened has not changed.
        set(&mut addresses, 4, "old:1");
        set(&mut addresses, 5, "older:1");
        assert_eq!(tried(&addresses), ["new:1", "old:1", "older:1"]);
        addresses.forget(5);
        // It is said again, which is no change.
        set(&mut addresses, 1, "old:1");
        set(&mut addresses, 2, "new:1");
        assert_eq!(tried(&addresses), ["new:1", "old:1", "new:1"]);
        [1, 3, 4].into_iter().for_each(|group| set(&mut addresses, group, "new:1"));
        assert_eq!(tried(&addresses), ["new:1", "old:1", "new:1"]);
        addresses.reached(OLD, "new:1");
        assert_eq!(tried(&addresses), ["new:1"; 3]);
        set(&mut addresses, 3, "back:1");
        set(&mut addresses, 1, "new:1");
        assert_eq!(at(&addresses, OLD).as_deref(), Some("back:1"));
        addresses.forget(3);
        assert_eq!(tried(&addresses), ["new:1"; 3]);
        [1, 2, 4].into_iter().for_each(|group| addresses.forget(group));
        assert_eq!((addresses.nth(OLD, 0), addresses.names(OLD)), (None, false));
    }

    #[test]
    fn the_address_before_is_a_last_resort_until_the_new_one_is_reached() {
        let mut addresses = Addresses::default();
        let tried = |addresses: &Addresses| {
            (0..2).map(|n| addresses.nth(OLD, n).unwrap()).collect::<Vec<_>>()
        };
        configured(&mut addresses, &[(OLD, "first:1")]);
        configured(&mut addresses, &[(OLD, "second:1")]);
        configured(&mut addresses, &[(OLD, "third:1")]);
        assert_eq!(tried(&addresses), ["third:1", "second:1"]);
        addresses.reached(OLD, "second:1");
        assert_eq!(tried(&addresses), ["third:1", "second:1"]);
        // It is changed back.
        configured(&mut addresses, &[(OLD, "second:1")]);
        assert_eq!(tried(&addresses), ["second:1", "third:1"]);
        addresses.reached(OLD, "second:1");
        assert_eq!(tried(&addresses), ["second:1"; 2]);
        configured(&mut addresses, &[(OLD, "fourth:1")]);
        configured(&mut addresses, &[]);
        assert_eq!(addresses.nth(OLD, 0), None, "it is no member any more");
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
