//! What a snapshot costs those who write meanwhile, and in memory: figures before, while the leader
//! writes one, and while it sends one to a follower that was away. No election may come of it.
//!
//! With a state of 1 GiB, or as many MiB as QUORATE_SNAPSHOT_MIB says:
//! `cargo test --release -p quorate-kv --test snapshot_load -- --ignored --nocapture`
#![cfg(target_os = "linux")] // Where a process' memory can be read.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::env;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{Cluster, number, status, until};
use redis::Connection;

const MIB: usize = 1 << 20;
const VALUE_BYTES: usize = 4096;
/// Values in one pipeline of the filling.
const PIPELINE: usize = 256;
/// Connections that write while figures are taken, each one SET after the other.
const WRITERS: usize = 4;
/// How many answers make the figures without a snapshot.
const CALM_ANSWERS: usize = 2000;
/// The longest for one step with the largest state.
const LONG: Duration = Duration::from_secs(1200);

/// Memory was in use by `before` at most, and by `after` at most since; what it may grow by is much
/// less than a state that is held twice.
fn assert_flat(what: &str, before: usize, after: usize, state_bytes: usize) {
    let allowed = state_bytes / 2;
    assert!(after < before + allowed, "{what}: from {} to {} MiB", before / MIB, after / MIB);
}

#[test]
fn while_a_snapshot_is_written_and_sent_memory_is_bounded_and_the_leader_stays() {
    measure(["tokio", "monoio", "compio"], 160 * MIB);
}

#[test]
#[ignore = "takes minutes and gigabytes; for its figures"]
fn the_figures_of_a_large_state() {
    let mib = env::var("QUORATE_SNAPSHOT_MIB").map_or(1024, |mib| mib.parse().expect("a number"));
    let runtime = env::var("QUORATE_SNAPSHOT_RUNTIME").unwrap_or_else(|_| "tokio".to_owned());
    measure([runtime.leak(); 3], mib * MIB);
}

