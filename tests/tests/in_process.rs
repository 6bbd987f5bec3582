//! Whole clusters within one thread, on each runtime: memory stores, and a network whose links can
//! be cut.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate::{
    At, Config, Executor, Fatal, GroupState, InitializeError, Metrics, ReadError, Role, WriteError,
};
use quorate_tests::{Cluster, Single, on_each_runtime, quick, wait_for};
use serde::{Deserialize, Serialize};

on_each_runtime!(
    a_node_alone_writes_and_reads,
    every_node_takes_writes_and_reads,
    a_cluster_is_formed_once,
    a_new_leader_takes_over_and_nothing_is_lost,
    without_a_majority_requests_are_refused_and_service_resumes,
    a_restarted_node_catches_up,
    many_writes_at_once_are_applied_once_each,
    a_dropped_node_leaves_nobody_waiting,
    a_stopped_node_refuses,
    a_request_before_the_cluster_is_formed_says_for_whom_it_waits,
    a_node_that_waits_to_be_formed_stops_at_once,
    a_leader_that_stops_answers_what_it_has_and_transfers_leadership,
    a_panic_of_the_state_machine_stops_the_node_with_the_cause,
    a_reader_that_keeps_its_metrics_holds_up_nobody,
    handles_work_from_other_threads,
    metrics_tell_of_the_peers,
);

async fn a_node_alone_writes_and_reads<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, Config::default()).await;
    let raft = cluster.raft(1);
    assert_eq!(raft.write("a".to_owned()).await.expect("writes"), 1);
    assert_eq!(raft.write("b".to_owned()).await.expect("writes"), 2);
    assert_eq!(cluster.journal(1).await, ["a", "b"]);
}

async fn every_node_takes_writes_and_reads<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let mut expected = Vec::new();
    for (round, id) in [1, 2, 3, 2, 1].into_iter().enumerate() {
        let line = format!("{round} by {id}");
        cluster.raft(id).write(line.clone()).await.expect("writes");
        expected.push(line);
        for reader in 1..=3 {
            assert_eq!(cluster.journal(reader).await, expected, "read on node {reader}");
        }
    }
}

async fn a_cluster_is_formed_once<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 3, quick()).await;
    let raft = cluster.raft(1);
    let strangers = raft.initialize([(2, "node-2"), (3, "node-3")]).await;
    assert!(matches!(strangers, Err(InitializeError::Membership(_))), "{strangers:?}");
    let nobody = raft.initialize(Vec::<(u64, String)>::new()).await;
    assert!(matches!(nobody, Err(InitializeError::Membership(_))), "{nobody:?}");
    assert!(matches!(
        raft.write("too early".to_owned()).await,
        Err(WriteError::NotLeader { leader: None, .. })
    ));

    for id in 1..=3 {
        let formed = cluster.raft(id).initialize(cluster.members()).await;
        assert!(formed.is_ok(), "node {id}: {formed:?}");
    }
    raft.initialize(cluster.members()).await.expect("the same list changes nothing");
    cluster.leader().await;
    raft.write("a".to_owned()).await.expect("writes");
    let alone = raft.initialize([(1, "node-1")]).await;
    let Err(InitializeError::Founded { founders, listed }) = alone else { panic!("{alone:?}") };
    assert_eq!((founders, listed), (BTreeSet::from([1, 2, 3]), BTreeSet::from([1])));
    let metrics = raft.metrics().borrow().clone();
    let membership = metrics.membership.as_ref().expect("formed");
    assert_eq!(membership.nodes(), cluster.members());
    assert_eq!(metrics.cluster, Some(membership.cluster()));
    assert!(membership.is_voter(metrics.replica) && membership.voters().iter().count() == 3);
}

