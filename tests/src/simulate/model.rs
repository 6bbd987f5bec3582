//! What is known of a cluster from outside of its nodes: what each was seen to hand to its store,
//! what that has called durable, and what was committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate::{
    ClusterId, Entry, HardState, Identity, Index, LogId, LogWrite, Marks, Membership, Memory,
    Metrics, NodeId, Payload, Recovered, Replica, Standing, Term,
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

/// A log, with what a store keeps beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogModel {
    pub hard_state: HardState,
    /// The cluster that the store belongs to.
    pub cluster: Option<ClusterId>,
    pub standing: Standing,
    pub marks: Marks,
    /// The last entry that the snapshot covers.
    pub snapshot: LogId,
    /// The entry before the first.
    pub purged: LogId,
    pub entries: VecDeque<Seal>,
}

/// The numbers of the writes that told these parts of a log last.
#[derive(Clone, Debug, Default)]
struct WrittenBy {
    hard_state: u64,
    standing: u64,
    marks: u64,
    snapshot: u64,
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

    /// Whether a replica with it has less than a peer remembers of that: see `Memory`.
    pub fn lacks(&self, from: NodeId, memory: &Memory) -> bool {
        let HardState { term, voted_for } = self.hard_state;
        let last = self.last();
        memory.term > term
            || memory.voted == term
                && memory.voted > Term(0)
                && voted_for.is_none_or(|voted_for| voted_for.id != from)
            || memory.acknowledged.term >= term
                && (memory.acknowledged.term, memory.acknowledged.index) > (last.term, last.index)
            || !self.covers(memory.committed)
    }

    fn write(&mut self, write: &Written, written_by: &mut WrittenBy) {
        // One that has waited for space may be older than what went ahead of it.
        let is_later = |by: &mut u64| std::mem::replace(by, write.number.max(*by)) < write.number;
        if let Some(hard_state) = write.hard_state
            && is_later(&mut written_by.hard_state)
        {
            self.hard_state = hard_state;
        }
        self.cluster = write.cluster.or(self.cluster);
        if let Some(standing) = &write.standing
            && is_later(&mut written_by.standing)
        {
            self.standing.clone_from(standing);
        }
        if let Some(marks) = &write.marks
            && is_later(&mut written_by.marks)
        {
            self.marks.clone_from(marks);
        }
        if let Some(snapshot) = write.snapshot
            && is_later(&mut written_by.snapshot)
        {
            self.snapshot = snapshot;
        }
        if let Some(purge) = write.purge
            && purge.index > self.purged.index
        {
            let holds = self.get(purge.index).is_some_and(|entry| entry.log_id == purge);
            let gone =
                if holds { (purge.index - self.purged.index) as usize } else { self.entries.len() };
            self.entries.drain(..gone);
            self.purged = purge;
        }
        // What was purged while it waited for space is never written.
        let purged = self.purged.index;
        let entries = write.entries.iter().skip_while(|entry| entry.log_id.index <= purged);
        let mut entries = entries.peekable();
        if let Some(first) = entries.peek() {
            let kept = (first.log_id.index - purged - 1) as usize;
            assert!(kept <= self.entries.len(), "a gap was handed to the store");
            self.entries.truncate(kept);
            self.entries.extend(entries);
        }
    }
}

/// A write that was handed to a store.
#[derive(Clone, Debug)]
pub struct Written {
    /// Counts the writes of all nodes' lives. The store completes it by this number: a write that
    /// waits for space is completed after later ones.
    pub number: u64,
    pub hard_state: Option<HardState>,
    pub cluster: Option<ClusterId>,
    pub standing: Option<Standing>,
    pub marks: Option<Marks>,
    pub snapshot: Option<LogId>,
    pub purge: Option<LogId>,
    pub entries: Vec<Seal>,
}

impl Written {
    pub fn of(number: u64, write: &LogWrite) -> Self {
        Self {
            number,
            hard_state: write.hard_state,
            cluster: write.cluster,
            standing: write.standing.as_deref().cloned(),
            marks: write.marks.as_deref().cloned(),
            snapshot: write.snapshot.as_ref().map(|meta| meta.log_id),
            purge: write.purge,
            entries: write.entries.iter().map(Seal::of).collect(),
        }
    }
}

/// A node.
#[derive(Clone, Debug, Default)]
pub struct NodeModel {
    /// Who its store says that it is; none before it has said so.
    pub identity: Option<Identity>,
    /// With all that was handed to its store.
    pub submitted: LogModel,
    /// With all that its store has called durable.
    pub durable: LogModel,
    durable_by: WrittenBy,
    /// What lies between.
    pub waiting: VecDeque<Written>,
    /// What it last told of itself.
    pub metrics: Metrics,
    /// Which of its lives this is; none between two.
    pub life: Option<u32>,
    /// Its disk may fail operations.
    pub may_fail: bool,
    /// Its disk has changed by itself what was durable on it.
    pub is_bad: bool,
    /// Its disk was put back to an earlier state, in which something is missing that it has said
    /// since.
    pub is_put_back: bool,
}

