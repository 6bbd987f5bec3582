//! A point in a runtime's time, and the clocks of the operating system.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

use nix::time::ClockId;

/// A point in time of a runtime's clock, in nanoseconds since an origin that means nothing by
/// itself. Instants of one process compare; those of two processes don't.
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
    /// the cost: see [`Executor::coarse_now`](crate::Executor::coarse_now).
    pub fn from_coarse_system_clock() -> Self {
        Self::from_clock(ClockId::CLOCK_MONOTONIC_COARSE)
    }

    fn from_clock(clock: ClockId) -> Self {
        Self(nanos(clock).expect("every Linux has these clocks"))
    }

    /// Returns the earliest of those that there are.
    pub fn earliest<const N: usize>(times: [Option<Self>; N]) -> Option<Self> {
        let mut earliest: Option<Self> = None;
        for time in &times {
            if let Some(time) = *time
                && earliest.is_none_or(|earliest| time < earliest)
            {
                earliest = Some(time);
            }
        }
        earliest
    }

    /// Returns how long after `earlier` this is; zero if it is not after.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A point in time of a clock that also counts the time in which the machine is suspended, in
/// nanoseconds since an origin that means nothing by itself; see
/// [`Executor::continuous_now`](crate::Executor::continuous_now). It is a type of its own, because
/// it does not compare with an [`Instant`], and no timer goes by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContinuousInstant(u64);

impl ContinuousInstant {
    /// From nanoseconds since the clock's origin (for simulators and tests).
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The clock of the operating system that counts time in suspend (`CLOCK_BOOTTIME`), for
    /// production backends; where there is none, its monotonic clock.
    pub fn from_system_clock() -> Self {
        // The kernel has it or not, so no process reads now the one and now the other.
        let boot_time = nanos(ClockId::CLOCK_BOOTTIME);
        Self(boot_time.unwrap_or_else(|_| Instant::from_system_clock().as_nanos()))
    }

    /// How long after `earlier` this is; zero if it is not after.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for ContinuousInstant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self((Instant(self.0) + duration).0)
    }
}

impl Sub for ContinuousInstant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_since(earlier)
    }
}

fn nanos(clock: ClockId) -> nix::Result<u64> {
    let time = clock.now()?;
    let [seconds, nanos] = [time.tv_sec(), time.tv_nsec()].map(i64::cast_unsigned);
    Ok(seconds * 1_000_000_000 + nanos) // 2^64 ns are 584 years.
}

/// The wall clock of the operating system, for production backends: see
/// [`Executor::wall_clock`](crate::Executor::wall_clock).
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
