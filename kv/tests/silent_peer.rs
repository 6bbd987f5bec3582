//! A peer that accepts connections and never says a word: the others go on, and keep nothing for
//! it.
#![cfg(target_os = "linux")] // Where a process' memory can be read.
#![expect(clippy::disallowed_methods, reason = "processes are real, and so is their time")]

mod common;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::load::{Load, overwrite};
use common::{Cluster, number, status, until};

const SILENT: usize = 2;

#[test]
fn a_peer_that_accepts_and_never_answers_delays_nobody_and_costs_no_memory() {
    /// More than the log's cache of 64 MiB, so that this is full.
    const BEFORE_BYTES: usize = 96 << 20;
    /// What the silent one misses.
    const MISSED_BYTES: usize = 160 << 20;
    /// The log's cache, again, where a leader has changed; what waits for the silent one; what the
    /// allocator makes of it.
    const ALLOWED_BYTES: usize = 64 << 20;
    let mut cluster = Cluster::prepare(["tokio", "compio", "monoio"]);
    // It takes all of them to form the cluster, and it is formed when a write is answered.
    (0..3).for_each(|node| cluster.start_node(node));
    let leader = cluster.leader();
    overwrite(&mut cluster.connect(leader).expect("connects"), 4 << 20);
    cluster.kill(SILENT);
    let address = cluster.peer_address(SILENT);
    let listener = until("the port is free", || TcpListener::bind(address).ok());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    let stop = listener.try_clone().expect("clones");
    // Keeps all that is accepted open.
    let accepting = thread::spawn(move || {
        let mut streams = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            streams.push(stream);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let leader = cluster.leader();
    let load = Load::start(&cluster);
    load.goes_on(200);
    let mut connection = cluster.connect(leader).expect("connects");
    overwrite(&mut connection, BEFORE_BYTES);
    let memory = |cluster: &mut Cluster| [0, 1].map(|node| cluster.process(node).resident_bytes());
    let before = memory(&mut cluster);
    overwrite(&mut connection, MISSED_BYTES);
    // It is tried again and again, and the others go on all the while.
    let tried = accepted.load(Ordering::SeqCst);
    until("the silent one is tried again", || {
        load.goes_on(20);
        (accepted.load(Ordering::SeqCst) > tried).then_some(())
    });
    let after = memory(&mut cluster);
    for (before, after) in before.into_iter().zip(after) {
        eprintln!("from {} to {} MiB", before >> 20, after >> 20);
        assert!(after < before + ALLOWED_BYTES, "from {before} to {after} bytes");
    }

    // It turns into one that answers.
    rustix::net::shutdown(&stop, rustix::net::Shutdown::Both).expect("stops listening");
    accepting.join().expect("ends");
    drop(stop);
    cluster.start_node(SILENT);
    let committed = number(&status(&mut connection).expect("has a status"), "committed");
    until("it catches up", || {
        let facts = status(&mut cluster.connect(SILENT).ok()?).ok()?;
        (number(&facts, "applied") >= committed).then_some(())
    });
    load.end_and_check(&cluster, &[0, 1, 2]);
}
