//! Every write that a store has called durable is recoverable from what its disk has for sure at that moment (thesis 3.8). Looked at now and then, by opening the
//! store on a copy of that.

use quorate::sim::{DiskImage, Simulation};
use quorate::{FileConfig, FileStore, LogStore, Recovered};

use super::Verdict;
use crate::simulate::model::NodeModel;

/// Opens a store in the directory of this image, in a world of its own.
pub fn recover(
    image: &DiskImage,
    directory: &str,
    config: FileConfig,
) -> Result<Recovered, String> {
    let simulation = Simulation::new(0);
    let host = simulation.host("copy");
    host.disk().replace(image);
    host.start(async |_| std::future::pending().await);
    let recovered = simulation.block_on(&host, async |rt| {
        let store = FileStore::open_with(&rt, directory, config).await?;
        store.recover(0).await
    });
    match recovered {
        Ok(recovered) => recovered.map_err(|error| error.to_string()),
        Err(stuck) => Err(stuck.to_string()),
    }
}

/// Whether what was found holds all that this node's store has called durable. What it was given after that may be there, too.
pub fn holds(node: &NodeModel, recovered: &Recovered) -> Verdict {
    let durable = &node.durable;
    let (outline, hard_state) = (&recovered.outline, recovered.hard_state);
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
    let purged = purged.unwrap_or(0).max(durable.purged.index);
    for entry in &durable.entries {
        let log_id = entry.log_id;
        let index = log_id.index;
        let gone = index <= outline.purged().index && index <= purged;
        if !gone && index < replaced && outline.log_id(index) != Some(log_id) {
            let found = outline.log_id(index);
            return Err(format!("{found:?} was found where {log_id} was durable"));
        }
    }
    Ok(())
}
