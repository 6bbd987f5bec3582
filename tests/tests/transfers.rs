//! Snapshots on their way from a leader to a follower that its log can't help any more, and what
//! may happen on the way.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quorate::{
    Body, Config, Executor, Fatal, Index, LogId, Message, Metrics, NodeId, StoreError, WriteError,
};
use quorate_tests::{
    Cluster, Disk, Fate, FaultyStore, on_each_runtime, peer_of, quick, settle, wait_for,
};

on_each_runtime!(
    a_follower_that_was_away_gets_the_snapshot_and_then_the_entries,
    metrics_tell_how_far_a_transfer_is,
    a_follower_that_crashes_in_between_gets_it_all_the_same,
    a_transfer_goes_on_where_it_broke_though_the_leader_is_another,
    messages_that_are_lost_late_and_repeated_break_no_transfer,
    a_newer_snapshot_does_not_break_the_transfer_of_an_older_one,
    a_snapshot_that_was_replaced_before_it_was_opened_is_not_sent,
    a_snapshot_that_cannot_be_read_for_a_peer_stops_its_node,
    a_follower_that_cannot_write_the_snapshot_is_asked_again,
    a_snapshot_that_was_spoilt_on_its_way_is_sent_again,
    a_snapshot_that_comes_in_overtakes_the_one_that_is_written,
    a_snapshot_that_comes_in_follows_what_is_read_to_be_applied,
    a_leader_may_run_ahead_while_its_snapshot_is_restored,
    a_write_that_a_snapshot_covers_has_an_unknown_outcome,
    a_fetch_that_a_purge_has_overtaken_is_followed_by_the_snapshot,
    a_fetch_of_a_node_that_leads_no_more_is_no_failure,
);

const LINE: usize = 1000;

fn line(n: usize) -> String {
    format!("{n:0LINE$}")
}

fn lines(range: Range<usize>) -> Vec<String> {
    range.map(line).collect()
}

/// Chunks of two lines, a few of which are on their way.
fn small_chunks() -> Config {
    Config {
        max_append_bytes: 2 * LINE,
        max_inflight_bytes: 8 * LINE,
        retained_bytes: 0,
        // A pause of the machine must not cost an election here, nor an answer.
        election_timeout: Duration::from_millis(500),
        request_timeout: Duration::from_secs(30),
        ..quick()
    }
}

/// A cluster whose node `away` is down, and whose others have purged what it lacks.
struct Behind<R> {
    cluster: Cluster<R, FaultyStore>,
    leader: NodeId,
    away: NodeId,
    /// Up to where their snapshots cover the log.
    covered: LogId,
}

/// It covers these.
const LINES: usize = 40;

impl<R: Executor> Behind<R> {
    async fn new(rt: &R, config: Config) -> Self {
        let mut cluster = Cluster::formed_on(rt, 3, config).await;
        let leader = cluster.leader().await;
        let away = leader % 3 + 1;
        write(&cluster, leader, 0..2).await;
        cluster.crash(away);
        write(&cluster, leader, 2..LINES).await;
        silent(&cluster, leader, away).await;
        let mut covered = LogId::ZERO;
        for id in (1..=3).filter(|id| *id != away) {
            covered = compact(&cluster, id).await;
        }
        Self { cluster, leader, away, covered }
    }

    fn metrics(&self, id: NodeId) -> Arc<Metrics> {
        self.cluster.raft(id).metrics().borrow()
    }

    /// The node that was away is back, and gets so much of the snapshot before no more chunks
    /// arrive.
    async fn broken_at(&mut self, bytes: u64) {
        let away = self.away;
        self.cluster.faults.lose(move |message| match &message.body {
            Body::Snapshot { offset, chunk, .. } => {
                message.to.id == away && *offset >= bytes && !chunk.is_empty()
            }
            _ => false,
        });
        self.cluster.restart(away).await;
        let metrics = &mut self.cluster.raft(self.leader).metrics();
        wait_for(metrics, |m| sent_to(m, away).is_some_and(|(sent, _)| sent == bytes)).await;
    }

