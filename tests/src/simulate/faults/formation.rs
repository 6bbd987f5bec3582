//! A cluster that is formed while its nodes die, lose their disks, and are told other lists.
//!
//! At first each node is told the list of all nodes or another one. All lists of a run have a node
//! in common, so only one of them can come true. Again and again a node is killed, loses its disk,
//! is told another list, or all of that; the founder more often than others. Then all are told the
//! list of all, and disks are emptied that nothing else helps: those that have promised to be part
//! of another cluster; and all of them if a cluster of another list was formed, or one that has
//! lost a majority of its disks. Nobody writes before that.
//!
//! Now and then an *heir* is brought about on purpose: the founder loses its disk when others have
//! accepted its claim, the next disk claims anew, and then something of the first attempt comes, or
//! another list.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use quorate::sim::Crash;
use quorate::{Body, Executor, LogId, Message, NodeId, Obstacle, Replica, Standing};

use super::Calm;
use crate::simulate::cluster::{Cluster, NOBODY};
use crate::simulate::model::NodeModel;
use crate::simulate::observer::now;

/// How long it is gone on, at most.
const CHAOS: Duration = Duration::from_secs(4);

/// Between two of these events, at most.
const PAUSE: Duration = Duration::from_millis(400);

pub(super) async fn formation(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let lists = lists(&calm);
    let tell = |id: NodeId, promised: Option<BTreeSet<NodeId>>| {
        let fitting: Vec<_> = lists.iter().filter(|list| list.contains(&id)).collect();
        let list = founders_for(cluster, id).or(promised);
        let list = list.unwrap_or_else(|| (*draw.choose(&fitting)).clone());
        if list.len() != cluster.hosts.len() || list.contains(&NOBODY) {
            cluster.count("told another list");
        }
        cluster.tell(|| format!("node {id} is told the list {list:?}"));
        cluster.tell_list(id, list);
    };
    cluster.ids().into_iter().for_each(|id| tell(id, None));
    let end = now() + draw.duration(&(Duration::ZERO..CHAOS));
    while now() < end && calm.lasts(draw.duration(&(Duration::ZERO..PAUSE))).await {
        let ids = cluster.ids();
        if draw.chance(0.2) {
            heir(&calm).await;
            continue;
        }
        let any = if draw.chance(0.3) { ids[0] } else { *draw.choose(&ids) };
        let (crash, counted) = match draw.chance(0.5) {
            true => (Crash::Power, "power lost"),
            false => (Crash::Process, "process killed"),
        };
        // More often than by chance: where a promise is not durable yet, or one disk has all.
        let moment = *draw.choose(&[None, Some(Moment::Promises), Some(Moment::IsAlone)]);
        let met = match moment {
            Some(moment) => wait_for(&calm, moment).await,
            None => None,
        };
        let id = met.unwrap_or(any);
        let crash = if met.is_some() { Crash::Power } else { crash };
        let wanted = if met.is_some() && moment == Some(Moment::IsAlone) { 1.0 } else { 0.4 };
        let wipes = draw.chance(wanted) && may_wipe(cluster, id);
        let crash = if wipes { Crash::Power } else { crash };
        cluster.count(counted);
        cluster.kill(id, crash, draw.duration(&(Duration::ZERO..PAUSE)));
        let promised = wipes.then(|| promise_of(cluster, id)).flatten();
        if wipes {
            wipe(cluster, id);
        }
        if wipes || draw.chance(0.4) {
            tell(id, promised);
        }
    }
    settle(&calm).await;
}

/// A node loses its disk; its process is dead.
fn wipe(cluster: &Cluster, id: NodeId) {
    cluster.count("disk lost while a cluster is formed");
    let bound = cluster.observer.with_model(|model| model.bound());
    cluster.replace_disk(id);
    if bound == BTreeSet::from([id]) {
        cluster.observer.forget_cluster();
    }
}

/// What of a founder's first attempt, or of its lists, comes when its next disk has made another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    /// The first entry, which only the founder had (F4).
    FirstEntry,
    /// The next disk and one who has accepted claims of both are told another list (I5).
    List,
}

