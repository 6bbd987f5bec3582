//! Limits hold, what they bound is given back, and nobody waits for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{join, join_all};
use quorate::codec::{APPEND_OVERHEAD_BYTES, MAX_SNAPSHOT_OVERHEAD_BYTES};
use quorate::{
    At, Body, Config, Executor, Fatal, LocalRaft, MemStore, Message, Network, NodeId, Raw,
    ReadError, StartError, StateMachine, TcpConfig, TcpTransport, WriteError,
};
use quorate_tests::{
    Cluster, Disk, FaultyStore, Journal, Single, on_each_runtime, quick, settle, wait_for,
};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    a_command_that_is_too_large_is_refused,
    writes_beyond_the_queue_are_busy_until_others_are_answered,
    writes_that_wait_for_room_are_written_in_order_within_the_limit,
    a_write_that_is_dropped_while_it_waits_for_room_is_not_written,
    who_waits_for_room_is_told_of_the_end,
    writes_that_wait_for_room_are_tried_again_where_the_leader_is_busy,
    reads_beyond_the_limit_are_busy_until_others_are_answered,
    what_is_not_awaited_any_more_is_given_back,
    writes_beyond_what_may_be_uncommitted_are_busy_until_that_is_durable,
    forwards_beyond_what_may_be_uncommitted_are_busy,
    a_forward_beyond_the_leader_s_limit_is_refused_with_the_reason,
    a_node_whose_messages_its_transport_cannot_carry_does_not_start,
    a_burst_through_a_follower_is_written_or_refused_and_never_unknown,
    a_peer_that_gets_no_entries_keeps_nobody_waiting,
    disks_that_hang_keep_nobody_waiting,
    a_full_disk_refuses_writes_until_there_is_space,
    a_leader_whose_disk_is_full_transfers_leadership_and_gets_on_when_there_is_space,
);

const LINE: usize = 1000;

fn line(n: usize) -> String {
    format!("{n:0LINE$}")
}

/// Nobody gives up before the test lets them.
fn patient() -> Config {
    Config { request_timeout: Duration::from_secs(3600), ..quick() }
}

/// Room for a few lines.
fn narrow(config: Config) -> Config {
    Config { max_command_bytes: 2 * LINE, max_queued_bytes: 5 * LINE, ..config }
}

async fn a_command_that_is_too_large_is_refused<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, narrow(quick())).await;
    let (local, shared) = (cluster.raft(1), cluster.node(1).raft());
    // A line of this length is encoded with three bytes more.
    let largest = "x".repeat(2 * LINE - 3);
    let larger = format!("{largest}x");
    for write in [local.write(larger.clone()).await, shared.write(larger).await] {
        let Err(WriteError::Command(reason)) = write else { panic!("{write:?}") };
        assert_eq!(reason, "it has 2001 bytes, 2000 are allowed");
    }
    local.write(largest.clone()).await.expect("is not too large");
    shared.write(largest.clone()).await.expect("is not too large");
    assert_eq!(cluster.journal(1).await, [largest.clone(), largest]);
}

async fn writes_beyond_the_queue_are_busy_until_others_are_answered<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 1, narrow(patient())).await;
    let (local, shared) = (cluster.raft(1), cluster.node(1).raft());
    let of_local: Vec<_> = (0..8).map(|n| local.write(line(n))).collect();
    let of_shared: Vec<_> = (0..8).map(|n| shared.write(line(n))).collect();
    // There is no leader, so they wait; forming the cluster lets them go.
    let forming = async {
        local.initialize([(1, "node-1")]).await.expect("forms");
    };
    let answers = join(join_all(of_local), join_all(of_shared));
    let ((of_local, of_shared), ()) = join(answers, forming).await;
    for answers in [of_local, of_shared] {
        let (taken, refused) = answers.split_at(4);
        assert!(taken.iter().all(Result::is_ok), "{taken:?}");
        let busy = |answer: &Result<_, _>| matches!(answer, Err(WriteError::Busy));
        assert!(refused.iter().all(busy), "{refused:?}");
    }
    for n in 0..8 {
        local.write(line(n)).await.expect("there is room again");
        shared.write(line(n)).await.expect("there is room again");
    }
    assert_eq!(cluster.journal(1).await.len(), 8 + 16);
}

