//! Deadlines of callers who wait for something that the metrics tell. A handle may be used on any
//! executor, which perhaps has no timers: so the time is the node's.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use quorate_rt::Instant;

use super::admin::Answer;
use crate::node::WaitError;

/// So many callers of a group may wait at once. Each takes some 40 bytes here.
const MAX_ALARMS: usize = 16_384;

/// Those who have stopped waiting are looked for when there are so many, or twice as many as were
/// left the last time.
const SWEPT: usize = 64;

/// A deadline is at most so far away.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Those who are to be told that their time is up.
pub(crate) struct Alarms {
    /// By their times. The number tells those of the same time apart.
    set: BTreeMap<(Instant, u64), Answer<(), WaitError>>,
    next: u64,
    swept_at: usize,
}

impl Default for Alarms {
    fn default() -> Self {
        Self { set: BTreeMap::new(), next: 0, swept_at: SWEPT }
    }
}

impl Alarms {
    /// Answers when the time is up, or at once where too many wait.
    pub(super) fn set(&mut self, now: Instant, within: Duration, answer: Answer<(), WaitError>) {
        if self.set.len() >= self.swept_at {
            self.set.retain(|_, answer| !answer.is_canceled());
            self.swept_at = (2 * self.set.len()).clamp(SWEPT, MAX_ALARMS);
        }
        if self.set.len() >= MAX_ALARMS {
            let _ = answer.send(Err(WaitError::Busy));
            return;
        }
        self.set.insert((now + within.min(LONGEST), self.next), answer);
        self.next += 1;
    }

    /// Answers those whose time is up.
    pub(super) fn ring(&mut self, now: Instant) {
        while let Some(first) = self.set.first_entry()
            && first.key().0 <= now
        {
            let _ = first.remove().send(Ok(()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// When the next one is to be answered.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.set.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets go of memory that is not in use.
    pub(super) fn shrink(&mut self) {
        if self.set.is_empty() {
            drop(mem::take(self)); // An empty map may keep a node.
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::oneshot;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_is_answered_when_its_time_is_up() {
        let (mut alarms, now) = (Alarms::default(), Instant::default());
        let [mut late, mut early] = [9 * MS, 5 * MS].map(|within| {
            let (answer, rings) = oneshot::channel();
            alarms.set(now, within, answer);
            rings
        });
        assert_eq!(alarms.wake_at(), Some(now + 5 * MS));
        alarms.ring(now + 5 * MS);
        assert!(matches!((&mut early).now_or_never(), Some(Ok(Ok(())))));
        assert!((&mut late).now_or_never().is_none());
        alarms.ring(now + 20 * MS);
        assert!(matches!((&mut late).now_or_never(), Some(Ok(Ok(())))));
        assert_eq!(alarms.wake_at(), None);
    }

    #[test]
    fn those_who_have_stopped_waiting_take_nobody_s_place() {
        let (mut alarms, now) = (Alarms::default(), Instant::default());
        let mut set = || {
            let (answer, rings) = oneshot::channel();
            alarms.set(now, Duration::MAX, answer);
            rings
        };
        for _ in 0..3 * MAX_ALARMS {
            drop(set());
        }
        let waiting: Vec<_> = (0..MAX_ALARMS).map(|_| set()).collect();
        assert!(waiting.into_iter().all(|rings| rings.now_or_never().is_none()));
        let waiting: Vec<_> = (0..MAX_ALARMS).map(|_| set()).collect();
        let one_more = set().now_or_never();
        assert!(matches!(one_more, Some(Ok(Err(WaitError::Busy)))), "{one_more:?}");
        drop(waiting);
        assert!(set().now_or_never().is_none(), "there is room again");
    }
}
