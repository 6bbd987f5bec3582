//! Snapshots of real processes: the log they stand for is gone from the disk, nodes that have
//! missed it come back by them, and processes that are killed while one is on its way lose nothing.

mod common;

use std::fs;

use common::load::{Load, overwrite};
use common::state::{assert_same, states};
use common::{Cluster, number, status, until};
use redis::Connection;

const RUNTIMES: [&str; 3] = ["tokio", "monoio", "compio"];
const MIB: usize = 1 << 20;

/// A cluster, its leader, and the others.
fn cluster(runtimes: [&'static str; 3], flags: &[&str]) -> (Cluster, usize, [usize; 2]) {
    let cluster = Cluster::start_with(runtimes, flags);
    let leader = cluster.leader();
    (0..3).for_each(|node| cluster.serves(node));
    (cluster, leader, [(leader + 1) % 3, (leader + 2) % 3])
}

/// `RAFT SNAPSHOT` or `RAFT PURGE`: the index that it has reached.
fn raft(connection: &mut Connection, what: &str) -> u64 {
    connection.set_read_timeout(Some(common::PATIENCE)).expect("can be set");
    redis::cmd("RAFT").arg(what).query(connection).expect("is done")
}

/// A field of a node's `RAFT STATUS`.
fn fact(cluster: &Cluster, node: usize, field: &str) -> u64 {
    until("the node tells its status", || {
        number(&status(&mut cluster.connect(node).ok()?).ok()?, field)
    })
}

/// Takes a snapshot on these nodes and purges all that it covers; up to where that is so on all of
/// them.
fn compact(cluster: &Cluster, nodes: &[usize]) -> u64 {
    let compact = |node: &usize| {
        let mut connection = cluster.connect(*node).expect("connects");
        let snapshot = raft(&mut connection, "SNAPSHOT");
        assert!(fact(cluster, *node, "snapshot") >= snapshot);
        // For a while a leader keeps what a peer needs that has gone a moment ago.
        let purged = until("all that is covered is purged", || {
            Some(raft(&mut connection, "PURGE")).filter(|purged| *purged >= snapshot)
        });
        assert!(fact(cluster, *node, "purged") >= purged);
        purged
    };
    nodes.iter().map(compact).min().expect("there are nodes")
}

/// Fills the state with values of half a MiB.
fn fill(connection: &mut Connection, bytes: usize) {
    let value = vec![b'x'; MIB / 2];
    for n in 0..bytes / value.len() {
        redis::cmd("SET").arg(format!("large:{n}")).arg(&value).exec(connection).expect("writes");
    }
}

/// How much of a snapshot a leader's peer has, and how much there is.
fn transfer(cluster: &Cluster, leader: usize, peer: usize) -> Option<(u64, u64)> {
    let facts = status(&mut cluster.connect(leader).ok()?).ok()?;
    let facts = facts.get(&format!("peer{}", peer + 1))?.clone();
    let facts: String = redis::from_redis_value(facts).ok()?;
    let (stored, whole) = facts.split_once("snapshot_bytes=")?.1.split_once('/')?;
    Some((stored.parse().ok()?, whole.parse().ok()?))
}

fn segments(cluster: &Cluster, node: usize) -> Vec<String> {
    let files = fs::read_dir(cluster.data_of(node).join("wal")).expect("lists");
    let mut names: Vec<_> =
        files.map(|file| file.expect("lists").file_name().into_string().expect("a name")).collect();
    names.retain(|name| name.ends_with(".wal"));
    names.sort();
    names
}

#[test]
fn the_log_takes_bounded_space_and_a_restart_goes_on_from_the_snapshot() {
    /// Of 64 MiB: what is kept for peers behind the snapshot (16 MiB), what was applied since the
    /// last one and while that was written, the one in use and the next.
    const SEGMENTS: usize = 5;
    let (mut cluster, leader, _) = cluster(RUNTIMES, &["--snapshot-bytes", "16777216"]);
    let load = Load::start(&cluster);
    let mut connection = cluster.connect(leader).expect("connects");
    overwrite(&mut connection, 400 * MIB);
    for node in 0..3 {
        until("the log is purged", || {
            let segments = segments(&cluster, node);
            assert!(!segments.is_empty());
            (segments.len() <= SEGMENTS).then_some(())
        });
        assert!(segments(&cluster, node)[0].as_str() > "0000000000000001.wal");
        assert!(fact(&cluster, node, "purged") > 0);
    }
    load.goes_on(100);
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.start_node(node));
    for node in 0..3 {
        cluster.serves(node);
        assert!(fact(&cluster, node, "purged") > 0, "it has no log from the beginning");
    }
    load.goes_on(100);
    load.end_and_check(&cluster, &[0, 1, 2]);
    assert_same(&states(&cluster));
}

