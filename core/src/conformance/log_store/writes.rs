//! What is written to a store: entries whose content follows from their log ids, and writes as a
//! node could make them.

use std::sync::Arc;

use bytes::Bytes;
use quorate_rt::Executor;

use super::super::changes::changing;
use super::super::{CLUSTER, replica};
use super::model::Log;
use super::{Outcome, Scene, StoreFactory};
use crate::{
    Boot, Claim, Entry, GroupId, HardState, Index, LogId, LogWrite, MAX_MEMORIES, MAX_STARTS,
    Marks, Membership, Memory, NodeId, Payload, Replica, Standing, Start, Term,
};

/// The time of an entry. Many share one, and it never decreases along a log.
pub(super) fn time_of(log_id: LogId) -> u64 {
    log_id.term.0 * 1000 + log_id.index / 5
}

/// The entry with this log id: a blank one, a command of one of many sizes, or a membership.
pub(super) fn entry(term: u64, index: Index) -> Entry {
    let seed = term.wrapping_mul(31).wrapping_add(index.wrapping_mul(17));
    let payload = match seed % 11 {
        0 => Payload::Blank,
        1 => Payload::Membership(membership(term, index, seed)),
        kind => {
            let len = (seed % (kind * kind * kind)) as usize;
            Payload::Command(Bytes::from(vec![seed as u8; len]))
        }
    };
    // One leader for each term, and none for the entry that forms a cluster.
    let leader = if term == 0 { 0 } else { 1 + term % 3 };
    let log_id = LogId::new(term, leader, index);
    Entry { log_id, time: time_of(log_id), payload }
}

/// A simple configuration, one with a learner, or a joint one; of each, one that is being changed.
fn membership(term: u64, index: Index, seed: u64) -> Membership {
    let address = format!("node-{term}.example:{index}");
    let members = (1..=1 + seed % 5).map(|id| (replica(id), address.clone())).collect();
    let simple = Membership::founding(CLUSTER, members).expect("a possible one");
    let (old, new) = (replica(1), Replica::new(1, u64::MAX));
    let with_learner = || simple.with_learner(new).expect("a possible one");
    let membership = match seed % 3 {
        0 => simple,
        1 => with_learner(),
        _ => with_learner().exchanging(old, new).expect("a possible one"),
    };
    if seed.is_multiple_of(2) { membership } else { changing(&membership, seed) }
}

/// A write of the entries `first..=last` of a term.
pub(super) fn entries(term: u64, first: Index, last: Index) -> LogWrite {
    LogWrite {
        entries: (first..=last).map(|index| entry(term, index)).collect(),
        ..LogWrite::default()
    }
}

pub(super) fn hard_state(term: u64, voted_for: Option<NodeId>) -> LogWrite {
    let hard_state = HardState { term: Term(term), voted_for: voted_for.map(replica) };
    LogWrite { hard_state: Some(hard_state), ..LogWrite::default() }
}

/// A standing of each kind, by turns.
pub(super) fn standing(seed: u64) -> LogWrite {
    let node = |id| (id, format!("node-{id}.example:{seed}"));
    let list = || (1..=1 + seed % 7).map(node).collect();
    let standing = match seed % 4 {
        0 => Standing::Empty,
        1 => Standing::Claimed(Claim {
            cluster: CLUSTER,
            ballot: seed,
            founder: replica(1 + seed % 3),
            list: Arc::new(list()),
        }),
        2 => Standing::Admitted(CLUSTER),
        _ => Standing::Spent,
    };
    LogWrite { standing: Some(Box::new(standing)), ..LogWrite::default() }
}

/// Marks that remember none, some, or as many replicas as they may.
pub(super) fn marks(seed: u64) -> LogWrite {
    let at = |index: u64| LogId::new(seed, 1 + seed % 3, index);
    let of = |id: NodeId| {
        let (acknowledged, committed) = (at(seed + id), at(seed));
        let boot = Boot { number: seed % 3, tag: seed };
        let memory =
            Memory { term: Term(seed + 1), voted: Term(seed % 2), acknowledged, committed, boot };
        (replica(id), memory)
    };
    let count = [0, 1, 4, MAX_MEMORIES as u64][(seed % 4) as usize];
    let memories = (1..=count).map(of).collect();
    let start =
        |at: u64| (seed + at, Start { tag: seed, term: Term(at), last: LogId::new(at, 1, seed) });
    let starts = (0..[0, 1, MAX_STARTS as u64][(seed % 3) as usize]).map(start).collect();
    let marks = Marks { committed: at(seed), memories, starts };
    LogWrite { marks: Some(Box::new(marks)), ..LogWrite::default() }
}

