//! What has been sent to a peer and not been acknowledged: a window bounded in bytes.

use std::collections::VecDeque;

use crate::types::Index;

#[derive(Debug, Default)]
pub(super) struct Inflight {
    /// The last index of each append, and its bytes; indexes rise.
    appends: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Inflight {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, last: Index, bytes: usize) {
        assert!(self.appends.back().is_none_or(|(before, _)| *before < last), "sent out of order");
        self.appends.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// The peer has everything up to `matched`.
    pub(super) fn free_to(&mut self, matched: Index) {
        while let Some((last, bytes)) = self.appends.front()
            && *last <= matched
        {
            self.bytes -= bytes;
            self.appends.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.appends.clear();
        self.bytes = 0;
    }
}
