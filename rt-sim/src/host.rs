//! A machine, and the process on it: how it is started, how it gets the processor, and how it dies.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use quorate_rt::local_task::{Entry, LocalTask};
use quorate_rt::{ContinuousInstant, Instant, TaskError};

use crate::clock::{Clock, RIGHT, wall_clock};
use crate::disk::{Disk, DiskState};
use crate::events::Event;
use crate::generator::nanos;
use crate::runtime::Sim;
use crate::tasks::{Running, Task, TaskKey, TaskWaker, Tasks};
use crate::timers::Timers;
use crate::world::World;

/// Names a host of a simulation, by the order in which they were made, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// How a process dies. In either case its tasks are dropped between two polls, in an order of no
/// meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// It is killed. The kernel closes its sockets, and keeps what was written to files, synced or
    /// not.
    Process,
    /// The machine loses its power: its peers hear nothing more of it, and of what was not synced
    /// any part may be lost.
    Power,
}

/// How long it takes a process to do what it does in one poll of a task. A moment, so that time
/// passes while tasks are always runnable.
const POLL: Range<u64> = 300..5_000;

/// How much longer a poll takes now and then, when the kernel has something better to do.
const PREEMPTED: Range<u64> = 20_000..500_000;

pub(crate) struct HostState {
    pub(crate) id: HostId,
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) clock: Cell<Clock>,
    /// For how many nanoseconds it was suspended.
    suspended: Cell<u64>,
    /// How many milliseconds its wall clock is ahead of the right one.
    wall_clock_offset: Cell<i64>,
    pub(crate) timers: RefCell<Timers>,
    pub(crate) disk: Rc<DiskState>,
    /// Which run of a process this is, or the next will be.
    incarnation: Cell<u32>,
    alive: Cell<bool>,
    powered: Cell<bool>,
    /// Its process is over, and what that has held is being dropped.
    dying: Cell<bool>,
    tasks: RefCell<Tasks>,
    /// Those that are to be polled.
    ready: RefCell<Vec<TaskKey>>,
    /// Empty between two rounds: memory for those that are polled in one.
    round: RefCell<Vec<TaskKey>>,
    /// For when it is planned to run.
    runs_at: Cell<Option<u64>>,
    busy_until: Cell<u64>,
    paused: Cell<bool>,
    /// One of its tasks is being polled.
    polling: Cell<bool>,
    /// How many times slower than usual it is.
    slowness: Cell<u64>,
    /// After so many polls more it dies.
    dies_after: Cell<Option<(u64, Crash)>>,
    pub(crate) next_port: Cell<u16>,
    /// How likely its process gets no descriptor for a socket.
    refused_sockets: Cell<f64>,
}

impl HostState {
    pub(crate) fn new(id: HostId, name: String, offset: u64) -> Self {
        let [_, _, high, low] = (id.0 as u32 + 1).to_be_bytes();
        Self {
            id,
            name,
            address: IpAddr::V4(Ipv4Addr::new(10, 0, high, low)),
            clock: Cell::new(Clock::new(offset)),
            suspended: Cell::new(0),
            wall_clock_offset: Cell::new(0),
            timers: RefCell::default(),
            disk: Rc::new(DiskState::new(id)),
            incarnation: Cell::new(1),
            alive: Cell::new(false),
            powered: Cell::new(true),
            dying: Cell::new(false),
            tasks: RefCell::default(),
            ready: RefCell::default(),
            round: RefCell::default(),
            runs_at: Cell::new(None),
            busy_until: Cell::new(0),
            paused: Cell::new(false),
            polling: Cell::new(false),
            slowness: Cell::new(1),
            dies_after: Cell::new(None),
            next_port: Cell::new(32_768),
            refused_sockets: Cell::new(0.0),
        }
    }

    pub(crate) fn now(&self, world: &World) -> Instant {
        self.clock.get().now(world.now())
    }

    pub(crate) fn continuous_now(&self, world: &World) -> ContinuousInstant {
        let awake = self.now(world).as_nanos();
        ContinuousInstant::from_nanos(awake.saturating_add(self.suspended.get()))
    }

