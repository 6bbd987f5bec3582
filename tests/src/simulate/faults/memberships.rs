//! Memberships that are changed all the time, at any node, to anything: founders leave, spare nodes
//! come, learners are promoted, changes are cancelled and overtaken. And what must have come of it
//! when all is well again.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use quorate::rt::Task;
use quorate::sim::{Crash, Sim};
use quorate::{
    ChangeError, ChangeId, ChangeOptions, Ending, Executor, Member, MemberRole, Membership, NodeId,
    Raft, Role, Target,
};

use super::super::asked;
use super::super::checks::Verdict;
use super::super::cluster::{Cluster, Phase};
use super::super::healing::comes_true;
use super::super::ledger::Ledger;
use super::super::model::Model;
use super::super::observer::now;
use super::Calm;

/// A change is taken back after so long at the latest. It takes an election timeout to get a vote.
const CATCH_UP: Duration = Duration::from_secs(8);

/// A request may be on its way for so long, in a connection that hangs, after whoever has made it
/// was told that its outcome is unknown.
const LATE: Duration = Duration::from_secs(15);

pub(super) async fn memberships(calm: Calm) {
    let draw = &calm.draw;
    while calm.passes().await {
        match draw.below(14) {
            0..7 => begin(&calm, calm.any_running(), CATCH_UP),
            10 | 11 => begin_in_vain(&calm).await,
            12 => ask_a_paused_leader(&calm).await,
            13 => begin_and_hear_late(&calm).await,
            7 if draw.chance(0.5) => cancel_in_joint(&calm),
            7 => cancel_or_await(&calm),
            _ => renew(&calm),
        }
    }
}

/// A leader is asked for a change, and is cut off before anybody else hears of it: its
/// configuration is replaced by what the next leader has (M8), or by its snapshot (M6), and with it
/// what goes by it.
async fn begin_in_vain(calm: &Calm) {
    let cluster = &calm.cluster;
    let Some(leader) = calm.leader() else { return };
    let host = |id: NodeId| cluster.host(id).id();
    let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    cluster.tell(|| format!("leader {leader} is cut off, and asked for a change"));
    cluster.count("change asked of a leader that is cut off");
    for other in &others {
        cluster.network.cut(host(leader), host(*other));
        cluster.network.cut(host(*other), host(leader));
    }
    begin(calm, Some(leader), CATCH_UP);
    calm.lasts(cluster.plan.config.election_timeout * 3).await;
    if calm.draw.chance(0.5) {
        cluster.count("log purged behind a change that others do not know");
        for raft in others.iter().filter_map(|id| cluster.raft(*id)) {
            let purged = async move {
                if raft.snapshot().await.is_ok() {
                    let _it_may_have_ended = raft.purge().await;
                }
            };
            calm.rt.spawn(purged).detach();
        }
        calm.lasts(cluster.plan.config.election_timeout).await;
    }
    for other in &others {
        cluster.network.heal(host(leader), host(*other));
        cluster.network.heal(host(*other), host(leader));
    }
}

/// A leader is paused. When others have changed the membership, it is asked for the one that it
/// still knows, and goes on: it must not say that this is so (X19).
async fn ask_a_paused_leader(calm: &Calm) {
    let cluster = &calm.cluster;
    let Some(leader) = calm.leader() else { return };
    let Some(raft) = cluster.raft(leader) else { return };
    let Some(membership) = raft.metrics().borrow().membership.clone() else { return };
    cluster.tell(|| format!("leader {leader} is paused, and asked for the members that it knows"));
    cluster.count("change asked of a leader that is paused");
    let election = cluster.plan.config.election_timeout;
    cluster.host(leader).pause();
    calm.lasts(election * 3).await;
    let leads = |id: &NodeId| {
        cluster.metrics(*id).is_some_and(|metrics| metrics.role == Role::Leader) && *id != leader
    };
    begin(calm, cluster.ids().into_iter().find(leads), CATCH_UP);
    calm.lasts(election * 3).await;
    ask(calm, &raft, membership.target(), None, CATCH_UP);
    cluster.host(leader).resume();
}

/// A leader is asked for a change that ends soon, and a follower for another, which hears late that
/// it is refused. Meanwhile it asks again, and that must not be taken (X18).
async fn begin_and_hear_late(calm: &Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let Some(leader) = calm.leader() else { return };
    let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    if others.is_empty() {
        return;
    }
    let follower = *draw.choose(&others);
    cluster.tell(|| format!("node {follower} hears late from leader {leader}"));
    cluster.count("change asked for, and its answer late");
    let election = cluster.plan.config.election_timeout;
    let (from, to) = (cluster.host(leader).id(), cluster.host(follower).id());
    cluster.network.stall(from, to, election * 9 / 10);
    begin(calm, Some(leader), Duration::from_millis(20));
    calm.lasts(Duration::from_millis(5)).await;
    begin(calm, Some(follower), CATCH_UP);
    calm.lasts(election).await;
}

