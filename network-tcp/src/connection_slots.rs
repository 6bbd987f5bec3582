//! Who has a place among the accepted connections. Pure.
//!
//! Whoever reaches the port can open connections. They must not take the places of members, nor
//! keep members from becoming known as such. So the connections are in classes, by what their other
//! end has shown, and each class has places of its own. When a class is full, one of it is closed
//! for the next that comes: of the origin that has most of them, the oldest. So who opens thousands
//! of connections closes its own. Its peers on the same machine are in its class only until their
//! next word, which is on its way when they are accepted.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use quorate_core::MAX_NODES;
use quorate_core::plant;

/// What the other end of a connection has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Nothing yet.
    Nothing,
    /// A hello of a node that is in no list or membership here.
    Hello,
    /// A hello of a node that is in one. Who it is, anybody can say.
    Listed,
    /// That it belongs to the cluster.
    Member,
}

impl Class {
    const ALL: [Self; 4] = [Self::Nothing, Self::Hello, Self::Listed, Self::Member];

    /// The most connections of this class.
    ///
    /// Unproven, twice as many as the largest cluster has nodes: while it forms, each node connects
    /// once to any store of another and once to the one that it has found. Proven, as many for each
    /// of two stores of each node: two lanes, and the same for any store of it. Those are trusted,
    /// and replace their own, so this limit is only met if the peers are broken.
    pub(crate) const fn slots(self) -> usize {
        match self {
            Self::Nothing | Self::Hello | Self::Listed => 2 * MAX_NODES,
            Self::Member => 8 * MAX_NODES,
        }
    }
}

/// The accepted connections by class.
#[derive(Default)]
pub(crate) struct ConnectionSlots {
    /// Of each class, by the number of the connection, which grows.
    classes: [BTreeMap<u64, IpAddr>; Class::ALL.len()],
}

impl ConnectionSlots {
    /// A connection is accepted. Gives the one that is to be closed for it.
    pub(crate) fn enter(&mut self, id: u64, from: IpAddr) -> Option<u64> {
        self.insert(id, Class::Nothing, origin(from))
    }

    /// A connection has shown more. Gives the one that is to be closed for it.
    pub(crate) fn rise(&mut self, id: u64, class: Class) -> Option<u64> {
        let origin = self.leave(id)?;
        self.insert(id, class, origin)
    }

    /// A connection has ended.
    pub(crate) fn leave(&mut self, id: u64) -> Option<IpAddr> {
        self.classes.iter_mut().find_map(|class| class.remove(&id))
    }

    /// How many connections are of a class.
    pub(crate) fn count(&self, class: Class) -> usize {
        self.classes[class as usize].len()
    }

    fn insert(&mut self, id: u64, class: Class, origin: IpAddr) -> Option<u64> {
        let all = &mut self.classes[class as usize];
        plant!(
            P10,
            if all.len() >= class.slots() {
                return Some(id);
            }
        );
        let closed = if all.len() < class.slots() { None } else { worst(all) };
        if let Some(closed) = closed {
            all.remove(&closed);
        }
        all.insert(id, origin);
        closed
    }
}

/// The oldest connection of the origin that has most.
fn worst(class: &BTreeMap<u64, IpAddr>) -> Option<u64> {
    let mut counts = BTreeMap::<IpAddr, usize>::new();
    class.values().for_each(|origin| *counts.entry(*origin).or_default() += 1);
    let most = counts.values().max()?;
    class.iter().find(|(_, origin)| counts.get(origin) == Some(most)).map(|(id, _)| *id)
}

/// Whose an address is: one network of 64 bits has more IPv6 addresses than there are places.
fn origin(from: IpAddr) -> IpAddr {
    const NETWORK: u128 = u128::MAX << 64;
    match from.to_canonical() {
        IpAddr::V6(from) => Ipv6Addr::from_bits(from.to_bits() & NETWORK).into(),
        from => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// A full class of connections from one origin, whose numbers begin with 0.
    fn full() -> ConnectionSlots {
        let mut slots = ConnectionSlots::default();
        let first = (0..Class::Nothing.slots() as u64).map(|id| slots.enter(id, at(9)));
        assert!(first.collect::<Vec<_>>().iter().all(Option::is_none));
        slots
    }

    #[test]
    fn who_has_most_connections_gives_up_its_oldest() {
        let mut slots = full();
        assert_eq!(slots.enter(1000, at(1)), Some(0));
        assert_eq!(slots.enter(1001, at(2)), Some(1));
        // However many come, the others keep theirs.
        let closed: Vec<_> = (2000..9000).filter_map(|id| slots.enter(id, at(9))).collect();
        assert_eq!(closed.len(), 7000);
        assert!(closed.is_sorted() && !closed.contains(&1000) && !closed.contains(&1001));
        assert_eq!((slots.leave(1000), slots.leave(1000)), (Some(at(1)), None));
        assert_eq!(slots.enter(9000, at(9)), None, "a place is free");
    }

    #[test]
    fn strangers_of_many_origins_close_the_oldest() {
        let mut slots = ConnectionSlots::default();
        for id in 0..255 {
            let closed = slots.enter(id, at(id as u8));
            assert_eq!(closed, id.checked_sub(Class::Nothing.slots() as u64));
        }
    }

    #[test]
    fn who_has_shown_more_is_out_of_the_reach_of_those_that_have_not() {
        for class in [Class::Hello, Class::Listed, Class::Member] {
            let mut slots = full();
            assert_eq!(slots.rise(7, class), None);
            let next = Class::Nothing.slots() as u64;
            assert_eq!(slots.enter(next, at(9)), None, "the place that has become free");
            let closed: Vec<_> = (1000..9000).filter_map(|id| slots.enter(id, at(9))).collect();
            assert!(closed.len() == 8000 && !closed.contains(&7));
        }
    }

    #[test]
    fn each_class_is_bounded() {
        for class in Class::ALL {
            let mut slots = ConnectionSlots::default();
            let mut closed = 0;
            for id in 0..2000 {
                closed += usize::from(slots.enter(id, at(1)).is_some());
                closed += usize::from(slots.rise(id, class).is_some());
            }
            assert_eq!(closed, 2000 - class.slots());
        }
        let mut slots = ConnectionSlots::default();
        assert_eq!(slots.rise(1, Class::Member), None, "closed before");
        assert_eq!(slots.leave(1), None);
    }

    #[test]
    fn a_network_of_64_bits_is_one_origin() {
        let parsed = |text: &str| origin(text.parse().unwrap());
        assert_eq!(parsed("2001:db8::1"), parsed("2001:db8::ffff:1"));
        assert_ne!(parsed("2001:db8::1"), parsed("2001:db8:0:1::1"));
        assert_eq!(parsed("::ffff:192.0.2.7"), at(7));
    }
}