    pub(crate) fn wall_clock(&self, world: &World) -> u64 {
        wall_clock(world.now(), self.wall_clock_offset.get())
    }

    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation.get()
    }

    pub(crate) fn is_powered(&self) -> bool {
        self.powered.get()
    }

    /// Destructors run of a process that is over. What they begin, does not happen: a process that
    /// is really killed runs none.
    pub(crate) fn is_dying(&self) -> bool {
        self.dying.get()
    }

    /// Whether its process gets a descriptor for a socket.
    ///
    /// # Errors
    /// `EMFILE`.
    pub(crate) fn take_socket(&self, world: &World) -> io::Result<()> {
        const EMFILE: i32 = 24;
        let probability = self.refused_sockets.get();
        if probability > 0.0 && world.descriptors.chance(probability) {
            world.trace.count("socket refused");
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        Ok(())
    }

    /// Whether this is one of its addresses.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        ip == self.address || ip.is_loopback() || ip.is_unspecified()
    }

    /// Starts a task of this run of the process; if that is over, the task is over at once.
    pub(crate) fn spawn<F>(
        &self,
        world: &World,
        incarnation: u32,
        future: F,
    ) -> LocalTask<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.spawn_outcome(world, incarnation, async { Ok(future.await) })
    }

    /// The same, for a task that may fail otherwise than by a panic.
    pub(crate) fn spawn_outcome<F, T>(
        &self,
        world: &World,
        incarnation: u32,
        future: F,
    ) -> LocalTask<T>
    where
        F: Future<Output = Result<T, TaskError>> + 'static,
        T: 'static,
    {
        let (entry, handle) = Entry::new(future);
        if self.alive.get() && incarnation == self.incarnation.get() {
            self.add_task(world, Box::pin(entry));
        }
        handle
    }

    fn add_task(&self, world: &World, future: Running) {
        let mut added = None;
        self.tasks.borrow_mut().add(|slot, generation| {
            let incarnation = self.incarnation.get();
            let key = TaskKey { host: Some(self.id), incarnation, slot, generation };
            let waker = TaskWaker::new(key, std::sync::Arc::clone(&world.woken));
            added = Some(waker.waker());
            Task { future: Some(future), waker }
        });
        if let Some(waker) = added {
            waker.wake();
        }
    }

    /// One of its tasks was woken.
    pub(crate) fn wake(&self, world: &World, key: TaskKey) {
        if key.incarnation == self.incarnation.get() && self.tasks.borrow_mut().get(key).is_some() {
            self.ready.borrow_mut().push(key);
            self.plan_run(world);
        }
    }

    /// Plans to run, if there is anything to run.
    fn plan_run(&self, world: &World) {
        let idle = self.ready.borrow().is_empty() || self.paused.get() || !self.alive.get();
        if idle || self.runs_at.get().is_some() {
            return;
        }
        let at = self.busy_until.get().max(world.now());
        self.runs_at.set(Some(at));
        world.plan(at, Event::Run(self.id));
    }

    /// Polls the tasks that were woken before, each once, in any order.
    pub(crate) fn run(&self, world: &Rc<World>) {
        // What was planned for a process that has died since may still come.
        if self.runs_at.get() != Some(world.now()) || self.paused.get() || !self.alive.get() {
            return;
        }
        self.runs_at.set(None);
        let mut round = self.round.take();
        std::mem::swap(&mut round, &mut *self.ready.borrow_mut());
        world.scheduling.shuffle(&mut round);
        let outer = world.enter(self.id);
        self.polling.set(true);
        let polls = round.len() as u64;
        for key in round.drain(..) {
            world.note(self.id, "polls", u64::from(key.slot), u64::from(key.generation));
            self.poll(key);
            if self.is_to_die() {
                break;
            }
        }
        self.round.replace(round);
        self.polling.set(false);
        world.leave(outer);
        if let Some((0, crash)) = self.dies_after.get() {
            return self.kill(world, crash);
        }
        let mut cost = world.scheduling.within(&POLL) * polls;
        if world.scheduling.chance(0.002) {
            cost += world.scheduling.within(&PREEMPTED);
        }
        self.busy_until.set(world.now() + cost * self.slowness.get());
        self.plan_run(world);
    }

    fn poll(&self, key: TaskKey) {
        let Some((mut future, waker)) = self.tasks.borrow_mut().get(key).and_then(|task| {
            task.waker.begin_poll();
            Some((task.future.take()?, task.waker.waker()))
        }) else {
            return;
        };
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            if let Some(task) = self.tasks.borrow_mut().get(key) {
                task.future = Some(future);
            }
        } else {
            self.tasks.borrow_mut().remove(key);
        }
    }

    /// Whether it dies now, after another poll.
    fn is_to_die(&self) -> bool {
        let Some((polls, crash)) = self.dies_after.get() else { return false };
        let left = polls.saturating_sub(1);
        self.dies_after.set(Some((left, crash)));
        left == 0
    }

    fn start(&self, world: &World, main: impl FnOnce(u32) -> Running) {
        assert!(!self.alive.get(), "one process runs on {} at a time", self.name);
        self.powered.set(true);
        self.alive.set(true);
        self.busy_until.set(world.now());
        let main = main(self.incarnation.get());
        self.add_task(world, main);
        world.spread_wakes();
    }

    pub(crate) fn kill(&self, world: &Rc<World>, crash: Crash) {
        let has_power = self.powered.get();
        if crash == Crash::Power {
            self.powered.set(false);
        }
        if self.alive.get() {
            world.note(self.id, "dies", u64::from(self.incarnation.get()), crash as u64);
            self.disk.crash(world, crash);
            self.drop_tasks(world);
        } else if crash == Crash::Power {
            world.net.close_all_of(world, self.id);
        }
        if crash == Crash::Power && has_power {
            self.disk.lose_power(world);
        }
    }

    /// The process is over. Its tasks are dropped where it has run.
    fn drop_tasks(&self, world: &Rc<World>) {
        self.alive.set(false);
        self.paused.set(false);
        self.dies_after.set(None);
        self.runs_at.set(None);
        self.ready.borrow_mut().clear();
        self.incarnation.set(self.incarnation.get() + 1);
        let outer = world.enter(self.id);
        let tasks = self.tasks.borrow_mut().take_all();
        self.dying.set(true);
        drop(tasks);
        self.dying.set(false);
        world.leave(outer);
        self.clear_timers();
        world.net.close_all_of(world, self.id);
        self.disk.unlock_all();
        world.spread_wakes();
    }

    /// The main future has ended, and the process with it.
    fn exit(&self, world: &Rc<World>, incarnation: u32) {
        if self.alive.get() && self.incarnation.get() == incarnation {
            world.note(self.id, "exits", u64::from(incarnation), 0);
            self.disk.crash(world, Crash::Process);
            self.drop_tasks(world);
        }
    }

    /// The world ends.
    pub(crate) fn end(&self, world: &Rc<World>) {
        self.powered.set(false);
        self.drop_tasks(world);
        self.disk.clear();
    }
}

