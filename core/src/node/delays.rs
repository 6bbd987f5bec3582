//! Notices when a turn comes late because something has kept the node's thread, and says what.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use quorate_rt::{Instant, Limited};

use crate::types::{GroupId, Index};

/// So many lines at once, and then one for each pause: a state machine that is always slow is told
/// of often enough.
const LINES: u32 = 3;
const LINES_PAUSE: Duration = Duration::from_secs(10);

/// What may keep the thread, of all that the node does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The state machine applies these entries.
    Apply { group: GroupId, first: Index, last: Index },
    /// The state machine gives a view of its state at this index.
    View { group: GroupId, at: Index },
    /// The state machine restores a snapshot at this index.
    Restore { group: GroupId, at: Index },
    /// Reads look at the state at this index.
    Reads { group: GroupId, at: Index },
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Apply { group, first, last } if first == last => {
                write!(f, "the state machine of group {group}, which applied entry {first}")
            }
            Self::Apply { group, first, last } => {
                write!(
                    f,
                    "the state machine of group {group}, which applied entries {first} to {last}"
                )
            }
            Self::View { group, at } => write!(
                f,
                "the state machine of group {group}, which gave a view for a snapshot at index {at}"
            ),
            Self::Restore { group, at } => write!(
                f,
                "the state machine of group {group}, which restored a snapshot at index {at}"
            ),
            Self::Reads { group, at } => {
                write!(f, "reads of the state of group {group} at index {at}")
            }
        }
    }
}

/// What has kept the thread longest.
pub(super) struct Delays {
    now: Box<dyn Fn() -> Instant>,
    /// … in this turn of the node's loop.
    longest: Cell<Longest>,
    /// … since the turn before this one.
    before: Cell<Longest>,
    lines: Limited,
}

type Longest = Option<(Work, Duration)>;

impl Delays {
    pub(super) fn new(now: impl Fn() -> Instant + 'static) -> Self {
        let lines = Limited::new(LINES, LINES_PAUSE);
        Self { now: Box::new(now), longest: Cell::default(), before: Cell::default(), lines }
    }

    /// The node's loop turns.
    pub(super) fn next_turn(&self) {
        self.before.set(self.longest.take());
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

    /// The turn of a group begins at `now`, so long after it was due. If that is too long, one line
    /// says so.
    pub(super) fn turn_begins(&self, now: Instant, late: Duration, limit: Duration) {
        if late > limit
            && let Some(suppressed) = self.lines.pass(now)
        {
            let by = culprit(self.longest(), late);
            tracing::warn!(
                suppressed,
                "a turn of this node was held up for {late:.0?}, longer than a heartbeat interval, by {by}"
            );
        }
    }

    fn longest(&self) -> Longest {
        [self.longest.get(), self.before.get()].into_iter().flatten().max_by_key(|(_, took)| *took)
    }
}

/// What has most of the delay.
fn culprit(longest: Longest, late: Duration) -> String {
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
        delays.measure(Work::Reads { group: 1, at: 6 }, || passes(3 * MS));
        let apply = Work::Apply { group: 4, first: 7, last: 9 };
        delays.measure(apply, || passes(200 * MS));
        delays.next_turn();
        let view = Work::View { group: 1, at: 8 };
        delays.measure(view, || passes(5 * MS));
        assert_eq!(delays.longest(), Some((apply, 200 * MS)));
        let named = "the state machine of group 4, which applied entries 7 to 9 for 200ms";
        assert_eq!(culprit(delays.longest(), 210 * MS), named);
        delays.next_turn();
        assert_eq!(delays.longest(), Some((view, 5 * MS)), "only this has kept that turn");
    }

    #[test]
    fn each_work_of_a_state_machine_is_named_with_its_group_and_index() {
        let (group, at) = (4, 7);
        for (work, named) in [
            (Work::Apply { group, first: at, last: at }, "which applied entry 7"),
            (Work::View { group, at }, "which gave a view for a snapshot at index 7"),
            (Work::Restore { group, at }, "which restored a snapshot at index 7"),
        ] {
            let told = culprit(Some((work, 80 * MS)), 100 * MS);
            assert_eq!(told, format!("the state machine of group 4, {named} for 80ms"));
        }
        let told = culprit(Some((Work::Reads { group, at }, 80 * MS)), 100 * MS);
        assert_eq!(told, "reads of the state of group 4 at index 7 for 80ms");
    }

    #[test]
    fn what_took_little_of_the_delay_is_not_accused() {
        let others =
            "other tasks on its thread, or by the machine, which was stopped or overloaded";
        assert_eq!(culprit(Some((Work::View { group: 1, at: 8 }, 40 * MS)), 100 * MS), others);
        assert_eq!(culprit(None, 100 * MS), others);
    }
}
