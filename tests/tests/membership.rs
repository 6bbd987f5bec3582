//! Clusters that change while they serve, on each runtime: one call each, from any node.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use quorate::{
    ChangeError, ChangeOptions, ChangeRefusal, ChangeWait, Ending, Executor, MemStore, Membership,
    NodeId, Role, Target, WriteError,
};
use quorate_tests::{Cluster, on_each_runtime, quick, wait_for};

on_each_runtime!(
    a_cluster_grows_and_shrinks_while_it_serves,
    all_nodes_are_replaced_one_after_the_other_and_all_at_once,
    a_node_that_never_comes_is_named_and_the_change_is_taken_back,
    a_change_is_cancelled_and_awaited_on_another_node,
    a_second_change_is_refused_and_one_that_follows_takes_its_place,
    a_node_that_was_removed_says_so,
    a_change_without_a_leader_has_no_effect,
    a_node_that_stops_leaves_its_change_to_the_others,
    a_plan_shows_the_way,
);

/// One node that is a cluster, and others that wait to be let in.
async fn alone<R: Executor>(rt: &R, nodes: u64) -> Cluster<R> {
    let cluster = Cluster::start(rt, nodes, quick()).await;
    cluster.raft(1).initialize([(1, "node-1")]).await.expect("forms");
    cluster.raft(1).read(|_| ()).await.expect("leads");
    cluster
}

fn voters(ids: impl IntoIterator<Item = NodeId>) -> Target {
    let add = |target: Target, id| target.with_voter(id, format!("node-{id}")).expect("is new");
    ids.into_iter().fold(Target::default(), add)
}

fn lower() -> ChangeOptions {
    ChangeOptions { allow_lower_tolerance: true, ..ChangeOptions::default() }
}

fn membership<R: Executor>(cluster: &Cluster<R>, id: NodeId) -> Membership {
    cluster.raft(id).metrics().borrow().membership.clone().expect("it is a member")
}

