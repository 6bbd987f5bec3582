//! Opening a connection to one of several addresses.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;

use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use quorate_rt::Network;

use crate::config::Timing;
use crate::wait::within;

/// How many addresses of a name are tried: more than a host has, and no more sockets than a name
/// server may cost.
pub(crate) const MOST_ADDRESSES: usize = 16;

/// Puts addresses into the order in which they are tried (RFC 8305, section 4): the families
/// alternate, beginning with that of the first, so that one that leads nowhere costs one attempt.
pub(crate) fn in_order(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_first = |address: &&SocketAddr| address.is_ipv6() == found[0].is_ipv6();
    let mut firsts = found.iter().filter(is_first);
    let mut others = found.iter().filter(|address| !is_first(address));
    let mut order = Vec::with_capacity(found.len());
    while order.len() < found.len() {
        order.extend(firsts.next().into_iter().chain(others.next()));
    }
    order.truncate(MOST_ADDRESSES);
    order
}

/// Connects to one of the addresses, and says to which (RFC 8305, section 5): the attempts begin
/// one by one, each when the one before has failed or a moment has passed. The first that succeeds
/// wins, and the others are dropped. So an address that swallows packets hides no other.
///
/// # Errors
/// That of the only address; otherwise one that names them all.
pub(crate) async fn open<R: Network>(
    rt: &R,
    timing: &Timing,
    addresses: &[SocketAddr],
) -> io::Result<(R::Stream, SocketAddr)> {
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    loop {
        attempts.extend(waiting.next().map(|to| attempt(rt, timing, *to)));
        let pause = match waiting.len() {
            0 => Either::Left(pending()),
            _ => Either::Right(rt.sleep(timing.stagger)),
        };
        match select(attempts.next(), pin!(pause)).await {
            Either::Left((Some((to, Ok(stream))), _)) => return Ok((stream, to)),
            Either::Left((Some((to, Err(error))), _)) => failed.push((to, error)),
            Either::Left((None, _)) => return Err(all_failed(failed)),
            Either::Right(_) => {}
        }
    }
}

/// In a task of its own, which ends with the future.
async fn attempt<R: Network>(
    rt: &R,
    timing: &Timing,
    to: SocketAddr,
) -> (SocketAddr, io::Result<R::Stream>) {
    let connecting = {
        let rt = rt.clone();
        async move { rt.connect(to).await }
    };
    (to, within(rt, timing.connect, connecting).await.flatten())
}

fn all_failed(mut failed: Vec<(SocketAddr, io::Error)>) -> io::Error {
    let Some((_, last)) = failed.last() else { return io::ErrorKind::NotFound.into() };
    if failed.len() > 1 {
        let each = failed.iter().map(|(to, error)| format!("{to}: {error}"));
        return io::Error::new(last.kind(), each.collect::<Vec<_>>().join("; "));
    }
    failed.remove(0).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate_beginning_with_the_first() {
        let order = |found: &[&str]| {
            let found: Vec<SocketAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
            in_order(&found).iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        let (six, four) = (["[::1]:1", "[::2]:1", "[::3]:1"], ["10.0.0.1:1", "10.0.0.2:1"]);
        let found = [&six[..], &four[..]].concat();
        assert_eq!(order(&found), [six[0], four[0], six[1], four[1], six[2]]);
        assert_eq!(order(&[four[0], six[0], six[1]]), [four[0], six[0], six[1]]);
        assert_eq!(order(&four), four);
        assert_eq!(order(&[]), [""; 0]);
        let many: Vec<String> = (1..=100).map(|port| format!("10.0.0.1:{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(order(&many), many[..MOST_ADDRESSES]);
    }
}
