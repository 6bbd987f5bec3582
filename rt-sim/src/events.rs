//! What is to happen, in the order of its time; at the same time, in the order in which it was
//! planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

use crate::host::HostId;
use crate::world::World;

pub(crate) enum Event {
    /// A host's process gets the processor.
    Run(HostId),
    /// A timer of a host's process may be due. The ticket tells whether this is still what was
    /// planned last.
    Timers(HostId, u64),
    /// Anything else.
    Action(Action),
}

pub(crate) type Action = Box<dyn FnOnce(&Rc<World>)>;

#[derive(Default)]
pub(crate) struct Events {
    heap: BinaryHeap<Planned>,
    planned: u64,
}

struct Planned {
    at: u64,
    number: u64,
    event: Event,
}

impl Events {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.planned += 1;
        self.heap.push(Planned { at, number: self.planned, event });
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|planned| (planned.at, planned.event))
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|planned| planned.at)
    }
}

// The heap gives the largest first.
impl Ord for Planned {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Planned {}
