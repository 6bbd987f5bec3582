//! TCP between two ends that are both on the runtime.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::{join, join_all};

use super::{guard, yield_now};
use crate::channel::oneshot;
use crate::{Lines, Listener, Network, ReadHalf, Stream, Task, WriteHalf};

type Reader<R> = <<R as Network>::Stream as Stream>::ReadHalf;
type Writer<R> = <<R as Network>::Stream as Stream>::WriteHalf;
type Halves<R> = (Reader<R>, Writer<R>);

pub(super) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The two ends of a connection: who connected, and who accepted.
async fn pair<R: Network>(rt: &R) -> (Halves<R>, Halves<R>) {
    let mut listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = join(rt.connect(address), listener.accept()).await;
    (connected.unwrap().split(), accepted.unwrap().0.split())
}

/// Reads until there are at least `len` bytes.
async fn read_until(reader: &mut impl ReadHalf, len: usize) -> BytesMut {
    let mut got = BytesMut::with_capacity(len);
    while got.len() < len {
        let (result, back) = reader.read(got).await;
        assert_ne!(result.unwrap(), 0, "the stream ends early, after {} bytes", back.len());
        got = back;
    }
    got
}

/// Reads to the end of the stream.
async fn read_to_end(reader: &mut impl ReadHalf) -> BytesMut {
    let mut got = BytesMut::new();
    loop {
        got.reserve(64 * 1024);
        let (result, back) = reader.read(got).await;
        got = back;
        if result.unwrap() == 0 {
            return got;
        }
    }
}

fn text(text: &'static str) -> Vec<Bytes> {
    vec![Bytes::from_static(text.as_bytes())]
}

/// Bytes that differ by position, so that a lost or swapped piece shows.
pub(super) fn pattern(len: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(len + 8);
    for number in 0..len.div_ceil(8) as u64 {
        bytes.put_u64(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
    bytes.truncate(len);
    bytes.freeze()
}

/// Cuts it into buffers of many lengths, some of them empty.
pub(super) fn cut(mut whole: Bytes, pieces: usize) -> Vec<Bytes> {
    let usual = whole.len() / pieces;
    let mut cut: Vec<Bytes> =
        (1..pieces).map(|n| whole.split_to(if n % 7 == 0 { 0 } else { usual - n % 3 })).collect();
    cut.push(whole);
    cut
}

pub async fn echoes<R: Network>(rt: R) {
    let mut listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_ne!(address.port(), 0);
    let server = rt.spawn(async move {
        let (stream, peer) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = stream.split();
        loop {
            let (result, got) = reader.read(BytesMut::with_capacity(1024)).await;
            if result.unwrap() == 0 {
                return peer;
            }
            writer.write_all(vec![got.freeze()]).await.unwrap();
        }
    });
    let (mut reader, mut writer) = rt.connect(address).await.unwrap().split();
    for _ in 0..1_000 {
        writer.write_all(text("ping")).await.unwrap();
        assert_eq!(read_until(&mut reader, 4).await, "ping");
    }
    writer.shutdown().await.unwrap();
    let peer = server.await.unwrap();
    assert!(peer.ip().is_loopback() && peer.port() != 0, "the address of the other end: {peer}");
}

pub async fn ipv6<R: Network>(rt: R) {
    let Ok(mut listener) = rt.listen(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))).await else {
        return super::skipped("net::ipv6", "this machine has no IPv6");
    };
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = join(rt.connect(address), listener.accept()).await;
    let (stream, peer) = accepted.unwrap();
    assert!(peer.is_ipv6());
    let (mut reader, _writer) = stream.split();
    let (_reader, mut writer) = connected.unwrap().split();
    writer.write_all(text("six")).await.unwrap();
    assert_eq!(read_until(&mut reader, 3).await, "six");
}

