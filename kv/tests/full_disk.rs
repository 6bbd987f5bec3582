//! Disks that get full: small ones (tmpfs) in a mount namespace of their own. Skipped, with a word, where the machine doesn't allow that.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::load::Load;
use common::{Cluster, kv, namespace, until};
use redis::{Connection, RedisResult};

/// Room for the log's first segment, of 64 MiB, and not for the second.
const SMALL_BYTES: u64 = 100 << 20;
const LARGE_BYTES: u64 = 1 << 30;
/// How much a value of those is that fill the disk: what has been written of the log when the disk is full is mostly these.
const BALLAST_BYTES: usize = 1 << 20;
/// As many as would fill the segment twice.
const MOST_BALLAST: usize = 128;

#[test]
fn a_follower_whose_disk_is_full_stops_with_the_cause_and_goes_on_on_a_larger_one() {
    if namespace::entered(
        "a_follower_whose_disk_is_full_stops_with_the_cause_and_goes_on_on_a_larger_one",
    ) {
        let larger = |disk: &Path| namespace::resize_disk(disk, LARGE_BYTES);
        the_disk_gets_full(false, SMALL_BYTES, larger);
    }
}

/// Here it is a file of somebody else that is in the way.
#[test]
fn a_leader_whose_disk_is_full_stops_with_the_cause_and_goes_on_once_there_is_room() {
    if namespace::entered(
        "a_leader_whose_disk_is_full_stops_with_the_cause_and_goes_on_once_there_is_room",
    ) {
        let emptier = |disk: &Path| fs::remove_file(ballast(disk)).expect("removes");
        the_disk_gets_full(true, LARGE_BYTES, emptier);
    }
}

/// A file on the disk whose root is the node's folder: where it does not make that folder another
/// program's.
fn ballast(disk: &Path) -> PathBuf {
    disk.join("lost+found/ballast")
}

fn the_disk_gets_full(of_leader: bool, disk_bytes: u64, make_room: impl FnOnce(&Path)) {
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

    let acknowledged = fill(&mut cluster, VICTIM);
    load.goes_on(100);
    assert_eq!(cluster.process(VICTIM).exit_code(), Some(1));
    stopped_with_the_cause(&cluster, VICTIM);
    is_sound(&disk);

    // A start without more room harms nothing, however far it gets.
    cluster.start_node(VICTIM);
    for value in 0..acknowledged {
        if cluster.process(VICTIM).has_ended() {
            break;
        }
        let mut connection = cluster.connect((VICTIM + 1) % 3).expect("connects");
        redis::cmd("SET")
            .arg(value)
            .arg(vec![b'y'; BALLAST_BYTES])
            .exec(&mut connection)
            .expect("writes");
    }
    assert_eq!(cluster.process(VICTIM).exit_code(), Some(1));
    is_sound(&disk);

    make_room(&disk);
    cluster.start_node(VICTIM);
    cluster.serves(VICTIM);
    load.goes_on(100);
    load.end_and_check(&cluster, &[0, 1, 2]);
    for node in 0..3 {
        let mut connection = cluster.connect(node).expect("connects");
        for value in 0..acknowledged {
            let len: RedisResult<usize> = redis::cmd("STRLEN").arg(value).query(&mut connection);
            assert_eq!(len.expect("reads"), BALLAST_BYTES, "value {value} on node {node}");
        }
    }
}

/// Writes large values until the node ends. How many of them were acknowledged: the first so many.
fn fill(cluster: &mut Cluster, victim: usize) -> usize {
    let mut connection: Option<Connection> = None;
    for value in 0..MOST_BALLAST {
        until("a node takes the value", || {
            if connection.is_none() {
                connection = cluster.connect((victim + 1) % 3).ok();
            }
            let mut open = connection.take()?;
            let ballast = vec![b'x'; BALLAST_BYTES];
            redis::cmd("SET").arg(value).arg(ballast).exec(&mut open).ok()?;
            connection = Some(open);
            Some(())
        });
        if cluster.process(victim).has_ended() {
            return value + 1;
        }
    }
    panic!("the disk isn't full after {MOST_BALLAST} MiB");
}

/// The last word of the node names the file and what happened to it.
fn stopped_with_the_cause(cluster: &Cluster, node: usize) {
    let errors = cluster.errors(node);
    let last = errors.lines().last().expect("has said something");
    let folder = cluster.data_of(node);
    for part in ["quorate-kv: node 2: ", &folder.display().to_string(), "No space left on device"] {
        assert!(last.contains(part), "{part} is not in: {last}");
    }
}

fn is_sound(data: &Path) {
    let output = kv().arg("check").arg("--data").arg(data).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.ends_with("sound\n"), "{text}");
}
