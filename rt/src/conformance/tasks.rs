//! Tasks: results, cancellation, detaching, panics, blocking work. And random numbers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::{guard, yield_now};
use crate::channel::{Closed, oneshot, watch};
use crate::{Executor, Task, TaskError};

pub async fn gives_its_result<R: Executor>(rt: R) {
    let shared = Rc::new(7); // Not `Send`: what belongs to a core stays there.
    let here = thread::current().id();
    let inner = rt.clone();
    let task = rt.spawn({
        let shared = Rc::clone(&shared);
        async move { inner.spawn(async move { (*shared, thread::current().id()) }).await }
    });
    assert_eq!(task.await, Ok(Ok((7, here))));
    assert_eq!(Rc::strong_count(&shared), 1);
}

pub async fn is_woken_by_another<R: Executor>(rt: R) {
    let (ping, pinged) = oneshot::channel();
    let (pong, ponged) = oneshot::channel();
    let echo = rt.spawn(async move { pong.send(pinged.await.unwrap()) });
    let sending = rt.spawn(async move { ping.send(7) });
    assert_eq!(ponged.await, Ok(7));
    assert_eq!(sending.await, Ok(Ok(())));
    assert_eq!(echo.await, Ok(Ok(())));
}

/// Counts its polls, shows its waker, and never ends by itself.
struct Watched {
    polls: Rc<Cell<u32>>,
    waker: Rc<RefCell<Option<Waker>>>,
    started: Option<oneshot::Sender<()>>,
    _guard: super::Guard,
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.polls.set(self.polls.get() + 1);
        *self.waker.borrow_mut() = Some(context.waker().clone());
        if let Some(started) = self.started.take() {
            started.send(()).unwrap();
        }
        Poll::Pending
    }
}

pub async fn cancelled_by_its_handle<R: Executor>(rt: R) {
    let (guard, dropped) = guard();
    let (started, has_started) = oneshot::channel();
    let polls = Rc::new(Cell::new(0));
    let waker = Rc::new(RefCell::new(None::<Waker>));
    let task = rt.spawn(Watched {
        polls: Rc::clone(&polls),
        waker: Rc::clone(&waker),
        started: Some(started),
        _guard: guard,
    });
    has_started.await.unwrap();
    let waker = waker.take().unwrap();

    waker.wake_by_ref(); // It is due to be polled, but the cancellation comes first.
    drop(task);
    waker.wake_by_ref();
    assert_eq!(dropped.await, Ok(()));
    assert_eq!(polls.get(), 1);
    waker.wake();
    for _ in 0..10 {
        yield_now().await;
    }
    assert_eq!(polls.get(), 1, "a cancelled task is never polled again");
}

pub async fn cancelled_before_its_first_poll<R: Executor>(rt: R) {
    let (guard, dropped) = guard();
    let ran = Rc::new(Cell::new(false));
    let task = rt.spawn({
        let ran = Rc::clone(&ran);
        async move {
            ran.set(true);
            pending::<()>().await;
            drop(guard);
        }
    });
    drop(task);
    assert_eq!(dropped.await, Ok(()));
    assert!(!ran.get());
}

pub async fn cancelled_by_itself<R: Executor>(rt: R) {
    let (guard, dropped) = guard();
    let own = Rc::new(RefCell::new(None));
    let polls_after = Rc::new(Cell::new(0));
    let task = rt.spawn({
        let (own, polls_after) = (Rc::clone(&own), Rc::clone(&polls_after));
        async move {
            drop(own.take());
            poll_fn(|context| {
                polls_after.set(polls_after.get() + 1);
                context.waker().wake_by_ref();
                Poll::<()>::Pending
            })
            .await;
            drop(guard);
        }
    });
    own.replace(Some(task));
    assert_eq!(dropped.await, Ok(()));
    assert_eq!(polls_after.get(), 1, "only the poll in which it dropped its handle");
}

pub async fn cancelled_with_its_owner<R: Executor>(rt: R) {
    let (guard, dropped) = guard();
    let (started, has_started) = oneshot::channel();
    let inner = rt.clone();
    let owner = rt.spawn(async move {
        let _owned = inner.spawn(async move {
            started.send(()).unwrap();
            pending::<()>().await;
            drop(guard);
        });
        pending::<()>().await;
    });
    has_started.await.unwrap();
    drop(owner);
    assert_eq!(dropped.await, Ok(()));
}

pub async fn awaited_to_the_end_then_dropped<R: Executor>(rt: R) {
    let (guard, dropped) = guard();
    let (ended, has_ended) = oneshot::channel();
    let task = rt.spawn(async move {
        ended.send(()).unwrap();
        guard // The result, which nobody takes.
    });
    has_ended.await.unwrap();
    yield_now().await;
    drop(task);
    assert_eq!(dropped.await, Ok(()), "an unwanted result is dropped");

    let mut task = rt.spawn(async { 7 });
    assert_eq!((&mut task).await, Ok(7));
    drop(task);
}