pub async fn both_families<R: Network>(rt: R) {
    let Ok(mut listener) = rt.listen(SocketAddr::from(([0; 8], 0))).await else {
        return super::skipped("net::both_families", "this machine has no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    let loopbacks = [SocketAddr::from(([127, 0, 0, 1], port)), "[::1]:0".parse().unwrap()];
    for mut address in loopbacks {
        address.set_port(port);
        let (connected, accepted) = join(rt.connect(address), listener.accept()).await;
        connected.unwrap();
        assert_eq!(accepted.unwrap().1.ip(), address.ip(), "no IPv4 address in one of IPv6");
    }
}

pub async fn short_reads<R: Network>(rt: R) {
    let ((_, mut writer), (mut reader, _)) = pair(&rt).await;
    writer.write_all(text("abc")).await.unwrap();
    let (result, got) = reader.read(BytesMut::with_capacity(4096)).await;
    let read = result.unwrap();
    assert!((1..=3).contains(&read), "it does not wait for the buffer to fill");
    assert_eq!(got, "abc".as_bytes()[..read]);
}

pub async fn lines<R: Network>(rt: R) {
    let ((_, mut writer), (reader, _)) = pair(&rt).await;
    let reading = rt.spawn(async move {
        let mut lines = Lines::new(reader, 40_000);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await? {
            read.push(line);
        }
        io::Result::Ok(read)
    });
    let long = "x".repeat(40_000);
    let first = format!("one\n{long}\r\n\nla");
    writer.write_all(vec![Bytes::from(first)]).await.unwrap();
    writer.write_all(text("st")).await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap(), ["one", &long, "", "last"]);
}

pub async fn reads_append<R: Network>(rt: R) {
    let ((_, mut writer), (mut reader, _)) = pair(&rt).await;
    writer.write_all(text("0123456789")).await.unwrap();
    let mut into = BytesMut::with_capacity(7);
    into.put_slice(b"abc");
    let (capacity, place) = (into.capacity(), into.as_ptr());
    while into.len() < capacity {
        let (result, back) = reader.read(into).await;
        let read = result.unwrap();
        assert!(read > 0);
        into = back;
        assert_eq!(into.capacity(), capacity, "a buffer neither grows nor shrinks");
        assert_eq!(into.as_ptr(), place, "nor moves");
    }
    assert_eq!(into, "abc0123456789".as_bytes()[..capacity]);

    // A buffer that is a part of a larger one.
    let mut whole = BytesMut::with_capacity(16);
    whole.put_slice(b"left|right");
    let right = whole.split_off(5);
    let (result, right) = reader.read(right).await;
    let read = result.unwrap();
    assert_eq!(whole, "left|");
    assert_eq!(right[..5], *b"right");
    assert_eq!(right.len(), 5 + read);
}

pub async fn reads_without_room<R: Network>(rt: R) {
    let ((_, mut writer), (mut reader, _)) = pair(&rt).await;
    writer.write_all(text("x")).await.unwrap();
    let mut full = BytesMut::with_capacity(4);
    full.put_bytes(b'f', full.capacity());
    let before = full.clone();
    let (result, full) = reader.read(full).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(full, before);
    let (result, empty) = reader.read(BytesMut::new()).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(empty.capacity(), 0);
    assert_eq!(read_until(&mut reader, 1).await, "x", "the stream is as it was");
}

pub async fn half_close<R: Network>(rt: R) {
    let ((mut reader, mut writer), (mut peer_reader, mut peer_writer)) = pair(&rt).await;
    writer.write_all(text("question")).await.unwrap();
    writer.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut peer_reader).await, "question");
    assert_eq!(read_to_end(&mut peer_reader).await, "", "the end stays the end");
    assert!(writer.write_all(text("more")).await.is_err());

    let answer = pattern(1 << 20);
    let expected = answer.clone();
    let answering = rt.spawn(async move {
        peer_writer.write_all(vec![answer]).await.unwrap();
        peer_writer.shutdown().await.unwrap();
    });
    assert!(read_to_end(&mut reader).await == expected, "reading goes on after the own end");
    answering.await.unwrap();
}

