//! Disks that are lost, or put back to an earlier state, while clients write.

mod common;

use std::path::Path;

use common::load::Load;
use common::{Cluster, Serve, folders, id, on_each_runtime, until};

/// A cluster whose nodes all serve, with clients.
fn under_load(runtime: &'static str) -> (Cluster, Load) {
    let cluster = Cluster::start([runtime; 3]);
    (0..3).for_each(|node| cluster.serves(node));
    let load = Load::start(&cluster);
    load.goes_on(100);
    (cluster, load)
}

/// Waits until a node whose disk was empty is a voter again: a leader hears of it, and has no
/// learner any more.
fn is_let_in(cluster: &Cluster, node: usize) {
    cluster.is_formed(node);
    until("the new disk takes the place of the old one", || {
        let leader = (0..3).find(|leader| {
            *leader != node && cluster.fact(*leader, "role").as_deref() == Some("leader")
        })?;
        let voter = cluster.fact(leader, &format!("peer{}", id(node)))?;
        let learner = cluster.fact(leader, &format!("learner{}", id(node)));
        let contact: u64 = voter.split_once("last_contact_ms=")?.1.parse().ok()?;
        // The old one has been silent for ten seconds.
        (learner.is_none() && contact < 5_000).then_some(())
    });
}

/// One disk is lost, and comes back empty; then another node dies: the first one's new disk is
/// needed for every write.
#[test]
fn a_wiped_node_is_let_in_under_load_and_votes() {
    on_each_runtime(|runtime| {
        let (mut cluster, load) = under_load(runtime);
        // The founder, or a node that was none, or the leader.
        let wiped = match runtime {
            "tokio" => 0,
            "monoio" => 2,
            _ => cluster.leader(),
        };
        let before = cluster.fact(wiped, "incarnation").expect("has one");
        cluster.kill(wiped);
        cluster.wipe(wiped);
        load.goes_on(100);
        cluster.start_node(wiped);
        is_let_in(&cluster, wiped);
        assert_ne!(cluster.fact(wiped, "incarnation"), Some(before));
        load.goes_on(100);
        let next = cluster.leader();
        let dies = if next == wiped { (wiped + 1) % 3 } else { next };
        cluster.kill(dies);
        load.goes_on(300);
        cluster.start_node(dies);
        load.end_and_check(&cluster, &[0, 1, 2]);
    });
}

/// With `starts` after the copy, each of which the others see.
fn a_backup_is_put_back(runtime: &'static str, starts: u32) {
    let (mut cluster, load) = under_load(runtime);
    let leader = cluster.leader();
    let node = (leader + 1) % 3;
    let backup = cluster.data_of(node).with_extension("backup");
    cluster.stop_node(node);
    folders::copy(&cluster.data_of(node), &backup);
    for _ in 0..starts {
        cluster.start_node(node);
        cluster.serves(node);
        load.goes_on(100);
        cluster.stop_node(node);
    }
    let said = is_noticed(&mut cluster, node, &backup);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("quorate-kv: ")), "{said}");
    load.goes_on(200);

    cluster.wipe(node);
    cluster.start_node(node);
    is_let_in(&cluster, node);
    load.goes_on(100);
    load.end_and_check(&cluster, &[0, 1, 2]);
}

#[test]
fn a_backup_that_is_put_back_is_noticed_and_an_empty_folder_is_let_in() {
    on_each_runtime(|runtime| a_backup_is_put_back(runtime, 1));
}

/// Its number of starts gives it away, before anything that it remembers.
#[test]
fn a_backup_of_several_starts_ago_is_noticed_too() {
    on_each_runtime(|runtime| a_backup_is_put_back(runtime, 3));
}

/// Puts a node, which is down, back to a copy of its folder, and starts it. The others make it
/// stop.
fn is_noticed(cluster: &mut Cluster, node: usize, backup: &Path) -> String {
    cluster.wipe(node);
    folders::copy(backup, &cluster.data_of(node));
    cluster.start_node(node);
    let said = cluster.fails(node);
    assert!(said.contains("put back to an earlier state"), "{said}");
    said
}

