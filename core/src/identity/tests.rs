//! How identities are shown and ordered, and what their defaults mean.

use super::*;

#[test]
fn a_replica_is_a_node_and_a_disk() {
    let (old, new) = (Replica::new(3, 7), Replica::new(3, 9));
    assert_ne!(old, new, "the next disk of a node is another replica");
    assert!(old.is_known() && !Replica::any(3).is_known());
    assert_eq!(Replica::any(3), Replica::new(3, 0));
    // All of a node's are between the address of the node and that of the next one.
    let mut sorted = [Replica::any(4), Replica::new(3, u64::MAX), new, Replica::any(3), old];
    sorted.sort();
    assert_eq!(sorted, [Replica::any(3), old, new, Replica::new(3, u64::MAX), Replica::any(4)]);
}

#[test]
fn a_replica_is_shown_by_its_node_and_the_beginning_of_its_incarnation() {
    let shown = |replica: Replica| (replica.to_string(), format!("{replica:?}"));
    let both = |one: &str, other: &str| (one.to_owned(), other.to_owned());
    let full = Replica::new(2, 0x3f2a_0000_0000_0001);
    assert_eq!(shown(full), both("2/3f2a", "2/3f2a000000000001"));
    assert_eq!(shown(Replica::new(2, 1)), both("2/0000", "2/1"));
    assert_eq!(shown(Replica::any(2)), both("2", "2/0"));
}

#[test]
fn a_cluster_id_is_shown_whole_and_for_debugging_by_its_beginning() {
    assert_eq!(ClusterId(0xabc).to_string(), "00000000000000000000000000000abc");
    assert_eq!(format!("{:?}", ClusterId(0x3f2a << 112 | 1)), "3f2a…");
    assert_eq!(ClusterId(u128::MAX).to_string(), "f".repeat(32));
}

#[test]
fn a_claim_is_for_the_nodes_of_its_list() {
    let list = LiteMap::from_iter([(4, "c".to_owned()), (1, "a".to_owned()), (2, "b".to_owned())]);
    let founder = Replica::new(1, 7);
    let claim = Claim { cluster: ClusterId(5), ballot: 1, founder, list: Arc::new(list) };
    assert_eq!(claim.ids(), BTreeSet::from([1, 2, 4]));
}

#[test]
fn a_new_store_has_promised_and_remembers_nothing() {
    assert_eq!(Standing::default(), Standing::Empty);
    let marks = Marks::default();
    assert_eq!((marks.committed, marks.memories.len()), (LogId::ZERO, 0));
    let memory = Memory::default();
    assert_eq!((memory.term, memory.voted), (Term(0), Term(0)));
    assert_eq!((memory.acknowledged, memory.committed), (LogId::ZERO, LogId::ZERO));
}
