//! Snapshots of a node's own state: when they are taken, what a restart makes of them, and what
//! goes on while one is written or fails.

use std::cell::Cell;
use std::rc::Rc;

use futures::FutureExt;
use futures::future::join_all;
use quorate::{
    At, Config, Executor, Fatal, Index, LocalNetwork, LocalRaft, LogId, LogStore, Metrics,
    Snapshot, SnapshotError, SnapshotReader, SnapshotWriter, StateMachine, StoreError,
};
use quorate_tests::{
    Cluster, Disk, FaultyStore, Journal, Single, on_each_runtime, quick, settle, wait_for,
};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    a_snapshot_is_taken_after_so_many_entries,
    a_snapshot_is_taken_after_so_many_bytes,
    the_policy_waits_for_the_one_that_is_written,
    a_restart_replays_from_the_snapshot_and_what_it_replays_counts,
    a_snapshot_is_taken_by_hand_on_any_node,
    the_log_is_purged_by_hand,
    who_wants_a_snapshot_meanwhile_shares_the_next_one,
    applying_and_heartbeats_go_on_while_a_snapshot_is_written,
    a_snapshot_that_fails_is_told_of_and_the_node_goes_on,
    a_snapshot_that_fails_by_policy_is_not_tried_again_at_once,
    a_failed_snapshot_fails_those_who_wait_for_it_and_no_others,
    what_is_wrong_with_a_state_machine_is_told_of,
    a_snapshot_that_cannot_be_read_back_stands_for_nothing,
    a_state_that_serde_cannot_read_back_keeps_its_log,
    a_snapshot_that_the_disk_does_not_give_back_stands_for_nothing,
    a_panic_while_a_snapshot_is_written_stops_the_node_with_the_cause,
    a_snapshot_that_makes_no_sense_stops_the_node_with_the_cause,
    a_snapshot_that_is_not_what_was_written_stops_the_node_with_the_cause,
    a_snapshot_is_not_told_of_before_it_is_durable,
    nothing_waits_for_a_snapshot_at_the_end,
    who_waits_for_a_snapshot_is_told_of_the_failure,
);

const LINE: usize = 1000;

fn line(n: usize) -> String {
    format!("{n:0LINE$}")
}

fn lines(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(line).collect()
}

async fn write(raft: &LocalRaft<Journal>, range: std::ops::Range<usize>) {
    for n in range {
        raft.write(line(n)).await.expect("writes");
    }
}

/// A snapshot whenever more than ten entries were applied, and nothing kept behind it.
fn every_ten() -> Config {
    Config { snapshot_after_entries: 10, retained_bytes: 0, ..quick() }
}

async fn snapshot_at(raft: &LocalRaft<Journal>, index: Index) -> Metrics {
    wait_for(&mut raft.metrics(), |metrics| metrics.snapshot.index >= index).await
}

/// The first two entries of a cluster are its membership and the blank one of its leader.
const BEFORE_WRITES: Index = 2;

async fn a_snapshot_is_taken_after_so_many_entries<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, every_ten()).await;
    let raft = cluster.raft(1);
    write(&raft, 0..8).await;
    settle(&rt).await;
    assert_eq!(raft.metrics().borrow().snapshot, LogId::ZERO, "ten are not more than ten");
    write(&raft, 8..9).await;
    let metrics = snapshot_at(&raft, 1).await;
    assert_eq!((metrics.snapshot.index, metrics.purged.index), (11, 11));
    write(&raft, 9..19).await;
    settle(&rt).await;
    assert_eq!(raft.metrics().borrow().snapshot.index, 11);
    write(&raft, 19..20).await;
    let metrics = snapshot_at(&raft, 12).await;
    assert_eq!((metrics.snapshot.index, metrics.purged.index), (22, 22));
}

