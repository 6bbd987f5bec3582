//! Many groups on three nodes in one process, a thread and a TCP transport each: at rest, after the
//! loss of a node, and with a client each.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ::quorate::{
    AsyncRuntime, FileStore, Launch, LogStore, MemStore, Node, NodeId, Raft, Raw, TcpTransport,
};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::join_all;
use tempfile::TempDir;

use super::cluster::Nothing;
use crate::closed_loop::cpu_time;

const NODES: u64 = 3;

/// How long a client that is to write waits at most for all that is under way to be answered.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node on a thread of its own, which ends when this is dropped.
struct Host {
    rafts: Vec<Raft<Nothing>>,
    address: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<std::io::Result<Result<()>>>>,
}

impl Host {
    fn start<R: AsyncRuntime, S: LogStore>(
        id: NodeId,
        groups: u64,
        store: impl AsyncFnOnce(&R) -> Result<S> + Send + 'static,
    ) -> Result<Self> {
        let (started, handles) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = R::launch(Launch::named(format!("node-{id}")), async move |rt: R| {
            let tcp = TcpTransport::bind(&rt, "127.0.0.1:0").await?;
            let address = tcp.local_addr().to_string();
            let store = store(&rt).await?;
            let node = Node::builder(id).log_store(store).transport(tcp).start(&rt).await?;
            let mut rafts = Vec::new();
            for group in 0..groups {
                rafts.push(node.group(group).open(Nothing).await?);
            }
            let _ = started.send((rafts, address));
            let _ = stopped.await;
            Ok(())
        })?;
        let (rafts, address) = handles.recv().context("a node does not start")?;
        Ok(Self { rafts, address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Three nodes, whose groups are formed. Each leads a third of them.
fn formed<R: AsyncRuntime, S: LogStore>(
    groups: u64,
    store: impl AsyncFnOnce(&R) -> Result<S> + Clone + Send + 'static,
) -> Result<Vec<Host>> {
    let hosts: Vec<_> = (1..=NODES)
        .map(|id| Host::start::<R, S>(id, groups, store.clone()))
        .collect::<Result<_>>()?;
    form(&hosts)?;
    Ok(hosts)
}

fn form(hosts: &[Host]) -> Result<()> {
    let members: Vec<_> = (1..).zip(hosts.iter().map(|host| host.address.clone())).collect();
    let formed = hosts[0].rafts.iter().map(|raft| raft.initialize(members.clone()));
    client_runtime()?.block_on(join_all(formed)).into_iter().collect::<Result<Vec<_>, _>>()?;
    all_lead(hosts, Instant::now() + PATIENCE)
}

fn client_runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Waits until each group has a leader that all of these nodes know.
fn all_lead(hosts: &[Host], deadline: Instant) -> Result<()> {
    let leads = |group: usize| {
        let leaders = hosts.iter().map(|host| host.rafts[group].metrics().borrow().leader);
        let leaders: Vec<_> = leaders.collect();
        let known = |leader: NodeId| hosts.iter().any(|host| host.rafts[group].id() == leader);
        leaders[0].is_some_and(known) && leaders.iter().all(|leader| *leader == leaders[0])
    };
    for group in 0..hosts[0].rafts.len() {
        while !leads(group) {
            ensure!(Instant::now() < deadline, "group {group} has no leader");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// The share of a core that the process takes.
fn cpu_share(duration: Duration) -> f64 {
    let (before, began) = (cpu_time(), Instant::now());
    std::thread::sleep(duration);
    (cpu_time() - before).as_secs_f64() / began.elapsed().as_secs_f64()
}

fn resident_bytes() -> Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split(' ').nth(1).context("no resident size")?.parse()?;
    Ok(pages * 4096.0)
}

async fn in_memory<R: AsyncRuntime>(_: &R) -> Result<MemStore> {
    Ok(MemStore::new())
}

/// What groups cost in which nothing happens: the CPU of all nodes together, the memory of a group
/// on a node, the time until all groups have a leader again after the loss of a node, and the CPU
/// ten election timeouts after that.
pub(super) fn idle<R: AsyncRuntime>(groups: u64, duration: Duration) -> Result<Vec<f64>> {
    let before = resident_bytes()?;
    let mut hosts = formed::<R, _>(groups, in_memory::<R>)?;
    std::thread::sleep(Duration::from_secs(3));
    let memory = (resident_bytes()? - before) / (groups * NODES) as f64;
    let share = cpu_share(duration);
    let lost = hosts.remove(0);
    let began = Instant::now();
    drop(lost);
    all_lead(&hosts, Instant::now() + PATIENCE)?;
    let recovered = began.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_secs(10));
    let after = cpu_share(duration);
    Ok(vec![share, memory, recovered, after])
}

/// So many clients write, each to the next group, and wait for one answer before the next write.
/// Gives the writes a second and the syncs a second of a node.
pub(super) fn durable<R: AsyncRuntime>(
    groups: u64,
    clients: usize,
    dir: &std::path::Path,
    duration: Duration,
) -> Result<Vec<f64>> {
    let dir = TempDir::new_in(dir)?;
    let mut hosts = Vec::new();
    for id in 1..=NODES {
        let folder = dir.path().join(id.to_string());
        let store = async move |rt: &R| Ok(FileStore::open(rt, folder).await?);
        hosts.push(Host::start::<R, _>(id, groups, store)?);
    }
    form(&hosts)?;
    let (answered, elapsed) = client_runtime()?.block_on(async {
        let began = Instant::now();
        let end = began + duration;
        let client = async |client: usize| {
            let group = client % groups as usize;
            let leader = hosts[0].rafts[group].metrics().borrow().leader;
            let host = hosts.iter().find(|host| Some(host.rafts[group].id()) == leader);
            let raft = &host.unwrap_or(&hosts[0]).rafts[group];
            let mut answered = 0u64;
            while Instant::now() < end {
                raft.write(Raw(Bytes::from_static(&[7; 128]))).await?;
                answered += 1;
            }
            Ok::<_, anyhow::Error>(answered)
        };
        let answered = join_all((0..clients).map(client)).await;
        let answered = answered.into_iter().sum::<Result<u64>>()?;
        Ok::<_, anyhow::Error>((answered, began.elapsed()))
    })?;
    Ok(vec![answered as f64 / elapsed.as_secs_f64()])
}
