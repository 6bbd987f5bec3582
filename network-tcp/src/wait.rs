//! What tasks wait for: a signal, a deadline, a name's addresses.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use quorate_rt::AsyncRuntime;

/// "Look again": set by anyone on this thread, waited for by one task at a time. Setting it twice is setting it once.
#[derive(Default)]
pub(crate) struct Signal {
    set: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    pub(crate) fn set(&self) {
        self.set.set(true);
        let waiting = self.waiting.take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Waits until it is set, and takes it back. Dropping the future loses nothing.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            if self.set.take() {
                return Poll::Ready(());
            }
            let _before = self.waiting.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Runs I/O to its end or to the deadline, whichever is first. It runs as a task, for nothing may select over I/O:
/// at the deadline the task is dropped, and with it the socket that it owns.
///
/// Errors: `TimedOut`, or `Other` where the task panicked.
pub(crate) async fn within<R, F, T>(rt: &R, limit: Duration, io: F) -> io::Result<T>
where
    R: AsyncRuntime,
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let deadline = pin!(rt.sleep(limit));
    match select(rt.spawn(io), deadline).await {
        Either::Left((result, _)) => result.map_err(io::Error::other),
        Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The addresses of `host:port`. Only a name costs a thread.
pub(crate) async fn resolve<R: AsyncRuntime>(rt: &R, address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(literal) = address.parse() {
        return Ok(vec![literal]);
    }
    let name = address.to_owned();
    let found = rt.spawn_blocking(move || name.to_socket_addrs().map(|found| found.collect()));
    let found: Vec<_> = found.await.map_err(io::Error::other)??;
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address")));
    }
    Ok(found)
}
