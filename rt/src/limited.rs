//! A limit on how often something is told.

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use crate::Instant;

/// Limits how often a line is written that others can cause, so that nobody fills a log with it.
///
/// A burst goes through, and one more for each pause that has passed since. What is left out is
/// counted, and the next that goes through tells how many that were.
///
/// ```
/// use std::time::Duration;
///
/// use quorate_rt::{Instant, Limited};
///
/// let limited = Limited::new(1, Duration::from_secs(10));
/// let second = |n: u64| Instant::from_nanos(n * 1_000_000_000);
/// assert_eq!(limited.pass(second(1)), Some(0));
/// assert_eq!(limited.pass(second(2)), None);
/// assert_eq!(limited.pass(second(3)), None);
/// assert_eq!(limited.pass(second(11)), Some(2));
/// ```
pub struct Limited {
    pause: Duration,
    /// How far ahead of the time those may be that went through: all but one of a burst.
    ahead: Duration,
    /// When as many pauses have passed as have gone through.
    settled_at: Cell<Instant>,
    suppressed: Cell<u64>,
}

impl Limited {
    /// Lets through `burst` at once, at least one, and then one for each `pause`.
    pub fn new(burst: u32, pause: Duration) -> Self {
        let ahead = pause.saturating_mul(burst.saturating_sub(1));
        Self { pause, ahead, settled_at: Cell::default(), suppressed: Cell::default() }
    }

    /// Whether one more goes through, and then how many were left out since the last that did.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let settled_at = self.settled_at.get().max(now);
        if settled_at - now > self.ahead {
            self.suppressed.set(self.suppressed.get().saturating_add(1));
            return None;
        }
        self.settled_at.set(settled_at + self.pause);
        Some(self.suppressed.take())
    }
}

impl fmt::Debug for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited")
            .field("suppressed", &self.suppressed.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_through_and_then_one_for_each_pause() {
        let limited = Limited::new(3, Duration::from_nanos(10));
        let passed = |times: std::ops::Range<u64>| {
            let passed =
                |now| limited.pass(Instant::from_nanos(now)).map(|suppressed| (now, suppressed));
            times.filter_map(passed).collect::<Vec<_>>()
        };
        assert_eq!(passed(100..125), [(100, 0), (101, 0), (102, 0), (110, 7), (120, 9)]);
        // Four left out at the end; and in a long silence no more than a burst is saved up.
        assert_eq!(passed(1000..1012), [(1000, 4), (1001, 0), (1002, 0), (1010, 7)]);
    }
}
