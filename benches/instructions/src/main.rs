//! The hot paths, one by one, for callgrind to count their instructions: `scripts/instructions`
//! runs this, and compares with the baseline.
//!
//! Without an argument it tells the names of the cases; with one it runs that case.

use std::hint::black_box;
use std::io;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use compio::driver::{DriverType, ProactorBuilder};
use futures::future::try_join_all;
use monoio::{LegacyDriver, RuntimeBuilder};
use quorate::codec::{Gather, decode_message, put_message};
use quorate::quorum::Voters;
use quorate::{
    At, Attached, Body, ClusterId, Command, Compio, Completion, Driver, Entries, Entry, Executor,
    FileStore, HardState, Launch, LocalNetwork, LogId, LogStore, LogWrite, MemStore, Message,
    Monoio, Node, NodeId, Payload, Raw, Replica, StateMachine, StoreError, Term, Tokio,
};
use serde::{Deserialize, Serialize};

use self::three::Three;

#[path = "../../src/engine/three.rs"]
mod three;

type Case = (&'static str, fn() -> Result<()>);

const CASES: &[Case] = &[
    ("round-1", || round(1)),
    ("round-16", || round(16)),
    ("round-256", || round(256)),
    ("write-1", || write::<Tokio>(1)),
    ("write-64", || write::<Tokio>(64)),
    ("write-1-monoio", || write::<Monoio>(1)),
    ("write-1-monoio-attached", || write_attached_monoio(1)),
    ("write-1-compio", || write::<Compio>(1)),
    ("write-1-compio-attached", || write_attached_compio(1)),
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

/// Callgrind counts what happens in here, and nothing else.
#[inline(never)]
fn counted<T>(what: impl FnOnce() -> T) -> T {
    black_box(what())
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

/// So many writes are counted, so that the start of the nodes hardly matters.
const WRITES: usize = 2048;

/// Writes on the leader of three nodes of one thread, with logs in memory, so many at once. What
/// the nodes do by time is counted as well, and is little.
async fn writes<R: Executor>(rt: R, at_once: usize) -> Result<()> {
    let network = LocalNetwork::new();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let builder = Node::builder(id).log_store(MemStore::new());
        let node = builder.transport(network.transport()).start(&rt).await?;
        let raft = node.group(0).open_local(Nothing).await?;
        nodes.push((node, raft));
    }
    let raft = &nodes[0].1;
    raft.initialize([1, 2, 3].map(|id| (id, id.to_string()))).await?;
    for _ in 0..WRITES / at_once {
        try_join_all((0..at_once).map(|_| raft.write(()))).await?;
    }
    Ok(())
}

/// Writes on a runtime that Quorate has started.
fn write<R: Executor>(at_once: usize) -> Result<()> {
    // valgrind knows no ring.
    let launch = Launch { driver: Driver::Poll, ..Launch::default() };
    counted(|| R::run(&launch, async |rt: R| writes(rt, at_once).await))?
}

/// Writes of a task of a program, to whose runtime Quorate's is attached.
fn write_attached_monoio(at_once: usize) -> Result<()> {
    let mut program = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
    counted(|| program.block_on(attached(Monoio::attach, at_once)))
}

fn write_attached_compio(at_once: usize) -> Result<()> {
    let mut proactor = ProactorBuilder::new();
    proactor.driver_type(DriverType::Poll);
    let program = compio::runtime::RuntimeBuilder::new().with_proactor(proactor).build()?;
    counted(|| program.block_on(attached(Compio::attach, at_once)))
}

async fn attached<R: Executor>(
    attach: impl Fn() -> io::Result<Attached<R>>,
    at_once: usize,
) -> Result<()> {
    let attached = attach()?;
    writes(attached.rt(), at_once).await?;
    attached.close().await;
    Ok(())
}

/// A state machine without state.
#[derive(Serialize, Deserialize)]
struct Nothing;

impl StateMachine for Nothing {
    type Command = ();
    type Response = ();

    async fn apply(&mut self, (): (), _: At) {}
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