    /// From now on all arrives; where the chunks for the node that was away begin, and of which
    /// snapshots they are.
    fn heal_and_watch(&self) -> Rc<RefCell<BTreeSet<(Index, u64)>>> {
        let seen = Rc::<RefCell<BTreeSet<_>>>::default();
        let (chunks, away) = (Rc::clone(&seen), self.away);
        self.cluster.faults.set(move |message| {
            if let Body::Snapshot { meta, offset, chunk } = &message.body
                && message.to.id == away
                && !chunk.is_empty()
            {
                chunks.borrow_mut().insert((meta.log_id.index, *offset));
            }
            Fate::Arrives
        });
        seen
    }

    /// The node that was away has all of these, and has applied by itself what the snapshot doesn't
    /// cover.
    async fn caught_up(&self, lines: Vec<String>, applied: usize) {
        let read = self.cluster.raft(self.away).read(|j| (j.entries.clone(), j.applied));
        let (entries, by_itself) = read.await.expect("reads");
        assert_eq!(entries, lines);
        assert_eq!(by_itself, applied, "the others came with the snapshot");
    }
}

async fn write<R: Executor>(cluster: &Cluster<R, FaultyStore>, id: NodeId, of: Range<usize>) {
    for n in of {
        cluster.raft(id).write(line(n)).await.expect("writes");
    }
}

/// A node takes a snapshot of all that is committed and purges the log that it covers.
async fn compact<R: Executor>(cluster: &Cluster<R, FaultyStore>, id: NodeId) -> LogId {
    cluster.journal(id).await;
    let raft = cluster.raft(id);
    let covered = raft.snapshot().await.expect("is taken");
    raft.purge().await.expect("is purged");
    covered
}

/// Waits until the leader keeps no log for this peer any more.
async fn silent<R: Executor>(cluster: &Cluster<R, FaultyStore>, leader: NodeId, peer: NodeId) {
    let timeout = cluster.config.election_timeout;
    let is_silent = |metrics: &Metrics| {
        peer_of(metrics, peer)
            .is_some_and(|peer| peer.last_contact.is_none_or(|contact| contact > timeout))
    };
    wait_for(&mut cluster.raft(leader).metrics(), is_silent).await;
}

/// How much of a snapshot a peer has got.
fn sent_to(metrics: &Metrics, peer: NodeId) -> Option<(u64, u64)> {
    peer_of(metrics, peer)?.snapshot
}

async fn a_follower_that_was_away_gets_the_snapshot_and_then_the_entries<R: Executor>(rt: R) {
    let mut behind = Behind::new(&rt, small_chunks()).await;
    write(&behind.cluster, behind.leader, LINES..LINES + 5).await;
    behind.cluster.restart(behind.away).await;
    behind.caught_up(lines(0..LINES + 5), 5).await;
    let metrics = behind.metrics(behind.away);
    assert_eq!((metrics.snapshot, metrics.purged), (behind.covered, behind.covered));
    let recovered = behind.cluster.stores[&behind.away].inspect(0);
    assert_eq!(recovered.snapshot.expect("it has one").log_id, behind.covered);
    assert_eq!(recovered.log_meta.last(), behind.metrics(behind.leader).last_log_id);
    // A node like any other: it restarts, and writes.
    behind.cluster.restart(behind.away).await;
    write(&behind.cluster, behind.away, LINES + 5..LINES + 6).await;
    behind.caught_up(lines(0..LINES + 6), 6).await;
}

async fn metrics_tell_how_far_a_transfer_is<R: Executor>(rt: R) {
    let mut behind = Behind::new(&rt, small_chunks()).await;
    let bytes = 8 * LINE as u64;
    behind.broken_at(bytes).await;
    let (_, of) = sent_to(&behind.metrics(behind.leader), behind.away).expect("is being sent");
    assert!(of > (LINES * LINE) as u64, "{of}");
    assert_eq!(behind.cluster.stores[&behind.leader].open(), 1);
    assert_eq!(behind.cluster.stores[&behind.away].open(), 1);
    behind.cluster.faults.heal();
    behind.caught_up(lines(0..LINES), 0).await;
    let away = behind.away;
    let metrics = &mut behind.cluster.raft(behind.leader).metrics();
    wait_for(metrics, |metrics| sent_to(metrics, away).is_none()).await;
    settle(&rt).await;
    assert_eq!(behind.cluster.stores[&behind.leader].open(), 0, "what nobody needs is closed");
    assert_eq!(behind.cluster.stores[&behind.away].open(), 0);
}

