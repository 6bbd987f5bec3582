//! What a thread's runtime has beyond tokio's: threads for blocking work, and its tasks where it is
//! attached to a program; and who keeps it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use quorate_rt::blocking_threads::{Blocking, BlockingThreads};
use tokio::task::JoinHandle;

use crate::tasks::Tasks;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Current>>> = const { RefCell::new(None) };
}

struct Current {
    threads: BlockingThreads,
    /// None inside of `run`.
    attached: Option<Attached>,
}

/// What several share who have attached.
#[derive(Default)]
struct Attached {
    count: Cell<usize>,
    tasks: Rc<Tasks>,
}

/// Starts a task of this thread's runtime.
pub(crate) fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    let current = CURRENT.with_borrow(Clone::clone);
    match current.as_ref().and_then(|current| current.attached.as_ref()) {
        Some(attached) => Tasks::spawn(&attached.tasks, future),
        None => tokio::task::spawn_local(future),
    }
}

/// Runs work on the threads of this thread's runtime.
pub(crate) fn run<F, T>(work: F) -> Blocking<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    current().threads.run(work)
}

/// Returns what does something when the work has ended that was submitted by then.
pub(crate) fn after_work() -> impl Fn(Box<dyn FnOnce() + Send>) + 'static {
    let current = current();
    move |what| current.threads.after_work(what)
}

fn current() -> Rc<Current> {
    CURRENT.with_borrow(Clone::clone).expect(
        "the methods of a runtime are called on its thread, inside of run or while it is attached",
    )
}

fn enter(attached: Option<Attached>) -> io::Result<Rc<Current>> {
    let current = Rc::new(Current { threads: BlockingThreads::start()?, attached });
    CURRENT.set(Some(Rc::clone(&current)));
    Ok(current)
}

/// The threads of the runtime of `run`. When it is dropped, it waits for the work that is left.
pub(crate) struct Threads(Rc<Current>);

impl Threads {
    pub(crate) fn start() -> io::Result<Self> {
        if CURRENT.with_borrow(Option::is_some) {
            return Err(io::Error::other("a runtime runs on this thread already"));
        }
        enter(None).map(Self)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        CURRENT.take();
        self.0.threads.join();
    }
}

/// One of those who have attached, and share what there is.
pub(crate) struct Attachment {
    /// None once it is counted no more.
    current: Option<Rc<Current>>,
}

impl Attachment {
    pub(crate) fn join() -> io::Result<Self> {
        let current = match CURRENT.with_borrow(Clone::clone) {
            Some(current) => current,
            None => enter(Some(Attached::default()))?,
        };
        let Some(attached) = &current.attached else {
            let reason =
                "this thread runs inside of `run` or `launch`: use the runtime they have given";
            return Err(io::Error::other(reason));
        };
        attached.count.update(|count| count + 1);
        Ok(Self { current: Some(current) })
    }

    /// With the last one who leaves, the tasks and the threads end.
    fn leave(&mut self) -> Option<Rc<Current>> {
        let current = self.current.take()?;
        let attached = current.attached.as_ref()?;
        attached.count.update(|count| count - 1);
        if attached.count.get() == 0 {
            CURRENT.take();
            // They are not polled again: their next operation would find no runtime.
            attached.tasks.cancel();
            current.threads.close();
        }
        Some(current)
    }
}

impl quorate_rt::Attachment for Attachment {
    fn close(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        let left = self.leave();
        Box::pin(async move {
            let Some(current) = left else { return };
            if let Some(attached) = current.attached.as_ref().filter(|it| it.count.get() == 0) {
                attached.tasks.until_dropped().await;
            }
            current.threads.until_done().await;
        })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.leave();
    }
}
