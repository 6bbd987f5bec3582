//! Leadership by hand: transfers, campaigns and stepping down, and what clients notice of them.

use std::time::Duration;

use futures::future::join_all;
use quorate::sim::Sim;
use quorate::{
    CampaignError, Executor, Fatal, Leadership, LocalRaft, Metrics, NodeId, Role, StepDownError,
    TransferError, TransferFailure, TransferOptions, WriteError,
};
use quorate_core::conformance::within_limit;
use quorate_tests::{
    Cluster, Disk, FaultyStore, Journal, calm, on_each_runtime, run, settle, wait_for,
};

on_each_runtime!(
    leadership_goes_to_each_node_by_name,
    leadership_goes_to_the_best_voter,
    a_leader_is_its_own_successor_already,
    writes_go_on_at_the_leader_while_it_transfers_leadership,
    every_write_takes_effect_once_through_many_transfers,
    a_transfer_is_refused_with_the_reason,
    those_who_ask_for_the_same_transfer_share_it,
    a_silent_target_holds_up_nobody,
    a_target_that_does_not_catch_up_holds_up_nobody,
    a_target_that_is_not_elected_holds_up_writes_for_an_election_timeout,
    a_transfer_tells_who_leads_instead,
    a_transfer_tells_that_nobody_leads,
    a_node_campaigns_when_it_is_told_to,
    a_campaign_is_refused_with_the_reason,
    a_leader_steps_down_when_it_is_told_to,
    those_who_wait_are_told_of_the_end,
    a_read_whose_leader_dies_is_answered_by_the_next,
    reads_are_answered_while_leaders_stop_one_after_the_other,
);

fn next(id: NodeId) -> NodeId {
    id % 3 + 1
}

async fn formed<R: Executor>(rt: &R) -> (Cluster<R, FaultyStore>, NodeId) {
    let cluster = Cluster::<R, FaultyStore>::formed_on(rt, 3, calm()).await;
    let leader = cluster.leader().await;
    cluster.raft(leader).write("begin".to_owned()).await.expect("writes");
    for id in 1..=3 {
        assert_eq!(cluster.journal(id).await, ["begin"]);
    }
    (cluster, leader)
}

fn leads(raft: &LocalRaft<Journal>) -> Option<Leadership> {
    let metrics = raft.metrics().borrow().clone();
    metrics.leader.map(|leader| Leadership { leader, term: metrics.term })
}

async fn leadership_goes_to_each_node_by_name<R: Executor>(rt: R) {
    let (cluster, mut leader) = formed(&rt).await;
    for round in 0..6 {
        let (raft, to) = (cluster.node(leader).raft(), next(leader));
        let before = raft.metrics().borrow().term;
        let led = raft.transfer_leadership(to).await.expect("is transferred");
        assert_eq!(led.leader, to);
        assert_eq!(led.term.0, before.0 + 1, "no other election");
        cluster.raft(to).write(format!("{round}")).await.expect("writes");
        assert_eq!(leads(&cluster.raft(to)), Some(led));
        leader = to;
    }
}

async fn leadership_goes_to_the_best_voter<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (dead, alive) = (next(leader), next(next(leader)));
    cluster.network.isolate(dead);
    let raft = cluster.raft(leader);
    raft.write("one lacks it".to_owned()).await.expect("writes");
    let led = raft.transfer_leadership(None).await.expect("is transferred");
    assert_eq!(led.leader, alive);
    cluster.raft(alive).write("after".to_owned()).await.expect("writes");
}

async fn a_leader_is_its_own_successor_already<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let raft = cluster.raft(leader);
    let led = raft.transfer_leadership(leader).await.expect("it leads");
    assert_eq!(Some(led), leads(&raft));
    assert_eq!(led.leader, leader);
}

async fn writes_go_on_at_the_leader_while_it_transfers_leadership<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, to) = (cluster.raft(leader), next(leader));
    let before: Vec<_> = (0..50).map(|n| raft.write(format!("before {n}"))).collect();
    let led = raft.transfer_leadership(to);
    settle(&rt).await;
    let after: Vec<_> = (0..50).map(|n| raft.write(format!("after {n}"))).collect();
    for write in join_all(before.into_iter().chain(after)).await {
        write.expect("clients notice nothing but a pause");
    }
    assert_eq!(led.await.expect("is transferred").leader, to);
    assert_eq!(cluster.journal(to).await.len(), 101);
}

