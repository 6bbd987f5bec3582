//! Random interleavings: messages are lost, repeated and reordered, clocks differ, disks are slow,
//! nodes crash with some of their writes done; after every step the safety properties are checked,
//! and at the end, when all is well again, the cluster must work.
//!
//! `PROPTEST_CASES=5000` runs longer, `PROPTEST_RNG_SEED=1` finds other interleavings. A failure
//! shows the shortest one found.

use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use quorate_core::engine::Input;
use quorate_core::{Config, LogId, NodeId, Role};

use crate::cluster::Cluster;
use crate::show;

/// One step. A node is named by a number modulo the number of nodes, a link by one modulo the
/// number of busy links; a step that has nothing to do does nothing.
#[derive(Clone, Copy, Debug)]
enum Action {
    /// The node whose timer is next wakes.
    WakeNext,
    /// A node's timer goes off, however far away, and nobody else notices.
    Wake(u64),
    /// The oldest message on a link arrives.
    Deliver(usize),
    /// The oldest message on each link to a node arrives, in one turn.
    DeliverTogether(u64),
    /// The latest message on a link arrives first.
    Overtake(usize),
    Drop(usize),
    Repeat(usize),
    /// Some of a node's writes are done.
    Persist(u64, usize),
    Fetch(u64),
    Propose(u64),
    Read(u64),
    /// A node begins to write a snapshot of so many bytes.
    Build(u64, usize),
    /// It is written.
    Built(u64),
    Purge(u64),
    /// The next thing is done about a snapshot that comes in; sometimes it fails.
    Draft(u64, bool),
    /// A node crashes, the others write, take a snapshot and purge, and it starts again.
    LeaveBehind(u64),
    Crash(u64, usize),
    Start(u64),
    /// A node loses its disk, as long as a minority has lost theirs.
    Wipe(u64),
    /// Time passes and everything works, for so many ms.
    Run(u64),
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    // Any node of three or five, and any link between them.
    let node = || 0..15_u64;
    let link = || 0..60_usize;
    prop_oneof![
        8 => Just(WakeNext),
        1 => node().prop_map(Wake),
        40 => link().prop_map(Deliver),
        6 => node().prop_map(DeliverTogether),
        4 => link().prop_map(Overtake),
        4 => link().prop_map(Drop),
        4 => link().prop_map(Repeat),
        20 => (node(), 1..3_usize).prop_map(|(node, count)| Persist(node, count)),
        6 => node().prop_map(Fetch),
        8 => node().prop_map(Propose),
        4 => node().prop_map(Read),
        2 => (node(), 0..1000_usize).prop_map(|(node, bytes)| Build(node, bytes)),
        3 => node().prop_map(Built),
        1 => node().prop_map(Purge),
        1 => node().prop_map(LeaveBehind),
        12 => (node(), 0..20_u8).prop_map(|(node, dice)| Draft(node, dice == 0)),
        1 => (node(), 0..3_usize).prop_map(|(node, survivors)| Crash(node, survivors)),
        3 => node().prop_map(Start),
        1 => node().prop_map(Wipe),
        1 => (1..400_u64).prop_map(Run),
    ]
}

fn config() -> impl Strategy<Value = Config> {
    // Small limits, so that they are reached.
    let retained = prop_oneof![Just(0), 1..10_000_u64];
    (64..400_usize, 0..600_usize, 164..2000_usize, retained, 0..5000_u64).prop_map(
        |(append, inflight, uncommitted, retained, more)| Config {
            retained_bytes: retained,
            max_retained_bytes: retained + more,
            max_command_bytes: 100,
            max_append_bytes: append,
            max_inflight_bytes: append + inflight,
            max_uncommitted_bytes: uncommitted,
            ..Config::default()
        },
    )
}