async fn a_follower_that_crashes_in_between_gets_it_all_the_same<R: Executor>(rt: R) {
    let mut behind = Behind::new(&rt, small_chunks()).await;
    behind.broken_at(8 * LINE as u64).await;
    behind.cluster.crash(behind.away);
    settle(&rt).await;
    assert_eq!(behind.cluster.stores[&behind.away].open(), 0, "half a snapshot is none");
    let recovered = behind.cluster.stores[&behind.away].inspect(0);
    assert_eq!(recovered.snapshot, None);
    behind.cluster.faults.heal();
    behind.cluster.restart(behind.away).await;
    behind.caught_up(lines(0..LINES), 0).await;
}

async fn a_transfer_goes_on_where_it_broke_though_the_leader_is_another<R: Executor>(rt: R) {
    let mut behind = Behind::new(&rt, small_chunks()).await;
    let bytes = 8 * LINE as u64;
    behind.broken_at(bytes).await;
    let chunks = behind.heal_and_watch();
    behind.cluster.network.isolate(behind.leader);
    behind.cluster.crash(behind.leader);
    assert_ne!(behind.cluster.leader().await, behind.leader);
    behind.caught_up(lines(0..LINES), 0).await;
    // The snapshots of both are the same, as they are of the same state.
    assert_eq!(chunks.borrow().first(), Some(&(behind.covered.index, bytes)));
}

async fn messages_that_are_lost_late_and_repeated_break_no_transfer<R: Executor>(rt: R) {
    let config = Config { election_timeout: Duration::from_millis(200), ..small_chunks() };
    let mut behind = Behind::new(&rt, config).await;
    let mut random: u32 = 1;
    let faulty = Rc::new(Cell::new(0));
    let counter = Rc::clone(&faulty);
    behind.cluster.faults.set(move |message| {
        let (Body::Snapshot { .. } | Body::SnapshotReply { .. }) = message.body else {
            return Fate::Arrives;
        };
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let fate = match random >> 28 {
            0 => Fate::Lost,
            1 | 2 => Fate::ArrivesTwice,
            3 => Fate::Late(1),
            4 => Fate::Late(3),
            _ => return Fate::Arrives,
        };
        counter.set(counter.get() + 1);
        fate
    });
    behind.cluster.restart(behind.away).await;
    behind.caught_up(lines(0..LINES), 0).await;
    assert!(faulty.get() > 0, "nothing was lost, late or repeated");
}

async fn a_newer_snapshot_does_not_break_the_transfer_of_an_older_one<R: Executor>(rt: R) {
    let mut behind = Behind::new(&rt, small_chunks()).await;
    let bytes = 8 * LINE as u64;
    behind.broken_at(bytes).await;
    write(&behind.cluster, behind.leader, LINES..LINES + 5).await;
    let newer = compact(&behind.cluster, behind.leader).await;
    let metrics = behind.metrics(behind.leader);
    assert_eq!(metrics.snapshot, newer);
    assert_eq!(metrics.purged, behind.covered, "what follows on the older one is still needed");
    let chunks = behind.heal_and_watch();
    behind.caught_up(lines(0..LINES + 5), 5).await;
    assert_eq!(chunks.borrow().first(), Some(&(behind.covered.index, bytes)));
    assert_eq!(chunks.borrow().last().expect("not empty").0, behind.covered.index);
    let away = behind.away;
    let raft = behind.cluster.raft(behind.leader);
    wait_for(&mut raft.metrics(), |m| {
        peer_of(m, away).is_some_and(|peer| peer.matched == newer.index)
    })
    .await;
    assert_eq!(raft.purge().await.expect("is purged"), newer, "nobody needs it now");
}

