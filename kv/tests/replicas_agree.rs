//! The same commands make the same state: random writes of every kind, through all nodes, while
//! leaders are killed; then the states of the three nodes, on three runtimes, are compared byte by
//! byte, and once more after all have replayed their logs.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::state::{self, assert_same};
use common::{Cluster, connect, until};
use redis::{Cmd, Connection, ErrorKind, RedisResult, Value};

const CLIENTS: usize = 4;
const KILLS: usize = 2;
/// Before each kill, and after the last, so many more writes must have been answered.
const WRITES_BETWEEN: usize = 400;
/// Few enough that the clients often meet at the same one.
const KEYS: usize = 60;

#[test]
fn replicas_hold_the_same_bytes_after_random_writes_and_killed_leaders() {
    let mut cluster = Cluster::start(["tokio", "monoio", "compio"]);
    cluster.leader();
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let ports = cluster.client_ports();
            thread::spawn(move || write(client, &ports, &stop, &answered))
        })
        .collect();
    let clients_write = || {
        let before = answered.load(Ordering::Relaxed);
        until("the clients write", || {
            (answered.load(Ordering::Relaxed) >= before + WRITES_BETWEEN).then_some(())
        });
    };
    for _ in 0..KILLS {
        clients_write();
        let leader = cluster.leader();
        cluster.kill(leader);
        let next = cluster.leader();
        cluster.serves(next);
        clients_write();
        cluster.start_node(leader);
        cluster.serves(leader);
    }
    clients_write();
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("no panic"));

    // A client may have flushed all there was just before: so that something is left to compare.
    let mut connection = cluster.connect(0).expect("connects");
    for n in 0..KEYS {
        let key = format!("last:{n}");
        until("the last writes", || redis::cmd("SET").arg(&key).arg(n).exec(&mut connection).ok());
    }
    let states = state::states(&cluster);
    assert!(states[0].len() >= KEYS, "only {} keys are left to compare", states[0].len());
    assert_same(&states);
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.start_node(node);
    }
    let replayed = state::states(&cluster);
    assert_same(&[&states[..1], &replayed[..]].concat());
}

/// Writes until told to stop, through whichever node answers: one command at a time or several.
fn write(client: usize, ports: &[u16], stop: &AtomicBool, answered: &AtomicUsize) {
    let mut rng = Rng(client as u64);
    let mut connection: Option<Connection> = None;
    while !stop.load(Ordering::Relaxed) {
        let port = ports[rng.below(ports.len())];
        let Some(mut open) = connection.take().or_else(|| connect(port).ok()) else { continue };
        let mut pipeline = redis::pipe();
        let count = 1 + rng.below(8);
        for _ in 0..count {
            pipeline.add_command(random_write(&mut rng));
        }
        let answers: RedisResult<Value> = pipeline.query(&mut open);
        // An error of one command says that the connection is fine.
        if answers.map_or_else(|error| error.kind() != ErrorKind::Io, |_| true) {
            answered.fetch_add(count, Ordering::Relaxed);
            connection = Some(open);
        }
    }
}

fn random_write(rng: &mut Rng) -> Cmd {
    let mut command = Cmd::new();
    let key = |rng: &mut Rng| format!("key:{}", rng.below(KEYS));
    let value = |rng: &mut Rng| match rng.below(3) {
        0 => (rng.next() as i16).to_string().into_bytes(),
        1 => Vec::new(),
        _ => std::iter::repeat_with(|| rng.next() as u8).take(20).collect(),
    };
    match rng.below(300) {
        0 => command.arg("FLUSHALL"),
        1..30 => command.arg("SETNX").arg(key(rng)).arg(value(rng)),
        30..60 => command.arg("GETSET").arg(key(rng)).arg(value(rng)),
        60..70 => command.arg("GETDEL").arg(key(rng)),
        70..120 => command.arg("APPEND").arg(key(rng)).arg(value(rng)),
        120..150 => command.arg("RENAME").arg(key(rng)).arg(key(rng)),
        150..170 => command.arg("INCR").arg(key(rng)),
        170..180 => command.arg("DECR").arg(key(rng)),
        180..190 => command.arg("INCRBY").arg(key(rng)).arg(rng.next() as i32),
        190..200 => command.arg("DECRBY").arg(key(rng)).arg(rng.next() as i32),
        200..210 => command.arg("DEL").arg(key(rng)).arg(key(rng)),
        210..230 => command.arg("MSET").arg(key(rng)).arg(value(rng)).arg(key(rng)).arg(value(rng)),
        230..245 => command.arg("SET").arg(key(rng)).arg(value(rng)).arg("NX"),
        245..260 => command.arg("SET").arg(key(rng)).arg(value(rng)).arg("XX").arg("GET"),
        _ => command.arg("SET").arg(key(rng)).arg(value(rng)),
    };
    command
}

/// SplitMix64: the same commands in each run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