fn perform(cluster: &mut Cluster, action: Action, commands: &mut u64) {
    let ids = cluster.ids();
    let node = |number: u64| ids[number as usize % ids.len()];
    let links = cluster.busy_links();
    let link = |number: usize| (!links.is_empty()).then(|| links[number % links.len()]);
    let up = |cluster: &Cluster, id: NodeId| cluster.engine(id).is_some();
    match action {
        Action::WakeNext => {
            let next = ids.iter().filter_map(|id| Some((cluster.wake_at(*id)?, *id))).min();
            if let Some((at, id)) = next {
                cluster.now = cluster.now.max(at);
                cluster.wake(id);
            }
        }
        Action::Wake(number) => {
            if let Some(at) = cluster.wake_at(node(number)) {
                cluster.now = cluster.now.max(at);
                cluster.wake(node(number));
            }
        }
        Action::Deliver(number) => {
            if let Some((from, to)) = link(number) {
                let message = cluster.take_message(from, to);
                cluster.arrive(message);
            }
        }
        Action::DeliverTogether(number) => {
            let to = node(number);
            if up(cluster, to) {
                let links = links.iter().filter(|link| link.1 == to);
                let messages = links.map(|(from, to)| cluster.take_message(*from, *to));
                let inputs: Vec<_> = messages.map(Input::Message).collect();
                cluster.step(to, inputs);
            }
        }
        Action::Overtake(number) => {
            if let Some((from, to)) = link(number) {
                let earlier: Vec<_> = (1..cluster.on_link(from, to))
                    .map(|_| cluster.take_message(from, to))
                    .collect();
                let latest = cluster.take_message(from, to);
                earlier.into_iter().for_each(|message| cluster.put_message(message, false));
                cluster.arrive(latest);
            }
        }
        Action::Drop(number) => {
            if let Some((from, to)) = link(number) {
                cluster.take_message(from, to);
            }
        }
        Action::Repeat(number) => {
            if let Some((from, to)) = link(number) {
                let message = cluster.take_message(from, to);
                cluster.put_message(message.clone(), true);
                // The second copy may come much later.
                cluster.put_message(message, number % 2 == 0);
            }
        }
        Action::Persist(number, count) => {
            if up(cluster, node(number)) {
                cluster.persist(node(number), count);
            }
        }
        Action::Fetch(number) => {
            if up(cluster, node(number)) {
                cluster.fetch(node(number));
            }
        }
        Action::Propose(number) => {
            if up(cluster, node(number)) {
                *commands += 1;
                let command = Bytes::from(format!("c{commands}"));
                cluster.propose(node(number), &[command]);
            }
        }
        Action::Read(number) => {
            if up(cluster, node(number)) {
                cluster.read(node(number));
            }
        }
        Action::Build(number, bytes) => {
            if up(cluster, node(number)) {
                cluster.build(node(number), bytes);
            }
        }
        Action::Built(number) => {
            if up(cluster, node(number)) {
                cluster.built(node(number));
            }
        }
        Action::Purge(number) => {
            if up(cluster, node(number)) {
                cluster.purge(node(number));
            }
        }
        Action::Draft(number, fails) => {
            if up(cluster, node(number)) {
                cluster.drafts_fail = fails;
                cluster.draft(node(number));
                cluster.drafts_fail = false;
            }
        }
        Action::LeaveBehind(number) => {
            let id = node(number);
            if up(cluster, id) {
                cluster.crash(id, 0);
                cluster.manual_fetches = false;
                cluster.run(Duration::from_secs(3));
                let leader = ids.iter().find(|other| leads(cluster, **other));
                if let Some(other) = leader {
                    *commands += 1;
                    let command = Bytes::from(format!("c{commands}"));
                    cluster.propose(*other, &[command]);
                    cluster.run(Duration::from_millis(50));
                    if cluster.build(*other, 500) {
                        while cluster.built(*other) {}
                        cluster.purge(*other);
                    }
                }
                cluster.manual_fetches = true;
                cluster.start(id);
            }
        }
        Action::Crash(number, survivors) => {
            if up(cluster, node(number)) {
                cluster.crash(node(number), survivors);
            }
        }
        Action::Start(number) => {
            if !up(cluster, node(number)) {
                cluster.start(node(number));
            }
        }
        Action::Wipe(number) => {
            // Before a majority of disks has the first entry, a minority of lost ones may be too
            // many.
            let formed = ids.iter().filter(|id| cluster.disk(**id).durable().last() != LogId::ZERO);
            let is_formed = 2 * formed.count() > ids.len();
            if is_formed && 2 * (cluster.lost_disks() + 1) < ids.len() {
                cluster.wipe(node(number));
            }
        }
        Action::Run(millis) => cluster.run(Duration::from_millis(millis)),
    }
}

fn leads(cluster: &Cluster, id: NodeId) -> bool {
    cluster.engine(id).is_some_and(|engine| engine.role() == Role::Leader)
}

