//! What is of no use any more as soon as the log is durable up to some place, and how it goes: in
//! the background, and if something can't be removed, then the next time, since nothing depends on
//! it.

use std::path::PathBuf;
use std::rc::Rc;

use quorate_core::StoreError;
use quorate_rt::{Files, Task};
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

#[derive(Debug, Default)]
pub(crate) struct Trash {
    waiting: Vec<(Position, Garbage)>,
    /// What could not be removed.
    failed: Vec<Garbage>,
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
    pub(crate) fn is_due(&self, durable: Position) -> bool {
        !self.sweeping && self.waiting.iter().any(|(when, _)| *when <= durable)
    }

    /// What is due. The sweeping has ended if there is nothing.
    pub(crate) fn take(&mut self, durable: Position) -> Vec<Garbage> {
        let due: Vec<_> = self.waiting.extract_if(.., |(when, _)| *when <= durable).collect();
        self.sweeping = !due.is_empty();
        if due.is_empty() {
            return Vec::new();
        }
        let due = due.into_iter().map(|(_, what)| what);
        self.failed.drain(..).chain(due).collect()
    }
}

/// Removes what is due.
pub(crate) fn sweep<R: Files>(shared: &Rc<Shared<R>>, lock: Rc<R::FileLock>) {
    shared.state.borrow_mut().trash.sweeping = true;
    let task = Rc::clone(shared);
    let sweeping = async move {
        loop {
            let garbage = task.state.borrow_mut().take_garbage();
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
                    task.state.borrow_mut().trash.failed.push(what);
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
