//! A point in a runtime's time, and the clocks of the operating system.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use nix::time::ClockId;

/// A point in time of a runtime's clock, in nanoseconds since an origin that means nothing by itself. Instants of one
/// process compare; those of two processes don't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// From nanoseconds since the clock's origin (for simulators and tests).
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The monotonic clock of the operating system, for production backends.
    pub fn from_system_clock() -> Self {
        Self::from_clock(ClockId::CLOCK_MONOTONIC)
    }

    /// The same clock as it was a few milliseconds ago, at the kernel's last tick, for a fifth of
    /// the cost: see [`AsyncRuntime::coarse_now`](crate::AsyncRuntime::coarse_now).
    pub fn from_coarse_system_clock() -> Self {
        Self::from_clock(ClockId::CLOCK_MONOTONIC_COARSE)
    }

    fn from_clock(clock: ClockId) -> Self {
        let since_boot = clock.now().expect("every Linux has these clocks");
        let [seconds, nanos] = [since_boot.tv_sec(), since_boot.tv_nsec()].map(i64::cast_unsigned);
        Self(seconds * 1_000_000_000 + nanos) // 2^64 ns are 584 years.
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The wall clock of the operating system, for production backends: see
/// [`AsyncRuntime::wall_clock`](crate::AsyncRuntime::wall_clock).
#[expect(clippy::disallowed_methods, reason = "for production backends")]
pub fn system_wall_clock() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // A clock that is set before 1970 gives 0. 2^64 ms are more than 500 million years.
    since_epoch.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}
