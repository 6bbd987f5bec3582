//! What a long log costs: three engines that begin with one, and stores that hold one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::channel::oneshot;
use quorate::{
    Completion, Entries, Entry, Executor, FileStore, HardState, Index, Launch, LogId, LogStore,
    LogWrite, MemStore, Payload, Replica, Term, Tokio,
};
use tempfile::TempDir;

use crate::engine::three::{Three, first_entry};

#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// Three engines restart, and one is elected.
    Elect,
    /// To three engines, the first of which leads: from the proposal until all have handed it out.
    Propose,
    Append(Store),
    Read(Store),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Store {
    Memory,
    File,
}

pub(super) const JOBS: [Job; 6] = [
    Job::Elect,
    Job::Propose,
    Job::Append(Store::Memory),
    Job::Append(Store::File),
    Job::Read(Store::Memory),
    Job::Read(Store::File),
];

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elect => "engines: restart and election",
            Self::Propose => "engines: a proposal, 16 at once",
            Self::Append(Store::Memory) => "MemStore: an append of 16",
            Self::Append(Store::File) => "FileStore: an append of 16",
            Self::Read(Store::Memory) => "MemStore: a read of 64",
            Self::Read(Store::File) => "FileStore: a read of 64",
        })
    }
}

const COMMAND: [u8; 16] = *b"set greeting = 1";

/// The entries of a write by which a log is filled.
const FILL: Index = 1024;

/// The entries of a write, or a round of proposals, that is measured.
const BATCH: usize = 16;
/// So many of them grow the log, until it gets its old length again.
const BATCHES: usize = 64;

/// The entries of a read.
const READ: Index = 64;

/// The logs, by their length. They are made when they are needed for the first time.
#[derive(Clone)]
pub(super) struct Logs {
    memory: Rc<RefCell<BTreeMap<Index, MemStore>>>,
    dir: Rc<TempDir>,
}

impl Logs {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("quorate-benches-").tempdir_in(dir)?;
        Ok(Self { memory: Rc::default(), dir: Rc::new(dir) })
    }

    pub(super) fn run(&self, job: Job, entries: Index, duration: Duration) -> Result<Vec<f64>> {
        let logs = self.clone();
        let run = async move |rt: Tokio| match job {
            Job::Elect => logs.engines(entries, duration, true).await,
            Job::Propose => logs.engines(entries, duration, false).await,
            Job::Append(Store::Memory) => {
                appends(&logs.in_memory(entries).await?, entries, duration).await
            }
            Job::Append(Store::File) => {
                appends(&logs.on_disk(&rt, entries).await?, entries, duration).await
            }
            Job::Read(Store::Memory) => {
                reads(&logs.in_memory(entries).await?, entries, duration).await
            }
            Job::Read(Store::File) => {
                reads(&logs.on_disk(&rt, entries).await?, entries, duration).await
            }
        };
        Ok(vec![Tokio::run(&Launch::named("scale"), run)??])
    }

    async fn in_memory(&self, entries: Index) -> Result<MemStore> {
        let known = self.memory.borrow().get(&entries).cloned();
        if let Some(store) = known {
            return Ok(store);
        }
        let store = MemStore::new();
        fill(&store, entries).await?;
        self.memory.borrow_mut().insert(entries, store.clone());
        Ok(store)
    }

    async fn on_disk(&self, rt: &Tokio, entries: Index) -> Result<FileStore<Tokio>> {
        let dir = self.dir.path().join(entries.to_string());
        if !dir.exists() {
            fill(&FileStore::open(rt, &dir).await?, entries).await?;
        }
        let store = FileStore::open(rt, &dir).await?;
        store.identify(1).await?;
        store.recover(0).await?;
        Ok(store)
    }

    async fn engines(&self, entries: Index, duration: Duration, elect: bool) -> Result<f64> {
        let store = self.in_memory(entries).await?;
        let recovered = store.inspect(0);
        ensure!(recovered.log_meta.last().index >= entries, "the log is shorter");
        let (mut count, mut elapsed) = (0, Duration::ZERO);
        let began = Instant::now();
        while count == 0 || began.elapsed() < duration {
            let recovered = [(); 3].map(|()| recovered.clone());
            let begin = Instant::now();
            let mut three = Three::restart(recovered)?;
            if elect {
                elapsed += begin.elapsed();
                count += 1;
                continue;
            }
            let begin = Instant::now();
            for _ in 0..BATCHES {
                three.round(BATCH, &COMMAND)?;
            }
            three.heartbeat()?;
            elapsed += begin.elapsed();
            let handed_out = three.handed_out();
            ensure!(handed_out == [BATCHES * BATCH; 3], "handed out: {handed_out:?}");
            count += BATCHES * BATCH;
        }
        Ok(elapsed.as_secs_f64() / count as f64)
    }
}

