//! What the conformance suite can't see from outside: what the executor spares its backend, and
//! what it owes it.
#![expect(clippy::disallowed_methods, reason = "an executor is woken by real threads")]

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures::channel::oneshot;
use futures::executor::block_on;
use futures::future::pending;

use super::*;
use crate::Task;

/// The timer of a backend that has nothing else.
async fn nap(duration: Duration) {
    let (over, is_over) = oneshot::channel();
    thread::spawn(move || {
        thread::sleep(duration);
        let _ = over.send(());
    });
    let _ = is_over.await;
}

fn run_alone<T>(main: impl Future<Output = T>) -> T {
    let threads = BlockingThreads::start().unwrap();
    block_on(run(threads, main, nap)).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A backend that counts how often it is woken.
#[derive(Default)]
struct Backend {
    woken: AtomicUsize,
}

impl Wake for Backend {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::AcqRel);
    }
}

#[test]
fn timers_fire_while_tasks_are_always_runnable() {
    run_alone(async {
        let busy = spawn(async {
            loop {
                yield_now().await;
            }
        });
        sleep_until(Instant::from_system_clock() + Duration::from_millis(3)).await;
        drop(busy);
    });
}

#[test]
fn the_backend_has_its_turn_while_tasks_are_always_runnable() {
    let backend = Arc::new(Backend::default());
    let waker = Waker::from(Arc::clone(&backend));
    let mut running = pin!(run(
        BlockingThreads::start().unwrap(),
        async {
            loop {
                yield_now().await;
            }
        },
        nap
    ));
    for turn in 1..5 {
        assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(backend.woken.load(Ordering::Acquire), turn, "it is to come back");
    }
}

#[test]
fn a_task_whose_operations_never_wait_lets_the_others_run() {
    run_alone(async {
        let (begun, has_begun) = oneshot::channel();
        let greedy = spawn(async {
            begun.send(()).unwrap();
            loop {
                cooperate().await;
            }
        });
        has_begun.await.unwrap();
        drop(greedy);
    });
}

#[test]
fn a_burst_of_wakes_wakes_the_backend_once() {
    const TASKS: usize = 1000;
    let backend = Arc::new(Backend::default());
    let waker = Waker::from(Arc::clone(&backend));
    let context = &mut Context::from_waker(&waker);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..TASKS).map(|_| oneshot::channel()).unzip();
    let mut running = pin!(run(
        BlockingThreads::start().unwrap(),
        async {
            let tasks: Vec<_> = receivers.into_iter().map(spawn).collect();
            for task in tasks {
                task.await.unwrap().unwrap();
            }
            pending::<()>().await;
        },
        nap
    ));
    // Until nothing is runnable any more.
    let mut woken = usize::MAX;
    while backend.woken.load(Ordering::Acquire) != woken {
        woken = backend.woken.load(Ordering::Acquire);
        assert!(running.as_mut().poll(context).is_pending());
    }
    thread::spawn(|| senders.into_iter().for_each(|sender| sender.send(()).unwrap()))
        .join()
        .unwrap();
    assert_eq!(backend.woken.load(Ordering::Acquire), woken + 1);
}

#[test]
fn an_operation_ends_though_its_caller_is_dropped_and_main_has_ended() {
    let ended = Rc::new(Cell::new(false));
    let witness = Rc::clone(&ended);
    run_alone(async move {
        let (begun, has_begun) = oneshot::channel();
        let caller = spawn(complete(async move {
            begun.send(()).unwrap();
            spawn_blocking(|| thread::sleep(Duration::from_millis(5))).await.unwrap();
            witness.set(true);
        }));
        has_begun.await.unwrap();
        drop(caller);
    });
    assert!(ended.get());
}

#[test]
#[should_panic(expected = "out of order")]
fn a_panic_in_an_operation_goes_on_in_its_caller() {
    run_alone(complete(async { panic!("out of order") }));
}

#[test]
fn tasks_started_by_the_destructors_of_tasks_come_to_nothing() {
    struct Starts(Rc<Cell<bool>>);
    impl Drop for Starts {
        fn drop(&mut self) {
            let ran = Rc::clone(&self.0);
            spawn(async move { ran.set(true) }).detach();
        }
    }
    let ran = Rc::new(Cell::new(false));
    let starts = Starts(Rc::clone(&ran));
    run_alone(async move {
        spawn(async move {
            let _starts = starts;
            pending::<()>().await;
        })
        .detach();
        yield_now().await;
    });
    assert!(!ran.get());
}

#[test]
fn more_blocking_work_than_threads() {
    run_alone(async {
        let work: Vec<_> = (0..1000).map(|number| spawn_blocking(move || number)).collect();
        for (number, work) in work.into_iter().enumerate() {
            assert_eq!(work.await, Ok(number));
        }
    });
}
