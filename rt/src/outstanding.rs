//! Work that is under way, in the order in which it has begun, and what waits for its end.

use std::collections::VecDeque;

/// The work that is under way. `W` is what is to be done when all work has ended that had begun
/// before.
pub(crate) struct Outstanding<W> {
    /// All before it has ended.
    first: u64,
    /// Of each from the first on.
    has_ended: VecDeque<bool>,
    /// In the order in which they came: each waits for what is before this number.
    waiting: VecDeque<(u64, W)>,
}

impl<W> Default for Outstanding<W> {
    fn default() -> Self {
        Self { first: 0, has_ended: VecDeque::new(), waiting: VecDeque::new() }
    }
}

impl<W> Outstanding<W> {
    /// Something begins, and gets a number.
    pub(crate) fn begin(&mut self) -> u64 {
        self.has_ended.push_back(false);
        self.first + self.has_ended.len() as u64 - 1
    }

    /// It has ended. Returns what has waited for that, to be done when this is no longer borrowed.
    #[must_use]
    pub(crate) fn end(&mut self, number: u64) -> Vec<W> {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(has_ended) = place.and_then(|place| self.has_ended.get_mut(place)) {
            *has_ended = true;
        }
        while self.has_ended.pop_front_if(|has_ended| *has_ended).is_some() {
            self.first += 1;
        }
        let first = self.first;
        std::iter::from_fn(|| self.waiting.pop_front_if(|(until, _)| *until <= first))
            .map(|(_, what)| what)
            .collect()
    }

    /// Has something wait for the end of what has begun. Returns it where nothing is under way.
    #[must_use]
    pub(crate) fn after(&mut self, what: W) -> Option<W> {
        if self.is_empty() {
            return Some(what);
        }
        self.waiting.push_back((self.first + self.has_ended.len() as u64, what));
        None
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.has_ended.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_done_when_all_has_ended_that_had_begun_before() {
        let mut outstanding = Outstanding::default();
        assert_eq!(outstanding.after("at once"), Some("at once"));
        let [one, two] = [outstanding.begin(), outstanding.begin()];
        assert_eq!(outstanding.after("after two"), None);
        let three = outstanding.begin();
        assert_eq!(outstanding.after("after three"), None);
        assert_eq!(outstanding.end(two), [""; 0]);
        assert_eq!(outstanding.end(three), [""; 0]);
        assert_eq!(outstanding.end(one), ["after two", "after three"]);
        assert!(outstanding.is_empty());
        let four = outstanding.begin();
        assert_eq!(outstanding.after("after four"), None);
        assert_eq!(outstanding.end(four), ["after four"]);
    }
}
