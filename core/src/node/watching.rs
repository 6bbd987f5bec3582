//! Waiting, with a deadline, for what a group's metrics tell; and following who leads.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::channel::oneshot;
use futures::future::{Either, select};
use futures::stream::{Stream, StreamExt, unfold};
use quorate_rt::channel::watch;
use thiserror::Error;

use super::group::mailbox::{End, Status};
use crate::error::Fatal;
use crate::metrics::Metrics;
use crate::types::{NodeId, Term};

/// Why something that was waited for was not seen.
#[derive(Clone, Debug, Error)]
pub enum WaitError {
    /// It was not seen in time. It may still come: wait again, or see by the metrics what is
    /// missing.
    #[error("it was not seen in time: {}", Seen(.last))]
    TimedOut {
        /// What was seen last. [`Metrics::hindrance`] says why there is no leader.
        last: Arc<Metrics>,
    },
    /// Some 16,000 callers wait already for something of this group. Try again later.
    #[error("too many wait for something of this group: try again later")]
    Busy,
    /// The group was stopped on this node, or the node was. Ask another node, or open the group
    /// again.
    #[error("the group was stopped on this node: ask another node, or open it again")]
    Shutdown,
    /// The group has failed on this node, or the node has. Ask another node.
    #[error("the group has failed on this node: {0}")]
    Fatal(Fatal),
}

/// What metrics tell to those who have waited in vain.
struct Seen<'a>(&'a Metrics);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Metrics { id, leader, term, applied, committed, .. } = self.0;
        match leader {
            None => self.0.hindrance().fmt(f),
            Some(leader) => write!(
                f,
                "node {leader} leads in term {term}, and node {id} has applied the log up to \
                 {applied} of the {committed} entries that it knows to be committed"
            ),
        }
    }
}

/// Waits until the metrics are as wanted. `late` is answered when the time is up. It is dropped by
/// a group that is ending, for whose end this waits then.
pub(super) async fn until(
    metrics: watch::Receiver<Metrics>,
    late: oneshot::Receiver<Result<(), WaitError>>,
    mut wanted: impl FnMut(&Metrics) -> bool,
) -> Result<Arc<Metrics>, WaitError> {
    let mut watched = metrics.clone();
    let mut is_reached = false;
    let seen = async {
        let is_over = |metrics: &Metrics| {
            is_reached = wanted(metrics);
            is_reached || !metrics.state.is_running()
        };
        watched.wait_for(is_over).await
    };
    let seen = match select(pin!(seen), late).await {
        Either::Left((seen, _)) => seen,
        Either::Right((Ok(Ok(())), _)) => {
            return Err(WaitError::TimedOut { last: metrics.borrow() });
        }
        Either::Right((Ok(Err(refusal)), _)) => return Err(refusal),
        Either::Right((Err(oneshot::Canceled), seen)) => seen.await,
    };
    match seen {
        Ok(seen) if is_reached => Ok(seen),
        seen => {
            let outcome = seen.ok().and_then(|last| last.state.outcome());
            Err(WaitError::from(&End::from(outcome.unwrap_or(Err(Fatal::Dropped)))))
        }
    }
}

/// Who leads a group, as its node knows: see [`Raft::leader_changes`](crate::Raft::leader_changes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaderChange {
    /// The node's term.
    pub term: Term,
    /// The leader of this term, when known.
    pub leader: Option<NodeId>,
}

/// The changes of a group's leader: see [`Raft::leader_changes`](crate::Raft::leader_changes).
pub struct LeaderChanges {
    changes: Pin<Box<dyn Stream<Item = LeaderChange> + Send>>,
}

impl LeaderChanges {
    pub(super) fn new(status: watch::Receiver<Status>) -> Self {
        let changes = unfold((status, None), async |(mut status, last)| {
            let is_news = |now: &Status| !now.state.is_running() || Some(now.leader) != last;
            let now = status.wait_for(is_news).await.ok()?;
            now.state.is_running().then(|| (now.leader, (status, Some(now.leader))))
        });
        Self { changes: Box::pin(changes.fuse()) }
    }

    /// Waits for the next change, beginning with the present leader. Returns none when the group
    /// has ended on this node.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<LeaderChange> {
        self.changes.next().await
    }
}

impl Stream for LeaderChanges {
    type Item = LeaderChange;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<LeaderChange>> {
        self.changes.as_mut().poll_next(context)
    }
}

impl fmt::Debug for LeaderChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaderChanges").finish_non_exhaustive()
    }
}
