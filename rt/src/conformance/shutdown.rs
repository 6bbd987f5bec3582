//! The end of a runtime: its tasks are dropped wherever they wait, and nothing of it is left.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use futures::future::join;

use super::files::{Scratch, create};
use super::net::{any_port, pattern};
use super::yield_now;
use crate::channel::{oneshot, watch};
use crate::{AsyncRuntime, File, Launch, Listener, ReadHalf, Stream, Task, TaskError, WriteHalf};

pub fn returns_the_value<R: AsyncRuntime>(launch: Launch) {
    let here = thread::current().id();
    let value = Rc::new(7); // Nothing has to be `Send`.
    let result = R::run(&launch, async |_| (Rc::clone(&value), thread::current().id())).unwrap();
    assert_eq!(result, (value, here));
}

/// Starts detached tasks that never end by themselves, each holding a share of `alive`.
struct Immortals<R> {
    rt: R,
    alive: Arc<()>,
}

impl<R: AsyncRuntime> Immortals<R> {
    /// Starts one and lets it come to where it waits.
    async fn start(&self, future: impl Future + 'static) {
        let alive = Arc::clone(&self.alive);
        let (started, has_started) = oneshot::channel();
        self.rt
            .spawn(async move {
                let _alive = alive;
                started.send(()).unwrap();
                future.await;
                pending::<()>().await;
            })
            .detach();
        has_started.await.unwrap();
        yield_now().await;
    }
}

pub fn drops_tasks_that_wait<R: AsyncRuntime>(launch: Launch) {
    let alive = Arc::new(());
    let (kept_for_its_waker, watched) = watch::channel(0);
    let (release, released) = mpsc::channel::<()>();
    let shared = Arc::clone(&alive);
    let started = R::run(&launch, async move |rt| {
        let immortals = Immortals { rt: rt.clone(), alive: shared };
        let scratch = Scratch::new(&rt).await;
        let mut listener = rt.listen(any_port()).await.unwrap();
        let address = listener.local_addr().unwrap();

        immortals.start(pending::<()>()).await;
        let inner = rt.clone();
        immortals.start(async move { inner.sleep(Duration::from_secs(3_600)).await }).await;
        let unpolled = rt.sleep(Duration::from_secs(3_600));
        immortals.start(async move { pending::<()>().then(|()| unpolled).await }).await;
        let (sender, receiver) = oneshot::channel::<()>();
        immortals.start(receiver).await;
        let mut watched = watched;
        immortals.start(async move { watched.changed().await }).await;

        for _ in 0..2 {
            let (connected, accepted) = join(rt.connect(address), listener.accept()).await;
            let (mut reader, writer) = connected.unwrap().split();
            let (unread, mut blocked) = accepted.unwrap().0.split();
            immortals
                .start(async move {
                    let _writer = writer;
                    reader.read(BytesMut::with_capacity(64)).await
                })
                .await;
            immortals
                .start(async move {
                    let _unread = unread;
                    // More than the kernel buffers.
                    blocked.write_all(vec![pattern(64 << 20)]).await
                })
                .await;
        }
        immortals.start(async move { listener.accept().await.map(drop) }).await;

        let file = Rc::new(create(&rt, &scratch.path("a"), b"x").await);
        for _ in 0..3 {
            let file = Rc::clone(&file);
            immortals
                .start(async move {
                    file.write_all_at(vec![pattern(1 << 20)], 0).await.unwrap();
                    file.sync_data().await.unwrap();
                    file.read_at(BytesMut::with_capacity(1 << 20), 0).await.0.unwrap();
                })
                .await;
        }
        let lock = rt.lock_file(&scratch.path("lock")).await.unwrap();
        immortals.start(async move { pending::<()>().map(|()| lock).await }).await;
        let blocking = rt.spawn_blocking(move || released.recv());
        immortals.start(blocking).await;

        release.send(()).unwrap();
        let started = Arc::strong_count(&immortals.alive) - 2;
        drop(sender);
        started
    });
    assert_eq!(started.unwrap(), 15);
    assert_eq!(Arc::strong_count(&alive), 1, "every future has been dropped");
    kept_for_its_waker.send(1); // Nobody waits any more.
}

pub fn drops_tasks_never_polled<R: AsyncRuntime>(launch: Launch) {
    let alive = Arc::new(());
    let shared = Arc::clone(&alive);
    R::run(&launch, async move |rt| {
        for _ in 0..1_000 {
            let alive = Arc::clone(&shared);
            rt.spawn(async move {
                pending::<()>().await;
                drop(alive);
            })
            .detach();
        }
    })
    .unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}

