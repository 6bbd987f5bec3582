//! Clusters over the real log and the real transport: files and TCP, on each runtime and on three at once.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;
use futures::executor::block_on;
use quorate::{
    AsyncRuntime, Compio, Config, FileStore, Launch, LocalRaft, Monoio, Node, NodeId, Raft,
    TcpTransport, Tokio, WriteError,
};
use quorate_tests::{Journal, on_each_runtime, wait_for};
use tempfile::TempDir;

on_each_runtime!(
    what_was_acknowledged_is_there_after_crashes_with_writes_pending,
    two_groups_share_a_store_and_a_transport,
);

/// For disks that many tests share.
fn config() -> Config {
    Config {
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: Duration::from_millis(500),
        request_timeout: Duration::from_secs(3),
        ..Config::default()
    }
}

/// Binds once the transport before has let the address go, which it does as soon as the runtime gets to it.
async fn bind<R: AsyncRuntime>(rt: &R, address: &str) -> TcpTransport<R> {
    for _ in 0..1000 {
        match TcpTransport::bind(rt, address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                rt.sleep(Duration::from_millis(5)).await;
            }
            bound => return bound.expect("binds"),
        }
    }
    panic!("{address} stays in use");
}

/// What nodes are made of. Each of its groups is a node of its own.
struct Host<R: AsyncRuntime> {
    id: NodeId,
    store: FileStore<R>,
    transport: TcpTransport<R>,
}

impl<R: AsyncRuntime> Host<R> {
    async fn open(rt: &R, dir: &Path, id: NodeId, address: &str) -> Self {
        let transport = bind(rt, address).await;
        let store = FileStore::open(rt, dir.join(id.to_string())).await.expect("opens");
        Self { id, store, transport }
    }

    async fn start(&self, rt: &R, group: u64) -> Node<Journal> {
        Node::builder(self.id)
            .group(group)
            .config(config())
            .log_store(self.store.clone())
            .transport(self.transport.clone())
            .state_machine(Journal::default())
            .start(rt)
            .await
            .expect("starts")
    }

    fn member(&self) -> (NodeId, String) {
        (self.id, self.transport.local_addr().to_string())
    }
}