async fn a_new_leader_takes_over_and_nothing_is_lost<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 3, quick()).await;
    let mut expected = Vec::new();
    for round in 0..4 {
        let leader = cluster.leader().await;
        let line = format!("{round}");
        cluster.raft(leader).write(line.clone()).await.expect("writes");
        expected.push(line);
        cluster.crash(leader);
        let next = cluster.leader().await;
        assert_ne!(next, leader);
        assert_eq!(cluster.journal(next).await, expected);
        cluster.restart(leader).await;
    }
    cluster.leader().await;
    for id in 1..=3 {
        assert_eq!(cluster.journal(id).await, expected, "on node {id}");
    }
}

async fn without_a_majority_requests_are_refused_and_service_resumes<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    raft.write("before".to_owned()).await.expect("writes");
    for other in (1..=3).filter(|id| *id != leader) {
        cluster.network.isolate(other);
    }
    // Placed in its log, but never acknowledged: the leader can't say what becomes of it.
    let lost = raft.write("lost".to_owned()).await;
    assert!(matches!(lost, Err(WriteError::Unknown)), "{lost:?}");
    wait_for(&mut raft.metrics(), |metrics| metrics.role != Role::Leader).await;
    let refused = raft.write("refused".to_owned()).await.expect_err("nobody takes it");
    let WriteError::NotLeader { leader: None, why } = &refused else { panic!("{refused:?}") };
    assert_eq!((why.waits_for.len(), why.answering.len()), (2, 0), "{why}");
    let text = refused.to_string();
    assert!(text.starts_with(&format!("no leader took the write: node {leader} is a ")), "{text}");
    assert!(text.ends_with("; nobody else answers"), "{text}");
    let refused = raft.read(|_| ()).await.expect_err("nobody confirms it");
    assert!(matches!(refused, ReadError::NotLeader { leader: None, .. }), "{refused:?}");
    assert!(refused.to_string().ends_with("; nobody else answers"), "{refused}");

    cluster.network.heal();
    let leader = cluster.leader().await;
    cluster.raft(leader).write("after".to_owned()).await.expect("writes");
    let journal = cluster.journal(leader).await;
    assert!(!journal.contains(&"refused".to_owned()), "a refused write took effect");
    assert_eq!(journal.first().map(String::as_str), Some("before"));
    assert_eq!(journal.last().map(String::as_str), Some("after"));
}

async fn a_restarted_node_catches_up<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    cluster.crash(away);
    let mut expected = Vec::new();
    for round in 0..500 {
        // Larger than an append in all, so that it takes several, from the log.
        let line = format!("{round:08192}");
        cluster.raft(leader).write(line.clone()).await.expect("writes");
        expected.push(line);
    }
    cluster.restart(away).await;
    cluster.leader().await;
    assert!(cluster.journal(away).await == expected, "the journals differ");
}

async fn many_writes_at_once_are_applied_once_each<R: Executor>(rt: R) {
    const EACH: usize = 1000;
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let mut writes = Vec::new();
    for id in 1..=3 {
        let raft = cluster.raft(id);
        writes.extend((0..EACH).map(|n| raft.write(format!("{id}: {n:05}"))));
    }
    for write in writes {
        write.await.expect("writes");
    }
    for reader in 1..=3 {
        let mut journal = cluster.journal(reader).await;
        for id in 1..=3 {
            let of_id = journal.iter().filter(|line| line.starts_with(&format!("{id}:")));
            assert!(of_id.is_sorted(), "the writes of one handle are out of order");
        }
        journal.sort();
        journal.dedup();
        assert_eq!(journal.len(), 3 * EACH, "on node {reader}");
    }
}

async fn a_dropped_node_leaves_nobody_waiting<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let (write, read) = (raft.write("a".to_owned()), raft.read(|_| ()));
    let stopped = cluster.node(leader).stopped();
    cluster.crash(leader);
    let write = write.await;
    assert!(matches!(write, Err(WriteError::Unknown | WriteError::Fatal(Fatal::Dropped))));
    assert!(matches!(read.await, Err(ReadError::Fatal(Fatal::Dropped))));
    assert!(matches!(stopped.await, Err(Fatal::Dropped)));
}

