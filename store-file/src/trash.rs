//! What is of no use any more as soon as the log is durable up to some place, and how it goes: in
//! the background, and if something can't be removed, then later, since nothing depends on it.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use quorate_core::StoreError;
use quorate_rt::{Files, Instant, Task};
use tracing::warn;

use crate::format::Position;
use crate::segment::{failed, remove};
use crate::store::Shared;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Garbage {
    Segment(u32),
    /// Or a draft of one.
    Snapshot(PathBuf),
}

/// What could not be removed is tried again with the next that can, or after so long: a disk that
/// fails now and then is asked seldom, and one that is full has its space before long.
const AGAIN_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Trash {
    waiting: Vec<(Position, Garbage)>,
    /// What could not be removed, and when that is tried again at the latest.
    failed: Vec<Garbage>,
    again_at: Option<Instant>,
    /// A task is at it.
    sweeping: bool,
}

impl Trash {
    /// It may go when the log is durable up to there.
    pub(crate) fn put(&mut self, when_durable: Position, what: Garbage) {
        self.waiting.push((when_durable, what));
    }

    /// The log's record that ended at `from` ends at `to` now.
    pub(crate) fn move_to(&mut self, from: Position, to: Position) {
        for (when, _) in self.waiting.iter_mut().filter(|(when, _)| *when == from) {
            *when = to;
        }
    }

    /// Whether there is something to do that nobody does.
    pub(crate) fn is_due(&self, durable: Position, now: Instant) -> bool {
        !self.sweeping
            && (self.again_at.is_some_and(|at| at <= now)
                || self.waiting.iter().any(|(when, _)| *when <= durable))
    }

    /// When there is something to do even if nothing comes.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        self.again_at.filter(|_| !self.sweeping)
    }

    /// What is due, and with it what could not be removed before. The sweeping has ended if there
    /// is nothing.
    pub(crate) fn take(&mut self, durable: Position, now: Instant) -> Vec<Garbage> {
        let due = self.waiting.extract_if(.., |(when, _)| *when <= durable);
        let mut due: Vec<_> = due.map(|(_, what)| what).collect();
        if !due.is_empty() || self.again_at.is_some_and(|at| at <= now) {
            self.again_at = None;
            due.append(&mut self.failed);
        }
        self.sweeping = !due.is_empty();
        due
    }

    fn failed(&mut self, what: Garbage, now: Instant) {
        self.failed.push(what);
        self.again_at = Some(now + AGAIN_PAUSE);
    }
}

/// Removes what is due.
pub(crate) fn sweep<R: Files>(shared: &Rc<Shared<R>>, lock: Rc<R::FileLock>) {
    shared.state.borrow_mut().trash.sweeping = true;
    let task = Rc::clone(shared);
    let sweeping = async move {
        loop {
            let now = task.segments.rt.now();
            let garbage = task.state.borrow_mut().take_garbage(now);
            if garbage.is_empty() {
                break;
            }
            let (mut of_log, mut of_snapshots) = (false, false);
            for what in garbage {
                let path = match &what {
                    Garbage::Segment(segment) => task.segments.path(*segment),
                    Garbage::Snapshot(path) => path.clone(),
                };
                let verified = task.verify_folder().await;
                if task.fail_without_folder() {
                    return; // What is not needed is in another folder than the one at its path.
                }
                let removed = match verified {
                    Ok(()) => remove(&task.segments.rt, &path).await,
                    unknown => unknown,
                };
                if let Err(cause) = removed {
                    warn!(%cause, "a file that is not needed any more stays for now");
                    let now = task.segments.rt.now();
                    task.state.borrow_mut().trash.failed(what, now);
                    continue;
                }
                match what {
                    Garbage::Segment(_) => of_log = true,
                    Garbage::Snapshot(_) => of_snapshots = true,
                }
            }
            if let Err(cause) = sync(&task, of_log, of_snapshots).await {
                warn!(%cause, "a file that was removed may come back after a crash");
            }
            task.state.borrow_mut().has_freed();
        }
        drop(lock);
        // It may have to come back.
        task.state.borrow_mut().wake_writer();
    };
    shared.segments.rt.spawn(sweeping).detach();
}

async fn sync<R: Files>(shared: &Shared<R>, log: bool, snapshots: bool) -> Result<(), StoreError> {
    if log {
        shared.segments.sync().await?;
    }
    if snapshots {
        let dir = &shared.snapshots.dir;
        let synced = shared.segments.rt.sync_dir(dir).await;
        synced.map_err(|error| failed("syncing", dir, error))?;
    }
    Ok(())
}
