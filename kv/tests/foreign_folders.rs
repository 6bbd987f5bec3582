//! Nodes that are started on the folder of another node, on a copy of a folder that is in use, or
//! on a folder of another cluster.

mod common;

use std::fs;

use common::load::Load;
use common::{Cluster, Serve, folders, id, on_each_runtime, until};
use redis::RedisResult;

fn write(cluster: &Cluster, node: usize, value: &str) {
    let mut connection = cluster.connect(node).expect("connects");
    redis::cmd("SET").arg("key").arg(value).exec(&mut connection).expect("writes");
}

fn read(cluster: &Cluster, node: usize) -> RedisResult<String> {
    redis::cmd("GET").arg("key").query(&mut cluster.connect(node)?)
}

/// A cluster whose nodes all serve, and its leader.
fn cluster(runtime: &'static str) -> (Cluster, usize) {
    let cluster = Cluster::start([runtime; 3]);
    (0..3).for_each(|node| cluster.serves(node));
    let leader = cluster.leader();
    (cluster, leader)
}

#[test]
fn a_node_does_not_start_on_the_folder_of_another() {
    on_each_runtime(|runtime| {
        let (mut cluster, _) = cluster(runtime);
        write(&cluster, 0, "kept");
        (0..2).for_each(|node| cluster.stop_node(node));
        for (node, other) in [(0, 1), (1, 0)] {
            let before = folders::records(&cluster.data_of(other));
            assert!(before.contains(&format!("node: {}, ", id(other))), "{before}");
            let swapped = Serve { data: cluster.data_of(other), ..cluster.line(node) };
            let said = swapped.is_refused();
            let expected =
                format!("belongs to node {}, and node {} was to start on it", id(other), id(node));
            assert!(said.contains(&expected), "{said}");
            assert_eq!(folders::records(&cluster.data_of(other)), before);
        }
        (0..2).for_each(|node| cluster.start_node(node));
        for node in 0..3 {
            cluster.serves(node);
            assert_eq!(read(&cluster, node).expect("reads"), "kept");
        }
    });
}

/// The list of nodes is for forming only: whether an operator who copies a folder to another
/// machine changes it or not makes no difference.
fn a_copy_is_refused(runtime: &'static str, of_leader: bool) {
    let (mut cluster, leader) = cluster(runtime);
    let node = if of_leader { leader } else { (leader + 1) % 3 };
    if !of_leader {
        // Followers are connected with each other, too, even if they have nothing to say since.
        cluster.stop_node(node);
        cluster.start_node(node);
        cluster.serves(node);
    }
    let load = Load::start(&cluster);
    load.goes_on(100);
    let line = cluster.line(node);
    let copy = Serve { data: line.data.with_extension("copy"), ..line };
    folders::copy(&cluster.data_of(node), &copy.data);
    load.goes_on(100);

    let mut moved = copy.clone().moved();
    if of_leader {
        moved.list.clone_from(&copy.list);
    }
    let errors = moved.data.with_extension("err");
    let mut twin = moved.start(&errors);
    for other in (0..3).filter(|other| *other != node) {
        cluster.says(other, "two processes run as one replica");
    }
    until("the copy says where it should be", || {
        let said = std::fs::read_to_string(&errors).expect("reads");
        let place = format!("the other nodes look for this one at {}", copy.peer);
        said.contains(&place).then_some(())
    });
    until("the copy says it, too", || {
        let said = std::fs::read_to_string(&errors).expect("reads");
        said.contains("the peer refuses this node: two processes run as one").then_some(())
    });
    load.goes_on(300);
    assert!(cluster.runs(node), "{}", cluster.said(node));
    twin.kill();

    // It has left nothing behind that keeps the others apart.
    cluster.kill(leader);
    load.goes_on(300);
    cluster.start_node(leader);
    load.end_and_check(&cluster, &[0, 1, 2]);
}

#[test]
fn a_copy_of_the_leaders_folder_is_refused_by_the_others() {
    on_each_runtime(|runtime| a_copy_is_refused(runtime, true));
}

#[test]
fn a_copy_of_a_followers_folder_is_refused_by_the_others() {
    on_each_runtime(|runtime| a_copy_is_refused(runtime, false));
}