async fn every_write_takes_effect_once_through_many_transfers<R: Executor>(rt: R) {
    const WRITES: usize = 60;
    let (cluster, mut leader) = formed(&rt).await;
    let clients = (1..=3).map(|id| {
        let (raft, rt) = (cluster.raft(id), rt.clone());
        async move {
            for n in 0..WRITES {
                let line = format!("{id} {n}");
                // A follower's write may be refused while leadership is transferred.
                while let Err(error) = raft.write(line.clone()).await {
                    assert!(matches!(error, WriteError::NotLeader { .. }), "{error}");
                    rt.sleep(Duration::from_millis(2)).await;
                }
                rt.sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let transfers = async {
        for _ in 0..10 {
            let to = next(leader);
            leader = cluster.raft(leader).transfer_leadership(to).await.expect("succeeds").leader;
            rt.sleep(Duration::from_millis(5)).await;
        }
    };
    futures::join!(join_all(clients), transfers);
    let mut journal = cluster.journal(leader).await;
    journal.sort();
    assert_eq!(journal.len(), 3 * WRITES + 1);
    journal.dedup();
    assert_eq!(journal.len(), 3 * WRITES + 1, "nothing is applied twice");
}

async fn a_transfer_is_refused_with_the_reason<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, other) = (cluster.raft(leader), next(leader));
    let refused = cluster.raft(other).transfer_leadership(other).await;
    let Err(TransferError::NotLeader { leader: Some(known) }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((known.id, known.address), (leader, format!("node-{leader}")));
    let refused = raft.transfer_leadership(9).await;
    assert!(matches!(refused, Err(TransferError::NoSuchVoter(9))), "{refused:?}");
    cluster.network.isolate(other);
    rt.sleep(3 * calm().heartbeat_interval).await; // It is known to be silent.
    let begun = raft.transfer_leadership(other);
    for to in [Some(next(other)), None] {
        let refused = raft.transfer_leadership(to).await;
        let Err(TransferError::UnderWay { to: Some(under_way) }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(under_way, other);
    }
    assert!(begun.await.is_err());
    assert_eq!(raft.metrics().borrow().role, Role::Leader);

    let alone = Cluster::formed(&rt, 1, calm()).await;
    let refused = alone.raft(1).transfer_leadership(None).await;
    assert!(matches!(refused, Err(TransferError::NoOtherVoter)), "{refused:?}");
    let unformed = Cluster::start(&rt, 1, calm()).await;
    let refused = unformed.raft(1).transfer_leadership(None).await;
    assert!(matches!(refused, Err(TransferError::NotLeader { leader: None })), "{refused:?}");
}

async fn those_who_ask_for_the_same_transfer_share_it<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, to) = (cluster.raft(leader), next(leader));
    let (one, other) = (raft.transfer_leadership(to), raft.transfer_leadership(to));
    let (one, other) = futures::join!(one, other);
    assert_eq!(one.expect("is transferred"), other.expect("is transferred"));
}

/// Who joins a transfer that has more time than it would have had itself, waits without waking the
/// node again and again: in virtual time that would have no end.
#[test]
fn who_joins_a_longer_transfer_waits_for_its_end() {
    within_limit(|| {
        run::<Sim>(async |rt| {
            let (cluster, leader) = formed(&rt).await;
            let (raft, dead) = (cluster.raft(leader), next(leader));
            cluster.network.isolate(dead);
            rt.sleep(3 * calm().heartbeat_interval).await;
            let within = Some(calm().election_timeout + 2 * calm().request_timeout);
            let longer = TransferOptions { to: Some(dead), within };
            let (begun, longer) = (rt.now(), raft.transfer_leadership(longer));
            let shorter = raft.transfer_leadership(dead);
            let (longer, shorter) = futures::join!(longer, shorter);
            assert_eq!(why(longer, dead), TransferFailure::Silent);
            assert_eq!(why(shorter, dead), TransferFailure::Silent);
            assert!(rt.now() - begun >= 2 * calm().request_timeout);
        });
    });
}

fn why(failed: Result<Leadership, TransferError>, asked: NodeId) -> TransferFailure {
    match failed {
        Err(TransferError::Failed { to, why }) if to == Some(asked) => why,
        other => panic!("{other:?}"),
    }
}

async fn a_silent_target_holds_up_nobody<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, dead) = (cluster.raft(leader), next(leader));
    let before = leads(&raft);
    cluster.network.isolate(dead);
    rt.sleep(3 * calm().heartbeat_interval).await;
    // Written during the transfer, and not after it.
    let (begun, transfer) = (rt.now(), raft.transfer_leadership(dead));
    raft.write("during".to_owned()).await.expect("it serves");
    assert!(rt.now() - begun < calm().election_timeout / 2, "it was held up");
    assert_eq!(why(transfer.await, dead), TransferFailure::Silent);
    assert!(rt.now() - begun >= calm().election_timeout);
    raft.write("after".to_owned()).await.expect("it serves again");
    assert_eq!(leads(&raft), before);
}

