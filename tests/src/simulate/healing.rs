//! When all is well again: what of the cluster should be able to go on does, within a bound, and
//! its nodes agree.

use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use quorate::sim::{Crash, NetworkConfig, Sim};
use quorate::{Executor, NodeId};

use super::SimTask;
use super::checks::Verdict;
use super::cluster::{Cluster, Phase};
use super::faults::Fault;
use super::observer::now;
use super::profile::Profile;
use super::quiet;
use super::workload::clients;

/// How often it is looked whether something has come true.
const STEP: Duration = Duration::from_millis(50);

/// Mends all but what the core can do without, and gives the core: a majority at least, with all
/// whose disks are whole, or only so many of them.
pub fn heal(cluster: &Cluster) -> Vec<NodeId> {
    let (draw, ids) = (&cluster.faults, cluster.ids());
    cluster.network.heal_all();
    cluster.network.configure(NetworkConfig {
        jitter: 0.0,
        loss: 0.0,
        refusal: 0.0,
        hang: 0.0,
        ..cluster.plan.network.clone()
    });
    cluster.heal_names();
    for host in cluster.hosts.values() {
        host.resume();
        host.refuse_sockets(0.0);
        host.set_slowness(1);
        host.disk().resume();
        host.disk().configure(cluster.plan.disk.clone());
    }
    let mut core = ids.clone();
    let needs_all = matches!(cluster.plan.profile, Profile::Endings | Profile::Outside)
        || cluster.plan.has(Fault::Memberships);
    if !needs_all && draw.chance(0.4) {
        // Any majority, if all that are not whole come on top.
        let majority = ids.len() / 2 + 1;
        draw.shuffle(&mut core);
        core.sort_by_key(|id| cluster.atlas.is_impaired(*id));
        let impaired = ids.iter().filter(|id| cluster.atlas.is_impaired(**id)).copied();
        let whole = core.iter().take(majority).copied();
        core = whole.chain(impaired).collect::<BTreeSet<_>>().into_iter().collect();
        if !cluster.may_go_on(&core) {
            core = ids.clone();
        }
    }
    for id in ids.into_iter().filter(|id| !core.contains(id)) {
        leave_out(cluster, id);
    }
    cluster.tell(|| format!("all is well again for {core:?}"));
    core
}

/// A node that the core does without: it is dead, or cut off, or only half there.
fn leave_out(cluster: &Cluster, id: NodeId) {
    let draw = &cluster.faults;
    let (others, of) = (cluster.ids(), cluster.host(id).id());
    let rest = Duration::ZERO;
    match draw.below(4) {
        0 => {
            cluster.leave_down(id);
            cluster.kill(id, Crash::Power, rest);
        }
        1 => cluster.host(id).pause(),
        // It hears nothing, and goes on talking; or the other way round; or both.
        number => {
            for other in others.iter().filter(|other| **other != id) {
                let other = cluster.host(*other).id();
                if number == 2 || draw.chance(0.5) {
                    cluster.network.cut(other, of);
                }
                if number == 3 {
                    cluster.network.cut(of, other);
                }
            }
        }
    }
}

/// Who is left out and paused answers nobody, ever; so it ends.
pub fn kill_paused(cluster: &Cluster, core: &[NodeId]) {
    for (id, host) in &cluster.hosts {
        if !core.contains(id) && host.is_paused() {
            cluster.leave_down(*id);
            cluster.kill(*id, Crash::Process, Duration::ZERO);
        }
    }
}

/// Waits until something is so.
///
/// Errors: it isn't in time.
pub async fn comes_true(
    cluster: &Cluster,
    rt: &Sim,
    what: &str,
    limit: Duration,
    mut is_so: impl FnMut() -> bool,
) -> Verdict {
    let deadline = now() + limit;
    while !is_so() {
        if now() >= deadline || cluster.observer.has_violation() {
            return Err(format!("{what}: not within {limit:?}"));
        }
        rt.sleep(STEP).await;
    }
    Ok(())
}

/// The leader that all of these nodes know of. (Somebody who was to be left out may have come
/// through and be of use.)
pub fn leader_of(cluster: &Cluster, core: &[NodeId]) -> Option<NodeId> {
    let of = |id: &NodeId| {
        let metrics = cluster.metrics(*id)?;
        Some((metrics.term, metrics.leader?))
    };
    let (first, others) = core.split_first()?;
    let (term, leader) = of(first)?;
    let all = others.iter().all(|id| of(id) == Some((term, leader)));
    all.then_some(leader)
}

/// The core has a leader, and each of its nodes serves.
///
/// Where that takes long, clients rest: what a leader keeps for a node that gets its snapshot is
/// bounded, and where they write more than that while it is sent, that node gets one after the
/// other.
pub async fn converges(cluster: &Rc<Cluster>, rt: &Sim, core: &[NodeId]) -> Verdict {
    let limit = cluster.plan.patience();
    let (lull_at, deadline) = (now() + limit / 6, now() + limit);
    let has_leader = || leader_of(cluster, core).is_some();
    comes_true(cluster, rt, "all of the core know a leader", limit, has_leader).await?;
    for id in core {
        loop {
            let until = if now() < lull_at { lull_at } else { deadline };
            if within(rt, until, clients::is_served_by(cluster, *id)).await {
                break;
            }
            if now() >= deadline || cluster.observer.has_violation() {
                return Err(format!("node {id} does not serve within {limit:?}"));
            }
            if now() >= lull_at && cluster.phase() == Phase::Healed {
                cluster.tell(|| format!("node {id} does not serve yet: clients rest"));
                cluster.set_phase(Phase::Lull);
            }
            rt.sleep(STEP).await;
        }
    }
    cluster.set_phase(Phase::Healed);
    cluster.tell(|| "the core serves".to_owned());
    Ok(())
}

