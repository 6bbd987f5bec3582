//! How long an opening takes: `cargo run --release -p quorate-store-file --example recovery --
//! --entries 10000000`.
//!
//! It fills a store with small entries and opens it; then takes a snapshot of most of them, purges,
//! and opens it again. Each opening is a process of its own, so that its peak memory is its own as
//! well; the files are in the system's cache.
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use bytes::Bytes;
use quorate_core::{
    ClusterId, Completion, Digest, Entry, Index, LogId, LogStore, LogWrite, Membership, Payload,
    Replica, SnapshotMeta, StoreError,
};
use quorate_rt::channel::oneshot;
use quorate_rt::{Executor, Launch};
use quorate_rt_tokio::Tokio;
use quorate_store_file::FileStore;

type Outcome<T> = Result<T, Box<dyn Error>>;

const GROUP: u64 = 1;
const COMMAND_BYTES: usize = 16;
/// The entries of one write, as a busy node makes them.
const WRITE_ENTRIES: u64 = 100;
/// The writes under way at once.
const WRITES: u64 = 100;
/// What a snapshot doesn't cover yet.
const REST: u64 = 100_000;

fn main() -> Outcome<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--open", dir] => opening(Path::new(dir)),
        ["--entries", count] => all(count.parse()?),
        _ => all(1_000_000),
    }
}

fn all(count: u64) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let begin = Instant::now();
    run(async |rt| fill(&rt, dir.path(), count).await)?;
    println!("filled with {count} entries of {COMMAND_BYTES} bytes in {:.1?}", begin.elapsed());
    open_alone(dir.path(), "the whole log")?;
    let begin = Instant::now();
    run(async |rt| compact(&rt, dir.path(), count).await)?;
    println!("opened, snapshot named and log purged in {:.1?}", begin.elapsed());
    open_alone(dir.path(), "a snapshot and what it doesn't cover")
}

fn run(main: impl AsyncFnOnce(Tokio) -> Outcome<()>) -> Outcome<()> {
    Tokio::run(&Launch::named("recovery"), main)?
}

fn open_alone(dir: &Path, what: &str) -> Outcome<()> {
    print!("{what}: {} segments, ", fs::read_dir(dir.join("wal"))?.count());
    let output = Command::new(env::current_exe()?).arg("--open").arg(dir).output()?;
    print!("{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    Ok(())
}

fn opening(dir: &Path) -> Outcome<()> {
    let begin = Instant::now();
    let dir = dir.to_owned();
    run(async move |rt| {
        let store = FileStore::open(&rt, &dir).await?;
        let log_meta = store.recover(GROUP).await?.log_meta;
        let entries = log_meta.last().index - log_meta.purged().index;
        let status = fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap_or_default().trim();
        println!("{entries} entries, opened in {:.2?}, peak memory {peak}", begin.elapsed());
        Ok(())
    })
}

async fn fill(rt: &Tokio, dir: &Path, count: u64) -> Outcome<()> {
    let store = FileStore::open(rt, dir).await?;
    let mut next = 1;
    while next <= count {
        let mut under_way = Vec::new();
        while next <= count && (under_way.len() as u64) < WRITES {
            let end = (next + WRITE_ENTRIES).min(count + 1);
            let entries = (next..end).map(entry).collect();
            under_way.push(submit(&store, LogWrite { entries, ..LogWrite::default() }));
            next = end;
        }
        for outcome in under_way {
            outcome.await??;
        }
    }
    Ok(())
}

async fn compact(rt: &Tokio, dir: &Path, count: u64) -> Outcome<()> {
    let store = FileStore::open(rt, dir).await?;
    let content = Bytes::from(vec![7; 1 << 20]);
    let meta = SnapshotMeta {
        log_id: entry(count.saturating_sub(REST).max(1)).log_id,
        time: count,
        membership: Membership::founding(
            ClusterId(5),
            [(Replica::new(1, 7), "a:1".to_owned())].into(),
        )?,
        membership_index: 1,
        bytes: content.len() as u64,
        digest: Digest::of(&content),
    };
    let mut draft = store.draft(GROUP).await?;
    draft.write(content).await?;
    draft.finish(&meta).await?;
    let purge = Some(meta.log_id);
    submit(&store, LogWrite { snapshot: Some(Box::new(meta)), purge, ..LogWrite::default() })
        .await??;
    // Until the segments are gone: their removal is nobody's to wait for.
    let left = |dir: &Path| fs::read_dir(dir.join("wal")).map_or(0, Iterator::count);
    let mut before = left(dir);
    loop {
        rt.sleep(std::time::Duration::from_millis(200)).await;
        let now = left(dir);
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

fn submit(store: &FileStore<Tokio>, write: LogWrite) -> oneshot::Receiver<Result<(), StoreError>> {
    let (sender, receiver) = oneshot::channel();
    let tell = move |outcome| drop(sender.send(outcome));
    let _pending = store.append(GROUP, write, Completion::new(tell));
    receiver
}

fn entry(index: Index) -> Entry {
    let payload = Payload::Command(Bytes::from(vec![index as u8; COMMAND_BYTES]));
    Entry { log_id: LogId::new(1, 1, index), time: index, payload }
}
