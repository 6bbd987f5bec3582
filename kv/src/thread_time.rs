//! How much of the node's thread clients may take.
//!
//! All connections of a node live on its thread. Each of them pauses now and then, but with a few
//! hundred clients whose requests cost much and wait for nothing the node would still come too late
//! to its own turn: from one turn to the next each client would have a part. So their parts are
//! measured together. When they have taken [`SPELL`] and nobody else has had [`REST`] meanwhile,
//! all of them wait for a moment, and go on one after the other.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use quorate::Executor;
use quorate::rt::Instant;

use crate::queue::Queue;

/// So long clients have the thread. A write waits for that a few times on its way: for a turn of
/// the node, for the disk's answer to be heard, and until it is applied.
const SPELL: Duration = Duration::from_millis(5);

/// So long the others must have had it meanwhile. Most of the time they have: what clients ask for
/// is work for the node.
const REST: Duration = Duration::from_micros(500);

/// How long clients wait when they have had their spell. A sleep and not only a turn for others:
/// some runtimes look for what has arrived from the network and the disk when nothing is runnable,
/// or after many turns.
const PAUSE: Duration = Duration::from_millis(1);

/// The time of the node's thread, as clients share it.
pub(crate) struct ThreadTime<R> {
    rt: R,
    /// What clients have taken since the others had [`REST`].
    taken: Cell<Duration>,
    /// What the others have had since `taken` was zero.
    rested: Cell<Duration>,
    /// Since when a client has the thread; otherwise since when none has.
    since: Cell<Instant>,
    has_it: Cell<bool>,
    queue: Rc<Queue>,
}

impl<R: Executor> ThreadTime<R> {
    pub(crate) fn new(rt: R) -> Self {
        let since = Cell::new(rt.now());
        Self {
            rt,
            taken: Cell::default(),
            rested: Cell::default(),
            since,
            has_it: Cell::default(),
            queue: Rc::default(),
        }
    }

    /// Counts what this does for a client: the time from one pause of it to the next.
    pub(crate) async fn measured<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| self.measure(|| future.as_mut().poll(context))).await
    }

    /// Counts what this does for a client, on whosever turn.
    pub(crate) fn measure<T>(&self, work: impl FnOnce() -> T) -> T {
        self.count(true);
        let done = work();
        self.count(false);
        done
    }

    /// Counts up to now; from now on a client has the thread, or none.
    fn count(&self, has_it: bool) {
        let now = self.rt.now();
        let time = now.saturating_since(self.since.replace(now));
        if self.has_it.replace(has_it) {
            self.taken.set(self.taken.get() + time);
            return;
        }
        let rested = self.rested.get() + time;
        self.rested.set(rested);
        if rested >= REST {
            self.rested.set(Duration::ZERO);
            self.taken.set(Duration::ZERO);
        }
    }

    /// Within [`measured`](Self::measured): waits while the others are to have the thread. It is to
    /// be called again after each piece of work that may take as long as some 20 µs.
    pub(crate) async fn pass(&self) {
        self.count(true);
        if self.taken.get() < SPELL && self.queue.is_empty() {
            return;
        }
        let turn = self.queue.turn().await;
        while self.taken.get() >= SPELL {
            self.rt.sleep(PAUSE).await;
        }
        drop(turn);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::future::join_all;
    use quorate::sim::{Sim, Simulation};

    use super::*;

    const WORK: Duration = Duration::from_micros(100);

    /// In the simulation time passes in sleeps only: a sleep within `measured` is none of it, so
    /// work is told by hand.
    fn works(time: &ThreadTime<Sim>) {
        time.taken.set(time.taken.get() + WORK);
    }

    fn run(scenario: impl AsyncFnOnce(Sim) + 'static) {
        let (simulation, done) = (Simulation::new(1), Rc::new(Cell::new(false)));
        let of = Rc::clone(&done);
        let host = simulation.host("node");
        host.start(async move |rt| {
            scenario(rt).await;
            of.set(true);
        });
        assert!(simulation.run_until(Duration::from_secs(60), || done.get()));
    }

    #[test]
    fn clients_that_take_little_never_wait() {
        run(async |rt| {
            let time = ThreadTime::new(rt.clone());
            for _ in 0..1000 {
                let began = rt.now();
                time.measured(async {
                    time.pass().await;
                    works(&time);
                })
                .await;
                assert_eq!(rt.now(), began);
                rt.sleep(REST).await;
            }
        });
    }

    #[test]
    fn many_clients_pause_together_and_go_on_in_their_order() {
        run(async |rt| {
            let time = ThreadTime::new(rt.clone());
            let (began, done) = (rt.now(), RefCell::new(Vec::new()));
            let client = async |id: usize| {
                for _ in 0..10 {
                    time.pass().await;
                    works(&time);
                    done.borrow_mut().push(id);
                }
            };
            let clients = (0..100).map(|id| time.measured(client(id)));
            join_all(clients).await;
            // 100 ms of work, with a pause after each 5 ms.
            let took = rt.now() - began;
            assert!((19 * PAUSE..=21 * PAUSE).contains(&took), "{took:?}");
            // Five of them have had all before the first pause; the others take turns.
            for round in done.into_inner()[50..].chunks(95) {
                assert!(round.iter().copied().eq(5..100), "{round:?}");
            }
        });
    }
}
