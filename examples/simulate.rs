//! A bug of one's own, found in the simulator: `cargo run --example simulate --features sim`, and
//! with `-- SEED` one of its runs again.
//!
//! An account gets coins from a queue that delivers some of them twice, so it keeps those that it
//! has seen. Its first version forgets them. docs/simulation.md goes through it step by step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use quorate::FileConfig;
use quorate::prelude::*;
use quorate::sim::{Crash, Generator, Host, Sim, Simulation};

const COINS: u64 = 100;
const SEEDS: u64 = 20;

// --- The service: what is tested.

#[derive(Default, Serialize, Deserialize)]
struct Account<const REPAIRED: bool> {
    total: u64,
    seen: BTreeSet<u64>,
    #[serde(skip)] // The bug of the first version: this is no part of a snapshot.
    forgotten: BTreeSet<u64>,
}

impl<const REPAIRED: bool> StateMachine for Account<REPAIRED> {
    type Command = u64; // the number of a coin
    type Response = u64;

    async fn apply(&mut self, coin: u64, _: At) -> u64 {
        let seen = if REPAIRED { &mut self.seen } else { &mut self.forgotten };
        self.total += u64::from(seen.insert(coin));
        self.total
    }
}

// --- The cluster: three hosts, and handles of the nodes that run on them.

struct Cluster<const REPAIRED: bool> {
    hosts: BTreeMap<u64, Host>,
    rafts: RefCell<BTreeMap<u64, Raft<Account<REPAIRED>>>>,
}

impl<const REPAIRED: bool> Cluster<REPAIRED> {
    /// Starts the nodes that do not run, each as a process of its host.
    fn start(self: &Rc<Self>) {
        for (&id, host) in self.hosts.iter().filter(|(_, host)| !host.is_running()) {
            self.rafts.borrow_mut().remove(&id); // Of the process that was killed.
            let cluster = Rc::clone(self);
            host.start(async move |rt| {
                let outcome = cluster.serve(&rt, id).await;
                panic!("node {id} has ended: {outcome:?}"); // Nothing here should make it.
            });
        }
    }

    /// The service as it runs on `Tokio`. Only its limits are small, so that they are reached.
    async fn serve(&self, rt: &Sim, id: u64) -> quorate::Result<()> {
        let address = |id| format!("node-{id}:7001"); // By the name of its host.
        let files = FileConfig { segment_bytes: 64 << 10, ..FileConfig::default() };
        let node = Node::builder(id)
            .log_store(FileStore::open_with(rt, "data", files).await?)
            .transport(TcpTransport::bind(rt, &address(id)).await?)
            .start(rt)
            .await?;
        let config = Config { snapshot_after_entries: 10, ..Config::default() };
        let raft = node.group(0).config(config).open(Account::default()).await?;
        let _is_formed_already = raft.initialize((1..=3).map(|id| (id, address(id)))).await;
        self.rafts.borrow_mut().insert(id, raft.clone());
        Ok(raft.stopped().await?)
    }

    /// Puts a coin in, at any node, again and again until one says that it is done.
    async fn put(&self, rt: &Sim, draw: &Generator, coin: u64) {
        loop {
            rt.sleep(draw.duration(&(Duration::ZERO..Duration::from_millis(500)))).await;
            let raft = self.rafts.borrow().get(&(1 + draw.below(3))).cloned();
            let Some(raft) = raft else { continue };
            if raft.write(coin).await.is_ok() {
                return;
            }
        }
    }
}

// --- The simulation: what is asked of the cluster, what goes wrong meanwhile, and what must hold.

/// A run, which is the same for the same seed. An error says what was violated.
fn run<const REPAIRED: bool>(seed: u64) -> Result<(), String> {
    let simulation = Simulation::new(seed);
    let hosts = (1..=3).map(|id| (id, simulation.host(format!("node-{id}")))).collect();
    let cluster = Rc::new(Cluster::<REPAIRED> { hosts, rafts: RefCell::default() });
    let (client, queue) = (simulation.host("client"), Generator::new(seed, "queue"));
    let of_client = Rc::clone(&cluster);
    client.start(async move |rt| {
        for coin in 0..COINS {
            of_client.put(&rt, &queue, coin).await;
            if queue.chance(0.2) {
                of_client.put(&rt, &queue, queue.below(coin + 1)).await; // once more
            }
        }
    });

    let (faults, network) = (Generator::new(seed, "faults"), simulation.network());
    let host = || &cluster.hosts[&(1 + faults.below(3))];
    while client.is_running() && simulation.now() < Duration::from_secs(60) {
        cluster.start();
        simulation.run_for(faults.duration(&(Duration::ZERO..Duration::from_secs(2))));
        match faults.below(4) {
            0 => host().crash(Crash::Power),
            1 => host().crash(Crash::Process),
            2 => network.cut(host().id(), host().id()),
            _ => network.heal_all(),
        }
    }

    cluster.start();
    network.heal_all();
    let is_done = || !client.is_running() && cluster.rafts.borrow().len() == 3;
    if !simulation.run_until(Duration::from_secs(120), is_done) {
        return Err(format!("seed {seed}: all is well, and not all coins are taken by all nodes"));
    }
    simulation.run_for(Duration::from_secs(10)); // There may be an election, and none answers.
    for (id, raft) in cluster.rafts.borrow().iter() {
        let total = simulation.block_on(&client, async |_| raft.read(|it| it.total).await);
        match total.expect("the simulation goes on") {
            Ok(COINS) => {}
            total => return Err(format!("seed {seed}: node {id} has {total:?} of {COINS} coins")),
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the command line is not simulated")]
fn main() -> Result<(), String> {
    if let Some(seed) = std::env::args().nth(1).and_then(|seed| seed.parse().ok()) {
        println!("the first version: {:?}", run::<false>(seed));
        return Ok(());
    }
    let violated = (0..SEEDS).find_map(|seed| Some((seed, run::<false>(seed).err()?)));
    let (seed, violation) = violated.ok_or("the first version: no violation in any seed")?;
    println!("the first version, {violation}");
    assert_eq!(run::<false>(seed), Err(violation), "a seed gives the same run each time");
    (0..SEEDS).try_for_each(run::<true>)?;
    println!("the repaired version: no violation in {SEEDS} seeds");
    Ok(())
}
