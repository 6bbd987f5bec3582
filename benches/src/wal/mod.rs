//! Quorate's write-ahead log on each runtime, beside raft-engine and beside what the file system
//! does at best with the same bytes.

mod limit;
mod measure;
mod quorate;
#[cfg(feature = "compare")]
mod raft_engine;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ::quorate::{Compio, Driver, Files, Launch, Monoio, Tokio};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use tempfile::TempDir;

use self::measure::run;
use crate::report::{Against, Bench, Cell, Column, Unit};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// What is measured.
    part: Part,
    /// How many entries are appended at once, to each group.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1024])]
    entries: Vec<usize>,
    /// How large an entry is.
    #[arg(long, value_delimiter = ',', default_values_t = [128, 4096])]
    bytes: Vec<usize>,
    /// How many groups are appended to at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64])]
    groups: Vec<usize>,
    /// How large the log is that is recovered, or read from.
    #[arg(long, default_value_t = 1024)]
    log_mib: usize,
    /// How long a cell is measured at least, in milliseconds.
    #[arg(long, default_value_t = 500)]
    milliseconds: u64,
    /// Where the logs are written, in a directory that is removed afterwards.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Appends, each batch of which is waited for until it is durable.
    Synced,
    /// Appends that nobody waits for.
    Unsynced,
    /// Opening a log.
    Recovery,
    /// Reading entries.
    Reads,
}

/// What a cell does.
#[derive(Clone, Copy, Debug)]
enum Job {
    Synced,
    Unsynced,
    /// A log of so many bytes is written, for what comes after.
    Fill(usize),
    Open {
        /// Its files are in the page cache.
        cached: bool,
    },
    Read {
        /// Entries that were appended just now, or long ago.
        recent: bool,
    },
}

/// How the appends of a cell look, and for how long there are some.
#[derive(Clone, Debug)]
struct Shape {
    groups: usize,
    entries: usize,
    /// How large an entry is.
    bytes: usize,
    duration: Duration,
}

impl Shape {
    /// What is appended at once, to all groups together.
    fn round_bytes(&self) -> usize {
        self.groups * self.entries * self.bytes
    }
}

/// What entries hold: random bytes, other ones for each, so that nothing compresses.
struct Contents {
    random: Bytes,
    offset: usize,
}

impl Contents {
    fn new() -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        Self { random: (0..1 << 22).map(|_| random.u8(..)).collect(), offset: 0 }
    }

    fn take(&mut self, bytes: usize) -> Bytes {
        if self.offset + bytes > self.random.len() {
            self.offset = 0;
        }
        self.offset += bytes;
        self.random.slice(self.offset - bytes..self.offset)
    }
}

/// A log that can be opened.
trait Store {
    type Wal: Wal;

    async fn open(&self, dir: &Path, shape: &Shape) -> Result<Self::Wal>;
}

