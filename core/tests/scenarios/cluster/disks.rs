//! The disks of a cluster: writes, what is read for peers, and snapshots.

use bytes::BytesMut;
use quorate_core::engine::{Fetch, Input, ReadChunk, ReceiveStep};
use quorate_core::{Digest, Entries, NodeId, Role, SnapshotMeta};

use super::Cluster;
use crate::show;

impl Cluster {
    /// The oldest pending writes of a node become durable, and the node hears of it at once.
    pub(crate) fn persist(&mut self, id: NodeId, count: usize) -> bool {
        match self.disk(id).complete(count) {
            Some(write) => {
                self.step(id, vec![Input::Persisted { write }]);
                true
            }
            None => false,
        }
    }

    pub(super) fn complete_writes(&mut self) -> bool {
        let mut completed = false;
        for id in self.ids() {
            if !self.disk(id).stalled {
                completed |= self.persist(id, usize::MAX);
            }
        }
        completed
    }

    /// The entries that were asked for are read, and the node gets them.
    pub(crate) fn fetch(&mut self, id: NodeId) -> bool {
        let mut inputs = Vec::new();
        for Fetch { peer, term, range, max_bytes } in std::mem::take(&mut self.node(id).fetches) {
            let engine = self.running(id);
            let leads = engine.role() == Role::Leader && engine.hard_state().term == term;
            let purged = engine.purged().index;
            match self.nodes[&id].disk.read(range.clone(), max_bytes) {
                Some(entries) => inputs.push(Input::Fetched { peer, term, entries }),
                // It has been purged since.
                None if range.start <= purged => {
                    inputs.push(Input::Fetched { peer, term, entries: Entries::default() });
                }
                // Another leader has cut the log since.
                None => assert!(!leads, "node {id} fetches what it doesn't have (R11)"),
            }
        }
        for ReadChunk { peer, meta, offset, len } in std::mem::take(&mut self.node(id).chunks) {
            let content = self.nodes[&id].disk.finished.get(&meta.digest).expect("it is open");
            let chunk = content.slice(offset as usize..offset as usize + len);
            inputs.push(Input::ChunkRead { peer, digest: meta.digest, offset, chunk });
        }
        let any = !inputs.is_empty();
        if any {
            self.step(id, inputs);
        }
        any
    }

    /// The next thing is done about a snapshot that comes in.
    pub(crate) fn draft(&mut self, id: NodeId) -> bool {
        let fails = self.drafts_fail;
        let node = self.node(id);
        let Some(next) = node.receive_steps.pop_front() else { return false };
        let input = match next {
            ReceiveStep::Begin(digest) => {
                node.draft = Some((digest, BytesMut::new()));
                return true;
            }
            ReceiveStep::Chunk(chunk) => match &mut node.draft {
                // It failed before this chunk.
                None => return true,
                Some((digest, _)) if fails => {
                    let digest = *digest;
                    node.draft = None;
                    Input::SnapshotLost { digest }
                }
                Some((digest, content)) => {
                    content.extend_from_slice(&chunk);
                    Input::ChunkStored { digest: *digest, stored: content.len() as u64 }
                }
            },
            ReceiveStep::End(meta) => {
                let (digest, content) = node.draft.take().expect("all of it was written");
                assert_eq!(digest, meta.digest);
                if Digest::of(&content) == digest {
                    node.disk.finished.insert(digest, content.freeze());
                    self.installed += 1;
                    Input::SnapshotReady(meta)
                } else {
                    Input::SnapshotLost { digest }
                }
            }
        };
        self.step(id, vec![input]);
        true
    }

    /// A node writes a snapshot of so many bytes of what it has applied. False: there is nothing.
    pub(crate) fn build(&mut self, id: NodeId, bytes: usize) -> bool {
        let node = &self.nodes[&id];
        let Some(entry) = self.safety.committed_at(node.applied) else { return false };
        let Some((membership_index, membership)) = self.safety.membership_at(node.applied) else {
            return false;
        };
        let content = show::state_at(entry.log_id, bytes);
        let meta = SnapshotMeta {
            log_id: entry.log_id,
            time: entry.time,
            membership: membership.clone(),
            membership_index,
            bytes: content.len() as u64,
            digest: Digest::of(&content),
        };
        let node = self.node(id);
        node.disk.finished.insert(meta.digest, content.into());
        node.built.push_back(meta);
        true
    }

    /// A node hears that the snapshot that it has begun to write first is ready. False: there is
    /// none.
    pub(crate) fn built(&mut self, id: NodeId) -> bool {
        let Some(meta) = self.node(id).built.pop_front() else { return false };
        self.step(id, vec![Input::SnapshotReady(meta)]);
        true
    }
}
