//! A bug of one's own, found in the simulator: `cargo run --example simulate --features sim`, and
//! with `-- SEED` one of its runs again.
//!
//! An account gets coins from a queue that delivers some of them twice, so it keeps in mind which
//! ones it has got. Its first version forgets something; the simulation finds out.
//! docs/simulation.md goes through it step by step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use quorate::FileConfig;
use quorate::prelude::*;
use quorate::sim::{Crash, Generator, Host, Sim, Simulation};
use serde::de::DeserializeOwned;

const COINS: u64 = 100;
const SEEDS: u64 = 20;
const MOMENT: Duration = Duration::from_millis(50);

// --- The service: what is tested.

#[derive(Default, Serialize, Deserialize)]
struct Account<S> {
    total: u64,
    seen: S,
}

/// The first version of what it has seen. The bug: that is no part of a snapshot.
#[derive(Default, Serialize, Deserialize)]
struct Forgets {
    #[serde(skip)]
    coins: BTreeSet<u64>,
}

/// The repaired one.
#[derive(Default, Serialize, Deserialize)]
struct Keeps {
    coins: BTreeSet<u64>,
}

trait SeenCoins: Default + Serialize + DeserializeOwned + 'static {
    fn coins(&mut self) -> &mut BTreeSet<u64>;
}

#[rustfmt::skip]
impl SeenCoins for Forgets { fn coins(&mut self) -> &mut BTreeSet<u64> { &mut self.coins } }
#[rustfmt::skip]
impl SeenCoins for Keeps { fn coins(&mut self) -> &mut BTreeSet<u64> { &mut self.coins } }

impl<S: SeenCoins> StateMachine for Account<S> {
    type Command = u64; // the number of a coin
    type Response = u64;

    async fn apply(&mut self, coin: u64, _: At) -> u64 {
        self.total += u64::from(self.seen.coins().insert(coin));
        self.total
    }
}

// --- The cluster: three hosts, and handles of the nodes that run on them.

struct Cluster<S: SeenCoins> {
    hosts: BTreeMap<u64, Host>,
    rafts: RefCell<BTreeMap<u64, Raft<Account<S>>>>,
}

impl<S: SeenCoins> Cluster<S> {
    fn address(&self, id: u64) -> String {
        format!("{}:7001", self.hosts[&id].ip())
    }

    /// Starts the nodes that do not run, each as a process of its host.
    fn start(self: &Rc<Self>) {
        for (&id, host) in self.hosts.iter().filter(|(_, host)| !host.is_running()) {
            let cluster = Rc::clone(self);
            host.start(async move |rt| {
                let outcome = cluster.serve(&rt, id).await;
                panic!("node {id} has ended: {outcome:?}"); // Nothing here should make it.
            });
        }
    }

    /// The service as it runs on `Tokio`. Only its limits are small, so that they are reached.
    async fn serve(&self, rt: &Sim, id: u64) -> quorate::Result<()> {
        let files = FileConfig { segment_bytes: 64 << 10, ..FileConfig::default() };
        let node = Node::builder(id)
            .log_store(FileStore::open_with(rt, "data", files).await?)
            .transport(TcpTransport::bind(rt, &self.address(id)).await?)
            .start(rt)
            .await?;
        let config = Config { snapshot_after_entries: 10, ..Config::default() };
        let raft = node.group(0).config(config).open(Account::default()).await?;
        let members = self.hosts.keys().map(|&id| (id, self.address(id)));
        let _is_formed_already = raft.initialize(members).await;
        self.rafts.borrow_mut().insert(id, raft.clone());
        Ok(raft.stopped().await?)
    }

    fn crash(&self, id: u64, how: Crash) {
        self.rafts.borrow_mut().remove(&id);
        self.hosts[&id].crash(how);
    }

    /// Puts a coin in, at any node, again and again until one says that it is done.
    async fn put(&self, rt: &Sim, draw: &Generator, coin: u64) {
        loop {
            rt.sleep(draw.duration(&(Duration::ZERO..10 * MOMENT))).await;
            let raft = self.rafts.borrow().get(&(1 + draw.below(3))).cloned();
            if let Some(raft) = raft
                && raft.write(coin).await.is_ok()
            {
                return;
            }
        }
    }
}

// --- The simulation: what is asked of the cluster, what goes wrong meanwhile, and what must hold.

/// A run, which is the same for the same seed. An error says what was violated.
fn run<S: SeenCoins>(seed: u64) -> Result<(), String> {
    let simulation = Simulation::new(seed);
    let hosts = (1..=3).map(|id| (id, simulation.host(format!("node-{id}")))).collect();
    let cluster = Rc::new(Cluster::<S> { hosts, rafts: RefCell::default() });
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
    while client.is_running() && simulation.now() < Duration::from_secs(60) {
        cluster.start();
        simulation.run_for(faults.duration(&(Duration::ZERO..40 * MOMENT)));
        let (id, other) = (1 + faults.below(3), 1 + faults.below(3));
        match faults.below(4) {
            0 => cluster.crash(id, Crash::Power),
            1 => cluster.crash(id, Crash::Process),
            2 => network.cut(cluster.hosts[&id].id(), cluster.hosts[&other].id()),
            _ => network.heal_all(),
        }
    }

    cluster.start();
    network.heal_all();
    let is_done = || !client.is_running() && cluster.rafts.borrow().len() == 3;
    if !simulation.run_until(Duration::from_secs(120), is_done) {
        return Err("all is well, and not all coins are taken by all nodes".to_owned());
    }
    let rafts = cluster.rafts.borrow().clone();
    for (id, raft) in rafts {
        let total = simulation.block_on(&client, async |rt| {
            loop {
                match raft.read(|account| account.total).await {
                    Ok(total) => return total,
                    Err(_) => rt.sleep(MOMENT).await, // There may be an election.
                }
            }
        });
        if total != Ok(COINS) {
            return Err(format!("node {id} has {total:?} of {COINS} coins"));
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the command line is not simulated")]
fn main() -> ExitCode {
    if let Some(seed) = std::env::args().nth(1).and_then(|seed| seed.parse().ok()) {
        println!("the first version, seed {seed}: {:?}", run::<Forgets>(seed));
        return ExitCode::SUCCESS;
    }
    let violated = (0..SEEDS).find_map(|seed| run::<Forgets>(seed).err().map(|what| (seed, what)));
    let Some((seed, violation)) = violated else {
        println!("the first version: no violation in {SEEDS} seeds");
        return ExitCode::FAILURE;
    };
    println!("the first version, seed {seed}: {violation}");
    assert_eq!(run::<Forgets>(seed), Err(violation), "a seed gives the same run each time");
    for seed in 0..SEEDS {
        if let Err(violation) = run::<Keeps>(seed) {
            println!("the repaired version, seed {seed}: {violation}");
            return ExitCode::FAILURE;
        }
    }
    println!("the repaired version: no violation in {SEEDS} seeds");
    ExitCode::SUCCESS
}