/// A log that is open.
trait Wal {
    /// Readies what is not part of the next round's time.
    fn prepare(&mut self, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Appends the shape's entries to a group, and does not wait until they are durable.
    fn append(&mut self, group: usize) -> Result<()>;

    /// Waits until all that was appended is durable.
    async fn sync(&mut self) -> Result<()>;

    /// The index of the last entry of the first group.
    fn last(&self) -> u64;

    /// Reads entries of the first group; how many.
    async fn read(&mut self, first: u64, count: usize) -> Result<usize>;
}

/// A row: how its jobs are run in a directory.
struct Row {
    name: &'static str,
    /// Rows of one format share a log that was filled.
    format: &'static str,
    run: fn(Job, &Shape, &Path) -> Result<Vec<f64>>,
}

fn rows(part: Part) -> Vec<Row> {
    let mut rows = vec![
        Row { name: "quorate, tokio", format: "quorate", run: on::<Tokio> },
        Row { name: "quorate, monoio (io_uring)", format: "quorate", run: on::<Monoio> },
        Row { name: "quorate, compio (io_uring)", format: "quorate", run: on::<Compio> },
    ];
    if matches!(part, Part::Synced | Part::Recovery) {
        rows.insert(0, Row { name: "limit", format: "limit", run: limit::run });
    }
    #[cfg(feature = "compare")]
    rows.push(Row { name: "raft-engine", format: "raft-engine", run: raft_engine::run });
    rows
}

/// (Of a runtime that has io_uring, with io_uring.)
fn on<R: Files>(job: Job, shape: &Shape, dir: &Path) -> Result<Vec<f64>> {
    let launch = Launch { driver: Driver::Auto, ..Launch::named("wal") };
    let (shape, dir) = (shape.clone(), dir.to_owned());
    let outcome = R::run(&launch, async move |rt: R| run(job, &shape, &dir, quorate::On(rt)).await);
    outcome?
}

pub(crate) fn bench(options: &Options) -> Result<Bench> {
    let dir = tempfile::Builder::new().prefix("quorate-benches-").tempdir_in(&options.dir);
    let dir = dir.with_context(|| format!("nothing can be made in {}", options.dir.display()))?;
    const TMPFS: i64 = 0x0102_1994;
    let kind = rustix::fs::statfs(dir.path())?.f_type;
    ensure!(kind != TMPFS, "{} is in memory", options.dir.display());

    let dir = Rc::new(dir);
    let mut cells = Vec::new();
    for &groups in &options.groups {
        for &bytes in &options.bytes {
            for &entries in &options.entries {
                let duration = Duration::from_millis(options.milliseconds);
                let shape = Shape { groups, entries, bytes, duration };
                add_cells(&mut cells, options, &shape, &dir);
            }
        }
    }
    let columns = match options.part {
        Part::Synced => vec![
            Column { name: "entries/s", unit: Unit::Rate },
            Column { name: "a round", unit: Unit::Time },
            Column { name: "CPU/entry", unit: Unit::Time },
            Column { name: "written/appended", unit: Unit::Ratio },
        ],
        Part::Unsynced => vec![
            Column { name: "entries/s", unit: Unit::Rate },
            Column { name: "an entry", unit: Unit::Time },
            Column { name: "an entry, until durable", unit: Unit::Time },
        ],
        Part::Recovery => vec![Column { name: "opened in", unit: Unit::Time }],
        Part::Reads => vec![
            Column { name: "entries/s", unit: Unit::Rate },
            Column { name: "a read", unit: Unit::Time },
        ],
    };
    let limit = Against { name: "× limit", column: 0, rows: |_| vec!["limit".to_owned()] };
    let peer = Against { name: "× raft-engine", column: 0, rows: |_| vec!["raft-engine".into()] };
    let against = match options.part {
        Part::Synced | Part::Recovery => vec![limit, peer],
        Part::Unsynced | Part::Reads => vec![peer],
    };
    let title = match options.part {
        Part::Synced => {
            "Durable appends: a round is an append to each group, until all are durable"
        }
        Part::Unsynced => "Appends that nobody waits for",
        Part::Recovery => "Opening a log",
        Part::Reads => "Reads of 64 entries",
    };
    let groups = "entries";
    Ok(Bench { name: "wal", title: title.to_owned(), groups, columns, against, cells })
}

fn add_cells(cells: &mut Vec<Cell>, options: &Options, shape: &Shape, dir: &Rc<TempDir>) {
    let Shape { groups, entries, bytes, .. } = shape;
    let is_first = options.entries[0] == *entries && options.groups[0] == *groups;
    let shown = format!("{entries} × {bytes} B, {groups} groups").replace(", 1 groups", "");
    let jobs = match options.part {
        Part::Synced => vec![(Job::Synced, shown)],
        // How many groups there are changes nothing there.
        Part::Unsynced if *groups == options.groups[0] => vec![(Job::Unsynced, shown)],
        Part::Recovery if is_first => [true, false]
            .map(|cached| {
                let cache = if cached { "cached" } else { "not cached" };
                let shown = format!("{} MiB of {bytes} B, {cache}", options.log_mib);
                (Job::Open { cached }, shown)
            })
            .into(),
        Part::Reads if is_first => [true, false]
            .map(|recent| {
                let shown = format!("{bytes} B, {}", if recent { "recent" } else { "old" });
                (Job::Read { recent }, shown)
            })
            .into(),
        _ => return,
    };
    for (job, group) in jobs {
        for Row { name, format, run } in rows(options.part) {
            let (dir, log_bytes) = (Rc::clone(dir), options.log_mib << 20);
            let mut shape = shape.clone();
            let run = move || match job {
                Job::Synced | Job::Unsynced => {
                    let dir = tempfile::tempdir_in(dir.path())?;
                    run(job, &shape, dir.path())
                }
                _ => {
                    let dir = dir.path().join(format!("{format}-{}", shape.bytes));
                    (shape.groups, shape.entries) = (1, (1 << 20) / shape.bytes);
                    if !dir.exists() {
                        std::fs::create_dir(&dir)?;
                        run(Job::Fill(log_bytes), &shape, &dir)?;
                    }
                    run(job, &shape, &dir)
                }
            };
            cells.push(Cell { group: group.clone(), row: name.to_owned(), run: Box::new(run) });
        }
    }
}
