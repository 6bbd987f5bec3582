//! What must hold after every step, whatever has happened: the safety properties of Raft (thesis
//! 3.2), and the promises of this engine to those who use it. A violation is a panic; the script
//! runner adds the line that led to it.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::engine::Engine;
use quorate_core::quorum::{VoteResult, Voters};
use quorate_core::{
    AppendOutcome, Body, Digest, Entry, HardState, Index, LogId, LogWrite, Membership, Message,
    Payload, Replica, Role, SnapshotMeta, Term,
};

use crate::disk::{Disk, Image};
use crate::show;

#[derive(Default)]
pub(crate) struct Safety {
    /// A disk has broken its promise, and nothing is checked any more.
    pub(crate) off: bool,
    /// Who led in each term.
    leaders: BTreeMap<Term, Replica>,
    /// Whom each node has told that it votes for it, in each term.
    votes: BTreeMap<(Replica, Term), Replica>,
    /// Each entry that was ever written, and the one before it.
    entries: BTreeMap<LogId, (Entry, LogId)>,
    /// What has been committed, in order, and in which term.
    committed: Vec<(Entry, Term)>,
    /// Where each command was committed.
    commands: BTreeMap<Vec<u8>, Index>,
    /// What was answered by "no effect".
    refused: BTreeSet<Vec<u8>>,
}

impl Safety {
    /// The last index that anyone has known to be committed.
    pub(crate) fn last_committed(&self) -> Index {
        self.committed.len() as Index
    }

    pub(crate) fn committed_commands(&self) -> &BTreeMap<Vec<u8>, Index> {
        &self.commands
    }

    /// The identity of an entry of a log, or of the one that was purged there: that was committed.
    fn log_id(&self, log: &Image, index: Index) -> Option<LogId> {
        if index == 0 || index >= log.purged.index {
            return log.log_id(index);
        }
        self.committed.get(index as usize - 1).map(|(entry, _)| entry.log_id)
    }

    /// The last committed configuration up to an index, and the entry that brought it.
    pub(crate) fn membership_at(&self, index: Index) -> Option<(Index, &Membership)> {
        let entries = self.committed.iter().take(index as usize).rev();
        entries.into_iter().find_map(|(entry, _)| match &entry.payload {
            Payload::Membership(membership) => Some((entry.log_id.index, membership)),
            Payload::Blank | Payload::Command(_) => None,
        })
    }

    /// What has been committed at an index.
    pub(crate) fn committed_at(&self, index: Index) -> Option<&Entry> {
        self.committed.get((index as usize).checked_sub(1)?).map(|(entry, _)| entry)
    }

    /// A snapshot is of what was committed where it ends, and of nothing else (S2).
    pub(crate) fn on_snapshot(&self, meta: &SnapshotMeta, content: &[u8]) {
        if self.off {
            return;
        }
        let ours = self.committed_at(meta.log_id.index).map(|entry| entry.log_id);
        assert_eq!(ours, Some(meta.log_id), "a snapshot of what is not committed (S2)");
        assert_eq!((Digest::of(content), content.len() as u64), (meta.digest, meta.bytes));
        assert_eq!(show::state_of(content), meta.log_id.to_string(), "another state (S2)");
    }

    /// Log matching: an entry has one content and one predecessor, wherever and whenever it is
    /// written.
    pub(crate) fn on_write(&mut self, disk: &Disk, write: &LogWrite) {
        if self.off {
            return;
        }
        for entry in &write.entries {
            let before = disk.submitted().log_id(entry.log_id.index - 1).expect("no gaps");
            assert!(before.term <= entry.log_id.term, "{} after {before}", entry.log_id);
            let known = self.entries.entry(entry.log_id).or_insert_with(|| (entry.clone(), before));
            assert_eq!(known, &(entry.clone(), before), "two entries are {}", entry.log_id);
        }
    }

    /// Election safety and leader completeness.
    pub(crate) fn on_leader(&mut self, id: Replica, term: Term, disk: &Disk) {
        if self.off {
            return;
        }
        let known = *self.leaders.entry(term).or_insert(id);
        assert_eq!(known, id, "two leaders in term {term}");
        let HardState { term: in_term, voted_for } = disk.durable().hard_state;
        assert_eq!((in_term, voted_for), (term, Some(id)), "{id}'s own vote is not durable");
        self.tell_vote(id, term, id);
        for (entry, committed_in) in &self.committed {
            let log_id = entry.log_id;
            assert!(
                *committed_in >= term
                    || self.log_id(disk.submitted(), log_id.index) == Some(log_id),
                "{id} leads in term {term} without {log_id}, committed in term {committed_in}"
            );
        }
    }

    fn tell_vote(&mut self, voter: Replica, term: Term, candidate: Replica) {
        let known = *self.votes.entry((voter, term)).or_insert(candidate);
        assert_eq!(known, candidate, "{voter} votes twice in term {term} (E2)");
    }