/// Followers remember how far their leader's log was durable. The copy is of the run in which that
/// was so, and of its term: only what was acknowledged since gives it away.
#[test]
fn a_leader_that_is_put_back_within_its_term_is_noticed() {
    on_each_runtime(|runtime| {
        let mut cluster = Cluster::start([runtime; 3]);
        (0..3).for_each(|node| cluster.serves(node));
        let leader = cluster.leader();
        let write = |cluster: &Cluster, value: &str| {
            let mut connection = cluster.connect(leader).expect("it runs");
            redis::cmd("SET").arg("key").arg(value).exec(&mut connection).expect("it serves");
        };
        write(&cluster, "before");
        let backup = cluster.data_of(leader).with_extension("backup");
        folders::copy(&cluster.data_of(leader), &backup);
        write(&cluster, "after");
        until("the followers know what is committed", || {
            let committed = |node| cluster.fact(node, "committed");
            (0..3).all(|node| committed(node) == committed(leader)).then_some(())
        });
        cluster.kill(leader);
        is_noticed(&mut cluster, leader, &backup);
        let mut connection = cluster.connect(cluster.leader()).expect("it runs");
        let value = redis::cmd("GET").arg("key").query::<String>(&mut connection);
        assert_eq!(value.expect("two of three serve"), "after");
    });
}

/// A leader is put back to before its term, and may lead in the same term again, with another node:
/// different entries would have the same log ids. When the one comes back that has followed it at
/// first, it stops.
#[test]
fn a_leader_that_is_put_back_to_before_its_term_stops_when_its_follower_returns() {
    on_each_runtime(|runtime| {
        let mut cluster = Cluster::start([runtime; 3]);
        (0..3).for_each(|node| cluster.serves(node));
        let backup = cluster.data_of(0).with_extension("backup");
        (0..3).for_each(|node| cluster.kill(node));
        loop {
            folders::copy(&cluster.data_of(0), &backup);
            [0, 1].into_iter().for_each(|node| cluster.start_node(node));
            let leads = cluster.leader() == 0;
            cluster.serves(0);
            [0, 1].into_iter().for_each(|node| cluster.kill(node));
            if leads {
                break;
            }
            std::fs::remove_dir_all(&backup).expect("it was made");
        }
        cluster.wipe(0);
        folders::copy(&backup, &cluster.data_of(0));
        cluster.start_node(0);
        cluster.start_node(2);
        cluster.serves(0);
        cluster.start_node(1);
        let said = cluster.fails(0);
        assert!(said.contains("put back to an earlier state"), "{said}");
        cluster.serves(2);
    });
}

/// A copy from before the cluster was formed proves nothing, so it can be told what it has
/// forgotten only after it was told the cluster's id. The founder is the only one who remembers,
/// and leads no more.
#[test]
fn folders_from_before_the_first_entry_are_noticed_though_nobody_leads() {
    on_each_runtime(|runtime| {
        let mut cluster = Cluster::prepare([runtime; 3]);
        let backup = |cluster: &Cluster, node| cluster.data_of(node).with_extension("backup");
        for node in [1, 2] {
            cluster.start_node(node);
            cluster.says(node, "waits for node 1");
            folders::copy(&cluster.data_of(node), &backup(&cluster, node));
        }
        cluster.start_node(0);
        (0..3).for_each(|node| cluster.serves(node));
        for node in [1, 2] {
            // It serves what is committed also before its own disk has it, and before that is so
            // it has promised nothing.
            until("the founder knows that this disk has an entry", || {
                let peer = cluster.fact(0, &format!("peer{}", id(node)))?;
                (!peer.contains("match=0,")).then_some(())
            });
        }
        [1, 2].into_iter().for_each(|node| cluster.kill(node));
        for node in [1, 2] {
            let backup = backup(&cluster, node);
            is_noticed(&mut cluster, node, &backup);
        }
    });
}

