//! How a cluster is formed of processes that are told the wrong thing, or die on the way.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::thread;
use std::time::Duration;

use common::{Cluster, folders, on_each_runtime, until};

/// What a founder says of a node that has answered its claim.
const ANSWERS: &str = "it is ready to form the group, and waits as well";

/// Waits until a founder has the answer of another to its claim.
fn is_answered(cluster: &Cluster, founder: usize, by: usize) {
    until("the claim is answered", || cluster.waits_for(founder, by).filter(|why| why == ANSWERS));
}

/// All nodes serve, and hold the same.
fn is_complete(cluster: &Cluster, nodes: &[usize]) {
    for node in nodes {
        cluster.serves(*node);
        let key = format!("by{node}");
        let mut connection = cluster.connect(*node).expect("connects");
        until("the node writes", || redis::cmd("SET").arg(&key).arg(1).exec(&mut connection).ok());
    }
    for node in nodes {
        let mut connection = cluster.connect(*node).expect("connects");
        let count: usize = redis::cmd("DBSIZE").query(&mut connection).expect("reads");
        assert_eq!(count, nodes.len(), "node {node} is in another cluster");
    }
}

fn shows(said: &str, lists: [&str; 2]) {
    for list in lists {
        assert!(said.contains(list), "{list} is not in {said}");
    }
}

#[test]
fn a_founder_that_was_told_a_shorter_list_is_stopped_and_so_is_who_meets_it() {
    on_each_runtime(|runtime| {
        let mut cluster = Cluster::prepare([runtime; 3]);
        // Node 3 is not in the list of node 1, and hears of that list when it asks.
        let short = cluster.line(0).told(&[1, 2]);
        cluster.start_as(0, &short);
        cluster.start_node(2);
        let said = cluster.fails(2);
        shows(&said, ["node 1 goes by the list 1, 2,", "this node by 1, 2, 3"]);
        // Node 2 is.
        cluster.start_node(1);
        let said = cluster.fails(0);
        shows(&said, ["node 2 goes by the list 1, 2, 3,", "this node by 1, 2:"]);
        let said = cluster.fails(1);
        shows(&said, ["node 1 goes by the list 1, 2,", "this node by 1, 2, 3"]);
        // Corrected, it is none too late.
        (0..3).for_each(|node| cluster.start_node(node));
        is_complete(&cluster, &[0, 1, 2]);
    });
}

#[test]
fn of_two_lists_that_overlap_one_cluster_is_formed() {
    on_each_runtime(|runtime| {
        let mut cluster = Cluster::prepare([runtime; 5]);
        for node in [3, 4] {
            let line = cluster.line(node).told(&[4, 5]);
            cluster.start_as(node, &line);
        }
        (0..3).for_each(|node| cluster.start_node(node));
        for node in 0..3 {
            let said = cluster.fails(node);
            shows(&said, ["goes by the list 4, 5,", "this node by 1, 2, 3, 4, 5"]);
            assert!(
                folders::check(&cluster.data_of(node)).contains("  cluster: none yet"),
                "{said}"
            );
        }
        is_complete(&cluster, &[3, 4]);
    });
}

#[test]
fn a_node_keeps_the_promise_to_its_founder_when_it_is_told_another_list() {
    on_each_runtime(|runtime| {
        let mut cluster = Cluster::prepare([runtime; 3]);
        cluster.start_node(0);
        cluster.start_node(2);
        is_answered(&cluster, 0, 2);
        cluster.kill(2);
        let promise = "standing: promised to be part of the cluster that node 1 forms";
        let held = folders::check(&cluster.data_of(2));
        assert!(held.contains(promise), "{held}");
        let alone = cluster.line(2).told(&[3]);
        let said = alone.is_refused();
        shows(&said, ["the claim of node 1 for the list 1, 2, 3", "given now has 3:"]);
        let held = folders::check(&cluster.data_of(2));
        assert!(held.contains(promise), "{held}");
        cluster.start_node(1);
        cluster.start_node(2);
        is_complete(&cluster, &[0, 1, 2]);
    });
}

/// Kills the founder, takes its disk or not, and completes the cluster with the same commands.
fn the_founder_dies(mut cluster: Cluster, is_wiped: bool) {
    cluster.kill(0);
    if is_wiped {
        cluster.wipe(0);
    }
    for node in 0..3 {
        if !cluster.runs(node) {
            cluster.start_node(node);
        }
    }
    is_complete(&cluster, &[0, 1, 2]);
}

#[test]
fn a_founder_may_die_after_its_claim() {
    on_each_runtime(|runtime| {
        for is_wiped in [false, true] {
            let mut cluster = Cluster::prepare([runtime; 3]);
            cluster.start_node(0);
            until("it claims", || cluster.waits_for(0, 1));
            the_founder_dies(cluster, is_wiped);
        }
    });
}