async fn a_target_that_does_not_catch_up_holds_up_nobody<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, slow) = (cluster.raft(leader), next(leader));
    let before = leads(&raft);
    cluster.stores[&slow].set(Disk::Hangs);
    raft.write("lacks".to_owned()).await.expect("writes");
    let within = Some(calm().election_timeout * 2);
    let (begun, transfer) =
        (rt.now(), raft.transfer_leadership(TransferOptions { to: Some(slow), within }));
    raft.write("lacks too".to_owned()).await.expect("it serves");
    assert!(rt.now() - begun < calm().election_timeout / 2, "it was held up");
    assert_eq!(why(transfer.await, slow), TransferFailure::NotCaughtUp { lacks: 2 });
    raft.write("after".to_owned()).await.expect("it serves again");
    assert_eq!(leads(&raft), before);
    // Once it has caught up it can lead.
    cluster.stores[&slow].set(Disk::Works);
    let options = TransferOptions { within: Some(Duration::from_secs(30)), to: Some(slow) };
    assert_eq!(raft.transfer_leadership(options).await.expect("is transferred").leader, slow);
}

/// E8: what waits meanwhile is written then, by the old leader.
async fn a_target_that_is_not_elected_holds_up_writes_for_an_election_timeout<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, deaf) = (cluster.raft(leader), next(leader));
    let before = leads(&raft);
    cluster.faults.lose(move |message| {
        message.to.id == deaf && matches!(message.body, quorate::Body::TimeoutNow { .. })
    });
    let within = Some(Duration::from_secs(60));
    let begun = rt.now();
    let transfer = raft.transfer_leadership(TransferOptions { to: Some(deaf), within });
    settle(&rt).await;
    raft.write("held up".to_owned()).await.expect("it is written in the end");
    let held_up = rt.now() - begun;
    let timeout = calm().election_timeout;
    assert!(timeout <= held_up && held_up < 3 * timeout, "{held_up:?}");
    assert_eq!(why(transfer.await, deaf), TransferFailure::NotElected);
    assert_eq!(leads(&raft), before);
    cluster.faults.heal();
    assert_eq!(raft.transfer_leadership(deaf).await.expect("is transferred").leader, deaf);
}

async fn a_transfer_tells_who_leads_instead<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, dead) = (cluster.raft(leader), next(leader));
    cluster.network.isolate(dead);
    rt.sleep(3 * calm().heartbeat_interval).await;
    let within = Some(Duration::from_secs(60));
    let transfer = raft.transfer_leadership(TransferOptions { to: Some(dead), within });
    raft.step_down().await.expect("it leads");
    let TransferFailure::OtherLeader(led) = why(transfer.await, dead) else { panic!("no leader") };
    assert_eq!(leads(&raft), Some(led));
    assert_ne!(led.leader, dead);
}

async fn a_transfer_tells_that_nobody_leads<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, dead) = (cluster.raft(leader), next(leader));
    (1..=3).for_each(|id| cluster.network.isolate(id));
    rt.sleep(3 * calm().heartbeat_interval).await;
    let transfer = raft.transfer_leadership(dead);
    raft.step_down().await.expect("it leads");
    assert_eq!(why(transfer.await, dead), TransferFailure::NoLeader);
}

async fn a_node_campaigns_when_it_is_told_to<R: Executor>(rt: R) {
    let (mut cluster, leader) = formed(&rt).await;
    let led = cluster.raft(leader).campaign().await.expect("it leads already");
    assert_eq!(Some(led), leads(&cluster.raft(leader)));
    cluster.raft(leader).step_down().await.expect("it leads");
    let other = next(leader);
    let led = cluster.raft(other).campaign().await;
    // One of the others may have been quicker.
    match led {
        Ok(led) => assert_eq!(led.leader, other),
        Err(error) => assert!(
            matches!(error, CampaignError::LeaderIsAlive(_) | CampaignError::NotElected),
            "{error}"
        ),
    }
    // Nobody else can.
    let leader = cluster.leader().await;
    let candidate = next(leader);
    cluster.crash(leader);
    wait_for(&mut cluster.raft(candidate).metrics(), |m| m.leader != Some(leader)).await;
    let raft = cluster.node(candidate).raft();
    loop {
        match raft.campaign().await {
            Ok(led) => break assert_eq!(led.leader, candidate),
            Err(CampaignError::LeaderIsAlive(led)) if led.leader != leader => break,
            Err(error) => assert!(matches!(error, CampaignError::NotElected), "{error}"),
        }
    }
}