/// Another thread may wait for it.
fn crosses<F: Future + Send>(write: F) -> F {
    write
}

async fn writes_that_wait_for_room_are_written_in_order_within_the_limit<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 1, narrow(patient())).await;
    let (local, shared) = (cluster.raft(1), cluster.node(1).raft());
    let mut of_local: Vec<_> = (0..20).map(|n| Box::pin(local.write_when_ready(line(n)))).collect();
    let mut of_shared: Vec<_> =
        (20..40).map(|n| Box::pin(crosses(shared.write_when_ready(line(n))))).collect();
    // There is no leader, so nothing gives room back.
    for write in &mut of_local {
        assert!(write.now_or_never().is_none());
    }
    for write in &mut of_shared {
        assert!(write.now_or_never().is_none());
    }
    assert!(
        matches!(local.write("small".to_owned()).await, Err(WriteError::Busy)),
        "no overtaking"
    );
    assert!(matches!(shared.write("small".to_owned()).await, Err(WriteError::Busy)));
    local.initialize([(1, "node-1")]).await.expect("forms");
    let answers = join(join_all(of_local), join_all(of_shared)).await;
    for answer in answers.0.into_iter().chain(answers.1) {
        answer.expect("is written");
    }
    local.write(line(40)).await.expect("nobody waits any more");
    shared.write(line(41)).await.expect("nobody waits any more");
    let journal = cluster.journal(1).await;
    for (of, handle) in [(0..20, "local"), (20..40, "shared")] {
        let written: Vec<_> =
            journal.iter().filter(|entry| of.clone().any(|n| line(n) == **entry)).collect();
        assert_eq!(
            written,
            of.map(line).collect::<Vec<_>>().iter().collect::<Vec<_>>(),
            "{handle}"
        );
    }
}

async fn a_write_that_is_dropped_while_it_waits_for_room_is_not_written<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 1, narrow(patient())).await;
    let raft = cluster.node(1).raft();
    let taken: Vec<_> = (0..4).map(|n| raft.write(line(n))).collect();
    let [mut dropped, mut kept] = [4, 5].map(|n| Box::pin(raft.write_when_ready(line(n))));
    assert!((&mut dropped).now_or_never().is_none() && (&mut kept).now_or_never().is_none());
    drop(dropped);
    raft.initialize([(1, "node-1")]).await.expect("forms");
    for write in taken {
        write.await.expect("is written");
    }
    kept.await.expect("is written");
    assert_eq!(cluster.journal(1).await, [0, 1, 2, 3, 5].map(line));
}

async fn who_waits_for_room_is_told_of_the_end<R: Executor>(rt: R) {
    let mut cluster = Cluster::start(&rt, 1, narrow(patient())).await;
    let (local, shared) = (cluster.raft(1), cluster.node(1).raft());
    let taken: Vec<_> = (0..4).map(|n| (local.write(line(n)), shared.write(line(n)))).collect();
    let mut one = Box::pin(local.write_when_ready(line(4)));
    let mut other = Box::pin(shared.write_when_ready(line(4)));
    assert!((&mut one).now_or_never().is_none() && (&mut other).now_or_never().is_none());
    cluster.crash(1);
    for waited in [one.await, other.await] {
        assert!(matches!(waited, Err(WriteError::Fatal(Fatal::Dropped))), "{waited:?}");
    }
    drop(taken);
}