async fn a_snapshot_is_taken_after_so_many_bytes<R: Executor>(rt: R) {
    let config = Config { snapshot_after_bytes: 5 * LINE as u64, ..quick() };
    let cluster = Cluster::formed(&rt, 1, config).await;
    let raft = cluster.raft(1);
    write(&raft, 0..4).await;
    settle(&rt).await;
    assert_eq!(raft.metrics().borrow().snapshot, LogId::ZERO);
    write(&raft, 4..5).await;
    let metrics = snapshot_at(&raft, 1).await;
    assert_eq!(metrics.snapshot.index, BEFORE_WRITES + 5);
    assert_eq!(metrics.purged, LogId::ZERO, "so little is kept for peers that are a bit behind");
}

async fn the_policy_waits_for_the_one_that_is_written<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, every_ten()).await;
    let (raft, store) = (cluster.raft(1), &cluster.stores[&1]);
    store.set(Disk::HoldsDrafts);
    write(&raft, 0..40).await;
    settle(&rt).await;
    assert_eq!(store.drafts_begun(), 1);
    store.set(Disk::Works);
    store.release();
    // The one that was held ends at 11; the next is due at once, and covers all.
    let last = BEFORE_WRITES + 40;
    assert_eq!(snapshot_at(&raft, 12).await.snapshot.index, last);
    assert_eq!(store.drafts_begun(), 2);
}

async fn a_restart_replays_from_the_snapshot_and_what_it_replays_counts<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 1, every_ten()).await;
    write(&cluster.raft(1), 0..25).await;
    snapshot_at(&cluster.raft(1), 22).await;
    cluster.restart(1).await;
    let raft = cluster.raft(1);
    let (entries, applied) =
        raft.read(|journal| (journal.entries.clone(), journal.applied)).await.expect("reads");
    assert_eq!(entries, lines(0..25));
    assert_eq!(applied, 5, "entries 23 to 27");
    // These, the new leader's blank one, and five more.
    write(&raft, 25..29).await;
    settle(&rt).await;
    assert_eq!(raft.metrics().borrow().snapshot.index, 22);
    write(&raft, 29..30).await;
    assert_eq!(snapshot_at(&raft, 23).await.snapshot.index, 33);
    cluster.restart(1).await;
    assert_eq!(cluster.journal(1).await, lines(0..30));
}

async fn a_snapshot_is_taken_by_hand_on_any_node<R: Executor>(rt: R) {
    let mut cluster = Cluster::start(&rt, 3, quick()).await;
    let too_early = cluster.raft(1).snapshot().await;
    assert!(matches!(too_early, Err(SnapshotError::Nothing)), "{too_early:?}");
    assert_eq!(cluster.raft(1).purge().await.expect("nothing to purge"), LogId::ZERO);
    cluster.raft(1).initialize(cluster.members()).await.expect("forms");
    write(&cluster.raft(1), 0..5).await;
    for id in 1..=3 {
        assert_eq!(cluster.journal(id).await, lines(0..5), "so node {id} has applied all");
        let (local, shared) = (cluster.raft(id), cluster.node(id).raft());
        let taken = local.snapshot().await.expect("is taken");
        assert_eq!(taken, local.metrics().borrow().last_log_id);
        assert_eq!(shared.snapshot().await.expect("is there"), taken, "nothing has changed");
        assert_eq!(local.metrics().borrow().snapshot, taken);
        let recovered = cluster.stores[&id].inspect(0);
        let snapshot = recovered.snapshot.expect("it is the group's");
        assert_eq!(snapshot.log_id, taken);
        assert_eq!(snapshot.membership_index, 1);
        assert_eq!(snapshot.membership.nodes(), cluster.members());
    }
    for id in 1..=3 {
        cluster.restart(id).await;
        let snapshot = cluster.raft(id).snapshot().await.expect("is there from before");
        assert!(snapshot.index >= BEFORE_WRITES + 5);
    }
    for id in 1..=3 {
        let read = cluster.raft(id).read(|journal| (journal.entries.len(), journal.applied));
        assert_eq!(read.await.expect("reads"), (5, 0), "node {id}");
    }
}

