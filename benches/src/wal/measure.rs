//! What is done with a log, whoever's it is, and how long it takes.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::{Advice, fadvise};

use super::{Job, Shape, Store, Wal};
use crate::closed_loop::cpu_time;

/// How many entries are read at once.
const READ_ENTRIES: usize = 64;

/// So much is appended unsynced, before all of it is waited for.
const UNSYNCED_BYTES: usize = 4 << 20;

/// So much is appended before recent entries are read: less than any log keeps in memory.
const RECENT_BYTES: usize = 16 << 20;

pub(super) async fn run(
    job: Job,
    shape: &Shape,
    dir: &Path,
    store: impl Store,
) -> Result<Vec<f64>> {
    match job {
        Job::Synced => synced(shape, store.open(dir, shape).await?).await,
        Job::Unsynced => unsynced(shape, store.open(dir, shape).await?).await,
        Job::Fill(bytes) => {
            let mut wal = store.open(dir, shape).await?;
            append(shape, bytes, &mut wal).await?;
            Ok(vec![])
        }
        Job::Open { cached } => {
            each_file(dir, &|file| Ok(file.sync_all()?))?;
            if cached {
                each_file(dir, &|mut file| {
                    std::io::copy(&mut file, &mut std::io::sink())?;
                    Ok(())
                })?;
            } else {
                each_file(dir, &|file| Ok(fadvise(&file, 0, None, Advice::DontNeed)?))?;
            }
            let began = Instant::now();
            let wal = store.open(dir, shape).await?;
            let elapsed = began.elapsed().as_secs_f64();
            ensure!(wal.last() > 0, "nothing was there");
            Ok(vec![elapsed])
        }
        Job::Read { recent } => {
            let mut wal = store.open(dir, shape).await?;
            let old = wal.last();
            append(shape, RECENT_BYTES, &mut wal).await?;
            let (first, last) = if recent { (old + 1, wal.last()) } else { (1, old / 2) };
            reads(shape, first, last, wal).await
        }
    }
}

async fn synced(shape: &Shape, mut wal: impl Wal) -> Result<Vec<f64>> {
    let bytes = shape.round_bytes();
    let mut round = async || {
        wal.prepare(bytes)?;
        let began = Instant::now();
        for group in 0..shape.groups {
            wal.append(group)?;
        }
        wal.sync().await?;
        anyhow::Ok(began.elapsed())
    };
    round().await?;
    let (before, cpu_before) = (written_bytes()?, cpu_time());
    let (mut rounds, mut elapsed) = (0, Duration::ZERO);
    while rounds < 2 || elapsed < shape.duration {
        elapsed += round().await?;
        rounds += 1;
    }
    let written = written_bytes()? - before;
    let cpu = cpu_time().saturating_sub(cpu_before).as_secs_f64();
    let elapsed = elapsed.as_secs_f64();
    let entries = (rounds * shape.groups * shape.entries) as f64;
    Ok(vec![
        entries / elapsed,
        elapsed / rounds as f64,
        cpu / entries,
        written as f64 / (rounds * bytes) as f64,
    ])
}

async fn unsynced(shape: &Shape, mut wal: impl Wal) -> Result<Vec<f64>> {
    let appends = UNSYNCED_BYTES.div_ceil(shape.round_bytes());
    let mut rounds = 0;
    let (mut appending, mut in_all) = (Duration::ZERO, Duration::ZERO);
    while rounds < 2 || in_all < shape.duration {
        let began = Instant::now();
        for _ in 0..appends {
            for group in 0..shape.groups {
                wal.append(group)?;
            }
        }
        let appended = began.elapsed();
        wal.sync().await?;
        // The first round warms up.
        if rounds > 0 {
            appending += appended;
            in_all += began.elapsed();
        }
        rounds += 1;
    }
    let entries = ((rounds - 1) * appends * shape.groups * shape.entries) as f64;
    let [appending, in_all] = [appending, in_all].map(|time| time.as_secs_f64());
    Ok(vec![entries / appending, appending / entries, in_all / entries])
}

async fn append(shape: &Shape, bytes: usize, wal: &mut impl Wal) -> Result<()> {
    for _ in 0..bytes.div_ceil(shape.round_bytes()) {
        wal.prepare(shape.round_bytes())?;
        wal.append(0)?;
        wal.sync().await?;
    }
    Ok(())
}

async fn reads(shape: &Shape, first: u64, last: u64, mut wal: impl Wal) -> Result<Vec<f64>> {
    let mut random = fastrand::Rng::with_seed(2);
    let (mut reads, began) = (0, Instant::now());
    while began.elapsed() < shape.duration {
        let from = random.u64(first..=last - READ_ENTRIES as u64 + 1);
        let read = wal.read(from, READ_ENTRIES).await?;
        ensure!(read == READ_ENTRIES, "{read} entries were read");
        reads += 1;
    }
    let elapsed = began.elapsed().as_secs_f64();
    Ok(vec![(reads * READ_ENTRIES) as f64 / elapsed, elapsed / reads as f64])
}

/// What this process has had written to disks so far, in whole pages.
fn written_bytes() -> Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("the kernel does not count what is written")?.parse()?)
}

fn each_file(dir: &Path, what: &dyn Fn(File) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            each_file(&path, what)?;
        } else {
            what(File::open(path)?)?;
        }
    }
    Ok(())
}
