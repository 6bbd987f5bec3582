//! TCP: listeners, streams and their halves.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

/// A listening TCP socket. Dropping it closes it.
pub trait Listener: 'static {
    /// What it accepts.
    type Stream: Stream;

    /// The next connection, with `TCP_NODELAY` set, and the address of its other end: that of IPv4
    /// where it came by that, to `[::]`, too. The connection breaks within
    /// [`VANISHED`](crate::sockets::VANISHED) after its other end has vanished without a word.
    ///
    /// Errors that concern one connection or the number of open files (`EMFILE`) are returned too: log them,
    /// wait a little, and accept on.
    async fn accept(&mut self) -> io::Result<(Self::Stream, SocketAddr)>;

    /// The address it listens on, with the port that the kernel chose.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A TCP connection.
pub trait Stream: 'static {
    /// Its reading side.
    type ReadHalf: ReadHalf;
    /// Its writing side.
    type WriteHalf: WriteHalf;

    /// Takes it apart, so that two tasks can use it. The socket closes when both halves are gone.
    fn split(self) -> (Self::ReadHalf, Self::WriteHalf);
}

/// The reading side of a connection.
pub trait ReadHalf: 'static {
    /// Appends what has arrived to `into`, at most as much as its spare capacity, and waits for at least
    /// one byte. The bytes already in it stay. 0 is the end of the stream.
    ///
    /// Errors: `InvalidInput` where `into` has no spare capacity (the caller reserves; nothing grows by
    /// itself); `ConnectionReset` and the like when the peer has vanished.
    ///
    /// Dropping the future may lose bytes: then drop the half, too.
    async fn read(&mut self, into: BytesMut) -> (io::Result<usize>, BytesMut);
}

/// The writing side of a connection. Dropping it sends no end of stream while the other half lives.
pub trait WriteHalf: 'static {
    /// Writes all of the buffers, in order, gathered into as few system calls as the kernel allows.
    ///
    /// On an error some of it may have been sent. Dropping the future leaves the stream in the middle of
    /// something: then drop the half, too.
    async fn write_all(&mut self, from: Vec<Bytes>) -> io::Result<()>;

    /// Sends the end of the stream (FIN); the peer's reads end after what was written. Reading goes on.
    async fn shutdown(&mut self) -> io::Result<()>;
}
