//! What a store must hold of a group after some writes, and snapshots whose content tells what they
//! are of.

use quorate_core::{Digest, Marks, Membership, SnapshotMeta, Standing};

use super::*;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    pub(super) hard_state: HardState,
    pub(super) standing: Standing,
    pub(super) marks: Marks,
    pub(super) snapshot: Option<SnapshotMeta>,
    pub(super) purged: LogId,
    pub(super) entries: Vec<Entry>,
}

impl State {
    pub(super) fn apply(&mut self, write: &LogWrite) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(standing) = write.standing.as_deref() {
            self.standing = standing.clone();
        }
        if let Some(marks) = write.marks.as_deref() {
            self.marks = marks.clone();
        }
        self.snapshot = write.snapshot.as_deref().cloned().or(self.snapshot.take());
        if let Some(to) = write.purge.filter(|to| to.index > self.purged.index) {
            match self.entries.iter().position(|entry| entry.log_id == to) {
                Some(at) => drop(self.entries.drain(..=at)),
                None => self.entries.clear(),
            }
            self.purged = to;
        }
        if let Some(first) = write.entries.first() {
            self.entries.truncate((first.log_id.index - self.purged.index - 1) as usize);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    pub(super) fn last(&self) -> LogId {
        self.entries.last().map_or(self.purged, |entry| entry.log_id)
    }

    /// What is there, read through. What the store says of it must agree with itself.
    pub(super) async fn of<R: Files>(store: &FileStore<R>, group: GroupId) -> Self {
        let recovered = recovered(store, group).await;
        let (purged, last) = (recovered.log_meta.purged(), recovered.log_meta.last());
        let range = purged.index + 1..last.index + 1;
        let entries = store.read(group, range.clone(), usize::MAX).await.unwrap();
        assert_eq!(entries.len() as u64, last.index - purged.index);
        for (index, entry) in range.zip(&entries) {
            assert_eq!(recovered.log_meta.log_id(index), Some(entry.log_id));
        }
        if purged.index > 0 {
            let read = store.read(group, purged.index..last.index + 1, 1).await;
            assert!(matches!(read, Err(StoreError::Missing(missing)) if missing == purged.index));
        }
        if let Some(meta) = &recovered.snapshot {
            let read = read_snapshot(store, group, meta).await.unwrap();
            assert!(read == content(meta.log_id, meta.bytes), "another content");
        }
        let Recovered { hard_state, standing, marks, snapshot, .. } = recovered;
        Self { hard_state, standing, marks, snapshot, purged, entries: entries.to_vec() }
    }
}

/// The content of a snapshot that was taken at this entry: each 8 bytes are others.
pub(super) fn content(log_id: LogId, bytes: u64) -> Bytes {
    let seed = log_id.term.0.wrapping_mul(31).wrapping_add(log_id.index);
    let words = (0..bytes.div_ceil(8))
        .map(|at| (seed.wrapping_add(at)).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut content: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    content.truncate(bytes as usize);
    content.into()
}

pub(super) fn meta(log_id: LogId, bytes: u64) -> SnapshotMeta {
    let membership =
        Membership::founding(ClusterId(5), [(Replica::new(1, 7), "a:1".to_owned())].into())
            .unwrap();
    let digest = Digest::of(&content(log_id, bytes));
    SnapshotMeta { log_id, time: log_id.index, membership, membership_index: 1, bytes, digest }
}

/// Writes and finishes the snapshot.
pub(super) async fn finish<R: Files>(
    store: &FileStore<R>,
    group: GroupId,
    meta: &SnapshotMeta,
) -> Result<(), StoreError> {
    let mut draft = store.draft(group).await?;
    for chunk in content(meta.log_id, meta.bytes).chunks(50_000) {
        draft.write(Bytes::copy_from_slice(chunk)).await?;
    }
    draft.finish(meta).await
}

pub(super) async fn read_snapshot<R: Files>(
    store: &FileStore<R>,
    group: GroupId,
    meta: &SnapshotMeta,
) -> Result<Bytes, StoreError> {
    let opened = store.snapshot(group, meta).await?;
    opened.read(0, usize::MAX).await
}

/// Makes a finished snapshot the group's, and purges up to there.
pub(super) fn named(meta: &SnapshotMeta, purge: Option<LogId>) -> LogWrite {
    LogWrite { snapshot: Some(Box::new(meta.clone())), purge, ..LogWrite::default() }
}