/// Writes line after line at node 1, until it is told to stop. Gives what was acknowledged.
fn writes<R: Executor>(
    cluster: &Cluster<R>,
    stop: &Rc<Cell<bool>>,
) -> impl Future<Output = Vec<String>> + use<R> {
    let raft = cluster.raft(1);
    let (stop, rt) = (Rc::clone(stop), cluster.rt.clone());
    async move {
        let mut written = Vec::new();
        for number in 0.. {
            if stop.get() {
                break;
            }
            let line = number.to_string();
            match raft.write(line.clone()).await {
                Ok(_) => written.push(line),
                // It was removed, or has never been a member.
                Err(WriteError::NotLeader { .. }) => rt.sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
        written
    }
}

async fn a_cluster_grows_and_shrinks_while_it_serves<R: Executor>(rt: R) {
    let cluster = alone(&rt, 5).await;
    let stop = Rc::new(Cell::new(false));
    let written = Rc::new(RefCell::new(Vec::new()));
    let (client, acknowledged) = (writes(&cluster, &stop), Rc::clone(&written));
    let client = rt.spawn(async move { *acknowledged.borrow_mut() = client.await });

    // 1 -> 3 -> 5 -> 3 -> 1: one call each, and asked of a node that leads or of one that doesn't.
    for (asked, size) in [(1, 3), (3, 5), (2, 3), (1, 1)] {
        let target = voters(1..=size);
        cluster.raft(asked).change_membership(target.clone(), lower()).await.expect("changes");
        assert_eq!(membership(&cluster, asked).target(), target);
    }
    stop.set(true);
    client.await.expect("ends");
    let journal = cluster.journal(1).await;
    let written = written.take();
    assert!(!written.is_empty());
    let kept: BTreeSet<_> = journal.iter().collect();
    assert!(written.iter().all(|line| kept.contains(line)), "an acknowledged write is lost");
    assert_eq!(kept.len(), journal.len(), "a write has taken effect twice");
}

async fn all_nodes_are_replaced_one_after_the_other_and_all_at_once<R: Executor>(rt: R) {
    let cluster = alone(&rt, 6).await;
    cluster.raft(1).change_membership(voters(1..=3), lower()).await.expect("grows");
    cluster.raft(1).write("first".to_owned()).await.expect("writes");
    for (old, new) in [(1, 4), (2, 5), (3, 6)] {
        let asked = cluster.raft(if old == 3 { 4 } else { 3 });
        let present = asked.metrics().borrow().membership.clone().expect("a member");
        let target = present.target().replaced(old, new, format!("node-{new}")).expect("known");
        asked.change_membership(target, ChangeOptions::default()).await.expect("replaces");
    }
    assert_eq!(membership(&cluster, 4).target(), voters(4..=6));
    assert_eq!(cluster.journal(5).await, ["first"]);
}

async fn a_node_that_never_comes_is_named_and_the_change_is_taken_back<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let raft = cluster.raft(leader);
    let before = membership(&cluster, leader).target();
    let target = before.clone().with_voter(9, "node-9").expect("is new");
    let catch_up = Duration::from_millis(400);
    let options = ChangeOptions { catch_up, ..ChangeOptions::default() };
    let change = raft.change_membership(target, options);
    let is_named = |metrics: &quorate::Metrics| {
        let waits = metrics.change.as_ref().and_then(|change| change.waits_for.get(&9));
        matches!(waits, Some(ChangeWait::Obstacle(_)))
    };
    let metrics = wait_for(&mut raft.metrics(), is_named).await;
    let waits = &metrics.change.expect("is under way").waits_for;
    assert_eq!(waits.keys().collect::<Vec<_>>(), [&9], "{waits:?}");
    let late = change.await.expect_err("nobody is there");
    let ChangeError::Late { waits_for } = &late else { panic!("{late:?}") };
    assert_eq!(waits_for, &BTreeSet::from([9]));
    assert_eq!(late.to_string(), "the change was taken back: in time, node 9 had not caught up");
    assert_eq!(membership(&cluster, leader).target(), before);
    raft.write("on".to_owned()).await.expect("it goes on");
}

async fn a_change_is_cancelled_and_awaited_on_another_node<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let other = leader % 3 + 1;
    let before = membership(&cluster, leader).target();
    let target = before.clone().with_voter(9, "node-9").expect("is new");
    let change = cluster.raft(leader).change_membership(target, ChangeOptions::default());
    let begun = |metrics: &quorate::Metrics| {
        metrics.membership.as_ref().is_some_and(|membership| membership.change().is_some())
    };
    let metrics = wait_for(&mut cluster.raft(other).metrics(), begun).await;
    let membership_now = metrics.membership.expect("it is a member");
    let id = membership_now.change().expect("is under way").id;
    let awaited = cluster.raft(other).await_change(id);
    assert_eq!(cluster.raft(other).cancel_change(id).await.expect("is taken back"), id);
    assert!(matches!(change.await, Err(ChangeError::Cancelled)));
    assert!(matches!(awaited.await, Err(ChangeError::Cancelled)));
    assert_eq!(membership(&cluster, other).target(), before);
    assert_eq!(membership(&cluster, other).ending_of(id), Some(&Ending::Cancelled));
    let again = cluster.raft(other).cancel_change(id).await;
    assert_eq!(again.expect("it is cancelled"), id);
    let unknown = cluster.raft(other).cancel_change(quorate::ChangeId(7)).await;
    assert!(
        matches!(unknown, Err(ChangeError::Refused(ChangeRefusal::NotUnderWay))),
        "{unknown:?}"
    );
    let unknown = cluster.raft(other).await_change(quorate::ChangeId(7)).await;
    assert!(matches!(unknown, Err(ChangeError::Unknown { .. })), "{unknown:?}");
}

async fn a_second_change_is_refused_and_one_that_follows_takes_its_place<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 4, quick()).await;
    let list = [(1, "node-1"), (2, "node-2"), (3, "node-3")];
    cluster.raft(1).initialize(list).await.expect("forms");
    let leader = cluster.raft(1).metrics().borrow().leader.expect("it is formed");
    let raft = cluster.raft(leader);
    let base = membership(&cluster, leader).target();
    let absent = base.clone().with_voter(9, "node-9").expect("is new");
    let first = raft.change_membership(absent, ChangeOptions::default());
    let is_begun = |metrics: &quorate::Metrics| metrics.change.is_some();
    wait_for(&mut raft.metrics(), is_begun).await;

    let target = base.with_voter(4, "node-4").expect("is new");
    let refused = raft.change_membership(target.clone(), ChangeOptions::default()).await;
    let Err(ChangeError::Refused(ChangeRefusal::UnderWay { membership })) = refused else {
        panic!("{refused:?}")
    };
    let under_way = membership.change().expect("is under way").id;
    let follows = |id| ChangeOptions { follows: Some(id), ..ChangeOptions::default() };
    let lost = raft.change_membership(target.clone(), follows(quorate::ChangeId(7))).await;
    assert!(matches!(&lost, Err(ChangeError::Refused(ChangeRefusal::Conflict { .. }))), "{lost:?}");
    let second = raft.change_membership(target.clone(), follows(under_way)).await;
    let second = second.expect("it takes its place");
    let superseded = first.await;
    assert!(
        matches!(superseded, Err(ChangeError::Superseded { by }) if by == second),
        "{superseded:?}"
    );
    let now = raft.metrics().borrow().membership.clone().expect("a member");
    assert_eq!((now.target(), now.last_change()), (target, second));
}

