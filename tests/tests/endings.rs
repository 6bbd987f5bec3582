//! How nodes end, and what becomes of those who wait for them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, future};
use quorate::{
    At, Body, Config, Executor, Fatal, GroupState, HardState, InitializeError, LocalNetwork,
    LogStore, MemStore, Message, Metrics, Node, ReadError, Replica, Role, SnapshotError,
    StateMachine, StoreError, Term, WriteError,
};
use quorate_tests::{
    Cluster, Disk, FaultyStore, Journal, Single, on_each_runtime, quick, wait_for,
};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    a_dropped_node_does_nothing_more,
    a_node_restarts_on_the_transport_of_its_former_life,
    who_waits_for_a_leader_is_told_of_the_shutdown,
    who_comes_while_a_node_stops_is_told_at_once,
    who_waits_for_a_leader_is_told_of_the_failure,
    who_forms_a_cluster_is_told_of_the_failure,
    who_asks_a_node_that_has_just_failed_is_told_of_it,
    a_failing_disk_stops_its_node_and_no_other,
    a_forgotten_write_stops_its_node,
    a_log_that_cannot_be_read_for_a_peer_stops_its_node,
    a_store_that_panics_for_a_peer_stops_its_node,
    a_panic_while_applying_names_the_index,
    a_panic_of_a_read_reaches_its_caller_and_nobody_else,
    a_read_may_use_its_node,
    a_handle_made_after_the_end_knows_it,
    a_handle_on_another_thread_shuts_the_node_down_in_order,
    a_handle_shuts_the_node_down_though_its_group_has_ended,
    a_handle_that_shuts_down_a_node_that_has_ended_is_told_how,
    the_last_metrics_of_a_leader_that_stops_say_so,
    the_last_metrics_of_a_leader_that_fails_say_why,
    the_last_metrics_of_a_leader_that_is_dropped_say_so,
);

/// A node that was told to form a cluster of three, of which nobody else is there.
async fn lonely<R: Executor, S: LogStore>(
    rt: &R,
    store: S,
    config: Config,
) -> (Single<Journal>, LocalNetwork) {
    let network = LocalNetwork::new();
    let node = Single::start(rt, 1, config, store, network.transport(), Journal::default())
        .await
        .expect("starts");
    (node, network)
}

/// Of a later term, which the node has to write down.
fn of_a_later_term(node: &Single<Journal>) -> Message {
    let to = node.local().metrics().borrow().replica;
    let (from, body) = (Replica::new(2, 1), Body::VoteReply { granted: false, attempt: 0 });
    Message { group: 0, cluster: None, from, to, term: Term(8), body }
}

/// A state machine that panics at a number.
#[derive(Default, Serialize, Deserialize)]
struct Fuse(u64);

const BLOWS: u64 = 13;

impl StateMachine for Fuse {
    type Command = u64;
    type Response = u64;

    async fn apply(&mut self, add: u64, _: At) -> u64 {
        assert_ne!(add, BLOWS, "the fuse has blown");
        self.0 += add;
        self.0
    }
}

/// All of these are applied in one batch, and it is the third which ends the node.
async fn a_panic_while_applying_names_the_index<R: Executor>(rt: R) {
    let network = LocalNetwork::new();
    let node = Single::start(
        &rt,
        1,
        Config::default(),
        MemStore::new(),
        network.transport(),
        Fuse::default(),
    )
    .await
    .expect("starts");
    let raft = node.local();
    raft.initialize([(1, "here")]).await.expect("forms");
    raft.write(1).await.expect("writes");
    let before = raft.metrics().borrow().last_log_id.index;
    let writes = [1, 2, BLOWS, 4].map(|add| raft.write(add));
    let outcomes = future::join_all(writes).await;
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    let fatal = node.stopped().await.expect_err("it has failed").to_string();
    assert!(fatal.contains("the fuse has blown"), "{fatal}");
    assert!(fatal.contains(&format!("the entry at index {}", before + 3)), "{fatal}");
}

/// Times enough for all that can run now to have run.
async fn settle<R: Executor>(rt: &R) {
    for _ in 0..20 {
        rt.spawn(async {}).await.expect("ends");
    }
}

