//! Three processes on loopback whose disks keep what they acknowledge: `quorate-kv` on each
//! runtime, beside etcd. The same clients load all of them, through an adapter each.

#[cfg(feature = "compare")]
mod etcd;
pub(crate) mod kv;
mod processes;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tempfile::TempDir;
use tokio::runtime::Builder;

use self::processes::Processes;
use crate::closed_loop::{Client, Load};
use crate::report::{Against, Bench, Cell, Column, Unit};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many connections there are, each with one request under way.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256, 1024])]
    connections: Vec<usize>,
    /// What is asked for.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Request::Write, Request::Read])]
    requests: Vec<Request>,
    /// How large a value is.
    #[arg(long, default_value_t = 128)]
    bytes: usize,
    /// How long a cell is measured, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    milliseconds: u64,
    /// Where the nodes keep their data, in directories that are removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

impl Options {
    /// Of writes on so many connections.
    pub(crate) fn of(connections: usize, milliseconds: u64, dir: &Path) -> Self {
        let (connections, requests) = (vec![connections], vec![Request::Write]);
        Self { connections, requests, bytes: 128, milliseconds, dir: dir.to_owned() }
    }
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Sets a key; answered when a majority's disks have it.
    Write,
    /// A linearizable read.
    Read,
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// What a cell does.
#[derive(Clone, Copy, Debug)]
struct Work {
    connections: usize,
    request: Request,
    bytes: usize,
    duration: Duration,
}

/// So many keys are written and read: enough for neighbours not to meet, few enough to be there
/// before the first is read.
const KEYS: usize = 256;

/// A connection to a cluster that runs.
trait Adapter: Sized + 'static {
    /// Connects to the node that leads, which is at this address.
    async fn connect(leader: SocketAddr, work: Work) -> Result<Self>;

    /// Writes a key.
    async fn set(&mut self, key: usize) -> Result<()>;

    /// Reads a key, which is there.
    async fn get(&mut self, key: usize) -> Result<()>;
}

/// It asks for one key after the other.
struct KeyByKey<A> {
    connection: A,
    request: Request,
    turn: usize,
}

impl<A: Adapter> Client for KeyByKey<A> {
    async fn request(&mut self) -> Result<u64> {
        self.turn += 1;
        let key = self.turn % KEYS;
        match self.request {
            Request::Write => self.connection.set(key).await?,
            Request::Read => self.connection.get(key).await?,
        }
        Ok(1)
    }
}

/// A cluster that has a leader.
pub(crate) struct Cluster {
    pub(crate) processes: Processes,
    leader: SocketAddr,
    _data: TempDir,
}

pub(crate) fn bench(options: &Options) -> Bench {
    if cfg!(feature = "compare") && !processes::is_on_path("etcd") {
        eprintln!("there is no etcd on the PATH: its rows are left out");
    }
    let mut cells = Vec::new();
    for &request in &options.requests {
        for &connections in &options.connections {
            let duration = Duration::from_millis(options.milliseconds);
            let work = Work { connections, request, bytes: options.bytes, duration };
            let group = format!("{request}, {connections}");
            for (name, runtime, driver) in kv::RUNTIMES {
                let dir = options.dir.clone();
                let run = Box::new(move || {
                    run::<kv::Connection>(kv::start(&dir, runtime, driver)?, work)
                });
                cells.push(Cell { group: group.clone(), row: format!("quorate, {name}"), run });
            }
            #[cfg(feature = "compare")]
            if processes::is_on_path("etcd") {
                let dir = options.dir.clone();
                let run = Box::new(move || run::<etcd::Connection>(etcd::start(&dir)?, work));
                cells.push(Cell { group: group.clone(), row: "etcd".to_owned(), run });
            }
        }
    }
    let bytes = options.bytes;
    Bench {
        name: "durable",
        title: format!("Three processes on loopback, durable, values of {bytes} B"),
        groups: "request, connections",
        columns: vec![
            Column { name: "requests/s", unit: Unit::Rate },
            Column { name: "p50", unit: Unit::Time },
            Column { name: "p99", unit: Unit::Time },
            Column { name: "servers' CPU/request", unit: Unit::Time },
        ],
        against: vec![
            Against { name: "× etcd", column: 0, rows: |_| vec!["etcd".to_owned()] },
            Against { name: "p99, × etcd", column: 2, rows: |_| vec!["etcd".to_owned()] },
            Against { name: "× best runtime", column: 0, rows: |row| runtimes_beside(row) },
        ],
        cells,
    }
}

/// Quorate's rows, for one of them.
fn runtimes_beside(row: &str) -> Vec<String> {
    match row.starts_with("quorate") {
        true => kv::RUNTIMES.map(|(name, ..)| format!("quorate, {name}")).to_vec(),
        false => Vec::new(),
    }
}

/// Loads a cluster from one thread.
fn run<A: Adapter>(cluster: Cluster, work: Work) -> Result<Vec<f64>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let mut first = A::connect(cluster.leader, work).await?;
        for key in 0..KEYS {
            first.set(key).await.context("writing the keys")?;
        }
        let load = Load::timing_all(work.connections);
        let mut clients = Vec::new();
        for number in 0..work.connections {
            let connection = A::connect(cluster.leader, work).await;
            let connection = connection.with_context(|| format!("connection {number}"))?;
            let client = KeyByKey { connection, request: work.request, turn: number };
            clients.push(tokio::task::spawn_local(Arc::clone(&load).client(number, client)));
        }
        let cpu = || cluster.processes.cpu_time();
        let meter = load.measure(work.duration, tokio::time::sleep, cpu).await;
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await.map_err(|error| anyhow!("a client: {error}"))??);
        }
        Ok(meter.figures(times))
    })
}
