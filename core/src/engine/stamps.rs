//! The times that a leader stamps on its entries, from its wall clock.
//!
//! State machines let things expire by these times, so a wall clock that is set must do little
//! harm. Set back, it gives equal stamps until it is past the last one: they never decrease along
//! the log. Set forward, it is followed by at most a step beyond the monotonic clock, within one
//! leadership. A new leader begins at its own wall clock, whatever that shows, but not below the
//! log.
//!
//! Example with a step of 1 s, for a leader that begins at 12:00:00. At 12:00:10 its clock is set
//! to 13:00:10. The next stamp is 12:00:11, and stamps go on at the pace of the monotonic clock. At
//! 12:00:20 the clock is set right. Stamps stay at 12:00:21 for a second, and then follow it again.

use std::time::Duration;

use quorate_rt::Instant;

/// Gives each run of entries its leader's wall clock, in milliseconds since the Unix epoch.
#[derive(Debug)]
pub(super) struct Stamps {
    /// The least stamp of this leadership, …
    begin: u64,
    /// … the monotonic time at which it began, …
    begun: Instant,
    /// … and how far its stamps may run ahead of both: `Config::max_clock_step`.
    step: Duration,
    last: u64,
}

impl Stamps {
    /// Begins a leadership. No stamp is below `floor`, the largest time in the log.
    pub(super) fn new(floor: u64, wall: u64, now: Instant, step: Duration) -> Self {
        let begin = floor.max(wall);
        Self { begin, begun: now, step, last: begin }
    }

    /// From now on stamps may run so far ahead.
    pub(super) fn set_step(&mut self, step: Duration) {
        self.step = step;
    }

    /// Returns the stamp for what is placed now. It is never below the last one, and is at most the
    /// first one plus the monotonic time since the begin plus the step.
    pub(super) fn next(&mut self, wall: u64, now: Instant) -> u64 {
        let ahead = now.saturating_since(self.begun).saturating_add(self.step);
        let limit = self.begin.saturating_add(u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX));
        self.last = self.last.max(wall.min(limit));
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: Duration = Duration::from_secs(1);
    const NOON: u64 = 1_767_268_800_000;
    const HOUR: u64 = 3_600_000;

    /// So many milliseconds after the monotonic clock's origin.
    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_clock_that_is_set_forward_is_followed_by_the_step_and_then_by_the_monotonic_time() {
        let mut stamps = Stamps::new(0, NOON, at(500), STEP);
        assert_eq!(stamps.next(NOON + 10_000, at(10_500)), NOON + 10_000);
        assert_eq!(stamps.next(NOON + 10_000 + HOUR, at(10_500)), NOON + 11_000);
        assert_eq!(stamps.next(NOON + 15_000 + HOUR, at(15_500)), NOON + 16_000);
        // Set right again, it is behind the last stamp at first.
        assert_eq!(stamps.next(NOON + 15_500, at(16_000)), NOON + 16_000);
        assert_eq!(stamps.next(NOON + 20_000, at(20_500)), NOON + 20_000);
    }

    #[test]
    fn steps_forward_add_up_to_no_more_than_one() {
        let mut stamps = Stamps::new(0, NOON, at(0), STEP);
        assert_eq!(stamps.next(NOON + 700, at(0)), NOON + 700);
        assert_eq!(stamps.next(NOON + 1_400, at(0)), NOON + 1_000);
    }

    #[test]
    fn a_clock_that_is_set_back_holds_the_stamps_until_it_is_past_them() {
        let mut stamps = Stamps::new(0, NOON, at(0), STEP);
        assert_eq!(stamps.next(NOON + 5_000, at(5_000)), NOON + 5_000);
        assert_eq!(stamps.next(NOON + 2_000, at(5_000)), NOON + 5_000);
        assert_eq!(stamps.next(NOON + 4_999, at(7_999)), NOON + 5_000);
        assert_eq!(stamps.next(NOON + 5_001, at(8_001)), NOON + 5_001);
    }

    #[test]
    fn a_leader_behind_the_log_holds_its_largest_time() {
        let mut stamps = Stamps::new(NOON + HOUR, NOON, at(0), STEP);
        assert_eq!(stamps.next(NOON, at(0)), NOON + HOUR);
        assert_eq!(stamps.next(NOON + HOUR - 1, at(HOUR - 1)), NOON + HOUR);
        assert_eq!(stamps.next(NOON + HOUR + 1, at(HOUR + 1)), NOON + HOUR + 1);
    }

    #[test]
    fn the_largest_times_are_no_overflow() {
        let mut stamps = Stamps::new(u64::MAX, u64::MAX, Instant::from_nanos(u64::MAX), STEP);
        assert_eq!(stamps.next(u64::MAX, Instant::from_nanos(0)), u64::MAX);
        let mut stamps = Stamps::new(0, 0, Instant::from_nanos(0), Duration::MAX);
        assert_eq!(stamps.next(u64::MAX, Instant::from_nanos(u64::MAX)), u64::MAX);
    }

    /// A wall clock around noon, and now and then far from it.
    fn wall() -> impl Strategy<Value = u64> {
        prop_oneof![4 => NOON - HOUR..NOON + HOUR, 1 => any::<u64>()]
    }

    /// Nanoseconds: between two looks at the clocks, and as a step.
    fn nanos() -> impl Strategy<Value = u64> {
        prop_oneof![0..2_000_000_u64, 0..20_000_000_000_u64]
    }

    proptest! {
        #[test]
        fn whatever_the_clock_shows_no_stamp_decreases_or_is_out_of_bounds(
            floor in wall(),
            first in wall(),
            step in nanos(),
            looks in prop::collection::vec((wall(), nanos()), 1..50),
        ) {
            let step = Duration::from_nanos(step);
            let mut now = at(7);
            let mut stamps = Stamps::new(floor, first, now, step);
            let begin = floor.max(first);
            let (mut last, mut seen, mut passed) = (begin, begin, step);
            for (wall, nanos) in looks {
                now += Duration::from_nanos(nanos);
                passed += Duration::from_nanos(nanos);
                seen = seen.max(wall);
                let stamp = stamps.next(wall, now);
                prop_assert!(stamp >= last, "it never decreases");
                prop_assert!(u128::from(stamp - begin) <= passed.as_millis(), "it is bounded");
                prop_assert!(stamp <= seen, "no clock has shown that yet");
                last = stamp;
            }
        }

        /// Beside the monotonic clock it gains less than the step in all, and loses what it likes,
        /// but is never set back.
        #[test]
        fn a_clock_that_behaves_is_followed_to_the_millisecond(
            floor in NOON - HOUR..NOON + HOUR,
            phase in 0..1_000_000_u64,
            step in 1..10_000_u64,
            looks in prop::collection::vec((nanos(), -20_000_000_000..1_000_000_i64), 1..50),
        ) {
            let mut now = at(7);
            let mut stamps = Stamps::new(floor, NOON, now, Duration::from_millis(step));
            let (mut wall, mut gained) = (phase, 0_i64); // In nanoseconds after noon.
            for (nanos, gain) in looks {
                // A clock's whole millisecond may begin just after a look at the other clock.
                let most = i64::try_from((step - 1) * 1_000_000).unwrap() - gained;
                let gain = gain.clamp(-i64::try_from(nanos).unwrap(), most);
                now += Duration::from_nanos(nanos);
                wall = wall.saturating_add(nanos).saturating_add_signed(gain);
                gained += gain;
                let shown = NOON + wall / 1_000_000;
                prop_assert_eq!(stamps.next(shown, now), shown.max(floor));
            }
        }
    }
}