    /// Nothing is promised before it is durable.
    pub(crate) fn on_send(
        &mut self,
        message: &Message,
        engine: &Engine,
        disk: &Disk,
        leader_log: Option<&Disk>,
    ) {
        if self.off {
            return;
        }
        let durable = disk.durable();
        let Message { from, to, term, .. } = *message;
        match message.body {
            Body::VoteReply { granted: true, .. } => {
                assert!(
                    durable.hard_state.term > term
                        || durable.hard_state.term == term
                            && durable.hard_state.voted_for == Some(to),
                    "{from} votes for {to} in term {term}, but its disk says {:?} (E2)",
                    durable.hard_state
                );
                self.tell_vote(from, term, to);
            }
            Body::AppendReply { outcome, .. } => {
                // To a leader of an earlier term: a hint that it is one, which promises nothing.
                let current = engine.leader() == Some(to) && engine.hard_state().term == term;
                let AppendOutcome::Accepted { matched } = outcome else { return };
                assert!(durable.hard_state.term >= term, "{from} accepts in a term it may forget");
                if !current {
                    return;
                }
                let mine = self.log_id(durable, matched);
                assert!(mine.is_some(), "{from} accepts to {matched}, which is not durable");
                assert!(disk.settled() >= matched, "{from} accepts what is being replaced (R9)");
                if let Some(leader) = leader_log {
                    let theirs = self.log_id(leader.submitted(), matched);
                    assert_eq!(mine, theirs, "{from} accepts what is not {to}'s entry");
                }
            }
            Body::Append { committed, .. } => {
                assert_eq!(self.leaders.get(&term), Some(&from), "an append of no leader");
                assert!(committed <= self.last_committed(), "tells of a commit that is none");
            }
            _ => {}
        }
    }

    /// State machine safety, and durability on a quorum of what is committed.
    ///
    /// A disk that was lost has held what it has acknowledged: it was a crash for ever, which is
    /// what a quorum is for.
    pub(crate) fn on_commit(
        &mut self,
        entry: &Entry,
        term: Term,
        voters: &Voters,
        disks: &BTreeMap<Replica, &Disk>,
    ) {
        let index = entry.log_id.index;
        if self.off {
            return;
        }
        if let Some((known, _)) = self.committed.get(index as usize - 1) {
            assert_eq!(known, entry, "two entries are committed at {index}");
            return;
        }
        assert_eq!(index, self.last_committed() + 1, "a gap in what is committed");
        let holds = |voter| {
            let durable = disks.get(&voter).map(|disk| disk.durable());
            durable.is_some_and(|log| {
                log.purged.index >= index || log.log_id(index) == Some(entry.log_id)
            })
        };
        assert_eq!(
            voters.vote_result(|voter| Some(holds(voter))),
            VoteResult::Won,
            "{} is committed, but not durable on a quorum of {voters}",
            entry.log_id
        );
        if let Payload::Command(command) = &entry.payload {
            let command = command.to_vec();
            assert!(!self.refused.contains(&command), "a refused write takes effect");
            let before = self.commands.insert(command, index);
            assert_eq!(before, None, "the write at {index} has taken effect before");
        }
        self.committed.push((entry.clone(), term));
    }

    pub(crate) fn on_refused(&mut self, command: &[u8]) {
        assert!(!self.commands.contains_key(command), "a write that took effect is refused");
        self.refused.insert(command.to_vec());
    }

    /// Linearizability: what was committed when the read began must be seen.
    pub(crate) fn on_read(&self, floor: Index, index: Index) {
        assert!(index >= floor, "a read at {index}, though {floor} was committed when it began");
        assert!(index <= self.last_committed(), "a read at {index}, which is not committed");
    }

    /// What an engine believes of itself and its disk.
    pub(crate) fn on_step(&self, id: Replica, engine: &Engine, disk: &Disk, before: &Before) {
        if self.off {
            return;
        }
        assert!(engine.hard_state() >= before.hard_state, "{id}: the hard state falls");
        assert!(engine.committed() >= before.committed, "{id}: the commit index falls");
        let vote_kept = engine.hard_state().term > before.hard_state.term
            || before.hard_state.voted_for.is_none()
            || engine.hard_state().voted_for == before.hard_state.voted_for;
        assert!(vote_kept, "{id}: the vote changes");
        assert_eq!(engine.hard_state(), disk.submitted().hard_state, "{id}: not submitted");
        assert_eq!(engine.last_log_id(), disk.submitted().last(), "{id}: not submitted");
        let durable = engine.durable();
        assert_eq!(
            self.log_id(disk.durable(), durable),
            self.log_id(disk.submitted(), durable),
            "{id}: takes for durable what is not (R8)"
        );
        assert!(disk.settled() >= durable, "{id}: takes for durable what is being replaced (R9)");
        for (entry, _) in self.committed.iter().take(engine.committed() as usize) {
            let log_id = entry.log_id;
            assert_eq!(self.log_id(disk.submitted(), log_id.index), Some(log_id), "{id} (R2)");
        }
        let purged = engine.purged();
        let covered = engine.snapshot().map_or(0, |snapshot| snapshot.log_id.index);
        assert!(purged.index <= covered && covered <= engine.committed(), "{id}: out of order");
        assert_eq!(purged, disk.submitted().purged, "{id}: not submitted");
        assert_eq!(engine.snapshot(), disk.submitted().snapshot.as_ref(), "{id}: not submitted");
        assert_eq!(engine.compaction_is_durable(), disk.knows_compaction(), "{id}: on its disk");
        let formed = engine.last_log_id() != LogId::ZERO;
        assert_eq!(engine.membership().is_some(), formed, "{id}: the membership");
        assert!(!formed || engine.obstacles().is_none(), "{id}: waits to form what it is part of");
        if engine.role() == Role::Leader {
            assert_eq!(self.leaders.get(&engine.hard_state().term), Some(&id));
        }
    }
}

/// What an engine was before a step.
#[derive(Clone, Debug)]
pub(crate) struct Before {
    pub(crate) hard_state: HardState,
    pub(crate) committed: Index,
    pub(crate) role: Role,
    pub(crate) leader: Option<Replica>,
    /// By whom it decided then what is committed.
    pub(crate) voters: Option<Voters>,
}

impl Before {
    pub(crate) fn of(engine: &Engine) -> Self {
        Self {
            hard_state: engine.hard_state(),
            committed: engine.committed(),
            role: engine.role(),
            leader: engine.leader(),
            voters: engine.membership().map(|membership| membership.voters().clone()),
        }
    }
}
