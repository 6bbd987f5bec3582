//! File work in its blocking form, the building blocks of the production backends: plain functions
//! over `std::fs` that a backend runs on a thread which may block, and [`BlockingFile`], which does
//! so for a [`File`].
//!
//! None of the functions may be called on a runtime's own thread. They fulfil the contracts of the
//! methods of [`Files`](crate::Files) and [`File`] that have the same names.

use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::{Executor, File, Instant, Limited, OpenMode};

/// The most buffers that Linux takes in one gathered write (`UIO_MAXIOV`).
pub const IOV_MAX: usize = 1024;

/// The flag for [`custom_flags`](std::os::unix::fs::OpenOptionsExt::custom_flags) with which each
/// write is durable when it is done. Through a ring a write and a sync are a trip to a worker of
/// the kernel each; with it they are one.
pub const WRITES_ARE_DURABLE: i32 = OFlags::DSYNC.bits() as i32;

/// How often the log says that a ring has no thread.
const WORKER_PAUSE: Duration = Duration::from_secs(60);

/// Whether an operation of io_uring was cancelled because the kernel has no thread for it: what
/// can't be done at once needs one, and where `RLIMIT_NPROC` or the control group refuses even the
/// first, the kernel gives the operation up. It is to be done on a blocking thread then, of which
/// there is always one. A line of the log says so, at most one a minute.
pub fn ring_has_no_thread(error: &io::Error) -> bool {
    thread_local! {
        static LINES: Limited = Limited::new(1, WORKER_PAUSE);
    }
    let is_cancelled = error.raw_os_error() == Some(Errno::CANCELED.raw_os_error());
    if is_cancelled
        && let Some(suppressed) = LINES.with(|lines| lines.pass(Instant::from_system_clock()))
    {
        tracing::warn!(
            suppressed,
            "the kernel has no thread for an operation of io_uring (see RLIMIT_NPROC, and pids of \
             the control group); it is done on a blocking thread"
        );
    }
    is_cancelled
}

/// Runs `work` where it may block, and waits for it.
///
/// # Errors
/// Those of `work`; a panic in it is one of kind `Other`.
///
/// # Cancellation
/// Dropping the future leaves open whether the work is done.
pub async fn offload<R, T>(
    runtime: &R,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T>
where
    R: Executor,
    T: Send + 'static,
{
    runtime.spawn_blocking(work).await.unwrap_or_else(|gone| Err(io::Error::other(gone)))
}

/// A file whose operations run on a backend's blocking threads: for backends without io_uring.
#[derive(Debug)]
pub struct BlockingFile<R> {
    runtime: R,
    file: Arc<fs::File>,
}

impl<R: Executor> BlockingFile<R> {
    /// Opens a file; see [`Files::open`](crate::Files::open).
    pub async fn open(runtime: &R, path: &Path, mode: OpenMode) -> io::Result<Self> {
        let path = path.to_owned();
        let file = offload(runtime, move || open(&path, mode)).await?;
        Ok(Self { runtime: runtime.clone(), file: Arc::new(file) })
    }

    /// Another handle of the same open file.
    pub fn try_clone(&self) -> io::Result<fs::File> {
        self.file.try_clone()
    }

    async fn offload<T: Send + 'static>(
        &self,
        work: impl FnOnce(&fs::File) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(&self.file);
        offload(&self.runtime, move || work(&file)).await
    }
}

impl<R: Executor> File for BlockingFile<R> {
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        match self.offload(move |file| Ok(read_at(file, into, offset))).await {
            Ok(answer) => answer,
            Err(error) => (Err(error), BytesMut::new()), // The buffer went down with its thread.
        }
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.offload(move |file| write_all_at(file, &from, offset)).await
    }

    async fn sync_data(&self) -> io::Result<()> {
        self.offload(fs::File::sync_data).await
    }

    async fn write_durably_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        self.offload(move |file| {
            write_all_at(file, &from, offset)?;
            file.sync_data()
        })
        .await
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.offload(move |file| allocate(file, len)).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.offload(|file| Ok(file.metadata()?.len())).await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.offload(move |file| file.set_len(len)).await
    }
}