/// A node is asked for a change to anything, which is to catch up in this time at most.
fn begin(calm: &Calm, node: Option<NodeId>, catch_up: Duration) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let Some(raft) = node.and_then(|id| cluster.raft(id)) else { return };
    let Some(membership) = raft.metrics().borrow().membership.clone() else { return };
    let target = target(calm, &membership);
    let follows = draw.chance(0.5).then(|| membership.last_change());
    ask(calm, &raft, target, follows, catch_up);
}

fn ask(
    calm: &Calm,
    raft: &Raft<Ledger>,
    target: Target,
    follows: Option<ChangeId>,
    catch_up: Duration,
) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let observer = &cluster.observer;
    let catch_up = draw.duration(&(Duration::from_millis(1)..catch_up));
    let options = ChangeOptions {
        follows,
        catch_up: observer.changes.borrow_mut().catch_up(catch_up),
        allow_lower_tolerance: draw.chance(0.9),
    };
    let node = raft.id();
    cluster.tell(|| format!("node {node} is asked for the members {target}"));
    cluster.count("change asked for");
    let begun = observer.with_model(Model::last_committed);
    let number = observer.changes.borrow_mut().ask(node, target.clone(), options.catch_up, begun);
    let (of_task, change) = (Rc::clone(cluster), raft.change_membership(target, options));
    cluster.open_changes.update(|open| open + 1);
    let answered = async move {
        let outcome = change.await;
        of_task.open_changes.update(|open| open - 1);
        of_task.count(match &outcome {
            Ok(_) => "change done",
            Err(ChangeError::Refused(_)) => "change refused",
            Err(ChangeError::Late { .. }) => "change late",
            Err(ChangeError::Cancelled) => "change cancelled",
            Err(ChangeError::Superseded { .. }) => "change superseded",
            Err(ChangeError::NotLeader { .. }) => "change without a leader",
            Err(_) => "change unknown",
        });
        of_task.tell(|| match &outcome {
            Ok(change) => format!("node {node} says that change {change} is done"),
            Err(error) => format!("node {node} says of a change: {error}"),
        });
        accuse(&of_task, |model| {
            of_task.observer.changes.borrow_mut().answer(number, outcome, model)
        });
    };
    calm.rt.spawn(answered).detach();
}

/// Any nodes in any roles, of which one at least votes. As often as not it is near to what there
/// is.
fn target(calm: &Calm, membership: &Membership) -> Target {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let ids = cluster.ids();
    let mut target = match draw.chance(0.5) {
        true => membership.target(),
        false => Target::default(),
    };
    let changes = if target.members.is_empty() { ids.len() } else { 1 + draw.index(2) };
    for _ in 0..changes {
        let id = *draw.choose(&ids);
        let role = match draw.below(5) {
            0 => None,
            1 => Some(MemberRole::Learner),
            _ => Some(MemberRole::Voter),
        };
        let priority = u8::from(draw.chance(0.2));
        let member = |role| Member { address: cluster.listed_address(id), role, priority };
        match role {
            Some(role) => drop(target.members.insert(id, member(role))),
            None => drop(target.members.remove(&id)),
        }
    }
    if !target.members.values().any(|member| member.role == MemberRole::Voter) {
        let id = *draw.choose(&ids);
        let address = cluster.listed_address(id);
        let member = Member { address, role: MemberRole::Voter, priority: 0 };
        target.members.insert(id, member);
    }
    target
}

fn accuse(cluster: &Cluster, verdict: impl FnOnce(&Model) -> Verdict) {
    let verdict = cluster.observer.with_model(verdict);
    cluster.observer.accuse("changes", verdict, now());
}