async fn a_leader_that_stops_answers_what_it_has_and_transfers_leadership<R: Executor>(rt: R) {
    // So long that a successor can't be the work of a timeout, where the machine is not very slow.
    let config = Config {
        election_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        ..quick()
    };
    let mut cluster = Cluster::formed(&rt, 3, config).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let term = raft.metrics().borrow().term;
    let writes: Vec<_> = (0..100).map(|n| raft.write(format!("{n}"))).collect();
    let metrics = raft.metrics();
    // They have their places in the log when it is told to stop.
    wait_for(&mut metrics.clone(), |metrics| metrics.last_log_id.index > 100).await;
    cluster.stop(leader).await;
    for write in writes {
        write.await.expect("what has begun is brought to its end");
    }
    assert!(matches!(raft.write("late".to_owned()).await, Err(WriteError::Shutdown)));
    assert_eq!(Some(metrics.borrow().term), term.next(), "it knows its successor's term");
    let next = cluster.leader().await;
    let elected_in = cluster.raft(next).metrics().borrow().term;
    assert_eq!(Some(elected_in), term.next(), "one campaign was enough");
    assert_eq!(cluster.journal(next).await.len(), 100);
}

async fn a_stopped_node_refuses<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, quick()).await;
    let raft = cluster.raft(1);
    let store = quorate::MemStore::new();
    let node = Single::start(
        &rt,
        7,
        Config::default(),
        store,
        cluster.network.transport(),
        quorate_tests::Journal::default(),
    )
    .await
    .expect("starts");
    let other = node.local();
    node.shutdown().await.expect("stops");
    assert!(matches!(other.write("a".to_owned()).await, Err(WriteError::Shutdown)));
    assert!(matches!(other.read(|_| ()).await, Err(ReadError::Shutdown)));
    let formed = other.initialize([(7, "x")]).await;
    assert!(matches!(formed, Err(InitializeError::Shutdown)));
    raft.write("its neighbour goes on".to_owned()).await.expect("writes");
}

/// The other node of the list never comes. (With a pause of an hour, the test would not end.)
async fn a_node_that_waits_to_be_formed_stops_at_once<R: Executor>(rt: R) {
    let config = quorate::Config { request_timeout: Duration::from_secs(3600), ..quick() };
    let node = Single::start(
        &rt,
        1,
        config,
        quorate::MemStore::new(),
        quorate::LocalNetwork::new().transport(),
        quorate_tests::Journal::default(),
    )
    .await
    .expect("starts");
    let raft = node.local();
    let list = [(1, "a:1"), (2, "b:1")];
    let mut metrics = raft.metrics();
    let stop = async {
        metrics.wait_for(|metrics| !metrics.waits_for.is_empty()).await.expect("it runs");
        node.shutdown().await
    };
    let (formed, stopped) = futures::join!(raft.initialize(list), stop);
    assert!(matches!(formed, Err(InitializeError::Shutdown)), "{formed:?}");
    stopped.expect("stops");
}

/// Nothing is refused before the node has waited for a leader, and then it says for whom.
async fn a_request_before_the_cluster_is_formed_says_for_whom_it_waits<R: Executor>(rt: R) {
    let node = Single::start(
        &rt,
        1,
        quick(),
        quorate::MemStore::new(),
        quorate::LocalNetwork::new().transport(),
        quorate_tests::Journal::default(),
    )
    .await
    .expect("starts");
    let raft = node.local();
    let why = "the cluster of node 1 is not formed yet; node 2: nothing is heard of it";
    let requests = async {
        let written = raft.write("a".to_owned()).await.expect_err("nobody takes it");
        assert_eq!(written.to_string(), format!("no leader took the write: {why}"));
        let read = raft.read(|_| ()).await.expect_err("nobody confirms it");
        assert_eq!(read.to_string(), format!("no leader confirmed the read: {why}"));
        node.shutdown().await
    };
    let (formed, stopped) = futures::join!(raft.initialize([(1, "a:1"), (2, "b:1")]), requests);
    assert!(matches!(formed, Err(InitializeError::Shutdown)), "{formed:?}");
    stopped.expect("stops");
}

