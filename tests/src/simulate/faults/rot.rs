//! Disks that change what is on them, and disks that are lost: never more of them than the atlas
//! allows.

use std::path::PathBuf;
use std::time::Duration;

use quorate::sim::Crash;
use quorate::{Executor, NodeId};

use super::super::cluster::Phase;
use super::Calm;

pub(super) async fn rot(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.faults);
    while calm.passes().await {
        let id = calm.any_node();
        let disk = cluster.host(id).disk();
        let files = where_rot_shows(&disk.files());
        if files.is_empty() || !cluster.may_damage(id) {
            continue;
        }
        let path = draw.choose(&files);
        let len = disk.durable().files.get(path).map_or(0, Vec::len) as u64;
        if len == 0 {
            continue;
        }
        let (offset, bit) = (draw.below(len), draw.below(8) as u8);
        cluster.tell(|| format!("a bit of {} at {offset} on node {id} flips", path.display()));
        if disk.flip_bit(path, offset, bit).is_ok() {
            is_bad(&calm, id);
        }
    }
}

fn is_bad(calm: &Calm, id: NodeId) {
    calm.cluster.atlas.rots(id);
    calm.cluster.observer.change_model(|model| {
        if let Some(of) = model.nodes.get_mut(&id) {
            of.is_bad = true;
        }
    });
}

/// The files in which a change is noticed for sure: snapshots, and segments of the log that are
/// followed by a record, so not the last ones. (What can't be noticed in the last batch of all is
/// told in the description of the format.)
fn where_rot_shows(files: &[PathBuf]) -> Vec<PathBuf> {
    let has = |path: &PathBuf, extension: &str| {
        path.extension().is_some_and(|of_path| of_path == extension)
    };
    let segments: Vec<_> = files.iter().filter(|path| has(path, "wal")).collect();
    let snapshots = files.iter().filter(|path| has(path, "snapshot"));
    // The last is prepared and empty, the one before is written to.
    let followed = segments.len().saturating_sub(3);
    segments.into_iter().take(followed).chain(snapshots).cloned().collect()
}

/// How often it is looked whether a write that went astray is followed by others.
const STEP: Duration = Duration::from_millis(5);

/// A write goes to another place of its file. In the log that is noticed as soon as something is
/// written behind it, and until then the node must live: what is lost in the last batch of all
/// can't be told from what was never written (see the description of the format).
pub(super) async fn misdirections(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.faults);
    while calm.passes().await {
        let id = calm.any_node();
        let disk = cluster.host(id).disk();
        let files = disk.files();
        let logs = files.iter().filter(|path| path.extension().is_some_and(|is| is == "wal"));
        // The last one is prepared and empty, the one before is written to.
        let Some(path) = logs.rev().nth(1) else { continue };
        let is_calm = cluster.raft(id).is_some()
            && !cluster.host(id).is_doomed()
            && disk.config() == cluster.plan.disk;
        if !is_calm || !cluster.may_damage(id) {
            continue;
        }
        let ahead = draw.within(&(1..16 << 10));
        cluster.count("write misdirected");
        cluster.tell(|| format!("node {id} will write {ahead} bytes too far into {path:?}"));
        let (Ok(()), Some(before)) = (disk.misdirect(path, ahead), disk.writes(path)) else {
            continue;
        };
        is_bad(&calm, id);
        cluster.protect(id, true);
        // That one, and two of which one is a sync marker, or a record, behind it; and they are
        // durable: a record that is written over the sync marker, and lost, takes that with it.
        let is_open = || {
            let writes = disk.writes(path).is_some_and(|writes| writes < before + 3);
            writes || disk.unsynced(path).is_some_and(|unsynced| !unsynced.is_empty())
        };
        // Also beyond the time of faults, whose last ones may kill: a node that was paused writes
        // the next one only then.
        let mut left = Duration::from_secs(10);
        while is_open() && left > Duration::ZERO {
            calm.rt.sleep(STEP).await;
            if cluster.phase() != Phase::Faults {
                left -= STEP;
            }
        }
        cluster.protect(id, false);
    }
}

pub(super) async fn wipes(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.cluster.faults);
    while calm.passes().await {
        let id = calm.any_node();
        // Who is protected would not be killed, and go on without its disk.
        if cluster.is_protected(id) || !cluster.may_damage(id) {
            continue;
        }
        cluster.count("disk lost");
        let rest = draw.duration(&(Duration::ZERO..Duration::from_secs(1)));
        cluster.kill(id, Crash::Power, rest);
        cluster.replace_disk(id);
    }
}

/// A segment of the log is shorter than it was made when its node starts again, as after a repair
/// of the file system. The node has to say so, wherever the file ends now.
pub(super) async fn shortenings(calm: Calm) {
    let (cluster, draw) = (&calm.cluster, &calm.draw);
    while calm.passes().await {
        let id = calm.any_node();
        if cluster.is_protected(id) || !cluster.may_damage(id) {
            continue;
        }
        cluster.hold(id);
        let mut image = cluster.host(id).disk().durable();
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|is| is == "wal");
        let segments: Vec<_> =
            image.files.keys().filter(|path| is_segment(path)).cloned().collect();
        if !segments.is_empty()
            && let Some(content) = image.files.get_mut(draw.choose(&segments))
            && !content.is_empty()
        {
            // Most of a segment is empty as yet: what is written is at its begin.
            let most = *draw.choose(&[content.len(), content.len().min(8 << 10)]);
            let len = draw.index(most);
            cluster.count("segment shortened");
            cluster.tell(|| format!("a segment of node {id} is cut off after {len} bytes"));
            content.truncate(len);
            cluster.host(id).disk().replace(&image);
            is_bad(&calm, id);
        }
        cluster.release(id);
    }
}
