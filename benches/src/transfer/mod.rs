//! How long writes pause while leadership is transferred: three nodes on one thread, in memory and
//! on disk, with and without a delay between them. And the same on virtual time, where delays and
//! disks take exactly what they are told to, and code takes almost nothing: those rows show what
//! the protocol costs.
//!
//! A write takes a round trip and, on disk, one write to the disks side by side. A linearizable
//! read takes the round trip alone. So twice the round trip and one write to the disks is a read
//! and a write.

mod delayed;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use quorate::rt::{Instant, yield_now};
use quorate::sim::{DiskConfig, Simulation};
use quorate::{
    At, Config, Executor, FileStore, Files, Launch, LocalNetwork, LocalRaft, LogStore, MemStore,
    Node, StateMachine, Tokio, WriteError,
};
use serde::{Deserialize, Serialize};

use self::delayed::Delayed;
use crate::report::{Bench, Cell as Row, Column, Unit};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How often leadership is transferred in a run.
    #[arg(long, default_value_t = 100)]
    transfers: usize,
    /// How long messages take from one node to another, in milliseconds.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 5])]
    delay: Vec<u64>,
    /// Where the logs are written, in a directory that is removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// Delays from node to node, and what a disk takes to make a write durable, on virtual time.
const VIRTUAL: [(Duration, Duration); 5] = [
    (Duration::from_micros(100), Duration::from_millis(2)),
    (Duration::from_micros(500), Duration::from_millis(2)),
    (Duration::from_millis(1), Duration::from_millis(2)),
    (Duration::from_millis(5), Duration::from_millis(2)),
    (Duration::from_millis(20), Duration::from_millis(2)),
];

#[derive(Clone, Copy)]
struct Work {
    transfers: usize,
    delay: Duration,
}

pub(crate) fn bench(options: &Options) -> Bench {
    let mut cells = Vec::new();
    for &millis in &options.delay {
        let work = Work { transfers: options.transfers, delay: Duration::from_millis(millis) };
        let group = format!("{millis} ms");
        for (row, dir) in [("in memory", None), ("on disk", Some(options.dir.clone()))] {
            let run = Box::new(move || run(work, dir.as_deref()));
            cells.push(Row { group: group.clone(), row: row.to_owned(), run });
        }
    }
    for (delay, sync) in VIRTUAL {
        let work = Work { transfers: options.transfers, delay };
        let group = format!("{delay:?}");
        let run = Box::new(move || on_virtual_time(work, sync));
        cells.push(Row { group, row: format!("virtual, a disk takes {sync:?}"), run });
    }
    let time = |name| Column { name, unit: Unit::Time };
    Bench {
        name: "transfer",
        title: "How long writes pause while leadership is transferred, three nodes on one thread"
            .to_owned(),
        groups: "from node to node",
        columns: vec![
            time("held up"),
            time("2 round trips + disk"),
            time("pause"),
            time("write"),
            time("round trip"),
            time("held up, p99"),
        ],
        against: Vec::new(),
        cells,
    }
}

fn run(work: Work, dir: Option<&Path>) -> Result<Vec<f64>> {
    let dir = dir.map(|dir| tempfile::Builder::new().prefix("quorate-benches-").tempdir_in(dir));
    let dir = dir.transpose()?;
    Tokio::run(&Launch::named("transfer"), async |rt: Tokio| match &dir {
        None => measure(&rt, work, async |_| Ok(MemStore::new())).await,
        Some(dir) => on_disk(&rt, work, dir.path()).await,
    })?
}

async fn on_disk<R: Files>(rt: &R, work: Work, dir: &Path) -> Result<Vec<f64>> {
    let open = async |id: u64| Ok(FileStore::open(rt, dir.join(id.to_string())).await?);
    measure(rt, work, open).await
}

fn on_virtual_time(work: Work, sync: Duration) -> Result<Vec<f64>> {
    let simulation = Simulation::new(7);
    let host = simulation.host("all");
    let moment = Duration::from_nanos(1);
    host.disk().configure(DiskConfig {
        latency: moment..2 * moment,
        sync_latency: sync..sync + moment,
        short_reads: 0.0,
        ..DiskConfig::default()
    });
    let outcome = Rc::new(RefCell::new(None));
    let shared = Rc::clone(&outcome);
    host.start(async move |rt| {
        let figures = on_disk(&rt, work, Path::new("logs")).await;
        shared.replace(Some(figures));
    });
    ensure!(simulation.run_until(LONGEST, || outcome.borrow().is_some()), "it does not end");
    outcome.take().context("it has ended")?
}