fn measure(runtimes: [&'static str; 3], bytes: usize) {
    // By hand only.
    let flags = ["--snapshot-bytes", "1000000000000", "--snapshot-entries", "1000000000000"];
    let mut cluster = Cluster::start_with(runtimes, &flags);
    let leader = cluster.leader();
    let [follower, other] = [(leader + 1) % 3, (leader + 2) % 3];
    (0..3).for_each(|node| cluster.serves(node));
    let term = cluster.term(leader);
    let mut connection = cluster.connect(leader).expect("connects");
    connection.set_read_timeout(Some(LONG)).expect("can be set");

    let keys = bytes / VALUE_BYTES;
    let began = Instant::now();
    fill(&mut connection, keys);
    let rate = (bytes / MIB) as f64 / began.elapsed().as_secs_f64();
    eprintln!("{} MiB in {keys} keys, filled with {rate:.0} MiB/s", bytes / MIB);

    let writers = Writers::start(&cluster, leader, keys);
    peaks(&mut cluster, &[0, 1, 2]);
    writers.wait_for(CALM_ANSWERS);
    eprintln!("calm: {}", writers.figures());
    let calm = peaks(&mut cluster, &[0, 1, 2]);

    let began = Instant::now();
    raft(&mut connection, "SNAPSHOT");
    let rate = (bytes / MIB) as f64 / began.elapsed().as_secs_f64();
    eprintln!("a snapshot is written with {rate:.0} MiB/s: {}", writers.figures());
    let writing = peaks(&mut cluster, &[0, 1, 2]);
    assert_flat("the leader, which writes a snapshot", calm[leader], writing[leader], bytes);

    cluster.stop_node(follower);
    writers.wait_for(100);
    let mut purged = u64::MAX;
    for node in [leader, other] {
        let mut connection = cluster.connect(node).expect("connects");
        connection.set_read_timeout(Some(LONG)).expect("can be set");
        let snapshot = raft(&mut connection, "SNAPSHOT");
        // For a while a leader keeps what a peer needs that has gone a moment ago.
        let all = until("all that is covered is purged", || {
            Some(raft(&mut connection, "PURGE")).filter(|purged| *purged >= snapshot)
        });
        purged = purged.min(all);
    }
    eprintln!("the follower is away: {}", writers.figures());
    let away = peaks(&mut cluster, &[leader, other]);

    let began = Instant::now();
    cluster.start_node(follower);
    let (mut first, mut last) = (None, None);
    let mut ended: Option<u64> = None;
    while ended.is_none() {
        assert!(began.elapsed() < LONG, "the follower gets no snapshot");
        // Until the follower has restarted it is only offered.
        if let Some(sent) = transferred(&mut connection, follower).filter(|sent| *sent > 0) {
            let now = (Instant::now(), sent);
            if first.is_none() {
                first = Some(now);
                writers.figures(); // They begin anew.
            }
            last = Some(now);
        }
        let facts = cluster.connect(follower).ok().and_then(|mut c| status(&mut c).ok());
        ended = facts.and_then(|facts| number(&facts, "applied")).filter(|at| *at >= purged);
        thread::sleep(Duration::from_millis(5));
    }
    let installed = Instant::now();
    let facts = status(&mut cluster.connect(follower).expect("connects")).expect("has a status");
    assert!(number(&facts, "snapshot") >= Some(purged), "it came back without a snapshot");
    if let (Some((from, begin)), Some((to, end))) = (first, last) {
        let rate = (end - begin) as f64 / MIB as f64 / (to - from).as_secs_f64();
        eprintln!("sent with {rate:.0} MiB/s: {}", writers.figures());
        let (before, after) = ((from - began).as_secs_f64(), (installed - to).as_secs_f64());
        eprintln!(
            "restarted for {before:.1} s before it came, and took {after:.1} s to restore it"
        );
    }
    let sending = peaks(&mut cluster, &[leader, other, follower]);
    writers.end();
    for (node, what) in [(leader, "leader"), (follower, "follower"), (other, "other")] {
        let at = [leader, other].iter().position(|running| *running == node);
        let mib = |bytes: usize| bytes / MIB;
        let away = at.map_or("-".to_owned(), |at| mib(away[at]).to_string());
        let place = [leader, other, follower].iter().position(|n| *n == node).expect("is one");
        eprintln!(
            "peak memory of the {what}: calm {} MiB, while the snapshot is written {}, away {away}, while it is sent {}",
            mib(calm[node]),
            mib(writing[node]),
            mib(sending[place]),
        );
    }
    assert_flat(
        "the leader, which sends a snapshot",
        writing[leader].max(away[0]),
        sending[0],
        bytes,
    );
    assert_flat("the follower", writing[follower], sending[2], bytes);
    (0..3).for_each(|node| cluster.serves(node));
    assert_eq!(cluster.term(leader), term, "there was an election");
}

fn raft(connection: &mut Connection, what: &str) -> u64 {
    redis::cmd("RAFT").arg(what).query(connection).expect("is done")
}

/// The peaks of memory since they were last asked for.
fn peaks(cluster: &mut Cluster, nodes: &[usize]) -> Vec<usize> {
    nodes.iter().map(|node| cluster.process(*node).peak_resident_bytes()).collect()
}

/// How much of a snapshot the peer has.
fn transferred(leader: &mut Connection, peer: usize) -> Option<u64> {
    let facts = status(leader).expect("has a status").remove(&format!("peer{}", peer + 1))?;
    let facts: String = redis::from_redis_value(facts).ok()?;
    facts.split_once("snapshot_bytes=")?.1.split_once('/')?.0.parse().ok()
}

fn fill(connection: &mut Connection, keys: usize) {
    let mut value = vec![0; VALUE_BYTES];
    for first in (0..keys).step_by(PIPELINE) {
        let mut pipeline = redis::pipe();
        for n in first..keys.min(first + PIPELINE) {
            value[..8].copy_from_slice(&n.to_le_bytes());
            pipeline.cmd("SET").arg(format!("key:{n}")).arg(&value).ignore();
        }
        pipeline.exec(connection).expect("writes");
    }
}

/// Connections that replace values at random.
struct Writers {
    shared: Arc<Shared>,
    began: Mutex<Instant>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// When an answer came, and how long it took.
    answers: Mutex<Vec<(Instant, Duration)>>,
}

impl Writers {
    fn start(cluster: &Cluster, leader: usize, keys: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..WRITERS).map(|writer| {
            let mut connection = cluster.connect(leader).expect("connects");
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let value = vec![b'x'; VALUE_BYTES];
                let mut state = writer as u64;
                while !shared.stop.load(Ordering::Relaxed) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1442695);
                    let key = format!("key:{}", (state >> 33) as usize % keys);
                    let asked = Instant::now();
                    redis::cmd("SET").arg(key).arg(&value).exec(&mut connection).expect("writes");
                    let now = Instant::now();
                    shared.answers.lock().expect("no panic").push((now, now - asked));
                }
            })
        });
        let threads = threads.collect();
        Self { shared, began: Mutex::new(Instant::now()), threads }
    }

    /// Waits until there are so many answers for the next figures.
    fn wait_for(&self, answers: usize) {
        until("the writers are answered", || {
            (self.shared.answers.lock().expect("no panic").len() >= answers).then_some(())
        });
    }

    /// How it went since they were last asked for.
    fn figures(&self) -> String {
        let answers = mem::take(&mut *self.shared.answers.lock().expect("no panic"));
        let now = Instant::now();
        let began = mem::replace(&mut *self.began.lock().expect("no panic"), now);
        let seconds = (now - began).as_secs_f64();
        let mut times: Vec<_> = answers.iter().map(|(_, took)| *took).collect();
        times.sort();
        let mut ends: Vec<_> = answers.iter().map(|(at, _)| *at).filter(|at| *at > began).collect();
        ends.extend([began, now]);
        ends.sort();
        let gap = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        // The worst of the windows of 100 ms.
        let slots = ((now - began).as_millis() / 100) as usize;
        let mut windows = vec![0_u32; slots];
        for end in &ends {
            if let Some(count) = windows.get_mut(((*end - began).as_millis() / 100) as usize) {
                *count += 1;
            }
        }
        let least = windows.iter().min().map_or(0, |count| count * 10);
        let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
        let longest = times.last().copied().unwrap_or_default();
        format!(
            "{:.0} SET/s for {seconds:.1} s (in the worst 100 ms {least}), p99 {p99:.1?}, the longest {longest:.1?}, the longest gap {gap:.1?}",
            answers.len() as f64 / seconds,
        )
    }

    fn end(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    }
}