/// The founder of the list of all loses its disk when another node has accepted its claim. When
/// that node has accepted a claim of the next disk, too, something comes that is out of date.
async fn heir(calm: &Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let ids = cluster.ids();
    let [founder, others @ ..] = &*ids else { return };
    let is_begun = || cluster.observer.with_model(|model| !model.bound().is_empty());
    if others.is_empty() || is_begun() {
        return;
    }
    let late = *draw.choose(&[Late::FirstEntry, Late::List]);
    let member = *draw.choose(others);
    cluster.tell(|| format!("heir of {founder}, with {member}: {late:?}"));
    let held: Rc<RefCell<Vec<Message>>> = Rc::default();
    let hold = Rc::clone(&held);
    cluster.observer.filter(move |message| {
        let is_first = matches!(&message.body, Body::Append { entries, .. }
            if entries.first().is_some_and(|entry| entry.log_id == LogId::FIRST));
        if is_first {
            hold.borrow_mut().push(message.clone());
        }
        !is_first
    });
    // Where the list changes, one who is away keeps the cluster from being formed before.
    let absent = others.iter().copied().find(|id| *id != member).filter(|_| late == Late::List);
    if let Some(absent) = absent {
        cluster.kill(absent, Crash::Process, 4 * PAUSE);
    }
    let all: BTreeSet<_> = ids.iter().copied().collect();
    for id in &ids {
        if cluster.tell_list(*id, all.clone()) && Some(*id) != absent {
            cluster.kill(*id, Crash::Process, Duration::ZERO);
        }
    }
    succeed(calm, *founder, member, late, &held).await;
    cluster.observer.unfilter();
}

async fn succeed(
    calm: &Calm,
    founder: NodeId,
    member: NodeId,
    late: Late,
    held: &RefCell<Vec<Message>>,
) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let replica = || cluster.observer.with_model(|model| model.replica(founder));
    let has_accepted = |of: Option<Replica>| {
        cluster.observer.with_model(|model| {
            let claim = model.nodes[&member].durable.standing.claim();
            of.is_some() && claim.map(|claim| claim.founder) == of
        })
    };
    let is_ready = || match late {
        Late::FirstEntry => held.borrow().iter().any(|message| message.to.id == member),
        Late::List => has_accepted(replica()),
    };
    if !comes_soon(calm, is_ready).await || !may_wipe(cluster, founder) {
        return;
    }
    cluster.kill(founder, Crash::Power, draw.duration(&(Duration::ZERO..PAUSE)));
    wipe(cluster, founder);
    let first: Vec<_> = held.take().into_iter().filter(|message| message.to.id == member).collect();
    if !comes_soon(calm, || has_accepted(replica())).await {
        return;
    }
    cluster.count("claimed anew on another disk");
    match late {
        Late::FirstEntry => {
            for message in first {
                let boot = cluster.observer.boot_of(message.from);
                cluster.observer.deliver(message, boot);
            }
        }
        Late::List => {
            if cluster.observer.with_model(|model| !model.bound().is_empty()) {
                return;
            }
            let mut list = BTreeSet::from([founder, member]);
            list.extend(cluster.ids().into_iter().filter(|_| draw.chance(0.2)));
            cluster.tell(|| format!("nodes {founder} and {member} are told the list {list:?}"));
            for id in [founder, member] {
                cluster.tell_list(id, list.clone());
                cluster.kill(id, Crash::Process, Duration::ZERO);
            }
        }
    }
    calm.lasts(PAUSE).await;
}

/// Whether something is so within a few moments.
async fn comes_soon(calm: &Calm, is_so: impl Fn() -> bool) -> bool {
    for _ in 0..2 * PAUSE.as_millis() {
        if is_so() || !calm.lasts(Duration::from_millis(1)).await {
            break;
        }
    }
    is_so()
}

/// A moment at which a crash matters most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// A store is at a claim, or at being let in.
    Promises,
    /// No other disk has the first entry.
    IsAlone,
}

/// The node whose moment that is, if it comes soon.
async fn wait_for(calm: &Calm, moment: Moment) -> Option<NodeId> {
    for _ in 0..PAUSE.as_millis() {
        let met = calm.cluster.observer.with_model(|model| match moment {
            Moment::Promises => {
                let promises = |of: &NodeModel| of.waiting.iter().any(|w| w.standing.is_some());
                model.nodes.iter().find(|(_, of)| promises(of)).map(|(id, _)| *id)
            }
            Moment::IsAlone => {
                let bound = model.bound();
                bound.first().copied().filter(|_| bound.len() == 1)
            }
        });
        if met.is_some() || !calm.lasts(Duration::from_millis(1)).await {
            return met;
        }
    }
    None
}

/// What nodes are told: the list of all, and up to two others, all with one node in common.
fn lists(calm: &Calm) -> Vec<BTreeSet<NodeId>> {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let ids = cluster.ids();
    let common = *draw.choose(&ids);
    let mut lists = vec![ids.iter().copied().collect()];
    for _ in 0..draw.below(3) {
        let mut list: BTreeSet<_> = ids.iter().copied().filter(|_| draw.chance(0.6)).collect();
        list.insert(common);
        if draw.chance(0.3) {
            list.insert(NOBODY);
        }
        lists.push(list);
    }
    lists
}