async fn writes_that_wait_for_room_are_tried_again_where_the_leader_is_busy<R: Executor>(rt: R) {
    let config =
        Config { max_command_bytes: 2 * LINE, max_uncommitted_bytes: 5 * LINE, ..patient() };
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, config).await;
    let (local, shared) = (cluster.raft(1), cluster.node(1).raft());
    local.write("the disk works".to_owned()).await.expect("writes");
    cluster.stores[&1].set(Disk::Hangs);
    let of_local: Vec<_> = (0..8).map(|n| local.write_when_ready(line(n))).collect();
    let of_shared: Vec<_> = (0..8).map(|n| shared.write_when_ready(line(n))).collect();
    let works = async {
        // By now the leader has refused some.
        assert!(matches!(local.write(line(9)).await, Err(WriteError::Busy)));
        cluster.stores[&1].set(Disk::Works);
    };
    let ((of_local, of_shared), ()) =
        join(join(join_all(of_local), join_all(of_shared)), works).await;
    for answer in of_local.into_iter().chain(of_shared) {
        answer.expect("is written");
    }
    assert_eq!(cluster.journal(1).await.len(), 17);
}

async fn reads_beyond_the_limit_are_busy_until_others_are_answered<R: Executor>(rt: R) {
    let config = Config { max_pending_reads: 4, ..patient() };
    let cluster = Cluster::start(&rt, 1, config).await;
    let (local, shared) = (cluster.raft(1), cluster.node(1).raft());
    let len = |journal: &Journal| journal.entries.len();
    let of_local: Vec<_> = (0..8).map(|_| local.read(len)).collect();
    let of_shared: Vec<_> = (0..8).map(|_| shared.read(len)).collect();
    local.initialize([(1, "node-1")]).await.expect("forms");
    let answers = join_all(of_local).await;
    for answers in [answers, join_all(of_shared).await] {
        let (taken, refused) = answers.split_at(4);
        assert!(taken.iter().all(|answer| matches!(answer, Ok(0))), "{taken:?}");
        let busy = |answer: &Result<_, _>| matches!(answer, Err(ReadError::Busy));
        assert!(refused.iter().all(busy), "{refused:?}");
    }
    for _ in 0..8 {
        local.read(len).await.expect("there is room again");
        shared.read(len).await.expect("there is room again");
    }
}

async fn what_is_not_awaited_any_more_is_given_back<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 1, narrow(quick())).await;
    let raft = cluster.node(1).raft();
    for _ in 0..4 {
        drop(raft.write(line(0)));
    }
    let last = raft.write("last".to_owned());
    assert!(matches!(raft.write(line(0)).await, Err(WriteError::Busy)), "they are still queued");
    assert!(matches!(last.await, Err(WriteError::NotLeader { leader: None, .. })));
    raft.initialize([(1, "node-1")]).await.expect("forms");
    for n in 0..4 {
        raft.write(line(n)).await.expect("there is room again");
    }
    assert_eq!(cluster.journal(1).await.len(), 4, "what was refused has no effect");
}

async fn writes_beyond_what_may_be_uncommitted_are_busy_until_that_is_durable<R: Executor>(rt: R) {
    let config =
        Config { max_command_bytes: 2 * LINE, max_uncommitted_bytes: 5 * LINE, ..patient() };
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, config).await;
    let raft = cluster.raft(1);
    raft.write("the disk works".to_owned()).await.expect("writes");
    cluster.stores[&1].set(Disk::Hangs);
    let mut writes: Vec<_> = (0..8).map(|n| raft.write(line(n))).collect();
    for refused in writes.split_off(4) {
        assert!(matches!(refused.await, Err(WriteError::Busy)));
    }
    cluster.stores[&1].set(Disk::Works);
    for taken in writes {
        taken.await.expect("it is durable now");
    }
    raft.write(line(9)).await.expect("there is room again");
    assert_eq!(cluster.journal(1).await.len(), 6);
}