/// A machine of a simulation. A clone is the same machine. Its methods may be called from anywhere
/// in the simulation, from tasks of other hosts, too.
#[derive(Clone)]
pub struct Host {
    pub(crate) world: Rc<World>,
    pub(crate) state: Rc<HostState>,
}

impl Host {
    /// Its id.
    pub fn id(&self) -> HostId {
        self.state.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The address by which others reach it. It reaches itself by the loopback addresses, too.
    pub fn ip(&self) -> IpAddr {
        self.state.address
    }

    /// Starts a process. When its main future ends, it exits: its tasks are dropped and its sockets
    /// closed.
    ///
    /// # Panics
    /// Where one is running.
    pub fn start(&self, main: impl AsyncFnOnce(Sim) + 'static) {
        self.state.start(&self.world, |incarnation| {
            let sim = Sim::new(Rc::clone(&self.world), Rc::clone(&self.state), incarnation);
            let (world, state) = (Rc::clone(&self.world), Rc::clone(&self.state));
            let (entry, mut handle) = Entry::new(async {
                main(sim).await;
                Ok(())
            });
            handle.keep_alive();
            let mut entry = Box::pin(entry);
            Box::pin(async move {
                entry.as_mut().await;
                drop(handle);
                // Not from inside of one of the tasks that are dropped by it.
                world.at(world.now(), move |world| state.exit(world, incarnation));
            })
        });
    }

    /// Whether a process runs.
    pub fn is_running(&self) -> bool {
        self.state.alive.get()
    }

    /// Which process runs, or will run next: they are numbered from 1 on.
    pub fn incarnation(&self) -> u32 {
        self.state.incarnation.get()
    }

    /// Kills the process, if there is one; without its power, a machine without a process loses
    /// what a machine loses. From one of its own tasks: after this poll of it.
    pub fn crash(&self, crash: Crash) {
        if self.state.polling.get() {
            self.state.dies_after.set(Some((0, crash)));
        } else {
            self.state.kill(&self.world, crash);
        }
    }

    /// Kills the process after so many polls of its tasks more, wherever it is then.
    pub fn crash_after(&self, polls: u64, crash: Crash) {
        if self.is_running() {
            self.state.dies_after.set(Some((polls, crash)));
        }
    }

    /// Whether it is going to die after some more polls.
    pub fn is_doomed(&self) -> bool {
        self.state.dies_after.get().is_some()
    }

    /// How many tasks its process has.
    pub fn tasks(&self) -> usize {
        self.state.tasks.borrow().len()
    }

    /// The process gets no processor, as by `SIGSTOP`. What the kernel does, goes on: sockets take
    /// what arrives, disks write.
    pub fn pause(&self) {
        if self.is_running() && !self.state.paused.replace(true) {
            self.world.note(self.id(), "pauses", 0, 0);
            self.state.runs_at.set(None);
        }
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.state.paused.get()
    }

    /// It gets the processor again.
    pub fn resume(&self) {
        if self.state.paused.replace(false) {
            self.world.note(self.id(), "resumes", 0, 0);
            self.state.plan_run(&self.world);
        }
    }

    /// Everything takes the process so many times longer than usual, from now on.
    pub fn set_slowness(&self, times: u64) {
        self.state.slowness.set(times.max(1));
    }

    /// How likely its process gets no descriptor for a connection that it opens or accepts, from
    /// now on (`EMFILE`). One that is not accepted waits. Files are not concerned, nor listening.
    pub fn refuse_sockets(&self, probability: f64) {
        self.state.refused_sockets.set(probability);
    }

    /// Its clock runs by so many parts per million faster (or slower) than the world's, from now
    /// on. At -1,000,000 and below it would stand still: it runs at a millionth then.
    pub fn set_drift(&self, parts_per_million: i64) {
        let rate = i64::try_from(RIGHT).unwrap_or(i64::MAX).saturating_add(parts_per_million);
        let mut clock = self.state.clock.get();
        clock.set_rate(self.world.now(), u64::try_from(rate).unwrap_or(1).max(1));
        self.state.clock.set(clock);
        self.state.replan_timers(&self.world);
        self.world.spread_wakes();
    }

    /// Its clock jumps ahead, and with it the one that counts time in suspend.
    pub fn jump(&self, by: Duration) {
        let mut clock = self.state.clock.get();
        clock.jump(self.world.now(), nanos(by));
        self.state.clock.set(clock);
        self.state.replan_timers(&self.world);
    }

    /// Lets it have been suspended for so long: [`continuous_now`] jumps ahead, and the other
    /// clocks and the timers don't. No time of the simulation passes; [`pause`](Self::pause) it,
    /// too, for peers that notice.
    ///
    /// [`continuous_now`]: quorate_rt::Executor::continuous_now
    pub fn suspend(&self, by: Duration) {
        self.world.note(self.id(), "suspended", nanos(by), 0);
        self.state.suspended.set(self.state.suspended.get().saturating_add(nanos(by)));
    }

    /// Sets its wall clock to be `millis` ahead of the right time, or behind it if negative.
    ///
    /// The right time is 2026-01-01 UTC when the simulation begins, and goes with the simulation's
    /// time. A host's wall clock is right until it is set. The offset outlives processes and
    /// crashes. [`set_drift`](Self::set_drift), [`jump`](Self::jump) and
    /// [`suspend`](Self::suspend) don't change it.
    pub fn set_wall_clock_offset(&self, millis: i64) {
        self.world.note(self.id(), "wall clock set", millis.cast_unsigned(), 0);
        self.state.wall_clock_offset.set(millis);
    }

    /// Returns how many milliseconds its wall clock is ahead of the right time; negative if behind.
    pub fn wall_clock_offset(&self) -> i64 {
        self.state.wall_clock_offset.get()
    }

    /// Its disk.
    pub fn disk(&self) -> Disk {
        Disk { world: Rc::clone(&self.world), state: Rc::clone(&self.state.disk) }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.is_running();
        f.debug_struct("Host").field("name", &self.name()).field("running", &running).finish()
    }
}

/// The loopback address in the family of another.
pub(crate) fn loopback_like(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