/// Nobody is elected and nothing is formed anew: the only copy of acknowledged writes may be the
/// one that is left.
#[test]
fn where_a_majority_of_disks_is_lost_each_node_says_what_it_sees() {
    on_each_runtime(|runtime| {
        // The founder is among them, or is the one that is left.
        let left = if runtime == "monoio" { 0 } else { 2 };
        let (mut cluster, load) = under_load(runtime);
        load.end_and_check(&cluster, &[0, 1, 2]);
        let incarnation = cluster.fact(left, "incarnation");
        let wiped: Vec<_> = (0..3).filter(|node| *node != left).collect();
        (0..3).for_each(|node| cluster.kill(node));
        wiped.iter().for_each(|node| cluster.wipe(*node));
        // First without the one that could say that there is a cluster.
        for node in &wiped {
            cluster.start_node(*node);
        }
        for node in &wiped {
            cluster.says(*node, &format!("waits for node {}: it can't be reached at", id(left)));
        }
        cluster.start_node(left);
        for node in &wiped {
            let is_there =
                "it is a member of the group, which was formed before this disk was empty";
            cluster.says(*node, &format!("waits for node {}: {is_there}", id(left)));
            until("the status says it, too", || {
                cluster.waits_for(*node, left).filter(|why| why.starts_with(is_there))
            });
            assert_eq!(cluster.fact(*node, "formed").as_deref(), Some("no"));
            assert_eq!(cluster.fact(*node, "leader").as_deref(), Some("none"));
        }
        for node in &wiped {
            cluster.says(*node, "Of the 3 nodes of its cluster it hears 1 with a disk of it");
            let lost = format!("it answers with an empty disk, {}/", id(*node));
            cluster.says(left, &format!("; node {}: {lost}", id(*node)));
            let why = cluster.waits_for(left, *node).expect("told in the status, too");
            assert!(why.starts_with(&lost), "{why}");
        }
        cluster.says(left, "a majority of the disks of this cluster is lost, so nobody is elected");
        assert_eq!(cluster.fact(left, "formed").as_deref(), Some("yes"));
        assert_eq!(cluster.fact(left, "incarnation"), incarnation);
        assert_eq!(cluster.fact(left, "leader").as_deref(), Some("none"));
    });
}

#[test]
fn a_sole_survivor_says_why_it_has_no_leader_until_it_has_one() {
    on_each_runtime(|runtime| {
        let (mut cluster, load) = under_load(runtime);
        load.end_and_check(&cluster, &[0, 1, 2]);
        let left = (cluster.leader() + 1) % 3;
        let others: Vec<_> = (0..3).filter(|node| *node != left).collect();
        assert_eq!(cluster.waits_for(left, others[0]), None);
        others.iter().for_each(|node| cluster.kill(*node));
        cluster.says(left, "no leader for ");
        for other in &others {
            let away = format!("it can't be reached at {}: ", cluster.peer_address(*other));
            cluster.says(left, &format!("; node {}: {away}", id(*other)));
            until("the status says it, too", || {
                cluster.waits_for(left, *other).filter(|why| why.starts_with(&away))
            });
        }
        cluster.start_node(others[0]);
        cluster.serves(left);
        assert_eq!(cluster.waits_for(left, others[1]), None);
    });
}

/// The folder of a node that was taken for lost, and is found again when its next one has its
/// place.
#[test]
fn a_disk_that_was_replaced_by_the_next_one_says_so() {
    on_each_runtime(|runtime| {
        let (mut cluster, load) = under_load(runtime);
        let node = (cluster.leader() + 1) % 3;
        let old = cluster.data_of(node).with_extension("old");
        cluster.kill(node);
        std::fs::rename(cluster.data_of(node), &old).expect("moves a folder");
        cluster.start_node(node);
        is_let_in(&cluster, node);
        load.end_and_check(&cluster, &[0, 1, 2]);
        let next = cluster.fact(node, "incarnation").expect("has one");
        cluster.kill(node);
        let line = Serve { data: old, ..cluster.line(node) };
        cluster.start_as(node, &line);
        // A member shows it that it was removed, or refuses its connections, as the next disk is
        // there.
        let others: Vec<_> = (0..3).filter(|other| *other != node).map(id).collect();
        let why = format!("it knows this node by another disk, {}/{}", id(node), &next[..4]);
        let refused = format!("; node {}, node {}: {why}", others[0], others[1]);
        until("it says why", || {
            let said = cluster.said(node);
            let says = said.contains("was removed from the group") || said.contains(&refused);
            says.then_some(())
        });
        assert!(!cluster.said(node).contains("is part of the cluster"), "it is not any more");
        // Its peers go on without it.
        assert_ne!(cluster.fact((node + 1) % 3, "leader").as_deref(), Some("none"));
    });
}
