//! The engines alone: three of them on one thread, messages passed by hand, logs in memory.
//! Whatever is to be persisted is so at once, and a proposal counts when it is committed at the
//! leader and all three have handed it out to be applied.
//!
//! An engine is fed a batch of proposals and then run until all is quiet, again and again.

mod instructions;
mod quorate;
#[cfg(feature = "compare")]
mod raft_rs;
pub(crate) mod three;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::report::{Against, Bench, Cell, Column, Unit};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many proposals are made at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 256])]
    batch: Vec<usize>,
    /// How long a cell is measured, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    milliseconds: u64,
    /// Instructions are not counted.
    #[arg(long)]
    no_instructions: bool,
}

/// What the bench runs of itself under callgrind.
#[derive(clap::Args, Debug)]
pub(crate) struct Alone {
    row: String,
    batch: usize,
    rounds: usize,
}

/// Three engines that have a leader.
trait Cluster {
    /// Proposes so many commands, and runs until all is quiet.
    fn round(&mut self, batch: usize) -> Result<()>;

    /// A heartbeat: after it all know of all that is committed.
    fn heartbeat(&mut self) -> Result<()>;

    /// How many commands each has handed out to be applied.
    fn handed_out(&self) -> Vec<usize>;
}

const COMMAND: [u8; 16] = *b"set greeting = 1";

struct Engine {
    row: &'static str,
    start: fn() -> Result<Box<dyn Cluster>>,
}

fn engines() -> Vec<Engine> {
    vec![
        Engine { row: "quorate", start: || quorate::start() },
        #[cfg(feature = "compare")]
        Engine { row: "raft-rs", start: || raft_rs::start(raft_rs::Batch::Proposals) },
        #[cfg(feature = "compare")]
        Engine {
            row: "raft-rs, a batch is one proposal",
            start: || raft_rs::start(raft_rs::Batch::OneProposal),
        },
    ]
}

pub(crate) fn bench(options: &Options) -> Bench {
    let duration = Duration::from_millis(options.milliseconds);
    let counts = !options.no_instructions;
    let mut cells = Vec::new();
    for &batch in &options.batch {
        for Engine { row, start } in engines() {
            let mut instructions = None;
            let run = move || {
                let rate = rate(&mut *start()?, batch, duration)?;
                // Their number is the same each time.
                let instructions = match instructions {
                    None if counts => *instructions.insert(instructions::per_proposal(row, batch)?),
                    known => known.unwrap_or(f64::NAN),
                };
                Ok(vec![rate, instructions])
            };
            cells.push(Cell { group: batch.to_string(), row: row.to_owned(), run: Box::new(run) });
        }
    }
    let others = |row: &str| {
        let others = engines().into_iter().map(|engine| engine.row.to_owned());
        others.filter(|other| row == "quorate" && other != row).collect()
    };
    Bench {
        name: "engine",
        title: "Three engines on one thread, messages passed by hand, commands of 16 bytes"
            .to_owned(),
        groups: "batch",
        columns: vec![
            Column { name: "proposals/s", unit: Unit::Rate },
            Column { name: "instructions/proposal", unit: Unit::Count },
        ],
        against: vec![
            Against { name: "rate × raft-rs", column: 0, rows: others },
            Against { name: "1/instructions × raft-rs", column: 1, rows: others },
        ],
        cells,
    }
}

fn rate(cluster: &mut dyn Cluster, batch: usize, duration: Duration) -> Result<f64> {
    // So often that reading the clock costs nothing beside it.
    let rounds = 1024_usize.div_ceil(batch);
    run(cluster, batch, 16 * rounds)?;
    let before = all_handed_out(cluster)?;
    let began = Instant::now();
    while began.elapsed() < duration {
        run(cluster, batch, rounds)?;
    }
    cluster.heartbeat()?;
    let elapsed = began.elapsed();
    Ok((all_handed_out(cluster)? - before) as f64 / elapsed.as_secs_f64())
}

fn run(cluster: &mut dyn Cluster, batch: usize, rounds: usize) -> Result<()> {
    (0..rounds).try_for_each(|_| cluster.round(batch))
}

/// What all three have handed out, when all is quiet.
fn all_handed_out(cluster: &mut dyn Cluster) -> Result<usize> {
    cluster.heartbeat()?;
    let counts = cluster.handed_out();
    ensure!(counts.iter().all(|count| *count == counts[0]), "handed out: {counts:?}");
    Ok(counts[0])
}

/// So many rounds, and nothing else.
pub(crate) fn alone(Alone { row, batch, rounds }: &Alone) -> Result<()> {
    let engine = engines().into_iter().find(|engine| engine.row == *row);
    let Some(Engine { start, .. }) = engine else { anyhow::bail!("there is no engine {row:?}") };
    let mut cluster = start()?;
    run(&mut *cluster, *batch, *rounds)?;
    let handed_out = all_handed_out(&mut *cluster)?;
    ensure!(handed_out == batch * rounds, "{handed_out} were handed out");
    Ok(())
}
