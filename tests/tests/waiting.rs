//! Waiting with a deadline for what a group's metrics tell, and following who leads.

use std::time::Duration;

use futures::executor::block_on;
use futures::{FutureExt, StreamExt};
use quorate::{Executor, Fatal, LeaderChange, LocalNetwork, MemStore, WaitError};
use quorate_tests::{Cluster, Journal, Single, on_each_runtime, quick, settle};

on_each_runtime!(
    what_is_there_already_is_not_waited_for,
    a_leader_a_membership_and_an_applied_entry_are_waited_for,
    whose_time_is_up_is_told_what_was_seen,
    a_wait_on_another_executor_has_the_time_of_the_node,
    who_waits_in_vain_is_told_of_the_end,
    the_end_itself_can_be_waited_for,
    changes_of_the_leader_are_told_in_order_until_the_end,
    who_reads_changes_slowly_gets_the_newest,
);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(30);

/// A node of a group that is not formed.
async fn lonely<R: Executor>(rt: &R) -> Single<Journal> {
    let transport = LocalNetwork::new().transport();
    let node = Single::start(rt, 1, quick(), MemStore::new(), transport, Journal::default()).await;
    node.expect("starts")
}

async fn what_is_there_already_is_not_waited_for<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, quick()).await;
    let (local, shared) = (cluster.raft(1), cluster.node(1).raft());
    for led in
        [local.wait_for_leader(LONG).now_or_never(), shared.wait_for_leader(LONG).now_or_never()]
    {
        assert_eq!(led.expect("at once").expect("is led").leader, 1);
    }
    local.wait_for_applied(1, Duration::ZERO).now_or_never().expect("at once").expect("is applied");
    assert!(local.is_leader() && shared.is_leader());
}

async fn a_leader_a_membership_and_an_applied_entry_are_waited_for<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 3, quick()).await;
    let (of_two, of_three) = (cluster.raft(2), cluster.node(3).raft());
    let (led, formed) =
        (of_three.wait_for_leader(LONG), of_two.wait_for_membership(LONG, |_| true));
    assert!(!of_two.is_leader() && !of_three.is_leader());
    cluster.raft(1).initialize(cluster.members()).await.expect("forms");
    assert!((1..=3).contains(&led.await.expect("is led").leader));
    assert_eq!(formed.await.expect("is formed").nodes(), cluster.members());

    let (log_id, _) = of_two.write_with_log_id("a".to_owned()).await.expect("writes");
    of_three.wait_for_applied(log_id.index, LONG).await.expect("is applied");
    assert!(of_three.metrics().borrow().applied >= log_id.index);
    cluster.raft(1).wait_for_applied(log_id.index, LONG).await.expect("is applied");
}

async fn whose_time_is_up_is_told_what_was_seen<R: Executor>(rt: R) {
    let node = lonely(&rt).await;
    let (local, shared) = (node.local(), node.raft());
    for late in [local.wait_for_leader(SHORT).await, shared.wait_for_leader(SHORT).await] {
        let error = late.expect_err("nobody leads");
        assert!(matches!(&error, WaitError::TimedOut { last } if last.leader.is_none()), "{error}");
        assert!(error.to_string().contains("the cluster of node 1 is not formed yet"), "{error}");
    }
    local.initialize([(1, "node-1")]).await.expect("forms");
    let led = local.wait_for_leader(LONG).await.expect("is led");
    let late = shared.wait_for_applied(1000, SHORT).await.expect_err("there is no such entry");
    let told = format!("node 1 leads in term {}, and node 1 has applied", led.term);
    assert!(late.to_string().contains(&told), "{late}");
}

async fn a_wait_on_another_executor_has_the_time_of_the_node<R: Executor>(rt: R) {
    let node = lonely(&rt).await;
    let raft = node.raft();
    let waits = rt.spawn_blocking(move || block_on(raft.wait_for_leader(SHORT)));
    let late = waits.await.expect("ends");
    assert!(matches!(late, Err(WaitError::TimedOut { .. })), "{late:?}");
}

async fn who_waits_in_vain_is_told_of_the_end<R: Executor>(rt: R) {
    let node = lonely(&rt).await;
    let (local, shared) = (node.local(), node.raft());
    let (one, other) = (local.wait_for_leader(LONG), shared.wait_for_applied(7, LONG));
    settle(&rt).await;
    let unseen = shared.wait_until(LONG, |_| false);
    node.shutdown().await.expect("stops");
    assert!(matches!(one.await, Err(WaitError::Shutdown)));
    assert!(matches!(other.await, Err(WaitError::Shutdown)));
    assert!(matches!(unseen.await, Err(WaitError::Shutdown)));

    let node = lonely(&rt).await;
    let (local, shared) = (node.local(), node.raft());
    let (one, other) = (local.wait_for_leader(LONG), shared.wait_for_applied(7, LONG));
    drop(node);
    for error in [one.await.map(drop), other.await, shared.wait_for_leader(LONG).await.map(drop)] {
        assert!(matches!(error, Err(WaitError::Fatal(Fatal::Dropped))), "{error:?}");
    }
}

async fn the_end_itself_can_be_waited_for<R: Executor>(rt: R) {
    let node = lonely(&rt).await;
    let raft = node.raft();
    let ends = raft.wait_until(LONG, |metrics| !metrics.state.is_running());
    node.shutdown().await.expect("stops");
    let last = ends.await.expect("it is seen");
    assert!(matches!(last.state.outcome(), Some(Ok(()))), "{}", last.state);
}

async fn changes_of_the_leader_are_told_in_order_until_the_end<R: Executor>(rt: R) {
    let node = lonely(&rt).await;
    let raft = node.raft();
    let mut changes = raft.leader_changes();
    assert_eq!(changes.next().await, Some(LeaderChange::default()), "nobody leads yet");
    raft.initialize([(1, "node-1")]).await.expect("forms");
    let term = raft.wait_for_leader(LONG).await.expect("is led").term;
    let elected = LeaderChange { term, leader: Some(1) };
    assert_eq!(changes.next().await, Some(elected));
    raft.write("no change".to_owned()).await.expect("writes");
    assert_eq!(changes.next().now_or_never(), None);
    assert_eq!(raft.leader_changes().next().await, Some(elected), "it begins with the present one");

    drop(node);
    assert_eq!(changes.next().await, None);
    assert_eq!(StreamExt::next(&mut changes).await, None, "also as a stream");
    assert_eq!(raft.leader_changes().next().await, None);
}

async fn who_reads_changes_slowly_gets_the_newest<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let mut changes = raft.leader_changes();
    let first = changes.next().await.expect("it runs");
    assert_eq!(first.leader, Some(leader));
    let waits = changes.next();
    let next = raft.transfer_leadership(None).await.expect("is transferred");
    raft.wait_until(LONG, |metrics| metrics.leader == Some(next.leader)).await.expect("is led");
    let newest = waits.await.expect("it runs");
    assert!(newest.leader.is_some() && newest.term >= next.term, "{newest:?}");
}
