//! What this replica remembers of others, and they of it: what each has shown to have made durable,
//! and how the runs of each store began. By that it is noticed that a disk was put back. It is
//! written along with other things, as marks.

use super::{Common, Engine, State};
use crate::identity::{Boot, MAX_MEMORIES, Marks, Memory, Replica, Start};
use crate::membership::Membership;
use crate::types::{HardState, LogId, Term};

/// Marks go along with a write once in so many heartbeats. They take more bytes than a small entry,
/// and what is lost with a restart of this node the others still remember.
const MARKS_PAUSE: u32 = 10;

/// Marks that no other write has taken along for so many heartbeats are written by themselves: what
/// happened last before a quiet time is remembered over a restart of all nodes, too.
const LONELY_MARKS: u32 = 3;

impl Engine {
    /// What this replica remembers of another, for that one to compare with what it has: see
    /// [`Input::Remembered`](super::Input::Remembered).
    pub fn memory_of(&mut self, replica: Replica) -> Option<Memory> {
        self.remember_others();
        self.common.memory_of(replica)
    }

    /// What was heard before was of another boot.
    pub(super) fn on_met(&mut self, replica: Replica, boot: Boot) {
        if self.common.met(replica) == Some(boot) {
            return;
        }
        self.remember_others();
        self.common.set_met(replica, boot);
        self.common.lose_forwards_to(replica);
        match &mut self.role {
            State::Leader(leader) => leader.met(replica),
            State::Follower(follower) => follower.met(replica),
            State::Candidate(_) => {}
        }
    }

    /// Notes what those with whom it replicates have shown to have made durable.
    pub(super) fn remember_others(&mut self) {
        match &self.role {
            State::Leader(leader) => leader.remember_peers(&mut self.common),
            State::Follower(follower) => follower.remember_leader(&mut self.common),
            State::Candidate(_) => {}
        }
    }
}

impl Common {
    /// Whether the marks will go along with the next write.
    pub(super) fn marks_are_due(&self) -> bool {
        self.now >= self.marks_at
    }

    /// A leadership has begun: who is part of it, and in which of its boots, is to be known with
    /// the first entry of it.
    pub(super) fn hasten_marks(&mut self) {
        self.marks_at = self.now;
    }

    /// The pause between two writes of marks may be shorter from now on.
    pub(super) fn hasten_marks_within_pause(&mut self) {
        let pause = MARKS_PAUSE * self.config.heartbeat_interval;
        self.marks_at = self.marks_at.min(self.now + pause);
    }

    /// Whether no other write has taken the marks along for long.
    pub(super) fn marks_are_lonely(&self) -> bool {
        self.now >= self.marks_at + LONELY_MARKS * self.config.heartbeat_interval
    }

    /// The marks, where they have changed since they were written last.
    pub(super) fn changed_marks(&mut self) -> Option<Box<Marks>> {
        let committed = self.log.log_id(self.committed).unwrap_or_default();
        self.marks_at = self.now + MARKS_PAUSE * self.config.heartbeat_interval;
        let written = &self.written_marks;
        if committed == written.committed
            && self.memories == written.memories
            && self.starts == written.starts
        {
            return None;
        }
        let (memories, starts) = (self.memories.clone(), self.starts.clone());
        self.written_marks = Marks { committed, memories, starts };
        Some(Box::new(self.written_marks.clone()))
    }

    /// In which boot another replica speaks, if that is known.
    pub(super) fn met(&self, replica: Replica) -> Option<Boot> {
        self.met.get(&replica).copied()
    }

    /// From now on another replica speaks in this boot.
    pub(super) fn set_met(&mut self, replica: Replica, boot: Boot) {
        if self.met.len() >= MAX_MEMORIES && !self.met.contains_key(&replica) {
            let membership = self.log.membership();
            self.met.retain(|met, _| membership.is_some_and(|m| m.is_member(*met)));
        }
        if self.met.len() < MAX_MEMORIES {
            self.met.insert(replica, boot);
        }
    }