/// What was on its way to it must not reach the store, on which the next node goes on.
async fn a_dropped_node_does_nothing_more<R: Executor>(rt: R) {
    let store = MemStore::new();
    let (node, _network) = lonely(&rt, store.clone(), Config::default()).await;
    settle(&rt).await;
    node.local().deliver(of_a_later_term(&node));
    drop(node);
    let before = store.inspect(0).hard_state;
    settle(&rt).await;
    let after = store.inspect(0).hard_state;
    assert_eq!((before, after), (HardState::default(), HardState::default()));
}

async fn a_node_restarts_on_the_transport_of_its_former_life<R: Executor>(rt: R) {
    let network = LocalNetwork::new();
    let mut nodes = Vec::new();
    let mut parts = Vec::new();
    let start = async |id, store: &MemStore, transport: &_| {
        let (store, transport) = (store.clone(), Clone::clone(transport));
        let node = Single::start(&rt, id, quick(), store, transport, Journal::default()).await;
        node.expect("starts")
    };
    for id in 1..=3 {
        let part = (MemStore::new(), network.transport());
        nodes.push(start(id, &part.0, &part.1).await);
        parts.push(part);
    }
    let members = [1, 2, 3].map(|id| (id, format!("node-{id}")));
    nodes[0].local().initialize(members).await.expect("forms");
    nodes[0].local().write("before".to_owned()).await.expect("writes");

    drop(nodes.remove(0));
    let node = start(1, &parts[0].0, &parts[0].1).await;
    node.local().write("after".to_owned()).await.expect("the node hears its peers");
    let read = node.local().read(|journal| journal.entries.clone()).await;
    assert_eq!(read.expect("reads"), ["before", "after"]);
}

async fn who_waits_for_a_leader_is_told_of_the_shutdown<R: Executor>(rt: R) {
    let (node, _network) = lonely(&rt, MemStore::new(), Config::default()).await;
    let (local, raft) = (node.local(), node.raft());
    let writes = [local.write("a".to_owned()), local.write("b".to_owned())];
    let shared = raft.write("c".to_owned());
    let read = raft.read(|_| ());
    settle(&rt).await;
    node.shutdown().await.expect("stops");
    for write in writes {
        let write = write.await;
        assert!(matches!(write, Err(WriteError::Shutdown)), "{write:?}");
    }
    assert!(matches!(shared.await, Err(WriteError::Shutdown)));
    assert!(matches!(read.await, Err(ReadError::Shutdown)));
}

async fn who_comes_while_a_node_stops_is_told_at_once<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    // It would wait for long for what it has begun.
    let config = Config { request_timeout: Duration::from_secs(3600), ..quick() };
    let (node, _network) = lonely(&rt, store.clone(), config).await;
    let (local, raft) = (node.local(), node.raft());
    local.initialize([(1, "node-1")]).await.expect("forms");
    local.write("before".to_owned()).await.expect("writes");
    store.set(Disk::Hangs);
    let begun = local.write("begun".to_owned());
    wait_for(&mut local.metrics(), |metrics| metrics.last_log_id.index == 4).await;
    let mut stopping = Box::pin(node.shutdown());
    assert!((&mut stopping).now_or_never().is_none());
    let (write, read) = (local.write("late".to_owned()), raft.read(|_| ()));
    let (snapshot, purge) = (raft.snapshot(), local.purge());
    assert!(matches!(write.await, Err(WriteError::Shutdown)));
    assert!(matches!(read.await, Err(ReadError::Shutdown)));
    assert!(matches!(snapshot.await, Err(SnapshotError::Shutdown)));
    assert!(matches!(purge.await, Err(SnapshotError::Shutdown)));
    assert!((&mut stopping).now_or_never().is_none(), "it still waits for the disk");
    store.set(Disk::Works);
    assert_eq!(begun.await.expect("what has begun is brought to its end"), 2);
    stopping.await.expect("stops");
}

