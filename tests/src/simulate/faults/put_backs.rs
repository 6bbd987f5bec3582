//! Disks that are put back to what they were earlier in the run, as from a backup.
//!
//! Peers remember what a replica has promised, and tell it before they tell it anything else; a
//! node that has less stops, and gets an empty disk. That is all that can be done about a disk that
//! has forgotten something: nobody else can know it. So the runs keep to what can be promised:
//!
//! - If no peer that runs remembers what the earlier state has not, it is not put back, unless
//!   nothing was forgotten. (A rollback that nobody remembers can't be noticed.)
//! - What the node says meanwhile to the others is lost: they could elect it, or believe what it
//!   acknowledges, before it hears of those who remember.
//! - It counts as a lost disk from the moment that it is put back.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::sim::{Crash, DiskImage};
use quorate::{NodeId, Replica};

use super::Calm;
use crate::simulate::model::NodeModel;

/// A disk as it was.
struct Backup {
    replica: Replica,
    boot: u64,
    image: DiskImage,
    model: NodeModel,
}

/// How many backups are kept of each node.
const KEPT: usize = 3;

/// How long it takes at most until a node has noticed. Then its disk is lost as well.
const LIMIT: Duration = Duration::from_secs(8);

pub(super) async fn put_backs(calm: Calm) {
    let draw = &calm.draw;
    let mut backups: BTreeMap<NodeId, Vec<Backup>> = BTreeMap::new();
    while calm.lasts(draw.duration(&(Duration::ZERO..calm.mean))).await {
        if draw.chance(0.5) {
            back_up(&calm, &mut backups);
        } else {
            put_back(&calm, &mut backups).await;
        }
    }
}

fn back_up(calm: &Calm, backups: &mut BTreeMap<NodeId, Vec<Backup>>) {
    let (cluster, id) = (&calm.cluster, calm.any_node());
    let backup = cluster.observer.with_model(|model| {
        let of = &model.nodes[&id];
        // Not of a disk that has not begun, or is about to be lost.
        let is_good = model.is_founded() && !of.is_bad && of.durable.last().index > 0;
        let identity = of.identity.filter(|_| is_good && !cluster.atlas.is_impaired(id))?;
        Some(Backup {
            replica: Replica::new(id, identity.incarnation),
            boot: identity.boot,
            image: cluster.host(id).disk().durable(),
            model: of.clone(),
        })
    });
    if let Some(backup) = backup.filter(|_| !cluster.is_protected(id)) {
        let kept = backups.entry(id).or_default();
        if kept.len() == KEPT {
            kept.remove(calm.draw.index(KEPT));
        }
        kept.push(backup);
    }
}

async fn put_back(calm: &Calm, backups: &mut BTreeMap<NodeId, Vec<Backup>>) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    let id = calm.any_node();
    let Some(kept) = backups.get_mut(&id).filter(|kept| !kept.is_empty()) else { return };
    let backup = kept.remove(draw.index(kept.len()));
    let present = cluster.observer.with_model(|model| model.replica(id));
    if present != Some(backup.replica) || cluster.is_protected(id) || !cluster.may_damage(id) {
        return;
    }
    cluster.hold(id);
    let forgets =
        cluster.observer.with_model(|model| model.nodes[&id].has_forgotten(&backup.model));
    let mut remembering = BTreeMap::new();
    for peer in cluster.ids().into_iter().filter(|peer| *peer != id) {
        let memory = cluster.observer.recall(&calm.rt, peer, backup.replica).await;
        if let Some(memory) = memory.filter(|memory| backup.model.durable.lacks(peer, memory)) {
            remembering.insert(peer, memory);
        }
    }
    // Nobody else may have lost a disk meanwhile. A node that was put back to an earlier boot
    // without having forgotten anything would be refused for that, until it has started as often
    // again.
    let boot = cluster.observer.with_model(|model| model.nodes[&id].identity.map(|now| now.boot));
    let is_harmless = !forgets && boot == Some(backup.boot);
    let is_fair = cluster.may_damage(id) && (is_harmless || !remembering.is_empty());
    if !is_fair {
        cluster.release(id);
        return;
    }
    cluster.tell(|| {
        format!("the disk of node {id} is put back; {remembering:?} remember what it has forgotten")
    });
    let is_noticed = !remembering.is_empty();
    cluster.host(id).disk().replace(&backup.image);
    cluster.observer.put_back(id, &backup.model, backup.boot, remembering);
    if !is_noticed {
        cluster.count("disk put back that has forgotten nothing");
        cluster.release(id);
        return;
    }
    cluster.count("disk put back");
    cluster.atlas.put_back(id);
    cluster.release(id);
    let is_open = || cluster.observer.with_model(|model| model.nodes[&id].is_put_back);
    let is_remembered = || {
        let remembered = |model: &crate::simulate::model::Model| {
            model.remembering.get(&id).is_some_and(|peers| !peers.is_empty())
        };
        cluster.observer.with_model(remembered)
    };
    let mut left = LIMIT;
    while is_open() && is_remembered() && left > Duration::ZERO {
        let step = Duration::from_millis(20);
        left -= step;
        if !calm.lasts(step).await {
            break;
        }
    }
    if is_open() {
        // As somebody would who looks after it.
        cluster.count("disk put back, and replaced before that was noticed");
        cluster.kill(id, Crash::Power, Duration::ZERO);
        cluster.replace_disk(id);
    } else {
        cluster.count("disk put back, and noticed");
    }
}
