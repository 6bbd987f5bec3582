//! Clusters over the real log and the real transport: files and TCP, on each runtime and on three
//! at once.

use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;
use futures::executor::block_on;
use quorate::{
    AsyncRuntime, Compio, Config, Fatal, FileStore, GroupId, Launch, LocalRaft, Monoio, Node,
    NodeId, Raft, TcpTransport, Tokio, WriteError,
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

/// Binds once the transport before has let the address go, which it does as soon as the runtime
/// gets to it.
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

/// A node on a real disk and a real socket.
struct Host<R: AsyncRuntime> {
    node: Node<R, FileStore<R>, TcpTransport<R>>,
    transport: TcpTransport<R>,
}

impl<R: AsyncRuntime> Host<R> {
    async fn open(rt: &R, dir: &Path, id: NodeId, address: &str) -> Self {
        let transport = bind(rt, address).await;
        let store = FileStore::open(rt, dir.join(id.to_string())).await.expect("opens");
        let builder = Node::builder(id).log_store(store).transport(transport.clone());
        Self { node: builder.start(rt).await.expect("starts"), transport }
    }

    async fn open_group(&self, group: GroupId) -> LocalRaft<Journal> {
        let builder = self.node.group(group).config(config());
        builder.open_local(Journal::default()).await.expect("opens")
    }

    fn member(&self) -> (NodeId, String) {
        (self.node.id(), self.transport.local_addr().to_string())
    }
}

/// Writes until it succeeds; what had an unknown outcome may be there as well, under another
/// number.
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
        let raft = host.open_group(0).await;
        running.push((host, raft));
    }
    let members: Vec<_> = running.iter().map(|(host, _)| host.member()).collect();
    running[0].1.initialize(members.clone()).await.expect("forms");
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        for (host, raft) in &running {
            acknowledged.push(write(raft, &format!("{round} by {}", host.node.id())).await);
        }
        let rafts: Vec<_> = running.iter().map(|(_, raft)| raft.clone()).collect();
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
                Err(
                    WriteError::Unknown
                    | WriteError::NotLeader { .. }
                    | WriteError::Fatal(Fatal::Dropped),
                ) => {}
                Err(error) => panic!("{error}"),
            }
        }
        for index in ids {
            let (id, address) = &members[index];
            let host = Host::open(&rt, dir.path(), *id, address).await;
            let raft = host.open_group(0).await;
            running.insert(index, (host, raft));
        }
    }
    let journal = read(&running[0].1).await;
    for (host, raft) in &running {
        let other = read(raft).await;
        for line in &acknowledged {
            let count = other.iter().filter(|other| *other == line).count();
            assert_eq!(count, 1, "{line} is on node {} so often", host.node.id());
        }
        assert_eq!(other[..journal.len()], journal[..], "node {}", host.node.id());
    }
}

async fn two_groups_share_a_store_and_a_transport<R: AsyncRuntime>(rt: R) {
    const GROUPS: [u64; 2] = [4, 9];
    let dir = TempDir::new().expect("a folder");
    let mut hosts = Vec::new();
    for id in 1..=3 {
        let host = Host::open(&rt, dir.path(), id, "127.0.0.1:0").await;
        for group in GROUPS {
            host.open_group(group).await;
        }
        hosts.push(host);
    }
    let members: Vec<_> = hosts.iter().map(Host::member).collect();
    let raft = |at: usize, group| hosts[at].node.find::<Journal>(group).expect("it is open");
    let mut lines = GROUPS.map(|group| (group, Vec::new()));
    for (group, lines) in &mut lines {
        raft(0, *group).initialize(members.clone()).await.expect("forms");
        for at in 0..3 {
            lines.push(write(&raft(at, *group), &format!("group {group} at {at}")).await);
        }
    }
    // One group is stopped on each node in turn. The other doesn't notice.
    for (at, host) in hosts.iter().enumerate() {
        let stopped = raft(at, GROUPS[0]).stopped();
        host.node.stop(GROUPS[0]).await;
        stopped.await.expect("stops in order");
        assert_eq!(host.node.groups(), [GROUPS[1]]);
        for (n, (group, lines)) in lines.iter_mut().enumerate() {
            let raft = raft((at + 1 + n) % 3, *group);
            lines.push(write(&raft, &format!("group {group} without {at}")).await);
        }
        host.open_group(GROUPS[0]).await;
    }
    for (group, lines) in &lines {
        for at in 0..3 {
            let journal = read(&raft(at, *group)).await;
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
            let raft = host.open_group(0).await;
            started.send((raft.shared(), host.member().1)).expect("somebody waits");
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
        let written = block_on(gone.write("gone".to_owned()));
        assert!(matches!(written, Err(WriteError::Fatal(Fatal::Dropped))), "{written:?}");
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