async fn forwards_beyond_what_may_be_uncommitted_are_busy<R: Executor>(rt: R) {
    let config =
        Config { max_command_bytes: 2 * LINE, max_uncommitted_bytes: 5 * LINE, ..patient() };
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, config).await;
    let (leader, raft) = follower(&cluster).await;
    for store in cluster.stores.values() {
        store.set(Disk::Hangs);
    }
    // One by one, for a forward is taken or refused as a whole.
    let (mut taken, mut busy) = (Vec::new(), 0);
    let of_leader = cluster.raft(leader);
    while busy == 0 {
        let before = of_leader.metrics().borrow().last_log_id.index;
        let mut write = Box::pin(raft.write(line(taken.len())));
        let mut metrics = of_leader.metrics();
        let placed = Box::pin(wait_for(&mut metrics, |m| m.last_log_id.index > before));
        match futures::future::select(&mut write, placed).await {
            futures::future::Either::Left((answer, _)) => {
                assert!(matches!(answer, Err(WriteError::Busy)), "{answer:?}");
                busy += 1;
            }
            futures::future::Either::Right(_) => taken.push(write),
        }
        assert!(taken.len() <= 5, "the limit is passed");
    }
    for store in cluster.stores.values() {
        store.set(Disk::Works);
    }
    let lines = taken.len();
    for write in taken {
        write.await.expect("writes");
    }
    raft.write(line(9)).await.expect("there is room again");
    assert_eq!(cluster.journal(leader).await.len(), lines + 2);
}

/// R19: what a peer passes on was held against the peer's limit, and the entry must fit everywhere.
async fn a_forward_beyond_the_leader_s_limit_is_refused_with_the_reason<R: Executor>(rt: R) {
    let mut cluster: Cluster<R, MemStore> = Cluster::formed(&rt, 3, narrow(patient())).await;
    let (leader, raft) = follower(&cluster).await;
    let id = raft.id();
    cluster.config = patient();
    cluster.restart(id).await;
    let raft = cluster.raft(id);
    let [small, large, next] = [1, 3, 1].map(|lines| raft.write("x".repeat(lines * LINE)));
    let Err(WriteError::Command(reason)) = large.await else { panic!("it is too large") };
    assert_eq!(reason, "it has 3003 bytes, 2000 are allowed");
    small.await.expect("is not too large");
    next.await.expect("is not too large");
    assert_eq!(cluster.journal(leader).await.len(), 3);
}

/// R19: of each pair of limits.
async fn a_node_whose_messages_its_transport_cannot_carry_does_not_start<R: Network>(rt: R) {
    const MIB: usize = 1 << 20;
    let start = async |max_frame_bytes, max_command_bytes, max_append_bytes| {
        let tcp = TcpConfig { max_frame_bytes, ..TcpConfig::default() };
        let tcp = TcpTransport::bind_with(&rt, "127.0.0.1:0", tcp).await.expect("binds");
        let config = Config { max_command_bytes, max_append_bytes, ..Config::default() };
        Single::start(&rt, 1, config, MemStore::new(), tcp, Journal::default()).await.map(drop)
    };
    let (command, chunk) = (MIB - APPEND_OVERHEAD_BYTES, MIB - MAX_SNAPSHOT_OVERHEAD_BYTES);
    start(MIB, command, chunk).await.expect("both fit");
    for (command, append, wrong) in
        [(command + 1, chunk, "max_command_bytes"), (command, chunk + 1, "max_append_bytes")]
    {
        let Err(StartError::Config(error)) = start(MIB, command, append).await else {
            panic!("it can't carry {wrong}")
        };
        assert_eq!(error.field, wrong);
        assert!(error.reason.contains("TcpConfig::max_frame_bytes"), "{error}");
    }
}

/// How many commands there were.
#[derive(Default, Serialize, Deserialize)]
struct Count(u64);

impl StateMachine for Count {
    type Command = Raw;
    type Response = u64;

