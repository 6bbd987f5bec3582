//! How long voters take to answer a candidate.
//!
//! An answer may come when the attempt that it belongs to is over, so requests for votes are
//! numbered and answers repeat the number. What is measured is all that an election waits for: the
//! network both ways, and the voter's disk.

use std::collections::VecDeque;
use std::time::Duration;

use litemap::LiteMap;
use quorate_rt::Instant;

use super::common::shrink_map;
use crate::identity::Replica;
use crate::quorum::Voters;

/// The attempts whose beginnings are remembered. Each lasts for an election timeout or more, so
/// that a round trip of so many election timeouts is still measured.
const MAX_ATTEMPTS: usize = 16;

/// The last attempts to be elected, and the times of their answers.
#[derive(Default)]
pub(super) struct RoundTrips {
    /// The number and the beginning of each attempt, in order.
    attempts: VecDeque<(u64, Instant)>,
    /// Of voters only, so that strangers take no memory.
    answers: LiteMap<Replica, Answers>,
    /// Asked for in every turn, and so not computed then.
    of_quorum: Option<Duration>,
}

/// The last two answers of a voter.
struct Answers {
    /// The attempt that the last one belongs to: a message may come twice.
    attempt: u64,
    last: Duration,
    before: Option<Duration>,
}

impl RoundTrips {
    /// All voters are asked now, under this number, which is larger than those before.
    pub(super) fn ask(&mut self, attempt: u64, now: Instant) {
        if self.attempts.len() == MAX_ATTEMPTS {
            self.attempts.pop_front();
        }
        self.attempts.push_back((attempt, now));
    }

    /// One of the voters has answered a request of `me` with this number.
    pub(super) fn answered(
        &mut self,
        me: Replica,
        voters: &Voters,
        voter: Replica,
        attempt: u64,
        now: Instant,
    ) {
        let Some((_, began)) = self.attempts.iter().find(|(asked, _)| *asked == attempt) else {
            return;
        };
        let last = now - *began;
        let before = match self.answers.get(&voter) {
            Some(answers) if answers.attempt >= attempt => return,
            answers => answers.map(|answers| answers.last),
        };
        self.answers.insert(voter, Answers { attempt, last, before });
        self.of_quorum = self.time_of_quorum(me, voters);
    }

    /// Lets go of memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.attempts.shrink_to_fit();
        shrink_map(&mut self.answers);
    }

    /// Forgets the answers of all but these.
    pub(super) fn retain(&mut self, voters: &Voters) {
        self.answers.retain(|voter, _| voters.contains(*voter));
    }

    /// Forgets all answers. Those to earlier attempts are still measured when they come.
    pub(super) fn forget(&mut self) {
        self.answers.clear();
        self.of_quorum = None;
    }

    /// The time within which a quorum has answered; none before it has answered twice.
    pub(super) fn of_quorum(&self) -> Option<Duration> {
        self.of_quorum
    }

    /// Of the last two answers of a voter the faster one counts: one alone may be late because a
    /// process was paused or a connection was made.
    fn time_of_quorum(&self, me: Replica, voters: &Voters) -> Option<Duration> {
        let time_of = |voter| match self.answers.get(&voter) {
            _ if voter == me => Some(Duration::ZERO),
            Some(Answers { last, before: Some(before), .. }) => Some(*last.min(before)),
            _ => None,
        };
        // `agreed` gives the largest value that a quorum has reached. So the shortest time is the
        // largest value, and who has not answered has reached nothing.
        let speed = |voter| {
            let nanos =
                time_of(voter).map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
            nanos.map_or(0, |nanos| u64::MAX - nanos)
        };
        match voters.agreed(speed) {
            0 | u64::MAX => None, // Nobody else is needed, or too few have answered.
            speed => Some(Duration::from_nanos(u64::MAX - speed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Replica = Replica { id: 1, incarnation: 1 };

    fn voter(id: u64) -> Replica {
        Replica::new(id, 1)
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn millis(trips: &RoundTrips, voters: &Voters) -> Option<u128> {
        trips.time_of_quorum(ME, voters).map(|time| time.as_millis())
    }

    #[test]
    fn an_answer_that_comes_after_its_attempt_is_measured_from_its_own_request() {
        let voters = Voters::simple([1, 2, 3].map(voter));
        let mut trips = RoundTrips::default();
        trips.ask(7, at(0));
        trips.ask(8, at(1000));
        trips.answered(ME, &voters, voter(2), 7, at(1400));
        assert_eq!(millis(&trips, &voters), None, "one answer may be late by chance");
        trips.ask(9, at(2000));
        trips.answered(ME, &voters, voter(2), 8, at(2500));
        assert_eq!(millis(&trips, &voters), Some(1400), "1400 and 1500 ms");
        trips.answered(ME, &voters, voter(2), 9, at(4000));
        assert_eq!(millis(&trips, &voters), Some(1500), "1500 and 2000 ms");
    }

    #[test]
    fn the_slowest_voter_that_a_quorum_needs_counts() {
        let five = Voters::simple([1, 2, 3, 4, 5].map(voter));
        let voters = five.clone();
        let joint = Voters::joint([1, 2, 3].map(voter), [1, 4, 5].map(voter));
        let mut trips = RoundTrips::default();
        for attempt in 1..=2 {
            trips.ask(attempt, at(attempt * 10_000));
        }
        for (id, takes) in [(2, 50), (3, 300), (4, 200)] {
            for attempt in 1..=2 {
                trips.answered(ME, &voters, voter(id), attempt, at(attempt * 10_000 + takes));
            }
        }
        assert_eq!(millis(&trips, &five), Some(200));
        assert_eq!(millis(&trips, &joint), Some(200), "a majority of each half");
        assert_eq!(millis(&trips, &Voters::simple([1, 5].map(voter))), None, "node 5 is silent");
        assert_eq!(millis(&trips, &Voters::simple([ME])), None, "nobody is asked");
        trips.retain(&Voters::simple([1, 2].map(voter)));
        assert_eq!(millis(&trips, &five), None);
        assert_eq!(trips.of_quorum().map(|time| time.as_millis()), Some(200), "as measured");
        trips.forget();
        assert_eq!(trips.of_quorum(), None);
        assert_eq!(millis(&trips, &Voters::simple([1, 2].map(voter))), None);
    }

    #[test]
    fn what_was_not_asked_or_is_said_again_is_not_measured() {
        let voters = Voters::simple([1, 2].map(voter));
        let mut trips = RoundTrips::default();
        for attempt in 1..=20 {
            trips.ask(attempt, at(attempt * 1000));
        }
        assert_eq!(trips.attempts.len(), MAX_ATTEMPTS);
        for attempt in [4, 21, 0] {
            trips.answered(ME, &voters, voter(2), attempt, at(30_000));
        }
        assert!(trips.answers.is_empty(), "forgotten, never asked, and not numbered");
        trips.answered(ME, &voters, voter(2), 20, at(20_010));
        trips.answered(ME, &voters, voter(2), 20, at(29_000));
        trips.answered(ME, &voters, voter(2), 19, at(29_000));
        assert_eq!(millis(&trips, &voters), None, "a copy, and one that was overtaken");
    }
}
