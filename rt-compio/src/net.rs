//! TCP on compio's sockets. The halves share one socket.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::io::{AsyncRead, AsyncWrite};
use compio::net::{TcpListener, TcpSocket, TcpStream};
use quorate_rt::local_executor::cooperate;
use quorate_rt::{Listener, ReadHalf, Stream, WriteHalf, sockets};

use crate::{LONGEST_TRANSFER, Unwritten};

/// A listening TCP socket.
#[derive(Debug)]
pub struct CompioListener {
    listener: TcpListener,
    /// The same socket, to be shut down when this is dropped.
    twin: std::net::TcpListener,
}

impl CompioListener {
    // Where compio polls, it would make its sockets on threads of its own, and panic where one is
    // refused.
    pub(crate) fn bind(on: SocketAddr) -> io::Result<Self> {
        let twin = sockets::listen(on)?;
        Ok(Self { listener: TcpListener::from_std(twin.try_clone()?)?, twin })
    }
}

impl Drop for CompioListener {
    fn drop(&mut self) {
        // An accept that is under way keeps the socket until the driver has ended it: too late for
        // who wants the port next. This ends the listening now; it fails only where that has
        // happened before.
        let _ = rustix::net::shutdown(&self.twin, rustix::net::Shutdown::Both);
    }
}

impl Listener for CompioListener {
    type Stream = CompioStream;

    async fn accept(&mut self) -> io::Result<(CompioStream, SocketAddr)> {
        cooperate().await;
        let (stream, peer) = self.listener.accept().await?;
        Ok((CompioStream { stream }, sockets::peer_address(peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A TCP connection.
#[derive(Debug)]
pub struct CompioStream {
    stream: TcpStream,
}

impl CompioStream {
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::from_std_stream(sockets::unconnected(to)?)?;
        Ok(Self { stream: socket.connect(to).await? })
    }
}

impl Stream for CompioStream {
    type ReadHalf = CompioReadHalf;
    type WriteHalf = CompioWriteHalf;

    fn split(self) -> (CompioReadHalf, CompioWriteHalf) {
        let (read, write) = self.stream.into_split();
        (CompioReadHalf { stream: read }, CompioWriteHalf { stream: write })
    }
}

/// The reading side of a connection.
#[derive(Debug)]
pub struct CompioReadHalf {
    stream: TcpStream,
}

impl ReadHalf for CompioReadHalf {
    async fn read(&mut self, into: BytesMut) -> (io::Result<usize>, BytesMut) {
        let (begin, end) = (into.len(), into.capacity());
        if begin == end {
            return (Err(io::ErrorKind::InvalidInput.into()), into);
        }
        cooperate().await;
        // As it is, compio would read over what is in the buffer.
        let spare = into.slice(begin..end.min(begin.saturating_add(LONGEST_TRANSFER)));
        let BufResult(result, spare) = self.stream.read(spare).await;
        (result, spare.into_inner())
    }
}

/// The writing side of a connection.
#[derive(Debug)]
pub struct CompioWriteHalf {
    stream: TcpStream,
}

impl WriteHalf for CompioWriteHalf {
    async fn write_all(&mut self, from: Vec<Bytes>) -> io::Result<()> {
        cooperate().await;
        let mut left = Unwritten::new(from);
        while let Some(batch) = left.batch() {
            match self.stream.write_vectored(batch).await.0 {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => left.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write)?)
    }
}
