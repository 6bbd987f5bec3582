//! A node with several groups: they are opened, found, stopped and opened again. What becomes of
//! one is no matter of the others.

use futures::future::{join_all, select};
use futures::{FutureExt, pin_mut};
use quorate::rt::Files;
use quorate::sim::Sim;
use quorate::{
    At, Executor, Fatal, FileConfig, FileStore, GroupState, InitializeError, LocalNetwork,
    LocalRaft, LocalTransport, LogStore, MemStore, Node, Recovered, Standing, StartError,
    StateMachine, StoreError, WriteError,
};
use quorate_tests::{Disk, FaultyStore, Journal, on_each_runtime, quick, run, settle};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    groups_have_logs_and_state_machines_of_their_own,
    a_group_lives_without_handles,
    a_group_is_opened_once,
    a_group_that_was_stopped_is_opened_again,
    a_group_knows_its_members_as_soon_as_it_is_opened,
    a_group_whose_state_machine_fails_ends_alone,
    a_store_that_fails_ends_all_groups,
    a_node_that_stops_waits_for_all_groups,
    a_dropped_node_answers_for_all_groups,
    a_group_that_is_written_to_without_a_pause_holds_up_no_other,
    two_nodes_open_a_group_of_one_store_only_one_after_the_other,
    a_removed_group_is_empty,
    a_removed_group_stays_removed_on_disk,
    a_group_that_is_not_open_is_removed,
    a_group_that_is_being_opened_or_removed_is_not_removed,
    a_group_is_removed_while_a_snapshot_of_it_is_written,
);

async fn started<R: Executor, S: LogStore>(rt: &R, store: S) -> Node<R, S, LocalTransport> {
    let builder = Node::builder(1).log_store(store).transport(LocalNetwork::new().transport());
    builder.start(rt).await.expect("starts")
}

/// Opens a group, which this node forms alone.
async fn formed<R: Executor, S: LogStore, SM: StateMachine>(
    node: &Node<R, S, LocalTransport>,
    group: u64,
    state_machine: SM,
) -> LocalRaft<SM> {
    let raft = node.group(group).config(quick()).open_local(state_machine).await.expect("opens");
    raft.initialize([(1, "here")]).await.expect("forms");
    raft
}

async fn lines(raft: &LocalRaft<Journal>) -> Vec<String> {
    raft.read(|journal| journal.entries.clone()).await.expect("reads")
}

/// Counts, and panics at zero.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Fuse(u64);

impl StateMachine for Fuse {
    type Command = u64;
    type Response = u64;

    async fn apply(&mut self, number: u64, _: At) -> u64 {
        assert!(number > 0, "the fuse has blown");
        self.0 += number;
        self.0
    }
}

async fn groups_have_logs_and_state_machines_of_their_own<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let mut rafts = Vec::new();
    for group in 1..=64 {
        rafts.push(formed(&node, group, Journal::default()).await);
    }
    let fuse = formed(&node, 1 << 60, Fuse::default()).await;
    let writes = rafts.iter().map(|raft| raft.write(format!("of {}", raft.group())));
    for written in join_all(writes).await {
        assert_eq!(written.expect("writes"), 1);
    }
    assert_eq!(fuse.write(7).await.expect("writes"), 7);
    for raft in &rafts {
        assert_eq!(lines(raft).await, [format!("of {}", raft.group())]);
    }
    let mut ids: Vec<_> = (1..=64).collect();
    ids.push(1 << 60);
    assert_eq!(node.groups(), ids);
}

async fn a_group_lives_without_handles<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let raft = formed(&node, 3, Journal::default()).await;
    raft.write("a".to_owned()).await.expect("writes");
    drop(raft);
    settle(&rt).await;
    assert!(node.find::<Fuse>(3).is_none(), "its state machine is another");
    assert!(node.find::<Journal>(4).is_none(), "there is none");
    let found = node.find::<Journal>(3).expect("it is open");
    assert_eq!(found.write("b".to_owned()).await.expect("writes"), 2);
    assert_eq!((found.id(), found.group()), (1, 3));
}