pub async fn end_of_a_stream_that_is_waited_for<R: Network>(rt: R) {
    let ((_reader, mut writer), (mut peer_reader, _peer_writer)) = pair(&rt).await;
    let waiting = rt.spawn(async move { read_to_end(&mut peer_reader).await });
    yield_now().await;
    writer.shutdown().await.unwrap();
    assert_eq!(waiting.await.unwrap(), "");
}

pub async fn empty_writes<R: Network>(rt: R) {
    let ((_reader, mut writer), (mut peer_reader, _peer_writer)) = pair(&rt).await;
    writer.write_all(Vec::new()).await.unwrap();
    writer.write_all(vec![Bytes::new(); 3]).await.unwrap();
    writer.write_all(vec![Bytes::new(), Bytes::from_static(b"x"), Bytes::new()]).await.unwrap();
    assert_eq!(read_until(&mut peer_reader, 1).await, "x");
}

/// Sends it both ways at once, in `pieces` buffers.
async fn exchange<R: Network>(rt: R, len: usize, pieces: usize) {
    let (one, other) = pair(&rt).await;
    let whole = pattern(len);
    let ends = [one, other].map(|(mut reader, mut writer)| {
        let (pieces, whole) = (cut(whole.clone(), pieces), whole.clone());
        let writing = rt.spawn(async move {
            writer.write_all(pieces).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        rt.spawn(async move {
            let got = read_to_end(&mut reader).await;
            assert_eq!(got.len(), whole.len());
            assert!(got == whole, "every byte in its place");
            writing.await.unwrap();
        })
    });
    for end in ends {
        end.await.unwrap();
    }
}

pub async fn writes_larger_than_the_socket_buffer<R: Network>(rt: R) {
    exchange(rt, 16 << 20, 1).await;
}

pub async fn writes_of_many_buffers<R: Network>(rt: R) {
    exchange(rt.clone(), 8 << 20, 100).await;
    // More than one gathered write takes (IOV_MAX is 1024).
    exchange(rt.clone(), 20_000, 5_000).await;
    exchange(rt, 8 << 20, 5_000).await;
}

pub async fn without_the_reading_half<R: Network>(rt: R) {
    let ((reader, mut writer), (mut peer_reader, _peer_writer)) = pair(&rt).await;
    drop(reader);
    for _ in 0..100 {
        writer.write_all(text("still here")).await.unwrap();
        assert_eq!(read_until(&mut peer_reader, 10).await, "still here");
    }
    drop(writer);
    assert_eq!(read_to_end(&mut peer_reader).await, "");
}

pub async fn without_the_writing_half<R: Network>(rt: R) {
    let ((mut reader, writer), (mut peer_reader, mut peer_writer)) = pair(&rt).await;
    let ended = Rc::new(Cell::new(false));
    let waiting = rt.spawn({
        let ended = Rc::clone(&ended);
        async move {
            let rest = read_to_end(&mut peer_reader).await;
            ended.set(true);
            rest
        }
    });
    drop(writer);
    for _ in 0..100 {
        peer_writer.write_all(text("still here")).await.unwrap();
        assert_eq!(read_until(&mut reader, 10).await, "still here");
    }
    assert!(!ended.get(), "no end of stream while the other half lives");
    drop(reader);
    assert_eq!(waiting.await.unwrap(), "");
}

pub async fn closed_unsplit<R: Network>(rt: R) {
    let mut listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connected, accepted) = join(rt.connect(address), listener.accept()).await;
    drop(connected.unwrap());
    assert_eq!(read_to_end(&mut accepted.unwrap().0.split().0).await, "");
}

pub async fn closed_under_a_cancelled_read<R: Network>(rt: R) {
    let ((mut reader, writer), (mut peer_reader, _peer_writer)) = pair(&rt).await;
    let (guard, dropped) = guard();
    let reading = rt.spawn(async move {
        let _guard = guard;
        reader.read(BytesMut::with_capacity(1024)).await
    });
    yield_now().await;
    drop(writer);
    drop(reading);
    dropped.await.unwrap();
    assert_eq!(read_to_end(&mut peer_reader).await, "", "a read under way does not keep it open");
}

pub async fn closed_under_a_cancelled_write<R: Network>(rt: R) {
    let ((reader, mut writer), (mut peer_reader, _peer_writer)) = pair(&rt).await;
    let (guard, dropped) = guard();
    let (begun, has_begun) = oneshot::channel();
    let writing = rt.spawn(async move {
        let _guard = guard;
        begun.send(()).unwrap();
        writer.write_all(vec![pattern(64 << 20)]).await // More than the kernel buffers.
    });
    has_begun.await.unwrap();
    read_until(&mut peer_reader, 1).await;
    drop(reader);
    drop(writing);
    dropped.await.unwrap();
    assert!(read_to_end(&mut peer_reader).await.len() < 64 << 20);
}

pub async fn refused<R: Network>(rt: R) {
    // Bound and not listening: nobody else gets that port, and nobody answers on it.
    let bound = super::net_os::bound_socket();
    let error = rt.connect(bound.address).await.err().expect("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

pub async fn port_in_use<R: Network>(rt: R) {
    let listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = rt.listen(address).await.err().expect("another one listens");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    drop(listener);
    rt.listen(address).await.expect("free again");
}

pub async fn address_of_another_machine<R: Network>(rt: R) {
    // 192.0.2.0/24 is for documentation.
    let error = rt.listen(SocketAddr::from(([192, 0, 2, 1], 0))).await.err().expect("not ours");
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

pub async fn listens_again_after_connections<R: Network>(rt: R) {
    let mut address = any_port();
    for _ in 0..3 {
        let mut listener = rt.listen(address).await.unwrap();
        address = listener.local_addr().unwrap();
        let (connected, accepted) = join(rt.connect(address), listener.accept()).await;
        let (mut reader, _writer) = connected.unwrap().split();
        drop(accepted); // Who closes first is left with a socket in TIME_WAIT on that port.
        assert_eq!(read_to_end(&mut reader).await, "");
    }
}

pub async fn listens_again_after_a_cancelled_accept<R: Network>(rt: R) {
    let mut address = any_port();
    for _ in 0..10 {
        let mut listener = rt.listen(address).await.unwrap();
        address = listener.local_addr().unwrap();
        let (guard, dropped) = guard();
        let (begun, has_begun) = oneshot::channel();
        let accepting = rt.spawn(async move {
            let _guard = guard;
            begun.send(()).unwrap();
            let _nobody = listener.accept().await;
        });
        has_begun.await.unwrap();
        yield_now().await;
        drop(accepting);
        dropped.await.unwrap();
    }
}

pub async fn connections_wait_for_accept<R: Network>(rt: R) {
    const CONNECTIONS: usize = 200;
    let mut listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connected = Vec::new();
    for _ in 0..CONNECTIONS {
        connected.push(rt.connect(address).await.unwrap());
    }
    for _ in 0..CONNECTIONS {
        listener.accept().await.unwrap();
    }
}

pub async fn many_connections<R: Network>(rt: R) {
    const CONNECTIONS: usize = 200;
    let mut listener = rt.listen(any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = rt.spawn({
        let rt = rt.clone();
        async move {
            for _ in 0..CONNECTIONS {
                let (mut reader, mut writer) = listener.accept().await.unwrap().0.split();
                rt.spawn(async move {
                    let got = read_to_end(&mut reader).await;
                    writer.write_all(vec![got.freeze()]).await.unwrap();
                })
                .detach();
            }
        }
    });
    let clients = (0..CONNECTIONS).map(|number| {
        let rt = rt.clone();
        async move {
            let sent = pattern(1_000 + number);
            let (mut reader, mut writer) = rt.connect(address).await.unwrap().split();
            writer.write_all(vec![sent.clone()]).await.unwrap();
            writer.shutdown().await.unwrap();
            assert!(read_to_end(&mut reader).await == sent);
        }
    });
    join_all(clients).await;
    serving.await.unwrap();
}