async fn the_log_is_purged_by_hand<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 1, quick()).await;
    let raft = cluster.raft(1);
    write(&raft, 0..5).await;
    assert_eq!(raft.purge().await.expect("there is no snapshot"), LogId::ZERO);
    let snapshot = raft.snapshot().await.expect("is taken");
    assert_eq!(raft.metrics().borrow().purged, LogId::ZERO);
    assert!(cluster.stores[&1].read(0, 1..2, 1).await.is_ok());
    assert_eq!(cluster.node(1).raft().purge().await.expect("purges"), snapshot);
    assert_eq!(raft.metrics().borrow().purged, snapshot);
    assert_eq!(raft.purge().await.expect("purges nothing more"), snapshot);
    let read = cluster.stores[&1].read(0, 1..2, 1).await;
    assert!(matches!(read, Err(StoreError::Missing(1))), "{read:?}");
    write(&raft, 5..7).await;
    cluster.restart(1).await;
    assert_eq!(cluster.journal(1).await, lines(0..7));
}

async fn who_wants_a_snapshot_meanwhile_shares_the_next_one<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, quick()).await;
    let (raft, store) = (cluster.raft(1), &cluster.stores[&1]);
    write(&raft, 0..3).await;
    store.set(Disk::HoldsDrafts);
    let first = [raft.snapshot(), raft.snapshot()];
    settle(&rt).await;
    store.set(Disk::Works);
    write(&raft, 3..6).await;
    let second = [raft.snapshot(), raft.snapshot()];
    settle(&rt).await;
    assert_eq!(store.drafts_begun(), 1, "one is written at a time");
    store.release();
    for taken in join_all(first).await {
        assert_eq!(taken.expect("is taken").index, BEFORE_WRITES + 3);
    }
    for taken in join_all(second).await {
        assert_eq!(taken.expect("is taken").index, BEFORE_WRITES + 6);
    }
    assert_eq!(store.drafts_begun(), 2);
}

async fn applying_and_heartbeats_go_on_while_a_snapshot_is_written<R: Executor>(rt: R) {
    let mut cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    write(&raft, 0..3).await;
    cluster.stores[&leader].set(Disk::HoldsDrafts);
    let mut snapshot = Box::pin(raft.snapshot());
    let term = raft.metrics().borrow().term;
    // For longer than its followers would wait for it.
    let until = rt.now() + 3 * cluster.config.election_timeout;
    let mut written = 3;
    while rt.now() < until {
        write(&raft, written..written + 1).await;
        written += 1;
        rt.sleep(cluster.config.heartbeat_interval).await;
    }
    assert_eq!(cluster.journal(leader).await, lines(0..written));
    assert_eq!(raft.metrics().borrow().term, term, "it still leads");
    assert!((&mut snapshot).now_or_never().is_none(), "it is still being written");
    cluster.stores[&leader].set(Disk::Works);
    cluster.stores[&leader].release();
    let taken = snapshot.await.expect("is taken");
    assert_eq!(taken.index, BEFORE_WRITES + 3, "what was applied since is not in it");
    // And indeed not: the others are applied again.
    cluster.restart(leader).await;
    let read = cluster.raft(leader).read(|journal| (journal.entries.clone(), journal.applied));
    assert_eq!(read.await.expect("reads"), (lines(0..written), written - 3));
}

