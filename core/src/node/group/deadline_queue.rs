//! Requests that wait: for a leader to be known, as most elections are over sooner than a client
//! could try again, or for room on the way to it. What was not sent to anybody can be sent to any
//! leader.

use std::collections::VecDeque;

use quorate_rt::Instant;

use super::mailbox::LocalRequest;
use crate::state_machine::StateMachine;

/// Requests in the order of the times until which they wait, and so in that in which they came.
/// What they hold is bounded by the quotas of the handles that they came from.
pub(crate) struct DeadlineQueue<SM: StateMachine> {
    requests: VecDeque<(Instant, LocalRequest<SM>)>,
}

impl<SM: StateMachine> DeadlineQueue<SM> {
    pub(crate) fn new() -> Self {
        Self { requests: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, until: Instant, request: LocalRequest<SM>) {
        // Mostly at the end: all wait for equally long. One that has waited elsewhere before is
        // older.
        let at = self.requests.partition_point(|(before, _)| *before <= until);
        self.requests.insert(at, (until, request));
    }

    /// The first one, if it has waited long enough.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<LocalRequest<SM>> {
        self.requests.pop_front_if(|(until, _)| *until <= now).map(|(_, request)| request)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// When the first one will have waited long enough.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        self.requests.front().map(|(until, _)| *until)
    }

    /// The first one, if it may go.
    pub(crate) fn pop_if(
        &mut self,
        may_go: impl FnOnce(&LocalRequest<SM>) -> bool,
    ) -> Option<LocalRequest<SM>> {
        let first = self.requests.pop_front_if(|(_, request)| may_go(request));
        first.map(|(_, request)| request)
    }

    /// All of them, and until when they wait.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (Instant, LocalRequest<SM>)> + use<SM> {
        std::mem::take(&mut self.requests).into_iter()
    }
}
