//! TCP and names: sockets, their halves, and looking names up.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};

use crate::{Executor, names};

/// TCP, and looking names up. Every runtime with a network is an [`Executor`]: its I/O belongs to
/// tasks.
pub trait Network: Executor {
    /// A listening TCP socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// A TCP connection.
    type Stream: Stream;

    /// Listens on `on`; port 0 takes a free one. The address may be reused at once after a close
    /// (`SO_REUSEADDR`), so that a restarted process gets its port back. On `[::]` also connections
    /// by IPv4 arrive.
    ///
    /// # Errors
    /// `AddrInUse` for a port on which another socket listens (no `SO_REUSEPORT`);
    /// `AddrNotAvailable` for an address that is not this machine's; those of sockets.
    async fn listen(&self, on: SocketAddr) -> io::Result<Self::Listener>;

    /// Returns the addresses of `host:port`, at least one, each once, in the order in which they
    /// should be tried. An IP address, one of IPv6 in brackets, is returned as it is.
    ///
    /// A name is looked up by the operating system, on up to four threads that are only for that,
    /// so that look-ups that hang hold up nothing else. Look-ups of one name at the same time are
    /// one. A look-up takes as long as name servers don't answer: have a time limit. A runtime with
    /// names of its own, as a simulator, overrides this method.
    ///
    /// # Errors
    /// `InvalidInput` where it is not `host:port`; a name that is not known, or whose servers don't
    /// answer or refuse; `ResourceBusy` where too many look-ups hang; a thread that is refused.
    ///
    /// # Cancellation
    /// Dropping the future forgets the answer. The look-up goes on, for others that ask for it.
    async fn resolve(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        names::resolve(host_and_port).await
    }

    /// Opens a connection, with `TCP_NODELAY` set, and keepalive: it breaks within
    /// [`VANISHED`](crate::sockets::VANISHED) when the other end vanishes while nothing is on its
    /// way. Without an answer it takes minutes: have a time limit.
    ///
    /// # Errors
    /// `ConnectionRefused` where nobody listens; those of sockets and routes.
    ///
    /// # Cancellation
    /// In a task of its own, as all I/O: when that is dropped, the attempt ends and its socket
    /// closes.
    async fn connect(&self, to: SocketAddr) -> io::Result<Self::Stream>;
}

/// A listening TCP socket. Dropping it closes it.
pub trait Listener: 'static {
    /// What it accepts.
    type Stream: Stream;

    /// The next connection, with `TCP_NODELAY` set, and the address of its other end: that of IPv4
    /// where it came by that, to `[::]`, too. The connection breaks within
    /// [`VANISHED`](crate::sockets::VANISHED) after its other end has vanished without a word.
    ///
    /// # Errors
    /// Those that concern one connection or the number of open files (`EMFILE`), too: log them,
    /// wait a little, and accept on.
    ///
    /// # Cancellation
    /// Dropping the future may close a connection that has just arrived.
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
    /// Appends what has arrived to `into`, at most as much as its spare capacity, and waits for at
    /// least one byte. The bytes already in it stay. 0 is the end of the stream.
    ///
    /// # Errors
    /// `InvalidInput` where `into` has no spare capacity (the caller reserves; nothing grows by
    /// itself); `ConnectionReset` and the like when the peer has vanished.
    ///
    /// # Cancellation
    /// Dropping the future may lose bytes: then drop the half, too.
    async fn read(&mut self, into: BytesMut) -> (io::Result<usize>, BytesMut);
}

/// The writing side of a connection. Dropping it sends no end of stream while the other half lives.
pub trait WriteHalf: 'static {
    /// Writes all of the buffers, in order, gathered into as few system calls as the kernel allows.
    ///
    /// # Errors
    /// `BrokenPipe`, `ConnectionReset` and the like. Some of it may have been sent.
    ///
    /// # Cancellation
    /// Dropping the future leaves the stream in the middle of something: then drop the half, too.
    async fn write_all(&mut self, from: Vec<Bytes>) -> io::Result<()>;

    /// Sends the end of the stream (FIN); the peer's reads end after what was written. Reading goes
    /// on.
    async fn shutdown(&mut self) -> io::Result<()>;
}
