//! Settings that change while a group runs.

use std::time::Duration;

use quorate::{Config, ConfigureError, Executor, Role, WriteError};
use quorate_tests::{Cluster, calm, on_each_runtime, settle, wait_for};

on_each_runtime!(
    settings_count_from_when_they_are_set,
    settings_that_cannot_work_change_nothing,
    limits_are_those_of_both_handles,
    a_node_that_is_not_to_campaign_leads_when_it_is_told_to,
    a_group_that_has_ended_takes_no_settings,
    settings_are_not_kept,
);

async fn settings_count_from_when_they_are_set<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, calm()).await;
    let local = cluster.raft(1);
    let shared = local.shared();
    let config = Config { snapshot_after_entries: 3, ..shared.config() };
    shared.configure(config.clone()).await.expect("they are valid");
    assert_eq!((local.config(), shared.config()), (config.clone(), config.clone()));
    let mut metrics = local.metrics();
    for n in 0..8 {
        local.write(format!("{n}")).await.expect("writes");
    }
    wait_for(&mut metrics, |metrics| metrics.snapshot.index > 0).await;
    local.configure(calm()).await.expect("they are valid");
    assert_eq!(shared.config(), calm());
}

async fn settings_that_cannot_work_change_nothing<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, calm()).await;
    let raft = cluster.raft(1).shared();
    let config = Config { election_timeout: Duration::from_secs(9), elections: false, ..calm() };
    let error = raft.configure(config).await.expect_err("requests would be given up before");
    let ConfigureError::Invalid(error) = error else { panic!("{error}") };
    assert_eq!(error.field, "request_timeout");
    assert_eq!(raft.config(), calm());
}

async fn limits_are_those_of_both_handles<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 1, calm()).await;
    let local = cluster.raft(1);
    let shared = local.shared();
    local.write("x".repeat(1000)).await.expect("writes");
    let config = Config {
        max_command_bytes: 100,
        max_queued_bytes: 200,
        max_pending_reads: 1,
        ..local.config()
    };
    local.configure(config).await.expect("they are valid");
    let long = || "x".repeat(1000);
    assert!(matches!(local.write(long()).await, Err(WriteError::Command(_))));
    assert!(matches!(shared.write(long()).await, Err(WriteError::Command(_))));
    let (first, second) = (local.write("a".repeat(80)), local.write("b".repeat(80)));
    assert!(matches!(second.await, Err(WriteError::Busy)));
    first.await.expect("writes");
    let (first, second) = (shared.write("a".repeat(80)), shared.write("b".repeat(80)));
    assert!(matches!(second.await, Err(WriteError::Busy)));
    first.await.expect("writes");
    let (first, second) = (shared.read(|_| ()), shared.read(|_| ()));
    assert!(second.await.is_err());
    first.await.expect("reads");

    local.configure(calm()).await.expect("they are valid");
    shared.write(long()).await.expect("writes");
    local.write(long()).await.expect("writes");
}

async fn a_node_that_is_not_to_campaign_leads_when_it_is_told_to<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 3, calm()).await;
    let leader = cluster.leader().await;
    cluster.raft(leader).write("begin".to_owned()).await.expect("writes");
    let others = [leader % 3 + 1, (leader + 1) % 3 + 1];
    for id in others {
        assert_eq!(cluster.journal(id).await, ["begin"]);
        let raft = cluster.raft(id);
        let config = Config { elections: false, ..raft.config() };
        raft.configure(config).await.expect("they are valid");
    }
    cluster.stop(leader).await;
    // The leader has handed over: that is an order. Whoever leads now is stopped without one.
    let next = cluster.leader().await;
    let last = if next == others[0] { others[1] } else { others[0] };
    cluster.restart(leader).await;
    cluster.raft(leader).write("back".to_owned()).await.expect("writes");
    let raft = cluster.raft(leader);
    raft.configure(Config { elections: false, ..raft.config() }).await.expect("they are valid");
    cluster.crash(next);
    let mut metrics = cluster.raft(last).metrics();
    wait_for(&mut metrics, |metrics| metrics.leader.is_none()).await;
    let elected = wait_for(&mut metrics, |metrics| metrics.role != Role::Follower);
    let campaigns = rt.timeout(3 * calm().election_timeout, elected).await;
    assert!(campaigns.is_err(), "it campaigns: {campaigns:?}");
    let led = cluster.raft(last).campaign().await.expect("is elected");
    assert_eq!(led.leader, last);
    cluster.raft(last).write("after".to_owned()).await.expect("writes");
}

async fn a_group_that_has_ended_takes_no_settings<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 1, calm()).await;
    let (local, shared) = (cluster.raft(1), cluster.raft(1).shared());
    cluster.stop(1).await;
    settle(&rt).await;
    assert!(matches!(local.configure(calm()).await, Err(ConfigureError::Shutdown)));
    assert!(matches!(shared.configure(calm()).await, Err(ConfigureError::Shutdown)));
    assert_eq!(shared.config(), calm());
}

async fn settings_are_not_kept<R: Executor>(rt: R) {
    let mut cluster = Cluster::formed(&rt, 1, calm()).await;
    let raft = cluster.raft(1);
    raft.configure(Config { pre_vote: false, ..raft.config() }).await.expect("they are valid");
    cluster.restart(1).await;
    assert_eq!(cluster.raft(1).config(), calm());
}
