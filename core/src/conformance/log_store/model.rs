//! What a group's log is, as the contract has it, and what its store must recover.

use std::collections::BTreeMap;

use super::super::{CLUSTER, replica};
use super::writes::time_of;
use crate::{
    ClusterId, Digest, Entry, HardState, Index, LogId, LogMeta, LogWrite, Marks, Membership,
    Payload, Recovered, SnapshotMeta, Standing,
};

/// A group's log, as the contract has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Log {
    /// What the group's writes have told the store of its cluster.
    pub(super) cluster: Option<ClusterId>,
    pub(super) hard_state: HardState,
    pub(super) standing: Standing,
    pub(super) marks: Marks,
    pub(super) snapshot: Option<SnapshotMeta>,
    /// The entry before the first.
    pub(super) purged: LogId,
    /// The membership in force where the log begins, where the suite knows it.
    pub(super) in_force: Option<(Index, Membership)>,
    pub(super) entries: Vec<Entry>,
}

impl Log {
    pub(super) fn apply(&mut self, write: &LogWrite) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        self.cluster = write.cluster.or(self.cluster);
        if let Some(standing) = &write.standing {
            self.standing = (**standing).clone();
        }
        if let Some(marks) = &write.marks {
            self.marks = (**marks).clone();
        }
        if let Some(meta) = &write.snapshot {
            self.snapshot = Some((**meta).clone());
        }
        if let Some(to) = write.purge {
            self.purge(to);
        }
        if let Some(first) = write.entries.first() {
            self.entries.truncate((first.log_id.index - self.first()) as usize);
            self.entries.extend_from_slice(&write.entries);
        }
    }

    fn purge(&mut self, to: LogId) {
        if to.index <= self.purged.index {
            return;
        }
        if self.holds(to) {
            self.in_force = self.membership_at(to.index);
            self.entries.drain(..=(to.index - self.first()) as usize);
        } else {
            let snapshot = self.snapshot.as_ref();
            self.in_force = snapshot.map(|meta| (meta.membership_index, meta.membership.clone()));
            self.entries.clear();
        }
        self.purged = to;
    }

    pub(super) fn first(&self) -> Index {
        self.purged.index + 1
    }

    pub(super) fn last(&self) -> LogId {
        self.entries.last().map_or(self.purged, |entry| entry.log_id)
    }

    /// The last entry that the snapshot covers.
    pub(super) fn covered(&self) -> Index {
        self.snapshot.as_ref().map_or(0, |meta| meta.log_id.index)
    }

    fn holds(&self, log_id: LogId) -> bool {
        self.entries.iter().any(|entry| entry.log_id == log_id)
    }

    fn membership_at(&self, index: Index) -> Option<(Index, Membership)> {
        let up_to = self.entries.iter().rev().skip_while(|entry| entry.log_id.index > index);
        up_to.filter_map(membership_of).next().or_else(|| self.in_force.clone())
    }

    /// Whether a store has recovered this, apart from the metadata's details and the cluster.
    pub(super) fn is(&self, recovered: &Recovered, entries: &[Entry]) -> bool {
        self.is_recovered(recovered) && self.entries == entries
    }

    /// The same, without a look at the entries.
    pub(super) fn is_recovered(&self, recovered: &Recovered) -> bool {
        self.hard_state == recovered.hard_state
            && self.standing == recovered.standing
            && self.marks == recovered.marks
            && self.snapshot == recovered.snapshot
            && self.purged == recovered.log_meta.purged()
            && self.last() == recovered.log_meta.last()
    }

    /// The identity of each entry, a time that none of them exceeds, and what is in force after any
    /// truncation.
    pub(super) fn check_log_meta(&self, log_meta: &LogMeta) {
        for entry in &self.entries {
            assert_eq!(log_meta.log_id(entry.log_id.index), Some(entry.log_id));
        }
        assert_eq!(log_meta.log_id(self.last().index + 1), None);
        let latest = self.entries.iter().map(|entry| entry.time).max().unwrap_or_default();
        assert!(log_meta.time() >= latest, "{} is before an entry's {latest}", log_meta.time());
        let mut cut = log_meta.clone();
        for (index, membership) in self.entries.iter().rev().filter_map(membership_of) {
            assert_eq!(cut.membership(), Some((index, &membership)));
            cut.truncate(index);
        }
        // The one where the log begins is the snapshot's to tell.
        let before = cut.membership().map_or(0, |(index, _)| index);
        assert!(before <= self.purged.index, "a membership at {before}, which holds none");
    }

    /// What a snapshot of this content would be, were it taken at `log_id`.
    pub(super) fn meta(&self, log_id: LogId, content: &[u8]) -> SnapshotMeta {
        let (membership_index, membership) =
            self.membership_at(log_id.index).unwrap_or_else(|| {
                let members = BTreeMap::from([(replica(1), "node-1.example:1".to_owned())]);
                (1, Membership::founding(CLUSTER, members).expect("a possible one"))
            });
        let (time, bytes, digest) = (time_of(log_id), content.len() as u64, Digest::of(content));
        SnapshotMeta { log_id, time, membership, membership_index, bytes, digest }
    }
}

fn membership_of(entry: &Entry) -> Option<(Index, Membership)> {
    match &entry.payload {
        Payload::Membership(membership) => Some((entry.log_id.index, membership.clone())),
        _ => None,
    }
}