async fn a_snapshot_that_was_replaced_before_it_was_opened_is_not_sent<R: Executor>(rt: R) {
    let mut behind = Behind::new(&rt, small_chunks()).await;
    let first = Rc::<RefCell<Option<Message>>>::default();
    let (kept, away) = (Rc::clone(&first), behind.away);
    behind.cluster.faults.set(move |message| match message.body {
        Body::SnapshotReply { .. } if kept.borrow().is_none() => {
            kept.replace(Some(message.clone()));
            Fate::Lost
        }
        _ => Fate::Arrives,
    });
    behind.cluster.restart(behind.away).await;
    let metrics = &mut behind.cluster.raft(behind.leader).metrics();
    wait_for(metrics, |_| first.borrow().is_some()).await;
    write(&behind.cluster, behind.leader, LINES..LINES + 5).await;
    let newer = compact(&behind.cluster, behind.leader).await;
    let old = Rc::new(Cell::new(0));
    let (count, covered) = (Rc::clone(&old), behind.covered);
    behind.cluster.faults.set(move |message| {
        if let Body::Snapshot { meta, .. } = &message.body
            && message.to.id == away
            && meta.log_id == covered
        {
            count.set(count.get() + 1);
        }
        Fate::Arrives
    });
    let answer = first.take().expect("was kept");
    behind.cluster.raft(behind.leader).deliver(answer);
    behind.caught_up(lines(0..LINES + 5), 0).await;
    assert_eq!(behind.metrics(behind.away).snapshot, newer);
    assert!(old.get() <= 1, "{} messages of what is there no more", old.get());
}

async fn a_snapshot_that_cannot_be_read_for_a_peer_stops_its_node<R: Executor>(rt: R) {
    for disk in [Disk::FailsOpenings, Disk::FailsContents, Disk::CutsContents] {
        let mut behind = Behind::new(&rt, small_chunks()).await;
        behind.cluster.stores[&behind.leader].set(disk);
        behind.cluster.restart(behind.away).await;
        let cause = behind.cluster.node(behind.leader).stopped().await;
        assert!(matches!(cause, Err(Fatal::Store(StoreError::Io { .. }))), "{disk:?}: {cause:?}");
    }
}

async fn a_follower_that_cannot_write_the_snapshot_is_asked_again<R: Executor>(rt: R) {
    let config = Config { election_timeout: Duration::from_millis(200), ..small_chunks() };
    for disk in [Disk::FailsDrafts, Disk::FailsChunks, Disk::FailsFinishes] {
        let mut behind = Behind::new(&rt, config.clone()).await;
        let store = behind.cluster.stores[&behind.away].clone();
        store.set(disk);
        behind.cluster.restart(behind.away).await;
        let metrics = &mut behind.cluster.raft(behind.leader).metrics();
        wait_for(metrics, |_| store.drafts_begun() >= 2).await;
        store.set(Disk::Works);
        behind.caught_up(lines(0..LINES), 0).await;
    }
}

async fn a_snapshot_that_was_spoilt_on_its_way_is_sent_again<R: Executor>(rt: R) {
    let config = Config { election_timeout: Duration::from_millis(200), ..small_chunks() };
    let mut behind = Behind::new(&rt, config).await;
    behind.cluster.stores[&behind.leader].set(Disk::SpoilsContents);
    behind.cluster.restart(behind.away).await;
    let (store, metrics) = (
        behind.cluster.stores[&behind.away].clone(),
        &mut behind.cluster.raft(behind.leader).metrics(),
    );
    wait_for(metrics, |_| store.drafts_begun() >= 2).await;
    let recovered = store.inspect(0);
    assert_eq!(recovered.snapshot, None, "what is not what was sent is not taken");
    behind.cluster.stores[&behind.leader].set(Disk::Works);
    behind.caught_up(lines(0..LINES), 0).await;
}

/// Leaves a node behind that is there: the others write up to so many lines, and purge them.
async fn run_ahead<R: Executor>(
    cluster: &Cluster<R, FaultyStore>,
    behind: NodeId,
    of: Range<usize>,
) {
    cluster.network.isolate(behind);
    let leader = cluster.raft(behind % 3 + 1);
    let leader = wait_for(&mut leader.metrics(), |m| m.leader.is_some_and(|id| id != behind))
        .await
        .leader
        .expect("is known");
    write(cluster, leader, of).await;
    silent(cluster, leader, behind).await;
    for id in (1..=3).filter(|id| *id != behind) {
        compact(cluster, id).await;
    }
    cluster.network.heal();
}

