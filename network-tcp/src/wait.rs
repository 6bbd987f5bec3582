//! What tasks wait for: a deadline, a name's addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use quorate_rt::AsyncRuntime;

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
