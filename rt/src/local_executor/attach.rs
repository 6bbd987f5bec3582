//! An executor that is one task of a program that runs on the backend already.
//!
//! The backend's task holds the tasks of the executor, and those who have attached hold handles.
//! When the last handle is closed or dropped, the executor ends in order, as under
//! [`run`](super::run).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;

use super::turns::{Turn, Turns};
use super::{CURRENT, Core, enter_thread, leave_thread};
use crate::blocking_threads::BlockingThreads;

/// Those who have attached, and what they share.
pub(super) struct Users {
    /// The name of the backend.
    backend: &'static str,
    handles: Cell<usize>,
    /// None once it has ended. Borrowed while a turn is under way.
    turns: RefCell<Option<Turns<'static>>>,
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
        let handles = &users(&core).handles;
        handles.set(handles.get() + 1);
        Self { core: Some(core) }
    }

    /// Gives the handle back.
    fn leave(&mut self) -> Option<Rc<Core>> {
        let core = self.core.take()?;
        let handles = &users(&core).handles;
        handles.set(handles.get() - 1);
        Some(core)
    }
}

impl crate::Attachment for Attachment {
    fn close(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        let Some(core) = self.leave() else { return Box::pin(ready(())) };
        let (sender, settled) = oneshot::channel();
        if users(&core).handles.get() == 0 {
            users(&core).leaving.borrow_mut().push(sender);
            core.wake();
        } else {
            core.after_operations(move || {
                let _ = sender.send(());
            });
        }
        // An error if the program's runtime has dropped the executor, which is its end, too.
        Box::pin(settled.map(drop))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let Some(core) = self.leave() else { return };
        if users(&core).handles.get() > 0 {
            return;
        }
        // The program's runtime may end before it runs the executor again, and may then leak it
        // (monoio does): so it ends here, where nothing has to be brought to its end.
        if !end(&core) {
            core.wake();
        }
    }
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").finish_non_exhaustive()
    }
}

fn users(core: &Core) -> &Users {
    core.attached.as_ref().expect("it is attached")
}

/// Ends the executor, unless it is in a turn, or operations are under way that have to be brought
/// to their end. Returns whether it has ended.
fn end(core: &Rc<Core>) -> bool {
    let users = users(core);
    let mut turns = match users.turns.try_borrow_mut() {
        Err(_) => return false,
        Ok(turns) if turns.is_none() => return true,
        Ok(_) if !core.is_settled() => return false,
        Ok(mut turns) => turns.take(),
    };
    turns.iter_mut().for_each(Turns::drop_tasks);
    if !core.is_settled() {
        // Something that was dropped has begun an operation.
        users.turns.replace(turns);
        return false;
    }
    core.close();
    drop(turns);
    leave_thread(core);
    for waiting in users.leaving.take() {
        let _ = waiting.send(());
    }
    true
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
            "what was attached to this thread before is still ending: await its `close` first; if \
             the program's runtime has ended meanwhile, attach on another thread"
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
pub fn attach<S: Future<Output = ()> + 'static>(
    backend: &'static str,
    blocking: BlockingThreads,
    nap: impl Fn(Duration) -> S + 'static,
    mut pass: impl AsyncFnMut(),
) -> (Attachment, impl Future<Output = ()>) {
    let core = Core::new(
        blocking,
        Some(Users {
            backend,
            handles: Cell::new(0),
            turns: RefCell::default(),
            leaving: RefCell::default(),
        }),
    );
    users(&core).turns.replace(Some(Turns::new(Rc::clone(&core), nap)));
    enter_thread(&core);
    let attachment = Attachment::new(Rc::clone(&core));
    let driven = Driven(core);
    let driver = async move {
        let (core, users) = (&driven.0, users(&driven.0));
        run_until(core, |_| users.handles.get() == 0, &mut pass).await;
        if let Some(turns) = &mut *users.turns.borrow_mut() {
            turns.drop_tasks();
        }
        loop {
            run_until(core, |_| core.is_settled(), &mut pass).await;
            let last_turn = users.turns.borrow().as_ref().map(Turns::last_turn);
            if let Some(last_turn) = last_turn {
                last_turn.await;
            }
            if core.is_settled() {
                break; // Otherwise a task of the program has begun an operation meanwhile.
            }
        }
    };
    (attachment, driver)
}

/// Runs the tasks until `done`, or until the executor has ended.
async fn run_until(
    core: &Core,
    done: impl Fn(&Turns<'static>) -> bool,
    pass: &mut impl AsyncFnMut(),
) {
    let turn = |context: &mut Context<'_>| match &mut *users(core).turns.borrow_mut() {
        Some(turns) => turns.poll_until(context, &done),
        None => Poll::Ready(Turn::Done),
    };
    while let Turn::Over = poll_fn(turn).await {
        pass().await;
    }
}

/// The executor in the program's task.
struct Driven(Rc<Core>);

impl Drop for Driven {
    fn drop(&mut self) {
        if !end(&self.0) {
            // What holds the lock of a folder is among the tasks: the lock must not be free while
            // somebody writes. So they stay, with what they hold.
            tracing::warn!(
                "the program's runtime has ended before Quorate's was closed, while operations on \
                 files were under way: a folder that a store has open stays locked until the \
                 process ends; await `Attached::close`, after an error as well"
            );
            leave_thread(&self.0);
        }
    }
}
