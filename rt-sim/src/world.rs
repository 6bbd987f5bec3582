//! What all hosts share: the time, and what is to happen; and the loop that makes it happen.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::events::{Event, Events};
use crate::generator::{Generator, nanos};
use crate::host::{HostId, HostState};
use crate::names::NameTable;
use crate::net::Net;
use crate::tasks::{TaskKey, Woken};
use crate::trace::Trace;

/// When, and on which host.
type Moment = Option<(u64, HostId)>;

thread_local! {
    static CURRENT: Cell<Moment> = const { Cell::new(None) };
}

/// The time of the simulation whose code runs on this thread right now, from its begin, and the
/// host that it runs on. For logs and the like: code under test has no business with it.
pub fn current() -> Option<(Duration, HostId)> {
    CURRENT.get().map(|(now, host)| (Duration::from_nanos(now), host))
}

/// What has happened in one step of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, and nothing will any more.
    Nothing,
    /// The process of this host had its turn.
    Ran(HostId),
    /// Anything else.
    Other,
}

/// What a simulation consists of.
pub(crate) struct World {
    now: Cell<u64>,
    events: RefCell<Events>,
    pub(crate) hosts: RefCell<Vec<Rc<HostState>>>,
    pub(crate) net: Net,
    pub(crate) names: NameTable,
    pub(crate) trace: Trace,
    pub(crate) woken: Arc<Woken>,
    /// Empty: memory for those that are taken out of there.
    taken: RefCell<Vec<TaskKey>>,
    /// The future that drives the simulation was woken.
    pub(crate) main_woken: Cell<bool>,
    /// Which task is next, and how long it takes.
    pub(crate) scheduling: Generator,
    pub(crate) networking: Generator,
    pub(crate) naming: Generator,
    pub(crate) disks: Generator,
    pub(crate) descriptors: Generator,
    /// What the processes draw.
    pub(crate) processes: Generator,
}

impl World {
    pub(crate) fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            now: Cell::new(0),
            events: RefCell::default(),
            hosts: RefCell::default(),
            net: Net::default(),
            names: NameTable::default(),
            trace: Trace::default(),
            woken: Arc::default(),
            taken: RefCell::default(),
            main_woken: Cell::new(false),
            scheduling: Generator::new(seed, "scheduling"),
            networking: Generator::new(seed, "network"),
            naming: Generator::new(seed, "names"),
            disks: Generator::new(seed, "disks"),
            descriptors: Generator::new(seed, "descriptors"),
            processes: Generator::new(seed, "processes"),
        })
    }

    /// In nanoseconds since the begin.
    pub(crate) fn now(&self) -> u64 {
        self.now.get()
    }

    pub(crate) fn plan(&self, at: u64, event: Event) {
        self.events.borrow_mut().push(at.max(self.now()), event);
    }

    /// Does something at a time, or now if that has passed.
    pub(crate) fn at(&self, at: u64, action: impl FnOnce(&Rc<Self>) + 'static) {
        self.plan(at, Event::Action(Box::new(action)));
    }

    /// Does something after a while.
    pub(crate) fn after(&self, delay: Duration, action: impl FnOnce(&Rc<Self>) + 'static) {
        self.at(self.now() + nanos(delay), action);
    }

    pub(crate) fn host(&self, id: HostId) -> Rc<HostState> {
        Rc::clone(&self.hosts.borrow()[id.0])
    }

    pub(crate) fn note(&self, host: HostId, what: &'static str, detail: u64, more: u64) {
        self.trace.note(self.now(), Some(host), what, detail, more);
    }

    /// What runs from now on, runs on this host, until it [leaves](Self::leave) for where it came
    /// from.
    pub(crate) fn enter(&self, host: HostId) -> Moment {
        CURRENT.replace(Some((self.now(), host)))
    }

    pub(crate) fn leave(&self, outer: Moment) {
        CURRENT.set(outer);
    }

    /// Makes the next thing happen.
    pub(crate) fn step(self: &Rc<Self>) -> Step {
        let Some((at, event)) = self.events.borrow_mut().pop() else { return Step::Nothing };
        assert!(at >= self.now(), "time runs backwards");
        self.now.set(at);
        let step = match event {
            Event::Run(host) => {
                self.host(host).run(self);
                Step::Ran(host)
            }
            Event::Timers(host, ticket) => {
                self.host(host).fire_timers(self, ticket);
                Step::Other
            }
            Event::Action(action) => {
                action(self);
                Step::Other
            }
        };
        self.spread_wakes();
        step
    }

    /// When the next thing happens.
    pub(crate) fn next_at(&self) -> Option<u64> {
        self.events.borrow().next_at()
    }

    /// Lets time pass until then, before which nothing is to happen.
    pub(crate) fn pass_until(&self, at: u64) {
        self.now.set(at);
    }

    /// Tells the hosts which of their tasks were woken.
    pub(crate) fn spread_wakes(&self) {
        let mut keys = self.taken.take();
        while self.woken.take(&mut keys) {
            for key in keys.drain(..) {
                match key.host {
                    Some(host) => self.hosts.borrow()[host.0].wake(self, key),
                    None => self.main_woken.set(true),
                }
            }
        }
        self.taken.replace(keys);
    }

    /// Ends everything: nothing is left that knows this world.
    pub(crate) fn end(self: &Rc<Self>) {
        let hosts = self.hosts.borrow().clone();
        for host in &hosts {
            host.end(self);
        }
        self.net.clear();
        // What events hold may plan others when it is dropped.
        while let Some((_, event)) = { self.events.borrow_mut().pop() } {
            drop(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first numbers of all streams, after some were drawn from one of them.
    fn numbers(drawn: Option<usize>) -> [[u64; 4]; 5] {
        let world = World::new(7);
        let World { scheduling, networking, naming, disks, processes, .. } = &*world;
        let streams = [scheduling, networking, naming, disks, processes];
        if let Some(stream) = drawn {
            streams[stream].number();
        }
        streams.map(|stream| [(); 4].map(|()| stream.number()))
    }

    #[test]
    fn one_draw_more_in_a_stream_does_not_shift_the_others() {
        let all = numbers(None);
        for drawn in 0..5 {
            let shifted = numbers(Some(drawn));
            for (stream, (one, other)) in all.iter().zip(&shifted).enumerate() {
                assert_eq!(one == other, stream != drawn, "stream {stream}");
            }
        }
        assert!(all.iter().all(|one| all.iter().filter(|other| *other == one).count() == 1));
    }
}