pub fn drops_tasks_that_know_each_other<R: AsyncRuntime>(launch: Launch) {
    let alive = Arc::new(());
    let shared = Arc::clone(&alive);
    R::run(&launch, async move |rt| {
        // Each is woken when another one is dropped, and drops the handle of yet another one.
        let owned: Rc<RefCell<Vec<R::Task<()>>>> = Rc::default();
        let mut before = None;
        for _ in 0..100 {
            let (sender, receiver) = oneshot::channel::<()>();
            let waits_for = before.replace(receiver);
            let (alive, owned_by_all) = (Arc::clone(&shared), Rc::clone(&owned));
            let task = rt.spawn(async move {
                let _alive = alive;
                let _owns = owned_by_all;
                if let Some(closed) = waits_for {
                    let _ended = closed.await;
                }
                pending::<()>().await;
                drop(sender);
            });
            owned.borrow_mut().push(task);
        }
        yield_now().await;
        drop(owned); // A circle: the tasks hold the list of their own handles.
    })
    .unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}

pub fn ends_with_blocking_work<R: AsyncRuntime>(launch: Launch) {
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    // Whether a runtime waits for such work is its own matter; so another thread ends it.
    let other = thread::spawn(move || {
        has_begun.recv().unwrap();
        release.send(()).unwrap();
    });
    let (ended, has_ended) = mpsc::channel();
    R::run(&launch, async move |rt| {
        rt.spawn_blocking(move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
            ended.send(()).unwrap();
        })
        .detach();
        rt.sleep(Duration::from_millis(1)).await;
    })
    .unwrap();
    other.join().unwrap();
    has_ended.recv().expect("what has begun runs to its end");
}

pub fn frees_what_tasks_held<R: AsyncRuntime>(launch: Launch) {
    let scratch = R::run(&launch, async |rt| Rc::new(Scratch::new(&rt).await)).unwrap();
    let mut address = any_port();
    for _ in 0..5 {
        let scratch = Rc::clone(&scratch);
        address = R::run(&launch, async move |rt| {
            let immortals = Immortals { rt: rt.clone(), alive: Arc::new(()) };
            // It is there, but for a runtime whose files end with it.
            rt.create_dir_all(&scratch.path("")).await.unwrap();
            let lock = rt.lock_file(&scratch.path("lock")).await.expect("the lock is free");
            let mut listener = rt.listen(address).await.expect("the port is free");
            let address = listener.local_addr().unwrap();
            let (connected, accepted) = join(rt.connect(address), listener.accept()).await;
            let (connected, (accepted, _)) = (connected.unwrap(), accepted.unwrap());
            immortals
                .start(async move {
                    let _unused = connected;
                    accepted.split().0.read(BytesMut::with_capacity(64)).await
                })
                .await;
            immortals
                .start(async move {
                    let _lock = lock;
                    listener.accept().await.map(drop)
                })
                .await;
            address
        })
        .unwrap();
    }
}

pub fn outlived_by_a_handle<R: AsyncRuntime>(launch: Launch) {
    let (polled, unpolled, mut asked) = R::run(&launch, async |rt| {
        let (started, has_started) = oneshot::channel();
        let polled = rt.spawn(async move {
            started.send(()).unwrap();
            pending::<()>().await;
        });
        has_started.await.unwrap();
        (polled, rt.spawn(pending::<()>()), rt.spawn(pending::<()>()))
    })
    .unwrap();
    drop(polled);
    unpolled.detach();
    let answer = asked.poll_unpin(&mut Context::from_waker(Waker::noop()));
    assert_eq!(answer, Poll::Ready(Err(TaskError::Cancelled)));
}

pub fn outlived_by_a_waker<R: AsyncRuntime>(launch: Launch) {
    let wakers = R::run(&launch, async |rt| {
        let (show, mut shown) = futures::channel::mpsc::unbounded::<Waker>();
        rt.spawn(async move {
            poll_fn(|context| {
                show.unbounded_send(context.waker().clone()).unwrap();
                Poll::<()>::Pending
            })
            .await;
        })
        .detach();
        let of_a_task = shown.recv().await.unwrap();
        let of_main = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
        [of_a_task, of_main]
    })
    .unwrap();
    for waker in &wakers {
        waker.wake_by_ref();
    }
    let waking = thread::spawn(move || wakers.into_iter().for_each(Waker::wake));
    waking.join().unwrap();
}

pub fn again_and_again<R: AsyncRuntime>(launch: Launch) {
    for round in 0..50 {
        let result = R::run(&launch, async |rt| {
            let task = rt.spawn(async move { round });
            rt.sleep(Duration::from_micros(100)).await;
            task.await
        });
        assert_eq!(result.unwrap(), Ok(round));
    }
}
