//! The clients of `minimal`: on the thread of what they ask, or on another.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use quorate::AsyncRuntime;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::Work;
use crate::closed_loop::{Client, Load, cpu_time};

/// Runs `count` requests at once and waits for all of them; how many that were.
pub(super) async fn batch<T, E, F>(count: usize, request: impl Fn() -> F) -> Result<u64>
where
    F: Future<Output = Result<T, E>>,
    anyhow::Error: From<E>,
{
    if count == 1 {
        request().await?;
    } else {
        let requests: Vec<F> = (0..count).map(|_| request()).collect();
        for request in requests {
            request.await?;
        }
    }
    Ok(count as u64)
}

/// Measures clients on this thread.
pub(super) async fn local<R: AsyncRuntime, C: Client + 'static>(
    rt: &R,
    work: Work,
    client: impl Fn() -> C,
) -> Result<Vec<f64>> {
    let load = Load::new(work.clients);
    let clients: Vec<_> =
        (0..work.clients).map(|n| rt.spawn(Arc::clone(&load).client(n, client()))).collect();
    let meter = load.measure(work.duration, |duration| rt.sleep(duration), cpu_time).await;
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    Ok(meter.figures(times))
}

/// Measures clients on a thread of tokio's, as an ordinary service has them. `spawn` starts the client of a number there.
pub(super) fn shared(
    work: Work,
    spawn: impl Fn(&Runtime, Arc<Load>, usize) -> JoinHandle<Result<Vec<Duration>>>,
) -> Result<Vec<f64>> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let load = Load::new(work.clients);
    let clients: Vec<_> =
        (0..work.clients).map(|number| spawn(&runtime, Arc::clone(&load), number)).collect();
    runtime.block_on(async {
        let meter = load.measure(work.duration, tokio::time::sleep, cpu_time).await;
        let mut times = Vec::new();
        for client in clients {
            times.extend(client.await??);
        }
        Ok(meter.figures(times))
    })
}

/// What a thread gave, once it has ended.
pub(super) fn joined<T>(thread: thread::JoinHandle<io::Result<Result<T>>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread has panicked"))??
}