async fn who_waits_for_a_leader_is_told_of_the_failure<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    let config = Config { request_timeout: Config::default().request_timeout * 100, ..quick() };
    let (node, _network) = lonely(&rt, store.clone(), config).await;
    let raft = node.raft();
    let (write, read) = (raft.write("a".to_owned()), raft.read(|_| ()));
    settle(&rt).await;
    store.set(Disk::FailsWrites);
    raft.deliver(of_a_later_term(&node));
    let stopped = node.stopped().await;
    assert!(matches!(stopped, Err(Fatal::Store(StoreError::Io { .. }))), "{stopped:?}");
    let write = write.await;
    assert!(matches!(write, Err(WriteError::Fatal(Fatal::Store(_)))), "{write:?}");
    let read = read.await;
    assert!(matches!(read, Err(ReadError::Fatal(Fatal::Store(_)))), "{read:?}");
}

async fn who_forms_a_cluster_is_told_of_the_failure<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    store.set(Disk::FailsWrites);
    let (node, _network) = lonely(&rt, store, quick()).await;
    let formed = node.local().initialize([(1, "node-1")]).await;
    assert!(matches!(formed, Err(InitializeError::Fatal(Fatal::Store(_)))), "{formed:?}");
}

/// It doesn't know yet when they ask.
async fn who_asks_a_node_that_has_just_failed_is_told_of_it<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    let (node, _network) = lonely(&rt, store.clone(), quick()).await;
    let (local, raft) = (node.local(), node.raft());
    store.set(Disk::Hangs);
    let message = of_a_later_term(&node);
    raft.deliver(message.clone());
    wait_for(&mut raft.metrics(), |metrics| metrics.term == Term(8)).await;
    store.fail_held();
    let (write, read) = (local.write("a".to_owned()), raft.read(|_| ()));
    let (snapshot, purge) = (local.snapshot(), raft.purge());
    let forming = future::join(local.initialize([(1, "a")]), raft.initialize([(1, "b")]));
    raft.deliver(message);
    let formed = forming.await;
    let (Err(InitializeError::Fatal(_)), Err(InitializeError::Fatal(_))) = formed else {
        panic!("{formed:?}")
    };
    assert!(matches!(write.await, Err(WriteError::Fatal(Fatal::Store(_)))));
    assert!(matches!(read.await, Err(ReadError::Fatal(Fatal::Store(_)))));
    assert!(matches!(snapshot.await, Err(SnapshotError::Fatal(Fatal::Store(_)))));
    assert!(matches!(purge.await, Err(SnapshotError::Fatal(Fatal::Store(_)))));
}

async fn a_failing_disk_stops_its_node_and_no_other<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, quick()).await;
    let failing = cluster.leader().await;
    let raft = cluster.node(failing).raft();
    raft.write("before".to_owned()).await.expect("writes");
    cluster.stores[&failing].set(Disk::FailsWrites);
    let write = raft.write("unknown".to_owned()).await;
    assert!(matches!(write, Err(WriteError::Unknown)), "{write:?}");
    let stopped = cluster.node(failing).stopped().await;
    assert!(matches!(stopped, Err(Fatal::Store(StoreError::Io { .. }))), "{stopped:?}");
    let write = raft.write("refused".to_owned()).await;
    assert!(matches!(write, Err(WriteError::Fatal(Fatal::Store(_)))), "{write:?}");
    assert!(matches!(raft.read(|_| ()).await, Err(ReadError::Fatal(Fatal::Store(_)))));
    assert!(matches!(raft.metrics().borrow().state, GroupState::Failed(Fatal::Store(_))));

    let other = failing % 3 + 1;
    let others = cluster.raft(other);
    wait_for(&mut others.metrics(), |m| m.leader.is_some_and(|leader| leader != failing)).await;
    others.write("after".to_owned()).await.expect("writes");
    let mut journal = cluster.journal(other).await;
    // It may have reached the others before it failed here, or not.
    journal.retain(|line| line != "unknown");
    assert_eq!(journal, ["before", "after"]);
}

async fn a_forgotten_write_stops_its_node<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, quick()).await;
    cluster.stores[&1].set(Disk::ForgetsWrites);
    let write = cluster.raft(1).write("a".to_owned()).await;
    assert!(matches!(write, Err(WriteError::Unknown)), "{write:?}");
    let stopped = cluster.node(1).stopped().await;
    assert!(matches!(stopped, Err(Fatal::Store(StoreError::Abandoned))), "{stopped:?}");
}