    /// Notes what another replica has shown to have made durable; whether it has `acted` in its
    /// present boot.
    pub(super) fn remember(&mut self, of: Replica, acted: bool, change: impl FnOnce(&mut Memory)) {
        // A leader may be none of the configuration in force here, which may be old; but it may
        // also be a stranger. What it has shown is noted once the configuration names it.
        let is_member = |membership: &Membership| membership.is_member(of);
        if !self.membership().is_none_or(is_member) {
            return;
        }
        if self.memories.len() < MAX_MEMORIES || self.memories.contains_key(&of) {
            let memory = self.memories.entry(of).or_default();
            change(memory);
            // Who has only connected has promised nothing: it may be a copy that will be refused.
            // And what it has shown in a later boot must not pass for something of an earlier one.
            let boot = self.met.get(&of).copied().unwrap_or_default();
            if acted && boot.number >= memory.boot.number {
                memory.boot = boot;
            }
        }
    }

    pub(super) fn memory_of(&self, replica: Replica) -> Option<Memory> {
        self.memories.get(&replica).copied()
    }

    /// The end of the log is about to be replaced by what another leader has there.
    pub(super) fn note_replaced(&mut self) {
        self.replaced = self.replaced.max(self.log.last());
    }

    /// What of this memory this replica does not have any more, if anything.
    pub(super) fn lacks(&self, from: Replica, memory: &Memory) -> Option<String> {
        let Memory { term, voted, acknowledged, committed, boot } = *memory;
        let HardState { term: ours, voted_for } = self.hard_state;
        let last = self.log.last();
        let holds =
            |log_id: LogId| log_id.index <= self.log.purged().index || self.log.contains(log_id);
        // What was acknowledged and not committed, a leader of a later term may have replaced by
        // entries of earlier terms first: in this run, or in one before, which then knew of that
        // term.
        let may_be_replaced = acknowledged <= self.replaced || acknowledged.term < self.started_in;
        // The term and the log of a put-back store may rise again, and it may lead again in the
        // same term: what it has now does not show that. How its runs began does. (A run that isn't
        // known here may have written nothing, or was counted for another group of this store.)
        let number = boot.number;
        let known = self.starts.get(&number).map(|start| start.tag == boot.tag);
        let later = || self.starts.iter().find(|(later, _)| **later > number);
        let next = if known == Some(true) { later() } else { None };
        let place = |log_id: LogId| (log_id.term, log_id.index);
        let lacked = |start: &Start| {
            // Only in a later term may it have been replaced.
            let is_final = start.term == acknowledged.term;
            is_final && place(start.last) < place(acknowledged)
                || place(start.last) < place(committed)
        };
        if number > self.boot.number {
            Some(format!(
                "replica {from} remembers start {number} of this store, and this is start {}",
                self.boot.number
            ))
        } else if known == Some(false) {
            Some(format!(
                "replica {from} remembers another start {number} of this store than the one that has run here: its folder was copied before"
            ))
        } else if let Some((at, start)) = next.filter(|(_, start)| start.term < term) {
            Some(format!(
                "replica {from} has seen it in term {term} in start {number}, and start {at} began with term {}",
                start.term
            ))
        } else if let Some((at, start)) = next.filter(|(_, start)| lacked(start)) {
            Some(format!(
                "replica {from} knows that it had entry {acknowledged} in start {number}, and the log of start \
                 {at} began with {}",
                start.last
            ))
        } else if term > ours {
            Some(format!("replica {from} has seen it in term {term}, and it knows of term {ours}"))
        } else if voted == ours && voted > Term(0) && voted_for != Some(from) {
            Some(format!(
                "replica {from} has got its vote in term {voted}, of which it knows nothing"
            ))
        } else if place(acknowledged) > place(last) && !may_be_replaced {
            Some(format!(
                "replica {from} knows that it had entry {acknowledged}, and its log ends with {last}"
            ))
        } else if !holds(committed) {
            Some(format!(
                "replica {from} knows that it had entry {committed}, which is committed, and it does not hold that"
            ))
        } else {
            None
        }
    }
}