async fn a_node_that_was_removed_says_so<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    let leader = cluster.leader().await;
    let others: Vec<NodeId> = (1..=3).filter(|id| *id != leader).collect();
    let present = membership(&cluster, leader);
    let target = present.target().without(leader).expect("a member");
    // The leader is asked itself: it transfers leadership, and knows that it is gone.
    let raft = cluster.raft(leader);
    raft.change_membership(target.clone(), lower()).await.expect("it leaves");
    let refused = raft.write("too late".to_owned()).await.expect_err("it is no member");
    let WriteError::NotLeader { why, .. } = &refused else { panic!("{refused:?}") };
    assert!(why.to_string().contains("removed"), "{refused}");
    let new = cluster.raft(others[0]);
    let is_led = |metrics: &quorate::Metrics| metrics.leader.is_some_and(|id| id != leader);
    let metrics = wait_for(&mut new.metrics(), is_led).await;
    assert_eq!(metrics.membership.expect("a member").target(), target);
    new.write("without it".to_owned()).await.expect("writes");
    let term = new.metrics().borrow().term;
    // It causes no election.
    rt.sleep(6 * quick().election_timeout).await;
    assert_eq!(raft.metrics().borrow().role, Role::Follower);
    assert_eq!(new.metrics().borrow().term, term);
}

async fn a_change_without_a_leader_has_no_effect<R: Executor>(rt: R) {
    let cluster = Cluster::formed(&rt, 3, quick()).await;
    for other in [2, 3] {
        cluster.network.isolate(other);
    }
    let raft = cluster.raft(2);
    wait_for(&mut raft.metrics(), |metrics| metrics.leader.is_none()).await;
    let target = membership(&cluster, 2).target().without(3).expect("a member");
    let refused = raft.change_membership(target, lower()).await;
    assert!(matches!(refused, Err(ChangeError::NotLeader { .. })), "{refused:?}");
    assert_eq!(membership(&cluster, 2).target().members.len(), 3);
}

async fn a_node_that_stops_leaves_its_change_to_the_others<R: Executor>(rt: R) {
    let mut cluster = Cluster::<R, MemStore>::start(&rt, 4, quick()).await;
    let list = [(1, "node-1"), (2, "node-2"), (3, "node-3")];
    cluster.raft(1).initialize(list).await.expect("forms");
    cluster.raft(1).read(|_| ()).await.expect("reads");
    let leader = cluster.raft(1).metrics().borrow().leader.expect("it is formed");
    let asked = leader % 3 + 1;
    let is_member = |metrics: &quorate::Metrics| metrics.membership.is_some();
    wait_for(&mut cluster.raft(asked).metrics(), is_member).await;
    cluster.crash(4);
    let target = voters(1..=4);
    let change = cluster.raft(asked).change_membership(target.clone(), ChangeOptions::default());
    let begun = |metrics: &quorate::Metrics| {
        metrics.membership.as_ref().is_some_and(|membership| membership.change().is_some())
    };
    wait_for(&mut cluster.raft(asked).metrics(), begun).await;
    cluster.stop(asked).await;
    assert!(matches!(change.await, Err(ChangeError::Shutdown)));
    cluster.restart(4).await;
    let done = |metrics: &quorate::Metrics| {
        let membership = metrics.membership.as_ref();
        membership.is_some_and(|m| m.change().is_none() && m.target() == target)
    };
    wait_for(&mut cluster.raft(leader).metrics(), done).await;
}

async fn a_plan_shows_the_way<R: Executor>(rt: R) {
    let cluster = Cluster::start(&rt, 1, quick()).await;
    let raft = cluster.raft(1);
    assert!(matches!(raft.plan(&voters([1])), Err(ChangeRefusal::Target(_))), "it is not formed");
    raft.initialize([(1, "node-1")]).await.expect("forms");
    let plan = raft.plan(&voters([1, 2, 3])).expect("can be one");
    let steps: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "add nodes 2, 3 as learners, when they answer",
            "wait until nodes 2, 3 have caught up",
            "voters 1, 2, 3 joint with 1",
            "voters 1, 2, 3",
        ]
    );
    assert_eq!((plan.tolerates_now, plan.tolerates_at_least), (0, 0));
}
