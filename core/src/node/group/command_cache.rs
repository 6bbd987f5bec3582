//! Commands that this node has decoded as leader, until they are applied: nothing is decoded twice.

use std::collections::VecDeque;

use crate::types::{Index, LogId};

/// The commands that are kept, in bytes as encoded and with the size of their type. Beyond that a
/// command is decoded again when it is applied. It holds what a leader under load has in flight,
/// some 100,000 small commands; more would be memory that a slow disk or state machine lets grow.
/// (What a type takes on the heap may be more than it takes encoded.)
const MAX_CACHED_BYTES: usize = 32 << 20;

/// Decoded commands of type `C`, by log id and in the order of the log.
pub(crate) struct CommandCache<C> {
    commands: VecDeque<Command<C>>,
    bytes: usize,
}

struct Command<C> {
    log_id: LogId,
    /// What it is counted as.
    bytes: usize,
    inner: C,
}

impl<C> Default for CommandCache<C> {
    fn default() -> Self {
        Self { commands: VecDeque::new(), bytes: 0 }
    }
}

impl<C> CommandCache<C> {
    /// Keeps a command that takes so many bytes encoded, if there is room. Nothing is kept behind
    /// it: what is there was placed in an earlier term, and is not in this node's log any more.
    #[inline]
    pub(crate) fn insert(&mut self, log_id: LogId, encoded: usize, inner: C) {
        if self.commands.back().is_some_and(|last| last.log_id.index >= log_id.index) {
            self.lose_beyond(log_id.index - 1);
        }
        let bytes = size_of::<Command<C>>() + encoded;
        if self.bytes + bytes <= MAX_CACHED_BYTES {
            self.bytes += bytes;
            self.commands.push_back(Command { log_id, bytes, inner });
        }
    }

    /// What lies beyond is not in the log.
    pub(crate) fn lose_beyond(&mut self, index: Index) {
        while let Some(lost) = self.commands.pop_back_if(|last| last.log_id.index > index) {
            self.bytes -= lost.bytes;
        }
    }

    /// The command of this entry, if it is kept. Entries are asked for in order: those before it
    /// are of no use any more.
    #[inline]
    pub(crate) fn take(&mut self, log_id: LogId) -> Option<C> {
        loop {
            let first = self.commands.pop_front_if(|first| first.log_id.index <= log_id.index)?;
            self.bytes -= first.bytes;
            if first.log_id == log_id {
                return Some(first.inner);
            }
        }
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
        let mut cache = CommandCache::default();
        [11, 12, 14, 15].into_iter().for_each(|index| cache.insert(at(2, index), 10, index));
        assert_eq!(cache.take(at(2, 10)), None, "it was applied before");
        assert_eq!(cache.take(at(2, 11)), Some(11));
        assert_eq!(cache.take(at(2, 12)), Some(12));
        assert_eq!(cache.take(at(2, 13)), None, "there was no room for it");
        assert_eq!(cache.take(at(3, 14)), None, "another leader's has taken its place");
        assert_eq!(cache.take(at(2, 14)), None, "nobody asks for it again");
        assert_eq!(cache.take(at(2, 20)), None, "a snapshot has covered what lies between");
        assert_eq!((cache.bytes, cache.commands.len()), (0, 0));
    }

    #[test]
    fn what_may_never_be_committed_is_not_kept() {
        let mut cache = CommandCache::default();
        (1..=4).for_each(|index| cache.insert(at(2, index), 10, index));
        cache.insert(at(4, 3), 10, 33);
        let taken: Vec<_> =
            [at(2, 1), at(2, 2), at(4, 3), at(4, 4)].map(|at| cache.take(at)).into();
        assert_eq!(taken, [Some(1), Some(2), Some(33), None]);
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn they_are_bounded_in_bytes() {
        let mut cache = CommandCache::default();
        let half = MAX_CACHED_BYTES / 2;
        cache.insert(at(2, 1), half, 'a');
        cache.insert(at(2, 2), half, 'b');
        cache.insert(at(2, 3), 10, 'c');
        let taken: Vec<_> = (1..=3).map(|index| cache.take(at(2, index))).collect();
        assert_eq!(taken, [Some('a'), None, Some('c')]);
        cache.insert(at(2, 4), half, 'd');
        assert_eq!(cache.take(at(2, 4)), Some('d'), "there is room again");
        assert_eq!(cache.bytes, 0);
    }
}
