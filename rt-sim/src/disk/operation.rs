//! An operation of a disk: it takes time, may fail, and ends by itself, whoever waits for it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::DiskState;
use super::inode::{Change, Inode};
use crate::generator::nanos;
use crate::host::Crash;
use crate::world::World;

/// `EIO`.
const IO_ERROR: i32 = 5;

/// The operations under way, by number.
#[derive(Default)]
pub(super) struct UnderWay {
    begun: u64,
    operations: BTreeMap<u64, Option<Changes>>,
}

/// What an operation changes in a file.
pub(super) type Changes = (Rc<Inode>, Vec<Change>);

/// Whoever waits for an operation.
struct Waiting<T> {
    outcome: RefCell<Option<T>>,
    waker: RefCell<Option<Waker>>,
    /// It was dropped, and the operation has not begun yet and will not.
    cancelled: Cell<bool>,
}

/// Waits. Dropped before the end, it may cancel the operation, or not.
struct Waits<'a, T> {
    world: &'a World,
    waiting: Rc<Waiting<T>>,
    ended: bool,
}

impl<T> Drop for Waits<'_, T> {
    fn drop(&mut self) {
        if !self.ended {
            self.waiting.cancelled.set(self.world.disks.chance(0.5));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Sync,
    /// Of names, and of what else is kept where they are.
    Name,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
            Self::Sync => "syncs",
            Self::Name => "names",
        }
    }
}

pub(super) fn io_error() -> io::Error {
    io::Error::from_raw_os_error(IO_ERROR)
}

impl DiskState {
    /// Does something that takes a while: `work` is done at its end, all at once. It gets whether
    /// to fail.
    ///
    /// `changes` is what it changes in a file, for what a crash in the middle of it leaves.
    pub(super) async fn operate<T: 'static>(
        self: &Rc<Self>,
        world: &Rc<World>,
        kind: Kind,
        changes: Option<Changes>,
        work: impl FnOnce(&World, bool) -> T + 'static,
    ) -> T {
        if world.host(self.host).is_dying() {
            return std::future::pending().await;
        }
        let (delay, fails) = self.plan(world, kind);
        let waiting = Rc::new(Waiting {
            outcome: RefCell::default(),
            waker: RefCell::default(),
            cancelled: Cell::new(false),
        });
        let number = {
            let mut under_way = self.under_way.borrow_mut();
            under_way.begun += 1;
            let number = under_way.begun;
            under_way.operations.insert(number, changes);
            number
        };
        let (disk, waits_for) = (Rc::clone(self), Rc::clone(&waiting));
        world.at(world.now() + delay, move |world| {
            disk.end(world, number, kind, waits_for, move |world| work(world, fails));
        });
        let mut waits = Waits { world, waiting, ended: false };
        let outcome = poll_fn(|context| match waits.waiting.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                waits.waiting.waker.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        })
        .await;
        waits.ended = true;
        outcome
    }

    fn plan(&self, world: &World, kind: Kind) -> (u64, bool) {
        let config = self.config.borrow();
        let (latency, errors, counted) = match kind {
            Kind::Read => (&config.latency, config.read_errors, "read error"),
            Kind::Write => (&config.latency, config.write_errors, "write error"),
            Kind::Sync => (&config.sync_latency, config.sync_errors, "sync error"),
            Kind::Name => (&config.latency, 0.0, "name error"),
        };
        let fails_next = match kind {
            Kind::Write => self.fail_next_write.take(),
            Kind::Sync => self.fail_next_sync.take(),
            Kind::Read | Kind::Name => false,
        };
        let fails = world.disks.chance(errors) || fails_next;
        if fails {
            world.trace.count(counted);
        }
        (nanos(world.disks.duration(latency)), fails)
    }

    fn end<T: 'static>(
        self: &Rc<Self>,
        world: &Rc<World>,
        number: u64,
        kind: Kind,
        waiting: Rc<Waiting<T>>,
        work: impl FnOnce(&World) -> T + 'static,
    ) {
        if !self.under_way.borrow().operations.contains_key(&number) {
            // The machine has lost its power, or its process has died, and what has become of this
            // was decided then.
            return;
        }
        if self.stalled_until.get() > world.now() {
            let disk = Rc::clone(self);
            self.stalled.borrow_mut().push(Box::new(move |world| {
                disk.end(world, number, kind, waiting, work);
            }));
            return;
        }
        self.under_way.borrow_mut().operations.remove(&number);
        if waiting.cancelled.get() {
            return;
        }
        if Rc::strong_count(&waiting) == 1 && kind == Kind::Write {
            world.trace.count("write dropped and done");
        }
        world.note(self.host, kind.name(), number, 0);
        waiting.outcome.replace(Some(work(world)));
        if let Some(waker) = waiting.waker.take() {
            waker.wake();
        }
    }

    /// The process dies, and with it what waits for operations. Those may or may not be done.
    pub(crate) fn crash(&self, world: &World, crash: Crash) {
        let operations = std::mem::take(&mut self.under_way.borrow_mut().operations);
        for (inode, changes) in operations.into_values().flatten() {
            // The sectors of it that were written: all, none, or some.
            let probability = *world.disks.choose(&[0.0, 0.5, 1.0]);
            for change in inode.write(changes) {
                for part in change.sectors(|| world.disks.chance(probability)) {
                    if self.has_room(part.end().saturating_sub(inode.len())) {
                        inode.change(part);
                    }
                }
            }
        }
        world.note(self.host, "disk crashes", crash as u64, 0);
    }
}
