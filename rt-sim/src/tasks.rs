//! The tasks of a host's process, and how they are woken.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use crate::host::HostId;

/// Which task, of which run of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey {
    /// None is the future that drives the simulation.
    pub(crate) host: Option<HostId>,
    pub(crate) incarnation: u32,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A future that has no owner but its place.
pub(crate) type Running = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of a process, each at a place.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    task: Option<Task>,
}

pub(crate) struct Task {
    /// None while it is polled.
    pub(crate) future: Option<Running>,
    pub(crate) waker: Arc<TaskWaker>,
}

impl Tasks {
    /// Takes a task in, and gives its place and the generation there.
    pub(crate) fn add(&mut self, make: impl FnOnce(u32, u32) -> Task) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 tasks")
        });
        let at = &mut self.slots[slot as usize];
        at.generation += 1;
        at.task = Some(make(slot, at.generation));
    }

    pub(crate) fn get(&mut self, key: TaskKey) -> Option<&mut Task> {
        let at = self.slots.get_mut(key.slot as usize)?;
        at.task.as_mut().filter(|_| at.generation == key.generation)
    }

    pub(crate) fn remove(&mut self, key: TaskKey) -> Option<Task> {
        self.get(key)?;
        self.free.push(key.slot);
        self.slots[key.slot as usize].task.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All that are there, in the order of their places. Nothing is left.
    pub(crate) fn take_all(&mut self) -> Vec<Task> {
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| slot.task).collect()
    }
}

/// Wakes a task; from other threads, too.
pub(crate) struct TaskWaker {
    pub(crate) key: TaskKey,
    woken: Arc<Woken>,
    /// It is in the list, or on its way from there to its poll.
    queued: AtomicBool,
}

impl TaskWaker {
    pub(crate) fn new(key: TaskKey, woken: Arc<Woken>) -> Arc<Self> {
        Arc::new(Self { key, woken, queued: AtomicBool::new(false) })
    }

    /// It is about to be polled: who wakes it from now on wakes it once more.
    pub(crate) fn begin_poll(&self) {
        self.queued.store(false, Ordering::Release);
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.woken.push(self.key);
        }
    }
}

/// Those who were woken since the world has last looked.
#[derive(Default)]
pub(crate) struct Woken {
    any: AtomicBool,
    list: Mutex<List>,
    more: Condvar,
}

#[derive(Default)]
struct List {
    keys: Vec<TaskKey>,
    /// The simulation's thread waits for more. Telling it costs a system call, which is rarely
    /// needed.
    is_waited_for: bool,
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, List> {
        // Nothing under the lock can panic half-way.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, key: TaskKey) {
        let mut list = self.lock();
        list.keys.push(key);
        self.any.store(true, Ordering::Release);
        if list.is_waited_for {
            self.more.notify_one();
        }
    }

    /// Exchanges the list for an empty one. False: nobody was woken.
    pub(crate) fn take(&self, empty: &mut Vec<TaskKey>) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        self.any.store(false, Ordering::Release);
        std::mem::swap(&mut self.lock().keys, empty);
        true
    }

    /// Tells the thread that waits in [`wait_until`](Self::wait_until) to look again.
    pub(crate) fn nudge(&self) {
        drop(self.lock());
        self.more.notify_one();
    }

    /// Blocks this thread until another one has woken somebody, or `done`, about which it is to be
    /// [nudged](Self::nudge).
    pub(crate) fn wait_until(&self, done: impl Fn() -> bool) {
        let mut list = self.lock();
        list.is_waited_for = true;
        while list.keys.is_empty() && !done() {
            list = self.more.wait(list).unwrap_or_else(PoisonError::into_inner);
        }
        list.is_waited_for = false;
    }
}