async fn a_snapshot_that_comes_in_follows_what_is_read_to_be_applied<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, small_chunks()).await;
    let leader = cluster.leader().await;
    let behind = leader % 3 + 1;
    write(&cluster, behind, 0..2).await;
    let (raft, store) = (cluster.raft(behind), &cluster.stores[&behind]);
    wait_for(&mut raft.metrics(), |m| m.applied == m.last_log_id.index).await;
    store.set(Disk::HoldsReads);
    write(&cluster, leader, 2..4).await;
    wait_for(&mut raft.metrics(), |_| store.held() > 0).await;
    store.set(Disk::Works);
    run_ahead(&cluster, behind, 4..LINES).await;
    let is_sent = |m: &Metrics| sent_to(m, behind).is_some_and(|(sent, bytes)| sent == bytes);
    wait_for(&mut cluster.raft(leader).metrics(), is_sent).await;
    assert_eq!(store.held(), 1, "what is to be applied before it is still to be read");
    assert_eq!(raft.metrics().borrow().snapshot, LogId::ZERO);
    store.release();
    let covered = wait_for(&mut raft.metrics(), |m| m.purged > LogId::ZERO).await.purged;
    wait_for(&mut raft.metrics(), |m| m.applied >= covered.index).await;
    let read = raft.read(|journal| (journal.entries.clone(), journal.applied));
    assert_eq!(read.await.expect("reads"), (lines(0..LINES), 0), "all came with the snapshot");
}

async fn a_leader_may_run_ahead_while_its_snapshot_is_restored<R: Executor>(rt: R) {
    let mut behind = Behind::new(&rt, small_chunks()).await;
    let store = behind.cluster.stores[&behind.away].clone();
    store.set(Disk::HoldsOpenings);
    behind.cluster.restart(behind.away).await;
    let raft = behind.cluster.raft(behind.away);
    wait_for(&mut raft.metrics(), |_| store.held() > 0).await;
    store.set(Disk::Works);
    run_ahead(&behind.cluster, behind.away, LINES..2 * LINES).await;
    let metrics = raft.metrics().borrow().clone();
    assert_eq!((store.held(), metrics.applied), (1, 0));
    assert_eq!(metrics.snapshot, LogId::ZERO, "it is the group's only when it is restored");
    store.release();
    // What follows comes from the leader's log, or with its next snapshot.
    assert_eq!(behind.cluster.journal(behind.away).await, lines(0..2 * LINES));
    assert!(raft.metrics().borrow().snapshot >= behind.covered);
}

async fn a_snapshot_that_comes_in_overtakes_the_one_that_is_written<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, small_chunks()).await;
    let leader = cluster.leader().await;
    let (other, away) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    write(&cluster, leader, 0..5).await;
    assert_eq!(cluster.journal(away).await.len(), 5);
    cluster.stores[&away].set(Disk::HoldsDrafts);
    let by_hand = cluster.raft(away).snapshot();
    settle(&rt).await;
    assert_eq!(cluster.stores[&away].open(), 1, "it is being written");
    cluster.stores[&away].set(Disk::Works);
    cluster.network.isolate(away);
    write(&cluster, leader, 5..LINES).await;
    silent(&cluster, leader, away).await;
    for id in [leader, other] {
        compact(&cluster, id).await;
    }
    cluster.network.heal();
    assert_eq!(cluster.journal(away).await, lines(0..LINES));
    let covered = cluster.raft(leader).metrics().borrow().snapshot;
    assert_eq!(by_hand.await.expect("there is one that covers more"), covered);
    settle(&rt).await;
    assert_eq!(cluster.stores[&away].open(), 0, "what is out of date is discarded");
    // The next one is taken as ever.
    write(&cluster, leader, LINES..LINES + 1).await;
    assert!(compact(&cluster, away).await > covered);
}