async fn a_snapshot_that_fails_is_told_of_and_the_node_goes_on<R: Executor>(rt: R) {
    let mut cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, quick()).await;
    let raft = cluster.raft(1);
    let mut written = 0;
    for disk in [Disk::FailsDrafts, Disk::FailsChunks, Disk::FailsFinishes] {
        cluster.stores[&1].set(disk);
        write(&raft, written..written + 1).await;
        written += 1;
        let before = raft.metrics().borrow().snapshot;
        let failed = raft.snapshot().await;
        let is_io = |error: &_| matches!(error, SnapshotError::Store(StoreError::Io { .. }));
        assert!(failed.as_ref().is_err_and(is_io), "{disk:?}: {failed:?}");
        assert_eq!(cluster.stores[&1].open(), 0, "{disk:?}: what was begun is discarded");
        write(&raft, written..written + 1).await;
        written += 1;
        let metrics = raft.metrics().borrow().clone();
        assert!(metrics.snapshot_error.as_ref().is_some_and(is_io), "{disk:?}: {metrics:?}");
        assert_eq!(metrics.snapshot, before);

        cluster.stores[&1].set(Disk::Works);
        let taken = raft.snapshot().await.expect("is taken");
        let metrics = raft.metrics().borrow().clone();
        assert!(metrics.snapshot_error.is_none(), "{disk:?}: {metrics:?}");
        assert_eq!(metrics.snapshot, taken);
    }
    cluster.restart(1).await;
    assert_eq!(cluster.journal(1).await, lines(0..written));
}

async fn a_snapshot_that_fails_by_policy_is_not_tried_again_at_once<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, every_ten()).await;
    let (raft, store) = (cluster.raft(1), &cluster.stores[&1]);
    store.set(Disk::FailsDrafts);
    write(&raft, 0..9).await;
    wait_for(&mut raft.metrics(), |metrics| metrics.snapshot_error.is_some()).await;
    write(&raft, 9..19).await;
    settle(&rt).await;
    assert_eq!(store.drafts_begun(), 1);
    store.set(Disk::Works);
    write(&raft, 19..20).await;
    let metrics = snapshot_at(&raft, 1).await;
    assert_eq!(metrics.snapshot.index, 22);
    wait_for(&mut raft.metrics(), |metrics| metrics.snapshot_error.is_none()).await;
}

async fn a_failed_snapshot_fails_those_who_wait_for_it_and_no_others<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, quick()).await;
    let (raft, store) = (cluster.raft(1), &cluster.stores[&1]);
    write(&raft, 0..3).await;
    store.set(Disk::HoldsDrafts);
    let first = raft.snapshot();
    settle(&rt).await;
    write(&raft, 3..6).await;
    let second = raft.snapshot();
    settle(&rt).await;
    store.set(Disk::Works);
    store.fail_held();
    let first = first.await;
    assert!(matches!(first, Err(SnapshotError::Store(_))), "{first:?}");
    assert_eq!(second.await.expect("is another one").index, BEFORE_WRITES + 6);
}

/// What a state machine does about snapshots.
#[derive(Clone, Copy, Default)]
enum Mood {
    #[default]
    Good,
    HasNoView,
    FailsInWrite,
    PanicsInView,
    PanicsInWrite,
    WritesNonsense,
    LeavesSomeUnread,
    ReadsTooMuch,
    PanicsInRestore,
}

/// Its state is eight bytes, whatever is applied.
#[derive(Clone, Default)]
struct Moody(Rc<Cell<Mood>>);

impl StateMachine for Moody {
    type Command = String;
    type Response = ();

    async fn apply(&mut self, _: String, _: At) {}
}

impl Snapshot for Moody {
    type View = Mood;

    fn view(&self) -> Result<Mood, SnapshotError> {
        match self.0.get() {
            Mood::HasNoView => Err(SnapshotError::state_machine("not now")),
            Mood::PanicsInView => panic!("no view"),
            mood => Ok(mood),
        }
    }

    async fn write(mood: Mood, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        to.write(b"half").await?;
        match mood {
            Mood::FailsInWrite => Err(SnapshotError::state_machine("not now")),
            Mood::PanicsInWrite => panic!("no writing"),
            Mood::WritesNonsense => to.write(b"none").await,
            _ => to.write(b"half").await,
        }
    }

    async fn check(from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        match &from.read(8).await?[..] {
            b"halfhalf" => Ok(()),
            _ => Err(SnapshotError::state_machine("nonsense")),
        }
    }

    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        let bytes = match self.0.get() {
            Mood::LeavesSomeUnread => 4,
            Mood::ReadsTooMuch => 9,
            Mood::PanicsInRestore => panic!("no restoring"),
            _ => 8,
        };
        from.read(bytes).await.map(|_| ())
    }
}

