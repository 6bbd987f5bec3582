//! The limit: clients that exchange a message and a reply with one task over the same queues,
//! without any Raft.

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use anyhow::Result;
use futures::channel::oneshot as shared_oneshot;
use quorate::rt::channel::{Signal, oneshot};
use quorate::{Executor, Launch};

use super::Work;
use super::clients::{self, joined};
use crate::closed_loop::{Client, on_this_thread};

/// Within a thread: a vector, a signal, and a reply of the thread's own.
pub(super) fn local<R: Executor>(launch: Launch, work: Work) -> Result<Vec<f64>> {
    joined(R::launch(launch, async move |rt: R| {
        let queue = Rc::new(LocalQueue::default());
        let server = rt.spawn({
            let queue = Rc::clone(&queue);
            async move {
                loop {
                    queue.signal.wait().await;
                    for reply in mem::take(&mut *queue.requests.borrow_mut()) {
                        let _ = reply.send(());
                    }
                }
            }
        });
        let client = || LocalClient { queue: Rc::clone(&queue), batch: work.batch };
        let figures = on_this_thread(&rt, work.clients, work.duration, client).await;
        drop(server);
        figures
    })?)
}

#[derive(Default)]
struct LocalQueue {
    requests: RefCell<Vec<oneshot::Sender<()>>>,
    signal: Signal,
}

struct LocalClient {
    queue: Rc<LocalQueue>,
    batch: usize,
}

impl LocalClient {
    fn send(&self) -> oneshot::Receiver<()> {
        let (reply, answer) = oneshot::channel();
        self.queue.requests.borrow_mut().push(reply);
        self.queue.signal.raise();
        answer
    }
}

impl Client for LocalClient {
    async fn request(&mut self) -> Result<u64> {
        clients::batch(self.batch, || self.send()).await
    }
}

/// Across threads: a vector in a mutex, the waker of the task that looks at it, and a reply for any
/// thread.
pub(super) fn shared<R: Executor>(launch: Launch, work: Work) -> Result<Vec<f64>> {
    let queue = Arc::<Mutex<SharedQueue>>::default();
    let server = R::launch(launch, {
        let queue = Arc::clone(&queue);
        async move |_: R| {
            while let Some(requests) = SharedQueue::take(&queue).await {
                for reply in requests {
                    let _ = reply.send(());
                }
            }
            Ok(())
        }
    })?;
    let figures = clients::shared(work, |runtime, load, number| {
        let client = SharedClient { queue: Arc::clone(&queue), batch: work.batch };
        runtime.spawn(load.client(number, client))
    })?;
    SharedQueue::change(&queue, |queue| queue.closed = true);
    joined(server)?;
    Ok(figures)
}

#[derive(Default)]
struct SharedQueue {
    requests: Vec<shared_oneshot::Sender<()>>,
    waker: Option<Waker>,
    closed: bool,
}

impl SharedQueue {
    fn change(queue: &Mutex<Self>, change: impl FnOnce(&mut Self)) {
        let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut queue);
        let waker = queue.waker.take();
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn take(queue: &Mutex<Self>) -> Option<Vec<shared_oneshot::Sender<()>>> {
        std::future::poll_fn(|context| {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Poll::Ready(None);
            }
            if queue.requests.is_empty() {
                queue.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Some(mem::take(&mut queue.requests)))
        })
        .await
    }
}

struct SharedClient {
    queue: Arc<Mutex<SharedQueue>>,
    batch: usize,
}

impl SharedClient {
    fn send(&self) -> shared_oneshot::Receiver<()> {
        let (reply, answer) = shared_oneshot::channel();
        SharedQueue::change(&self.queue, |queue| queue.requests.push(reply));
        answer
    }
}

impl Client for SharedClient {
    async fn request(&mut self) -> Result<u64> {
        clients::batch(self.batch, || self.send()).await
    }
}