/// Panics at its second command.
#[derive(Default, Serialize, Deserialize)]
struct Fragile(u32);

impl quorate::StateMachine for Fragile {
    type Command = u32;
    type Response = u32;

    async fn apply(&mut self, n: u32, _: At) -> u32 {
        self.0 += 1;
        assert!(self.0 < 2, "it broke at {n}");
        n
    }
}

async fn a_panic_of_the_state_machine_stops_the_node_with_the_cause<R: Executor>(rt: R) {
    let node = Single::start(
        &rt,
        1,
        Config::default(),
        quorate::MemStore::new(),
        quorate::LocalNetwork::new().transport(),
        Fragile::default(),
    )
    .await
    .expect("starts");
    let raft = node.raft();
    raft.initialize([(1, "node-1")]).await.expect("forms");
    wait_for(&mut raft.metrics(), |metrics| metrics.role == Role::Leader).await;
    assert_eq!(raft.write(1).await.expect("writes"), 1);
    let write = raft.write(2).await;
    assert!(matches!(write, Err(WriteError::Unknown)), "{write:?}");
    let cause = node.stopped().await.expect_err("it has failed").to_string();
    assert!(cause.contains("it broke at 2"), "{cause}");
    assert!(matches!(raft.write(3).await, Err(WriteError::Fatal(_))));
    assert!(matches!(raft.read(|_| ()).await, Err(ReadError::Fatal(_))));
    assert!(matches!(raft.metrics().borrow().state, GroupState::Failed(_)));
}

/// P12: what it keeps is of the past, and the node goes on.
async fn a_reader_that_keeps_its_metrics_holds_up_nobody<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.node(leader).raft();
    let metrics = raft.metrics();
    let mut kept = vec![metrics.borrow()];
    for n in 0..20 {
        raft.write(n.to_string()).await.expect("writes");
        kept.push(metrics.borrow());
        assert!(metrics.borrow().applied >= metrics.borrow().snapshot.index, "two at a time");
    }
    assert!(kept.is_sorted_by(|before, after| before.applied < after.applied), "{kept:?}");
    let own = raft.clone();
    let is_applied = |metrics: &Metrics| own.metrics().borrow().applied == metrics.applied;
    raft.metrics().wait_for(is_applied).await.expect("it runs");
}

async fn handles_work_from_other_threads<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let mut threads = Vec::new();
    for id in 1..=3 {
        let raft = cluster.node(id).raft();
        assert_eq!((raft.id(), format!("{raft:?}")), (id, format!("Raft {{ id: {id}, .. }}")));
        let local = cluster.raft(id);
        assert_eq!(
            (local.id(), format!("{local:?}")),
            (id, format!("LocalRaft {{ id: {id}, .. }}"))
        );
        let (raft, other) = (raft.clone(), raft);
        let work = move || {
            futures::executor::block_on(async {
                for n in 0..200 {
                    raft.write(format!("{id}: {n}")).await.expect("writes");
                }
                other.read(|journal| journal.entries.len()).await.expect("reads")
            })
        };
        threads.push(rt.spawn_blocking(work));
    }
    for thread in threads {
        assert!(thread.await.expect("no panic") >= 200);
    }
    assert_eq!(cluster.journal(1).await.len(), 600);
}

async fn metrics_tell_of_the_peers<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    raft.write("a".to_owned()).await.expect("writes");
    let metrics = wait_for(&mut raft.metrics(), |metrics| {
        metrics.applied == metrics.last_log_id.index
            && metrics.peers.values().all(|peer| peer.matched == metrics.committed)
    })
    .await;
    assert_eq!(metrics.leader, Some(leader));
    assert_eq!(metrics.peers.len(), 2);
    assert!(metrics.peers.values().all(|peer| peer.last_contact.is_some()));
    assert!(metrics.peers.values().all(|peer| peer.inflight_bytes == 0));
}
