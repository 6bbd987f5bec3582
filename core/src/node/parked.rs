//! Requests that came while no leader was known. They wait for one, for a while: most elections are over sooner than a client
//! could try again, and what was not sent to anybody can be sent to any leader.

use std::collections::VecDeque;

use quorate_rt::Instant;

use super::mailbox::LocalRequest;
use crate::state_machine::StateMachine;

/// Requests in the order in which they came, each with the time until which it waits. What they hold is bounded by the quotas of
/// the handles that they came from.
pub(crate) struct Parked<SM: StateMachine> {
    requests: VecDeque<(Instant, LocalRequest<SM>)>,
}

impl<SM: StateMachine> Parked<SM> {
    pub(crate) fn new() -> Self {
        Self { requests: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, until: Instant, request: LocalRequest<SM>) {
        assert!(
            self.requests.back().is_none_or(|(before, _)| *before <= until),
            "all wait for equally long"
        );
        self.requests.push_back((until, request));
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

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = LocalRequest<SM>> + use<SM> {
        std::mem::take(&mut self.requests).into_iter().map(|(_, request)| request)
    }
}
