//! Files: positional, with owned buffers and explicit durability.

use std::io;

use bytes::{Bytes, BytesMut};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist (`AlreadyExists`). The new name is durable only after
    /// [`AsyncRuntime::sync_dir`](crate::AsyncRuntime::sync_dir).
    CreateNew,
}

/// An open file, read and written by position. It may be used by several tasks of its thread at once
/// (`&self`): operations that overlap in bytes have no order among them unless one is awaited first.
///
/// Dropping the future of a write leaves open whether it happens. Dropping the file closes it, after the
/// operations under way.
#[expect(clippy::len_without_is_empty, reason = "a file's length is a question to the kernel")]
pub trait File: 'static {
    /// Reads at `offset` into the spare capacity of `into`, appending; the bytes already in it stay. It may
    /// read less than there is room for; 0 is the end of the file (or no spare capacity).
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut);

    /// Writes all of the buffers, one after the other, at `offset`. On an error some of it may have been written.
    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()>;

    /// Makes what has been written durable, with as much metadata as is needed to read it back (`fdatasync`).
    ///
    /// After an error the state of the file's unsynced writes is unknown for good: never call it again and
    /// believe the answer (Rebello et al., ATC 2020).
    async fn sync_data(&self) -> io::Result<()>;

    /// Writes like [`write_all_at`](Self::write_all_at), and makes that durable like [`sync_data`](Self::sync_data), in one trip where a backend
    /// can: a log waits for both, and a trip to another thread and back takes up to a fifth as long as a fast disk's sync. Whether what was
    /// written before is durable then, too, is left open.
    ///
    /// After an error the state of these bytes is unknown for good; see `sync_data`.
    async fn write_durably_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.write_all_at(from, offset).await?;
        self.sync_data().await
    }

    /// Makes sure that the first `len` bytes have space on the disk, extending the file with zeros if it is shorter
    /// (`fallocate`). Writing there later needs no new metadata, which halves the cost of a `sync_data`.
    /// Durable after `sync_data`. `StorageFull` where there is not enough.
    async fn allocate(&self, len: u64) -> io::Result<()>;

    /// The length in bytes.
    async fn len(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros.
    async fn set_len(&self, len: u64) -> io::Result<()>;
}