/// The cause of the end of a leader whose disk does this when a peer needs old entries.
async fn end_of_a_leader_with<R: Executor>(rt: &R, disk: Disk) -> Fatal {
    let mut cluster = Cluster::<R, FaultyStore>::formed_on(rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    cluster.crash(away);
    let raft = cluster.raft(leader);
    raft.write("a".to_owned()).await.expect("writes");
    // Nothing is left to be applied, so that only the peer needs the log.
    wait_for(&mut raft.metrics(), |m| m.applied == m.last_log_id.index).await;
    cluster.stores[&leader].set(disk);
    cluster.restart(away).await;
    cluster.node(leader).stopped().await.expect_err("it has failed")
}

async fn a_log_that_cannot_be_read_for_a_peer_stops_its_node<R: Executor>(rt: R) {
    let cause = end_of_a_leader_with(&rt, Disk::FailsReads).await;
    assert!(matches!(cause, Fatal::Store(StoreError::Io { .. })), "{cause:?}");
}

async fn a_store_that_panics_for_a_peer_stops_its_node<R: Executor>(rt: R) {
    let cause = end_of_a_leader_with(&rt, Disk::PanicsInReads).await.to_string();
    assert!(cause.contains("the store panics"), "{cause}");
}

async fn a_panic_of_a_read_reaches_its_caller_and_nobody_else<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, quick()).await;
    let (local, raft) = (cluster.raft(1), cluster.node(1).raft());
    raft.write("a".to_owned()).await.expect("writes");
    let read = local.read(|_| -> usize { panic!("a bad read") });
    let panic = rt.spawn(read).await.expect_err("it panics").to_string();
    assert!(panic.contains("a bad read"), "{panic}");
    let read = raft.read(|_| -> usize { panic!("a bad read") });
    let panic = rt.spawn(read).await.expect_err("it panics").to_string();
    assert!(panic.contains("a bad read"), "{panic}");
    assert_eq!(raft.read(|journal| journal.entries.len()).await.expect("reads"), 1);
    raft.write("b".to_owned()).await.expect("the node goes on");
}

/// A read runs on the node's thread, from where everything of the node can be reached.
async fn a_read_may_use_its_node<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, quick()).await;
    let raft = cluster.raft(1);
    let of_read = raft.clone();
    let write = raft.read(move |journal| of_read.write(format!("after {}", journal.entries.len())));
    assert_eq!(write.await.expect("reads").await.expect("writes"), 1);

    let (node, _network) = lonely(&rt, MemStore::new(), quick()).await;
    let raft = node.local();
    raft.initialize([(1, "node-1")]).await.expect("forms");
    wait_for(&mut raft.metrics(), |metrics| metrics.role == Role::Leader).await;
    let node = Rc::new(node);
    let last = Rc::clone(&node);
    let read = raft.read(move |_| drop(last));
    let other = raft.write("beside it".to_owned());
    drop(node);
    read.await.expect("reads");
    // Whether it was begun before is of no matter; it is answered.
    let _ = other.await;
    let refused = raft.write("b".to_owned()).await;
    assert!(matches!(refused, Err(WriteError::Fatal(Fatal::Dropped))), "{refused:?}");
}

async fn a_handle_made_after_the_end_knows_it<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    store.set(Disk::FailsWrites);
    let (node, _network) = lonely(&rt, store, quick()).await;
    let _ = node.local().initialize([(1, "node-1")]).await;
    node.stopped().await.expect_err("it has failed");
    assert!(matches!(node.raft().write("a".to_owned()).await, Err(WriteError::Fatal(_))));
    assert!(matches!(node.local().read(|_| ()).await, Err(ReadError::Fatal(_))));
    let formed = node.raft().initialize([(1, "node-1")]).await;
    assert!(matches!(formed, Err(InitializeError::Fatal(_))), "{formed:?}");
}

/// Ends a node that leads. Gives what its group tells in the end, and the error of a write then.
async fn last_words<R: Executor>(
    rt: &R,
    store: FaultyStore,
    end: impl AsyncFnOnce(Single<Journal>),
) -> (Arc<Metrics>, WriteError) {
    let (node, _network) = lonely(rt, store, quick()).await;
    let raft = node.raft();
    raft.initialize([(1, "node-1")]).await.expect("forms");
    raft.write("it leads".to_owned()).await.expect("writes");
    let mut metrics = raft.metrics();
    let before = metrics.borrow();
    assert!(before.state.is_running() && before.leader == Some(1), "{before:?}");
    end(node).await;
    while metrics.changed().await.is_ok() {}
    let last = metrics.borrow();
    assert_eq!((last.role, last.leader, last.term), (Role::Follower, None, before.term));
    (last, raft.write("late".to_owned()).await.expect_err("it has ended"))
}

