//! Closed-loop clients: each waits for the answer to one request before it sends the next. How many
//! requests a second that makes, how long they take, and what they cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use quorate::Executor;
use rustix::time::{ClockId, clock_gettime};

use crate::report::{Column, Unit};

/// Of requests within a process one of so many is timed: reading the clock for each would be a good
/// part of what is measured.
const TIMED: u64 = 16;

/// What a load measures.
pub(crate) fn columns() -> Vec<Column> {
    vec![
        Column { name: "writes/s", unit: Unit::Rate },
        Column { name: "p50", unit: Unit::Time },
        Column { name: "p99", unit: Unit::Time },
        Column { name: "CPU/write", unit: Unit::Time },
    ]
}

/// What a client does again and again.
pub(crate) trait Client {
    /// Does it once; how many requests that were. Where one fails, nothing is measured.
    async fn request(&mut self) -> Result<u64>;
}

/// What the clients and whoever measures have in common.
pub(crate) struct Load {
    phase: AtomicU8,
    /// Of so many requests of a client, one is timed.
    timed: u64,
    /// A client's requests that were answered. Each has a line of the cache to itself.
    answered: Box<[Padded]>,
}

#[repr(align(128))]
#[derive(Default)]
struct Padded(AtomicU64);

const WARM_UP: u8 = 0;
const MEASURE: u8 = 1;
const STOP: u8 = 2;

impl Load {
    pub(crate) fn new(clients: usize) -> Arc<Self> {
        Self::timing(clients, TIMED)
    }

    /// Of requests that take so long that reading the clock is nothing beside them.
    pub(crate) fn timing_all(clients: usize) -> Arc<Self> {
        Self::timing(clients, 1)
    }

    fn timing(clients: usize, timed: u64) -> Arc<Self> {
        let answered = (0..clients).map(|_| Padded::default()).collect();
        Arc::new(Self { phase: AtomicU8::new(WARM_UP), timed, answered })
    }

    fn answered(&self) -> u64 {
        self.answered.iter().map(|client| client.0.load(Ordering::Relaxed)).sum()
    }

    /// Runs the client `number` until the load ends; how long those of its requests took that were
    /// timed.
    pub(crate) async fn client(
        self: Arc<Self>,
        number: usize,
        mut client: impl Client,
    ) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        let mut answered = 0;
        for turn in number as u64.. {
            let phase = self.phase.load(Ordering::Relaxed);
            if phase == STOP {
                break;
            }
            if phase == MEASURE && turn % self.timed == 0 {
                let began = Instant::now();
                answered += client.request().await?;
                times.push(began.elapsed());
            } else {
                answered += client.request().await?;
            }
            self.answered[number].0.store(answered, Ordering::Relaxed);
        }
        Ok(times)
    }

    /// Measures clients that run. `sleep` waits on the runtime of whoever measures; `cpu` is what
    /// those who serve have had of the processors.
    pub(crate) async fn measure<F: Future>(
        self: Arc<Self>,
        duration: Duration,
        sleep: impl Fn(Duration) -> F,
        cpu: impl Fn() -> Duration,
    ) -> Meter {
        sleep(duration / 4).await;
        self.phase.store(MEASURE, Ordering::Relaxed);
        let (answered, before, began) = (self.answered(), cpu(), Instant::now());
        sleep(duration).await;
        let meter = Meter {
            answered: self.answered() - answered,
            cpu: cpu().saturating_sub(before),
            wall: began.elapsed(),
        };
        self.phase.store(STOP, Ordering::Relaxed);
        meter
    }
}

/// Measures so many clients, on this thread.
pub(crate) async fn on_this_thread<R: Executor, C: Client + 'static>(
    rt: &R,
    clients: usize,
    duration: Duration,
    client: impl Fn() -> C,
) -> Result<Vec<f64>> {
    let load = Load::new(clients);
    let clients: Vec<_> =
        (0..clients).map(|n| rt.spawn(Arc::clone(&load).client(n, client()))).collect();
    let meter = load.measure(duration, |duration| rt.sleep(duration), cpu_time).await;
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    Ok(meter.figures(times))
}

/// What was measured while the clients ran.
pub(crate) struct Meter {
    answered: u64,
    cpu: Duration,
    wall: Duration,
}

impl Meter {
    /// The figures for [`columns`], of all clients together.
    pub(crate) fn figures(&self, mut times: Vec<Duration>) -> Vec<f64> {
        times.sort_unstable();
        let at = |part: f64| {
            let place = (part * times.len().saturating_sub(1) as f64).round() as usize;
            times.get(place).map_or(f64::NAN, Duration::as_secs_f64)
        };
        vec![
            self.answered as f64 / self.wall.as_secs_f64(),
            at(0.5),
            at(0.99),
            self.cpu.as_secs_f64() / self.answered as f64,
        ]
    }
}

/// What this process has had of the processors.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
