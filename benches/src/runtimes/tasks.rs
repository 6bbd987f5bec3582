//! Tasks, timers and wake-ups.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use futures::task::AtomicWaker;
use quorate::rt::channel::Signal;
use quorate::rt::yield_now;
use quorate::{Executor, Launch};

use super::measure;
use crate::closed_loop::cpu_time;

/// How many operations are measured at once, where they take less than reading the clock may.
const BATCH: usize = 1024;

pub(super) async fn switch<R: Executor>(rt: &R, duration: Duration) -> Result<Vec<f64>> {
    measure(duration, BATCH, async || {
        let tasks = [(); 2].map(|()| {
            rt.spawn(async {
                for _ in 0..BATCH / 2 {
                    yield_now().await;
                }
            })
        });
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn spawn<R: Executor>(rt: &R, duration: Duration) -> Result<Vec<f64>> {
    measure(duration, BATCH, async || {
        for _ in 0..BATCH {
            rt.spawn(async {}).await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn block<R: Executor>(rt: &R, duration: Duration) -> Result<Vec<f64>> {
    measure(duration, 16, async || {
        for _ in 0..16 {
            rt.spawn_blocking(|| ()).await?;
        }
        Ok(())
    })
    .await
}

pub(super) async fn timer<R: Executor>(rt: &R, duration: Duration) -> Result<Vec<f64>> {
    measure(duration, BATCH, async || {
        for _ in 0..BATCH {
            let mut timer = pin!(rt.sleep(Duration::from_secs(1)));
            let is_over = poll_fn(|context| Poll::Ready(timer.as_mut().poll(context).is_ready()));
            ensure!(!is_over.await, "a timer ends at once");
        }
        // The backend gets to what it has to do for them.
        yield_now().await;
        Ok(())
    })
    .await
}

/// How late, and what a timer costs, with the thread asleep in between.
pub(super) async fn late<R: Executor>(rt: &R, duration: Duration) -> Result<Vec<f64>> {
    const WAIT: Duration = Duration::from_millis(2);
    let cpu_before = cpu_time();
    let (mut late, mut count) = (Duration::ZERO, 0);
    let end = rt.now() + duration;
    while count == 0 || rt.now() < end {
        let deadline = rt.now() + WAIT;
        rt.sleep_until(deadline).await;
        late += rt.now() - deadline;
        count += 1;
    }
    let cpu = cpu_time().saturating_sub(cpu_before);
    Ok([late, cpu].map(|time| time.as_secs_f64() / f64::from(count)).into())
}

pub(super) async fn wake<R: Executor>(rt: &R, duration: Duration) -> Result<Vec<f64>> {
    let signals = Rc::new([Signal::default(), Signal::default()]);
    // Cancelled when this returns.
    let _other = rt.spawn({
        let signals = Rc::clone(&signals);
        async move {
            loop {
                signals[0].wait().await;
                signals[1].raise();
            }
        }
    });
    measure(duration, BATCH, async || {
        for _ in 0..BATCH / 2 {
            signals[0].raise();
            signals[1].wait().await;
        }
        Ok(())
    })
    .await
}

pub(super) async fn wake_thread<R: Executor>(
    launch: Launch,
    duration: Duration,
) -> Result<Vec<f64>> {
    let signals = Arc::new([SharedSignal::default(), SharedSignal::default()]);
    let stop = Arc::new(AtomicBool::new(false));
    let other = R::launch(launch, {
        let (signals, stop) = (Arc::clone(&signals), Arc::clone(&stop));
        async move |_: R| {
            while !stop.load(Ordering::Relaxed) {
                signals[0].wait().await;
                signals[1].raise();
            }
        }
    })?;
    let figures = measure(duration, 64, async || {
        for _ in 0..32 {
            signals[0].raise();
            signals[1].wait().await;
        }
        Ok(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    signals[0].raise();
    other.join().map_err(|_| anyhow!("a thread has panicked"))??;
    figures
}

/// A [`Signal`] for another thread.
#[derive(Default)]
struct SharedSignal {
    raised: AtomicBool,
    waker: AtomicWaker,
}

impl SharedSignal {
    fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.waker.wake();
    }

    async fn wait(&self) {
        poll_fn(|context| {
            self.waker.register(context.waker());
            match self.raised.swap(false, Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}
