//! Files: through the ring, or on blocking threads where there is none.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use futures::future::join_all;
use monoio::buf::SliceMut;
use quorate_rt::blocking::{BlockingFile, WRITES_ARE_DURABLE, offload, ring_has_no_thread};
use quorate_rt::local_executor::complete;
use quorate_rt::{File, OpenMode};

use crate::gather::gather;
use crate::{LONGEST_TRANSFER, Monoio};

/// The most buffers that a write hands to the ring, all at once. With more, one gathered write on a
/// blocking thread takes less of the processor than an operation for each (monoio has no gathered
/// write at an offset).
const MOST_IN_RING: usize = 8;

/// An open file. Where there is io_uring, buffers below 4 KiB that follow each other are copied
/// into one before they are written; larger ones are written from where they are. Where more than a
/// few are left, they are written on a blocking thread, and so is what is to be durable at once,
/// unless it is a single one.
#[derive(Debug)]
pub struct MonoioFile {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ring(Rc<Ring>),
    Blocking(BlockingFile<Monoio>),
}

#[derive(Debug)]
struct Ring {
    file: monoio::fs::File,
    /// The same file, unless that may only be read; a write through this one is durable when it is
    /// done.
    durable: Option<monoio::fs::File>,
    /// The same open file, for what monoio has no operation for, and for what the kernel has no
    /// thread for.
    blocking: BlockingFile<Monoio>,
}

impl MonoioFile {
    pub(crate) async fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        if monoio::utils::is_legacy() {
            let file = BlockingFile::open(&Monoio, path, mode).await?;
            return Ok(Self { kind: Kind::Blocking(file) });
        }
        let blocking = BlockingFile::open(&Monoio, path, mode).await?;
        let file = monoio::fs::File::from_std(blocking.try_clone()?)?;
        let durable = match mode {
            OpenMode::Read => None,
            OpenMode::Write | OpenMode::CreateNew => {
                let mut options = std::fs::OpenOptions::new();
                options.write(true).custom_flags(WRITES_ARE_DURABLE);
                let path = path.to_owned();
                let file = offload(&Monoio, move || options.open(path)).await?;
                Some(monoio::fs::File::from_std(file)?)
            }
        };
        Ok(Self { kind: Kind::Ring(Rc::new(Ring { file, durable, blocking })) })
    }

    /// To work on it on a blocking thread.
    fn blocking(&self) -> &BlockingFile<Monoio> {
        match &self.kind {
            Kind::Ring(ring) => &ring.blocking,
            Kind::Blocking(file) => file,
        }
    }
}

impl File for MonoioFile {
    async fn read_at(&self, into: BytesMut, offset: u64) -> (io::Result<usize>, BytesMut) {
        let ring = match &self.kind {
            Kind::Ring(ring) => Rc::clone(ring),
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
                (result, spare) = ring.file.read_at(spare, offset).await;
                match result {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if ring_has_no_thread(&error) => {
                        return ring.blocking.read_at(spare.into_inner(), offset).await;
                    }
                    result => return (result, spare.into_inner()),
                }
            }
        })
        .await
    }

    async fn write_all_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let ring = match &self.kind {
            Kind::Ring(ring) => Rc::clone(ring),
            Kind::Blocking(file) => return file.write_all_at(from, offset).await,
        };
        let buffers: Vec<Bytes> = gather(from).collect();
        if buffers.len() > MOST_IN_RING {
            return ring.blocking.write_all_at(buffers, offset).await;
        }
        complete(async move {
            let mut end = offset;
            let writes = buffers.into_iter().map(|buffer| {
                let place = end;
                // The kernel refuses it long before it saturates.
                end = end.saturating_add(buffer.len() as u64);
                ring.write_at(buffer, place)
            });
            // After an error, too: nothing is to be under way when this is over.
            join_all(writes).await.into_iter().collect()
        })
        .await
    }

    async fn sync_data(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Ring(ring) => {
                let ring = Rc::clone(ring);
                complete(async move {
                    match ring.file.sync_data().await {
                        Err(error) if ring_has_no_thread(&error) => ring.blocking.sync_data().await,
                        synced => synced,
                    }
                })
                .await
            }
            Kind::Blocking(file) => file.sync_data().await,
        }
    }

    async fn write_durably_at(&self, from: Vec<Bytes>, offset: u64) -> io::Result<()> {
        let ring = match &self.kind {
            Kind::Ring(ring) => Rc::clone(ring),
            Kind::Blocking(file) => return file.write_durably_at(from, offset).await,
        };
        let mut buffers: Vec<Bytes> = gather(from).collect();
        match buffers.pop() {
            Some(buffer) if buffers.is_empty() => {
                complete(async move { ring.write_durably_at(buffer, offset).await }).await
            }
            // Each would be synced by itself.
            last => {
                buffers.extend(last);
                ring.blocking.write_durably_at(buffers, offset).await
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

impl Ring {
    async fn write_at(&self, buffer: Bytes, offset: u64) -> io::Result<()> {
        let mut left = Unwritten { buffer, offset };
        match left.write(&self.file).await {
            Err(error) if ring_has_no_thread(&error) => {
                self.blocking.write_all_at(vec![left.buffer], left.offset).await
            }
            written => written,
        }
    }

    async fn write_durably_at(&self, buffer: Bytes, offset: u64) -> io::Result<()> {
        let mut left = Unwritten { buffer, offset };
        let file = self.durable.as_ref().unwrap_or(&self.file); // What may only be read refuses.
        match left.write(file).await {
            Err(error) if ring_has_no_thread(&error) => {
                self.blocking.write_durably_at(vec![left.buffer], left.offset).await
            }
            written => written,
        }
    }
}

/// What is left of a write.
struct Unwritten {
    buffer: Bytes,
    offset: u64,
}

impl Unwritten {
    async fn write(&mut self, file: &monoio::fs::File) -> io::Result<()> {
        while !self.buffer.is_empty() {
            let part = self.buffer.slice(..self.buffer.len().min(LONGEST_TRANSFER));
            match file.write_at(part, self.offset).await.0 {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.buffer.advance(written);
                    self.offset = self.offset.saturating_add(written as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