/// A state machine without state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Nothing;

impl StateMachine for Nothing {
    type Command = ();
    type Response = ();

    async fn apply(&mut self, (): (), _: At) {}
}

/// When writes were answered, whichever node they came from.
#[derive(Default)]
struct Answers {
    times: RefCell<Vec<Instant>>,
    stop: Cell<bool>,
}

/// The longest for a run on virtual time.
const LONGEST: Duration = Duration::from_secs(3600);

/// So many writes and reads are timed before the first transfer.
const TIMED: usize = 200;

/// So many writes are answered between two transfers.
const BETWEEN: usize = 10;

async fn measure<R: Executor, S: LogStore>(
    rt: &R,
    work: Work,
    open: impl AsyncFn(u64) -> Result<S>,
) -> Result<Vec<f64>> {
    let (network, mut nodes, mut rafts) = (LocalNetwork::new(), Vec::new(), Vec::new());
    for id in 1..=3 {
        let transport = Delayed::new(rt, network.transport(), work.delay);
        let node = Node::builder(id).log_store(open(id).await?).transport(transport);
        let node = node.start(rt).await?;
        rafts.push(node.group(0).config(Config::default()).open_local(Nothing).await?);
        nodes.push(node);
    }
    rafts[0].initialize([1, 2, 3].map(|id| (id, id.to_string()))).await?;
    rafts[0].write(()).await?;
    let Some(mut leader) = rafts[0].metrics().borrow().leader else { bail!("nobody leads") };
    let raft = &rafts[leader as usize - 1];
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..TIMED {
        let begun = rt.now();
        raft.write(()).await?;
        writes.push(rt.now() - begun);
        let begun = rt.now();
        raft.read(|_| ()).await?;
        reads.push(rt.now() - begun);
    }
    let (write, round_trip) = (at(&mut writes, 0.5), at(&mut reads, 0.5));

    let answers = Rc::new(Answers::default());
    let client =
        |raft: &LocalRaft<Nothing>| rt.spawn(client(rt.clone(), raft.clone(), Rc::clone(&answers)));
    let clients: Vec<_> = rafts.iter().map(client).collect();
    let mut pauses = Vec::new();
    for _ in 0..work.transfers {
        answered(rt, &answers, BETWEEN).await;
        let before = answers.times.borrow().len() - 1;
        let to = leader % 3 + 1;
        leader = rafts[leader as usize - 1].transfer_leadership(to).await?.leader;
        ensure!(leader == to, "node {leader} leads, and not {to}");
        answered(rt, &answers, BETWEEN).await;
        let times = answers.times.borrow();
        let steps = times[before..].windows(2).map(|pair| pair[1] - pair[0]);
        pauses.push(steps.max().unwrap_or_default());
    }
    answers.stop.set(true);
    for client in clients {
        client.await??;
    }
    drop(nodes);
    let (pause, late) = (at(&mut pauses, 0.5), at(&mut pauses, 0.99));
    let held_up = |pause: Duration| pause.saturating_sub(write);
    let bound = write + round_trip;
    let figures = [held_up(pause), bound, pause, write, round_trip, held_up(late)];
    Ok(figures.map(|time| time.as_secs_f64()).to_vec())
}

/// Waits until so many more writes have been answered.
async fn answered<R: Executor>(rt: &R, answers: &Answers, more: usize) {
    let wanted = answers.times.borrow().len() + more;
    while answers.times.borrow().len() < wanted {
        rt.sleep(Duration::from_millis(1)).await;
    }
}

/// Writes, one at a time. What is refused while leadership is transferred has had no effect, and is
/// tried again.
async fn client<R: Executor>(rt: R, raft: LocalRaft<Nothing>, answers: Rc<Answers>) -> Result<()> {
    while !answers.stop.get() {
        match raft.write(()).await {
            Ok(()) => answers.times.borrow_mut().push(rt.now()),
            Err(WriteError::NotLeader { .. }) => yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The time that so large a part of them does not exceed.
fn at(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    times[(part * (times.len() - 1) as f64).round() as usize]
}