async fn a_campaign_is_refused_with_the_reason<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, other) = (cluster.raft(leader), next(leader));
    let led = leads(&raft).expect("it leads");
    let refused = cluster.raft(other).campaign().await;
    let Err(CampaignError::LeaderIsAlive(alive)) = refused else { panic!("{refused:?}") };
    assert_eq!(alive, led);
    assert_eq!(leads(&raft), Some(led), "nothing has changed");
    // The others hear the leader, this one does not.
    cluster.network.isolate(other);
    let cut_off = cluster.raft(other);
    wait_for(&mut cut_off.metrics(), |metrics| metrics.leader.is_none()).await;
    let refused = cut_off.campaign().await;
    assert!(matches!(refused, Err(CampaignError::NotElected)), "{refused:?}");
    cluster.network.heal();
    wait_for(&mut cut_off.metrics(), |metrics| metrics.leader == Some(leader)).await;
    assert_eq!(leads(&raft), Some(led), "no leader is unseated");

    let unformed = Cluster::start(&rt, 1, calm()).await;
    let refused = unformed.raft(1).campaign().await;
    assert!(matches!(refused, Err(CampaignError::NotVoter)), "{refused:?}");
}

async fn a_leader_steps_down_when_it_is_told_to<R: Executor>(rt: R) {
    let (cluster, leader) = formed(&rt).await;
    let (raft, other) = (cluster.raft(leader), next(leader));
    let refused = cluster.raft(other).step_down().await;
    let Err(StepDownError::NotLeader { leader: Some(known) }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(known.id, leader);
    let led = leads(&raft).expect("it leads");
    assert_eq!(cluster.node(leader).raft().step_down().await.expect("it leads"), led.term);
    assert_ne!(raft.metrics().borrow().role, Role::Leader);
    raft.write("after".to_owned()).await.expect("it waits for the next leader");
    let has_next = |metrics: &Metrics| metrics.term > led.term && metrics.leader.is_some();
    wait_for(&mut raft.metrics(), has_next).await;

    let alone = Cluster::formed(&rt, 1, calm()).await;
    let refused = alone.raft(1).step_down().await;
    assert!(matches!(refused, Err(StepDownError::NoOtherVoter)), "{refused:?}");
}

async fn those_who_wait_are_told_of_the_end<R: Executor>(rt: R) {
    let (mut cluster, leader) = formed(&rt).await;
    let (raft, dead) = (cluster.raft(leader), next(leader));
    cluster.network.isolate(dead);
    rt.sleep(3 * calm().heartbeat_interval).await;
    let within = Some(Duration::from_secs(60));
    let transfer = raft.transfer_leadership(TransferOptions { to: Some(dead), within });
    settle(&rt).await;
    cluster.crash(leader);
    assert!(matches!(transfer.await, Err(TransferError::Fatal(Fatal::Dropped))));
    assert!(matches!(
        raft.transfer_leadership(dead).await,
        Err(TransferError::Fatal(Fatal::Dropped))
    ));
    assert!(matches!(raft.campaign().await, Err(CampaignError::Fatal(Fatal::Dropped))));
    assert!(matches!(raft.step_down().await, Err(StepDownError::Fatal(Fatal::Dropped))));

    let failing = next(dead);
    let raft = cluster.node(failing).raft();
    cluster.stores[&failing].set(Disk::FailsWrites);
    cluster.network.heal();
    // The next term has to be written.
    let campaign = raft.campaign().await;
    if !matches!(campaign, Err(CampaignError::Fatal(_))) {
        raft.stopped().await.expect_err("it has failed");
    }
    let store = |fatal: &Fatal| matches!(fatal, Fatal::Store(_));
    let refused = raft.transfer_leadership(dead).await;
    assert!(matches!(refused, Err(TransferError::Fatal(fatal)) if store(&fatal)));
    assert!(matches!(raft.campaign().await, Err(CampaignError::Fatal(fatal)) if store(&fatal)));
    assert!(matches!(raft.step_down().await, Err(StepDownError::Fatal(fatal)) if store(&fatal)));
}

async fn a_read_whose_leader_dies_is_answered_by_the_next<R: Executor>(rt: R) {
    let (mut cluster, leader) = formed(&rt).await;
    let follower = cluster.raft(next(leader));
    cluster.crash(leader);
    assert_eq!(leads(&follower).map(|led| led.leader), Some(leader), "it is not missed yet");
    let read = follower.read(|journal: &Journal| journal.entries.clone());
    assert_eq!(read.await.expect("the next leader answers"), ["begin"]);
    assert_ne!(leads(&follower).map(|led| led.leader), Some(leader));
}

async fn reads_are_answered_while_leaders_stop_one_after_the_other<R: Executor>(rt: R) {
    let (mut cluster, _) = formed(&rt).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let reader = cluster.raft(next(leader));
        let (stop, mut stopped) = futures::channel::oneshot::channel::<()>();
        let reads = rt.spawn(async move {
            let mut count = 0;
            while stopped.try_recv() == Ok(None) {
                reader.read(|_: &Journal| ()).await.expect("is answered");
                count += 1;
            }
            count
        });
        cluster.stop(leader).await;
        cluster.leader().await;
        drop(stop);
        assert!(reads.await.expect("no panic") > 0);
        cluster.restart(leader).await;
    }
}
