//! Cables that are pulled: the nodes are processes in network namespaces of their own. Skipped,
//! with a word, where the machine doesn't allow namespaces.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use common::load::Load;
use common::namespace::{self, Network};
use common::{Cluster, PATIENCE, number, status, until};
use redis::RedisResult;

const RUNTIMES: [&str; 3] = ["tokio", "monoio", "compio"];

/// A cluster, its leader, and the others.
fn cluster() -> (Cluster, usize, [usize; 2]) {
    let cluster = Cluster::start_within(Network::lay(3), RUNTIMES);
    let leader = cluster.leader();
    (0..3).for_each(|node| cluster.serves(node));
    (cluster, leader, [(leader + 1) % 3, (leader + 2) % 3])
}

fn role(cluster: &Cluster, node: usize) -> Option<String> {
    let facts = status(&mut cluster.connect(node).ok()?).ok()?;
    redis::from_redis_value(facts.get("role")?.clone()).ok()
}

/// All nodes agree on one leader.
fn agree(cluster: &Cluster) {
    until("one leads, and all know", || {
        let mut leaders = BTreeMap::new();
        let mut leading = 0;
        for node in 0..3 {
            let facts = status(&mut cluster.connect(node).ok()?).ok()?;
            let role: String = redis::from_redis_value(facts.get("role")?.clone()).ok()?;
            leading += usize::from(role == "leader");
            *leaders.entry((number(&facts, "term")?, number(&facts, "leader")?)).or_insert(0) += 1;
        }
        (leaders.len() == 1 && leading == 1).then_some(())
    });
}

/// Nobody confirms to the node what it would answer.
fn answers_nobody(cluster: &Cluster, node: usize) {
    let refused = |command: &[&str]| {
        let mut connection = cluster.connect(node).expect("its clients reach it");
        let answer: RedisResult<redis::Value> =
            redis::cmd(command[0]).arg(&command[1..]).query(&mut connection);
        assert_eq!(answer.expect_err("it is alone").code(), Some("CLUSTERDOWN"), "{command:?}");
    };
    thread::scope(|threads| {
        threads.spawn(|| refused(&["GET", "x"]));
        threads.spawn(|| refused(&["SET", "x", "1"]));
    });
}

#[test]
fn a_leader_that_is_cut_off_answers_nobody_and_the_others_go_on() {
    if !namespace::entered("a_leader_that_is_cut_off_answers_nobody_and_the_others_go_on") {
        return;
    }
    let (cluster, leader, others) = cluster();
    let load = Load::start(&cluster);
    load.goes_on(300);
    let term = cluster.term(leader);
    cluster.network().isolate(leader);
    let next = cluster.leader_among(&others);
    assert!(cluster.term(next) > term);
    cluster.serves(next);
    until("it leads no more", || (role(&cluster, leader)? != "leader").then_some(()));
    answers_nobody(&cluster, leader);
    load.goes_on(300);
    cluster.network().rejoin(leader);
    agree(&cluster);
    cluster.serves(leader);
    load.goes_on(300);
    load.end_and_check(&cluster, &[0, 1, 2]);
}

/// Nothing tells it of the other leader when it goes on: it has to find out for itself that it may
/// have missed one.
#[test]
fn a_leader_that_was_stopped_and_cut_off_answers_nothing_old() {
    const CLIENTS: usize = 50;
    if !namespace::entered("a_leader_that_was_stopped_and_cut_off_answers_nothing_old") {
        return;
    }
    let (mut cluster, leader, others) = cluster();
    let mut connection = cluster.connect(leader).expect("connects");
    redis::cmd("SET").arg("x").arg("old").exec(&mut connection).expect("writes");
    let mut waiting: Vec<_> = (0..CLIENTS)
        .map(|_| TcpStream::connect(cluster.client_addresses()[leader]).expect("connects"))
        .collect();
    for stream in &mut waiting {
        stream.set_read_timeout(Some(PATIENCE)).expect("can wait");
        stream.write_all(b"PING\r\n").expect("sends");
        stream.read_exact(&mut [0; 7]).expect("is served");
    }
    cluster.process(leader).signal("STOP");
    cluster.network().isolate(leader);
    let next = cluster.leader_among(&others);
    let mut connection = cluster.connect(next).expect("connects");
    until("the next leader writes", || {
        redis::cmd("SET").arg("x").arg("new").exec(&mut connection).ok()
    });
    waiting.iter_mut().for_each(|stream| stream.write_all(b"GET x\r\n").expect("sends"));
    cluster.process(leader).signal("CONT");
    for stream in &mut waiting {
        // As much as the right answer and a wrong one have in common.
        let mut answer = [0; 9];
        stream.read_exact(&mut answer).expect("is answered");
        assert_eq!(answer.escape_ascii().to_string(), "-CLUSTERD");
    }
    cluster.network().rejoin(leader);
    agree(&cluster);
    cluster.serves(leader);
    let value: String = redis::cmd("GET")
        .arg("x")
        .query(&mut cluster.connect(leader).expect("connects"))
        .expect("reads");
    assert_eq!(value, "new");
}

/// It hears the others, as far as TCP lets it: what it sends gets lost.
#[test]
fn a_leader_that_is_not_heard_is_replaced() {
    if !namespace::entered("a_leader_that_is_not_heard_is_replaced") {
        return;
    }
    let (cluster, leader, others) = cluster();
    let load = Load::start(&cluster);
    load.goes_on(300);
    others.iter().for_each(|other| cluster.network().lose(leader, *other));
    let next = cluster.leader_among(&others);
    cluster.serves(next);
    answers_nobody(&cluster, leader);
    load.goes_on(300);
    others.iter().for_each(|other| cluster.network().lose_no_more(leader, *other));
    agree(&cluster);
    cluster.serves(leader);
    load.goes_on(300);
    load.end_and_check(&cluster, &[0, 1, 2]);
}

/// The third node hears both; it must not help the one to unseat the other.
#[test]
fn a_follower_that_only_its_leader_does_not_reach_unseats_nobody() {
    if !namespace::entered("a_follower_that_only_its_leader_does_not_reach_unseats_nobody") {
        return;
    }
    let (cluster, leader, [follower, _]) = cluster();
    let term = cluster.term(leader);
    // Nothing is written meanwhile: its log is as good as anybody's.
    until("all have applied the same", || {
        let applied = |node| number(&status(&mut cluster.connect(node).ok()?).ok()?, "applied");
        let all = [applied(0)?, applied(1)?, applied(2)?];
        all.iter().all(|index| *index == all[0]).then_some(())
    });
    cluster.network().lose(leader, follower);
    cluster.network().lose(follower, leader);
    until("the follower looks for another leader", || {
        (role(&cluster, follower)? != "follower").then_some(())
    });
    answers_nobody(&cluster, follower);
    assert_eq!((cluster.leader(), cluster.term(leader)), (leader, term));
    let load = Load::start(&cluster);
    load.goes_on(300);
    cluster.network().lose_no_more(leader, follower);
    cluster.network().lose_no_more(follower, leader);
    agree(&cluster);
    cluster.serves(follower);
    load.goes_on(300);
    assert_eq!((cluster.leader(), cluster.term(leader)), (leader, term));
    load.end_and_check(&cluster, &[0, 1, 2]);
}