/// What a node has to be told that is a founder of a cluster, and has no log, or lost it: with
/// another list its empty disk could well become part of another cluster.
fn founders_for(cluster: &Cluster, id: NodeId) -> Option<BTreeSet<NodeId>> {
    cluster.observer.with_model(|model| {
        let bound = model.bound();
        let first = model.configurations.get(&LogId::FIRST).filter(|_| !bound.is_empty())?;
        let founders = first.founders();
        (!bound.contains(&id) && founders.contains(&id)).then(|| founders.clone())
    })
}

/// What a node has to be told whose disk is about to be lost, if that has accepted a claim: its
/// founder may write the first entry, as the lost disk has promised to be a member. With another
/// list the empty disk could well become part of another cluster meanwhile. (Both are allowed:
/// these are two stores.)
fn promise_of(cluster: &Cluster, id: NodeId) -> Option<BTreeSet<NodeId>> {
    cluster.observer.with_model(|model| {
        let claim = model.nodes[&id].durable.standing.claim()?;
        (claim.founder.id != id && model.is_replica(claim.founder)).then(|| claim.ids())
    })
}

/// Whether a disk may be lost: as long as no store has a first entry, or no other one, any; then so
/// many as ever. Once most have had it, it may be committed, though disks were lost since.
fn may_wipe(cluster: &Cluster, id: NodeId) -> bool {
    cluster.observer.change_model(|model| model.was_founded |= model.is_founded());
    cluster.observer.with_model(|model| {
        let has_just_begun = !model.was_founded && model.bound().iter().all(|one| *one == id);
        has_just_begun || model.is_founded() && cluster.atlas.may_damage(id)
    })
}

/// The nodes of which the founder says that they have promised to be part of another cluster: that
/// of a claim that it made with a disk that is lost, or one whose members have all lost their
/// disks.
fn promised(cluster: &Cluster) -> BTreeSet<NodeId> {
    let metrics = cluster.ids().into_iter().filter_map(|id| cluster.metrics(id));
    let waits = metrics.flat_map(|metrics| metrics.waits_for.clone());
    let is_elsewhere = |obstacle: &Obstacle| {
        matches!(obstacle, Obstacle::Promised { .. } | Obstacle::OtherCluster)
    };
    let promised = waits.filter(|(_, obstacle)| is_elsewhere(obstacle));
    cluster.observer.with_model(|model| {
        let bound = model.bound();
        // (It may have another disk since that was said.)
        let has_promised = |id: &NodeId| {
            let standing = model.nodes.get(id).map(|of| &of.durable.standing);
            let is_other = match standing {
                // The same store may claim it anew.
                Some(Standing::Claimed(claim))
                    if model.is_replica(claim.founder)
                        && cluster.ids().first() == Some(&claim.founder.id) =>
                {
                    false
                }
                Some(Standing::Claimed(claim) | Standing::Contested(claim)) => {
                    claim.ids() != cluster.ids().into_iter().collect()
                }
                Some(Standing::Admitted(_)) => bound.is_empty(),
                _ => false,
            };
            is_other && !bound.contains(id)
        };
        promised.map(|(id, _)| id).filter(has_promised).collect()
    })
}

/// All are told the same list from now on, and the cluster is formed.
async fn settle(calm: &Calm) {
    let cluster = &calm.cluster;
    let all: BTreeSet<_> = cluster.ids().into_iter().collect();
    cluster.tell(|| "all are told the same list".to_owned());
    cluster.set_settled();
    for id in cluster.ids() {
        if cluster.tell_list(id, all.clone()) {
            cluster.kill(id, Crash::Process, Duration::ZERO);
        }
    }
    let until = now() + cluster.plan.patience();
    while now() < until && !cluster.observer.has_violation() {
        let (is_founded, is_lost) = cluster.observer.with_model(|model| {
            if model.bound().is_empty() {
                return (false, false);
            }
            let Some(first) = model.configurations.get(&LogId::FIRST) else {
                return (false, false);
            };
            let can_go_on = first.voters().agreed(|voter| model.is_replica(voter).into()) > 0;
            let is_ours = *first.founders() == all;
            (model.is_founded() && is_ours && can_go_on, !is_ours || !can_go_on)
        });
        if is_founded {
            break;
        }
        if is_lost {
            cluster.count("formed anew on empty disks");
            cluster.empty_all();
        }
        for id in promised(cluster) {
            cluster.count("disk emptied that had made another promise");
            cluster.kill(id, Crash::Power, Duration::ZERO);
            cluster.replace_disk(id);
        }
        calm.rt.sleep(Duration::from_millis(20)).await;
    }
    cluster.count("formed after others had tried");
    cluster.set_formed();
}