#[test]
fn a_folder_with_other_data_and_a_file_are_refused() {
    on_each_runtime(|runtime| {
        let cluster = Cluster::start([runtime; 3]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let line = Serve { data: folder.path().to_owned(), ..cluster.line(0).moved() };
        let file = folder.path().join("thesis.tex");
        fs::write(&file, "years of work").expect("writes");
        let said = line.is_refused();
        assert!(said.contains("it holds thesis.tex; choose an empty folder"), "{said}");
        let said = Serve { data: file, ..line }.is_refused();
        assert!(said.contains("thesis.tex: no folder for a node's data: it is a file"), "{said}");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    });
}

/// Each of them would remove the other's snapshots.
#[test]
fn two_running_nodes_whose_folders_are_swapped_stop_and_lose_nothing() {
    on_each_runtime(|runtime| {
        let (mut cluster, _) = cluster(runtime);
        write(&cluster, 2, "kept");
        let swap = |cluster: &Cluster| {
            let [zero, one] = [cluster.data_of(0), cluster.data_of(1)];
            let aside = zero.with_extension("aside");
            fs::rename(&zero, &aside).expect("renames");
            fs::rename(&one, &zero).expect("renames");
            fs::rename(&aside, &one).expect("renames");
        };
        swap(&cluster);
        for node in 0..2 {
            let mut connection = cluster.connect(node).expect("connects");
            let refused = redis::cmd("RAFT").arg("SNAPSHOT").exec(&mut connection);
            let refused = refused.expect_err("it is another folder").to_string();
            assert!(refused.contains("another folder was put in its place"), "{refused}");
        }
        // The next write stops them.
        let mut connection = cluster.connect(2).expect("connects");
        let _ = redis::cmd("SET").arg("other").arg("value").exec(&mut connection);
        for node in 0..2 {
            let said = cluster.fails(node);
            assert!(said.contains("nothing was written to what is there now"), "{said}");
        }
        swap(&cluster);
        for node in 0..2 {
            let said = folders::check(&cluster.data_of(node));
            assert!(said.contains("\nsound\n"), "{said}");
            cluster.start_node(node);
        }
        for node in 0..3 {
            cluster.serves(node);
            assert_eq!(read(&cluster, node).expect("reads"), "kept");
        }
    });
}

#[test]
fn a_node_on_a_folder_of_another_cluster_is_kept_out() {
    on_each_runtime(|runtime| {
        let (mut cluster, leader) = cluster(runtime);
        let (mut theirs, _) = self::cluster(runtime);
        let node = (leader + 1) % 3;
        write(&cluster, 0, "ours");
        write(&theirs, 0, "theirs");
        until("it is replicated there", || read(&theirs, node).ok().filter(|v| v == "theirs"));
        (0..3).for_each(|node| theirs.stop_node(node));
        let load = Load::start(&cluster);
        load.goes_on(100);

        cluster.stop_node(node);
        let foreign = Serve { data: theirs.data_of(node), ..cluster.line(node) };
        let mut connection = cluster.connect(leader).expect("connects");
        let token: String =
            redis::cmd("RAFT").arg("TOKEN").query(&mut connection).expect("is a member");
        let mut checked = foreign.clone();
        checked.flags.extend(["--token".to_owned(), token]);
        let said = checked.is_refused();
        assert!(said.contains("is of another cluster than --token says"), "{said}");
        cluster.start_as(node, &foreign);
        // It looks for its own cluster, which is down.
        let place = theirs.peer_address(node);
        cluster.says(node, &format!("the other nodes look for this one at {place}"));
        cluster.says(node, "no leader for ");
        load.goes_on(300);
        let refused = read(&cluster, node).expect_err("it is no member");
        assert_eq!(refused.code(), Some("CLUSTERDOWN"), "{refused}");
        for other in (0..3).filter(|other| *other != node) {
            assert_eq!(read(&cluster, other).expect("reads"), "ours");
        }

        cluster.stop_node(node);
        cluster.start_node(node);
        load.goes_on(100);
        load.end_and_check(&cluster, &[0, 1, 2]);
        assert_eq!(read(&cluster, node).expect("reads"), "ours");
        // The other cluster has lost nothing by it either.
        (0..3).for_each(|node| theirs.start_node(node));
        for node in 0..3 {
            theirs.serves(node);
            assert_eq!(read(&theirs, node).expect("reads"), "theirs");
        }
    });
}
