//! Nodes that are asked to stop while clients write: what they answer on the way is honest, and
//! they are soon gone.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::time::{Duration, Instant};

use common::Cluster;
use common::load::Load;

/// What a node promises: a request timeout for what is in flight (3 s), and then nothing takes
/// long. It is far more than that takes here usually, as the next node leads at once.
const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn on_tokio() {
    leaders_stop_one_after_the_other(["tokio"; 3]);
}

#[test]
fn on_monoio() {
    leaders_stop_one_after_the_other(["monoio"; 3]);
}

#[test]
fn on_compio() {
    leaders_stop_one_after_the_other(["compio"; 3]);
}

fn leaders_stop_one_after_the_other(runtimes: [&'static str; 3]) {
    let mut cluster = Cluster::start(runtimes);
    (0..3).for_each(|node| cluster.serves(node));
    let load = Load::start(&cluster);
    for _ in 0..3 {
        load.goes_on(200);
        let leader = cluster.leader();
        let term = cluster.term(leader);
        let began = Instant::now();
        cluster.stop_node(leader);
        assert!(began.elapsed() < DEADLINE, "it took {:?}", began.elapsed());
        load.goes_on(200);
        let next = cluster.leader();
        eprintln!("gone after {:?}; terms {term} and {}", began.elapsed(), cluster.term(next));
        cluster.start_node(leader);
        cluster.serves(leader);
    }
    load.end_and_check(&cluster, &[0, 1, 2]);
}

/// What is in flight at a node alone can't be brought to its end: it must not be said to be refused
/// either.
#[test]
fn a_leader_without_its_followers_stops_within_its_deadline() {
    let mut cluster = Cluster::start(["tokio", "monoio", "compio"]);
    (0..3).for_each(|node| cluster.serves(node));
    let leader = cluster.leader();
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let load = Load::start(&cluster);
    load.goes_on(200);
    followers.iter().for_each(|node| cluster.process(*node).signal("STOP"));
    let began = Instant::now();
    cluster.stop_node(leader);
    assert!(began.elapsed() < DEADLINE, "it took {:?}", began.elapsed());
    followers.iter().for_each(|node| cluster.process(*node).signal("CONT"));
    load.goes_on(200);
    cluster.start_node(leader);
    load.end_and_check(&cluster, &[0, 1, 2]);
}
