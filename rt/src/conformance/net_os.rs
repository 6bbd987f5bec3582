//! TCP with a peer that uses the operating system directly, to do what no runtime would: vanish.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket, sockopt};

use super::net::{any_port, pattern};
use crate::sockets::KEEPALIVE_IDLE;
use crate::{Listener, Network, ReadHalf, Stream, WriteHalf};

/// A socket that has a port and doesn't listen on it.
pub(super) struct BoundSocket {
    pub(super) address: SocketAddr,
    socket: OwnedFd,
}

pub(super) fn bound_socket() -> BoundSocket {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &any_port()).unwrap();
    let address = getsockname(&socket).unwrap().try_into().unwrap();
    BoundSocket { address, socket }
}

/// Closes with a reset instead of an end of stream, as a machine does that has been restarted.
fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// A connection that the runtime accepted, and its other end.
async fn pair<R: Network>(rt: &R) -> (R::Stream, TcpStream) {
    let mut listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = rt.spawn_blocking(move || TcpStream::connect(address).unwrap());
    let (stream, _) = listener.accept().await.unwrap();
    (stream, peer.await.unwrap())
}

fn is_of_a_vanished_peer(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

pub async fn reset_under_a_read<R: Network>(rt: R) {
    let (stream, peer) = pair(&rt).await;
    let (mut reader, mut writer) = stream.split();
    let reading = rt.spawn(async move { reader.read(BytesMut::with_capacity(64)).await.0 });
    super::yield_now().await;
    reset(peer);
    assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    let error = writer.write_all(vec![Bytes::from_static(b"hello?")]).await.unwrap_err();
    assert!(is_of_a_vanished_peer(&error), "{error:?}");
}

pub async fn reset_before_a_read<R: Network>(rt: R) {
    let (stream, peer) = pair(&rt).await;
    reset(peer);
    let (mut reader, _writer) = stream.split();
    let (result, buffer) = reader.read(BytesMut::with_capacity(64)).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(buffer.is_empty() && buffer.capacity() >= 64, "the buffer comes back all the same");
}

pub async fn reset_under_a_write<R: Network>(rt: R) {
    let (stream, mut peer) = pair(&rt).await;
    let (_reader, mut writer) = stream.split();
    // More than the kernel buffers, so that it waits for the peer to read.
    let writing = rt.spawn(async move { writer.write_all(vec![pattern(64 << 20)]).await });
    let peer = rt
        .spawn_blocking(move || {
            peer.read_exact(&mut [0]).unwrap();
            peer
        })
        .await
        .unwrap();
    reset(peer);
    let error = writing.await.unwrap().unwrap_err();
    assert!(is_of_a_vanished_peer(&error), "{error:?}");
}

pub async fn closed_before_a_write<R: Network>(rt: R) {
    let (stream, peer) = pair(&rt).await;
    let (_reader, mut writer) = stream.split();
    drop(peer); // It would still answer the first bytes, with a reset.
    let error = loop {
        if let Err(error) = writer.write_all(vec![pattern(64 * 1024)]).await {
            break error;
        }
        super::yield_now().await;
    };
    assert!(is_of_a_vanished_peer(&error), "{error:?}");
}

pub async fn reset_before_accept<R: Network>(rt: R) {
    let mut listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    rt.spawn_blocking(move || reset(TcpStream::connect(address).unwrap())).await.unwrap();
    // Linux hands the dead connection out; whether an error comes of it here or later is the
    // backend's matter.
    if let Ok((stream, _)) = listener.accept().await {
        let (result, _) = stream.split().0.read(BytesMut::with_capacity(64)).await;
        assert!(is_of_a_vanished_peer(&result.unwrap_err()));
    }
    let alive = rt.spawn_blocking(move || TcpStream::connect(address).unwrap());
    listener.accept().await.expect("the listener goes on");
    alive.await.unwrap();
}

pub async fn connects_to_a_foreign_listener<R: Network>(rt: R) {
    let listener = TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    let (mut reader, mut writer) = rt.connect(address).await.unwrap().split();
    let peer = rt.spawn_blocking(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        reset(stream);
        got
    });
    writer.write_all(vec![Bytes::from_static(b"hello")]).await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(peer.await.unwrap(), "hello");
    let (result, _) = reader.read(BytesMut::with_capacity(64)).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// A socket as the kernel shows it in `/proc/net/tcp`.
struct Shown {
    local_port: u16,
    remote_port: u16,
    is_connecting: bool,
    /// Which timer runs, and how long it still runs, in hundredths of a second.
    timer: (u8, u64),
}

fn shown_sockets() -> Vec<Shown> {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let port = |address: &str| u16::try_from(hex(address.rsplit_once(':').unwrap().1)).unwrap();
    let shown = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (timer, left) = fields[5].split_once(':').unwrap();
        Shown {
            local_port: port(fields[1]),
            remote_port: port(fields[2]),
            is_connecting: hex(fields[3]) == 2,
            timer: (u8::try_from(hex(timer)).unwrap(), hex(left)),
        }
    };
    fs::read_to_string("/proc/self/net/tcp").unwrap().lines().skip(1).map(shown).collect()
}

pub async fn vanished_peers_are_noticed<R: Network>(rt: R) {
    const KEEPALIVE_TIMER: u8 = 2;
    let mut listener = rt.listen(any_port()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connected, accepted) =
        futures::future::join(rt.connect(listener.local_addr().unwrap()), listener.accept()).await;
    let _connected = connected.unwrap();
    let (_accepted, peer) = accepted.unwrap();
    let ends = [(port, peer.port()), (peer.port(), port)];
    for (local, remote) in ends {
        let shown = shown_sockets();
        let socket = shown.iter().find(|one| (one.local_port, one.remote_port) == (local, remote));
        let (timer, left) = socket.expect("it is connected").timer;
        assert_eq!(timer, KEEPALIVE_TIMER, "of {local} to {remote}");
        assert!(left > 0 && left <= KEEPALIVE_IDLE.as_secs() * 100, "{left}");
    }
}

pub async fn connecting_ends_with_its_task<R: Network>(rt: R) {
    // One that waits to be accepted is all that this listener keeps; further packets are dropped.
    let bound = bound_socket();
    rustix::net::listen(&bound.socket, 0).unwrap();
    let address = bound.address;
    let _filler = rt.spawn_blocking(move || TcpStream::connect(address).unwrap()).await.unwrap();
    let is_connecting = || {
        let to_it = |one: &Shown| one.remote_port == address.port() && one.is_connecting;
        shown_sockets().iter().any(to_it)
    };
    let connecting = rt.spawn({
        let rt = rt.clone();
        async move { rt.connect(address).await.map(drop) }
    });
    // The kernel tells nobody how far it is.
    while !is_connecting() {
        rt.sleep(Duration::from_millis(1)).await;
    }
    drop(connecting);
    while is_connecting() {
        rt.sleep(Duration::from_millis(1)).await;
    }
}
