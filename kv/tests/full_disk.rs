//! Disks that get full: small ones (tmpfs) in a mount namespace of their own. Skipped, with a word,
//! where the machine doesn't allow that.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::load::Load;
use common::{Cluster, kv, namespace, until};
use redis::{Connection, RedisError, RedisResult};

/// Room for the log's first segment, of 64 MiB, and not for the second.
const SMALL_BYTES: u64 = 100 << 20;
const LARGE_BYTES: u64 = 1 << 30;
/// How much a value of those is that fill the disk: what has been written of the log when the disk
/// is full is mostly these.
const BALLAST_BYTES: usize = 1 << 20;
/// As many as would fill the segment twice.
const MOST_BALLAST: usize = 128;

#[test]
fn a_follower_whose_disk_is_full_runs_on_and_catches_up_on_a_larger_one() {
    if namespace::entered("a_follower_whose_disk_is_full_runs_on_and_catches_up_on_a_larger_one") {
        let larger = |disk: &Path| namespace::resize_disk(disk, LARGE_BYTES);
        one_disk_gets_full(false, SMALL_BYTES, larger);
    }
}

/// Here it is a file of somebody else that is in the way.
#[test]
fn a_leader_whose_disk_is_full_transfers_leadership_and_catches_up_once_there_is_room() {
    if namespace::entered(
        "a_leader_whose_disk_is_full_transfers_leadership_and_catches_up_once_there_is_room",
    ) {
        let emptier = |disk: &Path| fs::remove_file(ballast(disk)).expect("removes");
        one_disk_gets_full(true, LARGE_BYTES, emptier);
    }
}

#[test]
fn where_all_disks_are_full_writes_are_refused_and_reads_go_on() {
    if !namespace::entered("where_all_disks_are_full_writes_are_refused_and_reads_go_on") {
        return;
    }
    let mut cluster = Cluster::prepare(["tokio", "monoio", "compio"]);
    for node in 0..3 {
        namespace::mount_disk(&cluster.data_of(node), SMALL_BYTES);
        cluster.start_node(node);
    }
    (0..3).for_each(|node| cluster.serves(node));
    redis::cmd("SET").arg("kept").arg("a").exec(&mut connect(&cluster, 0)).expect("writes");
    until("the disk of the leader is full", || {
        let refused = set_ballast(&mut connect(&cluster, 0), 0).err()?;
        (refused.code() == Some("MISCONF")).then_some(())
    });
    for node in 0..3 {
        until("the node refuses writes, and says why", || {
            let refused = set_ballast(&mut connect(&cluster, node), 0).err()?;
            refused.to_string().contains("the disk of the leader is full").then_some(())
        });
    }
    let reads = |cluster: &Cluster, node| {
        until("the node reads", || {
            let mut connection = cluster.connect(node).ok()?; // It may be starting.
            let read: RedisResult<String> = redis::cmd("GET").arg("kept").query(&mut connection);
            (read.ok()? == "a").then_some(())
        });
    };
    (0..3).for_each(|node| reads(&cluster, node));

    // A restart needs no space.
    let follower = (cluster.leader() + 1) % 3;
    cluster.stop_node(follower);
    is_sound(&cluster.data_of(follower));
    cluster.start_node(follower);
    (0..3).for_each(|node| reads(&cluster, node));
    (0..3).for_each(|node| assert!(cluster.runs(node), "{}", cluster.errors(node)));

    for node in 0..3 {
        namespace::resize_disk(&cluster.data_of(node), LARGE_BYTES);
    }
    (0..3).for_each(|node| cluster.serves(node));
    (0..3).for_each(|node| reads(&cluster, node));
    (0..3).for_each(|node| has_room(&cluster, node));
}

/// A file on the disk whose root is the node's folder: where it does not make that folder another
/// program's.
fn ballast(disk: &Path) -> PathBuf {
    disk.join("lost+found/ballast")
}

fn one_disk_gets_full(of_leader: bool, disk_bytes: u64, make_room: impl FnOnce(&Path)) {
    const VICTIM: usize = 1;
    let mut cluster = Cluster::prepare(["tokio", "monoio", "compio"]);
    let disk = cluster.data_of(VICTIM);
    namespace::mount_disk(&disk, disk_bytes);
    let ballast_bytes = disk_bytes.saturating_sub(SMALL_BYTES);
    if ballast_bytes > 0 {
        let path = ballast(&disk);
        fs::create_dir(path.parent().expect("is in a folder")).expect("makes a folder");
        let file = fs::File::create(path).expect("makes a file");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, ballast_bytes)
            .expect("fits");
    }
    (0..3).for_each(|node| cluster.start_node(node));
    // Until the right one leads.
    loop {
        let leader = cluster.leader();
        (0..3).for_each(|node| cluster.serves(node));
        if (leader == VICTIM) == of_leader {
            break;
        }
        cluster.stop_node(leader);
        cluster.start_node(leader);
    }
    let load = Load::start(&cluster);
    load.goes_on(100);

    let acknowledged = fill(&cluster, VICTIM);
    until("another node leads", || (cluster.leader() != VICTIM).then_some(()));
    load.goes_on(100);
    assert!(cluster.runs(VICTIM), "{}", cluster.errors(VICTIM));
    cluster.says(VICTIM, "the disk is full");

    // A restart needs no space, and harms nothing.
    cluster.stop_node(VICTIM);
    is_sound(&disk);
    cluster.start_node(VICTIM);
    until("the node is full again", || is_full(&cluster, VICTIM).then_some(()));
    load.goes_on(100);
    assert!(cluster.runs(VICTIM), "{}", cluster.errors(VICTIM));

    make_room(&disk);
    has_room(&cluster, VICTIM);
    cluster.serves(VICTIM);
    load.goes_on(100);
    load.end_and_check(&cluster, &[0, 1, 2]);
    for node in 0..3 {
        let mut connection = connect(&cluster, node);
        for value in 0..acknowledged {
            let len: RedisResult<usize> = redis::cmd("STRLEN").arg(value).query(&mut connection);
            assert_eq!(len.expect("reads"), BALLAST_BYTES, "value {value} on node {node}");
        }
    }
}

fn connect(cluster: &Cluster, node: usize) -> Connection {
    cluster.connect(node).expect("connects")
}

fn set_ballast(connection: &mut Connection, value: usize) -> Result<(), RedisError> {
    redis::cmd("SET").arg(value).arg(vec![b'x'; BALLAST_BYTES]).exec(connection)
}

fn is_full(cluster: &Cluster, node: usize) -> bool {
    cluster.fact(node, "storage_full").is_some_and(|full| full == "yes")
}

fn has_room(cluster: &Cluster, node: usize) {
    until("the node has room again", || {
        cluster.fact(node, "storage_full").filter(|full| full == "no")
    });
}

/// Writes large values until the disk of a node is full. How many of them were acknowledged: the
/// first so many.
fn fill(cluster: &Cluster, victim: usize) -> usize {
    let mut connection: Option<Connection> = None;
    for value in 0..MOST_BALLAST {
        until("a node takes the value", || {
            if connection.is_none() {
                connection = cluster.connect((victim + 1) % 3).ok();
            }
            let mut open = connection.take()?;
            set_ballast(&mut open, value).ok()?;
            connection = Some(open);
            Some(())
        });
        if is_full(cluster, victim) {
            return value + 1;
        }
    }
    panic!("the disk isn't full after {MOST_BALLAST} MiB");
}

fn is_sound(data: &Path) {
    let output = kv().arg("check").arg("--data").arg(data).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("sound\n"), "{text}");
}
