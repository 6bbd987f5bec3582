//! An executor that is one task of a program that runs on the backend already.
//!
//! The backend's task holds the tasks of the executor, and those who have attached hold handles.
//! When the last handle is closed or dropped, the executor ends in order, as under
//! [`run`](super::run).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::ready;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;

use super::turns::Turns;
use super::{CURRENT, Core, Current};
use crate::blocking_threads::BlockingThreads;

/// Those who have attached.
pub(super) struct Users {
    /// The name of the backend.
    backend: &'static str,
    handles: Cell<usize>,
    /// Those who wait for the end.
    leaving: RefCell<Vec<oneshot::Sender<()>>>,
}

/// A handle of the executor that is attached to this thread. When the last one is dropped, or
/// [closed](crate::Attachment::close), the executor drops its tasks and ends.
#[must_use = "the executor ends with its last handle"]
pub struct Attachment {
    /// None once this handle is counted no more.
    core: Option<Rc<Core>>,
}

impl Attachment {
    fn new(core: Rc<Core>) -> Self {
        let users = users(&core);
        users.handles.set(users.handles.get() + 1);
        Self { core: Some(core) }
    }

}

impl crate::Attachment for Attachment {
    fn close(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        let Some(core) = self.core.take() else { return Box::pin(ready(())) };
        let (sender, settled) = oneshot::channel();
        let is_last = users(&core).handles.get() == 1;
        let waiting = if is_last { &users(&core).leaving } else { &core.settling };
        waiting.borrow_mut().push(sender);
        give_back(&core);
        // An error if the program's runtime has dropped the executor, which is its end, too.
        Box::pin(settled.map(drop))
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            give_back(&core);
        }
    }
}

fn give_back(core: &Core) {
    let handles = &users(core).handles;
    handles.set(handles.get() - 1);
    // Also if the executor is at work: where nobody polls it any more, what it is woken by must not
    // keep it alive.
    core.waker.wake_and_forget();
}

fn users(core: &Core) -> &Users {
    core.attached.as_ref().expect("it has handles")
}

/// Returns a handle of the executor that is attached to this thread; none if there is none.
/// `backend` is the name of the backend that asks.
///
/// # Errors
/// An executor that can't be shared runs on this thread: that of [`run`](super::run), another
/// backend's, or one that is ending.
pub fn join(backend: &'static str) -> io::Result<Option<Attachment>> {
    let Some(core) = CURRENT.with_borrow(Clone::clone) else { return Ok(None) };
    let reason = match &core.attached {
        None => "this thread runs inside of `run` or `launch`: use the runtime they have given",
        Some(users) if users.backend != backend => {
            "another runtime of Quorate is attached to this thread, and was not closed"
        }
        Some(users) if users.handles.get() == 0 => {
            "what was attached to this thread before is still ending: await its `close` first"
        }
        Some(_) => return Ok(Some(Attachment::new(core))),
    };
    Err(io::Error::other(reason))
}

/// Makes an executor for this thread, and its first handle. The program is to run the future as a
/// task of its own, on this thread.
///
/// `nap` makes a timer of the backend: it may be late, and should not be early. `pass` ends when
/// the backend has looked at its I/O and its timers since it began. It is awaited while tasks of
/// the executor are runnable all the time, so that other tasks of the program have their turn.
///
/// # Panics
/// An executor runs on this thread; see [`join`].
pub fn attach<S: Future>(
    backend: &'static str,
    blocking: BlockingThreads,
    nap: impl Fn(Duration) -> S,
    mut pass: impl AsyncFnMut(),
) -> (Attachment, impl Future<Output = ()>) {
    let nobody = Users { backend, handles: Cell::new(0), leaving: RefCell::default() };
    let core = Core::new(blocking, Some(nobody));
    let attachment = Attachment::new(Rc::clone(&core));
    let current = Current::enter(&core);
    let mut driven = Driven { turns: Some(Turns::new(core, nap)), _current: current };
    let driver = async move {
        if let Some(turns) = &mut driven.turns {
            turns.run_until(|turns| users(&turns.core).handles.get() == 0, &mut pass).await;
            turns.close(&mut pass).await;
        }
    };
    (attachment, driver)
}

/// The executor in the program's task, which ends it or drops it.
struct Driven<N, S> {
    turns: Option<Turns<'static, N, S>>,
    _current: Current,
}

impl<N, S> Drop for Driven<N, S> {
    fn drop(&mut self) {
        let Some(mut turns) = self.turns.take() else { return };
        let leaving = users(&turns.core).leaving.take();
        if turns.is_settled() {
            turns.drop_tasks();
        } else {
            // What holds the lock of a folder is among the tasks: the lock must not be free while
            // somebody writes.
            tracing::warn!(
                "the program's runtime has ended before Quorate's was closed (`Attached::close`), \
                 while files were written: folders that are open stay locked until the process ends"
            );
            mem::forget(turns);
        }
        for waiting in leaving {
            let _ = waiting.send(());
        }
    }
}
