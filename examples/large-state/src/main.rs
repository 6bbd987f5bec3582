//! A large state, whose snapshots are streams. `cargo run -p large-state`
//!
//! It writes documents, for which snapshots are taken meanwhile, until there are 20,000. Kill it
//! and start it again: it finds all that it had said was acknowledged.
//!
//! A state that serde knows is serialized at once, while nothing is applied and all of it is in
//! memory twice. This one implements `Snapshot` itself, which takes three methods.

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::rc::Rc;

use futures::future::try_join_all;
use imbl::OrdMap;
use quorate::prelude::*;

const DOCUMENTS: usize = 20_000;
const MIB: u64 = 1 << 20;

/// A persistent map: to clone it is to count a reference, and a change of one clone copies the few
/// nodes of the tree that lead to what is changed.
#[derive(Default)]
struct Documents(OrdMap<u64, Rc<str>>);

impl StateMachine for Documents {
    type Command = (u64, String); // a document and its new text
    type Response = usize;

    async fn apply(&mut self, (id, text): (u64, String), _: At) -> usize {
        self.0.insert(id, text.into());
        self.0.len()
    }
}

impl Snapshot for Documents {
    type View = OrdMap<u64, Rc<str>>;

    /// Commands wait for this one, so it has to be quick, however large the state is.
    fn view(&self) -> Result<Self::View, SnapshotError> {
        Ok(self.0.clone())
    }

    /// Commands are applied meanwhile; the view stays as it was. The writer holds one chunk of
    /// 256 KiB, and lets other tasks run after each.
    async fn write(view: Self::View, to: &mut SnapshotWriter) -> Result<(), SnapshotError> {
        // In the order of the ids: replicas of the same state must write the same bytes.
        for (id, text) in &view {
            to.write(&id.to_le_bytes()).await?;
            to.write(&(text.len() as u64).to_le_bytes()).await?;
            to.write(text.as_bytes()).await?;
        }
        Ok(())
    }

    /// Reads all of what was written. The bytes are known to be whole (they have a digest), but
    /// another version of this program may have written them: what can't be is an error.
    async fn restore(&mut self, from: &mut SnapshotReader) -> Result<(), SnapshotError> {
        self.0.clear();
        while from.remaining() > 0 {
            let (id, len) = (from.read_u64().await?, from.read_u64().await?);
            let text = from.read(len).await?; // An error where there is less.
            let text = std::str::from_utf8(&text).map_err(SnapshotError::state_machine)?;
            self.0.insert(id, text.into());
        }
        Ok(())
    }
}

fn main() -> quorate::Result<()> {
    tracing_subscriber::fmt().init(); // Quorate logs by `tracing`: without this nothing is printed.
    quorate::run(async |rt: Tokio| {
        let node = Node::builder(1)
            .log_store(FileStore::open(&rt, "data/large-state").await?)
            .transport(TcpTransport::bind(&rt, "127.0.0.1:7251").await?)
            .start(&rt)
            .await?;
        // A snapshot after each 4 MiB of log, so that there are some. (The default is 256 MiB.)
        let config = Config { snapshot_after_bytes: 4 * MIB, ..Config::default() };
        let raft = node.group(0).config(config).open(Documents::default()).await?;
        raft.initialize([(1, "127.0.0.1:7251")]).await?;

        let mut count = raft.read(|documents| documents.0.len()).await?;
        println!("found {count}");
        while count < DOCUMENTS {
            // A hundred at once share a sync of the disk.
            let ids: Range<u64> = count as u64..(count + 100) as u64;
            let text = |id| format!("The text of document {id}. ").repeat(40);
            let counts = try_join_all(ids.map(|id| raft.write((id, text(id))))).await?;
            count = counts.into_iter().max().unwrap_or_default();
            println!("acknowledged {count}");
        }
        let covered = raft.metrics().borrow().snapshot;
        println!("the last snapshot covers the log up to {covered}");
        node.shutdown().await?;
        Ok(())
    })
}
