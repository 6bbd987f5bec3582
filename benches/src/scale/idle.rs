//! Three processes of `quorate-kv` with logs on disk and connections among them, which nobody asks
//! for anything.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::durable::kv;
use crate::report::Cell;

/// From the election on, until all that has to do with it is over.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn add_cells(cells: &mut Vec<Cell>, dir: &Path, duration: Duration) {
    for (name, runtime, driver) in kv::RUNTIMES {
        let dir = dir.to_owned();
        let run = Box::new(move || run(&dir, runtime, driver, duration));
        cells.push(Cell { group: "3".to_owned(), row: name.to_owned(), run });
    }
}

fn run(dir: &Path, runtime: &str, driver: &str, duration: Duration) -> Result<Vec<f64>> {
    let nodes = kv::start(dir, runtime, driver)?.processes;
    thread::sleep(QUIET);
    let (before, began) = (nodes.cpu_time(), Instant::now());
    thread::sleep(duration);
    let cpu = nodes.cpu_time().saturating_sub(before);
    let share = cpu.as_secs_f64() / began.elapsed().as_secs_f64() / nodes.count() as f64;
    Ok(vec![share, nodes.resident_bytes()? as f64 / nodes.count() as f64])
}
