//! raft-engine, with its default settings, called from one thread: all that is synced at once goes
//! into one of its batches.

use std::path::Path;

use anyhow::{Context, Result};
use futures::FutureExt;
use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt};

use super::{Contents, Job, Shape, Store};

pub(super) struct RaftEngine {
    /// Each append is written, if not synced, before the next.
    writes_each: bool,
}

pub(super) struct Wal {
    engine: Engine,
    batch: LogBatch,
    shape: Shape,
    contents: Contents,
    /// By group.
    last: Vec<u64>,
    writes_each: bool,
}

struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

pub(super) fn run(job: Job, shape: &Shape, dir: &Path) -> Result<Vec<f64>> {
    let writes_each = matches!(job, Job::Unsynced);
    let store = RaftEngine { writes_each };
    super::run(job, shape, dir, store).now_or_never().context("it waits for nothing")?
}

impl Store for RaftEngine {
    type Wal = Wal;

    async fn open(&self, dir: &Path, shape: &Shape) -> Result<Wal> {
        let dir = dir.to_str().context("a path that is no text")?.to_owned();
        let engine = Engine::open(Config { dir, ..Config::default() })?;
        let last = |group| engine.last_index(group as u64 + 1).unwrap_or(0);
        Ok(Wal {
            last: (0..shape.groups).map(last).collect(),
            engine,
            batch: LogBatch::default(),
            shape: shape.clone(),
            contents: Contents::new(),
            writes_each: self.writes_each,
        })
    }
}

impl super::Wal for Wal {
    fn append(&mut self, group: usize) -> Result<()> {
        let last = &mut self.last[group];
        let first = *last + 1;
        *last += self.shape.entries as u64;
        let entry = |index| {
            let data = self.contents.take(self.shape.bytes);
            Entry { term: 1, index, data, ..Entry::default() }
        };
        let entries: Vec<Entry> = (first..=*last).map(entry).collect();
        self.batch.add_entries::<Entries>(group as u64 + 1, &entries)?;
        if self.writes_each {
            self.engine.write(&mut self.batch, false)?;
        }
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        if self.writes_each {
            // A batch without content is not written, nor anything synced: so even `Engine::sync`
            // does nothing.
            self.batch.put(1, b"synced".to_vec(), Vec::new())?;
        }
        self.engine.write(&mut self.batch, true)?;
        Ok(())
    }

    fn last(&self) -> u64 {
        self.last[0]
    }

    async fn read(&mut self, first: u64, count: usize) -> Result<usize> {
        let mut entries = Vec::new();
        let end = first + count as u64;
        Ok(self.engine.fetch_entries_to::<Entries>(1, first, end, None, &mut entries)?)
    }
}
