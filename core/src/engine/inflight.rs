//! What has been sent to a peer and not been acknowledged: a window bounded in bytes.

use std::collections::VecDeque;

use crate::plant;
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
        plant!(
            R14,
            assert!(
                self.appends.front().is_none_or(|(last, _)| *last <= matched),
                "an answer to no append"
            )
        );
        while let Some((last, bytes)) = self.appends.front()
            && *last <= matched
        {
            self.bytes -= bytes;
            self.appends.pop_front();
        }
    }

    /// Lets go of memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.appends.shrink_to_fit();
    }

    pub(super) fn clear(&mut self) {
        self.appends.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_frees_the_appends_that_it_covers_whole() {
        let mut inflight = Inflight::default();
        inflight.push(3, 30);
        inflight.push(5, 20);
        inflight.push(9, 40);
        assert_eq!(inflight.bytes(), 90);
        inflight.free_to(2);
        assert_eq!(inflight.bytes(), 90, "part of an append is still on its way");
        inflight.free_to(5);
        assert_eq!(inflight.bytes(), 40);
        inflight.free_to(4);
        assert_eq!(inflight.bytes(), 40, "an old acknowledgement frees nothing");
        inflight.free_to(100);
        assert_eq!(inflight.bytes(), 0);
    }

    #[test]
    fn a_cleared_window_starts_anywhere() {
        let mut inflight = Inflight::default();
        inflight.push(9, 40);
        inflight.clear();
        assert_eq!(inflight.bytes(), 0);
        inflight.push(2, 1);
        inflight.free_to(2);
        assert_eq!(inflight.bytes(), 0);
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn what_is_sent_twice_is_a_bug() {
        let mut inflight = Inflight::default();
        inflight.push(3, 30);
        inflight.push(3, 30);
    }
}
