//! The threads for blocking work of a thread's runtime, and who keeps them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use quorate_rt::blocking_threads::{Blocking, BlockingThreads};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Current>>> = const { RefCell::new(None) };
}

struct Current {
    threads: BlockingThreads,
    /// How many have attached; none inside of `run`.
    attached: Option<Cell<usize>>,
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

fn enter(attached: Option<Cell<usize>>) -> io::Result<Rc<Current>> {
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

/// One of those who have attached, and share the threads.
pub(crate) struct Attachment {
    /// None once it is counted no more.
    current: Option<Rc<Current>>,
}

impl Attachment {
    pub(crate) fn join() -> io::Result<Self> {
        let current = match CURRENT.with_borrow(Clone::clone) {
            Some(current) => current,
            None => enter(Some(Cell::new(0)))?,
        };
        let Some(attached) = &current.attached else {
            let reason =
                "this thread runs inside of `run` or `launch`: use the runtime they have given";
            return Err(io::Error::other(reason));
        };
        attached.set(attached.get() + 1);
        Ok(Self { current: Some(current) })
    }

    /// The threads, which end with the last one who leaves.
    fn leave(&mut self) -> Option<Rc<Current>> {
        let current = self.current.take()?;
        let attached = current.attached.as_ref()?;
        attached.set(attached.get() - 1);
        if attached.get() == 0 {
            CURRENT.take();
            current.threads.close();
        }
        Some(current)
    }
}

impl quorate_rt::Attachment for Attachment {
    fn close(mut self: Box<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        let done = self.leave().map(|current| current.threads.until_done());
        Box::pin(async move {
            if let Some(done) = done {
                done.await;
            }
        })
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.leave();
    }
}
