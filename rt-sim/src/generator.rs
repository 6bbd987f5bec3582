//! Randomness from the seed, in streams that don't touch each other.

use std::cell::RefCell;
use std::ops::Range;
use std::time::Duration;

/// A generator of its own: what it gives depends on the seed, its name, and what was drawn from it,
/// and on no other generator.
#[derive(Debug)]
pub struct Generator(RefCell<fastrand::Rng>);

impl Generator {
    /// The generator of this name.
    pub fn new(seed: u64, name: &str) -> Self {
        let name = u64::from(crc32fast::hash(name.as_bytes()));
        // Through a generator: seeds that differ in one bit give streams that have nothing in
        // common.
        let mut mixed = fastrand::Rng::with_seed(seed);
        Self(RefCell::new(fastrand::Rng::with_seed(mixed.u64(..) ^ name << 17)))
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.0.borrow_mut().u64(..)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&self, limit: u64) -> u64 {
        self.0.borrow_mut().u64(..limit)
    }

    /// An index into something of this length, which is not 0.
    pub fn index(&self, len: usize) -> usize {
        self.0.borrow_mut().usize(..len)
    }

    /// A number from the range; its begin if it is empty.
    pub fn within(&self, range: &Range<u64>) -> u64 {
        match range.is_empty() {
            true => range.start,
            false => self.0.borrow_mut().u64(range.clone()),
        }
    }

    /// A duration from the range; its begin if it is empty.
    pub fn duration(&self, range: &Range<Duration>) -> Duration {
        Duration::from_nanos(self.within(&(nanos(range.start)..nanos(range.end))))
    }

    /// True with this probability.
    pub fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && self.0.borrow_mut().f64() < probability
    }

    /// One of these, of which there is one at least.
    pub fn choose<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }

    /// Puts them into another order.
    pub fn shuffle<T>(&self, these: &mut [T]) {
        self.0.borrow_mut().shuffle(these);
    }
}

/// In nanoseconds; a simulation doesn't last as long as 2^64 of them.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, name: &str) -> [u64; 4] {
        let generator = Generator::new(seed, name);
        [(); 4].map(|()| generator.number())
    }

    #[test]
    fn a_stream_is_of_its_seed_and_name() {
        assert_eq!(first(7, "network"), first(7, "network"));
        assert_ne!(first(7, "network"), first(7, "disks"));
        assert_ne!(first(7, "network"), first(8, "network"));
    }

    #[test]
    fn an_empty_range_gives_its_begin() {
        let generator = Generator::new(1, "any");
        assert_eq!(generator.within(&(5..5)), 5);
        let second = Duration::from_secs(1);
        assert_eq!(generator.duration(&(second..second)), second);
        assert!(!generator.chance(0.0) && generator.chance(1.0));
    }
}
