//! The timers of a host's process, by the host's clock.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use quorate_rt::Instant;

use crate::events::Event;
use crate::host::HostState;
use crate::world::World;

/// The timers that someone waits for.
#[derive(Default)]
pub(crate) struct Timers {
    /// By deadline; the number tells apart those with the same one, and keeps the order of their
    /// creation.
    waiting: BTreeMap<(Instant, u64), Waker>,
    created: u64,
    /// The event that was planned last, and for when.
    planned: Option<(u64, u64)>,
    tickets: u64,
}

impl HostState {
    /// Plans to look at the timers when the first is due, if that is not planned.
    fn plan_timers(&self, world: &World) {
        let mut timers = self.timers.borrow_mut();
        let Some(((deadline, _), _)) = timers.waiting.first_key_value() else { return };
        let at = self.clock.get().when(*deadline).max(world.now());
        if timers.planned.is_some_and(|(planned, _)| planned <= at) {
            return; // It will look, and plan the next.
        }
        timers.tickets += 1;
        let ticket = timers.tickets;
        timers.planned = Some((at, ticket));
        world.plan(at, Event::Timers(self.id, ticket));
    }

    /// The clock is another one now.
    pub(crate) fn replan_timers(&self, world: &World) {
        self.timers.borrow_mut().planned = None;
        self.plan_timers(world);
    }

    /// Wakes those whose deadline has passed.
    pub(crate) fn fire_timers(&self, world: &World, ticket: u64) {
        let mut timers = self.timers.borrow_mut();
        if timers.planned.is_none_or(|(_, planned)| planned != ticket) {
            return;
        }
        timers.planned = None;
        let now = self.now(world);
        while let Some(first) = timers.waiting.first_entry()
            && first.key().0 <= now
        {
            first.remove().wake(); // Waking runs nobody's code.
        }
        drop(timers);
        self.plan_timers(world);
    }

    /// The process is gone.
    pub(crate) fn clear_timers(&self) {
        let mut timers = self.timers.borrow_mut();
        timers.planned = None;
        let waiting = mem::take(&mut timers.waiting);
        drop(timers);
        drop(waiting);
    }
}

/// A timer; see [`Executor::Sleep`](quorate_rt::Executor::Sleep).
pub struct SimSleep {
    world: Rc<World>,
    host: Rc<HostState>,
    key: (Instant, u64),
}

impl SimSleep {
    pub(crate) fn new(world: Rc<World>, host: Rc<HostState>, deadline: Instant) -> Self {
        let mut timers = host.timers.borrow_mut();
        timers.created += 1;
        let key = (deadline, timers.created);
        drop(timers);
        Self { world, host, key }
    }
}

impl Future for SimSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { world, host, key } = &*self;
        if key.0 <= host.now(world) {
            host.timers.borrow_mut().waiting.remove(key);
            return Poll::Ready(());
        }
        host.timers.borrow_mut().waiting.insert(*key, context.waker().clone());
        host.plan_timers(world);
        Poll::Pending
    }
}

impl Drop for SimSleep {
    fn drop(&mut self) {
        self.host.timers.borrow_mut().waiting.remove(&self.key);
    }
}

impl fmt::Debug for SimSleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSleep").field("deadline", &self.key.0).finish()
    }
}