pub async fn detached<R: Executor>(rt: R) {
    let (go, gone) = oneshot::channel();
    let (done, is_done) = oneshot::channel();
    rt.spawn(async move {
        gone.await.unwrap();
        done.send(7).unwrap();
    })
    .detach();
    yield_now().await;
    go.send(()).unwrap();
    assert_eq!(is_done.await, Ok(7));
}

pub async fn panic_reaches_the_joiner_alone<R: Executor>(rt: R) {
    let (go, gone) = oneshot::channel();
    let bystander = rt.spawn(gone);
    let (guard, dropped) = guard();
    let panicking = rt.spawn(async move {
        let _guard = guard;
        yield_now().await;
        panic!("expected by the test: {}", 1);
    });
    let result: Result<(), TaskError> = panicking.await;
    assert_eq!(result, Err(TaskError::Panicked("expected by the test: 1".to_owned())));
    assert_eq!(dropped.await, Ok(()), "what the task held is dropped");

    let at_once = rt.spawn(async { std::panic::panic_any("expected by the test") });
    assert_eq!(at_once.await, Err(TaskError::Panicked("expected by the test".to_owned())));

    go.send(()).unwrap();
    assert_eq!(bystander.await, Ok(Ok(())), "others go on");
    assert_eq!(rt.spawn(async { 7 }).await, Ok(7), "and so does the runtime");
}

pub async fn panic_without_a_joiner<R: Executor>(rt: R) {
    let (guard, dropped) = guard();
    rt.spawn(async move {
        let _guard = guard;
        panic!("expected by the test, in a detached task");
    })
    .detach();
    assert_eq!(dropped.await, Ok(()));
    assert_eq!(rt.spawn(async { 7 }).await, Ok(7));
}

pub async fn many<R: Executor>(rt: R) {
    const TASKS: u64 = 10_000;
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            rt.spawn(async move {
                for _ in 0..3 {
                    yield_now().await;
                }
                number
            })
        })
        .collect();
    let mut sum = 0;
    for task in tasks {
        sum += task.await.unwrap();
    }
    assert_eq!(sum, TASKS * (TASKS - 1) / 2);
}

pub async fn blocking_gives_its_result<R: Executor>(rt: R) {
    let here = thread::current().id();
    let elsewhere = rt.spawn_blocking(|| thread::current().id()).await.unwrap();
    assert_ne!(here, elsewhere);
}

pub async fn blocking_panics<R: Executor>(rt: R) {
    let panicking = rt.spawn_blocking(|| panic!("expected by the test: {}", 2));
    let result: Result<(), TaskError> = panicking.await;
    assert_eq!(result, Err(TaskError::Panicked("expected by the test: 2".to_owned())));
    assert_eq!(rt.spawn_blocking(|| 7).await, Ok(7), "others go on");
}

pub async fn blocking_does_not_block_the_others<R: Executor>(rt: R) {
    let (go, gone) = mpsc::channel();
    let blocked = rt.spawn_blocking(move || gone.recv());
    let other = rt.spawn(async move {
        yield_now().await;
        go.send(7)
    });
    assert_eq!(other.await, Ok(Ok(())));
    assert_eq!(blocked.await, Ok(Ok(7)));
}

pub async fn blocking_forgotten<R: Executor>(rt: R) {
    let (state, mut watched) = watch::channel("not begun");
    let (go, gone) = mpsc::channel::<()>();
    let task = rt.spawn_blocking(move || {
        state.send("begun");
        gone.recv().unwrap();
        state.send("ended");
    });
    watched.wait_for(|state| *state == "begun").await.unwrap();
    drop(task);
    go.send(()).unwrap();
    assert_eq!(watched.wait_for(|state| *state == "ended").await, Ok(Arc::new("ended")));
    assert_eq!(watched.changed().await, Err(Closed));
}

pub async fn blocking_many<R: Executor>(rt: R) {
    let jobs: Vec<_> = (0..1_000_u64).map(|job| rt.spawn_blocking(move || job * 2)).collect();
    let mut sum = 0;
    for job in jobs {
        sum += job.await.unwrap();
    }
    assert_eq!(sum, 999_000);
}

pub async fn random_numbers_differ<R: Executor>(rt: R) {
    let numbers: BTreeSet<u64> = (0..1_000).map(|_| rt.random()).collect();
    assert_eq!(numbers.len(), 1_000);
    let all = numbers.iter().fold(0, |bits, number| bits | number);
    assert!(all.leading_zeros() < 8, "all 64 bits are used");
}