async fn the_last_metrics_of_a_leader_that_stops_say_so<R: Executor>(rt: R) {
    let stop = async |node: Single<Journal>| node.shutdown().await.expect("stops");
    let (last, refused) = last_words(&rt, FaultyStore::default(), stop).await;
    assert!(matches!(last.state, GroupState::Stopped), "{}", last.state);
    assert!(matches!(refused, WriteError::Shutdown), "{refused}");
}

async fn the_last_metrics_of_a_leader_that_fails_say_why<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    let fails = store.clone();
    let fail = async |node: Single<Journal>| {
        fails.set(Disk::FailsWrites);
        node.raft().write("it fails".to_owned()).await.expect_err("it fails");
        node.stopped().await.expect_err("it has failed");
    };
    let (last, refused) = last_words(&rt, store, fail).await;
    assert!(matches!(last.state, GroupState::Failed(Fatal::Store(_))), "{}", last.state);
    assert!(matches!(refused, WriteError::Fatal(Fatal::Store(_))), "{refused}");
}

async fn the_last_metrics_of_a_leader_that_is_dropped_say_so<R: Executor>(rt: R) {
    let (last, refused) = last_words(&rt, FaultyStore::default(), async |node| drop(node)).await;
    assert!(matches!(last.state, GroupState::Failed(Fatal::Dropped)), "{}", last.state);
    assert!(refused.to_string().contains("the node was dropped"), "{refused}");
}

async fn a_handle_on_another_thread_shuts_the_node_down_in_order<R: Executor>(rt: R) {
    let network = LocalNetwork::new();
    let node = Node::builder(1)
        .log_store(MemStore::new())
        .transport(network.transport())
        .start(&rt)
        .await
        .expect("starts");
    let mut writes = Vec::new();
    for group in [1, 2] {
        let raft = node.group(group).config(quick()).open(Journal::default()).await.expect("opens");
        raft.initialize([(1, "node-1")]).await.expect("forms");
        writes.push(raft.write("begun before".to_owned()));
    }
    let raft = node.find::<Journal>(1).expect("is open").shared();
    settle(&rt).await;
    let elsewhere = rt.spawn_blocking(move || block_on(raft.shutdown()));
    node.stopped().await.expect("in order");
    elsewhere.await.expect("ends").expect("in order");
    for write in writes {
        write.await.expect("what has begun is brought to its end");
    }
    assert!(node.groups().is_empty());
}

async fn a_handle_shuts_the_node_down_though_its_group_has_ended<R: Executor>(rt: R) {
    let network = LocalNetwork::new();
    let node = Node::builder(1)
        .log_store(MemStore::new())
        .transport(network.transport())
        .start(&rt)
        .await
        .expect("starts");
    let raft = node.group(1).open(Journal::default()).await.expect("opens");
    let other = node.group(2).open_local(Journal::default()).await.expect("opens");
    node.stop(1).await;
    raft.shutdown().await.expect("in order");
    other.stopped().await.expect("it was stopped with the node");
    other.shutdown().await.expect("it has ended in order before");
}

async fn a_handle_that_shuts_down_a_node_that_has_ended_is_told_how<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    store.set(Disk::FailsWrites);
    let (node, _network) = lonely(&rt, store, quick()).await;
    let raft = node.raft();
    let _ = raft.initialize([(1, "node-1")]).await;
    let cause = raft.shutdown().await;
    assert!(matches!(cause, Err(Fatal::Store(_))), "{cause:?}");

    let (node, _network) = lonely(&rt, MemStore::new(), quick()).await;
    let (local, shared) = (node.local(), node.raft());
    let waits = shared.shutdown(); // It has not begun to stop when it is dropped.
    drop(node);
    for outcome in [waits.await, shared.shutdown().await, local.shutdown().await] {
        assert!(matches!(outcome, Err(Fatal::Dropped)), "{outcome:?}");
    }
}
