//! Blocking work. It runs on a real thread, but its end comes at a time of the simulation's: that
//! stands still until the work is done. So work that wakes tasks, or waits for them, is as
//! deterministic as threads are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use quorate_rt::TaskError;
use quorate_rt::channel::oneshot;

use crate::world::World;

/// What all blocking work seems to take.
const TAKES: Duration = Duration::from_micros(50);

type Outcome<T> = Result<T, TaskError>;

/// Work under way on its thread.
struct Job<T>(Mutex<Option<Outcome<T>>>);

impl<T> Job<T> {
    fn put(&self, outcome: Outcome<T>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    fn take(&self) -> Option<Outcome<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_done(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Begins it. The end of the channel tells what came of it.
#[expect(clippy::disallowed_methods, reason = "its end comes when the simulation says so")]
pub(crate) fn start<F, T>(world: &World, work: F) -> oneshot::Receiver<Outcome<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let job = Arc::new(Job(Mutex::new(None)));
    let (of_thread, woken) = (Arc::clone(&job), Arc::clone(&world.woken));
    let started = thread::Builder::new().name("blocking".to_owned()).spawn(move || {
        of_thread.put(catch_unwind(AssertUnwindSafe(work)).map_err(TaskError::from_panic));
        woken.nudge();
    });
    match started {
        Ok(_) => world.after(TAKES, move |world| end(world, &job, sender)),
        Err(error) => drop(sender.send(Err(TaskError::Panicked(error.to_string())))),
    }
    receiver
}

fn end<T: 'static>(world: &Rc<World>, job: &Arc<Job<T>>, sender: oneshot::Sender<Outcome<T>>) {
    if sender.is_closed() {
        return; // Nobody waits for it. It may itself wait for a process that is dead.
    }
    world.woken.wait_until(|| job.is_done());
    match job.take() {
        Some(outcome) => drop(sender.send(outcome)),
        // It has woken somebody first, for whom it may wait.
        None => {
            let job = Arc::clone(job);
            world.after(Duration::from_nanos(1), move |world| end(world, &job, sender));
        }
    }
}
