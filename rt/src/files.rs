//! Files and directories: positional, with owned buffers and explicit durability.

use std::io;
use std::path::Path;

use bytes::{Bytes, BytesMut};

use crate::{Executor, blocking};

/// Files and directories. Every runtime with files is an [`Executor`]: its I/O belongs to tasks.
///
/// Default implementations call `std::fs` on a thread for blocking work. A runtime with virtual
/// files, as a simulator, overrides all of them.
///
/// # Errors
/// Those of the operating system, unless a method says more: `NotFound`, `PermissionDenied`,
/// `StorageFull`, and those of the disk.
///
/// # Cancellation
/// Dropping the future of an operation leaves open whether it happens.
pub trait Files: Executor {
    /// An open file.
    type File: File;
    /// An exclusive lock on a file, held until it is dropped.
    type FileLock: 'static;

    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` and `AlreadyExists`, as `mode` says.
    async fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;

    /// Creates a directory and those above it, and syncs the directory of each new entry. Does
    /// nothing if it exists.
    async fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::create_dir_all(&path)).await
    }

    /// Returns the names in a directory, sorted.
    ///
    /// # Errors
    /// `InvalidData` for a name that is not UTF-8.
    async fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::read_dir(&path)).await
    }

    /// Renames within one directory, replacing the target, and makes that durable (syncs the
    /// directory).
    ///
    /// # Errors
    /// `InvalidInput` for two different directories.
    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        blocking::offload(self, move || blocking::rename(&from, &to)).await
    }

    /// Removes a file. Durable only after [`sync_dir`](Files::sync_dir) on its directory.
    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::remove_file(&path)).await
    }

    /// Makes creations, renames and removals in a directory durable.
    async fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        blocking::offload(self, move || blocking::sync_dir(&path)).await
    }

    /// Takes an exclusive advisory lock on a file, created if it is missing, without waiting. The
    /// lock ends with the process, however that dies.
    ///
    /// # Errors
    /// `WouldBlock` where another process, or another handle in this one, holds it.
    async fn lock_file(&self, path: &Path) -> io::Result<Self::FileLock>;
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; it must not exist (`AlreadyExists`). The new name is durable only
    /// after [`Files::sync_dir`].
    CreateNew,
}

/// An open file, read and written by position. It may be used by several tasks of its thread at
/// once (`&self`): operations that overlap in bytes have no order among them unless one is awaited
/// first.
///
/// Dropping the file closes it, after the operations under way.
///
/// # Errors
/// Those of the disk and the file system, unless a method says more.
///
/// # Cancellation
/// Dropping the future of a write or a sync leaves open whether it happens. Nothing is corrupted:
/// a buffer that is in use stays alive until the operation ends.
#[expect(clippy::len_without_is_empty, reason = "a file's length is a question to the kernel")]
pub trait File: 'static {
    /// Reads at `offset` (bytes from the begin) into the spare capacity of `into`, appending; the
    /// bytes already in it stay. Returns how many bytes were read, which may be less than there is
    /// room for; 0 is the end of the file (or no spare capacity).
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut);

    /// Writes all of the buffers, one after the other, at `offset`. What lies between the end of
    /// the file and `offset` becomes zeros.
    ///
    /// # Errors
    /// `StorageFull`, and those of the disk. Some of it may have been written.
    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()>;

    /// Makes what has been written durable, with as much metadata as is needed to read it back
    /// (`fdatasync`).
    ///
    /// # Errors
    /// After any, the state of the file's unsynced writes is unknown for good: never call it again
    /// and believe the answer (Rebello et al., ATC 2020).
    async fn sync_data(&self) -> io::Result<()>;

    /// Writes like [`write_all_at`](Self::write_all_at), and makes that durable like
    /// [`sync_data`](Self::sync_data), in one trip where a backend can: a log waits for both, and a
    /// trip to another thread and back takes up to a fifth as long as a fast disk's sync. Whether
    /// what was written before is durable then, too, is left open.
    ///
    /// # Errors
    /// After any, the state of these bytes is unknown for good; see `sync_data`.
    async fn write_durably_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.write_all_at(from, offset).await?;
        self.sync_data().await
    }

    /// Makes sure that the first `len` bytes have space on the disk, extending the file with zeros
    /// if it is shorter (`fallocate`). Writing there later needs no new metadata, which halves the
    /// cost of a `sync_data`. Durable after `sync_data`.
    ///
    /// # Errors
    /// `StorageFull` where there is not enough space.
    async fn allocate(&self, len: u64) -> io::Result<()>;

    /// Returns the length in bytes.
    async fn len(&self) -> io::Result<u64>;

    /// Cuts the file to `len` bytes, or extends it with zeros. Durable after `sync_data`.
    async fn set_len(&self, len: u64) -> io::Result<()>;
}
