//! TCP sockets as every production backend makes them, with the same options on each.
//!
//! Sockets are made by plain system calls, which don't block. An accepted socket inherits the
//! options of its listener (on Linux), so nothing is left that could fail after an accept.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen as start, socket_with};
use rustix::net::{ipproto, sockopt};

/// How many connections the kernel keeps for a listener that is busy (its `somaxconn` may be
/// lower).
const BACKLOG: i32 = 1024;

/// After how long without a packet the kernel asks whether the other end is still there. Long
/// enough that idle connections cost nothing; below the minutes after which firewalls and address
/// translators forget a connection.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// The pause between two such questions without an answer.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How many of them may stay without an answer: more than one or two lost packets.
pub const KEEPALIVE_PROBES: u32 = 3;

/// After how long a connection breaks whose other end has vanished without a word.
pub const VANISHED: Duration = Duration::from_secs(
    KEEPALIVE_IDLE.as_secs() + KEEPALIVE_INTERVAL.as_secs() * KEEPALIVE_PROBES as u64,
);

/// Listens on `on`. On an IPv6 address that is unspecified (`[::]`) also IPv4 connections arrive,
/// whatever the system's default.
///
/// Connections that it accepts have `TCP_NODELAY`, keepalive, and `TCP_USER_TIMEOUT`: they break
/// when nothing of what was sent arrives for [`VANISHED`], for keepalive is silent as long as
/// something is on its way.
///
/// # Errors
/// `AddrInUse`, `AddrNotAvailable`, and those of sockets.
pub fn listen(on: SocketAddr) -> io::Result<TcpListener> {
    let socket = new(on)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if on.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    let limit = u32::try_from(VANISHED.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(&socket, limit)?;
    bind(&socket, &on)?;
    start(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Returns a socket to connect to `to` with, with `TCP_NODELAY` and keepalive.
///
/// # Errors
/// Those of sockets, as that there is no descriptor for one (`EMFILE`).
pub fn unconnected(to: SocketAddr) -> io::Result<TcpStream> {
    Ok(TcpStream::from(new(to)?))
}

fn new(like: SocketAddr) -> io::Result<OwnedFd> {
    let family = if like.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, flags) = (SocketType::STREAM, SocketFlags::CLOEXEC);
    let socket = socket_with(family, kind, flags, Some(ipproto::TCP))?;
    set_options(&socket)?;
    Ok(socket)
}

fn set_options(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    Ok(sockopt::set_socket_keepalive(socket, true)?)
}

/// Returns the address of the other end of an accepted connection. One that came by IPv4 to a
/// socket of IPv6 shows as its IPv4 address, and not as `::ffff:10.0.0.1`.
pub fn peer_address(seen: SocketAddr) -> SocketAddr {
    match seen.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, seen.port()),
        _ => seen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_and_connected_sockets_notice_that_the_other_end_has_vanished() {
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let to = listener.local_addr().unwrap();
        let connected = unconnected(to).unwrap();
        rustix::net::connect(&connected, &to).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        for socket in [&accepted, &connected] {
            assert!(sockopt::socket_keepalive(socket).unwrap());
            assert!(sockopt::tcp_nodelay(socket).unwrap());
            assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), KEEPALIVE_IDLE);
            assert_eq!(sockopt::tcp_keepintvl(socket).unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), KEEPALIVE_PROBES);
        }
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&accepted).unwrap()), VANISHED.as_millis());
    }

    #[test]
    fn an_ipv4_peer_of_a_dual_socket_shows_as_such() {
        let shown = |seen: &str| peer_address(seen.parse().unwrap()).to_string();
        assert_eq!(shown("[::ffff:10.0.0.1]:80"), "10.0.0.1:80");
        assert_eq!(shown("[::1]:80"), "[::1]:80");
        assert_eq!(shown("[fe80::7%3]:80"), "[fe80::7%3]:80");
        assert_eq!(shown("10.0.0.1:80"), "10.0.0.1:80");
    }
}
