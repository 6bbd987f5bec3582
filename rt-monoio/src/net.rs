//! TCP on monoio's sockets.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use monoio::buf::SliceMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Splitable};
use monoio::net::{TcpListener, TcpStream};
use quorate_rt::local_executor::cooperate;
use quorate_rt::{Listener, ReadHalf, Stream, WriteHalf, sockets};

use crate::LONGEST_TRANSFER;
use crate::gather::gather;

/// A listening TCP socket.
#[derive(Debug)]
pub struct MonoioListener {
    listener: TcpListener,
    /// The same socket, to be shut down when this is dropped.
    twin: std::net::TcpListener,
}

impl MonoioListener {
    pub(crate) fn bind(on: SocketAddr) -> io::Result<Self> {
        let twin = sockets::listen(on)?;
        // The ring waits by itself, and would not for a non-blocking socket.
        twin.set_nonblocking(monoio::utils::is_legacy())?;
        Ok(Self { listener: TcpListener::from_std(twin.try_clone()?)?, twin })
    }
}

impl Drop for MonoioListener {
    fn drop(&mut self) {
        // monoio closes by way of the ring, after an accept that may be under way: too late for who
        // wants the port next. This ends the listening now; it fails only where that has happened
        // before.
        let _ = rustix::net::shutdown(&self.twin, rustix::net::Shutdown::Both);
    }
}

impl Listener for MonoioListener {
    type Stream = MonoioStream;

    async fn accept(&mut self) -> io::Result<(MonoioStream, SocketAddr)> {
        cooperate().await;
        let (stream, peer) = self.listener.accept().await?;
        Ok((MonoioStream { stream }, sockets::peer_address(peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A TCP connection.
#[derive(Debug)]
pub struct MonoioStream {
    stream: TcpStream,
}

impl MonoioStream {
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        // monoio connects no socket but its own.
        let stream = TcpStream::connect_addr(to).await?;
        stream.set_nodelay(true)?;
        stream.set_tcp_keepalive(
            Some(sockets::KEEPALIVE_IDLE),
            Some(sockets::KEEPALIVE_INTERVAL),
            Some(sockets::KEEPALIVE_PROBES),
        )?;
        Ok(Self { stream })
    }
}

impl Stream for MonoioStream {
    type ReadHalf = MonoioReadHalf;
    type WriteHalf = MonoioWriteHalf;

    fn split(self) -> (MonoioReadHalf, MonoioWriteHalf) {
        let (read, write) = self.stream.into_split();
        let left_behind = Rc::new(Cell::new(None));
        (
            MonoioReadHalf { half: read, _left_behind: Rc::clone(&left_behind) },
            MonoioWriteHalf { half: Some(write), left_behind },
        )
    }
}

/// Where a write half goes when it is dropped: monoio's sends the end of the stream then, and ours
/// must not while the read half lives.
type LeftBehind = Rc<Cell<Option<OwnedWriteHalf<TcpStream>>>>;

/// The reading side of a connection.
pub struct MonoioReadHalf {
    half: OwnedReadHalf<TcpStream>,
    _left_behind: LeftBehind,
}

impl ReadHalf for MonoioReadHalf {
    async fn read(&mut self, into: BytesMut) -> (io::Result<usize>, BytesMut) {
        let (begin, end) = (into.len(), into.capacity());
        if begin == end {
            return (Err(io::ErrorKind::InvalidInput.into()), into);
        }
        cooperate().await;
        // As it is, monoio would read over what is in the buffer.
        let spare = SliceMut::new(into, begin, end.min(begin.saturating_add(LONGEST_TRANSFER)));
        let (result, spare) = self.half.read(spare).await;
        (result, spare.into_inner())
    }
}

impl std::fmt::Debug for MonoioReadHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MonoioReadHalf").finish_non_exhaustive()
    }
}

/// The writing side of a connection. Buffers below 4 KiB that follow each other are copied into
/// one; larger ones are sent from where they are.
pub struct MonoioWriteHalf {
    /// Taken when this is dropped.
    half: Option<OwnedWriteHalf<TcpStream>>,
    left_behind: LeftBehind,
}

impl MonoioWriteHalf {
    fn half(&mut self) -> io::Result<&mut OwnedWriteHalf<TcpStream>> {
        self.half.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl WriteHalf for MonoioWriteHalf {
    async fn write_all(&mut self, from: Vec<Bytes>) -> io::Result<()> {
        cooperate().await;
        let half = self.half()?;
        for mut buffer in gather(from) {
            while !buffer.is_empty() {
                let part = buffer.slice(..buffer.len().min(LONGEST_TRANSFER));
                match half.write(part).await.0 {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(sent) => buffer.advance(sent),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.half()?.shutdown().await
    }
}

impl Drop for MonoioWriteHalf {
    fn drop(&mut self) {
        self.left_behind.set(self.half.take());
    }
}

impl std::fmt::Debug for MonoioWriteHalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MonoioWriteHalf").finish_non_exhaustive()
    }
}
