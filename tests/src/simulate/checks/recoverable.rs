//! Every write that a store has called durable is recoverable from what its disk has for sure at
//! that moment (thesis 3.8). Looked at now and then, by opening the store on a copy of that.

use quorate::sim::{DiskImage, Simulation};
use quorate::{FileConfig, FileStore, Identity, LogStore, NodeId, Recovered, StoreError};

use super::Verdict;
use crate::simulate::model::NodeModel;

/// Starts a node on the store in the directory of this image, in a world of its own.
pub fn recover(
    image: &DiskImage,
    directory: &str,
    config: FileConfig,
    node: NodeId,
) -> Result<(Identity, Recovered), String> {
    let simulation = Simulation::new(0);
    let host = simulation.host("copy");
    host.disk().replace(image);
    host.start(async |_| std::future::pending().await);
    let recovered = simulation.block_on(&host, async |rt| {
        let store = FileStore::open_with(&rt, directory, config).await?;
        let identity = store.identify(node).await?;
        Ok::<_, StoreError>((identity, store.recover(0).await?))
    });
    match recovered {
        Ok(recovered) => recovered.map_err(|error| error.to_string()),
        Err(stuck) => Err(stuck.to_string()),
    }
}

/// Whether what was found holds all that this node's store has called durable. What it was given
/// after that may be there, too.
pub fn holds(node: &NodeModel, identity: &Identity, recovered: &Recovered) -> Verdict {
    let durable = &node.durable;
    let known = node.identity.map(|known| known.incarnation);
    if known != Some(identity.incarnation) {
        return Err(format!("{identity:?} was found where {:?} was durable", node.identity));
    }
    if durable.cluster.is_some() && identity.cluster != durable.cluster {
        return Err(format!("{identity:?} was found where {:?} was durable", durable.cluster));
    }
    let mut standings = node.waiting.iter().filter_map(|write| write.standing.as_ref());
    let standing = &recovered.standing;
    if *standing != durable.standing && !standings.any(|waiting| waiting == standing) {
        return Err(format!("{standing:?} was found where {:?} was durable", durable.standing));
    }
    let mut marks = node.waiting.iter().filter_map(|write| write.marks.as_ref());
    let found = &recovered.marks;
    if *found != durable.marks && !marks.any(|waiting| waiting == found) {
        return Err(format!("{found:?} were found where {:?} were durable", durable.marks));
    }
    let (log_meta, hard_state) = (&recovered.log_meta, recovered.hard_state);
    if hard_state < durable.hard_state {
        return Err(format!("{hard_state:?} was found where {:?} was durable", durable.hard_state));
    }
    let snapshot = recovered.snapshot.as_ref().map_or(0, |meta| meta.log_id.index);
    if snapshot < durable.snapshot.index {
        return Err(format!(
            "a snapshot at {snapshot} was found, not the one at {}",
            durable.snapshot
        ));
    }
    // Where a write that was under way has replaced entries, those before it count.
    let replaced = node.waiting.iter().filter_map(|write| write.entries.first());
    let replaced = replaced.map(|first| first.log_id.index).min().unwrap_or(u64::MAX);
    let purged = node.waiting.iter().filter_map(|write| write.purge).map(|purge| purge.index).max();
    let mut purged = purged.unwrap_or(0).max(durable.purged.index);
    if log_meta.last().index == snapshot {
        // On a full disk a snapshot may be ahead of entries that wait for space. The log begins
        // anew after it, then.
        purged = purged.max(snapshot);
    }
    for entry in &durable.entries {
        let log_id = entry.log_id;
        let index = log_id.index;
        let gone = index <= log_meta.purged().index && index <= purged;
        if !gone && index < replaced && log_meta.log_id(index) != Some(log_id) {
            let found = log_meta.log_id(index);
            return Err(format!("{found:?} was found where {log_id} was durable"));
        }
    }
    Ok(())
}
