//! Files: through the ring, or on blocking threads where there is none.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::fs::OpenOptions;
use compio::io::{AsyncReadAt, AsyncWriteAt};
use compio::runtime::Runtime;
use quorate_rt::blocking::{self, BlockingFile, offload, ring_has_no_thread};
use quorate_rt::local_executor::complete;
use quorate_rt::{File, OpenMode};

use crate::{Compio, LONGEST_TRANSFER, Unwritten};

/// An open file.
#[derive(Debug)]
pub struct CompioFile {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ring {
        file: compio::fs::File,
        /// The same file, unless that may only be read; a write through this one is durable when it
        /// is done.
        durable: Option<compio::fs::File>,
    },
    Blocking(BlockingFile<Compio>),
}

impl CompioFile {
    pub(crate) async fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        let is_polling = Runtime::with_current(|runtime| runtime.driver_type().is_polling());
        if is_polling {
            return Self::open_blocking(path, mode).await;
        }
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let file = match open_in_ring(options, path).await {
            Err(error) if ring_has_no_thread(&error) => {
                return Self::open_blocking(path, mode).await;
            }
            opened => opened?,
        };
        if mode == OpenMode::Read {
            return Ok(Self { kind: Kind::Ring { file, durable: None } });
        }
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(blocking::WRITES_ARE_DURABLE);
        match open_in_ring(options, path).await {
            Err(error) if ring_has_no_thread(&error) => {
                Self::open_blocking(path, OpenMode::Write).await // It is there by now.
            }
            durable => Ok(Self { kind: Kind::Ring { file, durable: Some(durable?) } }),
        }
    }

    async fn open_blocking(path: &Path, mode: OpenMode) -> io::Result<Self> {
        let file = BlockingFile::open(&Compio, path, mode).await?;
        Ok(Self { kind: Kind::Blocking(file) })
    }
}

async fn open_in_ring(options: OpenOptions, path: &Path) -> io::Result<compio::fs::File> {
    let path = path.to_owned();
    complete(async move { options.open(&path).await }).await
}

impl File for CompioFile {
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        let file = match &self.kind {
            Kind::Ring { file, .. } => file.clone(),
            Kind::Blocking(file) => return file.read_at(into, offset).await,
        };
        let (begin, end) = (into.len(), into.capacity());
        if begin == end {
            return (Ok(0), into);
        }
        complete(async move {
            // As it is, compio would read over what is in the buffer.
            let mut spare = into.slice(begin..end.min(begin.saturating_add(LONGEST_TRANSFER)));
            loop {
                let result;
                BufResult(result, spare) = file.read_at(spare, offset).await;
                match result {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if ring_has_no_thread(&error) => {
                        let into = spare.into_inner();
                        let read = move |file: &_| Ok(blocking::read_at(file, into, offset));
                        return on_thread(&file, read)
                            .await
                            .unwrap_or_else(|error| (Err(error), BytesMut::new()));
                    }
                    result => return (result, spare.into_inner()),
                }
            }
        })
        .await
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Ring { file, .. } => complete(write(file.clone(), from, offset)).await,
            Kind::Blocking(file) => file.write_all_at(from, offset).await,
        }
    }

    async fn sync_data(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Ring { file, .. } => {
                let file = file.clone();
                complete(async move {
                    match file.sync_data().await {
                        Err(error) if ring_has_no_thread(&error) => {
                            on_thread(&file, std::fs::File::sync_data).await
                        }
                        synced => synced,
                    }
                })
                .await
            }
            Kind::Blocking(file) => file.sync_data().await,
        }
    }

    async fn write_durably_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Ring { file, durable } => {
                let file = durable.as_ref().unwrap_or(file); // What may only be read refuses.
                complete(write(file.clone(), from, offset)).await
            }
            Kind::Blocking(file) => file.write_durably_at(from, offset).await,
        }
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Ring { file, .. } => {
                // compio has no operation for it.
                on_thread(file, move |file| blocking::allocate(file, len)).await
            }
            Kind::Blocking(file) => file.allocate(len).await,
        }
    }

    async fn len(&self) -> io::Result<u64> {
        match &self.kind {
            Kind::Ring { file, .. } => {
                // The ring would take a thread of the kernel for it, too.
                on_thread(file, |file| Ok(file.metadata()?.len())).await
            }
            Kind::Blocking(file) => file.len().await,
        }
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.kind {
            Kind::Ring { file, .. } => {
                // Before Linux 6.9 compio does it on a thread of its own, and panics where that is
                // refused.
                on_thread(file, move |file| file.set_len(len)).await
            }
            Kind::Blocking(file) => file.set_len(len).await,
        }
    }
}

/// Works on the file of a ring on a blocking thread.
async fn on_thread<T: Send + 'static>(
    file: &compio::fs::File,
    work: impl FnOnce(&std::fs::File) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let file = std::fs::File::from(file.as_fd().try_clone_to_owned()?);
    offload(&Compio, move || work(&file)).await
}

async fn write(mut file: compio::fs::File, from: Vec<Bytes>, mut offset: u64) -> io::Result<()> {
    let mut left = Unwritten::new(from);
    while let Some(batch) = left.batch() {
        match file.write_vectored_at(batch, offset).await.0 {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                left.advance(written);
                // The kernel refuses it long before it saturates.
                offset = offset.saturating_add(written as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if ring_has_no_thread(&error) => {
                let from: Vec<Bytes> = left.buffers.into();
                let write = move |file: &_| blocking::write_all_at(file, &from, offset);
                return on_thread(&file, write).await;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