async fn moody<R: Executor>(rt: &R, store: &FaultyStore, state: &Moody) -> Single<Moody> {
    Single::start(rt, 1, quick(), store.clone(), LocalNetwork::new().transport(), state.clone())
        .await
        .expect("starts")
}

/// A node alone, with something applied.
async fn formed_moody<R: Executor>(rt: &R, store: &FaultyStore, state: &Moody) -> Single<Moody> {
    let node = moody(rt, store, state).await;
    node.local().initialize([(1, "node-1")]).await.expect("forms");
    node.local().write("a".to_owned()).await.expect("writes");
    node
}

async fn what_is_wrong_with_a_state_machine_is_told_of<R: Executor>(rt: R) {
    let (store, state) = (FaultyStore::default(), Moody::default());
    let raft = formed_moody(&rt, &store, &state).await;
    let raft = raft.local();
    for mood in [Mood::HasNoView, Mood::FailsInWrite] {
        state.0.set(mood);
        raft.write("b".to_owned()).await.expect("writes");
        let failed = raft.snapshot().await.map_err(|error| error.to_string());
        assert_eq!(failed, Err("the state machine's snapshot: not now".to_owned()));
        assert!(raft.metrics().borrow().snapshot_error.is_some());
        assert_eq!(store.open(), 0);
    }
    state.0.set(Mood::Good);
    raft.snapshot().await.expect("is taken");
    for (mood, cause) in [(Mood::PanicsInView, "no view"), (Mood::PanicsInWrite, "no writing")] {
        let (store, state) = (FaultyStore::default(), Moody::default());
        let node = formed_moody(&rt, &store, &state).await;
        state.0.set(mood);
        let failed = node.raft().snapshot().await.map_err(|error| error.to_string());
        assert!(failed.as_ref().is_err_and(|error| error.contains(cause)), "{failed:?}");
        let ended = node.stopped().await;
        assert!(matches!(ended, Err(Fatal::Bug(_))), "{ended:?}");
    }
}

async fn a_snapshot_that_cannot_be_read_back_stands_for_nothing<R: Executor>(rt: R) {
    let (store, state) = (FaultyStore::default(), Moody::default());
    let node = formed_moody(&rt, &store, &state).await;
    let raft = node.local();
    let before = raft.snapshot().await.expect("is taken");
    raft.write("b".to_owned()).await.expect("writes");
    state.0.set(Mood::WritesNonsense);
    let failed = raft.snapshot().await.map_err(|error| error.to_string());
    assert_eq!(failed, Err("the state machine's snapshot: nonsense".to_owned()));
    let metrics = raft.metrics().borrow().clone();
    assert!(metrics.snapshot_error.is_some());
    assert_eq!(metrics.snapshot, before, "the one before is the group's");
    raft.purge().await.expect("purges");
    assert_eq!(raft.metrics().borrow().purged, before, "nothing is purged behind it");
    drop(node);
    // The next start finds the one before, and the log.
    let node = moody(&rt, &store, &state).await;
    node.local().read(|_| ()).await.expect("it has a state");
    state.0.set(Mood::Good);
    assert!(node.local().snapshot().await.expect("is taken") > before);
}

/// It can be written and not read: what is left out has no default.
#[derive(Default, Serialize, Deserialize)]
struct LeftOut {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lines: Vec<String>,
}

impl StateMachine for LeftOut {
    type Command = Option<String>;
    type Response = usize;

    async fn apply(&mut self, line: Option<String>, _: At) -> usize {
        match line {
            Some(line) => self.lines.push(line),
            None => self.lines.clear(),
        }
        self.lines.len()
    }
}

