//! What each backend costs: the prices of a task, a timer, a wake-up, a socket and a file, by each
//! driver, and in the end of the same cluster on each of them. One generic program, written against
//! the runtime's traits alone.

mod io;
mod system_calls;
mod tasks;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::quorate::{AsyncRuntime, Compio, Driver, Launch, Monoio, Tokio};
use anyhow::Result;

use crate::closed_loop::cpu_time;
use crate::report::{Against, Bench, Cell, Column, Unit};
use crate::{durable, minimal};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How long a cell is measured, in milliseconds.
    #[arg(long, default_value_t = 500)]
    milliseconds: u64,
    /// How many clients load the clusters; none leaves the clusters out.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Where files are written, in directories that are removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// What is done again and again.
#[derive(Clone, Copy, Debug)]
enum Operation {
    /// Of two tasks that yield to each other.
    Switch,
    /// A task that ends at once, and is waited for.
    Spawn,
    /// The same for blocking work.
    Block,
    /// A timer that is set and then dropped.
    Timer,
    /// How long after its time a timer ends.
    Late,
    /// One task tells another of the same thread.
    Wake,
    /// One task tells another of another thread.
    WakeThread,
    /// 128 bytes there and back, on so many connections at once.
    RoundTrip { connections: usize },
    /// A write of many buffers, and the reading of it.
    Gather,
    /// A write of 4 KiB at a position of a file.
    Write { synced: bool },
}

const OPERATIONS: [(Operation, &str); 12] = [
    (Operation::Switch, "task switch"),
    (Operation::Spawn, "spawn and join"),
    (Operation::Block, "blocking work"),
    (Operation::Timer, "timer, set and dropped"),
    (Operation::Late, "timer of 2 ms, how late"),
    (Operation::Wake, "wake-up, same thread"),
    (Operation::WakeThread, "wake-up, other thread"),
    (Operation::RoundTrip { connections: 1 }, "TCP, 128 B there and back"),
    (Operation::RoundTrip { connections: 64 }, "the same, 64 at once"),
    (Operation::Gather, "TCP, 16 × 256 B gathered"),
    (Operation::Write { synced: false }, "file, 4 KiB"),
    (Operation::Write { synced: true }, "file, 4 KiB, durable"),
];

/// What a cell measures, and where.
#[derive(Clone, Debug)]
struct Work {
    operation: Operation,
    duration: Duration,
    dir: PathBuf,
}

const SYSTEM_CALLS: &str = "system calls";

pub(crate) fn bench(options: &Options) -> Bench {
    let duration = Duration::from_millis(options.milliseconds);
    let mut cells = Vec::new();
    for (operation, name) in OPERATIONS {
        let work = Work { operation, duration, dir: options.dir.clone() };
        let mut cell = |row: &str, run: fn(&Work, Driver) -> Result<Vec<f64>>, driver| {
            let work = work.clone();
            let run = Box::new(move || run(&work, driver));
            cells.push(Cell { group: name.to_owned(), row: row.to_owned(), run });
        };
        if system_calls::has(operation) {
            cell(SYSTEM_CALLS, |work, _| system_calls::run(work), Driver::Auto);
        }
        cell("tokio", on::<Tokio>, Driver::Poll);
        cell("monoio (io_uring)", on::<Monoio>, Driver::Uring);
        cell("monoio (polling)", on::<Monoio>, Driver::Poll);
        cell("compio (io_uring)", on::<Compio>, Driver::Uring);
        cell("compio (polling)", on::<Compio>, Driver::Poll);
    }
    if options.clients > 0 {
        let minimal = minimal::Options::of(options.clients, options.milliseconds);
        cells.extend(of_cluster("in memory", options.clients, minimal::bench(&minimal)));
        let durable = durable::Options::of(options.clients, options.milliseconds, &options.dir);
        cells.extend(of_cluster("durable", options.clients, durable::bench(&durable)));
    }
    Bench {
        name: "runtimes",
        title: "What the backends cost".to_owned(),
        groups: "operation",
        columns: vec![
            Column { name: "time", unit: Unit::Time },
            Column { name: "CPU", unit: Unit::Time },
        ],
        against: vec![
            Against { name: "× system calls", column: 0, rows: |_| vec![SYSTEM_CALLS.to_owned()] },
            Against { name: "CPU, × tokio", column: 1, rows: |_| vec!["tokio".to_owned()] },
        ],
        cells,
    }
}

/// The rows of another bench that tell of a whole cluster on a backend: of a write the time, as all
/// clients together see it, and the CPU time.
fn of_cluster(name: &str, clients: usize, bench: Bench) -> impl Iterator<Item = Cell> {
    let group = format!("write of three nodes, {name}, {clients} clients");
    bench.cells.into_iter().filter_map(move |mut cell| {
        let row = cell.row.strip_prefix("quorate, ").filter(|row| !row.contains(','))?.to_owned();
        let run = Box::new(move || {
            let figures = (cell.run)()?;
            Ok(vec![1.0 / figures[0], figures[3]])
        });
        Some(Cell { group: group.clone(), row, run })
    })
}

fn on<R: AsyncRuntime>(work: &Work, driver: Driver) -> Result<Vec<f64>> {
    let launch = Launch { driver, ..Launch::named("runtimes") };
    let (work, of_other) = (work.clone(), launch.clone());
    R::run(&launch, async move |rt: R| {
        let duration = work.duration;
        match work.operation {
            Operation::Switch => tasks::switch(&rt, duration).await,
            Operation::Spawn => tasks::spawn(&rt, duration).await,
            Operation::Block => tasks::block(&rt, duration).await,
            Operation::Timer => tasks::timer(&rt, duration).await,
            Operation::Late => tasks::late(&rt, duration).await,
            Operation::Wake => tasks::wake(&rt, duration).await,
            Operation::WakeThread => tasks::wake_thread::<R>(of_other, duration).await,
            Operation::RoundTrip { connections } => {
                io::round_trip(&rt, connections, duration).await
            }
            Operation::Gather => io::gather(&rt, duration).await,
            Operation::Write { synced } => io::write(&rt, &work.dir, synced, duration).await,
        }
    })?
}

/// Repeats `batch`, which does so many operations, for so long: the time of one, and what the
/// process has had of the processors for it.
async fn measure(
    duration: Duration,
    operations: usize,
    mut batch: impl AsyncFnMut() -> Result<()>,
) -> Result<Vec<f64>> {
    batch().await?;
    let (began, cpu_before) = (Instant::now(), cpu_time());
    let mut done = 0;
    while done == 0 || began.elapsed() < duration {
        batch().await?;
        done += operations;
    }
    let (elapsed, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu_before));
    Ok([elapsed, cpu].map(|time| time.as_secs_f64() / done as f64).into())
}
