//! The loop of a node: it gives each group a turn that has something to do, or whose time has come.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quorate_rt::{Executor, Instant, TaskError, yield_now};

use super::group::bug;
use super::groups::{Groups, OF_SHUTDOWN, OF_WAKES};
use super::ready::Slot;
use super::timers::Timers;
use crate::engine::Output;
use crate::error::Fatal;

/// A turn of the node ends after so long, and the groups that are left have the next one. In
/// between, what the groups want to have written and sent gets on its way, and others on the
/// thread get their part.
const MAX_TURN: Duration = Duration::from_millis(1);

/// The loop.
pub(super) struct Loop<R: Executor> {
    rt: R,
    groups: Rc<Groups>,
    timers: Timers<R>,
    /// The groups that are to have a turn, in order.
    due: VecDeque<Slot>,
    /// Memory, for those that have become ready.
    ready: Vec<Slot>,
    /// Memory, for what an engine wants done.
    output: Option<Box<Output>>,
}

impl<R: Executor> Loop<R> {
    pub(super) fn new(rt: R, groups: Rc<Groups>) -> Self {
        let timers = Timers::new(rt.clone());
        let (due, ready, output) = (VecDeque::new(), Vec::new(), None);
        Self { rt, groups, timers, due, ready, output }
    }

    /// Runs until the node was told to stop and all its groups have.
    ///
    /// # Errors
    /// The node has failed, or a group has while the node was stopping.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        loop {
            if self.due.is_empty() {
                poll_fn(|context| {
                    // A turn looks at the time anyway: the timers are needed by those that wait for
                    // nothing else.
                    match self.groups.ready.poll(context) {
                        Poll::Ready(()) => Poll::Ready(()),
                        Poll::Pending => self.timers.poll(context),
                    }
                })
                .await;
            } else {
                yield_now().await;
            }
            if !self.groups.has_ended() {
                self.turn()?;
            }
            if self.groups.has_ended() {
                // The node was dropped, and this task will be cancelled. The store may be another
                // node's by now.
                return pending().await;
            }
            if let Some(outcome) = self.groups.stopped() {
                return outcome;
            }
        }
    }

    /// Gives one turn to each group that has something to do, or to as many as there is time for.
    /// What that brings to others, or to the group itself, is for the next turn, so that no group
    /// keeps the others waiting.
    fn turn(&mut self) -> Result<(), Fatal> {
        if self.due.is_empty() {
            self.groups.delays.next_turn();
        }
        let began = self.rt.now();
        self.groups.ready.wakes.begin_turn(began);
        self.add_ready(began);
        let mut now = began;
        while let Some(slot) = self.due.pop_front() {
            if slot == OF_SHUTDOWN {
                self.groups.stop();
                continue;
            }
            self.give_turn(now, slot)?;
            // The node may have been dropped in that turn.
            if self.groups.has_ended() || now >= began + MAX_TURN {
                break;
            }
            if !self.due.is_empty() {
                now = self.rt.now(); // That turn may have taken long.
            }
        }
        if let Some(wake_at) = self.groups.ready.wakes.end_turn(|| self.rt.now()) {
            self.timers.set(OF_WAKES, Some(wake_at));
        }
        Ok(())
    }

    /// Adds the groups that have something to do, or whose time has come.
    fn add_ready(&mut self, now: Instant) {
        self.groups.ready.take(&mut self.ready);
        while let Some(slot) = self.timers.pop_due(now) {
            self.ready.push(slot);
        }
        self.ready.sort_unstable();
        self.ready.dedup();
        self.due.extend(self.ready.drain(..));
    }

    /// Gives a group a turn. Where the group ends by it, the others go on.
    fn give_turn(&mut self, now: Instant, slot: Slot) -> Result<(), Fatal> {
        let Some(mut turns) = self.groups.take(slot) else { return Ok(()) };
        let output = &mut self.output;
        let turn = catch_unwind(AssertUnwindSafe(|| turns.turn(now, output)));
        if self.groups.has_ended() {
            return Ok(()); // The node was dropped in that turn.
        }
        let outcome = match turn {
            Ok(Ok(false)) => {
                self.timers.set(slot, turns.wake_at());
                self.groups.put_back(slot, turns);
                return Ok(());
            }
            Ok(Ok(true)) => Ok(()),
            Ok(Err(fatal)) if fatal.is_of_node() => {
                self.groups.put_back(slot, turns);
                return Err(fatal);
            }
            Ok(Err(fatal)) => Err(fatal),
            Err(panic) => Err(bug(TaskError::from_panic(panic))),
        };
        self.timers.forget(slot);
        self.groups.end_group(turns, outcome)
    }
}

#[cfg(test)]
mod tests;
