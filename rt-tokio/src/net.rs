//! TCP on tokio's sockets. The halves share one socket by `Rc`; tokio's own owned halves would send
//! the end of the stream when the writing one is dropped.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use quorate_rt::{Listener, ReadHalf, Stream, WriteHalf, sockets};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A listening TCP socket.
#[derive(Debug)]
pub struct TokioListener {
    listener: TcpListener,
}

impl TokioListener {
    pub(crate) fn bind(on: SocketAddr) -> io::Result<Self> {
        let listener = sockets::listen(on)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)? })
    }
}

impl Listener for TokioListener {
    type Stream = TokioStream;

    async fn accept(&mut self) -> io::Result<(TokioStream, SocketAddr)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((TokioStream { stream }, sockets::peer_address(peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A TCP connection.
#[derive(Debug)]
pub struct TokioStream {
    stream: TcpStream,
}

impl TokioStream {
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let socket = sockets::unconnected(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self { stream: TcpSocket::from_std_stream(socket).connect(to).await? })
    }
}

impl Stream for TokioStream {
    type ReadHalf = TokioReadHalf;
    type WriteHalf = TokioWriteHalf;

    fn split(self) -> (TokioReadHalf, TokioWriteHalf) {
        let stream = Rc::new(self.stream);
        (TokioReadHalf { stream: Rc::clone(&stream) }, TokioWriteHalf { stream })
    }
}

/// The reading side of a connection.
#[derive(Debug)]
pub struct TokioReadHalf {
    stream: Rc<TcpStream>,
}

impl ReadHalf for TokioReadHalf {
    async fn read(&mut self, mut into: BytesMut) -> (io::Result<usize>, BytesMut) {
        if into.len() == into.capacity() {
            return (Err(io::ErrorKind::InvalidInput.into()), into);
        }
        // Waiting for readiness first, rather than trying first, also yields now and then to the
        // other tasks when a peer sends without end.
        let result = poll_fn(|context| {
            loop {
                ready!(self.stream.poll_read_ready(context))?;
                match self.stream.try_read_buf(&mut into) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
        })
        .await;
        (result, into)
    }
}

/// The writing side of a connection.
#[derive(Debug)]
pub struct TokioWriteHalf {
    stream: Rc<TcpStream>,
}

impl WriteHalf for TokioWriteHalf {
    async fn write_all(&mut self, from: Vec<Bytes>) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = from
            .iter()
            .filter(|buffer| !buffer.is_empty())
            .map(|buffer| IoSlice::new(buffer))
            .collect();
        let mut left = &mut slices[..];
        while !left.is_empty() {
            let written = poll_fn(|context| {
                loop {
                    ready!(self.stream.poll_write_ready(context))?;
                    // std hands the kernel no more of them than it takes at once (IOV_MAX).
                    match self.stream.try_write_vectored(left) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return Poll::Ready(result),
                    }
                }
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write)?)
    }
}