async fn a_write_that_a_snapshot_covers_has_an_unknown_outcome<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, small_chunks()).await;
    let leader = cluster.leader().await;
    let (other, behind) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    write(&cluster, behind, 0..5).await;
    let (is_deaf, is_mute) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(true)));
    let (deaf, mute) = (Rc::clone(&is_deaf), Rc::clone(&is_mute));
    cluster.faults.lose(move |message| match &message.body {
        Body::Append { entries, .. } => {
            deaf.get() && message.to.id == behind && !entries.is_empty()
        }
        Body::AppendReply { .. } => mute.get() && message.from.id == behind,
        _ => false,
    });
    let mut of_leader = cluster.raft(leader).metrics();
    let last = of_leader.borrow().last_log_id.index;
    let covered = cluster.raft(behind).write(line(5));
    wait_for(&mut of_leader, |metrics| metrics.applied > last).await;
    settle(&rt).await; // It knows where its write stands.
    silent(&cluster, leader, behind).await;
    for id in [leader, other] {
        compact(&cluster, id).await;
    }
    is_mute.set(false);
    let covered = covered.await;
    assert!(matches!(covered, Err(WriteError::Unknown)), "{covered:?}");
    is_deaf.set(false);
    assert_eq!(cluster.journal(behind).await, lines(0..6), "it was written");
    write(&cluster, behind, 6..8).await;
}

async fn a_fetch_that_a_purge_has_overtaken_is_followed_by_the_snapshot<R: Executor>(rt: R) {
    // Nothing is kept for a peer that needs it.
    let config = Config { max_retained_bytes: 0, ..small_chunks() };
    let mut cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, config).await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    write(&cluster, leader, 0..2).await;
    cluster.crash(away);
    write(&cluster, leader, 2..LINES).await;
    let (raft, store) = (cluster.raft(leader), cluster.stores[&leader].clone());
    wait_for(&mut raft.metrics(), |m| m.applied == m.last_log_id.index).await;
    store.set(Disk::HoldsReads);
    cluster.restart(away).await;
    wait_for(&mut raft.metrics(), |_| store.held() > 0).await;
    store.set(Disk::Works);
    compact(&cluster, leader).await;
    store.release();
    assert_eq!(cluster.journal(away).await, lines(0..LINES));
    assert!(raft.metrics().borrow().state.is_running());
}

async fn a_fetch_of_a_node_that_leads_no_more_is_no_failure<R: Executor>(rt: R) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(&rt, 3, small_chunks()).await;
    let old = cluster.leader().await;
    cluster.faults.lose(move |message| match &message.body {
        Body::Append { entries, .. } => message.from.id == old && !entries.is_empty(),
        _ => false,
    });
    let (raft, store) = (cluster.raft(old), cluster.stores[&old].clone());
    wait_for(&mut raft.metrics(), |m| m.applied == m.last_log_id.index).await;
    store.set(Disk::HoldsReads);
    let lost: Vec<_> = (0..5).map(|n| raft.write(format!("lost {n}"))).collect();
    // It has turned out that nobody has them, and they are to be read for a peer.
    wait_for(&mut raft.metrics(), |_| store.held() > 0).await;
    store.set(Disk::Works);
    cluster.network.isolate(old);
    let other = cluster.raft(old % 3 + 1);
    wait_for(&mut other.metrics(), |m| m.leader.is_some_and(|leader| leader != old)).await;
    other.write("kept".to_owned()).await.expect("writes");
    cluster.faults.heal();
    cluster.network.heal();
    let new = other.metrics().borrow().clone();
    // What nobody has is cut, so it is shorter than what was to be read.
    wait_for(&mut raft.metrics(), |m| m.leader == new.leader && m.last_log_id == new.last_log_id)
        .await;
    assert_ne!(store.held(), 0, "they are still being read");
    store.release();
    settle(&rt).await;
    assert_eq!(store.held(), 0);
    assert!(raft.metrics().borrow().state.is_running());
    assert_eq!(cluster.journal(old).await, ["kept"]);
    for write in lost {
        let write = write.await;
        assert!(matches!(write, Err(WriteError::NotLeader { .. })), "others are there: {write:?}");
    }
}
