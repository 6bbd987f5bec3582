//! The hot paths, one by one, for callgrind to count their instructions: `scripts/instructions`
//! runs this, and compares with the baseline.
//!
//! Without an argument it tells the names of the cases; with one it runs that case.

use std::hint::black_box;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use quorate::codec::{Gather, decode_message, put_message};
use quorate::quorum::Voters;
use quorate::{
    Body, ClusterId, Command, Completion, Entries, Entry, Executor, FileStore, HardState, Launch,
    LogId, LogStore, LogWrite, Message, NodeId, Payload, Raw, Replica, StoreError, Term, Tokio,
};
use serde::{Deserialize, Serialize};

use self::three::Three;
use self::writes::{counted, write};

#[path = "../../src/engine/three.rs"]
mod three;
mod writes;

type Case = (&'static str, fn() -> Result<()>);

const CASES: &[Case] = &[
    ("round-1", || round(1)),
    ("round-16", || round(16)),
    ("round-256", || round(256)),
    ("write-1", || write::<Tokio>(1)),
    ("write-64", || write::<Tokio>(64)),
    ("encode-1", || encode(1, 128)),
    ("encode-64", || encode(64, 128)),
    ("encode-64-large", || encode(64, 4096)),
    ("decode-1", || decode(1, 128)),
    ("decode-64", || decode(64, 128)),
    ("decode-64-large", || decode(64, 4096)),
    ("log-append-1", || log_append(1, 128)),
    ("log-append-64", || log_append(64, 128)),
    ("log-append-64-large", || log_append(64, 4096)),
    ("command-encode-raw", || command_encode(|| Raw(Bytes::from_static(&[7; COMMAND_BYTES])))),
    ("command-decode-raw", || command_decode(|| Raw(Bytes::from_static(&[7; COMMAND_BYTES])))),
    ("command-encode", || command_encode(Order::typical)),
    ("command-decode", || command_decode(Order::typical)),
    ("quorum-agreed-5", || quorum_agreed(&five())),
    ("quorum-agreed-joint", || quorum_agreed(&joint())),
    ("quorum-vote-5", || quorum_vote(&five())),
    ("quorum-vote-joint", || quorum_vote(&joint())),
];

#[expect(clippy::disallowed_methods, reason = "a program has arguments")]
fn main() -> Result<()> {
    let Some(name) = std::env::args().nth(1) else {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let (_, run) = CASES.iter().find(|case| case.0 == name).context("there is no such case")?;
    run()
}

/// Proposals, their replication to two followers, and their commitment.
fn round(batch: usize) -> Result<()> {
    let mut three = Three::start()?;
    for _ in 0..16 {
        three.round(batch, &[7; 16])?;
    }
    counted(|| three.round(batch, &[7; 16]))?;
    three.heartbeat()?;
    ensure!(three.handed_out() == [17 * batch; 3], "not all were handed out");
    Ok(())
}

/// Entries, the first of which has this index.
fn entries(first: u64, count: u64, bytes: usize) -> Entries {
    let entry = |index| Entry {
        log_id: LogId::new(1, 1, index),
        time: 1,
        payload: Payload::Command(Bytes::from(vec![index as u8; bytes])),
    };
    (first..first + count).map(entry).collect()
}

fn append(count: u64, bytes: usize) -> Message {
    let entries = entries(1, count, bytes);
    let body = Body::Append { prev: LogId::ZERO, committed: 0, round: 0, durable: 0, entries };
    let (cluster, from, to) = (Some(ClusterId(1)), Replica::new(1, 1), Replica::new(2, 1));
    Message { group: 1, cluster, from, to, term: Term(1), body }
}

fn encode(count: u64, bytes: usize) -> Result<()> {
    let message = append(count, bytes);
    counted(|| {
        let mut to = Gather::new();
        put_message(&mut to, black_box(&message));
        to.take()
    });
    Ok(())
}

fn decode(count: u64, bytes: usize) -> Result<()> {
    let mut to = Gather::new();
    put_message(&mut to, &append(count, bytes));
    let encoded = Bytes::from(to.take().concat());
    counted(|| decode_message(black_box(encoded)))?;
    Ok(())
}

/// Encoding records, with their CRCs, and noting their entries in the index and in memory: so many
/// that the memory's allocator, which threads have used before, hardly matters.
fn log_append(count: u64, bytes: usize) -> Result<()> {
    const APPENDS: u64 = 64;
    let dir = tempfile::tempdir()?;
    let path = dir.path().to_owned();
    // Nobody drives its task afterwards: it is the append alone that is counted, not the disk.
    let launch = Launch::named("log");
    let open = async |rt: Tokio| {
        let store = FileStore::open(&rt, path).await?;
        store.identify(1).await?;
        Ok::<_, StoreError>(store)
    };
    let store = Tokio::run(&launch, open)??;
    let state = HardState { term: Term(1), voted_for: Some(Replica::new(1, 1)) };
    let first = LogWrite { hard_state: Some(state), ..LogWrite::default() };
    let write =
        |nth| LogWrite { entries: entries(1 + nth * count, count, bytes), ..LogWrite::default() };
    let append = |write| {
        let _pending = store.append(1, black_box(write), Completion::new(|_| ()));
    };
    append(first);
    (0..APPENDS).map(write).for_each(append);
    let writes: Vec<_> = (APPENDS..2 * APPENDS).map(write).collect();
    counted(|| writes.into_iter().for_each(append));
    Ok(())
}

/// So many commands are encoded or decoded: one alone is little beside what the memory's allocator
/// happens to do.
const COMMANDS: usize = 64;

/// The length of a command in the default encoding.
const COMMAND_BYTES: usize = 128;

/// A command as services have them: some numbers, some text, an option and an enum.
#[derive(Serialize, Deserialize)]
struct Order {
    id: u64,
    account: u64,
    side: Side,
    price_cents: u64,
    quantity: u32,
    symbol: String,
    client_reference: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum Side {
    Buy,
    Sell { short: bool },
}

impl Order {
    fn typical() -> Self {
        Self {
            id: 81_234_567,
            account: 4_711,
            side: Side::Sell { short: false },
            price_cents: 1_999_900,
            quantity: 250,
            symbol: "QRTE".to_owned(),
            client_reference: Some("web-2026-11-28-0000000000000042".to_owned()),
        }
    }
}

fn command_encode<C: Command>(command: impl Fn() -> C) -> Result<()> {
    let commands: Vec<C> = (0..COMMANDS).map(|_| command()).collect();
    let encode = |command: C| black_box(command).encode().map_err(anyhow::Error::msg);
    let encoded: Vec<_> = counted(|| commands.into_iter().map(encode).collect());
    for bytes in encoded {
        let len = bytes?.len();
        ensure!(len == COMMAND_BYTES, "a command has {len} bytes");
    }
    Ok(())
}

fn command_decode<C: Command>(command: impl Fn() -> C) -> Result<()> {
    let encode = |_| command().encode().map_err(anyhow::Error::msg);
    let encoded = (0..COMMANDS).map(encode).collect::<Result<Vec<_>>>()?;
    let decoded: Vec<_> =
        counted(|| encoded.iter().map(|bytes| C::decode(black_box(bytes))).collect());
    ensure!(decoded.iter().all(Result::is_ok), "what was encoded can't be decoded");
    Ok(())
}

fn replicas(of: RangeInclusive<NodeId>) -> impl Iterator<Item = Replica> {
    of.map(|id| Replica::new(id, 1))
}

fn five() -> Voters {
    Voters::simple(replicas(1..=5))
}

fn joint() -> Voters {
    Voters::joint(replicas(1..=5), replicas(4..=8))
}

fn quorum_agreed(voters: &Voters) -> Result<()> {
    counted(|| black_box(voters).agreed(|voter| black_box(voter.id * 7 % 5)));
    Ok(())
}

fn quorum_vote(voters: &Voters) -> Result<()> {
    counted(|| black_box(voters).vote_result(|voter| black_box(Some(voter.id > 2))));
    Ok(())
}
