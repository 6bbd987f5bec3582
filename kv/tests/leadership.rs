//! `RAFT TRANSFER` and `RAFT CAMPAIGN` on real processes, while clients write on all nodes.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Cluster;
use redis::{Connection, RedisResult};

const RUNTIMES: [&str; 3] = ["tokio", "monoio", "compio"];

/// So many times leadership goes from one node to the next.
const TRANSFERS: usize = 12;

fn connect(cluster: &Cluster, node: usize) -> Connection {
    let connection = cluster.connect(node).expect("connects");
    connection.set_read_timeout(Some(common::PATIENCE)).expect("can be set");
    connection
}

fn transfer(cluster: &Cluster, node: usize, to: Option<usize>) -> RedisResult<u64> {
    let to = to.map(|to| to.to_string());
    redis::cmd("RAFT").arg("TRANSFER").arg(to).query(&mut connect(cluster, node))
}

fn refusal<T: std::fmt::Debug>(answer: RedisResult<T>) -> String {
    answer.expect_err("is refused").to_string()
}

/// No client of any node is told an error, and nothing is lost or done twice.
#[test]
fn clients_notice_nothing_but_pauses() {
    let cluster = Cluster::start(RUNTIMES);
    (0..3).for_each(|node| cluster.serves(node));
    let (mut leader, stop) = (cluster.leader(), AtomicBool::new(false));
    let client = |node: usize| {
        let mut connection = connect(&cluster, node);
        let (mut done, mut longest) = (0, Duration::ZERO);
        while !stop.load(Ordering::SeqCst) {
            let begun = Instant::now();
            let count: u64 = redis::cmd("INCR")
                .arg(format!("of {node}"))
                .query(&mut connection)
                .expect("no error, only a pause");
            done += 1;
            assert_eq!(count, done, "each takes effect once");
            longest = longest.max(begun.elapsed());
        }
        (done, longest)
    };
    thread::scope(|scope| {
        let client = &client;
        let clients = [0, 1, 2].map(|node| scope.spawn(move || client(node)));
        for round in 0..TRANSFERS {
            let to = (leader + 1) % 3;
            let named = (round % 3 != 0).then_some(to + 1);
            let next = transfer(&cluster, leader, named).expect("is transferred");
            assert!(named.is_none_or(|named| named as u64 == next));
            assert_ne!(next as usize, leader + 1);
            leader = next as usize - 1;
            thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::SeqCst);
        for (node, client) in clients.into_iter().enumerate() {
            let (done, longest) = client.join().expect("no error");
            println!("client of node {}: {done} writes, the longest took {longest:?}", node + 1);
            let mut other = connect(&cluster, (node + 1) % 3);
            let count: u64 =
                redis::cmd("GET").arg(format!("of {node}")).query(&mut other).expect("reads");
            assert_eq!(count, done);
        }
    });
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() {
    let mut cluster = Cluster::start(RUNTIMES);
    (0..3).for_each(|node| cluster.serves(node));
    let leader = cluster.leader();
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let text = refusal(transfer(&cluster, other, None));
    let known = format!("this node does not lead; node {} at ", leader + 1);
    assert!(text.contains(&known), "{text}");
    let text = refusal(transfer(&cluster, leader, Some(9)));
    assert!(text.contains("node 9 is not a voter of the group"), "{text}");
    let campaign = redis::cmd("RAFT").arg("CAMPAIGN").query::<u64>(&mut connect(&cluster, other));
    let text = refusal(campaign);
    let alive = format!("node {} leads, and was heard", leader + 1);
    assert!(text.contains(&alive), "{text}");

    cluster.kill(third);
    thread::sleep(Duration::from_millis(500));
    let text = refusal(transfer(&cluster, leader, Some(third + 1)));
    assert!(text.contains("failed: nothing is heard of it"), "{text}");
    assert_eq!(cluster.leader(), leader, "it leads on");
    let done: u64 =
        redis::cmd("INCR").arg("n").query(&mut connect(&cluster, leader)).expect("writes");
    assert_eq!(done, 1);
}