async fn a_group_is_opened_once<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let twice = (0..2).map(|_| node.group(5).config(quick()).open_local(Journal::default()));
    let mut opened = join_all(twice).await;
    let (first, second) = (opened.remove(0), opened.remove(0));
    assert!(matches!(second, Err(StartError::GroupIsOpen(5))), "{second:?}");
    let first = first.expect("opens");
    first.initialize([(1, "here")]).await.expect("forms");
    let again = node.group(5).open(Fuse::default()).await;
    assert!(matches!(again, Err(StartError::GroupIsOpen(5))), "{again:?}");
    first.write("a".to_owned()).await.expect("the first one is not disturbed");
}

async fn a_group_that_was_stopped_is_opened_again<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let (one, two) =
        (formed(&node, 1, Journal::default()).await, formed(&node, 2, Journal::default()).await);
    for round in 1..=3 {
        let raft = node.find::<Journal>(1).expect("it is open");
        let stopped = raft.stopped();
        raft.write(format!("{round}")).await.expect("writes");
        node.stop(1).await;
        stopped.await.expect("it stops in order");
        let refused = raft.write("late".to_owned()).await;
        assert!(matches!(refused, Err(WriteError::Shutdown)), "{refused:?}");
        assert_eq!(two.write("on".to_owned()).await.expect("writes"), round);
        assert_eq!(node.groups(), [2]);
        let again = formed(&node, 1, Journal::default()).await;
        assert_eq!(lines(&again).await.len(), round, "all that was written is there");
    }
    one.stopped().await.expect("the handle is of the first run");
    node.stop(7).await; // There is none, and so nothing to wait for.
}

/// A service decides by it whether it is to form the group.
async fn a_group_knows_its_members_as_soon_as_it_is_opened<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let opens = || node.group(1).config(quick()).open_local(Journal::default());
    let raft = opens().await.expect("opens");
    assert!(raft.metrics().borrow().membership.is_none());
    raft.initialize([(1, "here")]).await.expect("forms");
    node.stop(1).await;
    let raft = opens().await.expect("opens");
    let founders = raft.metrics().borrow().membership.as_ref().map(|of| of.founders().clone());
    assert_eq!(founders, Some([1].into()));
    assert!(!raft.metrics().borrow().removed);
}

async fn a_group_whose_state_machine_fails_ends_alone<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let fuse = formed(&node, 1, Fuse::default()).await;
    let other = formed(&node, 2, Journal::default()).await;
    let waiting = other.write("a".to_owned());
    let blown = fuse.write(0).await;
    assert!(matches!(blown, Err(WriteError::Unknown)), "{blown:?}");
    let Err(Fatal::Bug(reason)) = fuse.stopped().await else { panic!("another end") };
    assert!(reason.contains("the fuse has blown"), "{reason}");
    waiting.await.expect("the other one goes on");
    assert_eq!(other.write("b".to_owned()).await.expect("writes"), 2);
    assert_eq!(node.groups(), [2]);
    assert!(node.stopped().now_or_never().is_none(), "the node goes on");
    // With a program that is mended it is opened again.
    let mended = node.group(1).config(quick()).open_local(Mended::default()).await.expect("opens");
    assert_eq!(mended.write(5).await.expect("writes"), 5);
    node.shutdown().await.expect("stops");
}

/// As [`Fuse`], but for the panic.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mended(u64);

impl StateMachine for Mended {
    type Command = u64;
    type Response = u64;

    async fn apply(&mut self, number: u64, _: At) -> u64 {
        self.0 += number;
        self.0
    }
}