impl NodeModel {
    pub fn submit(&mut self, write: Written) {
        self.submitted.write(&write, &mut WrittenBy::default());
        self.waiting.push_back(write);
    }

    /// A write has become durable.
    pub fn complete(&mut self, number: u64) {
        let at = self.waiting.binary_search_by_key(&number, |write| write.number);
        if let Some(write) = at.ok().and_then(|at| self.waiting.remove(at)) {
            self.durable.write(&write, &mut self.durable_by);
        }
    }

    /// Whether it has said something since it was in this earlier state, that it did not know then.
    pub fn has_forgotten(&self, earlier: &Self) -> bool {
        self.durable.hard_state != earlier.durable.hard_state
            || self.durable.last() != earlier.durable.last()
            || self.durable.standing != earlier.durable.standing
    }

    /// It begins a life with what its store has found.
    pub fn start(&mut self, life: u32, recovered: &Recovered, known: &BTreeMap<LogId, Seal>) {
        let log_meta = &recovered.log_meta;
        let (purged, last) = (log_meta.purged(), log_meta.last());
        let indexes = purged.index + 1..=last.index;
        let entries = indexes.filter_map(|index| log_meta.log_id(index)).map(|log_id| {
            let unknown = Seal { log_id, ..Seal::NONE };
            known.get(&log_id).copied().unwrap_or(unknown)
        });
        self.submitted = LogModel {
            hard_state: recovered.hard_state,
            cluster: self.identity.and_then(|identity| identity.cluster),
            standing: recovered.standing.clone(),
            marks: recovered.marks.clone(),
            snapshot: recovered.snapshot.as_ref().map_or(LogId::ZERO, |meta| meta.log_id),
            purged,
            entries: entries.collect(),
        };
        self.durable = self.submitted.clone();
        self.durable_by = WrittenBy::default();
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
    /// What was durable on the disks that were lost. A leader that has heard of it may count it as
    /// long as the replica has a vote.
    pub lost: BTreeMap<Replica, Vec<LogModel>>,
    /// All configurations that were ever handed to a store.
    pub configurations: BTreeMap<LogId, Membership>,
    /// When a disk was last to be lost, a majority had the first entry, then or before.
    pub was_founded: bool,
    /// Who has led, in each term in which somebody has. An attempt to form the group that was given
    /// up is another cluster, with terms of its own.
    pub led: BTreeMap<(Option<ClusterId>, Term), NodeId>,
    /// All entries that were ever handed to a store.
    pub entries: BTreeMap<LogId, Seal>,
    /// What was ever known to be committed, from index 1 on.
    pub committed: Vec<Committed>,
    /// For each node whose disk was put back: the peers that remember what it has forgotten.
    pub remembering: BTreeMap<NodeId, BTreeMap<NodeId, Memory>>,
    /// Nodes of which a copy runs, or has run since they were started: what comes from their
    /// replica may be the copy's, which remembers less.
    pub copied: BTreeSet<NodeId>,
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

    /// The present replica of a node, if its store has said who it is.
    pub fn replica(&self, node: NodeId) -> Option<Replica> {
        let identity = self.nodes.get(&node)?.identity?;
        Some(Replica::new(node, identity.incarnation))
    }

    /// Whether its node has the disk of it.
    pub fn is_replica(&self, replica: Replica) -> bool {
        self.replica(replica.id) == Some(replica)
    }

    /// What is durable at a replica, if its node has the disk of it.
    fn durable_at(&self, replica: Replica) -> Option<&LogModel> {
        let node = self.nodes.get(&replica.id)?;
        self.is_replica(replica).then_some(&node.durable)
    }

    /// Whether an entry is durable at a replica, or was when its disk was lost or put back.
    pub fn was_durable(&self, replica: Replica, log_id: LogId) -> bool {
        let mut lost = self.lost.get(&replica).into_iter().flatten();
        self.durable_at(replica).is_some_and(|log| log.covers(log_id))
            || lost.any(|log| log.covers(log_id))
    }

    /// Whether the first entry is durable on so many disks that it survives the loss of a minority.
    pub fn is_founded(&self) -> bool {
        let Some(first) = self.configurations.get(&LogId::FIRST) else { return false };
        let holds = |voter| self.durable_at(voter).is_some_and(|log| log.last() != LogId::ZERO);
        first.voters().agreed(|voter| holds(voter).into()) > 0
    }

    /// The nodes whose disks have a first entry, or may have it.
    pub fn bound(&self) -> BTreeSet<NodeId> {
        let begun =
            |of: &NodeModel| of.submitted.last() != LogId::ZERO || of.durable.last() != LogId::ZERO;
        self.nodes.iter().filter(|(_, of)| begun(of)).map(|(id, _)| *id).collect()
    }

    /// The disk of a node is put back to what it was.
    pub fn put_back(&mut self, node: NodeId, earlier: &NodeModel, forgets: bool) {
        let replica = self.replica(node);
        let Some(of) = self.nodes.get_mut(&node) else { return };
        if let Some(replica) = replica {
            self.lost.entry(replica).or_default().push(of.durable.clone());
        }
        of.identity = earlier.identity;
        of.submitted = earlier.submitted.clone();
        of.durable = earlier.durable.clone();
        of.waiting = earlier.waiting.clone();
        of.is_put_back |= forgets;
    }

    /// A node gets an empty disk.
    pub fn replace_disk(&mut self, node: NodeId) {
        let replica = self.replica(node);
        let lost = self.nodes.remove(&node).unwrap_or_default();
        self.remembering.remove(&node);
        let (may_fail, durable) = (lost.may_fail, lost.durable);
        if let Some(replica) = replica {
            self.lost.entry(replica).or_default().push(durable);
        }
        self.nodes.insert(node, NodeModel { may_fail, ..NodeModel::default() });
    }

    /// All configurations that are committed, and where, in the order of the log. (Of what a
    /// snapshot has covered as soon as it was known to be committed, only the place is known.)
    pub fn committed_configurations(&self) -> Vec<(Index, &Membership)> {
        let is_committed = |log_id: &LogId| {
            let committed = self.committed_at(log_id.index).map(|committed| committed.seal.log_id);
            committed.is_some_and(|known| known == *log_id || known.index != log_id.index)
        };
        let all = self.configurations.iter().filter(|(log_id, _)| is_committed(log_id));
        let mut all: Vec<_> = all.map(|(log_id, membership)| (log_id.index, membership)).collect();
        all.sort_by_key(|(index, _)| *index);
        all
    }

    /// The configuration that was committed when this was the last entry known to be, and all that
    /// were since.
    pub fn configurations_since(&self, begun: Index) -> Vec<&Membership> {
        let all = self.committed_configurations();
        let known = all.iter().take_while(|(index, _)| *index <= begun).count();
        all.into_iter().skip(known.saturating_sub(1)).map(|(_, membership)| membership).collect()
    }

    /// The configuration that was committed last, and where.
    pub fn committed_configuration(&self) -> Option<(Index, &Membership)> {
        let mut committed = self.committed.iter().rev().map(|committed| committed.seal);
        let last = committed.find(|seal| seal.is_membership)?.log_id;
        Some((last.index, self.configurations.get(&last)?))
    }

    /// Whether the disk that a node has now votes, and no disk that it has lost does.
    pub fn has_its_vote(&self, node: NodeId) -> bool {
        let Some((_, membership)) = self.committed_configuration() else { return false };
        let votes = |replica| membership.is_voter(replica);
        !membership.voters().is_joint() && self.replica(node).is_some_and(votes)
    }

    /// The configuration that was committed last, if nobody may have put another in force since,
    /// and nothing is to follow on it.
    pub fn settled_configuration(&self) -> Option<&Membership> {
        let (_, last) = self.committed_configuration()?;
        // What was never committed at a place where something else was, is nowhere any more.
        let committed = self.last_committed();
        let is_last = self.configurations.keys().all(|log_id| log_id.index <= committed);
        let is_settled = last.change().is_none() && !last.voters().is_joint();
        (is_last && is_settled).then_some(last)
    }

    /// Whether a node is settled to be no member, with whatever disk.
    pub fn has_left(&self, node: NodeId) -> bool {
        let is_of = |membership: &Membership| membership.members().keys().any(|m| m.id == node);
        self.settled_configuration().is_some_and(|membership| !is_of(membership))
    }

    /// Whether these nodes, with the disks that they have now, are a quorum of the configuration
    /// that was committed last, and of each that may follow on it.
    pub fn is_quorum(&self, nodes: &[NodeId]) -> bool {
        let here: BTreeSet<_> = nodes.iter().filter_map(|node| self.replica(*node)).collect();
        let Some((committed, last)) = self.committed_configuration() else { return false };
        let later = self.configurations.iter().filter(|(log_id, _)| log_id.index > committed);
        let mut all = later.map(|(_, membership)| membership).chain([last]);
        all.all(|membership| membership.voters().agreed(|v| here.contains(&v).into()) > 0)
    }

    /// Whether the cluster is known to be formed: something of a client's is committed.
    pub fn is_formed(&self) -> bool {
        let mut committed = self.committed.iter().map(|committed| committed.seal);
        committed.any(|seal| seal.content != 0 && !seal.is_membership)
    }
}
