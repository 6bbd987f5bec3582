//! Notices when a turn comes late because something has kept the node's thread, and says what.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use quorate_rt::{Instant, Limited};

use crate::types::Index;

/// So many lines at once, and then one for each pause: a state machine that is always slow is told
/// of often enough.
const LINES: u32 = 3;
const LINES_PAUSE: Duration = Duration::from_secs(10);

/// What may keep the thread, of all that the node does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The state machine applies these entries.
    Apply { first: Index, last: Index },
    /// The state machine gives a view of its state.
    View,
    /// Reads look at the state.
    Reads,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply { first, last } if first == last => {
                write!(f, "the state machine, which applied entry {first}")
            }
            Self::Apply { first, last } => {
                write!(f, "the state machine, which applied entries {first} to {last}")
            }
            Self::View => f.write_str("the state machine, which gave a view for a snapshot"),
            Self::Reads => f.write_str("reads of the state"),
        }
    }
}

/// What has kept the thread longest since the last turn.
pub(super) struct Delays {
    now: Box<dyn Fn() -> Instant>,
    longest: Cell<Option<(Work, Duration)>>,
    lines: Limited,
}

impl Delays {
    pub(super) fn new(now: impl Fn() -> Instant + 'static) -> Self {
        let lines = Limited::new(LINES, LINES_PAUSE);
        Self { now: Box::new(now), longest: Cell::default(), lines }
    }

    /// Does something, and notes how long it took.
    pub(super) fn measure<T>(&self, work: Work, does: impl FnOnce() -> T) -> T {
        let began = (self.now)();
        let result = does();
        let took = (self.now)() - began;
        if self.longest.get().is_none_or(|(_, longest)| took > longest) {
            self.longest.set(Some((work, took)));
        }
        result
    }

    /// The same with a future: what counts is the time from one pause of it to the next.
    pub(super) async fn measure_polls<F: Future>(&self, work: Work, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| self.measure(work, || future.as_mut().poll(context))).await
    }

    /// A turn begins at `now`, so long after it was due. If that is too long, one line says so.
    pub(super) fn turn_begins(&self, now: Instant, late: Duration, limit: Duration) {
        let longest = self.longest.take();
        if late > limit
            && let Some(left_out) = self.lines.pass(now)
        {
            let by = culprit(longest, late);
            tracing::warn!(
                left_out,
                "a turn of this node was held up for {late:.0?}, longer than a heartbeat interval, by {by}"
            );
        }
    }
}

/// What has most of the delay.
fn culprit(longest: Option<(Work, Duration)>, late: Duration) -> String {
    match longest {
        Some((work, took)) if took >= late / 2 => format!("{work} for {took:.0?}"),
        _ => "other tasks on its thread, or by the machine, which was stopped or overloaded"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_longest_work_since_the_last_turn_is_named() {
        let clock = Rc::new(Cell::new(Instant::default()));
        let of = Rc::clone(&clock);
        let delays = Delays::new(move || of.get());
        let passes = |time: Duration| clock.set(clock.get() + time);
        delays.measure(Work::Reads, || passes(3 * MS));
        let apply = Work::Apply { first: 7, last: 9 };
        delays.measure(apply, || passes(200 * MS));
        delays.measure(Work::View, || passes(5 * MS));
        assert_eq!(delays.longest.get(), Some((apply, 200 * MS)));
        let named = "the state machine, which applied entries 7 to 9 for 200ms";
        assert_eq!(culprit(delays.longest.get(), 210 * MS), named);
        delays.turn_begins(clock.get(), 210 * MS, 100 * MS);
        assert_eq!(delays.longest.get(), None, "the next turn has nothing to do with it");
    }

    #[test]
    fn what_took_little_of_the_delay_is_not_accused() {
        let others =
            "other tasks on its thread, or by the machine, which was stopped or overloaded";
        assert_eq!(culprit(Some((Work::View, 40 * MS)), 100 * MS), others);
        assert_eq!(culprit(None, 100 * MS), others);
    }
}