/// Opens a file.
pub fn open(path: &Path, mode: OpenMode) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::Read => &mut options,
        OpenMode::Write => options.write(true),
        OpenMode::CreateNew => options.write(true).create_new(true),
    }
    .open(path)
}

/// Reads at `offset` into the spare capacity, appending. Returns how many bytes were read.
pub fn read_at(file: &fs::File, mut into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
    let kept = into.len();
    // Zeroing what the kernel overwrites at once is the price of no `unsafe`; it is small beside
    // the hop between threads.
    into.resize(into.capacity(), 0);
    let result = loop {
        match file.read_at(&mut into[kept..], offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result,
        }
    };
    into.truncate(kept + result.as_ref().map_or(0, |read| *read));
    (result, into)
}

/// Writes all of the buffers at `offset`, gathered.
///
/// # Errors
/// Those of the file system. Some of it may have been written.
pub fn write_all_at(file: &fs::File, from: &[Bytes], mut offset: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = from
        .iter()
        .filter(|buffer| !buffer.is_empty())
        .map(|buffer| IoSlice::new(buffer))
        .collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        let batch = &left[..left.len().min(IOV_MAX)];
        let written = retry_on_intr(|| rustix::io::pwritev(file, batch, offset))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut left, written);
        // The kernel refuses it long before it saturates.
        offset = offset.saturating_add(written as u64);
    }
    Ok(())
}

/// Gives the first `len` bytes space on the disk, extending the file with zeros if it is shorter.
///
/// # Errors
/// `StorageFull` where there is not enough space; those of the file system.
pub fn allocate(file: &fs::File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(()); // The kernel calls that an invalid argument.
    }
    Ok(retry_on_intr(|| rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len))?)
}

/// Creates a directory and those above it, and syncs the directory of each new entry.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = directory_of(path);
    if above != path {
        create_dir_all(above)?;
    }
    match fs::create_dir(path) {
        // Someone else was faster; whether they have synced it is not known.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        result => result?,
    }
    sync_dir(above)
}

/// Returns the names in a directory, sorted.
///
/// # Errors
/// `InvalidData` for a name that is not UTF-8; those of the file system.
pub fn read_dir(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().into_string().map_err(|name| {
            let message = format!("a name that is not UTF-8 in {}: {name:?}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// Renames within one directory, durably.
///
/// # Errors
/// `InvalidInput` for two different directories; those of the file system.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let directory = directory_of(to);
    if directory_of(from) != directory {
        let message = format!("{} and {} are in two directories", from.display(), to.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    fs::rename(from, to)?;
    sync_dir(directory)
}

/// Removes a file; not durable by itself.
pub fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
}

/// Makes a directory's entries durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// An exclusive lock on a file. When it is dropped, the lock becomes free as soon as the file
/// operations and the blocking work have ended that have begun by then, whatever has become of
/// those who began them: whoever gets it next must find nobody who still writes.
pub struct FileLock {
    file: Option<fs::File>,
    after_work: AfterWork,
}

/// Does something when what has begun has ended.
type AfterWork = Box<dyn Fn(Box<dyn FnOnce() + Send>)>;

impl FileLock {
    /// The lock that is taken on `file`. `after_work` is the backend's: it does something when what
    /// has begun has ended.
    pub fn new(file: fs::File, after_work: impl Fn(Box<dyn FnOnce() + Send>) + 'static) -> Self {
        Self { file: Some(file), after_work: Box::new(after_work) }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let file = self.file.take();
        (self.after_work)(Box::new(move || drop(file)));
    }
}

impl std::fmt::Debug for FileLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileLock").field("file", &self.file).finish_non_exhaustive()
    }
}

/// Takes the lock on a file, which is created if it is missing, without waiting. It is free when
/// the file is closed.
///
/// # Errors
/// `WouldBlock` where somebody else holds it; those of the file system.
pub fn lock_file(path: &Path) -> io::Result<fs::File> {
    let file =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::Error(error)) => Err(error),
        Err(fs::TryLockError::WouldBlock) => {
            let message = format!("{} is locked by someone else", path.display());
            Err(io::Error::new(io::ErrorKind::WouldBlock, message))
        }
    }
}

/// The directory that holds an entry; of a bare name, the current one.
fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}