/// Of the one term that all logs here have.
fn run(first: Index, count: Index) -> Entries {
    let payload = Payload::Command(Bytes::from_static(&COMMAND));
    let entry =
        |index| Entry { log_id: LogId::new(1, 1, index), time: 1, payload: payload.clone() };
    (first..first + count).map(entry).collect()
}

/// Appends, and waits until it is durable.
async fn append(store: &impl LogStore, write: LogWrite) -> Result<()> {
    let (done, outcome) = oneshot::channel();
    let tell = |result| {
        let _ = done.send(result);
    };
    let _pending = store.append(0, write, Completion::new(tell));
    Ok(outcome.await.context("the store has not told")??)
}

async fn fill(store: &impl LogStore, entries: Index) -> Result<()> {
    store.identify(1).await?;
    store.recover(0).await?;
    let hard_state = HardState { term: Term(1), voted_for: Some(Replica::new(1, 1)) };
    let entries_of_first = [first_entry()?].into_iter().collect();
    let write =
        LogWrite { hard_state: Some(hard_state), entries: entries_of_first, ..LogWrite::default() };
    append(store, write).await?;
    let mut next = 2;
    while next <= entries {
        // Of many writes that are under way, one is waited for.
        let count = FILL.min(entries + 1 - next);
        let write = LogWrite { entries: run(next, count), ..LogWrite::default() };
        next += count;
        if next > entries || (next / FILL).is_multiple_of(64) {
            append(store, write).await?;
        } else {
            let _pending = store.append(0, write, Completion::new(drop));
        }
    }
    Ok(())
}

/// What the appending takes, until the entries are readable.
async fn appends(store: &impl LogStore, entries: Index, duration: Duration) -> Result<f64> {
    let write = |place: usize| LogWrite {
        entries: run(entries + 1 + (place * BATCH) as Index, BATCH as Index),
        ..LogWrite::default()
    };
    let (mut count, mut elapsed) = (0, Duration::ZERO);
    let began = Instant::now();
    while count == 0 || began.elapsed() < duration {
        // It replaces what was appended before.
        append(store, write(0)).await?;
        let writes: Vec<_> = (1..=BATCHES).map(write).collect();
        let begin = Instant::now();
        for write in writes {
            let _pending = store.append(0, write, Completion::new(drop));
        }
        elapsed += begin.elapsed();
        count += BATCHES;
        append(store, write(BATCHES + 1)).await?;
    }
    Ok(elapsed.as_secs_f64() / count as f64)
}

/// From random places.
async fn reads(store: &impl LogStore, entries: Index, duration: Duration) -> Result<f64> {
    let mut random = fastrand::Rng::with_seed(2);
    let (mut count, began) = (0, Instant::now());
    while count == 0 || began.elapsed() < duration {
        let first = random.u64(1..=entries + 1 - READ);
        let read = store.read(0, first..first + READ, usize::MAX).await?;
        ensure!(read.len() as Index == READ, "{} entries were read", read.len());
        count += 1;
    }
    Ok(began.elapsed().as_secs_f64() / f64::from(count))
}