/// When everything works again, a leader is found, a write is committed everywhere, and all logs
/// are equal.
fn recovers(cluster: &mut Cluster) {
    cluster.manual_fetches = false;
    for id in cluster.ids() {
        if cluster.engine(id).is_none() {
            cluster.start(id);
        }
        cluster.fetch(id);
        while cluster.draft(id) {}
    }
    // A lost disk is exchanged after ten election timeouts.
    cluster.run(Duration::from_secs(40));
    let status = |cluster: &Cluster, id| cluster.engine(id).map_or("down".into(), show::status);
    let all: Vec<_> = cluster.ids().into_iter().map(|id| status(cluster, id)).collect();
    let leader = cluster.ids().into_iter().find(|id| leads(cluster, *id));
    let leader = leader.unwrap_or_else(|| panic!("nobody leads: {all:#?}"));
    let last = b"last".to_vec();
    cluster.propose(leader, &[Bytes::from(last.clone())]);
    cluster.run(Duration::from_secs(1));
    assert!(cluster.safety.committed_commands().contains_key(&last), "no write is committed");
    let last = cluster.disk(leader).durable().last();
    for id in cluster.ids() {
        let engine = cluster.engine(id).expect("it is up");
        assert_eq!(engine.committed(), last.index, "node {id} lags behind");
        // What was purged is covered by a snapshot, which was checked when it was restored.
        for index in engine.purged().index + 1..=last.index {
            let expected = cluster.safety.committed_at(index).cloned();
            let log = cluster.disk(id).durable();
            assert_eq!(log.entry(index), expected.as_ref(), "the log of node {id} differs");
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how much to test is the caller's choice")]
fn check(nodes: u64, cases: u32) {
    let default = ProptestConfig::default();
    let cases = std::env::var_os("PROPTEST_CASES").map_or(cases, |_| default.cases);
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        rng_seed: match default.rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            given => given,
        },
        failure_persistence: None,
        ..default
    });
    let plan = (config(), any::<u32>(), prop::collection::vec(action(), 100..600));
    let installed = Cell::new(0);
    let outcome = runner.run(&plan, |(config, seed, actions)| {
        let ids: Vec<NodeId> = (1..=nodes).collect();
        let seeds: Vec<u64> = ids.iter().map(|id| u64::from(seed) * 10 + id).collect();
        let mut cluster = match seed % 3 {
            0 => Cluster::new(config, &ids, &seeds),
            _ => Cluster::formed(config, &ids, &seeds),
        };
        // The founder is told, and maybe others.
        for id in ids.iter().take(1 + seed as usize % ids.len()) {
            let begun = cluster.initialize(*id, cluster.list.clone());
            assert!(begun.is_ok(), "{begun:?}");
        }
        cluster.manual_fetches = true;
        let mut commands = 0;
        for action in actions {
            perform(&mut cluster, action, &mut commands);
        }
        recovers(&mut cluster);
        installed.set(installed.get() + cluster.installed);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let installed = installed.get();
    assert!(installed >= u64::from(cases) / 10, "only {installed} snapshots were installed");
}

#[test]
fn three_nodes_stay_safe_and_recover() {
    check(3, 120);
}

#[test]
fn five_nodes_stay_safe_and_recover() {
    check(5, 30);
}

/// Cold starts of all nodes at once (E9): whatever the seeds, a leader is found within a few
/// election timeouts.
#[test]
fn cold_starts_find_a_leader() {
    let mut slowest = Duration::ZERO;
    for seed in 0..200 {
        for nodes in [3, 5] {
            let ids: Vec<NodeId> = (1..=nodes).collect();
            // Timeouts that split votes often: everything takes 10 ms.
            let config = Config {
                heartbeat_interval: Duration::from_millis(10),
                election_timeout: Duration::from_millis(50),
                ..Config::default()
            };
            let seeds: Vec<u64> = ids.iter().map(|id| seed * 10 + id).collect();
            let mut cluster = Cluster::new(config, &ids, &seeds);
            cluster.form();
            let start = cluster.now;
            let led = |cluster: &Cluster| {
                let engines = ids.iter().filter_map(|id| cluster.engine(*id));
                engines.into_iter().any(|engine| engine.role() == Role::Leader)
            };
            cluster.run_until(start + Duration::from_secs(60), led);
            assert!(led(&cluster), "seed {seed}: no leader among {nodes}");
            slowest = slowest.max(cluster.now - start);
        }
    }
    assert!(slowest < Duration::from_millis(20 * 50), "the slowest took {slowest:?}");
}
