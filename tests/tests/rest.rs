//! What groups do that were at rest, and what they say of it.

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::sim::{Crash, Host, Simulation};
use quorate::{Config, LocalRaft, MemStore, NodeId, TcpTransport};
use quorate_tests::{Journal, Single};

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panics").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts a node of a group of three on this host, with an empty disk.
fn start(
    host: &Host,
    id: NodeId,
    list: Vec<(NodeId, String)>,
    raft: &Rc<Cell<Option<LocalRaft<Journal>>>>,
) {
    let raft = Rc::clone(raft);
    host.start(async move |rt| {
        let tcp = TcpTransport::bind(&rt, &list[id as usize - 1].1).await.expect("it is free");
        let journal = Journal::default();
        let node = Single::start(&rt, id, Config::default(), MemStore::new(), tcp, journal);
        let node = node.await.expect("the settings are valid");
        raft.set(Some(node.local()));
        let _ = node.local().initialize(list).await; // Where the group is formed it is let in.
        node.stopped().await.expect("nothing fails");
    });
}

/// A leader puts its heartbeats to a silent peer off. When it has something to do again, they are
/// due for as long as that, and nothing has held it up.
#[test]
fn a_leader_that_lets_an_empty_disk_in_is_not_late() {
    let lines = Lines::default();
    let writer = lines.clone();
    let logs = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
    let _listening = tracing::subscriber::set_default(logs.finish());
    let simulation = Simulation::new(7);
    let hosts = ["a", "b", "c"].map(|name| simulation.host(name));
    let list: Vec<_> = (1..).zip(hosts.iter().map(|host| format!("{}:7001", host.ip()))).collect();
    let rafts = [(); 3].map(|()| Rc::default());
    for ((host, (id, _)), raft) in hosts.iter().zip(&list).zip(&rafts) {
        start(host, *id, list.clone(), raft);
    }
    simulation.run_for(Duration::from_secs(20));
    let raft = rafts[0].take().expect("it has started");
    let leader = raft.metrics().borrow().leader.expect("somebody leads");
    drop(raft);
    let wiped = (leader % 3) as usize;
    hosts[wiped].crash(Crash::Process);
    start(&hosts[wiped], wiped as NodeId + 1, list, &rafts[wiped]);
    simulation.run_for(Duration::from_secs(30));
    let raft = rafts[wiped].take().expect("it has started");
    assert!(raft.metrics().borrow().membership.is_some(), "it was let in");
    let logged = String::from_utf8(lines.0.lock().expect("nobody panics").clone()).expect("text");
    assert!(logged.contains("follows a leader"), "{logged}");
    assert!(!logged.contains("held up"), "{logged}");
}
