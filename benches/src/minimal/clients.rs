//! The clients of `minimal`: what they ask for at once, and those on another thread than what they
//! ask.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::Work;
use crate::closed_loop::{Load, cpu_time};

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

/// Measures clients on a thread of tokio's, as an ordinary service has them. `spawn` starts the
/// client of a number there.
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
