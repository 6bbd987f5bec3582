//! Commands that this node has decoded as leader, until they are applied: nothing is decoded twice.

use std::collections::VecDeque;

use crate::engine::Ticket;
use crate::types::{Index, LogId};

/// The commands that are kept, in bytes as encoded and with the size of their type. Beyond that a
/// command is decoded again when it is applied. It holds what a leader under load has in flight,
/// some 100,000 small commands; more would be memory that a slow disk or state machine lets grow.
/// (What a type takes on the heap may be more than it takes encoded.)
const MAX_KEPT_BYTES: usize = 32 << 20;

/// Decoded commands of type `C`.
pub(crate) struct Kept<C> {
    /// They have been proposed in this turn, and the engine has not yet said what became of them.
    proposed: VecDeque<(Ticket, Counted<C>)>,
    /// They are in the log, by log id.
    placed: VecDeque<(LogId, Counted<C>)>,
    bytes: usize,
}

/// A command, and what it is counted as.
struct Counted<C>(usize, C);

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self { proposed: VecDeque::new(), placed: VecDeque::new(), bytes: 0 }
    }
}

impl<C> Kept<C> {
    fn add(&mut self, encoded: usize, command: C) -> Option<Counted<C>> {
        let bytes = size_of::<(LogId, Counted<C>)>() + encoded;
        if self.bytes + bytes > MAX_KEPT_BYTES {
            return None;
        }
        self.bytes += bytes;
        Some(Counted(bytes, command))
    }

    /// Keeps a command that is about to be proposed and takes so many bytes encoded. Tickets rise.
    pub(crate) fn propose(&mut self, ticket: Ticket, encoded: usize, command: C) {
        let kept = self.add(encoded, command);
        self.proposed.extend(kept.map(|kept| (ticket, kept)));
    }

    /// A proposal has got this place in the log.
    pub(crate) fn place(&mut self, ticket: Ticket, log_id: LogId) {
        while let Some((proposed, _)) = self.proposed.front()
            && *proposed <= ticket
            && let Some((proposed, kept)) = self.proposed.pop_front()
        {
            match proposed == ticket {
                true => self.insert(log_id, kept),
                false => self.bytes -= kept.0,
            }
        }
    }

    /// Keeps a command that has this place in the log and takes so many bytes encoded.
    pub(crate) fn keep(&mut self, log_id: LogId, encoded: usize, command: C) {
        if let Some(kept) = self.add(encoded, command) {
            self.insert(log_id, kept);
        }
    }

    fn insert(&mut self, log_id: LogId, kept: Counted<C>) {
        // Mostly they come in order.
        if self.placed.back().is_none_or(|(last, _)| last.index < log_id.index) {
            return self.placed.push_back((log_id, kept));
        }
        let position = self.placed.partition_point(|(placed, _)| placed.index < log_id.index);
        self.placed.insert(position, (log_id, kept));
    }

    /// The turn is over: what was not placed is not kept.
    pub(crate) fn end_turn(&mut self) {
        for (_, kept) in self.proposed.drain(..) {
            self.bytes -= kept.0;
        }
    }

    /// Leadership is lost: what lies beyond may never be committed.
    pub(crate) fn lose_beyond(&mut self, committed: Index) {
        let keep = self.placed.partition_point(|(placed, _)| placed.index <= committed);
        for (_, kept) in self.placed.drain(keep..) {
            self.bytes -= kept.0;
        }
    }

    /// The command of this entry, if it is kept. Entries are asked for in order: those before it
    /// are of no use any more.
    pub(crate) fn take(&mut self, log_id: LogId) -> Option<C> {
        while let Some((placed, _)) = self.placed.front()
            && placed.index <= log_id.index
            && let Some((placed, Counted(bytes, command))) = self.placed.pop_front()
        {
            self.bytes -= bytes;
            if placed == log_id {
                return Some(command);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(term: u64, index: Index) -> LogId {
        LogId::new(term, 1, index)
    }

    #[test]
    fn a_command_is_kept_under_its_log_id() {
        let mut kept = Kept::default();
        for ticket in 5..9 {
            kept.propose(ticket, 10, ticket);
        }
        kept.place(5, at(2, 11));
        // 6 was refused, and a forward has come in between.
        kept.keep(at(2, 14), 10, 100);
        kept.place(7, at(2, 12));
        kept.end_turn(); // Of 8 nothing was said.
        assert_eq!(kept.take(at(2, 10)), None, "another's");
        assert_eq!(kept.take(at(2, 11)), Some(5));
        assert_eq!(kept.take(at(2, 12)), Some(7));
        assert_eq!(kept.take(at(2, 13)), None);
        assert_eq!(kept.take(at(3, 14)), None, "another leader's has taken its place");
        assert_eq!(kept.take(at(2, 14)), None, "nobody asks for it again");
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn what_may_never_be_committed_is_not_kept() {
        let mut kept = Kept::default();
        (1..=4).for_each(|index| kept.keep(at(2, index), 10, index));
        kept.lose_beyond(2);
        kept.keep(at(4, 3), 10, 33);
        let taken: Vec<_> = [at(2, 1), at(2, 2), at(4, 3), at(4, 4)].map(|a| kept.take(a)).into();
        assert_eq!(taken, [Some(1), Some(2), Some(33), None]);
        assert_eq!(kept.bytes, 0);
    }

    #[test]
    fn they_are_bounded_in_bytes() {
        let mut kept = Kept::default();
        let half = MAX_KEPT_BYTES / 2;
        kept.propose(1, half, 'a');
        kept.keep(at(2, 1), half, 'b');
        kept.keep(at(2, 2), 10, 'c');
        kept.place(1, at(2, 3));
        let taken: Vec<_> = (1..=3).map(|index| kept.take(at(2, index))).collect();
        assert_eq!(taken, [None, Some('c'), Some('a')]);
        kept.keep(at(2, 4), half, 'd');
        assert_eq!(kept.take(at(2, 4)), Some('d'), "there is room again");
        assert_eq!(kept.bytes, 0);
    }
}