/// Whether something is so, and it is known in time.
async fn within(rt: &Sim, deadline: Duration, is_so: impl Future<Output = bool>) -> bool {
    rt.timeout(deadline.saturating_sub(now()), is_so).await.unwrap_or(false)
}

/// The clients get their last answers.
pub async fn ends(rt: &Sim, clients: Vec<SimTask>, limit: Duration) -> Verdict {
    let deadline = rt.now() + limit;
    for client in clients {
        match rt.timeout(deadline - rt.now(), client).await {
            Ok(ended) => ended.map_err(|error| format!("a client: {error}"))?,
            Err(_) => return Err(format!("a client has no answer after {limit:?}")),
        }
    }
    Ok(())
}

/// The nodes of the core have applied the same, and have the same state, byte by byte.
pub async fn agrees(cluster: &Rc<Cluster>, rt: &Sim, core: &[NodeId]) -> Verdict {
    let limit = cluster.plan.patience();
    let applied = || {
        let of = |id: &NodeId| cluster.metrics(*id).map(|metrics| metrics.applied);
        let all: Vec<_> = core.iter().map(of).collect();
        all.first().copied().flatten().filter(|first| all.iter().all(|one| *one == Some(*first)))
    };
    let committed = || cluster.observer.with_model(|model| model.last_committed());
    let same = || applied().is_some_and(|applied| applied == committed());
    loop {
        comes_true(cluster, rt, "all of the core have applied all", limit, same).await?;
        let before = committed();
        let mut states = Vec::new();
        for id in core {
            states.push(state_of(cluster, rt, *id).await?);
        }
        // What a client has passed on at last may come in between.
        if committed() != before {
            continue;
        }
        return match states.iter().zip(core).find(|(state, _)| **state != states[0]) {
            Some((_, id)) => Err(format!("the states of nodes {} and {id} differ", core[0])),
            None => Ok(()),
        };
    }
}

/// The state of a node, byte by byte.
async fn state_of(cluster: &Cluster, rt: &Sim, id: NodeId) -> Result<Bytes, String> {
    let limit = cluster.plan.patience();
    let deadline = now() + limit;
    loop {
        if let Some(raft) = cluster.raft(id)
            && let Ok(state) = raft.read(|ledger| ledger.encoded()).await
        {
            return Ok(state);
        }
        if now() >= deadline {
            return Err(format!("node {id} can't be read within {limit:?}"));
        }
        rt.sleep(STEP).await;
    }
}

/// Nothing is left lying about: no files, tasks or connections that nobody needs any more.
pub async fn is_tidy(cluster: &Rc<Cluster>, rt: &Sim, core: &[NodeId]) -> Verdict {
    let limit = cluster.plan.patience();
    let deadline = now() + limit;
    for id in core {
        while let Some(litter) = litter(cluster, *id) {
            if now() >= deadline {
                return Err(format!(
                    "node {id} has {litter}, after {limit:?} in which nothing happens"
                ));
            }
            rt.sleep(STEP).await;
        }
    }
    Ok(())
}

/// What a node has too much of.
fn litter(cluster: &Cluster, id: NodeId) -> Option<String> {
    let host = cluster.host(id);
    let files = host.disk().files();
    let count =
        |ending: &str| files.iter().filter(|path| path.to_string_lossy().ends_with(ending)).count();
    // Its own, and the next, which may be on its way; the log that is kept, and the segment that is
    // prepared.
    let (snapshots, drafts, segments) = (count(".snapshot"), count(".tmp"), count(".wal"));
    let log = cluster.observer.with_model(|model| {
        let log = &model.nodes[&id].durable;
        log.entries.iter().map(|entry| entry.bytes).sum::<usize>()
    });
    // A record takes more than its entries, more still with marks, and a segment may end early.
    let segment_bytes = cluster.plan.file.segment_bytes as usize;
    let needed = 4 + 12 * log / segment_bytes;
    // Those of the node, its store and its clients; and three for each connection that it has made
    // and two for each that it has accepted, of which there are two in each direction.
    let peers = cluster.hosts.len();
    let tasks = 16 + 10 * peers + 2 * cluster.plan.load.local_clients as usize;
    // In each direction, for messages and for snapshots.
    let connections = cluster.network.connections(host.id());
    // Other groups have snapshots of their own. What they have in old segments keeps these until
    // the store holds twice of what is needed, and four segments more; they and what all groups are
    // told need less than this.
    const NEEDED_BY_GROUPS: usize = 48 << 10;
    let has_groups = quiet::has_groups(&cluster.plan);
    let of_others = if has_groups { quiet::GROUPS.len() } else { 0 };
    let kept = if has_groups { needed + 4 + 2 * NEEDED_BY_GROUPS / segment_bytes } else { 0 };
    if snapshots > 2 + of_others || drafts > 1 || segments > needed + kept {
        return Some(format!(
            "{snapshots} snapshots, {drafts} drafts and {segments} segments for a log of {log} bytes"
        ));
    }
    if host.tasks() > tasks || connections > 4 * peers {
        return Some(format!("{} tasks and {connections} connections", host.tasks()));
    }
    None
}
