//! Wake-ups from other threads: none is lost, in whatever number they come, and only the waker
//! crosses.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};

use futures::StreamExt;
use futures::channel::mpsc as foreign;
use futures::future::join_all;

use super::yield_now;
use crate::Executor;
use crate::channel::{oneshot, watch};

const THREADS: u64 = 4;
const BURST: u64 = 10_000;

/// A queue into a runtime that wakes its reader for each single value.
#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<(VecDeque<u64>, Option<Waker>)>>);

impl Inbox {
    fn push(&self, value: u64) {
        let waker = {
            let (queue, waker) = &mut *self.0.lock().unwrap();
            queue.push_back(value);
            waker.clone() // It stays, so that the next push wakes again.
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn pop(&self) -> u64 {
        poll_fn(|context| {
            let (queue, waker) = &mut *self.0.lock().unwrap();
            if let Some(value) = queue.pop_front() {
                return Poll::Ready(value);
            }
            *waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn sum(&self, values: u64) -> u64 {
        let mut sum = 0;
        for _ in 0..values {
            sum += self.pop().await;
        }
        sum
    }
}

/// Every thread calls it with 0 to `BURST - 1`.
fn burst(push: impl Fn(u64) + Clone + Send + 'static) {
    for _ in 0..THREADS {
        let push = push.clone();
        thread::spawn(move || (0..BURST).for_each(push));
    }
}

const SUM: u64 = THREADS * BURST * (BURST - 1) / 2;

pub async fn burst_to_main<R: Executor>(_rt: R) {
    let inbox = Inbox::default();
    let pushing = inbox.clone();
    burst(move |value| pushing.push(value));
    assert_eq!(inbox.sum(THREADS * BURST).await, SUM);
}

pub async fn burst_to_a_task<R: Executor>(rt: R) {
    let inbox = Inbox::default();
    let pushing = inbox.clone();
    let task = rt.spawn(async move { inbox.sum(THREADS * BURST).await });
    yield_now().await; // Its waker is there when the burst begins.
    burst(move |value| pushing.push(value));
    assert_eq!(task.await, Ok(SUM));
}

pub async fn burst_through_another_crate<R: Executor>(rt: R) {
    let (sender, mut receiver) = foreign::unbounded();
    let task = rt.spawn(async move {
        let mut sum = 0;
        while let Some(value) = receiver.next().await {
            sum += value;
        }
        sum
    });
    burst(move |value| sender.unbounded_send(value).unwrap());
    assert_eq!(task.await, Ok(SUM));
}

pub async fn burst_to_many_tasks<R: Executor>(rt: R) {
    const TASKS: usize = 1_000;
    let inboxes: Arc<[Inbox]> = (0..TASKS).map(|_| Inbox::default()).collect();
    let tasks: Vec<_> = inboxes
        .iter()
        .cloned()
        .map(|inbox| rt.spawn(async move { inbox.sum(THREADS * BURST / TASKS as u64).await }))
        .collect();
    yield_now().await;
    burst(move |value| inboxes[value as usize % TASKS].push(value));
    let sums = join_all(tasks).await;
    assert_eq!(sums.into_iter().map(Result::unwrap).sum::<u64>(), SUM);
}

pub async fn burst_through_a_watch<R: Executor>(rt: R) {
    let (sender, receiver) = watch::channel(0);
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let mut receiver = receiver.clone();
            rt.spawn(async move { receiver.wait_for(|value| *value == BURST).await })
        })
        .collect();
    thread::spawn(move || (1..=BURST).for_each(|value| sender.send(value)));
    for task in tasks {
        assert_eq!(task.await, Ok(Ok(Arc::new(BURST))));
    }
}

pub async fn from_idle<R: Executor>(rt: R) {
    let inbox = Inbox::default();
    let (ask, asked) = mpsc::channel();
    let answering = inbox.clone();
    thread::spawn(move || asked.iter().for_each(|value| answering.push(value)));
    for value in 0..1_000 {
        ask.send(value).unwrap();
        // There is nothing else to do meanwhile: the thread sleeps.
        assert_eq!(inbox.pop().await, value);
    }
    // The same for a task that is not the main one.
    let task = rt.spawn(async move {
        for value in 0..1_000 {
            ask.send(value).unwrap();
            assert_eq!(inbox.pop().await, value);
        }
    });
    assert_eq!(task.await, Ok(()));
}

pub async fn after_the_end_of_a_task<R: Executor>(rt: R) {
    let wakers: Vec<Waker> = {
        let tasks =
            (0..100).map(|_| rt.spawn(poll_fn(|context| Poll::Ready(context.waker().clone()))));
        join_all(tasks).await.into_iter().map(Result::unwrap).collect()
    };
    let waking = rt.spawn_blocking(move || {
        for waker in wakers {
            waker.wake_by_ref();
            waker.wake();
        }
    });
    assert_eq!(waking.await, Ok(()));
    assert_eq!(rt.spawn(async { 7 }).await, Ok(7));
}

/// Says on which thread it is dropped.
struct DroppedOn(Option<oneshot::Sender<ThreadId>>);

impl Drop for DroppedOn {
    fn drop(&mut self) {
        self.0.take().unwrap().send(thread::current().id()).unwrap();
    }
}

pub async fn tasks_die_at_home<R: Executor>(rt: R) {
    for cancel in [true, false] {
        let (dropped, dropped_on) = oneshot::channel();
        let (show, mut shown) = foreign::unbounded();
        let (go, gone) = oneshot::channel::<()>();
        let task = rt.spawn(async move {
            let _here = DroppedOn(Some(dropped));
            let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
            show.unbounded_send(waker).unwrap();
            if gone.await.is_err() {
                pending::<()>().await;
            }
        });
        let waker: Waker = shown.recv().await.unwrap();
        // The other thread holds a waker before, while and after the task ends, and drops the last
        // one.
        let (release, released) = mpsc::channel::<()>();
        let holding = rt.spawn_blocking(move || {
            for _ in 0..100 {
                waker.wake_by_ref();
            }
            released.recv().unwrap();
            waker.wake();
        });
        if cancel {
            drop(task);
        } else {
            go.send(()).unwrap();
            task.await.unwrap();
        }
        assert_eq!(dropped_on.await, Ok(thread::current().id()));
        release.send(()).unwrap();
        holding.await.unwrap();
    }
}
