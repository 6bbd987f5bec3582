//! The promise, tried on real processes: clients write through a real Redis library while the
//! leader is killed again and again, on each runtime and on a cluster of all three. Whatever was
//! acknowledged is there afterwards, on every node.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{Cluster, connect, until};
use redis::{Connection, RedisResult};

const CLIENTS: usize = 6;
const KILLS: usize = 4;
/// Before the next kill so many more writes must have been acknowledged.
const WRITES_BETWEEN: usize = 300;

#[test]
fn on_tokio() {
    no_acknowledged_write_is_lost(["tokio"; 3]);
}

#[test]
fn on_monoio() {
    no_acknowledged_write_is_lost(["monoio"; 3]);
}

#[test]
fn on_compio() {
    no_acknowledged_write_is_lost(["compio"; 3]);
}

#[test]
fn on_all_three_at_once() {
    no_acknowledged_write_is_lost(["tokio", "monoio", "compio"]);
}

/// What a client knows of its writes.
#[derive(Default)]
struct Account {
    /// The numbers whose SET was acknowledged.
    set: Vec<u64>,
    /// How many INCRs were acknowledged, and how many were sent.
    incremented: u64,
    tried: u64,
}

fn no_acknowledged_write_is_lost(runtimes: [&'static str; 3]) {
    let mut cluster = Cluster::start(runtimes);
    cluster.leader();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            let ports = cluster.client_ports();
            thread::spawn(move || write(client, &ports, &stop, &acknowledged))
        })
        .collect();

    for kill in 1..=KILLS {
        let before = acknowledged.load(Ordering::Relaxed);
        until("the clients write", || {
            (acknowledged.load(Ordering::Relaxed) >= before + WRITES_BETWEEN).then_some(())
        });
        let leader = cluster.leader();
        cluster.kill(leader);
        let next = cluster.leader();
        cluster.serves(next);
        eprintln!("{runtimes:?}: kill {kill}: node {leader} is dead, node {next} leads");
        cluster.start_node(leader);
        cluster.serves(leader);
    }
    stop.store(true, Ordering::Relaxed);
    let accounts: Vec<Account> =
        clients.into_iter().map(|client| client.join().expect("no panic")).collect();

    for node in 0..3 {
        cluster.serves(node);
        let mut connection = cluster.connect(node).expect("connects");
        for (client, account) in accounts.iter().enumerate() {
            assert!(account.incremented > 0, "client {client} got nothing through");
            for chunk in account.set.chunks(500) {
                let keys: Vec<_> = chunk.iter().map(|n| key(client, *n)).collect();
                let values: Vec<Option<u64>> =
                    redis::cmd("MGET").arg(keys).query(&mut connection).expect("reads");
                for (n, value) in chunk.iter().zip(values) {
                    assert_eq!(value, Some(*n), "key {} on node {node}", key(client, *n));
                }
            }
            let counter: u64 =
                redis::cmd("GET").arg(counter(client)).query(&mut connection).expect("reads");
            assert!(
                (account.incremented..=account.tried).contains(&counter),
                "client {client} on node {node}: counter {counter}, {} of {} INCRs acknowledged",
                account.incremented,
                account.tried
            );
        }
    }
}

fn key(client: usize, n: u64) -> String {
    format!("key:{client}:{n}")
}

fn counter(client: usize) -> String {
    format!("counter:{client}")
}

/// Writes until told to stop, through whichever node answers.
fn write(client: usize, ports: &[u16], stop: &AtomicBool, acknowledged: &AtomicUsize) -> Account {
    let mut account = Account::default();
    let mut connection: Option<Connection> = None;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let port = ports[(client + n as usize) % ports.len()];
        let Some(open) = connection.take().or_else(|| connect(port).ok()) else { continue };
        let mut open = open;
        let set: RedisResult<()> = redis::cmd("SET").arg(key(client, n)).arg(n).query(&mut open);
        let answered = set.as_ref().map_or_else(|error| error.code().is_some(), |()| true);
        if set.is_ok() {
            account.set.push(n);
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        if !answered {
            continue; // The connection is gone: on to the next node.
        }
        account.tried += 1;
        let incremented: RedisResult<u64> =
            redis::cmd("INCR").arg(counter(client)).query(&mut open);
        if incremented.is_ok() {
            account.incremented += 1;
            acknowledged.fetch_add(1, Ordering::Relaxed);
            connection = Some(open);
        }
    }
    account
}
