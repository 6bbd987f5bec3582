//! Clients whose commands take long: the others are served meanwhile, and the cluster keeps its
//! leader.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, RUNTIMES, until};
use redis::{Connection, RedisResult};

const KEYS: usize = 300_000;

/// What is not optimized takes up to a second for the largest of these commands, on a machine that
/// runs other tests beside.
const PATIENT: [&str; 2] = ["--election-timeout", "3s"];

fn fill(connection: &mut Connection) {
    const KEYS_PER_COMMAND: usize = 5000;
    for part in 0..KEYS / KEYS_PER_COMMAND {
        let mut command = redis::cmd("MSET");
        for n in part * KEYS_PER_COMMAND..(part + 1) * KEYS_PER_COMMAND {
            command.arg(format!("a:key:b:of:c:some:length:{n}")).arg("value");
        }
        // On a busy machine the disk may take longer than the node waits.
        until("it is written", || command.exec(connection).ok());
    }
}

/// How long each of some writes takes, in order of length.
fn writes(connection: &mut Connection, count: usize) -> Vec<Duration> {
    let mut times: Vec<_> = (0..count)
        .map(|n| {
            let began = Instant::now();
            let mut command = redis::cmd("SET");
            command.arg("honest").arg(n);
            until("it is served", || command.exec(connection).ok());
            began.elapsed()
        })
        .collect();
    times.sort();
    times
}

fn p99(times: &[Duration]) -> Duration {
    times[times.len() * 99 / 100]
}

#[test]
fn two_hundred_clients_with_costly_patterns_stop_nobody() {
    const CLIENTS: usize = 200;
    const WRITES: usize = 300;
    let cluster = Cluster::start_with(RUNTIMES, &PATIENT);
    let leader = cluster.leader();
    cluster.serves(leader);
    let mut honest = cluster.connect(leader).expect("connects");
    fill(&mut honest);
    let usual = writes(&mut honest, WRITES);
    let term = cluster.term(leader);
    // Each looks at every key, most of which match all but the end. More than can be answered while
    // the test runs.
    let pipeline = "KEYS *a*b*c*d*\r\nKEYS *?*?*?*?*?*?*?*?x\r\n".repeat(100);
    let mut costly: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let port = cluster.client_ports()[client % RUNTIMES.len()];
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
            stream.write_all(pipeline.as_bytes()).expect("sends");
            stream
        })
        .collect();
    let under_load = writes(&mut honest, WRITES);
    println!("p99 of a write: {:?}, usually {:?}", p99(&under_load), p99(&usual));
    // They are answered, too, if only by a refusal.
    for stream in &mut costly {
        stream.set_read_timeout(Some(PATIENCE)).expect("can wait");
        let mut kind = [0];
        stream.read_exact(&mut kind).expect("is answered");
        assert!(matches!(&kind, b"*" | b"-"), "{kind:?}");
    }
    assert_eq!(cluster.term(leader), term, "the leader stayed");
}

#[test]
fn commands_of_many_keys_stop_nobody_and_too_many_are_refused() {
    const MOST: usize = 32_767;
    let cluster = Cluster::start_with(RUNTIMES, &PATIENT);
    let leader = cluster.leader();
    cluster.serves(leader);
    let mut honest = cluster.connect(leader).expect("connects");
    let term = cluster.term(leader);
    let mut connection = cluster.connect(leader).expect("connects");
    fill(&mut connection);
    let names: Vec<_> = (0..MOST).map(|n| format!("a:key:b:of:c:some:length:{n}")).collect();
    let values: Vec<Option<String>> =
        redis::cmd("MGET").arg(&names).query(&mut connection).expect("reads");
    assert!(values.len() == MOST && values.iter().all(Option::is_some));
    let exist: usize = redis::cmd("EXISTS").arg(&names).query(&mut connection).expect("reads");
    assert_eq!(exist, MOST);
    let deleted: usize = redis::cmd("DEL").arg(&names).query(&mut connection).expect("writes");
    assert_eq!(deleted, MOST);
    for name in ["DEL", "MGET", "EXISTS", "MSET"] {
        let refused: RedisResult<redis::Value> =
            redis::cmd(name).arg(&names).arg("one more").query(&mut connection);
        let error = refused.expect_err("too many").to_string();
        assert!(error.contains("request exceeds 32768 arguments"), "{error}");
    }
    let all: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).expect("reads");
    assert_eq!(all.len(), KEYS - MOST);
    redis::cmd("FLUSHALL").exec(&mut connection).expect("writes");
    writes(&mut honest, 10);
    let left: usize = redis::cmd("DBSIZE").query(&mut connection).expect("reads");
    assert_eq!(left, 1);
    assert_eq!(cluster.term(leader), term, "the leader stayed");
}
