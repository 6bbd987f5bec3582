//! What is known of a cluster from outside of its nodes: what each was seen to hand to its store, what that has called durable, and what was committed.

use std::collections::{BTreeMap, VecDeque};

use quorate::{
    Entry, HardState, Index, LogId, LogWrite, Metrics, NodeId, Payload, Recovered, Term,
};

/// An entry, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    pub log_id: LogId,
    /// The CRC of what it holds.
    pub content: u32,
    pub bytes: usize,
    pub is_membership: bool,
}

impl Seal {
    pub const NONE: Self = Self { log_id: LogId::ZERO, content: 0, bytes: 0, is_membership: false };

    pub fn of(entry: &Entry) -> Self {
        let content = match &entry.payload {
            Payload::Blank => 0,
            Payload::Command(command) => crc32fast::hash(command),
            Payload::Membership(members) => crc32fast::hash(format!("{members:?}").as_bytes()),
        };
        let is_membership = matches!(entry.payload, Payload::Membership(_));
        Self { log_id: entry.log_id, content, bytes: entry.bytes(), is_membership }
    }
}

/// A log, with the hard state and the snapshot beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogModel {
    pub hard_state: HardState,
    /// The last entry that the snapshot covers.
    pub snapshot: LogId,
    /// The entry before the first.
    pub purged: LogId,
    pub entries: VecDeque<Seal>,
}

impl LogModel {
    pub fn last(&self) -> LogId {
        self.entries.back().map_or(self.purged, |entry| entry.log_id)
    }

    /// The entry at an index, if it is there and not purged.
    pub fn get(&self, index: Index) -> Option<&Seal> {
        let at = index.checked_sub(self.purged.index + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Whether it has this entry, as one of its own or behind its snapshot.
    pub fn covers(&self, log_id: LogId) -> bool {
        log_id.index <= self.purged.index
            || self.get(log_id.index).is_some_and(|entry| entry.log_id == log_id)
    }

    fn write(&mut self, write: &Written) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        self.snapshot = write.snapshot.unwrap_or(self.snapshot);
        if let Some(purge) = write.purge
            && purge.index > self.purged.index
        {
            let holds = self.get(purge.index).is_some_and(|entry| entry.log_id == purge);
            let gone =
                if holds { (purge.index - self.purged.index) as usize } else { self.entries.len() };
            self.entries.drain(..gone);
            self.purged = purge;
        }
        if let Some(first) = write.entries.first() {
            let kept = (first.log_id.index - self.purged.index - 1) as usize;
            assert!(kept <= self.entries.len(), "a gap was handed to the store");
            self.entries.truncate(kept);
            self.entries.extend(&write.entries);
        }
    }
}

/// A write that was handed to a store.
#[derive(Clone, Debug)]
pub struct Written {
    pub hard_state: Option<HardState>,
    pub snapshot: Option<LogId>,
    pub purge: Option<LogId>,
    pub entries: Vec<Seal>,
}

impl Written {
    pub fn of(write: &LogWrite) -> Self {
        Self {
            hard_state: write.hard_state,
            snapshot: write.snapshot.as_ref().map(|meta| meta.log_id),
            purge: write.purge,
            entries: write.entries.iter().map(Seal::of).collect(),
        }
    }
}

/// A node.
#[derive(Clone, Debug, Default)]
pub struct NodeModel {
    /// With all that was handed to its store.
    pub submitted: LogModel,
    /// With all that its store has called durable.
    pub durable: LogModel,
    /// What lies between.
    pub waiting: VecDeque<Written>,
    /// What it last told of itself.
    pub metrics: Metrics,
    /// Which of its lives this is; none between two.
    pub life: Option<u32>,
    /// What was durable on the disk that it has lost, while that may still be counted: until it has caught up.
    pub had: Option<LogModel>,
    /// Its disk may fail operations.
    pub may_fail: bool,
    /// Its disk has changed by itself what was durable on it.
    pub is_bad: bool,
}

impl NodeModel {
    /// What is known of a node when its disk was replaced.
    pub fn on_new_disk(before: Self) -> Self {
        Self { may_fail: before.may_fail, had: Some(before.durable), ..Self::default() }
    }

    pub fn submit(&mut self, write: Written) {
        self.submitted.write(&write);
        self.waiting.push_back(write);
    }

    /// The oldest write has become durable.
    pub fn complete(&mut self) {
        if let Some(write) = self.waiting.pop_front() {
            self.durable.write(&write);
        }
    }

    /// It begins a life with what its store has found.
    pub fn start(&mut self, life: u32, recovered: &Recovered, known: &BTreeMap<LogId, Seal>) {
        let outline = &recovered.outline;
        let (purged, last) = (outline.purged(), outline.last());
        let indexes = purged.index + 1..=last.index;
        let entries = indexes.filter_map(|index| outline.log_id(index)).map(|log_id| {
            let unknown = Seal { log_id, ..Seal::NONE };
            known.get(&log_id).copied().unwrap_or(unknown)
        });
        self.submitted = LogModel {
            hard_state: recovered.hard_state,
            snapshot: recovered.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.log_id),
            purged,
            entries: entries.collect(),
        };
        self.durable = self.submitted.clone();
        self.waiting.clear();
        self.metrics = Metrics::default();
        self.life = Some(life);
    }
}

/// An entry that was committed.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    pub seal: Seal,
    /// The term in which this was first known.
    pub term: Term,
}

/// The whole cluster.
#[derive(Debug, Default)]
pub struct Model {
    pub nodes: BTreeMap<NodeId, NodeModel>,
    /// All entries that were ever handed to a store.
    pub entries: BTreeMap<LogId, Seal>,
    /// What was ever known to be committed, from index 1 on.
    pub committed: Vec<Committed>,
}

impl Model {
    pub fn new(nodes: u64) -> Self {
        let nodes = (1..=nodes).map(|id| (id, NodeModel::default())).collect();
        Self { nodes, ..Self::default() }
    }

    pub fn committed_at(&self, index: Index) -> Option<&Committed> {
        self.committed.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }

    pub fn last_committed(&self) -> Index {
        self.committed.len() as Index
    }

    /// Whether the cluster is known to be formed, which takes all of its nodes: all have caught up once, and the leader knows, for something of a client's is committed.
    pub fn is_formed(&self) -> bool {
        let caught_up = |node: &NodeModel| {
            node.had.iter().chain([&node.durable]).any(|log| log.hard_state.caught_up)
        };
        let mut committed = self.committed.iter().map(|committed| committed.seal);
        self.nodes.values().all(caught_up)
            && committed.any(|seal| seal.content != 0 && !seal.is_membership)
    }
}
