//! The limit: a plain thread that writes the same content, and nothing else, into a preallocated
//! file and syncs it; or that reads a file.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use rustix::fs::{FallocateFlags, fallocate};

use super::{Contents, Job, Shape, Store};

pub(super) struct Limit;

pub(super) struct Wal {
    dir: PathBuf,
    file: Option<File>,
    files: usize,
    /// Where the next round is written.
    offset: u64,
    capacity: u64,
    round: Vec<u8>,
    entries: u64,
}

/// As large as a segment of Quorate's.
const FILE_BYTES: u64 = 64 << 20;

pub(super) fn run(job: Job, shape: &Shape, dir: &Path) -> Result<Vec<f64>> {
    super::run(job, shape, dir, Limit).now_or_never().context("it waits for nothing")?
}

impl Store for Limit {
    type Wal = Wal;

    async fn open(&self, dir: &Path, shape: &Shape) -> Result<Wal> {
        let mut bytes = 0;
        let mut buffer = vec![0; 1 << 20];
        for file in dir.read_dir()? {
            let mut file = File::open(file?.path())?;
            while let n @ 1.. = file.read(&mut buffer)? {
                bytes += n;
            }
        }
        Ok(Wal {
            dir: dir.to_owned(),
            file: None,
            files: 0,
            offset: 0,
            capacity: 0,
            round: round(shape),
            entries: (bytes / shape.bytes) as u64,
        })
    }
}

fn round(shape: &Shape) -> Vec<u8> {
    let mut contents = Contents::new();
    let mut round = Vec::with_capacity(shape.round_bytes());
    for _ in 0..shape.groups * shape.entries {
        round.extend_from_slice(&contents.take(shape.bytes));
    }
    round
}

impl super::Wal for Wal {
    fn prepare(&mut self, bytes: usize) -> Result<()> {
        if self.offset + bytes as u64 > self.capacity {
            let path = self.dir.join(self.files.to_string());
            let file = OpenOptions::new().write(true).create_new(true).open(path)?;
            self.capacity = FILE_BYTES.max(bytes as u64);
            fallocate(&file, FallocateFlags::empty(), 0, self.capacity)?;
            file.sync_all()?;
            (self.file, self.files, self.offset) = (Some(file), self.files + 1, 0);
        }
        Ok(())
    }

    /// (All groups of a round are written at once.)
    fn append(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    async fn sync(&mut self) -> Result<()> {
        let file = self.file.as_ref().context("no file is ready")?;
        file.write_all_at(&self.round, self.offset)?;
        file.sync_data()?;
        self.offset += self.round.len() as u64;
        Ok(())
    }

    fn last(&self) -> u64 {
        self.entries
    }

    async fn read(&mut self, _: u64, _: usize) -> Result<usize> {
        bail!("there are no entries in it")
    }
}