    async fn apply(&mut self, _: Raw, _: At) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// Node of a cluster over TCP.
async fn serve<R: Network>(rt: &R, id: NodeId, store: &MemStore, at: &str) -> Served<R> {
    // No pause of the machine costs an election, and the log is purged as it grows.
    let config = Config {
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: Duration::from_secs(60),
        request_timeout: Duration::from_secs(60),
        snapshot_after_bytes: 8 << 20,
        retained_bytes: 0,
        ..Config::default()
    };
    let tcp = loop {
        match TcpTransport::bind(rt, at).await {
            Ok(tcp) => break tcp,
            // The one before is not quite gone.
            Err(_) => rt.sleep(Duration::from_millis(5)).await,
        }
    };
    let (store, transport) = (store.clone(), tcp.clone());
    let node = Single::start(rt, id, config, store, transport, Count::default()).await;
    (node.expect("starts"), tcp)
}

type Served<R> = (Single<Count>, TcpTransport<R>);

/// R20: 480 writes of 256 KiB at once, which are more than any outbox holds; and again right after
/// a restart, while the node connects to its leader.
async fn a_burst_through_a_follower_is_written_or_refused_and_never_unknown<R: Network>(rt: R) {
    let stores: Vec<_> = (1..=3).map(|_| MemStore::new()).collect();
    let mut nodes = Vec::new();
    for (id, store) in (1..).zip(&stores) {
        nodes.push(serve(&rt, id, store, "127.0.0.1:0").await);
    }
    let addresses: Vec<_> = nodes.iter().map(|(_, tcp)| tcp.local_addr().to_string()).collect();
    nodes[0].0.raft().initialize((1..).zip(addresses.clone())).await.expect("forms");
    let raft = nodes[0].0.local();
    let leader = wait_for(&mut raft.metrics(), |m| m.leader.is_some()).await.leader.expect("one");
    let at = (leader % 3) as usize; // Of another node.
    let burst = async |node: &Single<Count>| {
        let line = Bytes::from(vec![b'x'; 256 << 10]);
        let raft = node.local();
        let writes: Vec<_> = (0..480).map(|_| raft.write(Raw(line.clone()))).collect();
        let mut written = 0;
        for write in writes {
            match write.await {
                Ok(_) => written += 1,
                Err(WriteError::Busy) => {}
                Err(error) => panic!("after {written}: {error}"),
            }
        }
        assert!(written > 0);
        written
    };
    let mut written = burst(&nodes[at].0).await;
    let before = nodes.remove(at);
    drop(before);
    let node = serve(&rt, at as NodeId + 1, &stores[at], &addresses[at]).await;
    written += burst(&node.0).await;
    nodes.insert(at, node);
    let count = nodes[at].0.local().read(|count| count.0).await.expect("reads");
    assert_eq!(count, written);
    let dropped = nodes[at].0.local().metrics().borrow().dropped_messages;
    assert_eq!(dropped, nodes[at].1.stats().dropped_out);
}

/// The leader, and the handle of another node.
async fn follower<R: Executor, S>(cluster: &Cluster<R, S>) -> (NodeId, LocalRaft<Journal>)
where
    S: quorate::LogStore + Clone + Default,
{
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader % 3 + 1);
    raft.write("the cluster works".to_owned()).await.expect("writes");
    // What is forwarded doesn't wait behind anything.
    wait_for(&mut raft.metrics(), |m| m.applied == m.last_log_id.index).await;
    (leader, raft)
}

fn has_entries(message: &Message) -> bool {
    matches!(&message.body, Body::Append { entries, .. } if !entries.is_empty())
}

