//! Processes that are stopped (SIGSTOP), as by a debugger or a machine that sleeps: they hold their
//! connections and say nothing, and when they go on they believe what was so before.
#![cfg(target_os = "linux")] // Where a process' memory can be read.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::load::{Load, overwrite};
use common::{Cluster, PATIENCE, number, status, until};
use redis::RedisResult;

const RUNTIMES: [&str; 3] = ["tokio", "monoio", "compio"];

/// A cluster, its leader, and the others.
fn cluster(runtimes: [&'static str; 3]) -> (Cluster, usize, [usize; 2]) {
    let cluster = Cluster::start(runtimes);
    let leader = cluster.leader();
    (0..3).for_each(|node| cluster.serves(node));
    (cluster, leader, [(leader + 1) % 3, (leader + 2) % 3])
}

#[test]
fn a_leader_that_was_stopped_answers_nothing_that_is_not_so_any_more() {
    const CLIENTS: usize = 50;
    for runtime in RUNTIMES {
        let (mut cluster, leader, others) = cluster([runtime; 3]);
        let mut connection = cluster.connect(leader).expect("connects");
        redis::cmd("SET").arg("x").arg("old").exec(&mut connection).expect("writes");
        let mut waiting: Vec<_> = (0..CLIENTS)
            .map(|_| TcpStream::connect(cluster.client_addresses()[leader]).expect("connects"))
            .collect();
        for stream in &mut waiting {
            stream.write_all(b"PING\r\n").expect("sends");
            stream.read_exact(&mut [0; 7]).expect("is served");
        }

        cluster.process(leader).signal("STOP");
        // Half of the questions are there before anything has changed.
        let (early, late) = waiting.split_at_mut(CLIENTS / 2);
        early.iter_mut().for_each(|stream| stream.write_all(b"GET x\r\n").expect("sends"));
        let next = cluster.leader_among(&others);
        cluster.serves(next);
        let mut connection = cluster.connect(next).expect("connects");
        redis::cmd("SET").arg("x").arg("new").exec(&mut connection).expect("writes");
        late.iter_mut().for_each(|stream| stream.write_all(b"GET x\r\n").expect("sends"));
        cluster.process(leader).signal("CONT");

        let mut refused = 0;
        for (number, stream) in waiting.iter_mut().enumerate() {
            stream.set_read_timeout(Some(PATIENCE)).expect("can wait");
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n") || answer == b"$3\r\n" {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("is answered");
                answer.push(byte[0]);
            }
            match answer.starts_with(b"-CLUSTERDOWN ") {
                true => refused += 1,
                // A signal takes a moment: the leader may have begun to answer the early ones, who
                // asked before the write, and may be told so.
                false if number < CLIENTS / 2 && answer == b"$3\r\nold\r\n" => {}
                false => assert_eq!(answer, b"$3\r\nnew\r\n", "{}", answer.escape_ascii()),
            }
        }
        eprintln!("on {runtime} {refused} of {CLIENTS} reads were refused, the others are right");
    }
}

#[test]
fn while_a_leader_is_stopped_the_others_go_on_and_nothing_is_lost() {
    let (mut cluster, mut leader, _) = cluster(RUNTIMES);
    let load = Load::start(&cluster);
    for _ in 0..2 {
        load.goes_on(200);
        cluster.process(leader).signal("STOP");
        let next = cluster.leader_among(&[(leader + 1) % 3, (leader + 2) % 3]);
        cluster.serves(next);
        load.goes_on(200);
        cluster.process(leader).signal("CONT");
        cluster.serves(leader);
        leader = next;
    }
    load.goes_on(200);
    load.end_and_check(&cluster, &[0, 1, 2]);
}

#[test]
fn while_both_followers_are_stopped_clients_are_told_so_in_time_and_later_served() {
    let (mut cluster, leader, others) = cluster(RUNTIMES);
    let load = Load::start(&cluster);
    load.goes_on(200);
    for other in others {
        cluster.process(other).signal("STOP");
    }
    let mut connection = cluster.connect(leader).expect("connects");
    for command in [&["SET", "b", "2"][..], &["GET", "clock"]] {
        let began = Instant::now();
        let answer: RedisResult<redis::Value> =
            redis::cmd(command[0]).arg(&command[1..]).query(&mut connection);
        let error = answer.expect_err("there is no majority");
        assert_eq!(error.code(), Some("CLUSTERDOWN"), "{command:?}: {error}");
        assert!(began.elapsed() < Duration::from_secs(5), "{command:?} took {:?}", began.elapsed());
    }
    for other in others {
        cluster.process(other).signal("CONT");
    }
    (0..3).for_each(|node| cluster.serves(node));
    load.goes_on(200);
    load.end_and_check(&cluster, &[0, 1, 2]);
}

#[test]
fn while_a_follower_is_stopped_its_leader_keeps_nothing_for_it_in_memory() {
    /// More than the log's cache of 64 MiB and the follower's outbox of 16 MiB, so that all that is
    /// to be full is full.
    const BEFORE_BYTES: usize = 96 << 20;
    /// What the follower misses.
    const MISSED_BYTES: usize = 160 << 20;
    /// What is in flight to the follower (8 MiB), its outbox (16 MiB), and what the allocator makes
    /// of it.
    const ALLOWED_BYTES: usize = 64 << 20;
    let (mut cluster, leader, [follower, _]) = cluster(RUNTIMES);
    let mut connection = cluster.connect(leader).expect("connects");
    overwrite(&mut connection, BEFORE_BYTES);
    let before = cluster.process(leader).resident_bytes();
    cluster.process(follower).signal("STOP");
    overwrite(&mut connection, MISSED_BYTES);
    let after = cluster.process(leader).resident_bytes();
    eprintln!("from {} to {} MiB", before >> 20, after >> 20);
    assert!(after < before + ALLOWED_BYTES, "from {before} to {after} bytes");
    let committed = number(&status(&mut connection).expect("has a status"), "committed");
    cluster.process(follower).signal("CONT");
    until("the follower catches up", || {
        let facts = status(&mut cluster.connect(follower).ok()?).ok()?;
        (number(&facts, "applied") >= committed).then_some(())
    });
}