async fn a_store_that_fails_ends_all_groups<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    let node = started(&rt, store.clone()).await;
    let rafts = [
        formed(&node, 1, Journal::default()).await,
        formed(&node, 2, Journal::default()).await,
        formed(&node, 3, Journal::default()).await,
    ];
    store.set(Disk::FailsWrites);
    let written = rafts[1].write("a".to_owned()).await;
    assert!(matches!(written, Err(WriteError::Unknown)), "{written:?}");
    for raft in &rafts {
        assert!(matches!(raft.stopped().await, Err(Fatal::Store(_))));
        let state = &raft.metrics().borrow().state;
        assert!(matches!(state, GroupState::Failed(Fatal::Store(_))), "{state}");
    }
    assert!(matches!(node.stopped().await, Err(Fatal::Store(_))));
    let opened = node.group(4).open(Journal::default()).await;
    assert!(matches!(opened, Err(StartError::Fatal(Fatal::Store(_)))), "{opened:?}");
}

async fn a_node_that_stops_waits_for_all_groups<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let mut rafts = Vec::new();
    for group in 1..=8 {
        rafts.push(formed(&node, group, Journal::default()).await);
    }
    let writes: Vec<_> = rafts.iter().map(|raft| raft.write("a".to_owned())).collect();
    // It has no leader, and its request waits for one until the node stops.
    let lonely = node.group(9).config(quick()).open(Journal::default()).await.expect("opens");
    let parked = lonely.write("b".to_owned());
    settle(&rt).await;
    node.shutdown().await.expect("stops");
    for write in writes {
        assert_eq!(write.await.expect("what has begun is brought to its end"), 1);
    }
    let parked = parked.await;
    assert!(matches!(parked, Err(WriteError::Shutdown)), "{parked:?}");
    for raft in rafts {
        raft.stopped().await.expect("in order");
    }
}

async fn a_dropped_node_answers_for_all_groups<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let one = formed(&node, 1, Journal::default()).await;
    let two = formed(&node, 2, Fuse::default()).await;
    let writes = (one.write("a".to_owned()), two.write(1));
    drop(node);
    let (written, counted) = (writes.0.await, writes.1.await);
    assert!(
        matches!(written, Err(WriteError::Fatal(Fatal::Dropped) | WriteError::Unknown)),
        "{written:?}"
    );
    assert!(
        matches!(counted, Err(WriteError::Fatal(Fatal::Dropped) | WriteError::Unknown)),
        "{counted:?}"
    );
    assert!(matches!(one.stopped().await, Err(Fatal::Dropped)));
    assert!(matches!(two.stopped().await, Err(Fatal::Dropped)));
}

/// The hot one always has thousands of writes waiting, each of which is followed by another.
async fn a_group_that_is_written_to_without_a_pause_holds_up_no_other<R: Executor>(rt: R) {
    const CLIENTS: usize = 10_000;
    let node = started(&rt, MemStore::new()).await;
    let hot = formed(&node, 1, Fuse::default()).await;
    let quiet = formed(&node, 2, Fuse::default()).await;
    let clients = join_all((0..CLIENTS).map(async |_| {
        loop {
            hot.write(1).await.expect("writes");
        }
    }));
    let ten = async {
        for _ in 0..10 {
            quiet.write(1).await.expect("writes");
        }
        hot.read(|fuse| fuse.0).await.expect("reads")
    };
    pin_mut!(ten);
    let seen = match select(clients, ten).await {
        futures::future::Either::Right((seen, _)) => seen,
        futures::future::Either::Left(_) => unreachable!("the clients never end"),
    };
    // Ten writes one after the other take ten turns and some; so many turns of the hot one have
    // passed, and not as many as would empty its queue of 10,000 each time.
    assert!(seen < 20 * CLIENTS as u64, "{seen} hot writes were before ten others");
}