/// It hears its leader, and so it waits neither for one nor for its word.
async fn a_peer_that_gets_no_entries_keeps_nobody_waiting<R: Executor>(rt: R) {
    let cluster: Cluster<R, MemStore> = Cluster::formed(&rt, 3, quick()).await;
    let (leader, raft) = follower(&cluster).await;
    let away = raft.id();
    cluster.faults.lose(move |message| message.to.id == away && has_entries(message));
    cluster.raft(leader).write("missed".to_owned()).await.expect("writes");
    let read = raft.read(|journal| journal.entries.len());
    let write = raft.write("passed on".to_owned());
    let read = read.await;
    assert!(matches!(read, Err(ReadError::NotLeader { .. })), "{read:?}");
    let write = write.await;
    assert!(matches!(write, Err(WriteError::Unknown)), "{write:?}");

    cluster.faults.heal();
    let journal = loop {
        match raft.read(|journal| journal.entries.clone()).await {
            Ok(journal) => break journal,
            Err(ReadError::NotLeader { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(journal, ["the cluster works", "missed", "passed on"]);
}

async fn disks_that_hang_keep_nobody_waiting<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let others: BTreeSet<NodeId> = (1..=3).filter(|id| *id != leader).collect();
    raft.write("before".to_owned()).await.expect("writes");
    for other in &others {
        cluster.stores[other].set(Disk::Hangs);
    }
    let write = raft.write("unknown".to_owned()).await;
    assert!(matches!(write, Err(WriteError::Unknown)), "{write:?}");
    for other in &others {
        cluster.stores[other].set(Disk::Works);
    }
    while let Err(error) = cluster.raft(leader).write("after".to_owned()).await {
        assert!(matches!(error, WriteError::NotLeader { .. }), "{error}");
    }
    let journal = cluster.journal(leader).await;
    assert_eq!(journal.iter().filter(|line| *line == "unknown").count(), 1, "it was in the log");
}

/// A cluster of one: there is nobody to transfer leadership to. What was begun is completed in the
/// end.
async fn a_full_disk_refuses_writes_until_there_is_space<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, patient()).await;
    let (raft, store) = (cluster.raft(1), &cluster.stores[&1]);
    raft.write("before".to_owned()).await.expect("writes");
    store.set(Disk::Full);
    let waits = raft.write("waits".to_owned());
    while store.waiting() == 0 {
        settle(&rt).await;
    }
    store.tell_full();
    let mut metrics = raft.metrics();
    wait_for(&mut metrics, |metrics| metrics.storage_full).await;
    let why = metrics.borrow().hindrance().to_string();
    assert!(why.contains("the disk of node 1 is full"), "{why}");
    for refused in [raft.write("no".to_owned()).await, raft.shared().write("no".to_owned()).await] {
        assert!(matches!(refused, Err(WriteError::StorageFull)), "{refused:?}");
    }
    assert_eq!(cluster.journal(1).await, ["before"], "reads go on");
    store.set(Disk::Works);
    assert_eq!(waits.await.expect("there is space"), 2);
    wait_for(&mut metrics, |metrics| !metrics.storage_full).await;
    assert_eq!(raft.write("after".to_owned()).await.expect("writes"), 3);
    assert_eq!(cluster.journal(1).await, ["before", "waits", "after"]);
}

async fn a_leader_whose_disk_is_full_transfers_leadership_and_gets_on_when_there_is_space<
    R: Executor,
>(
    rt: R,
) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let (raft, store) = (cluster.raft(leader), &cluster.stores[&leader]);
    store.set(Disk::Full);
    raft.write("waits".to_owned()).await.expect("the others have space");
    store.tell_full();
    let mut metrics = raft.metrics();
    wait_for(&mut metrics, |metrics| metrics.storage_full).await;
    wait_for(&mut metrics, |metrics| metrics.leader.is_some_and(|other| other != leader)).await;
    // Its clients are served by the next one.
    raft.write("served".to_owned()).await.expect("the leader has space");
    assert!(metrics.borrow().storage_full);
    assert_eq!(cluster.journal(leader).await, ["waits", "served"]);
    store.set(Disk::Works);
    wait_for(&mut metrics, |metrics| !metrics.storage_full).await;
    let durable = cluster.raft(leader).metrics().borrow().last_log_id.index;
    wait_for(&mut metrics, |metrics| metrics.durable >= durable).await;
}