/// Writes until it succeeds; what had an unknown outcome may be there as well, under another number.
async fn write(raft: &LocalRaft<Journal>, line: &str) -> String {
    for attempt in 0.. {
        let line = format!("{line}, attempt {attempt}");
        match raft.write(line.clone()).await {
            Ok(_) => return line,
            Err(WriteError::Unknown | WriteError::NotLeader { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("it goes on until it succeeds")
}

async fn read(raft: &LocalRaft<Journal>) -> Vec<String> {
    loop {
        if let Ok(journal) = raft.read(|journal| journal.entries.clone()).await {
            return journal;
        }
    }
}

async fn what_was_acknowledged_is_there_after_crashes_with_writes_pending<R: AsyncRuntime>(rt: R) {
    let dir = TempDir::new().expect("a folder");
    let mut running = Vec::new();
    for id in 1..=3 {
        let host = Host::open(&rt, dir.path(), id, "127.0.0.1:0").await;
        let node = host.start(&rt, 0).await;
        running.push((host, node));
    }
    let members: Vec<_> = running.iter().map(|(host, _)| host.member()).collect();
    running[0].1.local().initialize(members.clone()).await.expect("forms");
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for (host, node) in &running {
            acknowledged.push(write(&node.local(), &format!("{round} by {}", host.id)).await);
        }
        let rafts: Vec<_> = running.iter().map(|(_, node)| node.local()).collect();
        let pending: Vec<_> =
            (0..50).map(|n| rafts[n % 3].write(format!("{round}, pending {n}"))).collect();
        // The first ones are on their way to the disks when it crashes.
        rt.spawn(async {}).await.expect("ends");
        // All of it crashes in the first round, and one node after the other in the next ones.
        let crashed = if round == 0 { 0..3 } else { round..round + 1 };
        let ids: Vec<usize> = crashed.clone().collect();
        drop(running.drain(crashed));
        for (n, write) in pending.into_iter().enumerate() {
            match write.await {
                Ok(_) => acknowledged.push(format!("{round}, pending {n}")),
                Err(WriteError::Unknown | WriteError::Shutdown | WriteError::NotLeader { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        for index in ids {
            let (id, address) = &members[index];
            let host = Host::open(&rt, dir.path(), *id, address).await;
            let node = host.start(&rt, 0).await;
            running.insert(index, (host, node));
        }
    }
    let journal = read(&running[0].1.local()).await;
    for (host, node) in &running {
        let other = read(&node.local()).await;
        for line in &acknowledged {
            let count = other.iter().filter(|other| *other == line).count();
            assert_eq!(count, 1, "{line} is on node {} so often", host.id);
        }
        assert_eq!(other[..journal.len()], journal[..], "node {}", host.id);
    }
}

async fn two_groups_share_a_store_and_a_transport<R: AsyncRuntime>(rt: R) {
    const GROUPS: [u64; 2] = [4, 9];
    let dir = TempDir::new().expect("a folder");
    let mut running = Vec::new();
    for id in 1..=3 {
        let host = Host::open(&rt, dir.path(), id, "127.0.0.1:0").await;
        let nodes = [host.start(&rt, GROUPS[0]).await, host.start(&rt, GROUPS[1]).await];
        running.push((host, nodes.map(Some)));
    }
    let members: Vec<_> = running.iter().map(|(host, _)| host.member()).collect();
    type Running<R> = (Host<R>, [Option<Node<Journal>>; 2]);
    let raft = |running: &[Running<R>], at: usize, group: usize| {
        running[at].1[group].as_ref().expect("it runs").local()
    };
    let mut lines = [Vec::new(), Vec::new()];
    for (group, lines) in lines.iter_mut().enumerate() {
        raft(&running, 0, group).initialize(members.clone()).await.expect("forms");
        for at in 0..3 {
            let raft = raft(&running, at, group);
            lines.push(write(&raft, &format!("group {group} at {at}")).await);
        }
    }
    // One group loses a node of each host in turn; the other doesn't notice.
    for at in 0..3 {
        let node = running[at].1[0].take().expect("it runs");
        node.shutdown().await.expect("stops");
        for (group, lines) in lines.iter_mut().enumerate() {
            let raft = raft(&running, (at + 1 + group) % 3, group);
            lines.push(write(&raft, &format!("group {group} without {at}")).await);
        }
        running[at].1[0] = Some(running[at].0.start(&rt, GROUPS[0]).await);
    }
    for (group, lines) in lines.iter().enumerate() {
        for at in 0..3 {
            let journal = read(&raft(&running, at, group)).await;
            assert!(lines.iter().all(|line| journal.contains(line)), "{lines:?} {journal:?}");
            let own = format!("group {group} ");
            assert!(journal.iter().all(|line| line.starts_with(&own)), "{journal:?}");
        }
    }
}

/// A node on a thread of its own.
struct Remote {
    raft: Raft<Journal>,
    address: String,
    crash: oneshot::Sender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl Remote {
    fn launch<R: AsyncRuntime>(dir: &Path, id: NodeId, address: &str) -> Self {
        let (dir, address) = (dir.to_owned(), address.to_owned());
        let (started, handle) = mpsc::channel();
        let (crash, crashed) = oneshot::channel::<()>();
        let thread = R::launch(Launch::named(format!("node-{id}")), async move |rt: R| {
            let host = Host::open(&rt, &dir, id, &address).await;
            let node = Rc::new(host.start(&rt, 0).await);
            started.send((node.raft(), host.member().1)).expect("somebody waits");
            let _ = crashed.await;
        })
        .expect("a thread");
        let (raft, address) = handle.recv().expect("it starts");
        Self { raft, address, crash, thread }
    }

    fn crash(self) -> Raft<Journal> {
        drop(self.crash);
        self.thread.join().expect("no panic").expect("no error");
        self.raft
    }
}

fn launch(dir: &Path, id: NodeId, address: &str) -> Remote {
    match id {
        1 => Remote::launch::<Tokio>(dir, id, address),
        2 => Remote::launch::<Monoio>(dir, id, address),
        _ => Remote::launch::<Compio>(dir, id, address),
    }
}

async fn write_from_outside(raft: &Raft<Journal>, line: &str) -> String {
    for attempt in 0.. {
        let line = format!("{line}, attempt {attempt}");
        match raft.write(line.clone()).await {
            Ok(_) => return line,
            Err(WriteError::Unknown | WriteError::NotLeader { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("it goes on until it succeeds")
}

#[test]
fn three_threads_with_three_runtimes_are_one_cluster() {
    let dir = TempDir::new().expect("a folder");
    let mut nodes: Vec<_> = (1..=3).map(|id| launch(dir.path(), id, "127.0.0.1:0")).collect();
    let addresses: Vec<_> = nodes.iter().map(|node| node.address.clone()).collect();
    block_on(nodes[0].raft.initialize((1..).zip(addresses.clone()))).expect("forms");
    let mut acknowledged = Vec::new();
    for (at, id) in (0..3).zip(1..) {
        for node in &nodes {
            let line = format!("before {id} by {}", node.raft.id());
            acknowledged.push(block_on(write_from_outside(&node.raft, &line)));
        }
        let pending: Vec<_> = (0..20).map(|n| nodes[at].raft.write(format!("{id}: {n}"))).collect();
        let gone = nodes.remove(at).crash();
        for (n, write) in pending.into_iter().enumerate() {
            if block_on(write).is_ok() {
                acknowledged.push(format!("{id}: {n}"));
            }
        }
        assert!(matches!(block_on(gone.write("gone".to_owned())), Err(WriteError::Shutdown)));
        let other = &nodes[0].raft;
        block_on(wait_for(&mut other.metrics(), |m| m.leader.is_some_and(|leader| leader != id)));
        acknowledged.push(block_on(write_from_outside(other, &format!("without {id}"))));
        nodes.insert(at, launch(dir.path(), id, &addresses[at]));
    }
    for (node, id) in nodes.iter().zip(1..) {
        let journal = loop {
            if let Ok(journal) = block_on(node.raft.read(|journal| journal.entries.clone())) {
                break journal;
            }
        };
        for line in &acknowledged {
            let count = journal.iter().filter(|other| *other == line).count();
            assert_eq!(count, 1, "{line} is on node {id} so often");
        }
        assert!(!journal.contains(&"gone".to_owned()));
    }
    nodes.into_iter().for_each(|node| drop(node.crash()));
}