/// The second node hears which group it is, and opens it as soon as the first one has let it go,
/// however that was.
async fn two_nodes_open_a_group_of_one_store_only_one_after_the_other<R: Executor>(rt: R) {
    let store = MemStore::new();
    let first = started(&rt, store.clone()).await;
    let raft = formed(&first, 5, Journal::default()).await;
    raft.write("a".to_owned()).await.expect("writes");
    let second = started(&rt, store.clone()).await;
    let opens = || second.group(5).config(quick()).open_local(Journal::default());
    let refused = opens().await.expect_err("it is open elsewhere");
    assert!(matches!(refused, StartError::Store(StoreError::GroupInUse(5))), "{refused}");
    assert!(refused.to_string().contains("group 5"), "{refused}");
    assert!(second.groups().is_empty(), "its place in the table is free");
    let refused = second.remove(5).await.expect_err("it is open elsewhere");
    assert!(matches!(refused, StartError::Store(StoreError::GroupInUse(5))), "{refused}");
    raft.write("b".to_owned()).await.expect("the first one is not disturbed");

    first.stop(5).await;
    assert_eq!(lines(&opens().await.expect("it was stopped")).await, ["a", "b"]);
    let again = first.group(5).config(quick()).open_local(Journal::default()).await;
    let refused = again.expect_err("it is the second one's now");
    assert!(matches!(refused, StartError::Store(StoreError::GroupInUse(5))), "{refused}");
    drop(second);
    let again = first.group(5).config(quick()).open_local(Journal::default()).await;
    assert_eq!(lines(&again.expect("the other node has crashed")).await, ["a", "b"]);
}

async fn a_removed_group_is_empty<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    let other = formed(&node, 2, Journal::default()).await;
    other.write("kept".to_owned()).await.expect("writes");
    let raft = formed(&node, 1, Journal::default()).await;
    raft.write("a".to_owned()).await.expect("writes");
    raft.snapshot().await.expect("is taken");
    let stopped = raft.stopped();
    node.remove(1).await.expect("is removed");
    stopped.await.expect("it was stopped in order");
    for _ in 0..3 {
        // It has forgotten what it promised, so it is part of nothing any more.
        let raft = node.group(1).config(quick()).open_local(Journal::default()).await;
        let raft = raft.expect("opens");
        let metrics = raft.metrics().borrow().clone();
        assert!(metrics.removed && metrics.membership.is_none());
        let refused = raft.initialize([(1, "here")]).await;
        assert!(matches!(refused, Err(InitializeError::Spent)), "{refused:?}");
        node.remove(1).await.expect("is removed");
        assert_eq!(node.groups(), [2]);
        node.remove(1).await.expect("there is nothing to remove");
    }
    // One that has never begun can still be anything.
    node.group(3).config(quick()).open_local(Journal::default()).await.expect("opens");
    node.remove(3).await.expect("is removed");
    assert!(lines(&formed(&node, 3, Journal::default()).await).await.is_empty());
    assert_eq!(lines(&other).await, ["kept"]);
    let refused = node.remove(u64::MAX).await;
    assert!(matches!(refused, Err(StartError::GroupId)), "{refused:?}");
}

async fn a_removed_group_stays_removed_on_disk<R: Files>(rt: R) {
    let dir = tempfile::tempdir().expect("a directory");
    let opens = async || FileStore::open(&rt, dir.path()).await.expect("opens");
    let node = started(&rt, opens().await).await;
    for group in 1..=3 {
        let raft = formed(&node, group, Journal::default()).await;
        raft.write(format!("of {group}")).await.expect("writes");
    }
    node.remove(2).await.expect("is removed");
    node.shutdown().await.expect("stops");

    let node = started(&rt, opens().await).await;
    let mut rafts = Vec::new();
    for group in [1, 3] {
        let raft = node.group(group).config(quick()).open_local(Journal::default()).await;
        rafts.push(raft.expect("opens"));
        assert_eq!(lines(rafts.last().expect("was pushed")).await, [format!("of {group}")]);
    }
    for _ in 0..2 {
        let raft = node.group(2).config(quick()).open_local(Journal::default()).await;
        let raft = raft.expect("opens");
        assert!(raft.metrics().borrow().removed);
        let refused = raft.initialize([(1, "here")]).await;
        assert!(matches!(refused, Err(InitializeError::Spent)), "{refused:?}");
        node.remove(2).await.expect("is removed");
    }
}

