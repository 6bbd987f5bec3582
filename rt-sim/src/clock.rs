//! A host's clock: it runs at its own rate, begins at its own time, and may jump ahead. It is
//! monotonic, so it never goes back.
//!
//! A host also has a wall clock. It goes with the world's time, off by an offset that may change.

use quorate_rt::Instant;

/// A clock that is right.
pub(crate) const RIGHT: u64 = 1_000_000;

/// The right wall-clock time at which every simulation begins, in milliseconds: 2026-01-01 UTC.
const BEGIN: u64 = 1_767_225_600_000;

/// Returns what a wall clock shows that is `ahead` of the right one, in milliseconds; 0 before
/// 1970.
pub(crate) fn wall_clock(world: u64, ahead: i64) -> u64 {
    (BEGIN + world / 1_000_000).saturating_add_signed(ahead)
}

/// From the time of the world to that of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// At this time of the world …
    world: u64,
    /// … it was this on the host, …
    host: u64,
    /// … and from there on it runs at this rate: so many nanoseconds in a millisecond of the
    /// world's.
    rate: u64,
}

impl Clock {
    pub(crate) fn new(offset: u64) -> Self {
        Self { world: 0, host: offset, rate: RIGHT }
    }

    pub(crate) fn now(&self, world: u64) -> Instant {
        let passed = u128::from(world - self.world) * u128::from(self.rate) / u128::from(RIGHT);
        Instant::from_nanos(self.host.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// When in the world it will be this on the host: the first moment at which it is not earlier.
    pub(crate) fn when(&self, host: Instant) -> u64 {
        let left = host.as_nanos().saturating_sub(self.host);
        let in_world = (u128::from(left) * u128::from(RIGHT)).div_ceil(u128::from(self.rate));
        self.world.saturating_add(u64::try_from(in_world).unwrap_or(u64::MAX))
    }

    /// From `world` on it runs at another rate.
    pub(crate) fn set_rate(&mut self, world: u64, rate: u64) {
        assert!(rate > 0, "a clock that stands still is a pause");
        *self = Self { world, host: self.now(world).as_nanos(), rate };
    }

    /// At `world` it jumps ahead.
    pub(crate) fn jump(&mut self, world: u64, nanos: u64) {
        let host = self.now(world).as_nanos().saturating_add(nanos);
        *self = Self { world, host, ..*self };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_first_moment_that_is_not_early() {
        for rate in [1, 333_333, 999_999, RIGHT, 1_000_001, 3_000_007] {
            let mut clock = Clock::new(17);
            clock.set_rate(1000, rate);
            for after in [0, 1, 999, 1_000_003] {
                let wanted = Instant::from_nanos(clock.now(1000).as_nanos() + after);
                let when = clock.when(wanted);
                assert!(clock.now(when) >= wanted, "at rate {rate}");
                assert!(when == 1000 || clock.now(when - 1) < wanted, "at rate {rate}");
            }
        }
    }

    #[test]
    fn no_wall_clock_shows_what_is_no_time() {
        assert_eq!(wall_clock(1_999_999, 0), BEGIN + 1);
        assert_eq!(wall_clock(0, -1), BEGIN - 1);
        assert_eq!(wall_clock(0, i64::MIN), 0);
        assert_eq!(wall_clock(u64::MAX, i64::MAX), BEGIN + u64::MAX / 1_000_000 + i64::MAX as u64);
    }

    #[test]
    fn it_goes_on_from_where_it_was() {
        let mut clock = Clock::new(0);
        clock.set_rate(1_000, 2 * RIGHT);
        assert_eq!(clock.now(1_500).as_nanos(), 2_000);
        clock.jump(1_500, 500);
        assert_eq!(clock.now(1_500).as_nanos(), 2_500);
        clock.set_rate(2_000, RIGHT);
        assert_eq!(clock.now(2_001).as_nanos(), 3_501);
    }
}
