//! What tasks wait for: a deadline, a part of a handshake, a name's addresses.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::{Either, select};
use quorate_rt::{Executor, Network, ReadHalf};

use crate::config::Timing;
use crate::handshake::Refusal;

/// Runs I/O to its end or to the deadline, whichever is first. It runs as a task, for nothing may
/// select over I/O: at the deadline the task is dropped, and with it the socket that it owns.
///
/// Errors: `TimedOut`, or `Other` where the task panicked.
pub(crate) async fn within<R, F, T>(rt: &R, limit: Duration, io: F) -> io::Result<T>
where
    R: Executor,
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let deadline = pin!(rt.sleep(limit));
    match select(rt.spawn(io), deadline).await {
        Either::Left((result, _)) => result.map_err(io::Error::other),
        Either::Right(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Reads into `rest` until `take` has what it needs; what comes after that stays.
///
/// Errors: those of reading; `UnexpectedEof` where the stream ends first.
pub(crate) async fn read_until<T>(
    read: &mut impl ReadHalf,
    rest: &mut BytesMut,
    take: impl Fn(&mut BytesMut) -> Result<Option<T>, Refusal>,
) -> io::Result<Result<T, Refusal>> {
    /// What is read at once: most of a handshake.
    const CHUNK_BYTES: usize = 512;
    loop {
        if let Some(taken) = take(rest).transpose() {
            return Ok(taken);
        }
        rest.reserve(CHUNK_BYTES);
        let (count, back) = read.read(std::mem::take(rest)).await;
        *rest = back;
        if count? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The addresses of `host:port`.
///
/// # Errors
/// `TimedOut`, and those of [`Network::resolve`].
pub(crate) async fn resolve<R: Network>(
    rt: &R,
    timing: &Timing,
    address: &str,
) -> io::Result<Vec<SocketAddr>> {
    let looking = {
        let (rt, address) = (rt.clone(), address.to_owned());
        async move { rt.resolve(&address).await }
    };
    within(rt, timing.lookup, looking).await.unwrap_or_else(|error| {
        let reason = format!("looking {address} up: {error} (after {:?})", timing.lookup);
        Err(io::Error::new(error.kind(), reason))
    })
}
