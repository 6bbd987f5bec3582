//! What an operator sees of the processes: ready lines, exit codes, refusals, and data that come
//! back.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use common::{Cluster, PATIENCE, Process, RUNTIMES, connect, free_ports, kv, number, status};
use redis::RedisResult;

#[test]
fn without_a_majority_commands_fail_within_five_seconds_and_service_resumes() {
    let mut cluster = Cluster::start(RUNTIMES);
    let leader = cluster.leader();
    cluster.serves(leader);
    let mut connection = cluster.connect(leader).expect("connects");
    redis::cmd("SET").arg("a").arg("1").exec(&mut connection).expect("writes");
    let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    for node in &others {
        cluster.kill(*node);
    }
    for command in [&["SET", "b", "2"][..], &["GET", "a"], &["INCR", "c"]] {
        let began = Instant::now();
        let answer: RedisResult<redis::Value> =
            redis::cmd(command[0]).arg(&command[1..]).query(&mut connection);
        let error = answer.expect_err("there is no majority");
        assert_eq!(error.code(), Some("CLUSTERDOWN"), "{command:?}: {error}");
        assert!(began.elapsed().as_secs_f64() < 5.0, "{command:?} took {:?}", began.elapsed());
    }
    for node in others {
        cluster.start_node(node);
    }
    cluster.serves(leader);
    let value: u64 = redis::cmd("GET").arg("a").query(&mut connection).expect("reads");
    assert_eq!(value, 1);
    redis::cmd("SET").arg("b").arg("3").exec(&mut connection).expect("writes again");
}

#[test]
fn a_demo_says_that_it_is_ready_and_brings_its_data_back() {
    for runtime in RUNTIMES {
        let data = tempfile::tempdir().expect("a temporary folder");
        for round in 0..2 {
            let (mut demo, ready, base) = demo(runtime, Some(data.path()));
            let clients: Vec<_> = (1..=3).map(|i| format!("127.0.0.1:{}", base + i)).collect();
            let leader = ready
                .strip_prefix("ready leader=")
                .and_then(|rest| rest.strip_suffix(&format!(" clients={}", clients.join(","))))
                .unwrap_or_else(|| panic!("{ready}"));
            assert!(["1", "2", "3"].contains(&leader), "{ready}");
            let mut connection = connect(base + 1).expect("connects");
            let count: u64 =
                redis::cmd("INCR").arg("round").query(&mut connection).expect("writes");
            assert_eq!(count, round + 1, "on {runtime}");
            let facts = status(&mut connection).expect("has a status");
            assert_eq!(number(&facts, "id"), Some(1));
            demo.signal(if round == 0 { "TERM" } else { "INT" });
            assert_eq!(demo.exit_code(), Some(0), "on {runtime}");
        }
        for node in ["1", "2", "3"] {
            assert!(data.path().join(node).is_dir(), "no data of node {node}");
        }
    }
}

/// Starts a demo on ports that are free, and waits for its first line.
fn demo(runtime: &str, data: Option<&std::path::Path>) -> (Process, String, u16) {
    let began = Instant::now();
    loop {
        let base = free_ports(1)[0].clamp(1024, 60_000) - 1;
        let mut command = kv();
        command.args(["demo", "--runtime", runtime, "--base-port", &base.to_string()]);
        if let Some(data) = data {
            command.arg("--data").arg(data);
        }
        let mut demo = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
        if let Some(ready) = demo.lines().next() {
            return (demo, ready, base);
        }
        // One of its ports was taken: another try.
        assert!(began.elapsed() < PATIENCE, "the demo doesn't start");
    }
}

/// On the same ports, as by a second click, and on others.
#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let mut cluster = Cluster::start(RUNTIMES);
    for node in 0..3 {
        cluster.serves(node);
        let said = cluster.line(node).is_refused();
        assert!(said.contains("can't listen on"), "{said}");
        let said = cluster.line(node).moved().is_refused();
        assert!(said.contains("in use by another process"), "{said}");
    }
    for node in 0..3 {
        cluster.serves(node);
        cluster.stop_node(node);
        cluster.start_node(node);
    }
}

#[test]
fn a_demo_without_a_folder_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let base = free_ports(1)[0].clamp(1024, 60_000) - 1;
    let mut demo = Process::spawn(
        kv().args(["demo", "--nodes", "1", "--base-port", &base.to_string()])
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let ready = demo.lines().next().expect("gets ready");
    assert_eq!(ready, format!("ready leader=1 clients=127.0.0.1:{}", base + 1));
    assert!(fs::read_dir(temporary.path()).expect("reads").next().is_some());
    demo.signal("TERM");
    assert_eq!(demo.exit_code(), Some(0));
    assert!(fs::read_dir(temporary.path()).expect("reads").next().is_none());
}
