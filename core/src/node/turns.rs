//! The loop of a node: it gives each group a turn that has something to do, or whose time has come.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use quorate_rt::{Executor, Instant, TaskError};

use super::group::bug;
use super::groups::{Groups, OF_WAKES};
use super::ready::Slot;
use super::timers::Timers;
use super::wakes::PATIENCE;
use crate::engine::Output;
use crate::error::Fatal;

/// The loop.
pub(super) struct Loop<R: Executor> {
    rt: R,
    groups: Rc<Groups>,
    timers: Timers<R>,
    /// Memory, for the groups that have a turn.
    slots: Vec<Slot>,
    /// From then on, tasks that were answered wait no longer for the end of the turn.
    flush_at: Instant,
    /// Memory, for what an engine wants done.
    output: Box<Output>,
}

impl<R: Executor> Loop<R> {
    pub(super) fn new(rt: R, groups: Rc<Groups>) -> Self {
        let (timers, flush_at) = (Timers::new(rt.clone()), rt.now());
        Self { rt, groups, timers, slots: Vec::new(), flush_at, output: Box::default() }
    }

    /// Runs until the node was told to stop and all its groups have.
    ///
    /// # Errors
    /// The node has failed, or a group has while the node was stopping.
    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        loop {
            poll_fn(|context| {
                // A turn looks at the time anyway: the timers are needed by those that wait for
                // nothing else.
                match self.groups.ready.poll(context) {
                    Poll::Ready(()) => Poll::Ready(()),
                    Poll::Pending => self.timers.poll(context),
                }
            })
            .await;
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

    /// Gives one turn to each group that has something to do. What that brings to others, or to the
    /// group itself, is for the next turn, so that no group keeps the others waiting.
    fn turn(&mut self) -> Result<(), Fatal> {
        self.groups.delays.next_turn();
        self.groups.ready.wakes.begin_turn();
        let mut slots = std::mem::take(&mut self.slots);
        self.groups.ready.take(&mut slots);
        self.add_due(&mut slots);
        slots.sort_unstable();
        slots.dedup();
        for slot in slots.drain(..) {
            self.give_turn(slot)?;
            if self.groups.has_ended() {
                break; // The node was dropped in that turn.
            }
        }
        self.slots = slots;
        if self.groups.ready.wakes.end_turn() {
            self.timers.set(OF_WAKES, Some(self.rt.now() + PATIENCE));
        }
        Ok(())
    }

    /// Adds the groups whose time has come.
    fn add_due(&mut self, slots: &mut Vec<Slot>) {
        let now = self.rt.now();
        while let Some(slot) = self.timers.pop_due(now) {
            slots.push(slot);
        }
    }

    /// Gives a group a turn. Where the group ends by it, the others go on.
    fn give_turn(&mut self, slot: Slot) -> Result<(), Fatal> {
        let Some(mut turns) = self.groups.take(slot) else { return Ok(()) };
        let now = self.rt.now(); // The turn of another group may have taken long.
        if now >= self.flush_at {
            self.flush_at = now + PATIENCE;
            self.groups.ready.wakes.flush();
        }
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
