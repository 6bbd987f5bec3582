//! Three nodes in one process, a log in memory, an in-process transport, empty commands: what the
//! consensus itself costs.

mod clients;
mod limit;
#[cfg(feature = "compare")]
mod openraft;
mod quorate;

use std::time::Duration;

use ::quorate::{Compio, Driver, Executor, Launch, Monoio, Tokio};

use crate::closed_loop;
use crate::report::{Against, Bench, Cell};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many clients there are.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 1024, 4096])]
    clients: Vec<usize>,
    /// How many writes a client has under way.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    batch: Vec<usize>,
    /// How long a cell is measured, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
}

impl Options {
    /// Of so many clients, each with one write under way.
    pub(crate) fn of(clients: usize, milliseconds: u64) -> Self {
        Self { clients: vec![clients], batch: vec![1], milliseconds }
    }
}

/// What one cell does.
#[derive(Clone, Copy)]
struct Work {
    clients: usize,
    batch: usize,
    duration: Duration,
}

pub(crate) fn bench(options: &Options) -> Bench {
    let mut cells = Vec::new();
    for &batch in &options.batch {
        for &clients in &options.clients {
            let duration = Duration::from_millis(options.milliseconds);
            let work = Work { clients, batch, duration };
            openraft_cells(&mut cells, work);
            runtime_cells::<Tokio>(&mut cells, "tokio", Driver::Poll, work);
            runtime_cells::<Monoio>(&mut cells, "monoio (io_uring)", Driver::Uring, work);
            runtime_cells::<Monoio>(&mut cells, "monoio (polling)", Driver::Poll, work);
            runtime_cells::<Compio>(&mut cells, "compio (io_uring)", Driver::Uring, work);
            runtime_cells::<Compio>(&mut cells, "compio (polling)", Driver::Poll, work);
        }
    }
    Bench {
        name: "minimal",
        title: "Three nodes in one process, in memory, empty commands".to_owned(),
        groups: "clients",
        columns: closed_loop::columns(),
        against: vec![
            Against { name: "× openraft", column: 0, rows: |_| [1, 2].map(openraft_row).to_vec() },
            Against { name: "× limit", column: 0, rows: |row| vec![limit_of(row)] },
        ],
        cells,
    }
}

fn openraft_row(workers: usize) -> String {
    format!("openraft, {workers} server workers")
}

/// The row of the limit at the place of this one.
fn limit_of(row: &str) -> String {
    row.replace("quorate", "limit").replace(", a core for the leader", "")
}

#[cfg(feature = "compare")]
fn openraft_cells(cells: &mut Vec<Cell>, work: Work) {
    for workers in [1, 2] {
        let run = Box::new(move || openraft::run(workers, work));
        cells.push(Cell { group: group(work), row: openraft_row(workers), run });
    }
}

#[cfg(not(feature = "compare"))]
fn openraft_cells(_: &mut Vec<Cell>, _: Work) {}

fn group(Work { clients, batch, .. }: Work) -> String {
    if batch == 1 { format!("{clients}") } else { format!("{clients} × {batch}") }
}

fn runtime_cells<R: Executor>(
    cells: &mut Vec<Cell>,
    name: &'static str,
    driver: Driver,
    work: Work,
) {
    let launch = move || Launch { name: name.to_owned(), driver, ..Launch::default() };
    let mut cell = |row: String, run: Box<dyn FnMut() -> anyhow::Result<Vec<f64>>>| {
        cells.push(Cell { group: group(work), row, run });
    };
    cell(format!("limit, {name}"), Box::new(move || limit::local::<R>(launch(), work)));
    cell(format!("quorate, {name}"), Box::new(move || quorate::local::<R>(launch(), work)));
    cell(
        format!("quorate, {name}, a core for the leader"),
        Box::new(move || quorate::spread::<R>(launch(), work)),
    );
    cell(
        format!("limit, {name}, from another thread"),
        Box::new(move || limit::shared::<R>(launch(), work)),
    );
    cell(
        format!("quorate, {name}, from another thread"),
        Box::new(move || quorate::shared::<R>(launch(), work)),
    );
}
