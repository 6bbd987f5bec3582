//! How the cost grows: with the nodes, with the size of a command, with the length of the log; and
//! what a node costs that has nothing to do.

mod cluster;
mod groups;
mod idle;
mod log;

use std::path::PathBuf;
use std::time::Duration;

use ::quorate::{AsyncRuntime, Compio, Launch, Monoio, Tokio};
use anyhow::Result;

use self::cluster::Shape;
use self::log::Logs;
use crate::closed_loop;
use crate::report::{Against, Bench, Cell, Column, Unit};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// What grows.
    part: Part,
    /// How many nodes there are.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 5, 7])]
    nodes: Vec<u64>,
    /// How large a command is.
    #[arg(long, value_delimiter = ',', default_values_t = [16, 256, 4 << 10, 64 << 10, 1 << 20])]
    bytes: Vec<usize>,
    /// How many entries the log holds.
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000, 10_000_000])]
    entries: Vec<u64>,
    /// How many groups there are.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 1_000, 10_000])]
    groups: Vec<u64>,
    /// How many clients there are. (Of commands of 1 MiB, a leader takes fewer than 64 at once.)
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How long a cell is measured, in milliseconds; of idle nodes ten times that.
    #[arg(long, default_value_t = 500)]
    milliseconds: u64,
    /// Where files are written, in directories that are removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The nodes, in one process, in memory.
    Nodes,
    /// The commands of three such nodes.
    Payload,
    /// The log that an engine and a store have.
    Log,
    /// Nothing: three processes that nobody asks for anything.
    Idle,
    /// The groups of three nodes, in which nothing happens.
    Groups,
    /// The groups of three nodes, whose clients write durably.
    BusyGroups,
}

pub(crate) fn bench(options: &Options) -> Result<Bench> {
    let duration = Duration::from_millis(options.milliseconds);
    let mut cells = Vec::new();
    let time = |name| Column { name, unit: Unit::Time };
    Ok(match options.part {
        Part::Nodes => {
            for &nodes in &options.nodes {
                let shape = Shape { nodes, bytes: 16, clients: options.clients, duration };
                on_each_runtime(&mut cells, &nodes.to_string(), shape, |figures| figures);
            }
            Bench {
                name: "scale-nodes",
                title: format!(
                    "Nodes in one process, in memory, commands of 16 B, {} clients",
                    options.clients
                ),
                groups: "nodes",
                columns: closed_loop::columns(),
                against: vec![],
                cells,
            }
        }
        Part::Payload => {
            let clients = options.clients.min(16);
            for &bytes in &options.bytes {
                let shape = Shape { nodes: 3, bytes, clients, duration };
                on_each_runtime(&mut cells, &format!("{bytes} B"), shape, move |figures| {
                    [&[figures[0] * bytes as f64], &figures[..]].concat()
                });
            }
            let mut columns = closed_loop::columns();
            columns.insert(0, Column { name: "B/s", unit: Unit::Rate });
            Bench {
                name: "scale-payload",
                title: format!("Three nodes in one process, in memory, {clients} clients"),
                groups: "command",
                columns,
                against: vec![],
                cells,
            }
        }
        Part::Log => {
            let logs = Logs::new(&options.dir)?;
            for job in log::JOBS {
                for &entries in &options.entries {
                    let logs = logs.clone();
                    let run = Box::new(move || logs.run(job, entries, duration));
                    let (group, row) = (job.to_string(), entries.to_string());
                    cells.push(Cell { group, row, run });
                }
            }
            Bench {
                name: "scale-log",
                title: "A log of so many entries of 16 B".to_owned(),
                groups: "operation",
                columns: vec![time("time")],
                against: vec![Against {
                    name: "× of 10000",
                    column: 0,
                    rows: |_| vec!["10000".to_owned()],
                }],
                cells,
            }
        }
        Part::Groups => {
            for &groups in &options.groups {
                let run = Box::new(move || groups::idle::<Tokio>(groups, 10 * duration));
                cells.push(Cell { group: groups.to_string(), row: "tokio".to_owned(), run });
                let run = Box::new(move || groups::idle::<Monoio>(groups, 10 * duration));
                let row = "monoio (io_uring)".to_owned();
                cells.push(Cell { group: groups.to_string(), row, run });
            }
            Bench {
                name: "scale-groups",
                title: "Three nodes in one process, whose groups rest".to_owned(),
                groups: "groups",
                columns: vec![
                    Column { name: "CPU of all, of a core", unit: Unit::Share },
                    Column { name: "memory of a group and node, B", unit: Unit::Count },
                    time("all lead after a loss"),
                    Column { name: "CPU after it", unit: Unit::Share },
                ],
                against: vec![],
                cells,
            }
        }
        Part::BusyGroups => {
            let clients = options.clients.max(1000);
            for &groups in &options.groups {
                let dir = options.dir.clone();
                let run = move || groups::durable::<Tokio>(groups, clients, &dir, duration);
                let (group, row) = ("tokio".to_owned(), groups.to_string());
                cells.push(Cell { group, row, run: Box::new(run) });
            }
            Bench {
                name: "scale-busy-groups",
                title: format!("Three nodes on disks in one process, {clients} clients"),
                groups: "runtime",
                columns: vec![Column { name: "writes/s", unit: Unit::Rate }],
                against: vec![Against {
                    name: "× of 1 group",
                    column: 0,
                    rows: |_| vec!["1".to_owned()],
                }],
                cells,
            }
        }
        Part::Idle => {
            idle::add_cells(&mut cells, &options.dir, 10 * duration);
            Bench {
                name: "scale-idle",
                title: "Three processes that nobody asks for anything".to_owned(),
                groups: "nodes",
                columns: vec![
                    Column { name: "CPU of a node, of a core", unit: Unit::Share },
                    Column { name: "memory of a node, B", unit: Unit::Count },
                ],
                against: vec![],
                cells,
            }
        }
    })
}

/// Each with its best driver.
fn on_each_runtime(
    cells: &mut Vec<Cell>,
    group: &str,
    shape: Shape,
    show: impl Fn(Vec<f64>) -> Vec<f64> + Copy + 'static,
) {
    type Run = fn(Launch, Shape) -> Result<Vec<f64>>;
    let mut cell = |row: &str, run: Run| {
        let run = Box::new(move || run(Launch::named("scale"), shape).map(show));
        cells.push(Cell { group: group.to_owned(), row: row.to_owned(), run });
    };
    cell("tokio", on::<Tokio>);
    cell("monoio (io_uring)", on::<Monoio>);
    cell("compio (io_uring)", on::<Compio>);
}

fn on<R: AsyncRuntime>(launch: Launch, shape: Shape) -> Result<Vec<f64>> {
    R::run(&launch, async move |rt: R| cluster::run(&rt, shape).await)?
}
