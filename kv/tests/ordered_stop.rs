//! Nodes that are asked to stop one after the other while clients send pipelines: each request is
//! answered, or the connection ends after an answer. No connection is reset.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{Cluster, PATIENCE, until};

const PIPELINE: usize = 50;

/// Until a client that finds nobody tries again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);

/// What one client was told.
#[derive(Default, Debug)]
struct Told {
    done: u64,
    refused: u64,
    /// Sent, and not answered.
    unknown: u64,
    closed: u64,
}

/// A client of one node, which comes back to it.
fn run(address: SocketAddr, stop: &AtomicBool) -> Told {
    let mut told = Told::default();
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut stream) = TcpStream::connect(address) else {
            thread::sleep(RECONNECT_PAUSE);
            continue;
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("can wait");
        stream.set_nodelay(true).expect("can send at once");
        let mut answers = BufReader::new(stream.try_clone().expect("has another handle"));
        let mut was_accepted = false;
        let mut is_open = true;
        while is_open && !stop.load(Ordering::SeqCst) {
            if let Err(error) = stream.write_all("INCR n\r\n".repeat(PIPELINE).as_bytes()) {
                assert!(!was_accepted || error.kind() == ErrorKind::BrokenPipe, "{error}");
            }
            for _ in 0..PIPELINE {
                let mut line = String::new();
                match answers.read_line(&mut line) {
                    Ok(0) => is_open = false,
                    Ok(_) => told.count(&line),
                    // The listener was closed before it came to this one.
                    Err(_) if !was_accepted => is_open = false,
                    Err(error) => panic!("after {told:?}: {error}"),
                }
                was_accepted |= is_open;
                told.unknown += u64::from(!is_open);
            }
        }
        told.closed += u64::from(!is_open);
    }
    told
}

impl Told {
    fn count(&mut self, line: &str) {
        assert!(line.ends_with("\r\n"), "cut off: {line}");
        if line.starts_with(':') {
            self.done += 1;
            return;
        }
        assert!(line.starts_with("-CLUSTERDOWN"), "{line}");
        let is_unknown = line.contains("unknown");
        self.unknown += u64::from(is_unknown);
        self.refused += u64::from(!is_unknown);
    }
}

fn rolling_restarts(runtime: &'static str) {
    let mut cluster = Cluster::start([runtime; 3]);
    (0..3).for_each(|node| cluster.serves(node));
    let stop = AtomicBool::new(false);
    let addresses = cluster.client_addresses();
    let told: Vec<Told> = thread::scope(|scope| {
        let start = |client: usize| {
            let address = addresses[client % 3];
            let stop = &stop;
            scope.spawn(move || run(address, stop))
        };
        let clients: Vec<_> = (0..6).map(start).collect();
        let mut reader = cluster.connect(0).expect("connects");
        let mut last = 0;
        for node in [0, 1, 2, cluster.leader()] {
            until("they have written more", || {
                reader = cluster.connect((node + 1) % 3).ok()?;
                let count: u64 = redis::cmd("GET").arg("n").query(&mut reader).unwrap_or(0);
                (count > last + 1000).then(|| last = count)
            });
            cluster.stop_node(node);
            cluster.start_node(node);
            cluster.serves(node);
        }
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    eprintln!("on {runtime}: {told:?}");
    assert!(told.iter().map(|told| told.closed).sum::<u64>() >= 4);
    let sum = |count: fn(&Told) -> u64| told.iter().map(count).sum::<u64>();
    let (done, unknown) = (sum(|told| told.done), sum(|told| told.unknown));
    let mut reader = cluster.connect(0).expect("connects");
    let count: u64 = redis::cmd("GET").arg("n").query(&mut reader).expect("reads");
    assert!((done..=done + unknown).contains(&count), "{count}, where {done} were done");
}

#[test]
fn rolling_restarts_reset_nobody_on_tokio() {
    rolling_restarts("tokio");
}

#[test]
fn rolling_restarts_reset_nobody_on_monoio() {
    rolling_restarts("monoio");
}

#[test]
fn rolling_restarts_reset_nobody_on_compio() {
    rolling_restarts("compio");
}

/// With these settings a node that waited for others, who are gone, would wait for twenty seconds.
#[test]
fn the_last_node_of_all_waits_for_nobody() {
    let flags = ["--election-timeout", "10s"];
    let mut cluster = Cluster::start_with(["tokio", "monoio", "compio"], &flags);
    (0..3).for_each(|node| cluster.serves(node));
    let leader = cluster.leader();
    cluster.stop_node((leader + 1) % 3);
    for node in [leader, (leader + 2) % 3] {
        let began = Instant::now();
        cluster.stop_node(node);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "node {node} took {took:?}");
    }
}
