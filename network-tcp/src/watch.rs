//! The tasks that live as long as the transport or a peer, and what becomes of a panic in one.
//!
//! | task | after a panic |
//! | --- | --- |
//! | accepts | the node ends: it would never be reached again |
//! | sweeps | the node ends: vanished peers would keep their places |
//! | one accepted connection, with what writes its reports | it closes; the peer connects anew |
//! | what connects and writes to a peer | it begins again after a pause |
//!
//! A handshake, and what reads and writes an outgoing connection, are awaited by one of these.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures::FutureExt;
use quorate_rt::{Network, TaskError};

use crate::lines::Cause;
use crate::outbox::Link;
use crate::outgoing;
use crate::transport::State;

/// Runs what the node can't do without, and ends the node if that panics.
pub(crate) async fn or_fail<R: Network>(
    state: Rc<State<R>>,
    what: &'static str,
    task: impl Future<Output = ()>,
) {
    if let Err(error) = caught(task).await {
        tracing::error!(what, %error, "a bug: the transport can't go on, and the node ends");
        let reason = format!("what {what} has failed: {error}");
        state.groups().iter().for_each(|(_, inbox)| inbox.failed(reason.clone()));
    }
}

/// Runs what may end alone. Gives whether it has panicked.
pub(crate) async fn alone<R: Network>(
    state: &State<R>,
    what: &'static str,
    task: impl Future<Output = ()>,
) -> bool {
    let Err(error) = caught(task).await else { return false };
    state.count(|stats| stats.panics += 1);
    if let Some(suppressed) = state.lines.pass(Cause::Panic, state.rt.now()) {
        tracing::error!(what, %error, suppressed, "a bug: a task has panicked; its connection closes");
    }
    true
}

/// Connects and writes to a peer, for as long as it is not dropped.
pub(crate) async fn peer<R: Network>(state: Rc<State<R>>, link: Rc<Link>) {
    let mut failures = 0;
    loop {
        let run = outgoing::run(Rc::clone(&state), Rc::clone(&link));
        alone(&state, "connects to a peer", run).await;
        let lost = link.clear();
        state.count(|stats| stats.dropped_out += lost);
        state.rt.sleep(state.timing.backoff(failures, state.rt.random())).await;
        failures += 1;
    }
}

async fn caught(task: impl Future<Output = ()>) -> Result<(), TaskError> {
    // What it has borrowed is free again, and what it held is dropped.
    AssertUnwindSafe(task).catch_unwind().await.map_err(TaskError::from_panic)
}