async fn a_state_that_serde_cannot_read_back_keeps_its_log<R: Executor>(rt: R) {
    let store = FaultyStore::default();
    let start = async || {
        Single::start(
            &rt,
            1,
            quick(),
            store.clone(),
            LocalNetwork::new().transport(),
            LeftOut::default(),
        )
        .await
        .expect("starts")
    };
    let node = start().await;
    let raft = node.local();
    raft.initialize([(1, "node-1")]).await.expect("forms");
    raft.write(Some("a".to_owned())).await.expect("writes");
    let before = raft.snapshot().await.expect("it has a line");
    raft.write(None).await.expect("writes");
    let failed = raft.snapshot().await.map_err(|error| error.to_string());
    assert_eq!(failed, Err("the state machine's snapshot: missing field `lines`".to_owned()));
    raft.purge().await.expect("purges");
    assert_eq!(raft.metrics().borrow().purged, before);
    drop(node);
    let node = start().await;
    assert_eq!(node.local().write(Some("b".to_owned())).await.expect("it has its log"), 1);
}

async fn a_snapshot_that_the_disk_does_not_give_back_stands_for_nothing<R: Executor>(rt: R) {
    for disk in [Disk::FailsOpenings, Disk::FailsContents, Disk::CutsContents, Disk::SpoilsContents]
    {
        let (store, state) = (FaultyStore::default(), Moody::default());
        let node = formed_moody(&rt, &store, &state).await;
        store.set(disk);
        node.local().snapshot().await.expect_err("it can't be read");
        assert_eq!(node.local().metrics().borrow().snapshot, LogId::ZERO, "{disk:?}");
        store.set(Disk::Works);
        node.local().snapshot().await.expect("is taken");
    }
}

/// With the defect it is adopted, and the next start has neither the log nor a state.
#[cfg(feature = "planted")]
#[test]
fn the_planted_defect_d9_is_noticed() {
    use quorate::planted::{self, Bug};
    planted::set(Some(Bug::D9));
    quorate_tests::run::<quorate::Tokio>(async |rt| {
        let (store, state) = (FaultyStore::default(), Moody::default());
        let node = formed_moody(&rt, &store, &state).await;
        state.0.set(Mood::WritesNonsense);
        node.local().snapshot().await.expect("nobody looks at it");
        node.local().purge().await.expect("purges");
        drop(node);
        state.0.set(Mood::LeavesSomeUnread);
        let ended = moody(&rt, &store, &state).await.stopped().await;
        assert!(matches!(ended, Err(Fatal::Snapshot { .. })), "{ended:?}");
    });
}

/// The cause of the end of a node that finds its snapshot like this.
async fn end_of_restart<R: Executor>(rt: &R, disk: Disk, mood: Mood) -> Fatal {
    let (store, state) = (FaultyStore::default(), Moody::default());
    let node = formed_moody(rt, &store, &state).await;
    node.local().snapshot().await.expect("is taken");
    drop(node);
    store.set(disk);
    state.0.set(mood);
    let node = moody(rt, &store, &state).await;
    node.stopped().await.expect_err("it has no state")
}

async fn a_snapshot_that_makes_no_sense_stops_the_node_with_the_cause<R: Executor>(rt: R) {
    for (mood, cause) in [
        (Mood::LeavesSomeUnread, "4 bytes were left unread"),
        (Mood::ReadsTooMuch, "9 bytes wanted where 8 are left"),
    ] {
        let fatal = end_of_restart(&rt, Disk::Works, mood).await;
        let Fatal::Snapshot { index: 3, reason } = fatal else { panic!("{fatal:?}") };
        assert!(reason.contains(cause), "{reason}");
    }
    let fatal = end_of_restart(&rt, Disk::Works, Mood::PanicsInRestore).await;
    assert!(matches!(&fatal, Fatal::Bug(bug) if bug.contains("no restoring")), "{fatal:?}");
}

