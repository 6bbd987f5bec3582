//! How often lines of the log are written that others can cause: whoever reaches the port, or a
//! peer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use quorate_rt::{Instant, Limited};

use crate::handshake::Refusal;

/// As many lines of a cause go through at once: several nodes may have the same trouble.
const BURST: u32 = 8;

/// And then one in so long.
const PAUSE: Duration = Duration::from_secs(10);

/// What a line is about. Each has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// A connection could not be accepted.
    Accept,
    /// One was closed for a newer one.
    Crowded,
    /// No handshake came.
    NoHandshake,
    /// One was refused for this reason, by its code; all codes that are unknown are one.
    Refused(u8),
    /// What is said of connections to replicas that no group names.
    Unnamed,
    /// What is said of a connection that has proven nothing.
    Unproven,
    /// A peer has closed its connection.
    Closes,
    /// That of a peer was closed.
    Closed,
    /// More groups than a handshake tells of.
    Groups,
    /// A task has panicked.
    Panic,
}

/// The limits.
#[derive(Default)]
pub(crate) struct Lines {
    of: RefCell<BTreeMap<Cause, Limited>>,
}

impl Lines {
    /// Whether a line is written, and then how many were left out since the last of this cause, if
    /// any.
    pub(crate) fn pass(&self, cause: Cause, now: Instant) -> Option<Suppressed> {
        let of = &mut *self.of.borrow_mut();
        let limited = of.entry(cause).or_insert_with(|| Limited::new(BURST, PAUSE));
        limited.pass(now).map(|suppressed| (suppressed > 0).then_some(suppressed))
    }
}

/// How many lines of a cause were not written; none is not worth a word.
pub(crate) type Suppressed = Option<u64>;

impl Cause {
    pub(crate) fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unknown(_) => Self::Refused(u8::MAX),
            known => Self::Refused(known.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_limit_of_its_own_and_unknown_ones_share_one() {
        let lines = Lines::default();
        let now = Instant::from_nanos(5);
        let passed = |cause| (0..100).filter(|_| lines.pass(cause, now).is_some()).count();
        assert_eq!(passed(Cause::NoHandshake), 8);
        assert_eq!(passed(Cause::NoHandshake), 0);
        assert_eq!(passed(Cause::refused(Refusal::Magic)), 8);
        let unknown = (100..200).map(|code| Cause::refused(Refusal::Unknown(code)));
        assert_eq!(unknown.filter(|cause| lines.pass(*cause, now).is_some()).count(), 8);
        let later = lines.pass(Cause::NoHandshake, now + 2 * PAUSE);
        assert_eq!(later, Some(Some(192)));
    }
}