#[test]
fn a_node_that_has_missed_what_is_purged_comes_back_by_a_snapshot() {
    for runtime in RUNTIMES {
        let (mut cluster, leader, [away, other]) = cluster([runtime; 3], &[]);
        let load = Load::start(&cluster);
        load.goes_on(100);
        cluster.kill(away);
        overwrite(&mut cluster.connect(leader).expect("connects"), 8 * MIB);
        load.goes_on(100);
        let purged = compact(&cluster, &[leader, other]);
        load.goes_on(100);
        cluster.start_node(away);
        cluster.serves(away);
        assert!(fact(&cluster, away, "snapshot") >= purged, "it came back another way");
        load.goes_on(100);
        load.end_and_check(&cluster, &[0, 1, 2]);
        assert_same(&states(&cluster));
    }
}

/// A cluster in which a snapshot is on its way, and partly there; the leader that sends it, the
/// follower that gets it, and the other.
fn in_the_middle_of_a_transfer(runtime: &'static str) -> (Cluster, [usize; 3], Load) {
    let (mut cluster, leader, [away, other]) = cluster([runtime; 3], &[]);
    cluster.kill(away);
    fill(&mut cluster.connect(leader).expect("connects"), 128 * MIB);
    compact(&cluster, &[leader, other]);
    let load = Load::start(&cluster);
    load.goes_on(50);
    cluster.start_node(away);
    let sender = until("a part of the snapshot has arrived", || {
        let mut connection = cluster.connect(away).ok()?;
        let snapshot = number(&status(&mut connection).ok()?, "snapshot")?;
        assert_eq!(snapshot, 0, "it has arrived before anybody saw it on its way");
        [leader, other].into_iter().find(|node| {
            transfer(&cluster, *node, away)
                .is_some_and(|(stored, whole)| 0 < stored && stored < whole)
        })
    });
    let other = if sender == leader { other } else { leader };
    (cluster, [sender, away, other], load)
}

#[test]
fn a_receiver_that_is_killed_in_the_middle_of_a_transfer_gets_it_again() {
    for runtime in RUNTIMES {
        let (mut cluster, [_, away, _], load) = in_the_middle_of_a_transfer(runtime);
        cluster.kill(away);
        load.goes_on(50);
        cluster.start_node(away);
        cluster.serves(away);
        assert!(fact(&cluster, away, "snapshot") > 0);
        load.goes_on(50);
        load.end_and_check(&cluster, &[0, 1, 2]);
        assert_same(&states(&cluster));
    }
}

#[test]
fn a_leader_that_is_killed_in_the_middle_of_a_transfer_is_replaced_and_so_is_its_snapshot() {
    for runtime in RUNTIMES {
        let (mut cluster, [leader, away, other], load) = in_the_middle_of_a_transfer(runtime);
        cluster.kill(leader);
        cluster.serves(other);
        cluster.serves(away);
        assert!(fact(&cluster, away, "snapshot") > 0);
        load.goes_on(50);
        cluster.start_node(leader);
        cluster.serves(leader);
        load.end_and_check(&cluster, &[0, 1, 2]);
        assert_same(&states(&cluster));
    }
}
