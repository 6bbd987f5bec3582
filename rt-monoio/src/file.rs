//! Files: through the ring, or on blocking threads where there is none.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::join_all;
use monoio::buf::SliceMut;
use quorate_rt::blocking::{BlockingFile, WRITES_ARE_DURABLE, offload};
use quorate_rt::executor::complete;
use quorate_rt::{File, OpenMode};

use crate::gather::gather;
use crate::{LONGEST_TRANSFER, Monoio};

/// The most buffers that a write hands to the ring, all at once. With more, one gathered write on a blocking thread takes less
/// of the processor than an operation for each (monoio has no gathered write at an offset).
const MOST_IN_RING: usize = 8;

/// An open file. Where there is io_uring, buffers below 4 KiB that follow each other are copied into one before
/// they are written; larger ones are written from where they are. Where more than a few are left, they are written on a blocking thread,
/// and so is what is to be durable at once, unless it is a single one.
#[derive(Debug)]
pub struct MonoioFile {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ring {
        file: Rc<monoio::fs::File>,
        /// The same file, unless that may only be read; a write through this one is durable when it is done.
        durable: Option<Rc<monoio::fs::File>>,
        /// The same open file, for what monoio has no operation for.
        blocking: BlockingFile<Monoio>,
    },
    Blocking(BlockingFile<Monoio>),
}

impl MonoioFile {
    pub(crate) async fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        if monoio::utils::is_legacy() {
            let file = BlockingFile::open(&Monoio, path, mode).await?;
            return Ok(Self { kind: Kind::Blocking(file) });
        }
        let blocking = BlockingFile::open(&Monoio, path, mode).await?;
        let file = Rc::new(monoio::fs::File::from_std(blocking.try_clone()?)?);
        let durable = match mode {
            OpenMode::Read => None,
            OpenMode::Write | OpenMode::CreateNew => {
                let mut options = std::fs::OpenOptions::new();
                options.write(true).custom_flags(WRITES_ARE_DURABLE);
                let path = path.to_owned();
                let file = offload(&Monoio, move || options.open(path)).await?;
                Some(Rc::new(monoio::fs::File::from_std(file)?))
            }
        };
        Ok(Self { kind: Kind::Ring { file, durable, blocking } })
    }

    /// To work on it on a blocking thread.
    fn blocking(&self) -> &BlockingFile<Monoio> {
        match &self.kind {
            Kind::Ring { blocking, .. } | Kind::Blocking(blocking) => blocking,
        }
    }
}

impl File for MonoioFile {
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        let file = match &self.kind {
            Kind::Ring { file, .. } => Rc::clone(file),
            Kind::Blocking(file) => return file.read_at(into, offset).await,
        };
        let (begin, end) = (into.len(), into.capacity());
        if begin == end {
            return (Ok(0), into);
        }
        complete(async move {
            let end = end.min(begin.saturating_add(LONGEST_TRANSFER));
            // As it is, monoio would read over what is in the buffer.
            let mut spare = SliceMut::new(into, begin, end);
            loop {
                let result;
                (result, spare) = file.read_at(spare, offset).await;
                match result {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => return (result, spare.into_inner()),
                }
            }
        })
        .await
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let (file, blocking) = match &self.kind {
            Kind::Ring { file, blocking, .. } => (Rc::clone(file), blocking),
            Kind::Blocking(file) => return file.write_all_at(from, offset).await,
        };
        let buffers: Vec<Bytes> = gather(from).collect();
        if buffers.len() > MOST_IN_RING {
            return blocking.write_all_at(buffers, offset).await;
        }
        complete(async move {
            let mut end = offset;
            let writes = buffers.into_iter().map(|buffer| {
                let place = end;
                end = end.saturating_add(buffer.len() as u64); // The kernel refuses it long before it saturates.
                write_one_at(&file, buffer, place)
            });
            // After an error, too: nothing is to be under way when this is over.
            join_all(writes).await.into_iter().collect()
        })
        .await
    }

    async fn sync_data(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Ring { file, .. } => {
                let file = Rc::clone(file);
                complete(async move { file.sync_data().await }).await
            }
            Kind::Blocking(file) => file.sync_data().await,
        }
    }

    async fn write_durably_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let Kind::Ring { durable: Some(durable), .. } = &self.kind else {
            return self.blocking().write_durably_at(from, offset).await;
        };
        let mut buffers: Vec<Bytes> = gather(from).collect();
        match buffers.pop() {
            Some(buffer) if buffers.is_empty() => {
                let file = Rc::clone(durable);
                complete(async move { write_one_at(&file, buffer, offset).await }).await
            }
            // Each would be synced by itself.
            last => {
                buffers.extend(last);
                self.blocking().write_durably_at(buffers, offset).await
            }
        }
    }

    async fn allocate(&self, len: u64) -> io::Result<()> {
        self.blocking().allocate(len).await
    }

    async fn len(&self) -> io::Result<u64> {
        self.blocking().len().await
    }

    async fn set_len(&self, len: u64) -> io::Result<()> {
        self.blocking().set_len(len).await
    }
}

async fn write_one_at(
    file: &monoio::fs::File,
    mut buffer: Bytes,
    mut offset: u64,
) -> io::Result<()> {
    while !buffer.is_empty() {
        let part = buffer.slice(..buffer.len().min(LONGEST_TRANSFER));
        match file.write_at(part, offset).await.0 {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                buffer.advance(written);
                offset = offset.saturating_add(written as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