async fn a_snapshot_that_is_not_what_was_written_stops_the_node_with_the_cause<R: Executor>(rt: R) {
    let fatal = end_of_restart(&rt, Disk::SpoilsContents, Mood::Good).await;
    let Fatal::Snapshot { index: 3, reason } = fatal else { panic!("{fatal:?}") };
    assert!(reason.contains("digest"), "{reason}");
    for disk in [Disk::FailsOpenings, Disk::FailsContents, Disk::CutsContents] {
        let fatal = end_of_restart(&rt, disk, Mood::Good).await;
        assert!(matches!(fatal, Fatal::Store(StoreError::Io { .. })), "{fatal:?}");
    }
}

async fn a_panic_while_a_snapshot_is_written_stops_the_node_with_the_cause<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, quick()).await;
    let raft = cluster.node(1).raft();
    raft.write(line(0)).await.expect("writes");
    cluster.stores[&1].set(Disk::PanicsInFinishes);
    let failed = raft.snapshot().await;
    assert!(matches!(failed, Err(SnapshotError::Fatal(Fatal::Bug(_)))), "{failed:?}");
    let cause = cluster.node(1).stopped().await.expect_err("it has failed").to_string();
    assert!(cause.contains("the store panics"), "{cause}");
    assert!(matches!(raft.snapshot().await, Err(SnapshotError::Fatal(Fatal::Bug(_)))));
    assert!(matches!(cluster.raft(1).purge().await, Err(SnapshotError::Fatal(Fatal::Bug(_)))));
}

async fn a_snapshot_is_not_told_of_before_it_is_durable<R: Executor>(rt: R) {
    let config = Config { election_timeout: quick().election_timeout * 10, ..quick() };
    let config = Config { request_timeout: config.election_timeout, ..config };
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, config).await;
    let (raft, store) = (cluster.raft(1), &cluster.stores[&1]);
    write(&raft, 0..3).await;
    store.set(Disk::Hangs);
    let mut snapshot = Box::pin(raft.snapshot());
    let named = snapshot_at(&raft, 1).await.snapshot;
    settle(&rt).await;
    assert!((&mut snapshot).now_or_never().is_none());
    let mut purge = Box::pin(raft.purge());
    settle(&rt).await;
    assert!((&mut purge).now_or_never().is_none());
    store.set(Disk::Works);
    assert_eq!(snapshot.await.expect("is durable"), named);
    assert_eq!(purge.await.expect("is durable"), named);
}

async fn nothing_waits_for_a_snapshot_at_the_end<R: Executor>(rt: R) {
    for crashes in [false, true] {
        let mut cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, quick()).await;
        let raft = cluster.node(1).raft();
        raft.write(line(0)).await.expect("writes");
        cluster.stores[&1].set(Disk::HoldsDrafts);
        let snapshot = raft.snapshot();
        settle(&rt).await;
        assert_eq!(cluster.stores[&1].open(), 1, "it is being written");
        if crashes {
            cluster.crash(1);
        } else {
            cluster.stop(1).await;
        }
        for refused in [snapshot.await, raft.snapshot().await, raft.purge().await] {
            match refused {
                Err(SnapshotError::Fatal(Fatal::Dropped)) if crashes => {}
                Err(SnapshotError::Shutdown) if !crashes => {}
                other => panic!("{other:?}"),
            }
        }
        settle(&rt).await;
        assert_eq!(cluster.stores[&1].open(), 0, "what was begun is discarded");
    }
}

async fn who_waits_for_a_snapshot_is_told_of_the_failure<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 1, quick()).await;
    let raft = cluster.node(1).raft();
    raft.write(line(0)).await.expect("writes");
    cluster.stores[&1].set(Disk::HoldsDrafts);
    let snapshot = raft.snapshot();
    settle(&rt).await;
    cluster.stores[&1].set(Disk::FailsWrites);
    let _ = raft.write(line(1)).await;
    let snapshot = snapshot.await;
    assert!(matches!(snapshot, Err(SnapshotError::Fatal(Fatal::Store(_)))), "{snapshot:?}");
}
