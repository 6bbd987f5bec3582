//! A simulation, from its seed to its end.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::generator::nanos;
use crate::host::{Host, HostId, HostState};
use crate::names::Names;
use crate::net::Network;
use crate::runtime::Sim;
use crate::tasks::{TaskKey, TaskWaker};
use crate::trace::Happened;
use crate::world::{Step, World};

/// A world of its own, on this thread. Dropping it ends all that runs in it.
///
/// ```
/// use std::time::Duration;
///
/// use quorate_rt::Executor;
/// use quorate_rt_sim::{Crash, Simulation};
///
/// let simulation = Simulation::new(42);
/// let host = simulation.host("a");
/// host.start(async |rt| rt.sleep(Duration::from_secs(3600)).await);
/// simulation.run_for(Duration::from_secs(60)); // at once
/// assert!(host.is_running());
/// host.crash(Crash::Power);
/// assert!(!host.is_running());
/// ```
pub struct Simulation {
    world: Rc<World>,
}

/// Everything waits for something that will not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "everything waits for something that will not happen")
    }
}

impl std::error::Error for Stuck {}

impl Simulation {
    /// A world without hosts.
    pub fn new(seed: u64) -> Self {
        Self { world: World::new(seed) }
    }

    /// A machine more, without a process. Machines have the addresses 10.0.0.1 and on, in the order
    /// in which they were made.
    pub fn host(&self, name: impl Into<String>) -> Host {
        self.host_whose_clock_shows(name, Duration::ZERO)
    }

    /// A machine more, whose clock shows this when the simulation begins.
    pub fn host_whose_clock_shows(&self, name: impl Into<String>, offset: Duration) -> Host {
        let world = &self.world;
        let mut hosts = world.hosts.borrow_mut();
        let id = HostId(hosts.len());
        let state = Rc::new(HostState::new(id, name.into(), nanos(offset)));
        hosts.push(Rc::clone(&state));
        world.names.set(&state.name, vec![state.address]);
        Host { world: Rc::clone(world), state }
    }

    /// What lies between the hosts.
    pub fn network(&self) -> Network {
        Network { world: Rc::clone(&self.world) }
    }

    /// The names that its hosts can look up.
    pub fn names(&self) -> Names {
        Names { world: Rc::clone(&self.world) }
    }

    /// How much time has passed in it.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.world.now())
    }

    /// Makes the next thing happen.
    pub fn step(&self) -> Step {
        self.world.spread_wakes(); // Of what was woken from outside.
        self.world.step()
    }

    /// Lets it go on for so long.
    pub fn run_for(&self, duration: Duration) {
        self.run_until(duration, || false);
    }

    /// Lets it go on until `done`, which is asked after each event, or until so much time has
    /// passed; whether it was done.
    pub fn run_until(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let end = self.world.now().saturating_add(nanos(limit));
        loop {
            if done() {
                return true;
            }
            self.world.spread_wakes();
            if self.world.next_at().is_none_or(|at| at > end) {
                self.world.pass_until(end);
                return false;
            }
            self.step();
        }
    }

    /// Drives the simulation until `main` ends, which runs on `host`, outside of its process: it is
    /// not killed with that, and costs no time. Tasks and blocking work that it spawns are of that
    /// process, and are cancelled where there is none.
    ///
    /// # Errors
    /// [`Stuck`] where nothing can happen any more.
    pub fn block_on<T>(&self, host: &Host, main: impl AsyncFnOnce(Sim) -> T) -> Result<T, Stuck> {
        self.drive(host, main, || false)
    }

    /// The same; where nothing can happen any more, `wait` may wait for what happens outside, and
    /// says whether there is such a thing.
    pub(crate) fn drive<T>(
        &self,
        host: &Host,
        main: impl AsyncFnOnce(Sim) -> T,
        wait: impl Fn() -> bool,
    ) -> Result<T, Stuck> {
        let world = &self.world;
        let key = TaskKey { host: None, incarnation: 0, slot: 0, generation: 0 };
        let waker = TaskWaker::new(key, std::sync::Arc::clone(&world.woken));
        let context_waker = waker.waker();
        let sim = Sim::of_host(host);
        let mut main = pin!(main(sim));
        world.main_woken.set(true);
        loop {
            if world.main_woken.take() {
                waker.begin_poll();
                let outer = world.enter(host.id());
                let polled = main.as_mut().poll(&mut Context::from_waker(&context_waker));
                world.leave(outer);
                world.spread_wakes();
                if let Poll::Ready(output) = polled {
                    return Ok(output);
                }
            } else if world.step() == Step::Nothing {
                if !wait() {
                    return Err(Stuck);
                }
                world.spread_wakes();
            }
        }
    }

    /// A hash over all that has happened: two runs with the same one are the same run.
    pub fn hash(&self) -> u64 {
        self.world.trace.hash()
    }

    /// How much has happened.
    pub fn events(&self) -> u64 {
        self.world.trace.events()
    }

    /// How often what has gone wrong, by kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.world.trace.counts()
    }

    /// From now on the last of what happens is kept, for [`recent`](Self::recent).
    pub fn keep_recent(&self) {
        self.world.trace.keep();
    }

    /// The last of what has happened, oldest first.
    pub fn recent(&self) -> Vec<Happened> {
        self.world.trace.recent()
    }

    pub(crate) fn world(&self) -> &Rc<World> {
        &self.world
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        self.world.end();
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("now", &self.now()).finish_non_exhaustive()
    }
}
