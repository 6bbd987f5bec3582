//! The tasks of a runtime that is attached to a program: they end with it, and not with the
//! program.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;

use quorate_rt::channel::Signal;
use tokio::task::{AbortHandle, JoinHandle};

#[derive(Default)]
pub(crate) struct Tasks {
    /// Those whose futures are there, by number.
    running: RefCell<BTreeMap<u64, AbortHandle>>,
    last: Cell<u64>,
    dropped: Signal,
}

/// Belongs to a task, and is dropped with its future.
struct Entry {
    tasks: Rc<Tasks>,
    number: u64,
}

impl Tasks {
    /// Starts a task of the program's runtime, as one of these.
    pub(crate) fn spawn<F: Future + 'static>(this: &Rc<Self>, future: F) -> JoinHandle<F::Output> {
        let number = this.last.get() + 1;
        this.last.set(number);
        let entry = Entry { tasks: Rc::clone(this), number };
        let task = tokio::task::spawn_local(async move {
            let _entry = entry;
            future.await
        });
        if !task.is_finished() {
            this.running.borrow_mut().insert(number, task.abort_handle());
        }
        task
    }

    /// From now on none of them is polled. Their futures are dropped when tokio has its turn.
    pub(crate) fn cancel(&self) {
        for task in self.running.borrow().values() {
            task.abort();
        }
    }

    /// Waits until the futures of all tasks are dropped. One may wait at a time.
    pub(crate) async fn until_dropped(&self) {
        while !self.running.borrow().is_empty() {
            self.dropped.wait().await;
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.tasks.running.borrow_mut().remove(&self.number);
        self.tasks.dropped.raise();
    }
}