async fn a_group_that_is_not_open_is_removed<R: Executor>(rt: R) {
    let store = MemStore::new();
    let node = started(&rt, store.clone()).await;
    formed(&node, 1, Journal::default()).await.write("a".to_owned()).await.expect("writes");
    formed(&node, 2, Journal::default()).await;
    node.stop(1).await;
    assert_ne!(store.inspect(1), Recovered::default());
    node.remove(1).await.expect("is removed");
    let left = Recovered { standing: Standing::Spent, ..Recovered::default() };
    assert_eq!(store.inspect(1), left);
    assert_ne!(store.inspect(2), Recovered::default());
    node.remove(7).await.expect("the store has never heard of it");
    assert_eq!(node.groups(), [2]);
}

async fn a_group_that_is_being_opened_or_removed_is_not_removed<R: Executor>(rt: R) {
    let node = started(&rt, MemStore::new()).await;
    formed(&node, 1, Journal::default()).await;
    let mut twice = join_all((0..2).map(|_| node.remove(1))).await;
    let (first, second) = (twice.remove(0), twice.remove(0));
    // Whichever comes first after the group has stopped.
    let refused = match (first, second) {
        (Ok(()), refused) | (refused, Ok(())) => refused,
        both => panic!("nobody has removed it: {both:?}"),
    };
    assert!(matches!(refused, Ok(()) | Err(StartError::GroupIsOpen(1))), "{refused:?}");
    let raft = node.group(1).config(quick()).open_local(Journal::default()).await.expect("opens");
    assert!(raft.metrics().borrow().removed);
}

/// Its draft is dropped with the task that writes it, which may be after the group has ended.
async fn a_group_is_removed_while_a_snapshot_of_it_is_written<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    let node = started(&rt, store.clone()).await;
    let raft = formed(&node, 1, Journal::default()).await;
    raft.write("a".to_owned()).await.expect("writes");
    store.set(Disk::HoldsDrafts);
    let snapshot = raft.snapshot();
    settle(&rt).await;
    assert_eq!(store.open(), 1, "it is being written");
    node.remove(1).await.expect("is removed");
    assert_eq!(store.open(), 0);
    assert!(snapshot.await.is_err());
    let left = Recovered { standing: Standing::Spent, ..Recovered::default() };
    assert_eq!(store.inspect(1), left);
}

/// An operator removes a group from a node whose disk is full, as its entries have no space.
#[test]
fn a_group_whose_entries_wait_for_space_is_removed() {
    run::<Sim>(async |rt| {
        let config = FileConfig { segment_bytes: 64 << 10, ..FileConfig::default() };
        let store = FileStore::open_with(&rt, "/store", config.clone()).await.expect("opens");
        let node = started(&rt, store).await;
        let large = formed(&node, 1, Journal::default()).await;
        let other = formed(&node, 2, Journal::default()).await;
        other.write("kept".to_owned()).await.expect("writes");
        let line = || "much".repeat(3000);
        for _ in 0..20 {
            large.write(line()).await.expect("writes");
        }
        rt.host().disk().fill();
        let stopped = large.stopped();
        // Until its entries wait, each write takes some of the space that was allocated.
        let writes = join_all((0..20).map(|_| large.write(line())));
        let removes = async {
            let mut metrics = large.metrics();
            while !metrics.borrow().storage_full {
                metrics.changed().await.expect("it runs");
            }
            node.remove(1).await.expect("is removed");
        };
        let (outcomes, ()) = futures::join!(writes, removes);
        assert!(outcomes.last().is_some_and(Result::is_err), "the last ones waited");
        stopped.await.expect("it was stopped in order");
        assert_eq!(node.groups(), [2]);
        // Its segments were enough.
        for _ in 0..5 {
            other.write("more".to_owned()).await.expect("writes");
        }
        node.shutdown().await.expect("stops in order");
        let store = FileStore::open_with(&rt, "/store", config).await.expect("opens");
        let left = Recovered { standing: Standing::Spent, ..Recovered::default() };
        assert_eq!(store.recover(1).await.expect("is there"), left);
        let again = started(&rt, store).await;
        let other = again.group(2).config(quick()).open_local(Journal::default()).await;
        assert_eq!(lines(&other.expect("opens")).await.len(), 6);
    });
}