/// Bytes without a pattern, so that a part in the wrong place is seen.
pub(super) fn content(seed: u64, len: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut content = vec![0; len];
    random.fill(&mut content);
    content.into()
}

impl<R: Executor, F: StoreFactory<R>> Scene<R, F> {
    /// Submits a write as a node could make it in this state: entries at the end or in place of
    /// some, a hard state, a snapshot that was taken or received, a purge, or several of these.
    pub(super) async fn submit_random(
        &mut self,
        random: &mut fastrand::Rng,
        group: GroupId,
    ) -> Outcome {
        let log = self.log(group).clone();
        // Above all that was, so that no log id ever means another entry.
        let newer = log.hard_state.term.0.max(log.last().term.0) + 1;
        let (covered, last) = (log.covered(), log.last().index);
        let content = content(random.u64(..), random.usize(..3000));
        let write = match random.u8(..16) {
            0 | 1 if covered < last => {
                let at = random.u64(covered.max(log.purged.index) + 1..=last);
                let meta = log.entries[(at - log.first()) as usize].log_id;
                let meta = self.finish(group, meta, content).await;
                let purge =
                    (meta.log_id.index > log.purged.index && random.bool()).then_some(meta.log_id);
                LogWrite { snapshot: Some(Box::new(meta)), purge, ..LogWrite::default() }
            }
            2 => {
                // Of a leader that is far ahead, or in another term.
                let at = random.u64(covered + 1..=last + 10);
                let meta = self.finish(group, entry(newer, at).log_id, content).await;
                let purge = Some(meta.log_id);
                let and = if random.bool() {
                    entries(newer, at + 1, at + 3)
                } else {
                    LogWrite::default()
                };
                let hard_state = hard_state(newer, None).hard_state;
                LogWrite { hard_state, snapshot: Some(Box::new(meta)), purge, ..and }
            }
            3 | 4 if log.purged.index < covered => {
                let held = log.entries.iter().map(|entry| entry.log_id);
                let held: Vec<LogId> = held.filter(|held| held.index <= covered).collect();
                let purge = held.get(random.usize(..held.len())).copied();
                LogWrite { purge, ..random_write(random, &log) }
            }
            5 => {
                // One that is never named.
                self.finish(group, entry(newer, last + 1).log_id, content).await;
                random_write(random, &log)
            }
            _ => random_write(random, &log),
        };
        self.submit(group, write)
    }
}

/// Of entries, a hard state, or both, sometimes with what else a group keeps. What the snapshot
/// covers is committed and stays.
fn random_write(random: &mut fastrand::Rng, log: &Log) -> LogWrite {
    let kind = random.u8(..8);
    let newer = log.hard_state.term.0.max(log.last().term.0) + 1;
    let last = log.last().index;
    let (term, first) = match kind {
        0 => (newer, random.u64(log.covered() + 1..=last + 1)),
        1 => (newer, last + 1),
        _ => (log.last().term.0.max(1), last + 1),
    };
    let mut write = match kind {
        2 => LogWrite::default(),
        _ => entries(term, first, first + random.u64(..6)),
    };
    if kind < 4 {
        let voted_for = Some(1 + random.u64(..3)).filter(|_| random.bool());
        write.hard_state = hard_state(newer, voted_for).hard_state;
    }
    match random.u8(..24) {
        0 => write.cluster = Some(CLUSTER),
        1 => write.standing = standing(random.u64(..100)).standing,
        2 => write.marks = marks(random.u64(..100)).marks,
        3 => {
            write.standing = standing(random.u64(..100)).standing;
            write.marks = marks(random.u64(..100)).marks;
        }
        _ => {}
    }
    write
}