/// A node is asked to cancel the change that it sees under way, or another one to wait for it.
fn cancel_or_await(calm: &Calm) {
    let cluster = &calm.cluster;
    let Some(raft) = calm.any_running().and_then(|id| cluster.raft(id)) else { return };
    let membership = raft.metrics().borrow().membership.clone();
    let Some(change) = membership.and_then(|m| Some(m.change()?.id)) else { return };
    let of_task = Rc::clone(cluster);
    if calm.draw.chance(0.3) {
        let Some(raft) = calm.any_running().and_then(|id| cluster.raft(id)) else { return };
        let (node, awaited) = (raft.id(), raft.await_change(change));
        cluster.tell(|| format!("node {node} is asked to wait for change {change}"));
        let answered = async move {
            let told = awaited.await;
            of_task.tell(|| format!("node {node} says of change {change}: {told:?}"));
            of_task.count("change awaited elsewhere");
            accuse(&of_task, |model| asked::is_ended(node, change, &Ending::Done, &told, model));
        };
        return calm.rt.spawn(answered).detach();
    }
    calm.rt.spawn(cancel(of_task, raft, change)).detach();
}

/// The next change that a node knows to be in its joint configuration is cancelled just then.
fn cancel_in_joint(calm: &Calm) {
    let cluster = Rc::clone(&calm.cluster);
    let Some(raft) = calm.any_running().and_then(|id| cluster.raft(id)) else { return };
    let (rt, until) = (calm.rt.clone(), now() + CATCH_UP);
    let waits = async move {
        while now() < until && cluster.phase() == Phase::Faults {
            rt.sleep(Duration::from_millis(1)).await;
            let membership = raft.metrics().borrow().membership.clone();
            let joint = membership.filter(|membership| membership.voters().is_joint());
            if let Some(change) = joint.and_then(|membership| Some(membership.change()?.id)) {
                cluster.count("change cancelled in its joint configuration");
                return cancel(cluster, raft, change).await;
            }
        }
    };
    calm.rt.spawn(waits).detach();
}

async fn cancel(cluster: Rc<Cluster>, raft: Raft<Ledger>, change: ChangeId) {
    let (node, cancelled) = (raft.id(), raft.cancel_change(change));
    cluster.tell(|| format!("node {node} is asked to cancel change {change}"));
    let told = cancelled.await;
    cluster.tell(|| format!("node {node} says of cancelling change {change}: {told:?}"));
    if told.is_ok() {
        cluster.count("change taken back");
    }
    accuse(&cluster, |model| asked::is_ended(node, change, &Ending::Cancelled, &told, model));
}

/// Nodes that have left get empty disks, as they are of no use otherwise.
fn renew(calm: &Calm) {
    for id in calm.cluster.ids() {
        if calm.draw.chance(0.7) {
            renew_one(&calm.cluster, id);
        }
    }
}

fn renew_one(cluster: &Cluster, id: NodeId) {
    if cluster.observer.with_model(|model| model.has_left(id) && model.replica(id).is_some()) {
        cluster.count("disk of a node that has left emptied");
        cluster.kill(id, Crash::Power, Duration::ZERO);
        cluster.replace_disk(id);
    }
}

/// When all is well again, no change is under way before long, the configuration is not joint, and
/// its members are those of the target that was reached last. Gives the members.
pub async fn settles(cluster: &Rc<Cluster>, rt: &Sim) -> Result<Vec<NodeId>, String> {
    let limit = cluster.plan.patience() + CATCH_UP;
    let answered = || cluster.open_changes.get() == 0;
    comes_true(cluster, rt, "all know what came of their changes", limit, answered).await?;
    let settled = || cluster.observer.with_model(|model| model.settled_configuration().cloned());
    let membership = loop {
        comes_true(cluster, rt, "no change is under way", limit, || settled().is_some()).await?;
        let before = settled();
        rt.sleep(LATE).await;
        match settled() {
            Some(membership) if before.as_ref() == Some(&membership) => break membership,
            _ => {}
        }
    };
    let asked: BTreeMap<ChangeId, Target> = cluster.observer.with_model(|model| {
        let changes = model.configurations.values().filter_map(Membership::change);
        changes.map(|change| (change.id, change.target.clone())).collect()
    });
    is_reached(&membership, &asked)?;
    Ok(membership.target().members.into_keys().collect())
}

/// Whether nobody was forgotten.
fn is_reached(membership: &Membership, asked: &BTreeMap<ChangeId, Target>) -> Verdict {
    let is_done = |id: &&ChangeId| membership.ending_of(**id) == Some(&Ending::Done);
    // (What was forgotten of earlier ones does not matter: changes are made one after the other.)
    let Some(last) = membership.endings().map(|(id, _)| id).rfind(is_done) else {
        return Ok(());
    };
    let Some(target) = asked.get(last) else { return Ok(()) };
    match membership.target() == *target {
        true => Ok(()),
        false => {
            Err(format!("the members are {}, and {target} were asked for", membership.target()))
        }
    }
}