#[test]
fn a_founder_may_die_when_some_have_accepted_its_claim() {
    on_each_runtime(|runtime| {
        for is_wiped in [false, true] {
            let mut cluster = Cluster::prepare([runtime; 3]);
            cluster.start_node(0);
            cluster.start_node(1);
            is_answered(&cluster, 0, 1);
            the_founder_dies(cluster, is_wiped);
        }
    });
}

/// From the moment on at which the last claim is under way: before and after all have accepted, the
/// first entry is written, and others have it. Where that is so and its disk is lost, it is let in
/// after ten seconds.
#[test]
fn a_founder_may_die_at_any_moment_while_the_first_entry_spreads() {
    on_each_runtime(|runtime| {
        thread::scope(|scope| {
            for is_wiped in [false, true] {
                for pause in [0, 20, 60, 150].map(Duration::from_millis) {
                    scope.spawn(move || {
                        let mut cluster = Cluster::prepare([runtime; 3]);
                        cluster.start_node(0);
                        cluster.start_node(1);
                        is_answered(&cluster, 0, 1);
                        cluster.start_node(2);
                        // Whatever the moment is, the outcome must be the same.
                        thread::sleep(pause);
                        the_founder_dies(cluster, is_wiped);
                    });
                }
            }
        });
    });
}

#[test]
fn a_founder_may_die_once_it_has_the_first_entry() {
    on_each_runtime(|runtime| {
        for is_wiped in [false, true] {
            let mut cluster = Cluster::prepare([runtime; 3]);
            cluster.start_node(0);
            cluster.start_node(1);
            is_answered(&cluster, 0, 1);
            // It has promised, and does not get the entry.
            cluster.process(1).signal("STOP");
            cluster.start_node(2);
            cluster.is_formed(0);
            cluster.kill(0);
            if is_wiped {
                cluster.wipe(0);
            }
            cluster.process(1).signal("CONT");
            cluster.start_node(0);
            is_complete(&cluster, &[0, 1, 2]);
        }
    });
}

#[test]
fn one_of_three_may_die_as_soon_as_the_cluster_is_formed() {
    on_each_runtime(|runtime| {
        // Before a leader is elected, if that is quick enough; a follower or the founder; or later,
        // the leader.
        for (seen_on, dies) in [(0, Some(1)), (0, Some(2)), (1, Some(0)), (2, None)] {
            let mut cluster = Cluster::start([runtime; 3]);
            cluster.is_formed(seen_on);
            let dies = dies.unwrap_or_else(|| cluster.leader());
            cluster.kill(dies);
            let rest: Vec<_> = (0..3).filter(|node| *node != dies).collect();
            rest.iter().for_each(|node| cluster.serves(*node));
            cluster.start_node(dies);
            is_complete(&cluster, &[0, 1, 2]);
        }
    });
}

/// Before anything is written.
#[test]
fn lists_that_cannot_work_are_refused() {
    on_each_runtime(|runtime| {
        let cluster = Cluster::prepare([runtime; 3]);
        let line = cluster.line(0);
        let listed = |id: u64, address: &str| {
            let mut line = line.clone();
            line.list.insert(id, address.to_owned());
            line
        };
        let own = line.peer.to_string();
        let other = line.list[&2].clone();
        let cases = [
            (listed(1, "127.0.0.1:1"), "node 1 is listed at 127.0.0.1:1, but".to_owned()),
            (
                listed(1, &format!("127.0.0.9:{}", line.peer.port())),
                "listens on 127.0.0.1".to_owned(),
            ),
            (listed(3, "raft 3:7001"), "the host is no name".to_owned()),
            (listed(3, "[raft-3]:7001"), "there must be an IPv6 address".to_owned()),
            (listed(3, "raft-3:0"), "the port must be a number".to_owned()),
            (line.clone().told(&[2, 3]), "node 1 is not in --cluster".to_owned()),
        ];
        for (line, expected) in cases {
            let said = line.is_refused();
            assert!(said.contains(&expected), "{expected} is not in {said}");
            assert!(!line.data.exists(), "{expected}: it has written something");
        }
        // These are no command line.
        let no_address = "is not of the form HOST:PORT".to_owned();
        let same = |address: &str| format!("nodes 1 and 2 have the same address, {address}");
        let mut cases = vec![(listed(2, &own), same(&own)), (listed(1, &other), same(&other))];
        for address in ["", ":7001", "raft-3", "raft-3:", "raft-3:port"] {
            cases.push((listed(3, address), no_address.clone()));
        }
        for (line, expected) in cases {
            let said = line.ends_with(2);
            assert!(said.contains(&expected), "{expected} is not in {said}");
            assert!(!line.data.exists(), "{expected}: it has written something");
        }
    });
}
